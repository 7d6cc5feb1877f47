"""Sets of integers as sorted spans [start, stop): union, difference, and drawing spans of text in to borders.

    snap   character   ends move inward to borders of UTF-8 characters
           word        ... on to where a word of `kernels.words` does not go on; `keep_apart` then
           line        ... to whole lines: from behind a line end, or the text's start, to a line end or behind it

Shapes: starts and stops int64[n].
"""

import numpy as np
from numba import njit

from ropewalk.kernels.words import UNSPACED, _decode, kind

SNAPS = {"character": 0, "word": 1, "line": 2}


def union(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins spans that overlap or touch; the result is sorted."""
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], stops[order]
    reach = np.maximum.accumulate(stops) if len(stops) else stops
    fresh = np.ones(len(starts), bool)
    fresh[1:] = starts[1:] > reach[:-1]
    last = np.flatnonzero(np.append(fresh[1:], True)) if len(starts) else np.empty(0, np.int64)
    return starts[fresh], reach[last]


@njit(cache=True, nogil=True)
def difference(
    starts: np.ndarray, stops: np.ndarray, less_starts: np.ndarray, less_stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What of sorted disjoint spans is in none of other sorted disjoint spans."""
    out_starts = np.empty(len(starts) + len(less_starts), np.int64)
    out_stops = np.empty(len(starts) + len(less_starts), np.int64)
    count = k = 0
    for i in range(len(starts)):
        at = starts[i]
        while k < len(less_starts) and less_stops[k] <= at:
            k += 1
        j = k
        while at < stops[i]:
            if j == len(less_starts) or less_starts[j] >= stops[i]:
                out_starts[count], out_stops[count] = at, stops[i]
                count += 1
                break
            if less_starts[j] > at:
                out_starts[count], out_stops[count] = at, less_starts[j]
                count += 1
            at = less_stops[j]
            j += 1
    return out_starts[:count], out_stops[:count]


def snap_reference(text: str, start: int, stop: int, how: str) -> tuple[int, int]:
    """The same by trying all borders of a text; (0, 0) if nothing is left of the span."""
    chars, borders = list(text), np.cumsum([0, *(len(char.encode()) for char in text)]).tolist()

    def goes_on(i: int) -> bool:
        sides = [kind(ord(chars[j])) for j in (i - 1, i)] if 0 < i < len(chars) else [(0, False)]
        return all(lower and not alone for lower, alone in sides)

    def fits(i: int, first: bool) -> bool:
        if how == "word":
            return not goes_on(i)
        if how == "line":
            behind = i == 0 or chars[i - 1] == "\n"
            return behind or (not first and (i == len(chars) or chars[i] == "\n"))
        return True

    starts = [b for i, b in enumerate(borders) if b >= start and fits(i, True)]
    stops = [b for i, b in enumerate(borders) if b <= stop and fits(i, False)]
    if not starts or not stops or starts[0] >= stops[-1]:
        return 0, 0
    start, stop = starts[0], stops[-1]
    if how == "word":
        start, stop = keep_apart_reference(text, start, stop)
    return (start, stop) if start < stop else (0, 0)


def keep_apart_reference(text: str, start: int, stop: int) -> tuple[int, int]:
    """`keep_apart` for one text; bytes."""
    data = text.encode()
    before, inside, behind = data[:start].decode(), data[start:stop].decode(), data[stop:].decode()

    def letter(char: str) -> bool:
        lower, alone = kind(ord(char))
        return bool(lower) and not alone

    if not before or not inside or not behind or not letter(before[-1]) or not letter(behind[0]):
        return start, stop
    last, first = inside[-1], inside[0]
    if kind(ord(last))[0] and not kind(ord(first))[0]:
        return start + len(first.encode()), stop
    return (start, stop) if letter(last) else (start, stop - len(last.encode()))


@njit(cache=True, nogil=True)
def _letter(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> bool:
    """Whether the character at `at` can go on a word, or be gone on by one."""
    byte = data[at]
    entry = classes[byte] if byte < 0x80 else _decode(data, at, stop, classes)[0]
    return bool(entry != 0 and entry & UNSPACED == 0)


@njit(cache=True, nogil=True)
def _inside(data: np.ndarray, at: int, stop: int) -> bool:
    return bool(at < stop and data[at] & 0xC0 == 0x80)


@njit(cache=True, nogil=True)
def _separator(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> bool:
    byte = data[at]
    return bool((classes[byte] if byte < 0x80 else _decode(data, at, stop, classes)[0]) == 0)


@njit(cache=True, nogil=True)
def _last(data: np.ndarray, begin: int, at: int) -> int:
    """Where the character in front of `at` begins."""
    at -= 1
    while at > begin and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@njit(cache=True, nogil=True)
def _joins(data: np.ndarray, start: int, stop: int, begin: int, end: int, classes: np.ndarray) -> bool:
    """Whether a word goes on from in front of `start` to `stop`, were there nothing between."""
    if start <= begin or stop >= end or not _letter(data, stop, end, classes):
        return False
    return bool(_letter(data, _last(data, begin, start), end, classes))


@njit(cache=True, nogil=True)
def keep_apart(
    data: np.ndarray, start: int, stop: int, begin: int, end: int, classes: np.ndarray
) -> tuple[int, int]:  # fmt: skip
    """Makes a cut one character smaller if without it two words would become one.

    A separator at the cut's end or at its start stays, or, where neither is one, a last character that stands alone. A
    cut through a word at both ends joins what is left of it.

    Args:
        data: UTF-8 of the text, uint8.
        start: First byte of the cut.
        stop: Its end.
        begin: First byte of the text.
        end: End of the text.
        classes: `words.table()`.
    """
    if start >= stop or not _joins(data, start, stop, begin, end, classes):
        return start, stop
    last = _last(data, start, stop)
    if not _separator(data, last, end, classes) and _separator(data, start, end, classes):
        start += 1
        while start < stop and _inside(data, start, end):
            start += 1
        return start, stop
    return (start, stop) if _letter(data, last, end, classes) else (start, last)


@njit(cache=True, nogil=True)
def word_border(
    data: np.ndarray, at: int, begin: int, end: int, most: int, backward: bool, classes: np.ndarray
) -> int:  # fmt: skip
    """The start, or the end, of the word that `at` lies in; `at` where it lies in none, or `most` characters away.

    Args:
        data: UTF-8 of the text, uint8.
        at: A character's border.
        begin: First byte of the text.
        end: End of the text.
        most: Characters to go at most.
        backward: To the start.
        classes: `words.table()`.
    """
    border = at
    for _ in range(most):
        if not _joins(data, border, border, begin, end, classes):
            return border
        if backward:
            border = _last(data, begin, border)
        else:
            border += 1
            while _inside(data, border, end):
                border += 1
    return at if _joins(data, border, border, begin, end, classes) else border


@njit(cache=True, nogil=True)
def snap(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, begins: np.ndarray, ends: np.ndarray, how: int,
    classes: np.ndarray,
) -> None:  # fmt: skip
    """Draws spans in, in place; one of which nothing is left has start == stop.

    Args:
        data: UTF-8 of all texts, uint8.
        starts: First byte of each span in `data`.
        stops: End of each span.
        begins: First byte of each span's text.
        ends: End of each span's text.
        how: A value of `SNAPS`.
        classes: `words.table()`.
    """
    for i in range(len(starts)):
        start, stop, begin, end = starts[i], stops[i], begins[i], ends[i]
        if how == 2:
            while start < stop and start > begin and data[start - 1] != 10:
                start += 1
            while stop > start and stop < end and data[stop - 1] != 10 and data[stop] != 10:
                stop -= 1
        else:
            while start < stop and (
                _inside(data, start, end) or (how == 1 and _joins(data, start, start, begin, end, classes))
            ):
                start += 1
            while stop > start and (
                _inside(data, stop, end) or (how == 1 and _joins(data, stop, stop, begin, end, classes))
            ):
                stop -= 1
            if how == 1:
                start, stop = keep_apart(data, start, stop, begin, end, classes)
        starts[i], stops[i] = start, stop


@njit(cache=True, nogil=True)
def count_characters(data: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Characters of UTF-8 that begin inside each span: int64[n]."""
    counts = np.zeros(len(starts), np.int64)
    for i in range(len(starts)):
        for at in range(starts[i], stops[i]):
            counts[i] += data[at] & 0xC0 != 0x80
    return counts
