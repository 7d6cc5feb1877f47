"""Words or characters of UTF-8 text as 64-bit hashes, straight from Arrow's buffers.

Token rule, by codepoint class (`entry` below is the rule in Python), with `Normal`'s defaults:

    word character   a letter, number or combining mark; lower-cased where that is again one codepoint. A token is a
                     maximal run of them. Digits stay as they are.
    unspaced         a word character of a script written without spaces (ideographs, kana, Thai, Lao, Khmer, Myanmar,
                     Tibetan, …; not Hangul): every codepoint is a token of its own.
    separator        everything else.

    "Don't panic: 東京 2024" -> don, t, panic, 東, 京, 2024

`Normal` names the other rules. All of them are entries of a table, so that none costs anything where it is not used.

A token's hash is that of its normalised UTF-8, see `kernels.token_hash`. The kernel works in rounds: it writes a
thousand bytes of text, normalised, into a buffer with a zero between tokens, 32 bytes at once where they are plain
ASCII, and hashes the tokens of the buffer.

Shapes: `data` uint8[bytes], `offsets` int64[n + 1], hashes uint64.
"""

import functools
import unicodedata
from bisect import bisect
from typing import Any, Literal, NamedTuple

import numpy as np
from numba import njit

from ropewalk.kernels.machine import fold32, trailing_zeros
from ropewalk.kernels.token_hash import PADDING, SEED, finish, hash_reference, hash_tokens, push

__all__ = ["hash_reference"]  # part of the rule

TABLE_SIZE = 0x20000
"""Planes 0 and 1 are classed by a table. Planes 2 and 3 hold ideographs only: unspaced; all above are separators."""
IDEOGRAPHS = range(TABLE_SIZE, 0x40000)

# Flags of a table entry; the rest of it is the normalised codepoint, and an entry of 0 stands for a separator.
UNSPACED = np.uint32(1 << 31)
"""A token of its own."""
DROPPED = np.uint32(1 << 30)
"""Does not count, and does not end a word."""
DIGIT = np.uint32(1 << 29)
"""Counts only if no digit is right before it."""
SPACE = np.uint32(1 << 28)
"""Where characters are the tokens: a run of these counts as one space, and as nothing at either end of a text."""
CODEPOINT = np.uint32((1 << 21) - 1)
"""The bits of an entry that are the codepoint."""

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
_BORDERS = [border for unspaced in UNSPACED_RANGES for border in unspaced]

_NUL = 0x2400  # SYMBOL FOR NULL: what NUL counts as where it counts, as 0 is taken
_ROUND = 1024  # bytes of a round
_OTHERS = 0x1FFFF  # no character: its entry is that of all codepoints behind the ideographs


class Normal(NamedTuple):
    """What of a text does not count when texts are compared, and what its tokens are.

    `Normal(digits=True, accents=True)` is datatrove's `simplify_text` (0.10) as far as a rule by codepoint can follow
    it: lower case, digits, punctuation to spaces, marks. It differs in that a decimal point separates (`3.14` is two
    zeros, there it is one); that all signs separate, not only those of datatrove's list (`•` and `€` are words there);
    and in the words themselves, which are those above and not those of a tokenizer of the language.
    """

    unit: Literal["word", "character"] = "word"
    """`character`: every codepoint that counts is a token, and so is a run of what does not, as one space, but for the
    ends of the text. With `punctuation` that run is of anything that separates words, without of white space."""
    case: bool = True
    """Lower-case, where that is one codepoint."""
    punctuation: bool = True
    """All but letters, numbers and marks only separates. False: each sign that is not white space (`str.isspace`) is a
    token of its own."""
    digits: bool = False
    """A run of decimal digits, of any script, counts as `0`: part of its word, also in scripts without spaces."""
    accents: bool = False
    """Nonspacing marks (category Mn) are dropped and letters count as their base: é as e, by NFD. Hangul stays."""


DEFAULT = Normal()
"""Words, whatever their case and punctuation."""


def _plain(codepoint: int, case: bool, accents: bool) -> int:
    """The codepoint that a letter, number or mark counts as; 0 if it is dropped."""
    char = chr(codepoint)
    lower = char.lower() if case else char
    if accents:
        base = "".join(c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c) != "Mn")
        if len(base) <= 1:
            return ord(base) if base else 0
    return ord(lower) if len(lower) == 1 else codepoint


def entry(codepoint: int, normal: Normal) -> int:
    """The token rule for one codepoint: the flags and the normalised codepoint, see the module; 0 for a separator."""
    char = chr(codepoint)
    behind = codepoint >= TABLE_SIZE  # a rule, not Python's version of Unicode, decides there
    alone = normal.unit == "character"
    if codepoint in IDEOGRAPHS:
        return int(UNSPACED) | codepoint
    if not behind and (char.isalnum() or unicodedata.category(char)[0] == "M"):
        if normal.digits and char.isdecimal():
            return int(DIGIT) | (int(UNSPACED) if alone else 0) | ord("0")
        plain = _plain(codepoint, normal.case, normal.accents)
        alone = alone or bisect(_BORDERS, codepoint) % 2 == 1
        return plain | (int(UNSPACED) if alone else 0) if plain else int(DROPPED)
    if normal.punctuation or (not behind and char.isspace()):
        return int(SPACE) | ord(" ") if alone else 0
    return int(UNSPACED) | (codepoint or _NUL)


