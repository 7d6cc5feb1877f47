"""The grid of multiples of 2^-11: unit vectors on it have dot products that float32 computes without rounding.

    snap(v) = rint(2048 v) / 2048

Why. Times 2048, such a vector is an integer vector of length at most 2048 + sqrt(d) / 2 (rounding moves each coordinate
by at most 1/2): 2056 for d = 256. By Cauchy-Schwarz any partial sum of the products of two of them, over any subset of
the coordinates in any order, is an integer of size at most 2056^2 = 4,227,136 < 2^24: a float32. So blocked, threaded
and fused matrix products give the same bits on every machine, ties included, for d up to 2^20 and more. 2^-11 is the
finest such grid, and float16 holds its points in [-1, 1] exactly.
"""

import numpy as np

GRID = 2048
"""Grid points between 0 and 1."""


def snap(vectors: np.ndarray) -> np.ndarray:
    """Nearest grid point of each coordinate, ties to even: float[n, d] in [-1, 1] -> float16[n, d]."""
    return (np.rint(vectors * np.float32(GRID)) / np.float32(GRID)).astype(np.float16)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors on the grid: float[n, d] -> float16[n, d]; a zero vector stays zero.

    Each row's squares are added one after the other in float64, so that the result does not depend on NumPy's blocks.
    """
    wide = vectors.astype(np.float64)
    squares = np.zeros(len(wide))
    for column in wide.T:
        squares += column * column
    lengths = np.sqrt(squares)
    return snap((wide / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32))
