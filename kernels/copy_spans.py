"""Copies many spans of one array into another: how token slices get from a column into a sequence.

    out[to[i] : to[i] + length[i]] = values[start[i] : start[i] + length[i]]

Bound by memory: 8 bytes moved a token.
"""

import numpy as np
from numba import njit


def copy_spans_reference(
    values: np.ndarray, start: np.ndarray, length: np.ndarray, out: np.ndarray, to: np.ndarray
) -> None:
    """The same span by span."""
    for a, n, b in zip(start.tolist(), length.tolist(), to.tolist(), strict=True):
        out[b : b + n] = values[a : a + n]


def copy_spans(values: np.ndarray, start: np.ndarray, length: np.ndarray, out: np.ndarray, to: np.ndarray) -> None:
    """Copies spans; those of `out` must not overlap.

    Args:
        values: Where from, uint32[v].
        start: First value of each span, int64[n].
        length: Values in each span, int64[n].
        out: Where to, uint32[o]; written in place.
        to: Place of each span in `out`, int64[n].

    Raises:
        IndexError: If a span leaves one of the arrays.
    """
    if len(start) == 0:
        return
    if min(start.min(), to.min(), length.min()) < 0:
        raise IndexError("a span has a negative start or length")
    if (start + length).max() > len(values) or (to + length).max() > len(out):
        raise IndexError(f"a span ends beyond the {len(values)} values read or the {len(out)} written")
    _copy_spans(values, start, length, out, to)


@njit(cache=True, nogil=True)
def _copy_spans(values: np.ndarray, start: np.ndarray, length: np.ndarray, out: np.ndarray, to: np.ndarray) -> None:
    for i in range(len(start)):
        for j in range(length[i]):
            out[to[i] + j] = values[start[i] + j]