def kind(codepoint: int) -> tuple[int, bool]:
    """The default rule for one codepoint: its lower-cased codepoint (0: a separator), and whether it stands alone."""
    value = entry(codepoint, DEFAULT)
    return value & int(CODEPOINT), value & int(UNSPACED) != 0


def table(normal: Normal = DEFAULT) -> np.ndarray:
    """Entries of planes 0 and 1, the `classes` that `scan_words` wants: uint32[TABLE_SIZE]; built once a process."""
    return _table(normal)


@functools.cache
def _table(normal: Normal) -> np.ndarray:
    classes = np.array([entry(codepoint, normal) for codepoint in range(TABLE_SIZE)], np.uint32)
    classes.flags.writeable = False
    return classes


def most_tokens(num_bytes: Any, normal: Normal = DEFAULT) -> Any:
    """Most tokens that a text of so many bytes can have; a number or an array of them."""
    dense = normal.unit == "character" or not normal.punctuation
    return num_bytes if dense else (num_bytes + 1) // 2


def words_reference(text: str, normal: Normal = DEFAULT) -> list[str]:
    """Tokens of a text, normalised."""
    tokens: list[str] = []
    run, digits, gap = "", False, False
    for char in text:
        value = entry(ord(char), normal)
        again = digits and value & int(DIGIT) != 0
        digits = value & int(DIGIT) != 0
        gap = gap or value & int(SPACE) != 0
        if again or value & int(DROPPED | SPACE):
            continue
        if value and not value & int(UNSPACED):
            run += chr(value & int(CODEPOINT))
            continue
        if run:
            tokens.append(run)
            run = ""
        if value:
            tokens += [" "] if gap and tokens else []
            tokens.append(chr(value & int(CODEPOINT)))
            gap = False
    return [*tokens, run] if run else tokens


