"""Paths joined end to end, two at a time, and read off at last.

A path is known by its two ends; its nodes are linked to one or two others without a direction, so that no join ever
turns a path around. A merge links the two ends, one of each path, with the largest dot product.
"""

from typing import Any

import numpy as np
from numba import njit


def join_paths(vectors: np.ndarray, ends: np.ndarray, links: np.ndarray, merges: np.ndarray) -> None:
    """Carries out merges of paths.

    Args:
        vectors: Grid points times 2048, int16[n, d]: products are exact integers.
        ends: The ends of each path, int64[m, 2], twice the same node for a path of one; overwritten.
        links: The nodes beside each node, int64[n, 2], -1 for none; overwritten.
        merges: Pairs of paths, int64[k, 2]; the first of a pair goes on as both. Ties are decided for the first ends.
    """
    _join_paths(vectors, ends, links, merges)


def walk(links: np.ndarray, first: int) -> np.ndarray:
    """The nodes of a path from its end `first` on: int64[length]."""
    found = np.empty(len(links), np.int64)
    return found[: _walk(links, first, found)]


@njit(cache=True, nogil=True)
def dot(a: np.ndarray, b: np.ndarray) -> Any:
    """Inner product of int16 vectors on the grid: below 2^24."""
    total = np.int32(0)
    for j in range(len(a)):
        total = np.int32(total + np.int32(a[j]) * np.int32(b[j]))
    return np.int64(total)


@njit(cache=True, nogil=True)
def link(links: np.ndarray, a: int, b: int) -> None:
    """Puts an edge between two nodes that have room for one."""
    links[a, 0 if links[a, 0] < 0 else 1] = b
    links[b, 0 if links[b, 0] < 0 else 1] = a


@njit(cache=True, nogil=True)
def _join_paths(vectors: np.ndarray, ends: np.ndarray, links: np.ndarray, merges: np.ndarray) -> None:
    for m in range(len(merges)):
        a, b = merges[m, 0], merges[m, 1]
        best = -1
        largest = np.int64(0)
        for choice in range(4):
            product = dot(vectors[ends[a, choice >> 1]], vectors[ends[b, choice & 1]])
            if best < 0 or product > largest:
                best = choice
                largest = product
        i, j = best >> 1, best & 1
        link(links, ends[a, i], ends[b, j])
        first, last = ends[a, 1 - i], ends[b, 1 - j]
        ends[a, 0] = first
        ends[a, 1] = last


@njit(cache=True, nogil=True)
def _walk(links: np.ndarray, first: int, found: np.ndarray) -> Any:
    before, here, count = np.int64(-1), np.int64(first), 0
    while here >= 0:
        found[count] = here
        count += 1
        onward = links[here, 0] if links[here, 0] != before else links[here, 1]
        before, here = here, onward
    return count
