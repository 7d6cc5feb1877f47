"""Greedy maximum path through a similarity graph: the order of In-Context Pretraining (arXiv 2310.10638, algorithm 1).

    start at the unvisited node of smallest (degree, node)
    step to the unvisited neighbour of largest (weight, -node); where there is none, start again

The degree is that of the whole graph, not of what is left of it. Every node's edges are looked at once: O(N + E) after
a sort of the nodes. (The paper prints argmin for the step; its text and its results need argmax.)
"""

import numpy as np
from numba import njit


def greedy_path_reference(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same in plain Python."""
    nodes = len(indptr) - 1
    edges = [
        dict(zip(indices[a:b].tolist(), weights[a:b].tolist(), strict=True))
        for a, b in zip(indptr[:-1], indptr[1:], strict=True)
    ]
    unvisited, path, starts = set(range(nodes)), [], []
    here: int | None = None
    while unvisited:
        starts.append(here is None)
        node = min(unvisited, key=lambda u: (len(edges[u]), u)) if here is None else here
        path.append(node)
        unvisited.remove(node)
        here = max((v for v in edges[node] if v in unvisited), key=lambda v: (edges[node][v], -v), default=None)
    return np.array(path, np.int64), np.array(starts, bool)


def greedy_path(indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Visits every node of an undirected graph once.

    Args:
        indptr: Edges of node u are `indptr[u]:indptr[u + 1]`, int64[n + 1].
        indices: The other end of each edge, int32[e]; each edge appears at both its ends.
        weights: Similarity of the two ends, float32[e].

    Returns:
        The nodes in the order of the visit, int64[n], and where a segment of the path starts, bool[n].
    """
    by_degree = np.argsort(np.diff(indptr), kind="stable")
    path = np.empty(len(by_degree), np.int64)
    starts = np.zeros(len(by_degree), np.bool_)
    _greedy_path(indptr, indices, weights, by_degree, path, starts)
    return path, starts


@njit(cache=True, nogil=True)
def _greedy_path(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray, by_degree: np.ndarray,
    path: np.ndarray, starts: np.ndarray,
) -> None:  # fmt: skip
    visited = np.zeros(len(path), np.bool_)
    here = np.int64(-1)
    restart = 0
    for place in range(len(path)):
        if here < 0:
            while visited[by_degree[restart]]:
                restart += 1
            here = by_degree[restart]
            starts[place] = True
        visited[here] = True
        path[place] = here
        step = np.int64(-1)
        largest = np.float32(0)
        for edge in range(indptr[here], indptr[here + 1]):
            node = np.int64(indices[edge])
            if visited[node]:
                continue
            weight = weights[edge]
            if step < 0 or weight > largest or (weight == largest and node < step):
                step = node
                largest = weight
        here = step
