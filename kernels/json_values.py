"""Finds the JSON values in a stream of text by its brackets and quotes alone, buffer by buffer.

A value is an element of a top-level array, or what stands at the top level itself. Between two values: a comma, and at
the top level also a closed bracket or, for what has no brackets, a line end. Nothing else is checked: what a broken
value is, its reader finds out; the next value is found all the same as long as brackets and quotes are balanced.
"""

import numpy as np
from numba import njit

DEPTH, IN_STRING, ESCAPED, IN_ARRAY, START = range(5)
"""Places in the state: open brackets; in a string; behind a backslash; in a top-level array; start of the value that
has begun, or -1."""


def new_state() -> np.ndarray:
    """State at the start of a stream, int64[5]."""
    return np.array([0, 0, 0, 0, -1], np.int64)


def value_spans(data: np.ndarray, at: int, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the values that end in `data[at:]`.

    Args:
        data: The stream from the start of the value that has begun, uint8[any].
        at: Bytes of `data` that were seen by the call before.
        state: See `new_state`; changed in place. START counts in `data`.

    Returns:
        (starts, stops), int64[values].
    """
    fresh = data[at:]
    most = sum(int(np.count_nonzero(fresh == byte)) for byte in b",}]\n") + 1
    starts, stops = np.empty(most, np.int64), np.empty(most, np.int64)
    view = data.view()
    view.flags.writeable = False
    count = _value_spans(view, at, state, starts, stops)
    return starts[:count], stops[:count]


@njit(cache=True, nogil=True)
def _value_spans(data, at, state, starts, stops):  # type: ignore[no-untyped-def]
    depth, in_string, escaped, in_array, start = state[0], state[1], state[2], state[3], state[4]
    count = 0
    for k in range(at, len(data)):
        byte = data[k]
        if in_string:
            if escaped:
                escaped = 0
            elif byte == 92:  # backslash
                escaped = 1
            elif byte == 34:
                in_string = 0
            continue
        stop = np.int64(-1)
        if byte == 34:  # "
            in_string = 1
            if start < 0:
                start = np.int64(k)
        elif byte == 123 or byte == 91:  # { [
            if start >= 0:
                depth += 1
            elif byte == 91 and depth == 0 and not in_array:
                in_array = np.int64(1)
            else:
                start = np.int64(k)
                depth += 1
        elif byte == 125 or byte == 93:  # } ]
            if depth > 0:
                depth -= 1
                if depth == 0 and not in_array:
                    stop = np.int64(k + 1)
            elif byte == 93 and in_array:
                in_array = np.int64(0)
                stop = np.int64(k)
            elif start < 0:
                start = np.int64(k)
        elif depth == 0:
            if byte == 44 or (byte == 10 and not in_array):
                stop = np.int64(k)
            elif start < 0 and byte != 32 and byte != 10 and byte != 13 and byte != 9:
                start = np.int64(k)
        if stop >= 0 and start >= 0:
            starts[count], stops[count] = start, stop
            count += 1
            start = np.int64(-1)
    state[0], state[1], state[2], state[3], state[4] = depth, in_string, escaped, in_array, start
    return count
