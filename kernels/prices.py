"""Prices that even out the sizes of clusters: each vector goes to the centroid with the largest score less price.

    c(i) = argmax over j of <x_i, m_j> - p_j

A round of an auction: a centroid with more vectors than its capacity raises its price until the surplus would rather
go elsewhere, which for each of its vectors is when the rise passes the margin over its second choice. All prices rise
at once, so that surplus moves on from full to full centroids for some rounds; the last one or two vectors may be passed
to and fro, and sizes end near the capacity, not under it.

Prices are multiples of 2^-22, as are the scores of vectors on the grid: differences of the two below 4 are exact in
float32, so that nothing depends on blocks or threads. Equal vectors cannot be told apart by a price: they stay
together.
"""

import numpy as np

from ropewalk.kernels.blocked_search import search

UNIT = 2.0**-22
HIGHEST = 1.0
"""Prices stay below: the sums of a product of extended rows must stay below 4."""


def extend(vectors: np.ndarray, centroids: np.ndarray, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose inner products are scores less prices: x -> (x, 1), m -> (m, -p): float32[., d + 1] of both."""
    ones = np.ones((len(vectors), 1), np.float32)
    return np.hstack([vectors, ones]), np.hstack([centroids, -price[:, None].astype(np.float32)])


def balance(vectors: np.ndarray, centroids: np.ndarray, *, slack: float, rounds: int) -> np.ndarray:
    """Finds prices under which no centroid has many more vectors than its share.

    Args:
        vectors: A sample, float32[n, d] on the grid.
        centroids: float32[k, d] on the grid, k >= 1.
        slack: A centroid's capacity is `slack` times n / k; where no price can separate vectors it has more.
        rounds: Rounds at most.

    Returns:
        Multiples of 2^-22 in [0, 1), float32[k].
    """
    count = len(centroids)
    units = np.zeros(count, np.int64)
    if count < 2 or not len(vectors):
        return units.astype(np.float32)
    capacity = max(1, int(slack * len(vectors) / count))
    for _ in range(rounds):
        rows, priced = extend(vectors, centroids, (units * UNIT).astype(np.float32))
        index, score = search(rows, priced, np.full(len(rows), -1), 2)
        margin = np.rint((score[:, 0] - score[:, 1]) / UNIT).astype(np.int64)
        sizes = np.bincount(index[:, 0], minlength=count)
        full = np.flatnonzero(sizes > capacity)
        if not len(full):
            break
        order = np.lexsort((margin, index[:, 0]))
        starts = np.cumsum(sizes) - sizes
        leaving = sizes[full] - capacity
        units[full] += margin[order[starts[full] + leaving - 1]] + 1
        units = np.minimum(units - units.min(), int(HIGHEST / UNIT) - 1)
    return (units * UNIT).astype(np.float32)
