"""Online best-fit bin packing with a bounded number of open bins: keeps the order, wastes little.

    put each piece into the open bin with the least room that takes it (ties: the bin opened first);
    where none does, open a new bin, closing the fullest (ties: opened first) when `open_bins` are open

A full bin is closed at once. One open bin is next-fit. O(pieces × open bins), O(open bins) memory. On 20,000 log-normal
documents and 8,192 tokens ten open bins fill 99.8 %, next-fit 83 % (design notes on recipes, §5).
"""

import numpy as np
from numba import njit


def best_fit_reference(lengths: np.ndarray, capacity: int, open_bins: int) -> np.ndarray:
    """The same with a Python list of open bins."""
    bins: list[list[int]] = []  # [room, number], in the order they were opened
    opened, out = 0, []
    for length in lengths.tolist():
        fits = [b for b in bins if b[0] >= length]
        if fits:
            chosen = min(fits, key=lambda b: b[0])
        else:
            if len(bins) == open_bins:
                bins.remove(min(bins, key=lambda b: b[0]))
            chosen = [capacity, opened]
            opened += 1
            bins.append(chosen)
        chosen[0] -= length
        out.append(chosen[1])
        if chosen[0] == 0:
            bins.remove(chosen)
    return np.array(out, np.int64)


def best_fit(lengths: np.ndarray, capacity: int, open_bins: int) -> np.ndarray:
    """Assigns pieces to bins.

    Args:
        lengths: Length of each piece in order, each in [1, capacity], integers[n].
        capacity: Size of a bin.
        open_bins: Bins kept open at once, at least 1.

    Returns:
        Bin of each piece, int64[n]; bins are numbered from 0 as they are opened.

    Raises:
        ValueError: If a piece is empty or larger than a bin.
    """
    if len(lengths) and (lengths.min() < 1 or lengths.max() > capacity):
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()}: each must be in [1, {capacity}]")
    out = np.empty(len(lengths), np.int64)
    _best_fit(lengths.astype(np.int64), capacity, open_bins, out)
    return out


@njit(cache=True, nogil=True)
def _best_fit(lengths: np.ndarray, capacity: int, open_bins: int, out: np.ndarray) -> None:
    room = np.empty(open_bins, np.int64)  # in the order they were opened
    number = np.empty(open_bins, np.int64)
    count = 0
    opened = 0
    for i in range(len(lengths)):
        chosen = -1
        fullest = 0
        for b in range(count):
            if room[b] >= lengths[i] and (chosen < 0 or room[b] < room[chosen]):
                chosen = b
            if room[b] < room[fullest]:
                fullest = b
        if chosen < 0:
            if count == open_bins:
                count = _close(room, number, count, fullest)
            chosen = count
            room[chosen] = capacity
            number[chosen] = opened
            count += 1
            opened += 1
        room[chosen] -= lengths[i]
        out[i] = number[chosen]
        if room[chosen] == 0:
            count = _close(room, number, count, chosen)


@njit(cache=True, nogil=True)
def _close(room: np.ndarray, number: np.ndarray, count: int, which: int) -> int:
    for b in range(which, count - 1):
        room[b] = room[b + 1]
        number[b] = number[b + 1]
    return count - 1
