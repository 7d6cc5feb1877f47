"""How much of a text its repeated n-grams are: the repetition rules of Gopher.

    top(n)  = the n-gram that occurs most often, the first of equals, and how often; occurrences may overlap
    dup(n)  = characters of words in n-grams that occurred before: read left to right; an n-gram seen before counts, and
              reading goes on behind its n words; a new one is noted, and reading goes on one word further
    kinds   = number of different n-grams

Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training Gopher" (arXiv 2112.11446), appendix
A.1.1. The text does not say how n-grams overlap; this is how datatrove counts them.

An n-gram is its 64-bit hash (`kernels.shingles`); 10^6 of them collide with probability 3e-8.

Shapes: grams uint64[g]; lengths int32[words], words = g + n - 1. A hash table of 12 to 24 bytes a gram.
"""

from collections import Counter

import numpy as np
from numba import njit

from ropewalk.kernels.find_slot import find_slot


def top_reference(grams: list[int]) -> tuple[int, int]:
    """`top` in plain Python."""
    if not grams:
        return 0, 0
    gram, count = Counter(grams).most_common(1)[0]  # the first of equals, as Counter keeps the order of insertion
    return grams.index(gram), count


def duplicate_chars_reference(grams: list[int], lengths: list[int], ngram: int) -> int:
    """`duplicate_chars` in plain Python."""
    seen: set[int] = set()
    chars = at = 0
    while at < len(grams):
        if grams[at] in seen:
            chars += sum(lengths[at : at + ngram])
            at += ngram
        else:
            seen.add(grams[at])
            at += 1
    return chars


@njit(cache=True, nogil=True)
def _slots(grams: np.ndarray) -> int:
    size = 16
    while size < 2 * len(grams):
        size *= 2
    return size


@njit(cache=True, nogil=True)
def top(grams: np.ndarray) -> tuple[int, int]:
    """Where the most frequent n-gram first stands, and how often it occurs; (0, 0) without n-grams."""
    size = _slots(grams)
    keys, counts = np.empty(size, np.uint64), np.zeros(size, np.int32)
    most = np.int32(0)
    for gram in grams:
        slot = find_slot(keys, counts, gram)
        keys[slot] = gram
        counts[slot] += np.int32(1)
        most = max(most, counts[slot])
    for at in range(len(grams)):
        if counts[find_slot(keys, counts, grams[at])] == most:
            return at, int(most)
    return 0, 0


@njit(cache=True, nogil=True)
def duplicate_chars(grams: np.ndarray, lengths: np.ndarray, ngram: int) -> int:
    """Characters in n-grams that occurred before.

    Args:
        grams: Hash of each run of `ngram` words, uint64[g].
        lengths: Characters of each word, int32[g + ngram - 1].
        ngram: Words of an n-gram.
    """
    size = _slots(grams)
    keys, counts = np.empty(size, np.uint64), np.zeros(size, np.int32)
    chars, at = 0, 0
    while at < len(grams):
        slot = find_slot(keys, counts, grams[at])
        if counts[slot] == 0:
            keys[slot], counts[slot] = grams[at], 1
            at += 1
            continue
        for k in range(at, at + ngram):
            chars += lengths[k]
        at += ngram
    return chars


@njit(cache=True, nogil=True)
def kinds(grams: np.ndarray) -> int:
    """Number of different n-grams."""
    size = _slots(grams)
    keys, counts = np.empty(size, np.uint64), np.zeros(size, np.int32)
    found = 0
    for gram in grams:
        slot = find_slot(keys, counts, gram)
        if counts[slot] == 0:
            keys[slot], counts[slot] = gram, 1
            found += 1
    return found
