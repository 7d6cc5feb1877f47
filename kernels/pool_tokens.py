"""Sums of token vectors: a document is the sum of the rows of a table that its tokens name, normalised.

    y = sum over tokens t of table[t],   v = y / |y|

The table holds integers, so that no order of tokens, threads or machines can change a sum. The model of static
embeddings (model2vec, Tulkens and van Dongen 2024), where the weight of a token is part of its row.

Shapes: `ids` uint32[tokens], `offsets` int64[n + 1], `table` int16[vocabulary, d].
"""

import numpy as np
from numba import njit


def pool_reference(ids: np.ndarray, offsets: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Document by document in float64: float64[n, d]."""
    found = np.zeros((len(offsets) - 1, table.shape[1]))
    for i, (a, b) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        row = table[ids[a:b]].astype(np.float64).sum(axis=0)
        length = np.linalg.norm(row)
        found[i] = row / length if length else row
    return found


def pool(ids: np.ndarray, offsets: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Unit vectors of n documents: float32[n, d]; zero for a document without tokens, or whose rows cancel out."""
    out = np.empty((len(offsets) - 1, table.shape[1]), np.float32)
    _pool(ids, offsets, table, out)
    return out


@njit(cache=True, nogil=True)
def _pool(ids: np.ndarray, offsets: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    width = table.shape[1]
    sums, near = np.empty(width, np.int64), np.empty(width, np.int32)
    for row in range(len(offsets) - 1):
        sums[:] = 0
        at, stop = offsets[row], offsets[row + 1]
        while at < stop:  # 32-bit sums, twice as many at once, for as long as they cannot overflow: 2^16 * 2^15 = 2^31
            last = min(stop, at + 65535)
            near[:] = 0
            for i in range(at, last):
                token = ids[i]
                for j in range(width):
                    near[j] += np.int32(table[token, j])
            for j in range(width):
                sums[j] += np.int64(near[j])
            at = last
        square = 0.0
        for j in range(width):
            square += np.float64(sums[j]) * np.float64(sums[j])
        length = np.sqrt(square) if square > 0 else 1.0
        for j in range(width):
            out[row, j] = np.float32(np.float64(sums[j]) / length)
