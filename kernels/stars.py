"""Star edges: every member of a bucket is tied to the bucket's best, never all to all: m members make m - 1 edges."""

from typing import Any

import numpy as np
from numba import njit


def star_edges_reference(keys: np.ndarray, order: np.ndarray, address: np.ndarray) -> list[tuple[int, int]]:
    """Edges (member, best), sorted by best, then member, each once."""
    buckets: dict[int, list[tuple[int, int]]] = {}
    for key, value, place in zip(keys.tolist(), order.tolist(), address.tolist(), strict=True):
        buckets.setdefault(key, []).append((-value, place))
    edges = {(place, min(bucket)[1]) for bucket in buckets.values() for _, place in bucket}
    return sorted(((a, b) for a, b in edges if a != b), key=lambda edge: edge[::-1])


@njit(cache=True, nogil=True)
def _star_edges(
    keys: np.ndarray, order: np.ndarray, address: np.ndarray, by_key: np.ndarray, members: np.ndarray, best: np.ndarray
) -> Any:
    """One pass over the buckets; returns the number of edges, of shared buckets, and the largest bucket's size."""
    edges, shared, largest, first = 0, 0, 0, 0
    count = len(by_key)
    while first < count:
        top = by_key[first]
        last = first + 1
        while last < count and keys[by_key[last]] == keys[top]:
            last += 1
        if last > first + 1:
            for i in by_key[first + 1 : last]:
                if order[i] > order[top] or (order[i] == order[top] and address[i] < address[top]):
                    top = i
            for i in by_key[first:last]:
                if address[i] != address[top]:
                    members[edges], best[edges] = address[i], address[top]
                    edges += 1
            shared += 1
        largest = max(largest, last - first)
        first = last
    return edges, shared, largest


def star_edges(
    keys: np.ndarray, order: np.ndarray, address: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Candidate pairs of the buckets that equal keys make.

    Args:
        keys: Bucket of each entry, uint64[n].
        order: How good the entry is, larger is better, uint64[n].
        address: What it stands for; settles ties of `order`, the smaller is better, uint64[n].

    Returns:
        Members and their bucket's best, uint64[edges] each, every pair once, sorted by best, then member; and the
        number of buckets with more than one entry and the size of the largest bucket.
    """
    members, best = np.empty(len(keys), np.uint64), np.empty(len(keys), np.uint64)
    edges, shared, largest = _star_edges(keys, order, address, np.argsort(keys), members, best)
    return *unique_pairs(members[:edges], best[:edges]), (shared, largest)


def unique_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once, sorted by b, then a: uint64[n] twice -> uint64[m] twice."""
    order = np.lexsort((a, b))
    a, b = a[order], b[order]
    fresh = np.ones(len(a), bool)
    fresh[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return a[fresh], b[fresh]
