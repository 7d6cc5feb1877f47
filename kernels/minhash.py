"""MinHash signatures, scheme `affine32` of datasketch 2.0: the same bits as `datasketch.MinHash.hashvalues`.

    signature[k] = min over shingles x of  a_k * fmix32(x) + b_k   mod 2^32,      a_k odd

fmix32 is MurmurHash3's finalizer (Appleby, public domain); with a_k odd each permutation is a bijection of the 32-bit
hashes. Two signatures agree in one value with probability (nearly) the Jaccard similarity of the shingle sets. The
minimum over parts of a text is the minimum of the parts' minima, so a long text is sketched in pieces.

Shapes: shingles uint32 (64-bit ones are cut to their low half), signature uint32[permutations].
"""

import numpy as np
from numba import njit

EMPTY = np.uint32(0xFFFFFFFF)
"""Every value of the signature of no shingles."""
LANES = 32
"""`lower` takes so many shingles at once, and repeats one of them where they do not suffice."""


def permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters a (odd) and b of the permutations: uint32[count] each; datasketch's for the same seed."""
    random = np.random.RandomState(seed)
    a = random.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = random.randint(0, 1 << 32, count, dtype=np.uint32)
    return a, b


def fmix32(x: np.ndarray) -> np.ndarray:
    """MurmurHash3's 32-bit finalizer: uint32[n] -> uint32[n]."""
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    result: np.ndarray = x ^ x >> np.uint32(16)
    return result


def minhash_reference(shingles: np.ndarray, borders: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Signatures of n sets of shingles: uint32[shingles], int64[n + 1] -> uint32[n, permutations]."""
    values = fmix32(shingles.astype(np.uint32))[:, None] * a + b
    full = [values[i:j].min(axis=0, initial=EMPTY) for i, j in zip(borders[:-1], borders[1:], strict=True)]
    return np.array(full, np.uint32).reshape(len(borders) - 1, len(a))


@njit(cache=True, nogil=True)
def lower(
    shingles: np.ndarray, count: int, mixed: np.ndarray, a: np.ndarray, b: np.ndarray, signature: np.ndarray
) -> None:
    """Lowers a signature by `shingles[:count]`; a reduction along the shingles, four permutations at a time.

    Args:
        shingles: uint32 or uint64.
        count: How many there are.
        mixed: Scratch space, uint32[count + LANES or more].
        a: Multipliers, uint32[permutations].
        b: Summands, uint32[permutations].
        signature: uint32[permutations], changed in place; begin with `EMPTY`.
    """
    for i in range(count):
        x = np.uint32(shingles[i])
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        mixed[i] = np.uint32(x ^ (x >> np.uint32(16)))
    padded = (count + LANES - 1) // LANES * LANES
    for i in range(count, padded):
        mixed[i] = mixed[0]
    size = len(a)
    k = 0
    while k + 4 <= size:
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        m0, m1, m2, m3 = signature[k], signature[k + 1], signature[k + 2], signature[k + 3]
        for i in range(padded):
            x = mixed[i]
            m0 = min(m0, np.uint32(x * a0 + b0))
            m1 = min(m1, np.uint32(x * a1 + b1))
            m2 = min(m2, np.uint32(x * a2 + b2))
            m3 = min(m3, np.uint32(x * a3 + b3))
        signature[k], signature[k + 1], signature[k + 2], signature[k + 3] = m0, m1, m2, m3
        k += 4
    while k < size:
        m0 = signature[k]
        for i in range(padded):
            m0 = min(m0, np.uint32(mixed[i] * a[k] + b[k]))
        signature[k] = m0
        k += 1


@njit(cache=True, nogil=True)
def _minhash(
    shingles: np.ndarray, borders: np.ndarray, a: np.ndarray, b: np.ndarray, signatures: np.ndarray, block: int
) -> None:
    mixed = np.empty(block + LANES, np.uint32)
    for i in range(len(borders) - 1):
        at = borders[i]
        while at < borders[i + 1]:
            count = min(block, borders[i + 1] - at)
            lower(shingles[at:], count, mixed, a, b, signatures[i])
            at += count


def minhash(shingles: np.ndarray, borders: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Signatures of n sets of shingles.

    Args:
        shingles: uint32[shingles] or uint64[shingles]; repeats do not matter.
        borders: Border of each set in them, int64[n + 1].
        a: Multipliers, uint32[permutations].
        b: Summands, uint32[permutations].

    Returns:
        uint32[n, permutations].
    """
    signatures = np.full((len(borders) - 1, len(a)), EMPTY, np.uint32)
    _minhash(shingles, borders, a, b, signatures, 2048)
    return signatures
