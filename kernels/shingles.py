"""Shingles: hashes of every run of n words, rolled over a text's word hashes.

    shingle(w_0 … w_{n-1}) = mix(w_0 B^(n-1) + w_1 B^(n-2) + … + w_{n-1})        mod 2^64
    mix = the splitmix64 finalizer (Steele, Lea, Flood 2014)

A text of at least n words has words - n + 1 shingles. A shorter one has a single shingle of all its words, so that
short texts, too, can be compared; a text without words has none.
"""

from typing import Any

import numpy as np
from numba import njit

_BASE = 0xD6E8FEB86659FD93  # odd, so that B^n never vanishes
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def shingles_reference(words: list[int], ngram: int) -> list[int]:
    """Shingles of one text in the order they occur, repeats included."""
    runs = [words[i : i + ngram] for i in range(max(len(words) - ngram + 1, 1))] if words else []
    found = []
    for run in runs:
        h = 0
        for word in run:
            h = (h * _BASE + word) & _MASK
        h = (h ^ h >> 30) * _M1 & _MASK
        h = (h ^ h >> 27) * _M2 & _MASK
        found.append(h ^ h >> 31)
    return found


@njit(cache=True, nogil=True, inline="always")
def mix(h: np.uint64) -> Any:
    """The splitmix64 finalizer: a bijection in which every bit of the input moves every bit of the output."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(_M1)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(_M2)
    return h ^ (h >> np.uint64(31))


@njit(cache=True, nogil=True)
def power(ngram: int) -> Any:
    """B^n: the weight of the word that leaves the window."""
    result = np.uint64(1)
    for _ in range(ngram):
        result *= np.uint64(_BASE)
    return result


@njit(cache=True, nogil=True)
def shingle(words: np.ndarray, count: int, ngram: int, out: np.ndarray) -> int:
    """Shingles of `words[:count]` into `out`; returns their number.

    A text scanned in pieces gives the same shingles if each piece begins with the last n - 1 words of the one before.

    Args:
        words: Word hashes, uint64.
        count: How many there are.
        ngram: Words in a shingle.
        out: Receives max(count - ngram + 1, 1) hashes, uint64.
    """
    if count == 0:
        return 0
    h = np.uint64(0)
    if count <= ngram:
        for i in range(count):
            h = h * np.uint64(_BASE) + words[i]
        out[0] = mix(h)
        return 1
    leaving = power(ngram)
    for i in range(ngram):
        h = h * np.uint64(_BASE) + words[i]
    out[0] = mix(h)
    for i in range(ngram, count):
        h = h * np.uint64(_BASE) + words[i] - leaving * words[i - ngram]
        out[i - ngram + 1] = mix(h)
    return count - ngram + 1


def shingles(words: np.ndarray, borders: np.ndarray, ngram: int) -> tuple[np.ndarray, np.ndarray]:
    """Shingles of n texts.

    Args:
        words: Word hashes of all texts, uint64[words].
        borders: Border of each text in them, int64[n + 1].
        ngram: Words in a shingle.

    Returns:
        uint64[shingles], repeats included, and the border of each text in it, int64[n + 1].
    """
    counts = np.diff(borders)
    found = np.where(counts > 0, np.maximum(counts - ngram + 1, 1), 0)
    starts = np.concatenate([[0], np.cumsum(found)]).astype(np.int64)
    out = np.empty(starts[-1], np.uint64)
    _shingles(words, borders, ngram, out, starts)
    return out, starts


@njit(cache=True, nogil=True)
def _shingles(words: np.ndarray, borders: np.ndarray, ngram: int, out: np.ndarray, starts: np.ndarray) -> None:
    for i in range(len(borders) - 1):
        shingle(words[borders[i] :], borders[i + 1] - borders[i], ngram, out[starts[i] :])
