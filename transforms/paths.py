"""Orders of one cluster's documents without a graph that strands them: by a tree, or by the best edges.

Both work on points of the grid (`kernels.grid`), on which every product is exact, and use memory for a block of
similarities, never for all of them.
"""

import numpy as np

from ropewalk.kernels.average_linkage import average_linkage
from ropewalk.kernels.greedy_edges import greedy_edges, roots
from ropewalk.kernels.grid import GRID
from ropewalk.kernels.join_paths import join_paths, walk
from ropewalk.transforms.neighbours import nearest

MATRIX = 2048
"""Up to so many clusters are joined by exact average linkage, over the matrix of their similarities (32 MiB)."""
ENDS_NEIGHBOURS = 8
"""Candidates of each end of a fragment in a round of joining."""
STALL = 64
"""A round of joining that joins fewer than one in so many is a standstill: many have the same few nearest ones."""


def tree_path(vectors: np.ndarray) -> np.ndarray:
    """The leaves of a tree of average linkage, in an order in which every branch lies together.

    Branches are paths, and a merge joins the two ends that are most similar. More than `MATRIX` documents are merged in
    rounds first: all pairs of clusters that are each other's nearest, by the inner product of their mean vectors
    on the grid, which is average linkage but for rounding.

    Args:
        vectors: Unit vectors, float32[n, d].

    Returns:
        Rows in their order, int64[n].
    """
    count = len(vectors)
    if count < 3:
        return np.arange(count)
    points = np.rint(vectors * GRID).astype(np.int16)
    ends = np.repeat(np.arange(count), 2).reshape(count, 2)
    links = np.full((count, 2), -1, np.int64)
    alive, sums, sizes = np.arange(count), points.astype(np.int32), np.ones(count, np.int64)
    while len(alive) > MATRIX:
        means = (np.rint(sums / sizes[:, None]) / GRID).astype(np.float32)
        found, similarity = nearest(means, 1)
        merges = _mutual(found[:, 0].astype(np.int64), similarity[:, 0])
        join_paths(points, ends, links, alive[merges])
        gone = np.zeros(len(alive), bool)
        gone[merges[:, 1]] = True
        for low, high in merges.tolist():  # a cluster may take in several
            sums[low] += sums[high]
            sizes[low] += sizes[high]
        alive, sums, sizes = alive[~gone], sums[~gone], sizes[~gone]
    wide = sums.astype(np.float64)
    join_paths(points, ends, links, alive[average_linkage(wide @ wide.T, sizes)])
    return walk(links, int(np.flatnonzero(links[:, 1] < 0)[0]))


def _mutual(found: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Pairs that are each other's nearest, lower first, int64[k, 2]; at a standstill every cluster joins its nearest.

    Copies are all nearest to the first of them, which is nearest to one only: a pair a round would take a round for
    each copy.
    """
    rows = np.arange(len(found))
    low = rows[(found[found] == rows) & (rows < found)]
    if len(low) * STALL >= len(rows):
        return np.stack([low, found[low]], axis=1)
    merges, into = [], rows.tolist()
    for row in np.argsort(-similarity, kind="stable").tolist():
        pair = []
        for node in (row, int(found[row])):
            while into[node] != node:
                into[node] = node = into[into[node]]
            pair.append(node)
        if pair[0] != pair[1]:
            merges.append((min(pair), max(pair)))
            into[max(pair)] = min(pair)
    return np.array(merges, np.int64).reshape(-1, 2)


def edges_path(vectors: np.ndarray, *, neighbours: int, below: float = np.inf) -> np.ndarray:
    """Fragments of greedy edges between nearest neighbours, then joined by the nearest of their ends in the same way.

    What no positive similarity joins follows by its lowest row.

    Args:
        vectors: Unit vectors, float32[n, d].
        neighbours: Nearest neighbours of a row whose edges are candidates.
        below: Rows as similar as this, or more, are not joined.

    Returns:
        Rows in their order, int64[n].
    """
    count = len(vectors)
    links, parents = np.full((count, 2), -1, np.int64), np.arange(count)
    ends, candidates = np.arange(count), neighbours
    while len(ends) > 1:
        own = roots(parents, ends)
        found, similarity = nearest(vectors[ends], min(candidates, len(ends) - 1), below=below)
        here, there, weights = np.repeat(np.arange(len(ends)), found.shape[1]), found.ravel(), similarity.ravel()
        edge = (there >= 0) & (weights > 0)
        edge[edge] = own[here[edge]] != own[there[edge]]
        low, high = ends[np.minimum(here[edge], there[edge])], ends[np.maximum(here[edge], there[edge])]
        greedy_edges(low, high, weights[edge], links, parents)
        before, ends, candidates = len(ends), np.flatnonzero(links[:, 1] < 0), ENDS_NEIGHBOURS
        if (before - len(ends)) * STALL < before:
            break
    fragments, seen = [], np.zeros(count, bool)
    for end in ends.tolist():
        if not seen[end]:
            fragments.append(walk(links, end))
            seen[fragments[-1]] = True
    return np.concatenate(fragments) if fragments else np.arange(count)
