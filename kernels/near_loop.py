"""Whether a sequence ends in copies of one block that differ in a counter or so: numbered lines of the same words.

    lag      the distance from an anchor of 8 tokens near the end to where those tokens stood before; few are tried
    walk     i from the end down, tokens[i] against tokens[i - lag]; where they differ, both sides skip at most CHANGE
             tokens to where the next RESYNC agree again (so 9 -> 10 may be a token longer); that is one changed place
    it ends  where no place is found, or changed places would be more than one a copy (and one in SPARSE tokens of it),
             or changed tokens more than the share allowed;
             blocks so short that one change is too many are no near loops

One changed place a copy is what tells a counter from data: rows of a table, records and list items change in several.

Shapes: tokens int64[n]. Time O(n) for each lag, no memory.
"""

from typing import Any

import numpy as np
from numba import njit

ANCHOR = 8
ANCHORS = 8
"""Anchors end 0, 4, 8, … tokens before the end, so that one of them holds no changed place."""
CHANGE = 4
RESYNC = 4
SPARSE = 64


@njit(cache=True, nogil=True)
def near_loop(tokens: np.ndarray, copies: int, least: int, longest: int, share: float) -> tuple[int, int]:
    """Finds a loop of nearly equal copies at the end.

    Args:
        tokens: The sequence, int64[n].
        copies: Copies that make a loop.
        least: Tokens that make a loop.
        longest: Longest period looked for.
        share: Greatest share of changed tokens.

    Returns:
        The period (the last copy's) and how many tokens at the end are such copies; (0, 0) if the tail is no loop.
    """
    previous = 0
    for number in range(ANCHORS):
        lag = _lag(tokens, len(tokens) - 4 * number, longest)
        if lag * share < 1 or lag == previous or lag * copies > len(tokens):
            continue
        previous = lag
        span = _walk(tokens, lag, share)
        if span >= max(copies * lag, least):
            return lag, span
    return 0, 0


@njit(cache=True, nogil=True)
def _lag(tokens: np.ndarray, stop: int, longest: int) -> int:
    """How far before `stop` the ANCHOR tokens that end there stood last; 0 if they did not."""
    for lag in range(1, min(longest, stop - ANCHOR) + 1):
        same = True
        for k in range(1, ANCHOR + 1):
            if tokens[stop - k] != tokens[stop - k - lag]:
                same = False
                break
        if same:
            return lag
    return 0


@njit(cache=True, nogil=True)
def _walk(tokens: np.ndarray, lag: int, share: float) -> int:
    """Tokens at the end that are copies of what is `lag` before them, but for a few changes; the first included."""
    places = max(1, lag // SPARSE)  # changed places a copy may have
    i, j = len(tokens) - 1, len(tokens) - 1 - lag
    changed, seen = 0, 0
    while j >= 0:
        if tokens[i] == tokens[j]:
            i, j = i - 1, j - 1
            continue
        a, b = _resync(tokens, i, j)
        read = len(tokens) - i + 2 * lag  # two copies ahead of the changes, so that the cut end is one at no cost
        changed, seen = changed + max(a, b), seen + 1
        if (a == 0 and b == 0) or seen * lag > places * read or changed > share * read:
            break
        i, j = i - a, j - b
    return len(tokens) - 1 - j


@njit(cache=True, nogil=True)
def _resync(tokens: np.ndarray, i: int, j: int) -> Any:
    """Fewest tokens to skip before i and before j until RESYNC tokens agree; (0, 0) if more than CHANGE."""
    for total in range(1, 2 * CHANGE + 1):
        for a in range(max(0, total - CHANGE), min(CHANGE, total) + 1):
            b = total - a
            if i - a <= j - b or j - b - RESYNC < -1:
                continue
            same = True
            for k in range(RESYNC):
                if tokens[i - a - k] != tokens[j - b - k]:
                    same = False
                    break
            if same:
                return a, b
    return 0, 0
