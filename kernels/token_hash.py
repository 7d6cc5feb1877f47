"""Hash of a token, and the hashes of all tokens of a buffer in which zeros separate them.

Over the bytes of the token's UTF-8, read big-endian in words of eight:

    h <- SEED
    for each full word w:              h <- (h ^ w) * M1;  h <- h ^ (h >> 32)
    with t = the 0..7 bytes that remain and k = their number:
                                       h <- (h ^ (t | k << 56)) * M1;  h <- h ^ (h >> 32)
    h <- h * M2;  h <- h ^ (h >> 29)

In a buffer, a bit mask says of 64 bytes at once which are zero; where it changes, a token begins or ends. So there is
no branch a byte, and the hash of one token need not wait for that of the one before.
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.machine import load64, nonzero64, ones, trailing_zeros

SEED = 0xCBF29CE484222325
_M1 = 0xBF58476D1CE4E5B9  # multipliers of the splitmix64 finalizer (Steele, Lea, Flood 2014)
_M2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1
PADDING = 72
"""Bytes behind the tokens of a buffer that `hash_tokens` may read."""


def hash_reference(token: str) -> int:
    """Hash of one normalised token, see the module."""
    data = token.encode()
    full = len(data) // 8 * 8
    blocks = [int.from_bytes(data[i : i + 8], "big") for i in range(0, full, 8)]
    blocks.append(int.from_bytes(data[full:], "big") | (len(data) - full) << 56)
    h = SEED
    for block in blocks:
        h = (h ^ block) * _M1 & _MASK
        h ^= h >> 32
    h = h * _M2 & _MASK
    return h ^ h >> 29


@njit(cache=True, nogil=True, inline="always")
def _absorb(h: np.uint64, block: np.uint64) -> Any:
    h = (h ^ block) * np.uint64(_M1)
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def finish(h: np.uint64, tail: np.uint64, count: int) -> Any:
    """Hash of a token from what `push` left."""
    h = _absorb(h, tail | (np.uint64(count) << np.uint64(56))) * np.uint64(_M2)
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True, inline="always")
def push(h: np.uint64, tail: np.uint64, count: int, byte: np.uint64) -> Any:
    """Appends a byte to a token: its hash so far, and the 0..7 bytes not in it yet. Begin with SEED, 0, 0."""
    tail = (tail << np.uint64(8)) | np.uint64(byte)
    count += 1
    if count == 8:
        return _absorb(h, tail), np.uint64(0), 0
    return h, tail, count


@njit(cache=True, nogil=True)
def _borders(buffer: np.ndarray, fill: int, borders: np.ndarray) -> int:
    """First byte and end of every token of `buffer[:fill]`, alternating; returns their number, which is even."""
    count = 0
    before = np.uint64(0)
    for block in range(0, fill, 64):
        inside = nonzero64(buffer, block)
        if block + 64 > fill:
            inside &= (np.uint64(1) << np.uint64(fill - block)) - np.uint64(1)
        changes = inside ^ ((inside << np.uint64(1)) | before)
        before = inside >> np.uint64(63)
        number = ones(changes)
        # A fixed number of turns is foreseen by the processor, one that depends on the text is not. What is written
        # too much is written over.
        for k in range(12):
            borders[count + k] = block + trailing_zeros(changes)
            changes &= changes - np.uint64(1)
        for k in range(12, number):
            borders[count + k] = block + trailing_zeros(changes)
            changes &= changes - np.uint64(1)
        count += number
    if count % 2 == 1:
        borders[count] = fill
        count += 1
    return count


@njit(cache=True, nogil=True)
def hash_tokens(
    buffer: np.ndarray, fill: int, last: bool, borders: np.ndarray, h: np.uint64, out: np.ndarray, found: int
) -> Any:
    """Hashes the tokens of `buffer[:fill]` into `out[found:]`.

    If more is to come, a token that reaches the end of the buffer is carried: its last 1..8 bytes go to the buffer's
    front, what was before them into `h`, and the next call begins with both.

    Args:
        buffer: Tokens with one zero or more between them, uint8[fill + PADDING or more].
        fill: Bytes of them.
        last: Whether no more is to come.
        borders: Scratch space, int32[fill + 16 or more].
        h: Hash so far of the token at the front, as the last call returned it; `SEED` where nothing was carried.
        out: Receives the hashes, uint64.
        found: Where in it.

    Returns:
        `found` after the tokens written, the hash so far of the token carried, and the number of its bytes in front.
    """
    count = _borders(buffer, fill, borders)
    held = 0
    if count and not last and borders[count - 1] == fill:
        count -= 2
        held = fill - int(borders[count])
    for j in range(0, count, 2):
        start = np.int64(borders[j])
        size = np.int64(borders[j + 1]) - start
        while size >= 8:
            h = _absorb(h, load64(buffer, start))
            start += 8
            size -= 8
        tail = (load64(buffer, start) >> np.uint64(1)) >> np.uint64(63 - 8 * size)
        out[found] = finish(h, tail, size)
        found += 1
        h = np.uint64(SEED)
    begin = fill - held
    while held > 8:
        h = _absorb(h, load64(buffer, begin))
        begin += 8
        held -= 8
    for k in range(held):
        buffer[k] = buffer[begin + k]
    return found, h, held
