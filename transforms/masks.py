"""What is cut out of a contaminated text, in the manner of GPT-3: matches, what surrounds them, and small rests.

matches, widened by `window` characters on either side and joined   -> cuts
what is between and around the cuts                                 -> pieces; more than `max_pieces`: give it up
pieces of fewer than `min_piece` characters                         -> cut as well

Cuts go on to the next border of a word, and leave a separator where two words would become one.
"""

from dataclasses import dataclass

import numpy as np

from ropewalk.kernels.spans import keep_apart, word_border
from ropewalk.kernels.words import table

MAX_WORD = 64
"""Characters a cut goes on for at most to end with a word; longer ones are cut through."""
MAX_CHARACTER = 4
"""Bytes of the longest character of UTF-8."""


@dataclass(frozen=True)
class Mask:
    """How a text is cut.

    Attributes:
        window: Characters cut on either side of a match.
        min_piece: Characters that a piece must have to stay.
        max_pieces: Most pieces a text may fall into, short ones counted; none for any number.
    """

    window: int = 0
    min_piece: int = 0
    max_pieces: int | None = None

    def cut(self, text: np.ndarray, matches: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
        """Bytes to cut out of a text.

        Args:
            text: UTF-8, uint8.
            matches: Bytes [start, stop) of each match, borders of characters, in any order.

        Returns:
            Spans, ascending and apart; none if the text falls into too many pieces, or nothing of it stays.
        """
        cuts: list[tuple[int, int]] = []
        for start, stop in sorted(matches):
            start = word_border(text, self._back(text, start), 0, len(text), MAX_WORD, True, table())
            stop = word_border(text, self._forward(text, stop), 0, len(text), MAX_WORD, False, table())
            if cuts and start <= cuts[-1][1]:
                cuts[-1] = (cuts[-1][0], max(stop, cuts[-1][1]))
            else:
                cuts.append((start, stop))
        borders = [0, *(border for cut in cuts for border in cut), len(text)]
        pieces = [(a, b) for a, b in zip(borders[::2], borders[1::2], strict=True) if a < b]
        if self.max_pieces is not None and len(pieces) > self.max_pieces:
            return None
        kept = [(a, b) for a, b in pieces if characters(text[a:b]) >= self.min_piece]
        if not kept:
            return None
        borders = [0, *(border for piece in kept for border in piece), len(text)]
        cuts = [keep_apart(text, a, b, 0, len(text), table()) for a, b in zip(borders[::2], borders[1::2], strict=True)]
        return [(a, b) for a, b in cuts if a < b]

    def _back(self, text: np.ndarray, at: int) -> int:
        if not self.window:
            return at
        low = max(0, at - MAX_CHARACTER * self.window)
        starts = np.flatnonzero(_begins(text[low:at]))
        return low + int(starts[-self.window]) if len(starts) >= self.window else 0

    def _forward(self, text: np.ndarray, at: int) -> int:
        starts = np.flatnonzero(_begins(text[at : at + MAX_CHARACTER * self.window + 1]))
        return at + int(starts[self.window]) if len(starts) > self.window else len(text)


def characters(text: np.ndarray) -> int:
    """Codepoints of UTF-8, uint8."""
    return int(np.count_nonzero(_begins(text)))


def _begins(text: np.ndarray) -> np.ndarray:
    """Whether each byte begins a character."""
    begins: np.ndarray = (text & 0xC0) != 0x80
    return begins
