"""A bijection of 64-bit numbers that looks random: seeded permutations without a table.

    x += (seed + 1) * 0x9E3779B97F4A7C15
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9
    x = (x ^ x >> 27) * 0x94D049BB133111EB
    x ^= x >> 31

The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014; constants as in Vigna's splitmix64.c). Distinct
numbers stay distinct, so sorting by the result is a permutation without ties.
"""

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64_reference(value: int, seed: int = 0) -> int:
    """The same for one number in plain Python."""
    x = (value + (seed + 1) * GOLDEN) & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def mix64(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Mixes each number: uint64[n] -> uint64[n]."""
    x = values.astype(np.uint64) + np.uint64((seed + 1) * GOLDEN & _MASK)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def bucket(mixed: np.ndarray, buckets: int) -> np.ndarray:
    """Which of `buckets` equal ranges of the 64-bit numbers each falls in, order kept: uint64[n] -> int64[n].

    `buckets` is at most 2^32.
    """
    return (((mixed >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)).astype(np.int64)
