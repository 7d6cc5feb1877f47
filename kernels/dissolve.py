"""Dissolves the short segments of a greedy path: their nodes move next to their nearest kin.

    a segment with fewer than m nodes is taken apart; over its nodes, in path order and again until none is left:
        insert the node right before its placed neighbour of largest (weight, -node)

A greedy path strands nodes: it passes by, and they are left as segments of one or two (recipes in the design notes §1:
on a clustered sample 225 segments, median 2). Where no node has a placed neighbour any more, the longest short segment
is kept whole (ties: first on the path), appended, and the rest goes on. Nothing is ever placed twice or left out.
"""

import numpy as np
from numba import njit


def dissolve_reference(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray,
    path: np.ndarray, starts: np.ndarray, min_segment: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The same with Python lists."""
    segments = [s.tolist() for s in np.split(path, np.flatnonzero(starts)[1:])] if len(path) else []
    kept = [s for s in segments if len(s) >= min_segment]
    short = [s for s in segments if len(s) < min_segment]
    home = {node: segment for segment in kept for node in segment}
    left = [node for segment in short for node in segment]
    while left:
        rest = []
        for node in left:
            edges = range(indptr[node], indptr[node + 1])
            placed = [(weights[e], -int(indices[e])) for e in edges if int(indices[e]) in home]
            if placed:
                before = -max(placed)[1]
                home[before].insert(home[before].index(before), node)
                home[node] = home[before]
            else:
                rest.append(node)
        if len(rest) == len(left):
            seed = max((s for s in short if s[0] in rest), key=len)
            kept.append(list(seed))
            home |= {node: kept[-1] for node in seed}
            rest = [node for node in rest if node not in home]
        left = rest
    new_starts = [i == 0 for segment in kept for i in range(len(segment))]
    return np.array([n for segment in kept for n in segment], np.int64), np.array(new_starts, bool)


def dissolve(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray,
    path: np.ndarray, starts: np.ndarray, min_segment: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Takes the short segments of a path apart.

    Args:
        indptr: The graph of the path, see `greedy_path`, int64[n + 1].
        indices: int32[e].
        weights: float32[e].
        path: All nodes in the order of the visit, int64[n].
        starts: Where a segment starts, bool[n].
        min_segment: Segments with fewer nodes are dissolved; 0 or 1: none.

    Returns:
        The nodes in their new order, int64[n], and where a segment starts, bool[n].
    """
    first = np.flatnonzero(starts)
    sizes = np.diff(np.r_[first, len(path)])
    if not np.any(sizes < min_segment):
        return path, starts
    short = np.flatnonzero(sizes < min_segment)
    seeds = short[np.argsort(-sizes[short], kind="stable")]
    order = np.empty(len(path), np.int64)
    new_starts = np.zeros(len(path), np.bool_)
    long = np.flatnonzero(sizes >= min_segment)
    left = np.concatenate([path[first[s] : first[s] + sizes[s]] for s in short])
    _dissolve(indptr, indices, weights, path, first, sizes, long, seeds, left, order, new_starts)
    return order, new_starts


@njit(cache=True, nogil=True)
def _dissolve(
    indptr: np.ndarray, indices: np.ndarray, weights: np.ndarray, path: np.ndarray, first: np.ndarray,
    sizes: np.ndarray, long: np.ndarray, seeds: np.ndarray, left: np.ndarray,
    order: np.ndarray, new_starts: np.ndarray,
) -> None:  # fmt: skip
    nodes = len(path)
    placed = np.zeros(nodes, np.bool_)
    before = np.full(nodes, -1, np.int64)  # a list linked backwards: nodes are only ever inserted before others
    lasts = np.empty(len(sizes), np.int64)
    kept = 0
    for segment in long:
        lasts[kept] = _place(path, first[segment], sizes[segment], placed, before)
        kept += 1
    seed = 0
    count = len(left)
    while count:
        rest = 0
        for i in range(count):
            node = left[i]
            target = np.int64(-1)
            largest = np.float32(0)
            for edge in range(indptr[node], indptr[node + 1]):
                other = np.int64(indices[edge])
                if not placed[other]:
                    continue
                weight = weights[edge]
                if target < 0 or weight > largest or (weight == largest and other < target):
                    target = other
                    largest = weight
            if target < 0:
                left[rest] = node
                rest += 1
                continue
            before[node] = before[target]
            before[target] = node
            placed[node] = True
        if rest == count:
            # No segment is half placed here: the nodes of one are neighbours along the path.
            while placed[path[first[seeds[seed]]]]:
                seed += 1
            segment = seeds[seed]
            lasts[kept] = _place(path, first[segment], sizes[segment], placed, before)
            kept += 1
            rest = 0
            for i in range(count):
                if not placed[left[i]]:
                    left[rest] = left[i]
                    rest += 1
        count = rest
    at = nodes
    for segment in range(kept - 1, -1, -1):
        node = lasts[segment]
        while node >= 0:
            at -= 1
            order[at] = node
            node = before[node]
        new_starts[at] = True


@njit(cache=True, nogil=True)
def _place(path: np.ndarray, start: int, size: int, placed: np.ndarray, before: np.ndarray) -> np.int64:
    previous = np.int64(-1)
    for i in range(start, start + size):
        before[path[i]] = previous
        placed[path[i]] = True
        previous = path[i]
    return previous
