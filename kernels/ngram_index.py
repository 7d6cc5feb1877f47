"""An index of n-gram hashes that can be asked millions of times a second, mostly in vain.

    filter    for each hash two bits of one 64-bit word; at least 16 bits for each hash and 2^22 in all: of hashes that
              are not in the index, 49 in 50 or more end here, for one load
    buckets   first place of every value of a hash's top k bits in the sorted hashes, k such that a bucket holds two or
              fewer; hashes are uniform, so the few hashes of a bucket are looked at one by one

    place(h) = the place of h in the sorted hashes, or -1

Shapes: `grams` uint64[g], ascending, apart; `filter_words` uint64[2^m]; `buckets` int64[2^k + 1].
Memory: 8 bytes a hash, 2 to 4 for the filter and 4 to 8 for the buckets.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

MIN_BITS = 22
BITS_PER_GRAM = 16


class NgramIndex(NamedTuple):
    """The three arrays, see the module; they may be memory-mapped."""

    grams: np.ndarray
    filter_words: np.ndarray
    buckets: np.ndarray


def build(grams: np.ndarray) -> NgramIndex:
    """Builds an index of hashes, ascending and apart: uint64[g]."""
    bits = max(MIN_BITS, int(max(1, len(grams)) * BITS_PER_GRAM - 1).bit_length())
    filter_words = np.zeros(1 << bits - 6, np.uint64)
    _fill(grams, filter_words)
    top = max(1, int(len(grams)).bit_length() - 1)
    borders = np.arange(1, 1 << top, dtype=np.uint64) << np.uint64(64 - top)
    buckets = np.concatenate([[0], np.searchsorted(grams, borders), [len(grams)]]).astype(np.int64)
    return NgramIndex(grams, filter_words, buckets)


@njit(cache=True, nogil=True, inline="always")
def bits_of(gram: np.uint64) -> Any:
    """The two bits of a hash; they come from other digits of it than word and bucket."""
    return np.uint64(1) << (gram >> np.uint64(32) & np.uint64(63)) | np.uint64(1) << (
        gram >> np.uint64(38) & np.uint64(63)
    )


@njit(cache=True, nogil=True)
def _fill(grams: np.ndarray, filter_words: np.ndarray) -> None:
    mask = np.uint64(len(filter_words) - 1)
    for gram in grams:
        filter_words[np.int64(gram & mask)] |= bits_of(gram)


@njit(cache=True, nogil=True)
def pass_filter(grams: np.ndarray, start: int, stop: int, filter_words: np.ndarray, passed: np.ndarray) -> int:
    """Indices of the hashes in [start, stop) that the filter lets pass: all that the index holds, and a few more.

    Without a branch: loads of several hashes overlap.

    Returns:
        How many; they are in the first places of `passed`, int64, ascending.
    """
    mask = np.uint64(len(filter_words) - 1)
    found = 0
    for i in range(start, stop):
        bits = bits_of(grams[i])
        passed[found] = i
        found += int(filter_words[np.int64(grams[i] & mask)] & bits == bits)
    return found


def place_reference(grams: list[int], gram: int) -> int:
    """The place of a hash in a list, or -1."""
    return grams.index(gram) if gram in grams else -1


@njit(cache=True, nogil=True)
def place(grams: np.ndarray, buckets: np.ndarray, gram: np.uint64) -> int:
    """The place of a hash in the sorted hashes, or -1."""
    size, shift = len(buckets) - 1, 64
    while size > 1:
        size >>= 1
        shift -= 1
    bucket = np.int64(gram >> np.uint64(shift))
    for at in range(buckets[bucket], buckets[bucket + 1]):
        if grams[at] == gram:
            return at
    return -1
