"""Large-star and small-star: connected components in rounds that never need the whole graph in one place.

For a node v with neighbours N(v), and m = min of N(v) and v itself (Kiveris et al., Connected Components in MapReduce
and Beyond, SoCC 2014, algorithms 2 and 3),

    large-star    u -> m    for each u in N(v) with u > v
    small-star    u -> m    for each u in N(v) with u < v, and for v itself

replaces all edges at once, keeps what is connected connected, and makes no more edges than there were. Done in turn,
they end in O(log^2 n) rounds with each node tied to the smallest of its component. An edge is (a, b) with a > b.
"""

import numpy as np
from numba import njit


def large_star_reference(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The new edges of a whole graph."""
    near = _neighbours(edges)
    return {(u, min(near[v] | {v})) for v in near for u in near[v] if u > v}


def small_star_reference(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The new edges of a whole graph."""
    near = {v: {u for u in others if u < v} for v, others in _neighbours(edges).items()}
    new = {(u, min(smaller)) for v, smaller in near.items() if smaller for u in smaller | {v}}
    return {(a, b) for a, b in new if a != b}


def _neighbours(edges: set[tuple[int, int]]) -> dict[int, set[int]]:
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    return near


@njit(cache=True, nogil=True)
def _large_star(
    node: np.ndarray, other: np.ndarray, by_node: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[int, int]:
    edges, unsettled, first = 0, 0, 0
    for last in range(1, len(by_node) + 1):
        if last < len(by_node) and node[by_node[last]] == node[by_node[first]]:
            continue
        own = node[by_node[first]]
        least = own
        for i in by_node[first:last]:
            least = min(least, other[i])
        settled = True
        for i in by_node[first:last]:
            if other[i] > own:
                a[edges], b[edges] = other[i], least
                edges += 1
            # A star's leaf knows its centre and nobody else; the centre knows nobody smaller.
            settled = settled and (other[i] == least or least == own)
        unsettled += 0 if settled else 1
        first = last
    return edges, unsettled


def large_star(node: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """New edges around some nodes.

    Args:
        node: A node of each row, uint64[n]; its rows are all here.
        other: One of its neighbours, larger or smaller, uint64[n].

    Returns:
        New edges, uint64[edges] twice; and how many of the nodes are neither the smallest of all their neighbours nor
        tied to a smaller one alone. A graph without such nodes has its components as stars.
    """
    a, b = np.empty(len(node), np.uint64), np.empty(len(node), np.uint64)
    edges, unsettled = _large_star(node, other, np.argsort(node), a, b)
    return a[:edges], b[:edges], unsettled


@njit(cache=True, nogil=True)
def _small_star(node: np.ndarray, other: np.ndarray, by_node: np.ndarray, a: np.ndarray, b: np.ndarray) -> int:
    edges, first = 0, 0
    for last in range(1, len(by_node) + 1):
        if last < len(by_node) and node[by_node[last]] == node[by_node[first]]:
            continue
        least = other[by_node[first]]
        for i in by_node[first:last]:
            least = min(least, other[i])
        a[edges], b[edges] = node[by_node[first]], least
        edges += 1
        for i in by_node[first:last]:
            if other[i] != least:
                a[edges], b[edges] = other[i], least
                edges += 1
        first = last
    return edges


def small_star(node: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """New edges around some nodes.

    Args:
        node: A node of each row, uint64[n]; its rows with smaller neighbours are all here.
        other: One of its smaller neighbours, uint64[n].

    Returns:
        New edges, uint64[edges] twice.
    """
    # The first row of a node makes one edge for the node itself; each row whose neighbour is not the least, one more.
    a, b = np.empty(len(node), np.uint64), np.empty(len(node), np.uint64)
    edges = _small_star(node, other, np.argsort(node), a, b)
    return a[:edges], b[:edges]
