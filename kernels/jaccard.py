"""Exact Jaccard similarity of shingle sets: |A and B| / |A or B|, by merging sorted sets.

Sets lie one after the other in one array, each sorted and without repeats, 64 bits a shingle: two different shingles
of two texts of a million words are taken for one with probability 10^-7.
"""

import numpy as np
from numba import njit

from ropewalk.kernels import shingles, words


def jaccard_reference(a: set[int], b: set[int]) -> float:
    """Similarity of two sets; of two empty ones: 0, as nothing is shared."""
    return len(a & b) / len(a | b) if a or b else 0.0


@njit(cache=True, nogil=True)
def sort_unique(values: np.ndarray, count: int, scratch: np.ndarray, starts: np.ndarray) -> int:
    """Sorts `values[:count]` in place without its repeats; returns how many remain.

    The values are hashes, so their top bits spread them evenly over about `count` buckets (one counting pass), and
    insertion sort puts a bucket's few values in order.

    Args:
        values: uint64[count or more].
        count: How many there are.
        scratch: uint64[count or more].
        starts: int64[2 * count + 1 or more, at least 3].
    """
    if count < 2:
        return count
    bits = 1
    while (1 << bits) < count:
        bits += 1
    shift = np.uint64(64 - bits)
    starts[: (1 << bits) + 1] = 0
    for i in range(count):
        starts[np.int64(values[i] >> shift) + 1] += 1
    for bucket in range(1 << bits):
        starts[bucket + 1] += starts[bucket]
    for i in range(count):
        own = np.int64(values[i] >> shift)
        scratch[starts[own]] = values[i]
        starts[own] += 1
    for i in range(1, count):
        value, j = scratch[i], i
        while j > 0 and scratch[j - 1] > value:
            scratch[j] = scratch[j - 1]
            j -= 1
        scratch[j] = value
    kept = 0
    for i in range(count):
        if i == 0 or scratch[i] != values[kept - 1]:
            values[kept] = scratch[i]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def shingle_sets(
    data: np.ndarray, offsets: np.ndarray, first: int, last: int, classes: np.ndarray, ngram: int,
    starts: np.ndarray, out: np.ndarray, sizes: np.ndarray,
) -> None:  # fmt: skip
    """Sorted shingle sets of texts [first, last).

    Args:
        data: UTF-8 of all texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].
        first: First text.
        last: End of the texts.
        classes: `words.table()`.
        ngram: Words in a shingle.
        starts: Where each text's set goes in `out`, int64[n]; a text of m bytes may need (m + 1) // 2 places.
        out: Receives the sets, uint64.
        sizes: Receives the size of each set, int64[n].
    """
    longest = 1
    for i in range(first, last):
        longest = max(longest, (offsets[i + 1] - offsets[i] + 1) // 2)
    found = np.empty(longest, np.uint64)
    borders = np.empty(2 * longest + 1, np.int64)
    for i in range(first, last):
        count, _ = words.scan_words(data, offsets[i], offsets[i + 1], classes, found)
        values = out[starts[i] :]
        made = shingles.shingle(found, count, ngram, values)
        sizes[i] = sort_unique(values, made, found, borders)


@njit(cache=True, nogil=True)
def jaccard(
    sets: np.ndarray, starts: np.ndarray, sizes: np.ndarray, left: np.ndarray, right: np.ndarray, out: np.ndarray
) -> None:
    """Similarity of pairs of sets.

    Args:
        sets: Sorted sets, uint64.
        starts: Where each set begins, int64[n].
        sizes: Size of each set, int64[n].
        left: Index of each pair's one set, int64[pairs].
        right: Index of its other set, int64[pairs].
        out: Receives the similarities, float64[pairs].
    """
    for pair in range(len(left)):
        i, j = starts[left[pair]], starts[right[pair]]
        stop_i, stop_j = i + sizes[left[pair]], j + sizes[right[pair]]
        total = sizes[left[pair]] + sizes[right[pair]]
        shared = 0
        while i < stop_i and j < stop_j:
            x, y = sets[i], sets[j]
            shared += 1 if x == y else 0
            i += 1 if x <= y else 0
            j += 1 if y <= x else 0
        out[pair] = shared / (total - shared) if total else 0.0
