"""From text to what deduplication compares: an exact hash of the words and a MinHash signature, in one pass.

The text is scanned in pieces of `BLOCK` words, the last n - 1 words of a piece carried into the next, so the memory is
the same for a tweet and for a book. Words are the tokens of `kernels.words`: with `Normal(unit="character")` they are
characters. The exact hash is two 64-bit chains over the word hashes,

    high <- (high ^ w) * M1;  high <- high ^ (high >> 32)        low <- (low + w) * M2;  low <- low ^ (low >> 29)

closed with the number of words. A text without words is hashed by its bytes instead, from another start: copies of
`!!!` are exact copies, but `!!!` and `???` are not.
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels import minhash, one_permutation, shingles, words

BLOCK = 2048
"""Words scanned at a time: the piece, its shingles and a slice of permutations stay in the first-level cache."""

_HIGH = 0x9E3779B97F4A7C15
_LOW = 0xC2B2AE3D27D4EB4F
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_WORDLESS = 0x5851F42D4C957F2D  # added to both starts where bytes are hashed, so that the two kinds never meet


def exact_hash_reference(text: str, normal: words.Normal = words.DEFAULT) -> tuple[int, int]:
    """128-bit hash of a text's words, (high, low)."""
    values = [words.hash_reference(token) for token in words.words_reference(text, normal)]
    shift = 0 if values else _WORDLESS
    values = values or list(text.encode())
    high, low = (_HIGH + shift) & _MASK, (_LOW + shift) & _MASK
    for value in values:
        high = (high ^ value) * _M1 & _MASK
        high ^= high >> 32
        low = (low + value) * _M2 & _MASK
        low ^= low >> 29
    closed = shingles.shingles_reference([high ^ len(values)], 1) + shingles.shingles_reference([low ^ len(values)], 1)
    return closed[0], closed[1]


@njit(cache=True, nogil=True, inline="always")
def _chain(high: np.uint64, low: np.uint64, value: np.uint64) -> Any:
    high = (high ^ value) * np.uint64(_M1)
    low = (low + value) * np.uint64(_M2)
    return high ^ (high >> np.uint64(32)), low ^ (low >> np.uint64(29))


@njit(cache=True, nogil=True)
def sketch(
    data: np.ndarray, offsets: np.ndarray, wanted: np.ndarray, first: int, last: int, classes: np.ndarray, ngram: int,
    a: np.ndarray, b: np.ndarray, seed: int, exact: np.ndarray, num_words: np.ndarray, signatures: np.ndarray,
) -> None:  # fmt: skip
    """Sketches texts [first, last).

    Args:
        data: UTF-8 of all texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].
        wanted: Texts to sketch, bool[n]; rows of the others are left alone.
        first: First text.
        last: End of the texts.
        classes: `words.table()`.
        ngram: Words in a shingle, less than `BLOCK`.
        a: Multipliers of the permutations, uint32[values]; none for the scheme of `kernels.one_permutation`.
        b: Summands of the permutations, uint32[values].
        seed: Of the one permutation; not used where there are many.
        exact: Receives the exact hashes, uint64[n, 2]: high, low.
        num_words: Receives the number of words, int64[n].
        signatures: Receives the signatures, uint32[n, values]; must be filled with `minhash.EMPTY`.
    """
    carry = ngram - 1
    piece = np.empty(carry + BLOCK, np.uint64)
    runs = np.empty(carry + BLOCK, np.uint64)
    mixed = np.empty(carry + BLOCK + minhash.LANES, np.uint32)
    bins = np.empty(signatures.shape[1], np.uint64)
    for i in range(first, last):
        if not wanted[i]:
            continue
        high, low, count = np.uint64(_HIGH), np.uint64(_LOW), np.int64(0)
        at, stop = offsets[i], offsets[i + 1]
        held = 0
        bins[:] = one_permutation.NONE
        while at < stop:
            found, at = words.scan_words(data, at, stop, classes, piece[held : held + BLOCK])
            for j in range(held, held + found):
                high, low = _chain(high, low, piece[j])
            count += found
            held += found
            # The scan comes back with more than n words, or at the text's end: so fewer words than n are a whole text.
            if found and len(bins):
                made = shingles.shingle(piece, held, ngram, runs)
                if len(a):
                    minhash.lower(runs, made, mixed, a, b, signatures[i])
                else:
                    one_permutation.throw(runs, made, seed, bins)
            if held > carry:
                for j in range(carry):
                    piece[j] = piece[held - carry + j]
                held = carry
        if count and len(bins) and len(a) == 0:
            one_permutation.densify(bins, seed, signatures[i])
        if count == 0:
            high += np.uint64(_WORDLESS)
            low += np.uint64(_WORDLESS)
            for j in range(offsets[i], stop):
                high, low = _chain(high, low, np.uint64(data[j]))
        closing = np.uint64(count if count else stop - offsets[i])
        exact[i, 0] = shingles.mix(high ^ closing)
        exact[i, 1] = shingles.mix(low ^ closing)
        num_words[i] = count
