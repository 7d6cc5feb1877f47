"""Words of a text given as codepoints: where each is, and its hash.

The rule for words is that of `kernels.words`. There a text is bytes and only hashes come out; here positions are asked
for, in characters, because shares of a text are shares of its characters.

    hash(c_1 … c_m) = mix(c_1 B^(m-1) + … + c_m)        mod 2^64, c lower-cased, B and mix as in `kernels.shingles`

Shapes: codes int32[n]; spans int32[words]; hashes uint64[words].
"""

import numpy as np
from numba import njit

from ropewalk.kernels.shingles import mix
from ropewalk.kernels.words import IDEOGRAPHS, TABLE_SIZE, UNSPACED, kind, table

_BASE = 0xD6E8FEB86659FD93
_FIRST, _LAST = IDEOGRAPHS.start, IDEOGRAPHS.stop - 1  # numba knows no ranges from outside


def word_spans_reference(text: str) -> list[tuple[int, int]]:
    """(start, stop) of each word, in characters."""
    spans: list[tuple[int, int]] = []
    joined = False  # whether the next character may continue the last word
    for at, char in enumerate(text):
        lower, alone = kind(ord(char))
        if lower and joined and not alone:
            spans[-1] = (spans[-1][0], at + 1)
        elif lower:
            spans.append((at, at + 1))
        joined = lower != 0 and not alone
    return spans


def word_spans(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the words of a text.

    Args:
        codes: Its codepoints, int32[n].

    Returns:
        Start and stop of each word, int32[words] each, and its hash, uint64[words].
    """
    starts, stops = np.empty(len(codes), np.int32), np.empty(len(codes), np.int32)
    hashes = np.empty(len(codes), np.uint64)
    found = _word_spans(codes, table(), starts, stops, hashes)
    return starts[:found].copy(), stops[:found].copy(), hashes[:found].copy()


@njit(cache=True, nogil=True)
def _word_spans(
    codes: np.ndarray, classes: np.ndarray, starts: np.ndarray, stops: np.ndarray, hashes: np.ndarray
) -> int:
    found = 0
    joined = False
    h = np.uint64(0)
    for at in range(len(codes)):
        code = codes[at]
        entry = np.uint32(0)
        if code < TABLE_SIZE:
            entry = classes[code]
        elif _FIRST <= code <= _LAST:
            entry = np.uint32(code) | UNSPACED
        if entry == 0:
            joined = False
            continue
        alone = entry & UNSPACED != 0
        if not joined or alone:
            starts[found] = at
            found += 1
            h = np.uint64(0)
        h = h * np.uint64(_BASE) + np.uint64(entry & np.uint32(0x7FFFFFFF))
        stops[found - 1] = at + 1
        hashes[found - 1] = mix(h)
        joined = not alone
    return found
