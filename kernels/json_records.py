"""Takes JSON objects apart without building them: some string members by name, the rest as one JSON object.

Grammar: RFC 8259, checked in full on the bytes of each record (brackets on a stack of 60 bits). A record that the
kernel cannot vouch for is only marked `ASK`: broken ones, NaN, names written with escapes, a wanted name twice,
numbers of thousands of digits, deep nesting. The caller then asks `json.loads`, which also knows what is wrong. So the
kernel may doubt a good record, but must never take one that `json.loads` refuses or reads differently.

Values are copied as they are written, white space between tokens left out: numbers keep every digit, and the result
does not depend on the other records. UTF-8 is not checked here: Arrow does that for a whole buffer at a time.
"""

import json
from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.json_strings import BACKSLASHES, HIGH, ONES, copy_bytes, hex4, read64, read_only

FINE, BLANK, ASK = 0, 1, 2
"""What became of a record: taken apart; nothing but white space; ask `json.loads`."""

ABSENT, NULL, PLAIN, ESCAPED, OTHER = 0, 1, 2, 3, 4
"""What a wanted member is: not there, `null`, a string without and with escapes, any other value."""

_DEPTH = 60
_LONGEST_NUMBER = 300
_QUOTES = np.uint64(0x2222222222222222)
_SPACES = np.uint64(0x2020202020202020)


def take_apart_reference(record: bytes, names: list[str], keep: list[bool]) -> tuple[list[Any], dict[str, Any]]:
    """One record by `json.loads`: the wanted members (None where absent), and all others as one object.

    A wanted string leaves the rest unless its `keep` is set; a wanted member that is no string always stays there,
    `null` of a leaving member excepted.
    """
    whole = json.loads(record)
    rest = dict(whole)
    for name, kept in zip(names, keep, strict=True):
        if not kept and isinstance(whole.get(name), str | None):
            rest.pop(name, None)
    return [whole.get(name) for name in names], rest


