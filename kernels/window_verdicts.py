"""Which windows of n bytes around equal anchors are repeats, and of which first one.

Members of a group hold the same k bytes at their anchor and have different bytes around it. Each stands for the windows
that begin at `0 … last` of its context; the anchor is at `anchor` of it. Two windows can be equal only if the anchor is
at the same distance in both, so for each distance r the windows of all members are looked up in a hash table, members
in order: one that is not there yet is a first, any other a repeat. Hits are compared byte by byte, once for a pair of
members: the bytes that agree to both sides of the anchors answer for all windows.

    windows(r) = contexts[i][anchor_i - r :][: n]         O(windows + bytes) for a group of any size

Shapes: contexts uint8[bytes], their borders int64[m + 1]; m members in g groups.
"""

import numpy as np
from numba import njit

from ropewalk.kernels.shingles import mix

UNIQUE, FIRST, REPEAT = 0, 1, 2

_BASE = 0xD6E8FEB86659FD93


def window_verdicts_reference(contexts: list[bytes], anchors: list[int], lasts: list[int], n: int) -> list[list[int]]:
    """Verdict on each window of each member of one group."""
    windows: dict[tuple[int, bytes], list[tuple[int, int]]] = {}
    for i, (context, anchor, last) in enumerate(zip(contexts, anchors, lasts, strict=True)):
        for t in range(last + 1):
            windows.setdefault((anchor - t, context[t : t + n]), []).append((i, t))
    verdicts = [[UNIQUE] * (last + 1) for last in lasts]
    for places in windows.values():
        for rank, (i, t) in enumerate(places if len(places) > 1 else []):
            verdicts[i][t] = REPEAT if rank else FIRST
    return verdicts


@njit(cache=True, nogil=True)
def _agree(
    data: np.ndarray, a: int, a_low: int, a_high: int, b: int, b_low: int, b_high: int, k: int
) -> tuple[int, int]:
    """Bytes in common before and after the anchors at a and b; (-1, -1) if the anchors differ."""
    for i in range(k):
        if data[a + i] != data[b + i]:
            return -1, -1
    left = 0
    while left < min(a - a_low, b - b_low) and data[a - left - 1] == data[b - left - 1]:
        left += 1
    right = 0
    while right < min(a_high - a, b_high - b) - k and data[a + k + right] == data[b + k + right]:
        right += 1
    return left, right


@njit(cache=True, nogil=True)
def window_verdicts(
    data: np.ndarray, offsets: np.ndarray, anchors: np.ndarray, lasts: np.ndarray, groups: np.ndarray,
    n: int, k: int, borders: np.ndarray, verdicts: np.ndarray,
) -> None:  # fmt: skip
    """Judges all windows of all members.

    Args:
        data: Contexts of the members, one after the other.
        offsets: Where each context is: context i has lasts[i] + n bytes.
        anchors: Where in its context each member's anchor is, int64[m].
        lasts: The last window of each context, int64[m].
        groups: Where the members of each group are, int64[g + 1]; in a group the first comes first.
        n: Bytes of a window.
        k: Bytes of an anchor.
        borders: Where the verdicts of each member are, int64[m + 1].
        verdicts: Receives them, uint8[windows]: `UNIQUE`, `FIRST` or `REPEAT`.
    """
    most = 0
    for g in range(len(groups) - 1):
        most = max(most, groups[g + 1] - groups[g])
    size = 4
    while size < 2 * most:
        size *= 2
    mask = size - 1
    keys, members, filled = np.empty(size, np.uint64), np.empty(size, np.int64), np.zeros(size, np.int64)
    rolled = np.empty(len(anchors), np.uint64)
    # The member each was last compared with, and how far they agree.
    partner = np.full(len(anchors), -1, np.int64)
    left, right = np.empty(len(anchors), np.int64), np.empty(len(anchors), np.int64)
    leaving = np.uint64(1)
    for _ in range(n - 1):
        leaving *= np.uint64(_BASE)
    round_ = 0
    for g in range(len(groups) - 1):
        small = 4
        while small < 2 * (groups[g + 1] - groups[g]):
            small *= 2
        mask = small - 1
        low, high = anchors[groups[g]], np.int64(0)
        for i in range(groups[g], groups[g + 1]):
            low, high = min(low, anchors[i] - lasts[i]), max(high, anchors[i])
        for r in range(low, high + 1):
            round_ += 1
            for i in range(groups[g], groups[g + 1]):
                t = anchors[i] - r
                if t < 0 or t > lasts[i]:
                    continue
                at = offsets[i] + t
                h = np.uint64(0)
                if t == lasts[i]:
                    for j in range(n - 1, -1, -1):
                        h = h * np.uint64(_BASE) + np.uint64(data[at + j])
                else:
                    h = (rolled[i] - np.uint64(data[at + n]) * leaving) * np.uint64(_BASE) + np.uint64(data[at])
                rolled[i] = h
                key = mix(h)
                slot = np.int64(key & np.uint64(mask))
                verdict = UNIQUE
                while filled[slot] == round_:
                    if keys[slot] == key:
                        other = members[slot]
                        if partner[i] != other:
                            partner[i] = other
                            left[i], right[i] = _agree(
                                data, offsets[i] + anchors[i], offsets[i], offsets[i + 1],
                                offsets[other] + anchors[other], offsets[other], offsets[other + 1], k,
                            )  # fmt: skip
                        if r <= left[i] and n - k - r <= right[i]:
                            verdict = REPEAT
                            verdicts[borders[other] + anchors[other] - r] = FIRST
                            break
                    slot = (slot + 1) & mask
                if verdict == UNIQUE:
                    keys[slot], members[slot], filled[slot] = key, i, round_
                verdicts[borders[i] + t] = verdict
