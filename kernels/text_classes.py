"""What each character of a text is to the rules that judge texts: bits, by codepoint.

    SPACE      white space, as Python's `str.isspace`
    WORD       a letter, number or combining mark
    ALPHA      a letter, as `str.isalpha`
    UNSPACED   a word character of a script written without spaces (ideographs, kana, Thai, …)
    TERMINAL   ends a sentence: Unicode's property Sentence_Terminal, and the full stops of Khmer and Kawi
    JOINER     inside a word if between two of its characters: . ' ’ · soft hyphen, zero width joiner and non-joiner

A character without SPACE and WORD is a sign. Planes 0 and 1 are classed by a table; planes 2 and 3 hold ideographs
only; all above are signs.

Shapes: classes uint8[0x20000]; data uint8[bytes].
"""

import functools
import unicodedata
from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.read_bytes import byte_at
from ropewalk.kernels.words import IDEOGRAPHS, TABLE_SIZE, UNSPACED_RANGES

SPACE, WORD, ALPHA, UNSPACED, TERMINAL, JOINER = 1, 2, 4, 8, 16, 32

JOINERS = ".'\u2019\u00b7\u00ad\u200c\u200d"
TERMINALS = (
    (0x21, 0x22), (0x2E, 0x2F), (0x3F, 0x40), (0x589, 0x58A), (0x61D, 0x620), (0x6D4, 0x6D5), (0x700, 0x703),
    (0x7F9, 0x7FA), (0x837, 0x838), (0x839, 0x83A), (0x83D, 0x83F), (0x964, 0x966), (0x104A, 0x104C), (0x1362, 0x1363),
    (0x1367, 0x1369), (0x166E, 0x166F), (0x1735, 0x1737), (0x17D4, 0x17D6), (0x1803, 0x1804), (0x1809, 0x180A),
    (0x1944, 0x1946), (0x1AA8, 0x1AAC), (0x1B5A, 0x1B5C), (0x1B5E, 0x1B60), (0x1B7D, 0x1B7F), (0x1C3B, 0x1C3D),
    (0x1C7E, 0x1C80), (0x203C, 0x203E), (0x2047, 0x204A), (0x2E2E, 0x2E2F), (0x2E3C, 0x2E3D), (0x2E53, 0x2E55),
    (0x3002, 0x3003), (0xA4FF, 0xA500), (0xA60E, 0xA610), (0xA6F3, 0xA6F4), (0xA6F7, 0xA6F8), (0xA876, 0xA878),
    (0xA8CE, 0xA8D0), (0xA92F, 0xA930), (0xA9C8, 0xA9CA), (0xAA5D, 0xAA60), (0xAAF0, 0xAAF2), (0xABEB, 0xABEC),
    (0xFE52, 0xFE53), (0xFE56, 0xFE58), (0xFF01, 0xFF02), (0xFF0E, 0xFF0F),
    (0xFF1F, 0xFF20), (0xFF61, 0xFF62), (0x10A56, 0x10A58), (0x10F55, 0x10F5A), (0x10F86, 0x10F8A), (0x11047, 0x11049),
    (0x110BE, 0x110C2), (0x11141, 0x11144), (0x111C5, 0x111C7), (0x111CD, 0x111CE), (0x111DE, 0x111E0),
    (0x11238, 0x1123A), (0x1123B, 0x1123D), (0x112A9, 0x112AA), (0x1144B, 0x1144D), (0x115C2, 0x115C4),
    (0x115C9, 0x115D8), (0x11641, 0x11643), (0x1173C, 0x1173F), (0x11944, 0x11945), (0x11946, 0x11947),
    (0x11A42, 0x11A44), (0x11A9B, 0x11A9D), (0x11C41, 0x11C43), (0x11EF7, 0x11EF9), (0x11F43, 0x11F45),
    (0x16A6E, 0x16A70), (0x16AF5, 0x16AF6), (0x16B37, 0x16B39), (0x16B44, 0x16B45), (0x16E98, 0x16E99),
    (0x1BC9F, 0x1BCA0), (0x1DA88, 0x1DA89),
)  # fmt: skip
"""Ranges of Sentence_Terminal."""


def classify_reference(codepoint: int) -> int:
    """Bits of one codepoint, by the definitions."""
    if codepoint >= TABLE_SIZE:
        return WORD | ALPHA | UNSPACED if codepoint in IDEOGRAPHS else 0
    char = chr(codepoint)
    found = (SPACE if char.isspace() else 0) | (ALPHA if char.isalpha() else 0) | (JOINER if char in JOINERS else 0)
    if char.isalnum() or unicodedata.category(char)[0] == "M":
        alone = any(first <= codepoint < stop for first, stop in UNSPACED_RANGES)
        found |= WORD | (UNSPACED if alone else 0)
    return found | (TERMINAL if any(first <= codepoint < stop for first, stop in TERMINALS) else 0)


@functools.cache
def classes() -> np.ndarray:
    """Bits of planes 0 and 1, which the kernels take: uint8[0x20000]; built once a process."""
    table = np.zeros(TABLE_SIZE, np.uint8)
    for codepoint, char in enumerate(map(chr, range(TABLE_SIZE))):
        if char.isalnum() or unicodedata.category(char)[0] == "M":
            table[codepoint] = WORD | (ALPHA if char.isalpha() else 0)
        elif char.isspace():
            table[codepoint] = SPACE
    for first, stop in UNSPACED_RANGES:
        part = table[first:stop]
        part[part & WORD != 0] |= UNSPACED
    for first, stop in TERMINALS:
        table[first:stop] |= TERMINAL
    for char in JOINERS:
        table[ord(char)] |= JOINER
    table.flags.writeable = False
    return table


@njit(cache=True, nogil=True)
def decode(data: np.ndarray, at: int, stop: int) -> Any:
    """Codepoint and length in bytes of the character at `at`; a byte that begins none stands for itself."""
    lead = np.int64(byte_at(data, at))
    if lead < 0xC0:
        return lead, 1
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if at + size > stop:
        return lead, 1
    codepoint = lead & (0x7F >> size)
    for i in range(1, size):
        codepoint = codepoint << 6 | np.int64(byte_at(data, at + i) & np.uint8(0x3F))
    return codepoint, size


@njit(cache=True, nogil=True, inline="always")
def class_of(codepoint: int, classes: np.ndarray) -> Any:
    """Bits of a codepoint."""
    if codepoint < TABLE_SIZE:
        return np.int64(classes[np.uint64(codepoint)])
    return np.int64(WORD | ALPHA | UNSPACED) if codepoint < 0x40000 else np.int64(0)


@njit(cache=True, nogil=True)
def trim(data: np.ndarray, start: int, stop: int, classes: np.ndarray) -> int:
    """Where the text of bytes [start, stop) ends if the white space at its end is left out."""
    while stop > start:
        last = stop - 1
        if byte_at(data, last) < 0x80:
            if not classes[byte_at(data, last)] & SPACE:
                return stop
            stop = last
            continue
        while last > start and (byte_at(data, last) & 0xC0) == 0x80:
            last -= 1
        codepoint, _ = decode(data, last, stop)
        if not class_of(codepoint, classes) & SPACE:
            return stop
        stop = last
    return start