def take_apart(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, names: list[str], keep: list[bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Takes every record apart.

    Args:
        data: All bytes, uint8[any].
        starts: Where each record starts, int64[n]; records do not overlap.
        stops: Where each record stops, int64[n].
        names: Names of the wanted members, all different.
        keep: Whether a wanted string also stays in the rest.

    Returns:
        (status, kinds, spans, rest, rest_offsets): uint8[n]; uint8[n, names]; int64[n, names, 2], for strings without
        their quotes; and the rest of record i is `rest[rest_offsets[i]:rest_offsets[i + 1]]`, nothing where there is
        no other member.
    """
    encoded = [name.encode() for name in names]
    name_data = np.frombuffer(b"".join(encoded) or b"\0", np.uint8)
    name_offsets = np.cumsum([0] + [len(name) for name in encoded]).astype(np.int64)
    status = np.empty(len(starts), np.uint8)
    kinds = np.zeros((len(starts), len(names)), np.uint8)
    spans = np.zeros((len(starts), len(names), 2), np.int64)
    rest = np.empty(int((stops - starts).sum()), np.uint8)
    rest_offsets = np.zeros(len(starts) + 1, np.int64)
    flags = np.array(keep, np.bool_)
    data = read_only(data)
    _take_apart(data, starts, stops, name_data, name_offsets, flags, status, kinds, spans, rest, rest_offsets)
    return status, kinds, spans, rest, rest_offsets


@njit(cache=True, nogil=True)
def _take_apart(  # type: ignore[no-untyped-def]
    data, starts, stops, name_data, name_offsets, keep, status, kinds, spans, rest, rest_offsets
) -> None:
    out = np.int64(0)
    for i in range(len(starts)):
        at, stop = _skip(data, starts[i], stops[i]), stops[i]
        before = out
        if at >= stop:
            status[i] = BLANK
        elif data[at] != 123:  # {
            status[i] = ASK
        else:
            fine, out = _members(data, at + 1, stop, name_data, name_offsets, keep, kinds[i], spans[i], rest, before)
            status[i] = FINE if fine else ASK
            if not fine:
                out = before
        rest_offsets[i + 1] = out


@njit(cache=True, nogil=True)
def _members(data, at, stop, name_data, name_offsets, keep, kinds, spans, rest, before):  # type: ignore[no-untyped-def]
    """Members of one object, from behind its bracket: (fine, end of what was written to `rest`)."""
    out = before
    at = _skip(data, at, stop)
    if at < stop and data[at] == 125:  # }
        return _skip(data, at + 1, stop) >= stop, out
    while True:
        if at >= stop or data[at] != 34:  # "
            return False, out
        key = at
        at, escaped = _string(data, at + 1, stop)
        if at < 0 or escaped:
            return False, out
        key_stop = at
        which = _which(data, key + 1, key_stop - 1, name_data, name_offsets)
        at = _skip(data, at, stop)
        if at >= stop or data[at] != 58:  # :
            return False, out
        at = _skip(data, at + 1, stop)
        if at >= stop:
            return False, out
        value = at
        leaves = False
        if data[at] == 34:
            at, escaped = _string(data, at + 1, stop)
            if at < 0:
                return False, out
            if which >= 0:
                if kinds[which] != ABSENT:
                    return False, out
                kinds[which] = ESCAPED if escaped else PLAIN
                spans[which, 0], spans[which, 1] = value + 1, at - 1
                leaves = not keep[which]
        else:
            at = _value(data, at, stop)
            if at < 0:
                return False, out
            if which >= 0:
                if kinds[which] != ABSENT:
                    return False, out
                kinds[which] = NULL if data[value] == 110 else OTHER  # n
                spans[which, 0], spans[which, 1] = value, at
                leaves = data[value] == 110 and not keep[which]
        if not leaves:
            rest[out] = 123 if out == before else 44  # { or ,
            out = copy_bytes(data, key, key_stop, rest, out + 1)
            rest[out] = 58
            out = _copy_compact(data, value, at, rest, out + 1)
        at = _skip(data, at, stop)
        if at >= stop:
            return False, out
        if data[at] == 44:  # ,
            at = _skip(data, at + 1, stop)
        elif data[at] == 125:
            if out > before:
                rest[out] = 125
                out += 1
            return _skip(data, at + 1, stop) >= stop, out
        else:
            return False, out


@njit(cache=True, nogil=True)
def _value(data, at, stop):  # type: ignore[no-untyped-def]
    """End of the value that starts at `at`, white space before it skipped; -1 if it is broken."""
    depth, stack = 0, np.uint64(0)  # bit 1: an object
    one = np.uint64(1)
    while True:
        at = _skip(data, at, stop)
        if at >= stop:
            return np.int64(-1)
        byte = data[at]
        opened = False
        if byte == 34:  # "
            at = _string(data, at + 1, stop)[0]
        elif byte == 123 or byte == 91:  # { [
            inside = _skip(data, at + 1, stop)
            if inside < stop and data[inside] == byte + 2:
                at = inside + 1
            elif depth == _DEPTH:
                return np.int64(-1)
            else:
                opened = True
                depth += 1
                stack = stack << one | (one if byte == 123 else np.uint64(0))
                at = _key(data, inside, stop) if byte == 123 else inside
        elif byte == 45 or 48 <= byte <= 57:
            at = _number(data, at, stop)
        else:
            at = _literal(data, at, stop)
        if at < 0:
            return np.int64(-1)
        if opened:
            continue
        while depth > 0:
            at = _skip(data, at, stop)
            if at >= stop:
                return np.int64(-1)
            in_object = stack & one == one
            if data[at] == 44:  # ,
                if in_object:
                    at = _key(data, _skip(data, at + 1, stop), stop)
                    if at < 0:
                        return np.int64(-1)
                else:
                    at += 1
                break
            if data[at] != (125 if in_object else 93):  # } ]
                return np.int64(-1)
            at += 1
            depth -= 1
            stack >>= one
            if depth == 0:
                return at
        if depth == 0:
            return at


@njit(cache=True, nogil=True)
def _key(data, at, stop):  # type: ignore[no-untyped-def]
    """End of `"name" :` at `at`, or -1."""
    if at >= stop or data[at] != 34:
        return np.int64(-1)
    at = _string(data, at + 1, stop)[0]
    if at < 0:
        return np.int64(-1)
    at = _skip(data, at, stop)
    if at >= stop or data[at] != 58:
        return np.int64(-1)
    return at + 1


@njit(cache=True, nogil=True, forceinline=True)
def _skip(data, at, stop):  # type: ignore[no-untyped-def]
    while at < stop and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@njit(cache=True, nogil=True)
def _string(data, at, stop):  # type: ignore[no-untyped-def]
    """From behind the opening quote: (position behind the closing one or -1, whether there are escapes)."""
    escaped = False
    while True:
        # Eight bytes at a time while none is a quote, a backslash or below a space: a byte b of x is zero where
        # (x - 1) & ~x has its high bit; a borrow can only come from a lower byte that is itself a hit.
        while stop - at >= 8:
            x = read64(data, at)
            q, b = x ^ _QUOTES, x ^ BACKSLASHES
            hit = ((q - ONES) & ~q) | ((b - ONES) & ~b) | ((x - _SPACES) & ~x)
            if hit & HIGH != np.uint64(0):
                break
            at += 8
        while at < stop and data[at] != 34 and data[at] != 92 and data[at] >= 32:
            at += 1
        if at >= stop or data[at] < 32:
            return np.int64(-1), escaped
        if data[at] == 34:
            return at + 1, escaped
        escaped = True
        if at + 1 >= stop:
            return np.int64(-1), escaped
        byte = data[at + 1]
        at += 2
        if byte == 117:  # u
            if stop - at < 4 or hex4(data, at) < 0:
                return np.int64(-1), escaped
            at += 4
        elif not (
            byte == 34 or byte == 92 or byte == 47 or byte == 98
            or byte == 102 or byte == 110 or byte == 114 or byte == 116
        ):  # fmt: skip
            return np.int64(-1), escaped


@njit(cache=True, nogil=True)
def _number(data, at, stop):  # type: ignore[no-untyped-def]
    start = at
    if data[at] == 45:  # -
        at += 1
    first = at
    at = _digits(data, at, stop)
    if at == first or (data[first] == 48 and at > first + 1):
        return np.int64(-1)
    if at < stop and data[at] == 46:  # .
        first = at + 1
        at = _digits(data, first, stop)
        if at == first:
            return np.int64(-1)
    if at < stop and (data[at] == 101 or data[at] == 69):  # e E
        at += 1
        if at < stop and (data[at] == 43 or data[at] == 45):
            at += 1
        first = at
        at = _digits(data, first, stop)
        if at == first:
            return np.int64(-1)
    return at if at - start <= _LONGEST_NUMBER else np.int64(-1)


@njit(cache=True, nogil=True, forceinline=True)
def _digits(data, at, stop):  # type: ignore[no-untyped-def]
    while at < stop and 48 <= data[at] <= 57:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _literal(data, at, stop):  # type: ignore[no-untyped-def]
    left = stop - at
    if left >= 4 and data[at] == 116 and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
        return at + 4
    if left >= 4 and data[at] == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
        return at + 4
    if (
        left >= 5 and data[at] == 102 and data[at + 1] == 97 and data[at + 2] == 108
        and data[at + 3] == 115 and data[at + 4] == 101
    ):  # fmt: skip
        return at + 5
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _which(data, start, stop, name_data, name_offsets):  # type: ignore[no-untyped-def]
    for name in range(len(name_offsets) - 1):
        if name_offsets[name + 1] - name_offsets[name] != stop - start:
            continue
        same = True
        for k in range(stop - start):
            if data[start + k] != name_data[name_offsets[name] + k]:
                same = False
                break
        if same:
            return name
    return -1


@njit(cache=True, nogil=True)
def _copy_compact(data, start, stop, out, at):  # type: ignore[no-untyped-def]
    """Copies a value of checked JSON without the white space between its tokens."""
    inside = False
    k = start
    while k < stop:
        byte = data[k]
        if inside:
            if byte == 92:
                out[at] = byte
                at += 1
                k += 1
                byte = data[k]
            elif byte == 34:
                inside = False
        elif byte == 34:
            inside = True
        elif byte == 32 or byte == 10 or byte == 13 or byte == 9:
            k += 1
            continue
        out[at] = byte
        at += 1
        k += 1
    return at
