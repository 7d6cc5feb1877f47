"""Where the words of a UTF-8 text are, in bytes, by the rule of `kernels.words`; and whether two texts have the same.

    "Don't panic"  ->  [0, 3) [4, 5) [6, 11)

Words, not spelling, are compared: "Don't  PANIC!" has the same ones.

Shapes: `data` uint8[bytes], starts and stops int64[words].
"""

import numpy as np
from numba import njit

from ropewalk.kernels.words import UNSPACED, _decode, kind, table, words_reference


def word_borders_reference(text: str) -> list[tuple[int, int]]:
    """(start, stop) of each word in the bytes of a text."""
    spans: list[tuple[int, int]] = []
    at, joined = 0, False  # whether the next character may continue the last word
    for char in text:
        size = len(char.encode())
        lower, alone = kind(ord(char))
        if lower and joined and not alone:
            spans[-1] = (spans[-1][0], at + size)
        elif lower:
            spans.append((at, at + size))
        joined = lower != 0 and not alone
        at += size
    return spans


def word_borders(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of each word of a whole text: uint8[bytes] -> int64[words] twice."""
    starts, stops = np.empty((len(data) + 1) // 2, np.int64), np.empty((len(data) + 1) // 2, np.int64)
    found = scan_borders(data, 0, len(data), table(), starts, stops)
    return starts[:found].copy(), stops[:found].copy()


@njit(cache=True, nogil=True)
def scan_borders(
    data: np.ndarray, start: int, stop: int, classes: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> int:
    """Borders of the words in bytes [start, stop) of `data`; returns their number.

    Args:
        data: UTF-8, uint8.
        start: First byte, at a word's border.
        stop: End of the text, or of a piece that `words.scan_words` has read.
        classes: `words.table()`.
        starts: Receives the first byte of each word; as long as there are words, (stop - start + 1) // 2 at most.
        stops: Receives the byte behind each word.
    """
    found, at, joined = 0, start, False
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            entry, size = classes[byte], 1
        else:
            entry, size = _decode(data, at, stop, classes)
        if entry == 0:
            joined = False
        else:
            alone = entry & UNSPACED != 0
            if not joined or alone:
                starts[found] = at
                found += 1
            stops[found - 1] = at + size
            joined = not alone
        at += size
    return found


@njit(cache=True, nogil=True)
def same_words(
    a: np.ndarray, a_at: int, a_stop: int, b: np.ndarray, b_at: int, b_stop: int, classes: np.ndarray
) -> bool:
    """Whether bytes [a_at, a_stop) of `a` and [b_at, b_stop) of `b` have the same words; both begin with a word."""
    if a_stop - a_at == b_stop - b_at:
        same = 0
        while same < a_stop - a_at and a[a_at + same] == b[b_at + same]:
            same += 1
        if same == a_stop - a_at:  # as nearly always
            return True
    apart = True  # whether the last character ends a word whatever follows
    while True:
        a_entry, a_gap, a_at = _next_letter(a, a_at, a_stop, classes)
        b_entry, b_gap, b_at = _next_letter(b, b_at, b_stop, classes)
        if a_entry != b_entry:
            return False
        if a_entry == 0:
            return True
        alone = a_entry & UNSPACED != 0
        if a_gap != b_gap and not apart and not alone:
            return False
        apart = alone


def same_words_reference(a: str, b: str) -> bool:
    """The same for two whole texts."""
    return words_reference(a) == words_reference(b)


@njit(cache=True, nogil=True)
def _next_letter(data: np.ndarray, at: int, stop: int, classes: np.ndarray) -> tuple[np.uint32, bool, int]:
    """Entry of the next character of a word, 0 at the end; whether separators stood before it; and what is behind."""
    gap = False
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            entry, size = classes[byte], 1
        else:
            entry, size = _decode(data, at, stop, classes)
        at += size
        if entry != 0:
            return entry, gap, at
        gap = True
    return np.uint32(0), gap, at
