"""Suffix array: the starts of all suffixes of a sequence in sorted order, in linear time.

    sa = sort(0 … n-1, key = text[i:])

SA-IS (Nong, Zhang and Chan, "Linear suffix array construction by almost pure induced sorting", DCC 2009). A suffix is
S if it is smaller than the next one, else L; an S behind an L is LMS. Sorted LMS suffixes put all L suffixes in order
in one pass to the right, and these all S suffixes in one pass to the left. To sort the LMS suffixes, the same two
passes sort the pieces of text between LMS positions; each piece gets its rank as a name, and where names repeat, the
text of names, at most half as long, is sorted the same way.

Shapes: text int32[n] with values in [0, size), result int32[n]. About 13 bytes a symbol at the first level and half
of that at each further one.
"""

import numpy as np
from numba import njit


def suffix_array_reference(text: list[int]) -> list[int]:
    """The same by sorting the suffixes themselves."""
    return sorted(range(len(text)), key=lambda i: text[i:])


def suffix_array(text: np.ndarray, size: int) -> np.ndarray:
    """Sorts all suffixes.

    Args:
        text: Symbols below `size`, int32[n], n < 2^31.
        size: Size of the alphabet.

    Returns:
        int32[n]: where the smallest suffix starts, the next one, and so on.
    """
    text = np.ascontiguousarray(text, np.int32)
    sa = np.empty(len(text), np.int32)
    if len(text) == 0:
        return sa
    smaller = np.empty(len(text), np.bool_)
    ends = np.zeros(size, np.int32)
    _classify(text, smaller, ends)
    lms = np.flatnonzero(smaller[1:] & ~smaller[:-1]).astype(np.int32) + np.int32(1)
    _induce(text, smaller, ends, lms, sa)
    names = np.empty(len(lms), np.int32)
    different = _name(text, smaller, lms, sa, names)
    order = suffix_array(names, different) if different < len(lms) else np.argsort(names).astype(np.int32)
    _induce(text, smaller, ends, lms[order], sa)
    return sa


@njit(cache=True, nogil=True)
def _classify(text: np.ndarray, smaller: np.ndarray, ends: np.ndarray) -> None:
    """Which suffixes are S, and the end of each symbol's bucket in the suffix array."""
    last = len(text) - 1
    smaller[last] = False
    for i in range(last - 1, -1, -1):
        smaller[i] = text[i] < text[i + 1] or (text[i] == text[i + 1] and smaller[i + 1])
    for symbol in text:
        ends[symbol] += np.int32(1)
    total = np.int32(0)
    for symbol in range(len(ends)):
        total += ends[symbol]
        ends[symbol] = total


@njit(cache=True, nogil=True)
def _induce(text: np.ndarray, smaller: np.ndarray, ends: np.ndarray, lms: np.ndarray, sa: np.ndarray) -> None:
    """Orders all suffixes by the LMS ones given in order (or, given in any order, all of them up to the next LMS)."""
    sa[:] = -1
    room = ends.copy()
    for k in range(len(lms) - 1, -1, -1):
        symbol = text[lms[k]]
        room[symbol] -= np.int32(1)
        sa[room[symbol]] = lms[k]
    room[0] = 0
    room[1:] = ends[:-1]
    last = np.int32(len(text) - 1)
    sa[room[text[last]]] = last  # the last suffix: nothing is before it in its bucket, as it is a prefix of the others
    room[text[last]] += np.int32(1)
    for k in range(len(sa)):
        i = sa[k] - np.int32(1)
        if i >= 0 and not smaller[i]:
            sa[room[text[i]]] = i
            room[text[i]] += np.int32(1)
    room[:] = ends
    for k in range(len(sa) - 1, -1, -1):
        i = sa[k] - np.int32(1)
        if i >= 0 and smaller[i]:
            room[text[i]] -= np.int32(1)
            sa[room[text[i]]] = i


@njit(cache=True, nogil=True)
def _name(text: np.ndarray, smaller: np.ndarray, lms: np.ndarray, sa: np.ndarray, names: np.ndarray) -> int:
    """Ranks the pieces between LMS positions, equal ones alike; returns how many ranks there are."""
    if len(lms) == 0:
        return 0
    number = np.full(len(text), -1, np.int32)
    for k in range(len(lms)):
        number[lms[k]] = k
    rank, before = np.int32(-1), -1
    for k in range(len(sa)):
        this = number[sa[k]]
        if this < 0:
            continue
        if before < 0 or not _same_piece(text, smaller, lms, before, this):
            rank += np.int32(1)
        names[this] = rank
        before = this
    return int(rank) + 1


@njit(cache=True, nogil=True)
def _same_piece(text: np.ndarray, smaller: np.ndarray, lms: np.ndarray, a: int, b: int) -> bool:
    if max(a, b) == len(lms) - 1:  # it runs into the end of the text
        return False
    length = lms[a + 1] - lms[a]
    if lms[b + 1] - lms[b] != length:
        return False
    for k in range(length + 1):
        i, j = lms[a] + k, lms[b] + k
        if text[i] != text[j] or smaller[i] != smaller[j]:
            return False
    return True
