"""Whether a text may not be in Unicode's normal form C: the quick check of Unicode Standard Annex 15, section 9.

    0  it is: no character of it is excluded from NFC or may join one before it, and marks are in canonical order
    1  it may not be; only normalising it can tell
    2  it may not be, and holds a run of more than `MOST_MARKS` marks. Such a run is no text (Annex 15's stream-safe
       form allows 30), and putting it in order takes time that grows with its square.

The table has one byte a codepoint: its canonical combining class, or `MAYBE`. Above it, and among what Python's version
of Unicode does not know, nothing is composed. A text longer than `PIECE` is normalised in pieces, each of which begins
with an ASCII character: that never joins what is before it.

Shapes: `data` uint8[bytes], `offsets` int64[n + 1], classes uint8[TABLE_SIZE].
"""

import functools
import re
import unicodedata
from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.machine import load64

TABLE_SIZE = 0x30000
MAYBE = 255
MOST_MARKS = 64
PIECE = 1 << 12

_PIECES = re.compile(rb"[\x00-\xff]{1,%d}[\x80-\xff]*" % PIECE)


@functools.cache
def table() -> np.ndarray:
    """The table, uint8[TABLE_SIZE]; built once a process."""
    classes = np.zeros(TABLE_SIZE, np.uint8)
    seconds = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and final consonants of Hangul
    for codepoint, char in enumerate(map(chr, range(TABLE_SIZE))):
        classes[codepoint] = unicodedata.combining(char)
        parts = unicodedata.decomposition(char)
        if parts and parts[0] != "<":
            if unicodedata.is_normalized("NFC", char):
                seconds.add(int(parts.split()[1], 16))
            else:
                classes[codepoint] = MAYBE
    classes[list(seconds)] = MAYBE
    classes.flags.writeable = False
    return classes


def check_reference(text: str) -> int:
    """The answer for one text, see the module."""
    classes = table()
    before = marks = most = 0
    maybe = False
    for char in text:
        own = int(classes[ord(char)]) if ord(char) < TABLE_SIZE else 0
        maybe |= own == MAYBE or 0 < own < before
        before = 0 if own == MAYBE else own
        marks = marks + 1 if own else 0
        most = max(most, marks)
    return 0 if not maybe else 2 if most > MOST_MARKS else 1


@njit(cache=True, nogil=True)
def check(data: np.ndarray, offsets: np.ndarray, rows: np.ndarray, classes: np.ndarray, out: np.ndarray) -> None:
    """The answers for some texts.

    Args:
        data: UTF-8 of all texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].
        rows: The texts wanted, int64[m].
        classes: `table()`.
        out: Receives the answers, uint8[m].
    """
    for i in range(len(rows)):
        at, stop = offsets[rows[i]], offsets[rows[i] + 1]
        before, marks, most = 0, 0, 0
        maybe = False
        while at < stop:
            if at + 8 <= stop and load64(data, at) & np.uint64(0x8080808080808080) == 0:
                at += 8
                before = marks = 0
                continue
            lead = np.uint32(data[at])
            if lead < 0xCC:  # below U+0300 all is composed
                at += 2 if lead >= 0xC0 else 1
                before = marks = 0
                continue
            size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            codepoint = lead & np.uint32(0x7F >> size)
            for j in range(at + 1, min(at + size, stop)):
                codepoint = np.uint32((codepoint << np.uint32(6)) | np.uint32(data[j] & np.uint8(0x3F)))
            at += size
            own = int(classes[codepoint]) if codepoint < np.uint32(TABLE_SIZE) else 0
            if own == MAYBE or 0 < own < before:
                maybe = True
            before = 0 if own == MAYBE else own
            marks = marks + 1 if own else 0
            most = max(most, marks)
        out[i] = 0 if not maybe else 2 if most > MOST_MARKS else 1


def composed(text: Any, out: bytearray) -> None:
    """Appends one text in normal form C to `out`; UTF-8 in any buffer."""
    for piece in _PIECES.finditer(text):
        part = str(piece[0], "utf-8")
        normal = unicodedata.normalize("NFC", part)
        out += piece[0] if normal is part else normal.encode()
