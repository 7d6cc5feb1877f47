"""Exact nearest neighbours among the vectors of one cluster, and the graph they make."""

import numpy as np

from ropewalk.kernels.top_k import top_k

BLOCK_BYTES = 64 << 20
"""Similarities held at once: bounds memory for a cluster of any size."""


def nearest(
    vectors: np.ndarray, count: int, *, below: float = np.inf, block_bytes: int = BLOCK_BYTES
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest other rows of each row by inner product, ties to the lower row.

    A library search (faiss) is not used: it would be the same matrix product, but which of several equal scores it
    returns is left to its heap, and copies of a text have equal scores. On vectors of the grid of `tables.EMBED` every
    product is exact in float32, so that the result depends neither on block size nor on threads.

    Args:
        vectors: Unit vectors, float32[n, d].
        count: Neighbours wanted, k.
        below: Rows as similar as this, or more, are passed over: near-duplicates.
        block_bytes: Size of the block of similarities computed at once.

    Returns:
        Rows int32[n, k], -1 where there are fewer than k others, and similarities float32[n, k].
    """
    rows = len(vectors)
    block = max(1, block_bytes // (4 * max(rows, 1)))
    found = np.empty((rows, count), np.int32)
    similarity = np.empty((rows, count), np.float32)
    for start in range(0, rows, block):
        part = slice(start, min(start + block, rows))
        own = np.arange(part.start, part.stop)
        found[part], similarity[part] = top_k(vectors[part] @ vectors.T, own, count, below)
    return found, similarity


def union_graph(found: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The undirected graph with an edge where either end has the other among its neighbours.

    Only positive similarities make an edge: a zero vector, or a document unlike all others, stands alone.

    Args:
        found: Neighbours of each row, int32[n, k], -1 for none.
        similarity: Their similarities, float32[n, k].

    Returns:
        Compressed rows: `indptr` int64[n + 1], `indices` int32[e], ascending in each row, `weights` float32[e].
    """
    rows, count = found.shape
    here = np.repeat(np.arange(rows), count)
    there = found.ravel().astype(np.int64)
    edge = (there >= 0) & (similarity.ravel() > 0)
    here, there, weights = here[edge], there[edge], similarity.ravel()[edge]
    key = np.minimum(here, there) * rows + np.maximum(here, there)
    by_key = np.argsort(key, kind="stable")
    key = key[by_key]
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]][: len(key)])
    # Seen from its two ends a similarity may differ by a rounding error where vectors are not on the grid.
    both = np.maximum.reduceat(weights[by_key], first) if len(first) else weights
    low, high = np.divmod(key[first], max(rows, 1))
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    order = np.argsort(ends[0] * rows + ends[1], kind="stable")
    indptr = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(ends[0], minlength=rows), out=indptr[1:])
    return indptr, ends[1][order].astype(np.int32), np.tile(both, 2)[order]
