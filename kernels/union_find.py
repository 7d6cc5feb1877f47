"""Connected components by union-find with path halving (Tarjan and van Leeuwen, JACM 1984), over any 64-bit numbers.

A node's place is found by open addressing, so edges can come a few at a time and only the nodes stay: 16 bytes a slot
in a table that is three eighths to three quarters full. The smaller root wins, so a root is its component's smallest
node, and the labels do not depend on the edges' order.
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.mix64 import GOLDEN

_EMPTY = -1
_CHUNK = 1 << 16
_SMALLEST = 1 << 10


def components_reference(edges: list[tuple[int, int]]) -> dict[int, int]:
    """Smallest node of each node's component, by spreading the smallest label until nothing changes."""
    label = {node: node for edge in edges if edge[0] != edge[1] for node in edge}
    while True:
        before = label.copy()
        for a, b in edges:
            if a != b:
                label[a] = label[b] = min(label[a], label[b])
        if before == label:
            return label


@njit(cache=True, nogil=True)
def _slot(nodes: np.ndarray, parent: np.ndarray, node: np.uint64) -> np.int64:
    """Where `node` is, or the empty slot where it belongs."""
    mask = len(nodes) - 1
    mixed = node * np.uint64(GOLDEN)
    slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(mask))
    while parent[slot] != _EMPTY and nodes[slot] != node:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _find(parent: np.ndarray, slot: int) -> int:
    while parent[slot] != slot:
        parent[slot] = parent[parent[slot]]
        slot = parent[slot]
    return slot


@njit(cache=True, nogil=True)
def _reach(nodes: np.ndarray, parent: np.ndarray, node: np.uint64) -> Any:
    """Root of a node, which is put into the table if it is not there; and how many nodes are new: 0 or 1."""
    slot = _slot(nodes, parent, node)
    if parent[slot] != _EMPTY:
        return _find(parent, slot), 0
    nodes[slot], parent[slot] = node, slot
    return slot, 1


@njit(cache=True, nogil=True)
def _join(nodes: np.ndarray, parent: np.ndarray, a: np.ndarray, b: np.ndarray) -> int:
    """Joins the ends of each edge; returns how many nodes are new. There must be room for 2 * len(a) of them."""
    added = 0
    for i in range(len(a)):
        if a[i] == b[i]:
            continue
        x, new = _reach(nodes, parent, a[i])
        added += new
        y, new = _reach(nodes, parent, b[i])
        added += new
        if nodes[x] < nodes[y]:
            parent[y] = x
        else:
            parent[x] = y  # changes nothing where both are one root
    return added


@njit(cache=True, nogil=True)
def _move(nodes: np.ndarray, parent: np.ndarray, to_nodes: np.ndarray, to_parent: np.ndarray) -> None:
    """Fills a larger table."""
    for slot in range(len(nodes)):
        if parent[slot] != _EMPTY:
            root, _ = _reach(to_nodes, to_parent, nodes[_find(parent, slot)])
            to_parent[_reach(to_nodes, to_parent, nodes[slot])[0]] = root


@njit(cache=True, nogil=True)
def _stars(nodes: np.ndarray, parent: np.ndarray, a: np.ndarray, b: np.ndarray) -> int:
    """Each node that is no root, and its root, in the order of the slots; returns how many there are."""
    found = 0
    for slot in range(len(parent)):
        if parent[slot] != _EMPTY and parent[slot] != slot:
            a[found], b[found] = nodes[slot], nodes[_find(parent, slot)]
            found += 1
    return found


class UnionFind:
    """Components of a graph whose edges come in pieces.

    Args:
        expected: Nodes to have room for at once; more may come.
    """

    def __init__(self, expected: int = 0) -> None:
        self.num_nodes = 0
        self._nodes, self._parent = _table(_SMALLEST)
        self._reserve(expected)

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Adds edges, uint64[n] twice; loops from a node to itself are nothing."""
        for start in range(0, len(a), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._reserve(self.num_nodes + 2 * len(a[part]))
            self.num_nodes += _join(self._nodes, self._parent, a[part], b[part])

    def stars(self) -> tuple[np.ndarray, np.ndarray]:
        """Every node but the smallest of each component, and that smallest one: uint64[n] twice, sorted by node."""
        a, b = np.empty(self.num_nodes, np.uint64), np.empty(self.num_nodes, np.uint64)
        count = _stars(self._nodes, self._parent, a, b)
        order = np.argsort(a[:count])
        return a[order], b[order]

    def _reserve(self, num_nodes: int) -> None:
        size = len(self._nodes)
        while 4 * num_nodes > 3 * size:
            size *= 2
        if size > len(self._nodes):
            nodes, parent = _table(size)
            _move(self._nodes, self._parent, nodes, parent)
            self._nodes, self._parent = nodes, parent


def _table(slots: int) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(slots, np.uint64), np.full(slots, _EMPTY, np.int64)


def contract(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same components with as few edges as can be, see `UnionFind.stars`: uint64[n] twice -> uint64[m] twice."""
    graph = UnionFind(expected=len(a))
    graph.join(a, b)
    return graph.stars()
