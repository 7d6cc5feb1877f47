"""Clusters around survivors: a document goes if and only if it has an edge to a better one that stays.

    stays(v) = no u < v with an edge {u, v} stays        survivor(v) = min { v, u < v : edge {u, v}, stays(u) }

Nodes are numbered best first, so one pass decides them in turn (the greedy, lexicographically first maximal independent
set). Two documents that are linked only through a third, which goes, both stay.
"""

import numpy as np
from numba import njit


def star_clusters_reference(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Survivor of each node."""
    survivor: list[int] = []
    for node in range(count):
        near = {a + b - node for a, b in edges if node in (a, b)}
        survivor.append(min((other for other in near if other < node and survivor[other] == other), default=node))
    return survivor


@njit(cache=True, nogil=True)
def _star_clusters(worse: np.ndarray, better: np.ndarray, by_worse: np.ndarray, survivor: np.ndarray) -> None:
    for i in by_worse:
        node, other = worse[i], better[i]
        if survivor[other] == other and other < survivor[node]:
            survivor[node] = other


def star_clusters(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The node that stays for each node.

    Args:
        count: Number of nodes, 0 ... count - 1, best first.
        a: One end of each edge, int64[edges].
        b: The other end, int64[edges].

    Returns:
        int64[count]; a node that stays has its own number.
    """
    worse, better = np.maximum(a, b), np.minimum(a, b)
    survivor = np.arange(count, dtype=np.int64)
    # All edges of a node come before those where it is the better end, so its own fate is known by then.
    _star_clusters(worse, better, np.argsort(worse, kind="stable"), survivor)
    return survivor
