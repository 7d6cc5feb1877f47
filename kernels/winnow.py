"""Winnowing: a few places of a text such that equal windows hold the same place.

    v(p) = hash of the k bytes at p
    the anchor of window s = the last of the smallest v(p), s <= p <= s + n - k

An anchor depends on nothing but the window's n bytes, so wherever the same n bytes stand, they have the same anchor at
the same distance: looking up anchors finds every repeated window. Windows next to each other mostly share theirs; a
random text has one anchor in (n - k + 2) / 2 bytes. Schleimer, Wilkerson and Aiken, "Winnowing: Local Algorithms for
Document Fingerprinting" (SIGMOD 2003), §4; their bound on density, 2 / (w + 1) with w = n - k + 1, is met by it.

The anchors of consecutive windows never go back, so each comes with the first and the last window that it stands for;
where windows between them are skipped, it comes twice.

    H(p) = sum text[p + i] B^(k - 1 - i) mod 2^64,    v = (H ^ H >> 32) M

Shapes: `data` uint8; places int64.
"""

import numpy as np
from numba import njit

from ropewalk.kernels.shingles import mix
from ropewalk.kernels.xxh64 import hash_bytes

_BASE = 0xD6E8FEB86659FD93
_M1 = 0xBF58476D1CE4E5B9
_MASK = (1 << 64) - 1
_BLOCK = 4096


def winnow_reference(piece: bytes, n: int, k: int) -> list[int]:
    """The anchor of every window."""

    def value(p: int) -> int:
        h = 0
        for byte in piece[p : p + k]:
            h = (h * _BASE + byte) & _MASK
        return (h ^ h >> 32) * _M1 & _MASK

    values = [value(p) for p in range(len(piece) - k + 1)]
    return [min(range(s, s + n - k + 1), key=lambda p: (values[p], -p)) for s in range(len(piece) - n + 1)]


@njit(cache=True, nogil=True)
def _last_smallest(values: np.ndarray, first: int, last: int) -> int:
    best, smallest = last, values[last]
    for i in range(last - 1, first - 1, -1):
        if values[i] < smallest:
            best, smallest = i, values[i]
    return best


@njit(cache=True, nogil=True)
def winnow(
    data: np.ndarray, begin: np.ndarray, end: np.ndarray, n: int, k: int, skip_first: np.ndarray, skip_last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Anchors of pieces of text.

    Args:
        data: All bytes, uint8.
        begin: First byte of each piece, int64[p].
        end: End of each piece, int64[p].
        n: Bytes of a window.
        k: Bytes that are hashed, 1 <= k <= n.
        skip_first: First of windows that need no anchor, ascending ranges without overlap, int64[r].
        skip_last: Last of each range, int64[r].

    Returns:
        Piece, place, first and last window of each anchor, int64[anchors, 4], places and windows in `data`; and its
        hash, uint64[anchors].
    """
    width = n - k + 1
    room = max(_BLOCK, width) + width
    values = np.empty(room, np.uint64)
    found, hashes = np.empty((1024, 4), np.int64), np.empty(1024, np.uint64)
    count = 0
    leaving = np.uint64(1)
    for _ in range(k):
        leaving *= np.uint64(_BASE)
    for piece in range(len(begin)):
        start, stop = begin[piece], end[piece]
        if stop - start < n:
            continue
        skip = np.searchsorted(skip_last, start)
        h = np.uint64(0)
        for at in range(start, start + k):
            h = h * np.uint64(_BASE) + np.uint64(data[at])
        values[0] = (h ^ (h >> np.uint64(32))) * np.uint64(_M1)
        base, held = start, 1  # values[i] is that of place base + i
        entering = start + k
        anchor, smallest, newest = np.int64(-1), np.uint64(0), np.int64(width - 2)
        window = start  # the first one whose anchor is not told yet
        while True:
            fill = min(room - held, stop - entering)
            # Slices: numba checks every index that it cannot prove to be positive.
            enters, leaves, fresh = data[entering : entering + fill], data[entering - k :], values[held : held + fill]
            for i in range(fill):
                h = h * np.uint64(_BASE) + (np.uint64(enters[i]) - leaving * np.uint64(leaves[i]))
                fresh[i] = (h ^ (h >> np.uint64(32))) * np.uint64(_M1)
            entering, held = entering + fill, held + fill
            # `newest` is the last value of the last window looked at; an anchor holds until a value as small comes, or
            # the window leaves it behind.
            while newest + 1 < held or entering == stop:
                until = min(held, anchor - base + width) if anchor >= 0 else newest + 1
                newest += 1
                while newest < until and values[newest] > smallest:
                    newest += 1
                if newest == held and entering < stop:
                    newest -= 1
                    break
                # The windows before this one have the old anchor; those that are skipped have none.
                this = base + newest - width + 1
                while window < this and anchor >= 0:
                    while skip < len(skip_first) and skip_last[skip] < window:
                        skip += 1
                    last = this
                    if skip < len(skip_first) and skip_first[skip] < this:
                        if skip_first[skip] <= window:
                            window = min(skip_last[skip] + 1, this)
                            continue
                        last = skip_first[skip]
                    if count == len(found):
                        more, more_hashes = np.empty((2 * count, 4), np.int64), np.empty(2 * count, np.uint64)
                        more[:count], more_hashes[:count] = found, hashes
                        found, hashes = more, more_hashes
                    found[count, 0], found[count, 1], found[count, 2], found[count, 3] = piece, anchor, window, last - 1
                    hashes[count] = mix(smallest)
                    count += 1
                    window = last
                if newest == held:
                    break
                best = newest
                if anchor < this:  # left behind, or there was none
                    best = _last_smallest(values, newest - width + 1, newest)
                anchor, smallest = base + best, values[best]
            if entering == stop:
                break
            # The last width values belong to windows still to come.
            keep = min(width, held)
            for i in range(keep):
                values[i] = values[held - keep + i]
            base, newest, held = base + held - keep, newest - held + keep, keep
    return found[:count], hashes[:count]


@njit(cache=True, nogil=True)
def context_hashes(data: np.ndarray, found: np.ndarray, n: int) -> np.ndarray:
    """Hashes of all that an anchor's windows cover, and of where it stands in it: what tells equal contexts.

    Args:
        data: All bytes, uint8.
        found: Anchors as `winnow` returns them.
        n: Bytes of a window.

    Returns:
        uint64[anchors].
    """
    hashes = np.empty(len(found), np.uint64)
    for i in range(len(found)):
        anchor, first, last = found[i, 1], found[i, 2], found[i, 3]
        seed = np.uint64(anchor - first) | np.uint64(last - first) << np.uint64(32)
        hashes[i] = hash_bytes(data, first, last + n, seed)
    return hashes
