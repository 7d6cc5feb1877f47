"""Greedy edges: the heaviest edges that make paths and nothing else.

    over the edges by falling (weight, then lower rows):
        take an edge if neither end has two already and the ends are in different paths

The greedy matching construction for a long path (Bentley 1992 calls it "greedy" against "nearest neighbour"): where a
path that goes on from its end strands nodes, this one takes every node's best edges while they are free. Union-find
tells whether two nodes are in one path: O(E log E).
"""

import numpy as np
from numba import njit

from ropewalk.kernels.join_paths import link


def greedy_edges_reference(low: np.ndarray, high: np.ndarray, weights: np.ndarray, links: np.ndarray) -> None:
    """The same with sets of nodes."""
    paths = {i: {i} for i in range(len(links))}
    for i, a in enumerate(links.tolist()):
        for b in a:
            if b >= 0 and b not in paths[i]:
                joined = paths[i] | paths[b]
                paths |= {node: joined for node in joined}
    for _, a, b in sorted((-w, a, b) for a, b, w in zip(low.tolist(), high.tolist(), weights.tolist(), strict=True)):
        if -1 in links[a] and -1 in links[b] and b not in paths[a]:
            links[a, links[a].tolist().index(-1)], links[b, links[b].tolist().index(-1)] = b, a
            joined = paths[a] | paths[b]
            paths |= {node: joined for node in joined}


def greedy_edges(
    low: np.ndarray, high: np.ndarray, weights: np.ndarray, links: np.ndarray, parents: np.ndarray
) -> None:
    """Adds edges to paths.

    Args:
        low: The lower node of each edge, int64[e].
        high: The other one, int64[e].
        weights: float[e].
        links: The nodes beside each node, int64[n, 2], -1 for none; overwritten.
        parents: Union-find over the paths, int64[n], each node its own at first; overwritten.
    """
    order = np.lexsort((high, low, -weights))
    _greedy_edges(low[order], high[order], links, parents)


@njit(cache=True, nogil=True)
def root(parents: np.ndarray, node: int) -> int:
    """The path a node is in, by a node of it."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@njit(cache=True, nogil=True)
def roots(parents: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """`root` of many: int64[m]."""
    found = np.empty(len(nodes), np.int64)
    for i in range(len(nodes)):
        found[i] = root(parents, nodes[i])
    return found


@njit(cache=True, nogil=True)
def _greedy_edges(low: np.ndarray, high: np.ndarray, links: np.ndarray, parents: np.ndarray) -> None:
    for e in range(len(low)):
        a, b = low[e], high[e]
        if links[a, 1] >= 0 or links[b, 1] >= 0:
            continue
        one, other = root(parents, a), root(parents, b)
        if one == other:
            continue
        parents[max(one, other)] = min(one, other)
        link(links, a, b)
