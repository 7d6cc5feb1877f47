"""Whether a sequence ends in copies of one block: the smallest period of its tail.

    z[p]      = length of the longest common prefix of r and r[p:], r the reversed sequence
    span(p)   = p + z[p]: the last span(p) tokens have period p, and no more do
    loop      = smallest p with span(p) >= max(copies p, least)

z is the Z-function (Gusfield, "Algorithms on Strings, Trees, and Sequences", 1997, section 1.4), O(n) in all: a step
only extends what the farthest earlier match has not covered. Reading stops at the first p that is a loop.

Shapes: tokens int64[n]; 8 bytes a token of memory.
"""

import numpy as np
from numba import njit


def tail_loop_reference(tokens: list[int], copies: int, least: int, longest: int) -> tuple[int, int]:
    """The same by comparing tokens one by one, O(n^2)."""
    for period in range(1, min(longest, len(tokens) // copies) + 1):
        span = period
        while span < len(tokens) and tokens[-1 - span] == tokens[-1 - span + period]:
            span += 1
        if span >= max(copies * period, least):
            return period, span
    return 0, 0


@njit(cache=True, nogil=True)
def tail_loop(tokens: np.ndarray, copies: int, least: int, longest: int) -> tuple[int, int]:
    """Finds the smallest period of the tail.

    Args:
        tokens: The sequence, int64[n].
        copies: Copies that make a loop, at least 2.
        least: Tokens that make a loop.
        longest: Longest period looked for.

    Returns:
        The period and how many tokens at the end have it; (0, 0) if the tail is no loop.
    """
    last = len(tokens) - 1
    periods = min(longest, len(tokens) // copies)
    z = np.empty(periods + 1, np.int64)
    left, right = 0, 0  # the match r[left:right] = r[:right - left] that reaches farthest
    for p in range(1, periods + 1):
        length = 0
        if p < right:
            length = min(right - p, z[p - left])
        while p + length <= last and tokens[last - length] == tokens[last - p - length]:
            length += 1
        z[p] = length
        if p + length > right:
            left, right = p, p + length
        if p + length >= max(copies * p, least):
            return p, p + length
    return 0, 0
