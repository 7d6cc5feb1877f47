"""Windows of n bytes that repeat the window a few bytes before: runs of one character, rulers, tables of zeros.

    window s repeats by period p   iff   text[s : s + n] == text[s - p : s - p + n]   iff   text[j] == text[j - p]
                                                                                      for all j in [s, s + n)

For each p <= `PERIODS` the maximal runs of such j are found by probing every n / 2 bytes: a run of n holds a probe with
n / 2 more of it behind. A megabyte of one byte is one run for each period.
"""

import numpy as np
from numba import njit

PERIODS = 16


def periodic_windows_reference(piece: bytes, n: int) -> list[tuple[int, int, int]]:
    """(first window, last window, period) of each run, by period, then place."""
    found = []
    for period in range(1, PERIODS + 1):
        run = 0
        for j in range(period, len(piece) + 1):
            if j < len(piece) and piece[j] == piece[j - period]:
                run += 1
                continue
            if run >= n:
                found.append((j - run, j - n, period))
            run = 0
    return found


@njit(cache=True, nogil=True)
def _same(data: np.ndarray, at: int, period: int, count: int) -> bool:
    for i in range(at, at + count):
        if data[i] != data[i - period]:
            return False
    return True


@njit(cache=True, nogil=True)
def periodic_windows(data: np.ndarray, begin: np.ndarray, end: np.ndarray, n: int) -> np.ndarray:
    """Finds the runs in pieces of text.

    Args:
        data: All bytes, uint8.
        begin: First byte of each piece, int64[p].
        end: End of each piece, int64[p].
        n: Bytes of a window, at least 2.

    Returns:
        First window, last window and period of each run, places in `data`: int64[runs, 3].
    """
    found = np.empty((16, 3), np.int64)
    count = 0
    step = n // 2
    probe = min(8, n - step)
    known = np.empty(PERIODS + 1, np.int64)  # end of the last run looked at
    for piece in range(len(begin)):
        start, stop = begin[piece], end[piece]
        known[:] = start
        for at in range(start, stop - probe + 1, step):
            for period in range(1, min(PERIODS, at - start) + 1):
                if data[at] != data[at - period] or at < known[period] or not _same(data, at, period, probe):
                    continue
                first, last = at, at + probe
                while first > start + period and data[first - 1] == data[first - 1 - period]:
                    first -= 1
                while last < stop and data[last] == data[last - period]:
                    last += 1
                known[period] = last
                if last - first < n:
                    continue
                if count == len(found):
                    grown = np.empty((2 * count, 3), np.int64)
                    grown[:count] = found
                    found = grown
                found[count, 0], found[count, 1], found[count, 2] = first, last - n, period
                count += 1
    return found[:count]
