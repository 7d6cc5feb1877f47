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

FINE, BLANK, ASK = 0, 1, 2
"""What became of a record: taken apart; nothing but white space; ask `json.loads`."""

ABSENT, NULL, PLAIN, ESCAPED, OTHER = 0, 1, 2, 3, 4
"""What a wanted member is: not there, `null`, a string without and with escapes, any other value."""

_DEPTH = 60
_LONGEST_NUMBER = 300
_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
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


def line_spans(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lines of a buffer are: uint8[n] -> (starts, stops), int64[lines], line ends left out.

    A last line without an end counts; nothing behind the last line end does not.
    """
    ends = np.empty(_count_lines(data), np.int64)
    _find_lines(data, ends)
    if len(data) and (len(ends) == 0 or ends[-1] != len(data) - 1):
        ends = np.append(ends, len(data))
    starts = np.empty_like(ends)
    starts[:1] = 0
    starts[1:] = ends[:-1] + 1
    return starts, ends


@njit(cache=True, nogil=True)
def _count_lines(data: np.ndarray) -> int:
    count = 0
    for byte in data:
        count += byte == 10
    return count


@njit(cache=True, nogil=True)
def _find_lines(data: np.ndarray, ends: np.ndarray) -> None:
    found = 0
    for at in range(len(data)):
        if data[at] == 10:
            ends[found] = at
            found += 1


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
    data = _read_only(data)
    _take_apart(data, starts, stops, name_data, name_offsets, flags, status, kinds, spans, rest, rest_offsets)
    return status, kinds, spans, rest, rest_offsets


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
    _unescape(_read_only(data), np.ascontiguousarray(spans), np.ascontiguousarray(escaped), values, offsets, whole)
    return values, offsets, whole


def _read_only(data: np.ndarray) -> np.ndarray:
    # One compiled version for the bytes of a file, which are read-only, and all others.
    view = data.view()
    view.flags.writeable = False
    return view


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
            out = _copy(data, key, key_stop, rest, out + 1)
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
            x = _read64(data, at)
            q, b = x ^ _QUOTES, x ^ _BACKSLASHES
            hit = ((q - _ONES) & ~q) | ((b - _ONES) & ~b) | ((x - _SPACES) & ~x)
            if hit & _HIGH != np.uint64(0):
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
            if stop - at < 4 or _hex4(data, at) < 0:
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
def _copy(data, start, stop, out, at):  # type: ignore[no-untyped-def]
    out[at : at + stop - start] = data[start:stop]
    return at + stop - start


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


@njit(cache=True, nogil=True)
def _unescape(data, spans, escaped, values, offsets, whole) -> None:  # type: ignore[no-untyped-def]
    out = np.int64(0)
    for i in range(len(spans)):
        at, stop = spans[i, 0], spans[i, 1]
        begin = out
        if not escaped[i]:
            out = _copy(data, at, stop, values, out)
        while escaped[i] and at < stop:
            # Eight bytes at a time while none is a backslash, as in `_string`; the runs are too short for slices.
            while stop - at >= 8:
                b = _read64(data, at) ^ _BACKSLASHES
                if ((b - _ONES) & ~b) & _HIGH != np.uint64(0):
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
                point = _hex4(data, at)
                at += 4
                if 0xD800 <= point < 0xE000:
                    low = np.int64(-1)
                    if point < 0xDC00 and stop - at >= 6 and data[at] == 92 and data[at + 1] == 117:
                        low = _hex4(data, at + 2)
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
def _hex4(data, at):  # type: ignore[no-untyped-def]
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
def _read64(data, at):  # type: ignore[no-untyped-def]
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
