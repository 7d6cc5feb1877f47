"""Words of UTF-8 text as 64-bit hashes, straight from Arrow's buffers.

Token rule, by codepoint class (`kind` below is the rule in Python):

    word character   a letter, number or combining mark; lower-cased where that is again one codepoint. A token is a
                     maximal run of them. Digits stay as they are.
    unspaced         a word character of a script written without spaces (ideographs, kana, Thai, Lao, Khmer, Myanmar,
                     Tibetan, …; not Hangul): every codepoint is a token of its own.
    separator        everything else.

    "Don't panic: 東京 2024" -> don, t, panic, 東, 京, 2024

Hash of a token, over the bytes of its lower-cased UTF-8, read big-endian in words of eight:

    h <- SEED
    for each full word w:              h <- (h ^ w) * M1;  h <- h ^ (h >> 32)
    with t = the 0..7 bytes that remain and k = their number:
                                       h <- (h ^ (t | k << 56)) * M1;  h <- h ^ (h >> 32)
    h <- h * M2;  h <- h ^ (h >> 29)

Shapes: `data` uint8[bytes], `offsets` int64[n + 1], hashes uint64.
"""

import functools
import unicodedata
from typing import Any

import numpy as np
from numba import njit

TABLE_SIZE = 0x20000
"""Planes 0 and 1 are classed by a table. Planes 2 and 3 hold ideographs only: unspaced; all above are separators."""
IDEOGRAPHS = range(TABLE_SIZE, 0x40000)
UNSPACED = np.uint32(1 << 31)
"""Flag in a table entry; the rest of an entry is the lower-cased codepoint, and 0 stands for a separator."""

UNSPACED_RANGES = (
    (0x0E00, 0x1000),  # Thai, Lao, Tibetan
    (0x1000, 0x10A0),  # Myanmar
    (0x1780, 0x1800),  # Khmer
    (0x1950, 0x1A00),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AB0),  # Tai Tham
    (0x1B00, 0x1B80),  # Balinese
    (0x3005, 0x3130),  # ideographic marks and numerals, kana, bopomofo
    (0x3190, 0x3400),  # kanbun, bopomofo and kana extensions, enclosed ideographs
    (0x3400, 0x4DC0),  # ideographs, extension A
    (0x4E00, 0xA4D0),  # ideographs, Yi
    (0xA980, 0xAA00),  # Javanese, Myanmar extended B
    (0xAA60, 0xAAE0),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFB00),  # compatibility ideographs
    (0xFF66, 0xFFA0),  # halfwidth katakana
    (0x16FE0, 0x1B300),  # Tangut, Khitan, kana supplements, Nushu
)

_SEED = 0xCBF29CE484222325
_M1 = 0xBF58476D1CE4E5B9  # multipliers of the splitmix64 finalizer (Steele, Lea, Flood 2014)
_M2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def kind(codepoint: int) -> tuple[int, bool]:
    """The token rule for one codepoint: its lower-cased codepoint (0: a separator), and whether it stands alone."""
    if codepoint >= TABLE_SIZE:
        return (codepoint, True) if codepoint in IDEOGRAPHS else (0, False)
    char = chr(codepoint)
    if not (char.isalnum() or unicodedata.category(char)[0] == "M"):
        return 0, False
    lower = char.lower()
    alone = any(first <= codepoint < stop for first, stop in UNSPACED_RANGES)
    return (ord(lower) if len(lower) == 1 else codepoint), alone


@functools.cache
def table() -> np.ndarray:
    """Classes of planes 0 and 1, the `classes` that `scan_words` wants: uint32[TABLE_SIZE]; built once a process."""
    classes = np.zeros(TABLE_SIZE, np.uint32)
    for codepoint, char in enumerate(map(chr, range(TABLE_SIZE))):
        if char.isalnum() or unicodedata.category(char)[0] == "M":
            lower = char.lower()
            classes[codepoint] = ord(lower) if len(lower) == 1 else codepoint
    for first, stop in UNSPACED_RANGES:
        part = classes[first:stop]
        part[part != 0] |= UNSPACED
    classes.flags.writeable = False
    return classes


def words_reference(text: str) -> list[str]:
    """Tokens of a text, lower-cased."""
    tokens: list[str] = []
    run = ""
    for char in text:
        lower, alone = kind(ord(char))
        if lower and not alone:
            run += chr(lower)
            continue
        if run:
            tokens.append(run)
            run = ""
        if lower:
            tokens.append(chr(lower))
    return [*tokens, run] if run else tokens


