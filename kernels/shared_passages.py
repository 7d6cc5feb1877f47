"""The longest passages that two texts share, byte for byte.

    match[i] = max l over j with a[i : i + l] == b[j : j + l]

From the suffix array of a, a separator and b: what suffix i of a shares with any suffix of b is the smallest value of
the LCP array between it and the nearest one of b, before or behind it in sorted order. The longest match is taken, then
the longest that does not overlap it in a, and so on; ends are drawn in to borders of characters.

Shapes: a uint8[n], b uint8[m], both UTF-8. About 30 bytes a symbol of memory, linear time.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ropewalk.kernels.longest_repeat import lcp_array
from ropewalk.kernels.suffix_array import suffix_array


class Passage(NamedTuple):
    """Bytes `[a_start, a_start + length)` of one text and `[b_start, b_start + length)` of the other, equal."""

    a_start: int
    b_start: int
    length: int


def matches_reference(a: bytes, b: bytes) -> list[int]:
    """Length of the longest match at each place of `a`, O(n m)."""
    return [max(n for n in range(len(a) - i + 1) if a[i : i + n] in b) for i in range(len(a))]


def shared_passages(a: np.ndarray, b: np.ndarray, *, least: int, most: int) -> list[Passage]:
    """Finds the longest shared passages.

    Args:
        a: uint8[n].
        b: uint8[m], n + m < 2^31.
        least: Bytes of a passage, at least 1.
        most: Passages wanted.

    Returns:
        Longest first, the earlier in `a` first among equals; they do not overlap in `a`.
    """
    length, place = matches(a, b)
    found: list[Passage] = []
    while len(found) < most and len(length):
        start = int(length.argmax())
        size = int(length[start])
        if size < least:
            break
        # A passage ends where the next one taken begins.
        before = np.arange(max(0, start - int(length.max())), start)
        length[before] = np.minimum(length[before], start - before)
        length[start : start + size] = 0
        first, last = start, start + size
        while first < last and a[first] & 0xC0 == 0x80:
            first += 1
        while first < last < len(a) and a[last] & 0xC0 == 0x80:
            last -= 1
        if last - first >= least:
            found.append(Passage(first, int(place[start]) + first - start, last - first))
    return sorted(found, key=lambda passage: (-passage.length, passage.a_start))


def matches(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length of the longest match at each place of `a`, and where in `b` it begins: int64[n] twice."""
    text = np.concatenate([a.astype(np.int32) + 1, np.zeros(1, np.int32), b.astype(np.int32) + 1])
    length, place = np.zeros(len(a), np.int64), np.zeros(len(a), np.int64)
    sa = suffix_array(text, 257)
    _matches(sa, lcp_array(text, sa), len(a), length, place)
    return length, place


@njit(cache=True, nogil=True)
def _matches(sa: np.ndarray, lcp: np.ndarray, border: int, length: np.ndarray, place: np.ndarray) -> None:
    for backwards in range(2):
        shared, near = np.int64(0), np.int64(-1)
        for step in range(len(sa)):
            k = len(sa) - 1 - step if backwards else step
            if step:
                shared = min(shared, np.int64(lcp[k + 1] if backwards else lcp[k]))
            if sa[k] > border:
                shared, near = np.int64(len(sa)), np.int64(sa[k]) - border - 1
            elif sa[k] < border and near >= 0 and shared > length[sa[k]]:
                length[sa[k]], place[sa[k]] = shared, near
