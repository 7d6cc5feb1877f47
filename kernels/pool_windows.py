"""Window vectors to document vectors: the weighted mean of unit vectors, exact whatever the order or the batch.

    u = v / |v|                      a window
    m = sum of w u / sum of w        a document; its vector is m / |m|, its dispersion 1 - |m|

The mean of normalised windows, weighed by their tokens, is what recipes of late and windowed pooling use; dispersion is
0 for a document whose windows all say the same, and nears 1 where they have nothing in common.

Unit vectors are rounded to multiples of 2^-20 first (an error of 5e-7). Their weighted sums are then integers, and a
float64 below 2^53 holds them: no order of additions can change them.

Shapes: `windows` float32[m, d], `weights` int64[m], `borders` int64[n + 1]: windows of document i are
`[borders[i], borders[i + 1])`.
"""

import numpy as np

STEPS = 1 << 20
"""Rounded units between 0 and 1."""


def pool_reference(windows: np.ndarray, weights: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same in plain float64, document by document: float64[n, d], float64[n]."""
    vectors, dispersion = np.zeros((len(borders) - 1, windows.shape[1])), np.zeros(len(borders) - 1)
    for i, (a, b) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
        rows = windows[a:b].astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        mean = (weights[a:b, None] * rows / np.where(lengths > 0, lengths, 1)).sum(axis=0) / max(weights[a:b].sum(), 1)
        length = np.linalg.norm(mean)
        vectors[i], dispersion[i] = (mean / length, 1 - length) if length else (mean, 0.0)
    return vectors, dispersion


def units(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors in `STEPS`: float32[m, d] -> int64[m, d]; zero vectors stay zero."""
    wide = vectors.astype(np.float64)
    rounded: np.ndarray = np.rint(wide * (STEPS / _lengths(wide))[:, None]).astype(np.int64)
    return rounded


def pool(rounded: np.ndarray, weights: np.ndarray, borders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of n documents and their dispersion: float32[n, d], float32[n].

    A document without windows, or whose windows are all zero, gets the zero vector; dispersion is 0 without a second
    window.

    Args:
        rounded: What `units` made of the windows, int64[m, d].
        weights: As above.
        borders: As above.
    """
    filled = np.flatnonzero(np.diff(borders))
    sums, total = np.zeros((len(borders) - 1, rounded.shape[1]), np.int64), np.ones(len(borders) - 1, np.int64)
    if len(filled):
        sums[filled] = np.add.reduceat(rounded * weights[:, None], borders[filled], axis=0)
        total[filled] = np.add.reduceat(weights, borders[filled])
    wide = sums.astype(np.float64)
    lengths = _lengths(wide)
    several = sums.any(axis=1) & (np.diff(borders) > 1)
    dispersion = np.where(several, 1 - lengths / (np.maximum(total, 1) * float(STEPS)), 0)
    return (wide / lengths[:, None]).astype(np.float32), np.clip(dispersion, 0, 1).astype(np.float32)


def _lengths(wide: np.ndarray) -> np.ndarray:
    """Length of each row, 1 for zero rows; squares are added column by column: no blocks of NumPy's show."""
    squares = np.zeros(len(wide))
    for column in wide.T:
        squares += column * column
    lengths = np.sqrt(squares)
    return np.where(lengths > 0, lengths, 1.0)
