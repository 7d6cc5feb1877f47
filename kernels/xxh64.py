"""XXH64 of many byte strings at once, and 128-bit ids as hex.

Source: the xxHash specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md, "XXH64 algorithm"). All arithmetic is
modulo 2^64; reads are little-endian; `rotl(x, r)` turns left by r bits.

    input of n >= 32 bytes, in stripes of four 8-byte lanes:
        acc = [seed + P1 + P2, seed + P2, seed, seed - P1]
        each stripe:  acc[i] = round(acc[i], lane[i]),   round(a, x) = rotl(a + x P2, 31) P1
        h = rotl(acc[0], 1) + rotl(acc[1], 7) + rotl(acc[2], 12) + rotl(acc[3], 18)
        each acc[i]:  h = (h ^ round(0, acc[i])) P1 + P4
    shorter input:    h = seed + P5
    h = h + n; then the rest of the input, in steps of 8, 4 and 1 bytes:
        8:  h = rotl(h ^ round(0, x), 27) P1 + P4
        4:  h = rotl(h ^ x P1, 23) P2 + P3
        1:  h = rotl(h ^ x P5, 11) P1
    h ^= h >> 33;  h = h P2;  h ^= h >> 29;  h = h P3;  h ^= h >> 32

Input is an Arrow string column as it lies in memory: one buffer of bytes, and where each value starts in it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

P1 = np.uint64(0x9E3779B185EBCA87)
P2 = np.uint64(0xC2B2AE3D27D4EB4F)
P3 = np.uint64(0x165667B19E3779F9)
P4 = np.uint64(0x85EBCA77C2B2AE63)
P5 = np.uint64(0x27D4EB2F165667C5)

_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_HEX_VALUES = np.full(256, 255, np.uint8)
_HEX_VALUES[_HEX_DIGITS] = np.arange(16, dtype=np.uint8)
_HEX_VALUES[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16, dtype=np.uint8)
ID_DIGITS = 32


def xxh64_reference(value: bytes, seed: int = 0) -> int:
    """XXH64 of one byte string in plain Python, line for line as specified: what the kernel is held against."""
    mask = (1 << 64) - 1
    p1, p2, p3, p4, p5 = (int(p) for p in (P1, P2, P3, P4, P5))

    def rotl(x: int, r: int) -> int:
        return ((x << r) | (x >> (64 - r))) & mask

    def round_(a: int, x: int) -> int:
        return rotl((a + x * p2) & mask, 31) * p1 & mask

    n, at = len(value), 0
    if n >= 32:
        acc = [seed + p1 + p2, seed + p2, seed, seed - p1]
        while n - at >= 32:
            acc = [round_(a & mask, int.from_bytes(value[at + 8 * i :][:8], "little")) for i, a in enumerate(acc)]
            at += 32
        h = sum(rotl(a, r) for a, r in zip(acc, (1, 7, 12, 18), strict=True)) & mask
        for a in acc:
            h = ((h ^ round_(0, a)) * p1 + p4) & mask
    else:
        h = (seed + p5) & mask
    h = (h + n) & mask
    while n - at >= 8:
        h = (rotl(h ^ round_(0, int.from_bytes(value[at : at + 8], "little")), 27) * p1 + p4) & mask
        at += 8
    if n - at >= 4:
        h = (rotl(h ^ (int.from_bytes(value[at : at + 4], "little") * p1 & mask), 23) * p2 + p3) & mask
        at += 4
    for byte in value[at:]:
        h = rotl(h ^ (byte * p5 & mask), 11) * p1 & mask
    for shift, prime in ((33, p2), (29, p3)):
        h = (h ^ (h >> shift)) * prime & mask
    return h ^ (h >> 32)


def xxh64(data: np.ndarray, offsets: np.ndarray, seed: int) -> np.ndarray:
    """Hashes every value of a column of byte strings.

    Args:
        data: All bytes, uint8[any].
        offsets: Value i is `data[offsets[i]:offsets[i + 1]]`, int64[n + 1], ascending.
        seed: Seed, 0 <= seed < 2^64.

    Returns:
        uint64[n].
    """
    out = np.empty(len(offsets) - 1, np.uint64)
    data = data.view()
    data.flags.writeable = False  # one compiled version for Arrow's buffers, which are read-only, and all others
    offsets = offsets.view()
    offsets.flags.writeable = False
    _xxh64(data, offsets, np.uint64(seed), out)
    return out


@njit(cache=True, nogil=True, forceinline=True)
def _rotl(x: np.uint64, r: int) -> Any:
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@njit(cache=True, nogil=True, forceinline=True)
def _round(a: np.uint64, x: np.uint64) -> Any:
    return _rotl(a + x * P2, 31) * P1


@njit(cache=True, nogil=True, forceinline=True)
def _read64(data: np.ndarray, at: int) -> Any:
    # LLVM folds the eight byte loads into one; an index that could be negative would keep it from that.
    i = np.uint64(at)
    return (
        np.uint64(data[i])
        | np.uint64(data[i + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[i + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[i + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[i + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[i + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[i + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[i + np.uint64(7)]) << np.uint64(56)
    )


@njit(cache=True, nogil=True)
def hash_bytes(data: np.ndarray, at: int, stop: int, seed: np.uint64) -> Any:
    """XXH64 of bytes [at, stop) of `data`, for other kernels."""
    n = stop - at
    if n >= 32:
        a0, a1, a2, a3 = seed + P1 + P2, seed + P2, seed, seed - P1
        while stop - at >= 32:
            a0 = _round(a0, _read64(data, at))
            a1 = _round(a1, _read64(data, at + 8))
            a2 = _round(a2, _read64(data, at + 16))
            a3 = _round(a3, _read64(data, at + 24))
            at += 32
        h = _rotl(a0, 1) + _rotl(a1, 7) + _rotl(a2, 12) + _rotl(a3, 18)
        zero = np.uint64(0)
        h = (h ^ _round(zero, a0)) * P1 + P4
        h = (h ^ _round(zero, a1)) * P1 + P4
        h = (h ^ _round(zero, a2)) * P1 + P4
        h = (h ^ _round(zero, a3)) * P1 + P4
    else:
        h = seed + P5
    h = h + np.uint64(n)
    while stop - at >= 8:
        h = _rotl(h ^ _round(np.uint64(0), _read64(data, at)), 27) * P1 + P4
        at += 8
    if stop - at >= 4:
        word = (
            np.uint64(data[at])
            | np.uint64(data[at + 1]) << np.uint64(8)
            | np.uint64(data[at + 2]) << np.uint64(16)
            | np.uint64(data[at + 3]) << np.uint64(24)
        )
        h = _rotl(h ^ word * P1, 23) * P2 + P3
        at += 4
    while at < stop:
        h = _rotl(h ^ np.uint64(data[at]) * P5, 11) * P1
        at += 1
    h = (h ^ (h >> np.uint64(33))) * P2
    h = (h ^ (h >> np.uint64(29))) * P3
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _xxh64(data: np.ndarray, offsets: np.ndarray, seed: np.uint64, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] = hash_bytes(data, offsets[i], offsets[i + 1], seed)


def to_hex(high: np.ndarray, low: np.ndarray) -> pa.StringArray:
    """Writes 128-bit numbers as 32 lower-case hex digits, most significant first: uint64[n] twice -> string[n]."""
    count = len(high)
    octets = np.stack([high, low], axis=1).astype(">u8").view(np.uint8).reshape(-1)  # 16 a row, big-endian
    digits = np.empty((len(octets), 2), np.uint8)
    digits[:, 0] = _HEX_DIGITS[octets >> 4]
    digits[:, 1] = _HEX_DIGITS[octets & 15]
    offsets = np.arange(0, (count + 1) * ID_DIGITS, ID_DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digits.reshape(-1)))


def from_hex(ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Reads ids of 32 hex digits: string[n] without nulls -> (high, low), uint64[n] each.

    Raises:
        ValueError: If an id is null or not 32 hex digits.
    """
    if ids.null_count:
        raise ValueError(f"{ids.null_count} ids are null")
    width = np.int64 if pa.types.is_large_string(ids.type) else np.int32
    _, offset_buffer, data_buffer = ids.buffers()
    if len(ids) == 0:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    offsets = np.frombuffer(offset_buffer, width)[ids.offset : ids.offset + len(ids) + 1]
    if np.any(np.diff(offsets) != ID_DIGITS):
        row = int(np.argmax(np.diff(offsets) != ID_DIGITS))
        raise ValueError(f"id {ids[row].as_py()!r} is not {ID_DIGITS} hex digits")
    values = _HEX_VALUES[np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]]
    if values.max() > 15:
        row = int(np.argmax(values > 15)) // ID_DIGITS
        raise ValueError(f"id {ids[row].as_py()!r} is not {ID_DIGITS} hex digits")
    words = (values[0::2] << 4 | values[1::2]).reshape(-1).view(">u8").astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
