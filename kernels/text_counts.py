"""All counts that the quality rules ask of many texts: one row a text, one number a column.

A text is gone through once for its lines, once for its tokens and, if asked for, once for what C4 would keep; its
repeated n-grams are found in the tokens. All of it happens text by text, so that a text is in the cache when it is read
again. A text of more than 2^20 tokens has its n-grams compared in pieces of that many, and the counts of the pieces
added up: memory stays bounded.

Shapes: data uint8[bytes]; offsets int64[n + 1]; counts int64[n, 34].
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels import c4_lines, line_counts, token_counts
from ropewalk.kernels.c4_lines import count_c4
from ropewalk.kernels.line_counts import TABLE_LINES, count_lines, count_newlines, table_slots
from ropewalk.kernels.repeated_grams import MAX_N, dup_reference, repeated_grams, scratch, top_reference
from ropewalk.kernels.text_classes import classes
from ropewalk.kernels.token_counts import scan_tokens, tokens_reference

PIECE_TOKENS = 1 << 20
TOP, DUP = (2, 3, 4), (5, 6, 7, 8, 9, 10)
GRAM_FIELDS = tuple(f"top_{n}gram_chars" for n in TOP) + tuple(f"repeated_{n}gram_chars" for n in DUP)
"""Characters of the most frequent n-gram, and of n-grams that occurred before; see `kernels.repeated_grams`."""
GROUPS = {
    "tokens": token_counts.FIELDS,
    "lines": line_counts.FIELDS,
    "grams": GRAM_FIELDS,
    "c4": c4_lines.FIELDS,
}
"""What can be asked for: names of counts by group. `grams` comes with `tokens`."""
FIELDS = tuple(name for fields in GROUPS.values() for name in fields)

_TOKENS, _LINES, _GRAMS, _C4 = (FIELDS.index(fields[0]) for fields in GROUPS.values())


def counts_reference(text: str) -> dict[str, int]:
    """All counts of one text of less than 2^20 tokens and lines, in plain Python."""
    tokens = tokens_reference(text)
    return (
        token_counts.counts_reference(text)
        | line_counts.counts_reference(text)
        | {f"top_{n}gram_chars": top_reference(tokens, n) for n in TOP}
        | {f"repeated_{n}gram_chars": dup_reference(tokens, n) for n in DUP}
        | c4_lines.counts_reference(text)
    )


@njit(cache=True, nogil=True)
def _count(
    data: np.ndarray, offsets: np.ndarray, first: int, last: int, classes: np.ndarray, asked: Any, pieces: Any,
    counts: np.ndarray,
) -> None:  # fmt: skip
    ask_tokens, ask_lines, ask_grams, ask_c4 = asked
    piece_tokens, piece_lines = pieces
    room = 0
    if ask_grams:
        for i in range(first, last):
            room = max(room, min(offsets[i + 1] - offsets[i], piece_tokens))
    hashes, lengths, arrays = np.empty(room, np.uint64), np.empty(room, np.int32), scratch(room)
    top, dup = np.zeros(MAX_N + 1, np.int64), np.zeros(MAX_N + 1, np.int64)
    lines, paragraphs = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for i in range(first, last):
        start, stop = offsets[i], offsets[i + 1]
        if ask_lines:
            slots = table_slots(min(count_newlines(data[start:stop]), piece_lines))
            if slots > len(lines):
                lines, paragraphs = np.empty(slots, np.uint64), np.empty(slots, np.uint64)
            count_lines(data, start, stop, classes, lines, paragraphs, slots, piece_lines, counts[i, _LINES:_GRAMS])
        if ask_tokens or ask_grams:
            top[:] = 0
            dup[:] = 0
            at = start
            while at < stop:
                found, at = scan_tokens(data, at, stop, classes, counts[i, _TOKENS:_LINES], hashes, lengths)
                if ask_grams:
                    repeated_grams(hashes, lengths, found, arrays, top, dup)
            if ask_grams:
                counts[i, _GRAMS : _GRAMS + 3] = top[2:5]
                counts[i, _GRAMS + 3 : _C4] = dup[5:]
        if ask_c4:
            count_c4(data, start, stop, classes, counts[i, _C4:])


def count_texts(
    data: np.ndarray, offsets: np.ndarray, first: int, last: int, groups: frozenset[str], counts: np.ndarray,
    *, piece_tokens: int = PIECE_TOKENS, piece_lines: int = TABLE_LINES,
) -> None:  # fmt: skip
    """Counts texts [first, last).

    Args:
        data: UTF-8 of the texts.
        offsets: Where each text begins and the last one ends.
        first: First text.
        last: Text behind the last one.
        groups: What to count, of `GROUPS`.
        counts: Receives a row a text, columns as in `FIELDS`; must hold zeros. Columns not asked for stay so.
        piece_tokens: Tokens whose n-grams are compared at once.
        piece_lines: Different lines that are compared at once.
    """
    asked = tuple(name in groups for name in GROUPS)
    _count(data, offsets, first, last, classes(), asked, (piece_tokens, piece_lines), counts)
