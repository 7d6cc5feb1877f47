"""Lines and paragraphs of a text, and what they are counted by.

    line        what stands between line feeds, without the white space at its end; the last one counts if not empty
    blank       a line of which nothing is left
    paragraph   lines without a blank one between them

    duplicates  lines (paragraphs) equal to an earlier one; blank lines are none. Equal means equal bytes, by a 64-bit
                hash; a paragraph's is made of those of its lines.

A text of more than 2^20 different lines is compared in pieces of that many, so that memory stays bounded.

Counts are listed in `FIELDS`. Shapes: data uint8[bytes]; classes uint8[0x20000]; counts int64[14].
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.read_bytes import byte_at, eight_at
from ropewalk.kernels.shingles import mix
from ropewalk.kernels.text_classes import SPACE, TERMINAL, class_of, classify_reference, decode, trim

SHORT_LINE = 30
"""Codepoints of a short line, at most (FineWeb)."""
TABLE_LINES = 1 << 20
FIELDS = (
    "chars", "newlines", "lines", "bullet_lines", "ellipsis_lines", "filled_lines", "ended_lines", "short_lines",
    "repeated_lines", "repeated_line_chars", "paragraphs", "repeated_paragraphs", "repeated_paragraph_chars",
)  # fmt: skip
"""codepoints of the text; line feeds; lines; those that begin with - or •, white space aside; those that end with ...
or …; lines that are not blank; those of them that end with a mark that ends sentences; those of at most 30 codepoints;
duplicates and their codepoints; paragraphs; duplicates and their codepoints (line feeds between their lines count)."""
(CHARS, NEWLINES, LINES, BULLETS, ELLIPSIS_ENDS, FILLED, ENDED, SHORT, REPEATED, REPEATED_CHARS, PARAGRAPHS,
 REPEATED_PARAGRAPHS, REPEATED_PARAGRAPH_CHARS) = range(len(FIELDS))  # fmt: skip

_M1 = 0xBF58476D1CE4E5B9


def counts_reference(text: str) -> dict[str, int]:
    """Counts of a text, by the definitions."""
    pieces = text.split("\n")
    lines = [line.rstrip() for line in (pieces if pieces[-1] else pieces[:-1])]
    filled = [line for line in lines if line]
    paragraphs: list[str] = []
    after_blank = True
    for line in lines:
        if line and not after_blank:
            paragraphs[-1] += "\n" + line
        elif line:
            paragraphs.append(line)
        after_blank = not line

    def repeated(parts: list[str]) -> list[str]:
        seen: set[str] = set()
        found = []
        for part in parts:
            if part in seen:
                found.append(part)
            seen.add(part)
        return found

    return {
        "chars": len(text),
        "newlines": text.count("\n"),
        "lines": len(lines),
        "bullet_lines": sum(line.lstrip().startswith(("-", "•")) for line in lines),
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines),
        "filled_lines": len(filled),
        "ended_lines": sum(bool(classify_reference(ord(line[-1])) & TERMINAL) for line in filled),
        "short_lines": sum(len(line) <= SHORT_LINE for line in filled),
        "repeated_lines": len(repeated(filled)),
        "repeated_line_chars": sum(map(len, repeated(filled))),
        "paragraphs": len(paragraphs),
        "repeated_paragraphs": len(repeated(paragraphs)),
        "repeated_paragraph_chars": sum(map(len, repeated(paragraphs))),
    }


@njit(cache=True, nogil=True)
def count_newlines(text: np.ndarray) -> int:
    """Line feeds of a text: how large a table its lines need."""
    found = 0
    for byte in text:
        found += byte == 10
    return found


@njit(cache=True, nogil=True)
def _codepoints(text: np.ndarray) -> int:
    found = 0
    for byte in text:
        found += (byte & 0xC0) != 0x80
    return found


@njit(cache=True, nogil=True)
def find_newline(data: np.ndarray, at: int, stop: int) -> int:
    """Where the first line feed of bytes [at, stop) stands; `stop` if there is none."""
    while at + 8 <= stop:
        # Eight bytes at a time: the expression has a bit set if and only if a byte of x is 0 (Mycroft 1987).
        x = eight_at(data, at) ^ np.uint64(0x0A0A0A0A0A0A0A0A)
        if (x - np.uint64(0x0101010101010101)) & ~x & np.uint64(0x8080808080808080):
            break
        at += 8
    while at < stop and byte_at(data, at) != 10:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _hash(data: np.ndarray, start: int, stop: int) -> Any:
    h = np.uint64(stop - start)
    at = start
    while at + 8 <= stop:
        h = (h ^ eight_at(data, at)) * np.uint64(_M1)
        h ^= h >> np.uint64(32)
        at += 8
    block = np.uint64(0)
    while at < stop:
        block = block << np.uint64(8) | np.uint64(byte_at(data, at))
        at += 1
    return mix(h ^ block)


@njit(cache=True, nogil=True, inline="always")
def _seen(table: np.ndarray, mask: int, key: np.uint64) -> bool:
    """Whether a key is in the table; it is afterwards. 0 marks empty slots, so the key 0 is taken for 1."""
    if key == np.uint64(0):
        key = np.uint64(1)
    slot = key & np.uint64(mask)
    while table[slot] != np.uint64(0):
        if table[slot] == key:
            return True
        slot = (slot + np.uint64(1)) & np.uint64(mask)
    table[slot] = key
    return False


@njit(cache=True, nogil=True)
def _bound(table: np.ndarray, slots: int, known: int, limit: int, newest: np.uint64) -> int:
    """Empties a table that holds more than `limit` keys, but for the newest; returns how many it holds."""
    if known <= limit:
        return known
    table[:slots] = np.uint64(0)
    _seen(table, slots - 1, newest)
    return 1


@njit(cache=True, nogil=True)
def table_slots(newlines: int) -> int:
    """Slots that the table of a text with so many line feeds needs: a power of two, for lines and paragraphs."""
    lines = min(newlines + 1, TABLE_LINES)
    size = 16
    while size < 2 * lines:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def count_lines(
    data: np.ndarray, start: int, stop: int, classes: np.ndarray, lines: np.ndarray, paragraphs: np.ndarray,
    slots: int, limit: int, counts: np.ndarray,
) -> None:  # fmt: skip
    """Counts the lines and paragraphs of bytes [start, stop).

    Args:
        data: UTF-8.
        start: First byte.
        stop: End of the text.
        classes: `text_classes.classes()`.
        lines: Scratch, uint64[at least `slots`].
        paragraphs: The same.
        slots: `table_slots` of the text.
        limit: Different lines that are compared at once: `TABLE_LINES`.
        counts: Added to.
    """
    lines[:slots] = np.uint64(0)
    paragraphs[:slots] = np.uint64(0)
    known = known_paragraphs = 0
    paragraph, paragraph_chars, paragraph_lines = np.uint64(0), 0, 0
    total = _codepoints(data[start:stop])
    ascii_only = total == stop - start
    num_lines = filled = short = repeated = repeated_chars = num_paragraphs = repeated_paragraphs = 0
    repeated_paragraph_chars = 0
    at = start
    while at < stop:
        first = at
        at = find_newline(data, at, stop)
        last = trim(data, first, at, classes)
        num_lines += 1
        at += 1
        if last > first:
            chars = last - first if ascii_only else _codepoints(data[first:last])
            filled += 1
            short += chars <= SHORT_LINE
            _ends(data, first, last, classes, counts)
            key = _hash(data, first, last)
            if _seen(lines, slots - 1, key):
                repeated += 1
                repeated_chars += chars
            else:
                known = _bound(lines, slots, known + 1, limit, key)
            paragraph = mix(paragraph + key)
            paragraph_chars += chars
            paragraph_lines += 1
        if paragraph_lines > 0 and (last == first or at >= stop):
            num_paragraphs += 1
            if _seen(paragraphs, slots - 1, paragraph):
                repeated_paragraphs += 1
                repeated_paragraph_chars += paragraph_chars + paragraph_lines - 1
            else:
                known_paragraphs = _bound(paragraphs, slots, known_paragraphs + 1, limit, paragraph)
            paragraph, paragraph_chars, paragraph_lines = np.uint64(0), 0, 0
    counts[CHARS] += total
    counts[NEWLINES] += num_lines - (at == stop + 1)
    counts[LINES] += num_lines
    counts[FILLED] += filled
    counts[SHORT] += short
    counts[REPEATED] += repeated
    counts[REPEATED_CHARS] += repeated_chars
    counts[PARAGRAPHS] += num_paragraphs
    counts[REPEATED_PARAGRAPHS] += repeated_paragraphs
    counts[REPEATED_PARAGRAPH_CHARS] += repeated_paragraph_chars


@njit(cache=True, nogil=True)
def _ends(data: np.ndarray, first: int, last: int, classes: np.ndarray, counts: np.ndarray) -> None:
    """Counts how a line that is not blank begins and ends."""
    begin = first
    while True:
        codepoint, size = (
            decode(data, begin, last) if byte_at(data, begin) >= 0x80 else (np.int64(byte_at(data, begin)), 1)
        )
        if not class_of(codepoint, classes) & SPACE:
            break
        begin += size
    counts[BULLETS] += codepoint == 0x2D or codepoint == 0x2022
    end = last - 1
    while end > first and (byte_at(data, end) & 0xC0) == 0x80:
        end -= 1
    codepoint, _ = decode(data, end, last) if byte_at(data, end) >= 0x80 else (np.int64(byte_at(data, end)), 1)
    dots = (
        last - first >= 3
        and byte_at(data, last - 1) == 0x2E
        and byte_at(data, last - 2) == 0x2E
        and byte_at(data, last - 3) == 0x2E
    )
    counts[ELLIPSIS_ENDS] += dots or codepoint == 0x2026
    counts[ENDED] += (class_of(codepoint, classes) & TERMINAL) != 0