@njit(cache=True, nogil=True)
def _decode(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> Any:
    """Entry and length in bytes of the non-ASCII character at `at`."""
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
    others = classes[_OTHERS]
    return (np.uint32(codepoint | UNSPACED) if others & UNSPACED else others), size


@njit(cache=True, nogil=True, inline="always")
def _entry(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> Any:
    """Entry and length in bytes of the character at `at`."""
    byte = data[at]
    if byte < 0x80:
        return classes[byte], 1
    return _decode(data, at, stop, classes)


@njit(cache=True, nogil=True, inline="always")
def _encode(codepoint: np.uint32) -> Any:
    """UTF-8 of a codepoint as one number, and how many bytes it is."""
    x = np.uint64(codepoint)
    six, more = np.uint64(0x3F), np.uint64(0x80)
    if codepoint < np.uint32(0x80):
        return x, 1
    last = more | (x & six)
    middle = (more | ((x >> np.uint64(6)) & six)) << np.uint64(8)
    if codepoint < np.uint32(0x800):
        return ((np.uint64(0xC0) | (x >> np.uint64(6))) << np.uint64(8)) | last, 2
    if codepoint < np.uint32(0x10000):
        return ((np.uint64(0xE0) | (x >> np.uint64(12))) << np.uint64(16)) | middle | last, 3
    upper = (more | ((x >> np.uint64(12)) & six)) << np.uint64(16)
    return ((np.uint64(0xF0) | (x >> np.uint64(18))) << np.uint64(24)) | upper | middle | last, 4


@njit(cache=True, nogil=True)
def _normalise(
    data: np.ndarray, at: int, end: int, stop: int, classes: np.ndarray, digits: bool, buffer: np.ndarray, fill: int
) -> Any:
    """Normalised text from `at` until `end` or some bytes later, never behind `stop`, to `buffer[fill:]`.

    Returns:
        Where to go on, whether the last character was a digit that counts in a run, and the end of what was written.
    """
    case = np.uint8(classes[ord("A")] & np.uint32(32))
    numbers = np.uint8(255) if classes[ord("0")] & DIGIT else np.uint8(0)
    signs = np.uint8(255) if classes[ord("!")] else np.uint8(0)
    while at < end:
        careful = at + 1
        if at + 32 <= stop:
            special = fold32(data, at, buffer, fill, case, numbers, signs)
            plain = 32 if special == 0 else trailing_zeros(np.uint64(special))
            digits = digits and plain == 0
            at += plain
            fill += plain
            careful = at if special == 0 else at + 1
        while at < careful:
            entry, size = _entry(data, at, stop, classes)
            at += size
            again = digits and entry & DIGIT
            digits = entry & DIGIT != 0
            if again or entry & DROPPED:
                continue
            code, count = _encode(np.uint32(entry & CODEPOINT))
            alone = entry & UNSPACED
            if alone:
                buffer[fill] = 0
                fill += 1
            for i in range(count - 1, -1, -1):
                buffer[fill] = np.uint8((code >> np.uint64(8 * i)) & np.uint64(0xFF))
                fill += 1
            if alone:
                buffer[fill] = 0
                fill += 1
    return at, digits, fill


@njit(cache=True, nogil=True)
def _token(
    data: np.ndarray, at: int, stop: int, classes: np.ndarray, digits: bool, h: np.uint64, tail: np.uint64, count: int
) -> Any:
    """Hash of the token that goes on at `at`, and its end."""
    while at < stop:
        entry, size = _entry(data, at, stop, classes)
        if entry == 0 or entry & UNSPACED:
            break
        at += size
        again = digits and entry & DIGIT
        digits = entry & DIGIT != 0
        if again or entry & DROPPED:
            continue
        code, bytes_ = _encode(np.uint32(entry & CODEPOINT))
        for i in range(bytes_ - 1, -1, -1):
            h, tail, count = push(h, tail, count, (code >> np.uint64(8 * i)) & np.uint64(0xFF))
    return finish(h, tail, count), at


@njit(cache=True, nogil=True)
def _scan_characters(data: np.ndarray, at: int, stop: int, classes: np.ndarray, out: np.ndarray) -> Any:
    """`scan_words` where each character is a token.

    A character is only taken while there is a place for the space that may follow, so that a call begins at the text's
    beginning or at a character, and a space that comes first is never one between two.
    """
    found, room = 0, len(out)
    digits = gap = False
    while at < stop:
        entry, size = _entry(data, at, stop, classes)
        again = digits and entry & DIGIT
        digits = entry & DIGIT != 0
        if entry & SPACE:
            gap = found > 0
        elif not again and entry & UNSPACED:
            if gap:
                out[found] = finish(np.uint64(SEED), np.uint64(ord(" ")), 1)
                found += 1
                gap = False
            if room - found < 2 and (at + size < stop or found == room):
                return found, at
            code, count = _encode(np.uint32(entry & CODEPOINT))
            out[found] = finish(np.uint64(SEED), code, count)
            found += 1
        at += size
    return found, at


@njit(cache=True, nogil=True)
def scan_words(data: np.ndarray, start: int, stop: int, classes: np.ndarray, out: np.ndarray) -> Any:
    """Hashes the tokens of bytes [start, stop) of `data` into `out`, as many as fit.

    A token never spans two calls: a long text is scanned in pieces by calling again from where this call stopped.
    `out` is large enough for a whole text if it holds `most_tokens` of its bytes; for pieces, two or more.

    Args:
        data: UTF-8, uint8.
        start: First byte, at a character's or the previous call's border.
        stop: End of the text.
        classes: `table()`.
        out: Receives the hashes, uint64.

    Returns:
        Number of tokens written, and where to go on: `stop` when the text is done.
    """
    if classes[ord("a")] & UNSPACED:
        return _scan_characters(data, start, stop, classes, out)
    found, at, room = 0, start, len(out)
    h, held, digits = np.uint64(SEED), 0, False
    if stop - start >= 32 and room >= 64:
        buffer = np.empty(3 * (_ROUND + 32) + 8 + PADDING, np.uint8)
        borders = np.empty(len(buffer) + 16, np.int32)
        dense = classes[ord("!")] != 0
        while at < stop:
            # So many bytes that their tokens fit: half as many, or as many where signs are tokens, and the one that is
            # carried; 32 bytes may follow them in one go, and the rest of a character.
            left = room - found
            end = at + min(_ROUND, left - 40 if dense else 2 * left - 80)
            if end <= at:
                break
            at, digits, fill = _normalise(data, at, min(end, stop), stop, classes, digits, buffer, held)
            found, h, held = hash_tokens(buffer, fill, at >= stop, borders, h, out, found)
    if held:
        tail, count = np.uint64(0), 0
        for i in range(held):
            h, tail, count = push(h, tail, count, np.uint64(buffer[i]))
        out[found], at = _token(data, at, stop, classes, digits, h, tail, count)
        found += 1
    while at < stop:
        entry, size = _entry(data, at, stop, classes)
        if entry == 0 or entry & DROPPED:
            at += size
            continue
        if found == room:
            return found, at
        if entry & UNSPACED:
            code, count = _encode(np.uint32(entry & CODEPOINT))
            out[found] = finish(np.uint64(SEED), code, count)
            at += size
        else:
            out[found], at = _token(data, at, stop, classes, False, np.uint64(SEED), np.uint64(0), 0)
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


def word_hashes(data: np.ndarray, offsets: np.ndarray, normal: Normal = DEFAULT) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all tokens of n texts.

    Args:
        data: UTF-8 of the texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].
        normal: What does not count, and what a token is.

    Returns:
        uint64[tokens], and the border of each text in it, int64[n + 1].
    """
    out = np.empty(int(most_tokens(np.diff(offsets), normal).sum()), np.uint64)
    borders = np.zeros(len(offsets), np.int64)
    _word_hashes(data, offsets, table(normal), out, borders)
    return out[: borders[-1]], borders
