"""Semantic duplicates in a row of vectors: each is compared with those before it (SemDeDup, arXiv 2303.09540).

    cos(i, j) = <x_i, x_j> / sqrt(<x_i, x_i> <x_j, x_j>)
    j is a duplicate if cos(i, j) > 1 - epsilon for some i < j

With `survivors` i must itself be no duplicate: the paper's rule, one document stays for each group. Without, a
duplicate still puts out others: the rule of the published code. Of three unit vectors at angles 0, t and 2t with
cos t = 0.96, and epsilon 0.05, the first rule leaves two and the second one.

On the grid of `grid.py` every product and every squared length is exact, equal vectors have cosine 1, and the result
does not depend on the size of a block or on threads. A vector of length 0 is like no other. Work: n^2 d operations, or
n d times the survivors; memory besides the vectors: four bytes a pair of a block.
"""

import numpy as np
from numba import njit

BLOCK = 2048
"""Rows and columns of a block of scores: 16 MiB."""


def semantic_duplicates_reference(
    vectors: np.ndarray, epsilon: float, *, survivors: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The same pair by pair."""
    wide = vectors.astype(np.float64)
    squares = [float(v @ v) for v in wide]
    other, cosine = np.full(len(wide), -1, np.int64), np.zeros(len(wide))
    for j in range(len(wide)):
        for i in range(j):
            if survivors and other[i] >= 0 or not squares[i] * squares[j]:
                continue
            found = float(wide[i] @ wide[j]) / float(np.sqrt(squares[i] * squares[j]))
            if found > 1 - epsilon and found > cosine[j]:
                other[j], cosine[j] = i, found
    return other, cosine


def semantic_duplicates(
    vectors: np.ndarray, epsilon: float, *, survivors: bool, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the duplicates.

    Args:
        vectors: Vectors on the grid in the order of preference, float16 or float32[n, d].
        epsilon: In (0, 1): how far below 1 the cosine of duplicates may be.
        survivors: Whether only those that stay put others out.
        block: Rows and columns compared at once; bounds memory and changes nothing else.

    Returns:
        Of each row the most similar row that puts it out (the first of equally similar ones; -1 for a row that stays),
        int64[n], and their cosine (0 for a row that stays), float64[n].
    """
    count = len(vectors)
    squares, other = np.zeros(count), np.full(count, -1, np.int64)
    dot, value = np.zeros(count), np.zeros(count)
    for start in range(0, count, block):
        part = vectors[start : start + block].astype(np.float64)
        squares[start : start + block] = np.einsum("ij,ij->i", part, part)
    inverse = np.divide(1, np.sqrt(squares), out=np.zeros(count), where=squares > 0)
    for start in range(0, count, block):
        rows = vectors[start : start + block].astype(np.float32)
        here = slice(start, start + len(rows))
        before = np.flatnonzero(other[:start] < 0) if survivors else np.arange(start)
        for first in range(0, len(before), block):
            columns = before[first : first + block]
            scores = rows @ vectors[columns].astype(np.float32).T
            _merge(scores, columns, inverse, other[here], dot[here], value[here])
        _decide(rows @ rows.T, start, squares, inverse, 1 - epsilon, survivors, other, dot, value)
    cosine = np.divide(dot, np.sqrt(squares * squares[other]), out=np.zeros(count), where=other >= 0)
    return other, cosine


@njit(cache=True, nogil=True)
def _merge(
    scores: np.ndarray, columns: np.ndarray, inverse: np.ndarray, other: np.ndarray, dot: np.ndarray, value: np.ndarray
) -> None:
    """The most similar of earlier blocks so far: `value` is the cosine times the row's own length."""
    for row in range(scores.shape[0]):
        for column in range(scores.shape[1]):
            score = np.float64(scores[row, column])
            scaled = score * inverse[columns[column]]
            if scaled > value[row]:
                value[row], dot[row], other[row] = scaled, score, columns[column]


@njit(cache=True, nogil=True)
def _decide(
    scores: np.ndarray, start: int, squares: np.ndarray, inverse: np.ndarray, threshold: float, survivors: bool,
    other: np.ndarray, dot: np.ndarray, value: np.ndarray,
) -> None:  # fmt: skip
    """Compares inside a block, row after row; rows that nothing puts out get -1."""
    for row in range(scores.shape[0]):
        j = start + row
        for column in range(row):
            i = start + column
            if survivors and other[i] >= 0:
                continue
            score = np.float64(scores[row, column])
            scaled = score * inverse[i]
            if scaled > value[j]:
                value[j], dot[j], other[j] = scaled, score, i
        if other[j] >= 0 and not dot[j] / np.sqrt(squares[j] * squares[other[j]]) > threshold:
            other[j] = -1
