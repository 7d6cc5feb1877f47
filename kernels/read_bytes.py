"""One byte, or eight as a little-endian number, of a buffer.

    byte_at(data, at) = data[at]
    eight_at(data, at) = data[at] + data[at + 1] 2^8 + … + data[at + 7] 2^56

A signed index makes numba look whether it is negative, and LLVM then neither merges loads nor vectorises loops: these
two read with unsigned ones. Measured on a loop over bytes: 500 -> 950 MB/s, by eights 1,700.

Shapes: data uint8[bytes]; `at` not negative, and in bounds.
"""

from typing import Any

import numpy as np
from numba import njit


def eight_at_reference(data: bytes, at: int) -> int:
    """`eight_at` in plain Python."""
    return int.from_bytes(data[at : at + 8], "little")


@njit(cache=True, nogil=True, inline="always")
def byte_at(data: np.ndarray, at: int) -> Any:
    """The byte at `at`, uint8."""
    return data[np.uint64(at)]


@njit(cache=True, nogil=True, inline="always")
def eight_at(data: np.ndarray, at: int) -> Any:
    """Bytes [at, at + 8) as uint64."""
    i = np.uint64(at)
    return (
        np.uint64(data[i])
        | np.uint64(data[i + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[i + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[i + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[i + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[i + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[i + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[i + np.uint64(7)]) << np.uint64(56)
    )
