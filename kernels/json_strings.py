"""Strings out of JSON: escapes resolved (RFC 8259, section 7), one column of UTF-8 made of many spans."""

import numpy as np
from numba import njit

ONES = np.uint64(0x0101010101010101)
HIGH = np.uint64(0x8080808080808080)
BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
"""For looking at eight bytes at once: a byte b of x is zero where (x - ONES) & ~x has its high bit, in `HIGH`."""


def unescape(data: np.ndarray, spans: np.ndarray, escaped: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copies strings out of JSON into one column, escapes resolved.

    Args:
        data: All bytes, uint8[any].
        spans: Where each string is, without its quotes, int64[n, 2]; its escapes are well-formed.
        escaped: Whether it has escapes, bool[n].

    Returns:
        (values, offsets, whole): uint8[at least offsets[n]], int64[n + 1], and bool[n], false where half of a surrogate
        pair stands alone: no UTF-8 exists for such a string, and the value is then empty.
    """
    values = np.empty(int((spans[:, 1] - spans[:, 0]).sum()), np.uint8)
    offsets = np.zeros(len(spans) + 1, np.int64)
    whole = np.ones(len(spans), np.bool_)
    _unescape(read_only(data), np.ascontiguousarray(spans), np.ascontiguousarray(escaped), values, offsets, whole)
    return values, offsets, whole


def read_only(data: np.ndarray) -> np.ndarray:
    """A read-only view: one compiled version of a kernel serves the bytes of a file, which are so, and all others."""
    view = data.view()
    view.flags.writeable = False
    return view


@njit(cache=True, nogil=True)
def _unescape(data, spans, escaped, values, offsets, whole) -> None:  # type: ignore[no-untyped-def]
    out = np.int64(0)
    for i in range(len(spans)):
        at, stop = spans[i, 0], spans[i, 1]
        begin = out
        if not escaped[i]:
            out = copy_bytes(data, at, stop, values, out)
        while escaped[i] and at < stop:
            # Eight bytes at a time while none is a backslash, as in `_string`; the runs are too short for slices.
            while stop - at >= 8:
                b = read64(data, at) ^ BACKSLASHES
                if ((b - ONES) & ~b) & HIGH != np.uint64(0):
                    break
                for k in range(8):
                    values[out + k] = data[at + k]
                at += 8
                out += 8
            while at < stop and data[at] != 92:
                values[out] = data[at]
                at += 1
                out += 1
            if at >= stop:
                break
            byte = data[at + 1]
            at += 2
            if byte == 117:  # u
                point = hex4(data, at)
                at += 4
                if 0xD800 <= point < 0xE000:
                    low = np.int64(-1)
                    if point < 0xDC00 and stop - at >= 6 and data[at] == 92 and data[at + 1] == 117:
                        low = hex4(data, at + 2)
                    if not 0xDC00 <= low < 0xE000:
                        whole[i] = False
                        out = begin
                        break
                    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00)
                    at += 6
                out = _utf8(point, values, out)
                continue
            if byte == 98:
                byte = 8
            elif byte == 102:
                byte = 12
            elif byte == 110:
                byte = 10
            elif byte == 114:
                byte = 13
            elif byte == 116:
                byte = 9
            values[out] = byte
            out += 1
        offsets[i + 1] = out


@njit(cache=True, nogil=True)
def copy_bytes(data, start, stop, out, at):  # type: ignore[no-untyped-def]
    """Copies data[start:stop] to `out` from `at`; where it ends there."""
    out[at : at + stop - start] = data[start:stop]
    return at + stop - start


@njit(cache=True, nogil=True)
def _utf8(point, out, at):  # type: ignore[no-untyped-def]
    if point < 0x80:
        out[at] = point
        return at + 1
    if point < 0x800:
        out[at], out[at + 1] = 0xC0 | point >> 6, 0x80 | point & 63
        return at + 2
    if point < 0x10000:
        out[at], out[at + 1], out[at + 2] = 0xE0 | point >> 12, 0x80 | point >> 6 & 63, 0x80 | point & 63
        return at + 3
    out[at], out[at + 1] = 0xF0 | point >> 18, 0x80 | point >> 12 & 63
    out[at + 2], out[at + 3] = 0x80 | point >> 6 & 63, 0x80 | point & 63
    return at + 4


@njit(cache=True, nogil=True)
def hex4(data, at):  # type: ignore[no-untyped-def]
    """Four hex digits as a number, or -1."""
    number = np.int64(0)
    for k in range(4):
        byte = np.int64(data[at + k])
        if 48 <= byte <= 57:
            digit = byte - 48
        elif 97 <= byte <= 102:
            digit = byte - 87
        elif 65 <= byte <= 70:
            digit = byte - 55
        else:
            return np.int64(-1)
        number = number << 4 | digit
    return number


@njit(cache=True, nogil=True, forceinline=True)
def read64(data, at):  # type: ignore[no-untyped-def]
    """The eight bytes from `at`, little-endian, uint64."""
    # An unsigned index spares numba's check for negative ones, so that LLVM sees one load of eight bytes.
    k = np.uint64(at)
    return (
        np.uint64(data[k])
        | np.uint64(data[k + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[k + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[k + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[k + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[k + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[k + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[k + np.uint64(7)]) << np.uint64(56)
    )
