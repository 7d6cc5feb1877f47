"""Spherical k-means on the grid of `grid.py`: exact, hence the same for any batch, thread count or machine.

    assign:   c(i) = argmax over j of <x_i, m_j>, ties to the lowest j
    update:   m_j  = snap(s / |s|),  s = sum of the x_i with c(i) = j
    seed:     greedy k-means++ (Arthur and Vassilvitskii, SODA 2007, sections 2 and 6): of some vectors, drawn with
              probability proportional to the squared distance from the nearest seed so far, the one that lowers the
              sum of these distances most is the next seed; over the first SEED_ROWS * k rows

(Dhillon and Modha, "Concept decompositions for large sparse text data", Machine Learning 2001.) With vectors and
centroids on the grid every dot product is exact in float32 and every sum exact in float64. The search for the nearest
centroid is faiss'; the update is not, since faiss adds up centroids in float32, rounded on the way.

Shapes: `vectors` float32[n, d], `centroids` float32[k, d], both on the grid.
"""

import functools
from typing import Any

import numpy as np

from ropewalk.kernels.grid import GRID, normalise

TIED_ROWS = 1024
"""Vectors whose scores are held at once where faiss found a tie."""
SEED_ROWS = 8
"""Rows for each centroid among which the seeds are drawn."""


def assign_reference(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `assign` computes, in integers."""
    scores = np.rint(vectors * GRID).astype(np.int64) @ np.rint(centroids * GRID).astype(np.int64).T
    return scores.argmax(axis=1).astype(np.uint32), scores.max(axis=1) / GRID**2


def assign(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of each vector, by faiss' exhaustive search.

    Which of several equally near centroids faiss returns depends on how many vectors it is given at once. So it is
    asked for two, and where they are equal the scores are looked at again: the first of equals wins, always.

    Args:
        vectors: float32[n, d].
        centroids: float32[k, d], k >= 1.

    Returns:
        Its index, uint32[n], and the dot product with it, float32[n].
    """
    vectors, centroids = np.ascontiguousarray(vectors), np.ascontiguousarray(centroids)
    dots, index = _two_nearest(vectors, centroids)
    tied = np.flatnonzero(dots[:, 0] == dots[:, -1])
    for rows in np.array_split(tied, -(-len(tied) // TIED_ROWS)) if len(centroids) > 1 and len(tied) else ():
        index[rows, 0] = (vectors[rows] @ centroids.T).argmax(axis=1)
    return index[:, 0].astype(np.uint32), dots[:, 0]


def _two_nearest(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two largest dot products of each row and their centroids, [n, min(2, k)]; by a GPU where faiss finds one.

    Raises:
        RuntimeError: If a GPU's products are not exact.
    """
    import faiss

    count = min(2, len(centroids))
    if not faiss.get_num_gpus():
        found: tuple[np.ndarray, np.ndarray] = faiss.knn(vectors, centroids, count, metric=faiss.METRIC_INNER_PRODUCT)
        return found
    dots, index = faiss.knn_gpu(_gpu(), vectors, centroids, count, metric=faiss.METRIC_INNER_PRODUCT)
    # Points of the grid have 11 bits, which also TF32 holds; a GPU that rounds more must not pass unseen.
    for place in range(count):
        if not np.array_equal(np.einsum("nd,nd->n", vectors, centroids[index[:, place]]), dots[:, place]):
            raise RuntimeError(
                "faiss' products on this GPU are rounded, results would depend on it: hide it (CUDA_VISIBLE_DEVICES=)"
            )
    return dots, index


@functools.cache
def _gpu() -> Any:
    """Faiss' memory on the first GPU, one for the process."""
    import faiss

    return faiss.StandardGpuResources()


def train(vectors: np.ndarray, k: int, *, iterations: int, seed: int) -> np.ndarray:
    """Centroids of a sample.

    Args:
        vectors: float32[n, d]; their order decides between equal choices.
        k: Centroids wanted; fewer come back if there are fewer distinct vectors.
        iterations: Rounds, at most: it stops when nothing moves.
        seed: Seed of the draw of seeds.

    Returns:
        float32[min(k, distinct), d]. A centroid that lost all its vectors is put on the one furthest from its own.
    """
    centroids = seeds(vectors, k, seed=seed)
    if len(centroids) < 2:
        return normalise(vectors.sum(axis=0, dtype=np.float64)[None]).astype(np.float32) if len(vectors) else centroids
    for _ in range(iterations):
        index, dots = assign(vectors, centroids)
        moved = _means(vectors, index, len(centroids))
        empty = np.flatnonzero(np.bincount(index, minlength=len(centroids)) == 0)
        far = np.argsort(dots, kind="stable")
        moved[empty[: len(far)]] = vectors[far[: len(empty)]]
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def seeds(vectors: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """Draws k distinct vectors by k-means++, fewer if there are fewer: float32[n, d] -> float32[<= k, d].

    All vectors are looked at only if the first SEED_ROWS * k hold fewer than k distinct ones.
    """
    found = _seeds(vectors[: SEED_ROWS * k], k, seed)
    return found if len(found) == k or len(vectors) <= SEED_ROWS * k else _seeds(vectors, k, seed)


def _seeds(vectors: np.ndarray, k: int, seed: int) -> np.ndarray:
    if len(vectors) == 0:
        return vectors
    random = np.random.default_rng(seed)
    draws = 2 + int(np.log(k))
    lengths = np.einsum("nd,nd->n", vectors, vectors).astype(np.float64)
    # Grid units: integers, so that the running sum is exact, and 0 for copies of a chosen vector only.
    nearest = np.full(len(vectors), 2**40)
    drawn, chosen = np.zeros(1, np.int64), []
    while True:
        squares = lengths + lengths[drawn, None] - 2.0 * (vectors[drawn] @ vectors.T).astype(np.float64)
        closer = np.minimum(nearest, np.rint(squares * GRID**2).astype(np.int64))
        best = int(closer.sum(axis=1).argmin())
        nearest = closer[best]
        chosen.append(int(drawn[best]))
        running = np.cumsum(nearest)
        if len(chosen) == k or running[-1] == 0:
            return vectors[chosen]
        drawn = np.searchsorted(running, random.integers(running[-1], size=draws), side="right")


def _means(vectors: np.ndarray, index: np.ndarray, k: int) -> np.ndarray:
    """Normalised sum of the vectors of each cluster, exact: float32[k, d]; zero for an empty one."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(k))
    sums = np.zeros((k, vectors.shape[1]))
    for cluster, start, stop in zip(range(k), starts, [*starts[1:], len(order)], strict=True):
        sums[cluster] = vectors[order[start:stop]].sum(axis=0, dtype=np.float64)
    return normalise(sums).astype(np.float32)
