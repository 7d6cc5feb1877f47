"""Where the lines of a buffer are."""

import numpy as np
from numba import njit


def line_spans(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the lines of a buffer are: uint8[n] -> (starts, stops), int64[lines], line ends left out.

    A last line without an end counts; nothing behind the last line end does not.
    """
    ends = np.empty(_count_lines(data), np.int64)
    _find_lines(data, ends)
    if len(data) and (len(ends) == 0 or ends[-1] != len(data) - 1):
        ends = np.append(ends, len(data))
    starts = np.empty_like(ends)
    starts[:1] = 0
    starts[1:] = ends[:-1] + 1
    return starts, ends


@njit(cache=True, nogil=True)
def _count_lines(data: np.ndarray) -> int:
    count = 0
    for byte in data:
        count += byte == 10
    return count


@njit(cache=True, nogil=True)
def _find_lines(data: np.ndarray, ends: np.ndarray) -> None:
    found = 0
    for at in range(len(data)):
        if data[at] == 10:
            ends[found] = at
            found += 1
