"""Connected components by union-find with path halving (Tarjan and van Leeuwen, JACM 1984).

The smaller root wins, so a root is its component's smallest node, and the labels do not depend on the edges' order.
"""

import numpy as np
from numba import njit


def components_reference(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest node of each node's component, by spreading the smallest label until nothing changes: int64[count]."""
    label = np.arange(count, dtype=np.int64)
    while True:
        before = label.copy()
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            label[x] = label[y] = min(label[x], label[y])
        if np.array_equal(before, label):
            return label


@njit(cache=True, nogil=True)
def _find(parent: np.ndarray, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True, nogil=True)
def _components(parent: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    for i in range(len(a)):
        x, y = _find(parent, a[i]), _find(parent, b[i])
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y
    for node in range(len(parent)):
        parent[node] = _find(parent, node)


def components(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest node of each node's component.

    Args:
        count: Number of nodes, 0 … count - 1.
        a: One end of each edge, int64[edges].
        b: The other end, int64[edges].

    Returns:
        int64[count].
    """
    parent = np.arange(count, dtype=np.int64)
    _components(parent, a, b)
    return parent
