"""Paragraphs and lines of texts, and a 128-bit hash of the words of each.

    line        what ends with a line feed, or with the piece
    paragraph   a maximal run of lines that are not blank (of nothing but `BLANK`)

Words are those of `kernels.words`: equal hashes mean equal words in the same order, whatever case, punctuation, spaces
and, in a paragraph, line breaks. The hash is two chains over the 64-bit word hashes w, closed with their number:

    high <- (high ^ w) * M1;  high <- high ^ (high >> 32)        low <- (low + w) * M2;  low <- low ^ (low >> 29)

A unit without words, or of fewer bytes than asked for (from its first byte to its last line's end), is left out. Where
it is cut, what separates it from the next one goes with it: the line end, or the blank lines behind a paragraph.

Shapes: `data` uint8; pieces int64[p]; found units int64[u], hashes uint64[u, 2].
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels import words
from ropewalk.kernels.shingles import mix

LINE, PARAGRAPH = 0, 1
BLANK = b" \t\r\v\f"
BLOCK = 1024
"""Words scanned at a time."""

_HIGH = 0x9E3779B97F4A7C15
_LOW = 0xC2B2AE3D27D4EB4F
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


def units_reference(piece: bytes, kind: int) -> list[tuple[int, int, int]]:
    """Start, end of the text and end of what is cut with it, of every line or paragraph of a piece."""
    lines, at = [], 0
    for line in piece.split(b"\n"):
        if at < len(piece):
            lines.append((at, at + len(line), min(at + len(line) + 1, len(piece))))
        at += len(line) + 1
    if kind == LINE:
        return lines
    found: list[tuple[int, int, int]] = []
    inside = False
    for start, end, stop in lines:
        blank = not piece[start:end].strip(BLANK)
        if not blank:
            found.append((found.pop()[0], end, stop) if inside else (start, end, stop))
        elif found:
            found.append((*found.pop()[:2], stop))
        inside = not blank
    return found


@njit(cache=True, nogil=True)
def count_lines(data: np.ndarray, begin: np.ndarray, end: np.ndarray) -> int:
    """At most so many units are in the pieces."""
    count = len(begin)
    for piece in range(len(begin)):
        for at in range(begin[piece], end[piece]):
            count += data[at] == 10
    return count


@njit(cache=True, nogil=True)
def _line_end(data: np.ndarray, at: int, stop: int) -> int:
    while at < stop and data[at] != 10:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _blank(data: np.ndarray, at: int, stop: int) -> bool:
    for i in range(at, stop):
        if not (data[i] == 32 or data[i] == 9 or 11 <= data[i] <= 13):
            return False
    return True


@njit(cache=True, nogil=True)
def _hash(data: np.ndarray, start: int, end: int, classes: np.ndarray, scratch: np.ndarray) -> Any:
    """High and low half of the hash, and the number of words."""
    high, low, count = np.uint64(_HIGH), np.uint64(_LOW), np.int64(0)
    at = start
    while at < end:
        found, at = words.scan_words(data, at, end, classes, scratch)
        for j in range(found):
            high = (high ^ scratch[j]) * np.uint64(_M1)
            low = (low + scratch[j]) * np.uint64(_M2)
            high, low = high ^ (high >> np.uint64(32)), low ^ (low >> np.uint64(29))
        count += found
    return mix(high ^ np.uint64(count)), mix(low ^ np.uint64(count)), count


@njit(cache=True, nogil=True)
def passage_units(
    data: np.ndarray, begin: np.ndarray, end: np.ndarray, kind: int, least: int, classes: np.ndarray,
    piece_of: np.ndarray, starts: np.ndarray, stops: np.ndarray, hashes: np.ndarray,
) -> int:  # fmt: skip
    """Finds and hashes the units of pieces of text; returns their number.

    Args:
        data: UTF-8 of all texts.
        begin: First byte of each piece.
        end: End of each piece.
        kind: `LINE` or `PARAGRAPH`.
        least: Bytes of a unit, at least.
        classes: `words.table()`.
        piece_of: Receives the piece of each unit, int64[count_lines].
        starts: Receives the unit's first byte in `data`.
        stops: Receives the end of what is cut with it.
        hashes: Receives high and low half of its hash.
    """
    scratch = np.empty(BLOCK, np.uint64)
    count = 0
    for piece in range(len(begin)):
        at, stop = begin[piece], end[piece]
        while at < stop:
            start = at
            last = _line_end(data, at, stop)
            at = min(last + 1, stop)
            if kind == PARAGRAPH:
                if _blank(data, start, last):
                    continue
                inside = True
                while at < stop:
                    line = _line_end(data, at, stop)
                    if not _blank(data, at, line):
                        if not inside:
                            break
                        last = line
                    else:
                        inside = False
                    at = min(line + 1, stop)
            if last - start < least:
                continue
            high, low, found = _hash(data, start, last, classes, scratch)
            if found:
                piece_of[count], starts[count], stops[count] = piece, start, at
                hashes[count, 0], hashes[count, 1] = high, low
                count += 1
    return count