def hash_reference(token: str) -> int:
    """Hash of one lower-cased token, see the module."""
    data = token.encode()
    full = len(data) // 8 * 8
    blocks = [int.from_bytes(data[i : i + 8], "big") for i in range(0, full, 8)]
    blocks.append(int.from_bytes(data[full:], "big") | (len(data) - full) << 56)
    h = _SEED
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
def _finish(h: np.uint64, tail: np.uint64, count: int) -> Any:
    h = _absorb(h, tail | (np.uint64(count) << np.uint64(56))) * np.uint64(_M2)
    return h ^ (h >> np.uint64(29))


@njit(cache=True, nogil=True)
def _decode(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> Any:
    """Entry (class and lower-cased codepoint) and length in bytes of the non-ASCII character at `at`."""
    lead = np.uint32(data[at])
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC0 or at + size > stop:  # not UTF-8; Arrow never holds it
        return np.uint32(0), 1
    codepoint = lead & np.uint32(0x7F >> size)
    for i in range(1, size):
        codepoint = np.uint32((codepoint << np.uint32(6)) | np.uint32(data[at + i] & np.uint8(0x3F)))
    if codepoint < np.uint32(TABLE_SIZE):
        return classes[np.int64(codepoint)], size
    if codepoint < np.uint32(0x40000):
        return np.uint32(codepoint | UNSPACED), size
    return np.uint32(0), size


@njit(cache=True, nogil=True, inline="always")
def _push(h: np.uint64, tail: np.uint64, count: int, byte: np.uint32) -> Any:
    tail = (tail << np.uint64(8)) | np.uint64(byte)
    count += 1
    if count == 8:
        return _absorb(h, tail), np.uint64(0), 0
    return h, tail, count


@njit(cache=True, nogil=True)
def _push_character(h: np.uint64, tail: np.uint64, count: int, codepoint: np.uint32) -> Any:
    """Appends the UTF-8 of a codepoint to a running hash."""
    if codepoint < np.uint32(0x80):
        return _push(h, tail, count, codepoint)
    size = 2 if codepoint < np.uint32(0x800) else 3 if codepoint < np.uint32(0x10000) else 4
    lead = np.uint32((0xF00 >> size) & 0xFF) | (codepoint >> np.uint32(6 * (size - 1)))
    h, tail, count = _push(h, tail, count, lead)
    for i in range(size - 2, -1, -1):
        byte = np.uint32(0x80) | ((codepoint >> np.uint32(6 * i)) & np.uint32(0x3F))
        h, tail, count = _push(h, tail, count, byte)
    return h, tail, count


@njit(cache=True, nogil=True)
def scan_words(data: np.ndarray, start: int, stop: int, classes: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    """Hashes the tokens of bytes [start, stop) of `data` into `out`, as many as fit.

    A token never spans two calls: a long text is scanned in pieces by calling again from where this call stopped.
    `out` is large enough for a whole text of m bytes if it holds (m + 1) // 2.

    Args:
        data: UTF-8, uint8.
        start: First byte, at a character's or the previous call's border.
        stop: End of the text.
        classes: `table()`.
        out: Receives the hashes, uint64.

    Returns:
        Number of tokens written, and where to go on: `stop` when the text is done.
    """
    found, at, room = 0, start, len(out)
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            entry, size = classes[byte], 1
        else:
            entry, size = _decode(data, at, stop, classes)
        if entry == 0:
            at += size
            continue
        if found == room:
            return found, at
        h, tail, count = np.uint64(_SEED), np.uint64(0), 0
        if entry & UNSPACED:
            h, tail, count = _push_character(h, tail, count, np.uint32(entry & np.uint32(0x7FFFFFFF)))
            at += size
        else:
            while True:
                if size == 1:
                    h, tail, count = _push(h, tail, count, entry)
                else:
                    h, tail, count = _push_character(h, tail, count, entry)
                at += size
                if at >= stop:
                    break
                byte = data[at]
                if byte < 0x80:
                    entry, size = classes[byte], 1
                else:
                    entry, size = _decode(data, at, stop, classes)
                if entry == 0 or entry & UNSPACED:
                    break
        out[found] = _finish(h, tail, count)
        found += 1
    return found, at


@njit(cache=True, nogil=True)
def _word_hashes(
    data: np.ndarray, offsets: np.ndarray, classes: np.ndarray, out: np.ndarray, borders: np.ndarray
) -> None:
    total = 0
    for i in range(len(offsets) - 1):
        found, _ = scan_words(data, offsets[i], offsets[i + 1], classes, out[total:])
        total += found
        borders[i + 1] = total


def word_hashes(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all tokens of n texts.

    Args:
        data: UTF-8 of the texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].

    Returns:
        uint64[tokens], and the border of each text in it, int64[n + 1].
    """
    out = np.empty(int(((np.diff(offsets) + 1) // 2).sum()), np.uint64)
    borders = np.zeros(len(offsets), np.int64)
    _word_hashes(data, offsets, table(), out, borders)
    return out[: borders[-1]], borders
