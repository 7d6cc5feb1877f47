"""Loops while they are being written: whether the tail of a generation is copies of one block.

Two rules, over the last tokens:

    exact   the tail has a period p: at least 3 copies and 256 tokens. Any p counts up to `max_period`, so a block of 92
            lines fires with its third copy; one token needs 256 of them, so rules of dashes, dotted leaders and long
            ellipses do not fire (vllm#40097).
    near    at least 8 copies and 256 tokens that are equal but for one place in each (for long blocks: one in 64
            tokens), a tenth of the tokens at most: a counter that goes up in front of the same words.

No loops: refrains between verses, tables, records and lists whose rows differ in two places or more, code. Rows that
are equal token by token (`| 0 | 0 |`, arrays of zeros) are loops by definition: turn detection off where they are meant
(`Sampling.repetition = None`).
"""

import array
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.kernels.near_loop import near_loop
from ropewalk.kernels.tail_loop import tail_loop

MIN_TOKENS = 256
MIN_COPIES = 3
MAX_PERIOD = 16384
"""Longest block looked for, in tokens: bounds the time of a call, whatever the length of the sequence."""
NEAR_COPIES = 8
NEAR_SHARE = 0.1

# A run of word characters, or one character of a script without spaces, or one sign: about the size of a token.
_PIECE = re.compile(r"[^\W\u0e00-\u0fff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|\S")


@dataclass(frozen=True)
class Loop:
    """A tail that repeats.

    Attributes:
        start: Index of the first token of the first copy; up to `start + period` nothing is repeated.
        period: Tokens of a copy; of the last one, where copies differ.
        copies: Whole copies.
    """

    start: int
    period: int
    copies: int


def find_loop(
    tokens: Sequence[int] | np.ndarray,
    *,
    min_tokens: int = MIN_TOKENS,
    min_copies: int = MIN_COPIES,
    max_period: int = MAX_PERIOD,
) -> Loop | None:
    """Finds a loop at the end of a sequence, if there is one.

    Meant to be called every few hundred tokens: it reads the last `max_period * min_copies`, which takes well
    below a millisecond in an array of int64 and about two in a list, and the rest only to see where a loop began.

    Args:
        tokens: What was generated so far: token ids.
        min_tokens: Fewest tokens of all copies together.
        min_copies: Fewest copies, at least 2; near loops need 8 or more.
        max_period: Longest block, in tokens.
    """
    if min_copies < 2:
        raise ValueError(f"min_copies is {min_copies}; a loop has at least 2")
    if len(tokens) < min_tokens:
        return None
    reach = max(max_period * min_copies, min_tokens)
    for window in (tokens[-reach:], tokens):  # all of it only where the copies fill the window
        tail = np.ascontiguousarray(array.array("q", window) if isinstance(window, list) else window, np.int64)
        period, span = tail_loop(tail, min_copies, min_tokens, max_period)
        if not period:
            period, span = near_loop(tail, max(min_copies, NEAR_COPIES), min_tokens, max_period, NEAR_SHARE)
        if span < len(tail):
            break
    return Loop(len(tokens) - span, period, span // period) if period else None


def find_text_loop(text: str) -> Loop | None:
    """The same for text whose tokens are not known: words, signs and ideographs stand for them.

    Returns:
        The loop, its `start` and `period` (of the first copy) in characters of `text`.
    """
    ids: dict[str, int] = {}
    starts, pieces = [], []
    for match in _PIECE.finditer(text):
        starts.append(match.start())
        pieces.append(ids.setdefault(match.group(), len(ids)))
    loop = find_loop(np.array(pieces, np.int64))
    if loop is None:
        return None
    start = starts[loop.start]
    return Loop(start, starts[loop.start + loop.period] - start, loop.copies)
