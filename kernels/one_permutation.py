"""MinHash signatures in one pass, whatever the number of values: one permutation hashing, optimally densified.

    y = mix(shingle + key of the throw)         a permutation of the 64-bit shingles, chosen by the seed
    bin(y) = (y >> 32) * k >> 32                the upper half chooses one of k bins
    value[i] = min over y in bin i of (y mod 2^32)

A long text fills all bins with its first throw. While some are empty the shingles are thrown once more, up to `THROWS`
times, and a bin keeps what the earliest throw brought (Dahlgaard, Knudsen, Thorup, "Fast Similarity Sketching", FOCS
2017): without that, texts of fewer shingles than bins would be estimated with an error up to 1.17 times that of k
independent permutations. What is empty even then takes over the value of the first filled bin that the sequence
r(i, 1), r(i, 2), … meets, with r the same for all texts (Shrivastava, "Optimal Densification for Fast and Accurate
Minwise Hashing", ICML 2017, section 4). Two signatures agree in one value with probability the Jaccard similarity of
the sets.

O(n + k) for n shingles, against O(n k) of `kernels.minhash`. Parts of a text can be thrown one after the other in any
order, then the signature is densified: later throws of a part are left out only where they could not change anything.

Shapes: shingles uint64, signature uint32[k], bins uint64[k] (throw << 32 | value: the smallest stays; `NONE`).
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.minhash import EMPTY
from ropewalk.kernels.shingles import mix

THROWS = 16
NONE = np.uint64(THROWS << 32)
"""An empty bin."""

_SEED = 0x9E3779B97F4A7C15
_THROW = 0xA0761D6478BD642F
_PROBE = 0xD1B54A32D192ED03
_MASK = (1 << 64) - 1


def _mix_reference(h: int) -> int:
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    h = (h ^ h >> 27) * 0x94D049BB133111EB & _MASK
    return h ^ h >> 31


def one_permutation_reference(shingles: list[int], size: int, seed: int) -> list[int]:
    """Signature of one text."""
    bins: dict[int, tuple[int, int]] = {}
    for turn in range(THROWS):
        for shingle in shingles:
            y = _mix_reference((shingle + seed * _SEED + turn * _THROW) & _MASK)
            place = (y >> 32) * size >> 32
            bins[place] = min(bins.get(place, (turn, _MASK)), (turn, y & 0xFFFFFFFF))
    signature = []
    for i in range(size):
        place, attempt = i, 0
        while bins and place not in bins:
            attempt += 1
            r = _mix_reference(_mix_reference((i + seed * _SEED) & _MASK) + attempt * _PROBE & _MASK)
            place = (r >> 32) * size >> 32
        signature.append(bins[place][1] if bins else int(EMPTY))
    return signature


@njit(cache=True, nogil=True, inline="always")
def _bin(y: np.uint64, size: int) -> Any:
    return np.int64(((y >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def throw(shingles: np.ndarray, count: int, seed: int, bins: np.ndarray) -> None:
    """Throws `shingles[:count]` into the bins.

    Args:
        shingles: uint64.
        count: How many there are.
        seed: Of the permutations, from 0.
        bins: uint64[k], changed in place; begin with `NONE`.
    """
    size = len(bins)
    for turn in range(THROWS):
        thrown = np.uint64(turn) << np.uint64(32)
        first = 0
        while turn and first < size and bins[first] < thrown:
            first += 1
        if first == size:  # earlier throws have filled every bin
            return
        key = np.uint64(seed) * np.uint64(_SEED) + np.uint64(turn) * np.uint64(_THROW)
        for i in range(count):
            y = mix(shingles[i] + key)
            place = _bin(y, size)
            bins[place] = min(bins[place], thrown | (y & np.uint64(0xFFFFFFFF)))


@njit(cache=True, nogil=True)
def densify(bins: np.ndarray, seed: int, signature: np.ndarray) -> None:
    """The signature that the bins make; `EMPTY` everywhere if no shingle was thrown.

    Args:
        bins: What `throw` left, uint64[k].
        seed: That of `throw`.
        signature: Receives it, uint32[k].
    """
    size = len(bins)
    filled = 0
    for i in range(size):
        filled += 1 if bins[i] < NONE else 0
    if filled == 0:
        signature[:] = EMPTY
        return
    for i in range(size):
        place, attempt = i, np.uint64(0)
        start = mix(np.uint64(i) + np.uint64(seed) * np.uint64(_SEED))
        while bins[place] >= NONE:
            attempt += np.uint64(1)
            place = _bin(mix(start + attempt * np.uint64(_PROBE)), size)
        signature[i] = np.uint32(bins[place] & np.uint64(0xFFFFFFFF))


@njit(cache=True, nogil=True)
def _signatures(shingles: np.ndarray, borders: np.ndarray, seed: int, signatures: np.ndarray) -> None:
    bins = np.empty(signatures.shape[1], np.uint64)
    for i in range(len(borders) - 1):
        bins[:] = NONE
        throw(shingles[borders[i] :], borders[i + 1] - borders[i], seed, bins)
        densify(bins, seed, signatures[i])


def one_permutation(shingles: np.ndarray, borders: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Signatures of n sets of shingles.

    Args:
        shingles: uint64[shingles]; repeats do not matter.
        borders: Border of each set in them, int64[n + 1].
        size: Values in a signature, k.
        seed: Chooses the permutations, 0 … 2^32 - 1.

    Returns:
        uint32[n, k].
    """
    signatures = np.empty((len(borders) - 1, size), np.uint32)
    _signatures(shingles, borders, seed, signatures)
    return signatures
