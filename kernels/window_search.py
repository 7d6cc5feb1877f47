"""Local search for the order whose windows are alike: documents move to where they are more like all those around.

    value = sum over d = 1..D of pull[d] * sum over i of weights[x[i], x[i + d]]
    move: a stretch of 1, 2 or 3 nodes goes beside one of the nodes near its end, either way around, if the value rises

Two documents d places apart share a window of W documents, wherever it begins, with probability 1 - d / W (0 from W
on), so what a training window holds on average is such a sum over all pairs. W is not known here (windows are cut by
tokens); for a W that is as likely in each octave the pull falls about as 1 / d: `harmonic`. With D = 1 the value is
that of a path (`path_search`).

The gain of a move is exact. Far from where a stretch was it has three parts: what the stretch leaves and finds, how the
gap closes behind it, and how the pairs on the two sides of its new place are pushed apart. The last does not depend on
the stretch but for its length, and is kept for every place. Nearer than D, the places between are added up before and
after. A node is looked at again only after something within its
reach changed. Everything is an integer.
"""

from typing import Any

import numpy as np
from numba import njit

LONGEST = 3
"""Nodes in a stretch that moves."""
UNIT = 5040
"""Pull of neighbours; a multiple of 1 to 10."""


def harmonic(reach: int) -> np.ndarray:
    """Pull of two nodes by their distance, UNIT / d up to `reach`, 0 beyond: int64[reach + LONGEST + 2]; [0] is 0."""
    pull = np.zeros(reach + LONGEST + 2, np.int64)
    pull[1 : reach + 1] = np.rint(UNIT / np.arange(1, reach + 1))
    return pull


def window_value(order: np.ndarray, weights: np.ndarray, pull: np.ndarray) -> int:
    """The value of an order: int64[n], int32[n, n], int64[...] -> int."""
    return sum(
        int(pull[d]) * int(weights[order[d:], order[:-d]].sum(dtype=np.int64))
        for d in range(1, min(len(pull), len(order)))
    )


def move_reference(order: np.ndarray, low: int, high: int, gap: int, turned: bool) -> np.ndarray:
    """The order after the stretch low..high went before what was at place `gap` (outside it)."""
    stretch: np.ndarray = order[low : high + 1]
    rest = np.r_[order[:low], order[high + 1 :]]
    at = gap if gap <= low else gap - len(stretch)
    moved: np.ndarray = np.r_[rest[:at], stretch[::-1] if turned else stretch, rest[at:]]
    return moved


def window_search(
    order: np.ndarray, weights: np.ndarray, near: np.ndarray, pull: np.ndarray, passes: int
) -> np.ndarray:
    """Makes an order's windows more alike.

    Args:
        order: The nodes in their order, int64[n].
        weights: Symmetric, int32[n, n].
        near: Nodes that are worth having beside each node, best first, int32[n, k], -1 for none.
        pull: See `harmonic`.
        passes: Times the nodes are looked at, at most; a pass over all of them without a move is the last.

    Returns:
        The nodes in their new order, int64[n]; its value is not lower.
    """
    found = order.astype(np.int64)
    if len(found) > 2:
        _window_search(found, weights, near, pull, len(pull) - LONGEST - 2, passes)
    return found


@njit(cache=True, nogil=True)
def _open(
    order: np.ndarray, weights: np.ndarray, pull: np.ndarray, reach: int, first: int, last: int, opening: np.ndarray
) -> None:
    """What a stretch of 1, 2, .. nodes costs the others at the places first..last - 1: opening[length - 1, place]."""
    nodes = len(order)
    for gap in range(max(first, 0), min(last, nodes + 1)):
        opening[:, gap] = 0
    for a in range(max(first - reach, 0), min(last, nodes)):
        row = weights[order[a]]
        for b in range(max(a + 1, first), min(a + reach + 1, nodes)):
            weight = np.int64(row[order[b]])
            for length in range(LONGEST):
                cost = (pull[b - a] - pull[b - a + length + 1]) * weight
                for gap in range(max(a + 1, first), min(b + 1, last)):
                    opening[length, gap] += cost


@njit(cache=True, nogil=True)
def _leave(order: np.ndarray, weights: np.ndarray, pull: np.ndarray, reach: int, low: int, high: int) -> Any:
    """Gain of taking a stretch out: what it was worth beside the others, and their closing up."""
    nodes = len(order)
    gain = np.int64(0)
    for at in range(low, high + 1):
        row = weights[order[at]]
        for other in range(max(at - reach, 0), low):
            gain -= pull[at - other] * row[order[other]]
        for other in range(high + 1, min(at + reach + 1, nodes)):
            gain -= pull[other - at] * row[order[other]]
    length = high - low + 1
    for a in range(max(low - reach, 0), low):
        row = weights[order[a]]
        for b in range(high + 1, min(a + reach + length + 1, nodes)):
            gain += (pull[b - a - length] - (pull[b - a] if b - a <= reach else 0)) * row[order[b]]
    return gain


@njit(cache=True, nogil=True)
def _enter(
    order: np.ndarray, weights: np.ndarray, pull: np.ndarray, reach: int, low: int, high: int, gap: int, turned: bool
) -> Any:
    """What a stretch finds at a place farther than `reach` from where it is."""
    nodes = len(order)
    length = high - low + 1
    gain = np.int64(0)
    for i in range(length):
        row = weights[order[high - i if turned else low + i]]
        for other in range(max(gap - reach + i, 0), gap):
            gain += pull[gap - other + i] * row[order[other]]
        after = length - i
        for other in range(gap, min(gap + reach + 1 - after, nodes)):
            gain += pull[other - gap + after] * row[order[other]]
    return gain


@njit(cache=True, nogil=True)
def _moved(order: np.ndarray, low: int, high: int, gap: int, turned: bool, found: np.ndarray) -> Any:
    """Writes what lies at the changed places after a move into `found`; returns the first of them and their end."""
    length = high - low + 1
    first, last = min(low, gap), max(high + 1, gap)
    shift = length if gap <= low else 0  # places of the others within the changed ones
    at = 0 if gap <= low else last - first - length
    for i in range(length):
        found[at + i] = order[high - i if turned else low + i]
    rest_first, rest_last = (first, low) if gap <= low else (high + 1, last)
    for i in range(rest_last - rest_first):
        found[shift + i] = order[rest_first + i]
    return first, last


@njit(cache=True, nogil=True)
def _near_gain(
    order: np.ndarray, weights: np.ndarray, pull: np.ndarray, reach: int,
    low: int, high: int, gap: int, turned: bool, found: np.ndarray,
) -> Any:  # fmt: skip
    """Gain of a move whose places overlap: the pairs with one of them, before and after."""
    nodes = len(order)
    first, last = _moved(order, low, high, gap, turned, found)
    gain = np.int64(0)
    for at in range(first, last):
        before, after = weights[order[at]], weights[found[at - first]]
        for other in range(max(at - reach, 0), first):
            node = order[other]
            gain += pull[at - other] * (np.int64(after[node]) - before[node])
        for other in range(at + 1, min(at + reach + 1, nodes)):
            node = order[other]
            moved = found[other - first] if other < last else node
            gain += pull[other - at] * (np.int64(after[moved]) - before[node])
    return gain


@njit(cache=True, nogil=True)
def _window_search(
    order: np.ndarray, weights: np.ndarray, near: np.ndarray, pull: np.ndarray, reach: int, passes: int
) -> None:
    nodes = len(order)
    place = np.empty(nodes, np.int64)
    place[order] = np.arange(nodes)
    opening = np.zeros((LONGEST, nodes + 1), np.int64)
    _open(order, weights, pull, reach, 0, nodes + 1, opening)
    found = np.empty(nodes, np.int64)
    waits = np.ones(nodes, np.bool_)
    for _ in range(passes):
        moves, whole = 0, waits.all()
        for u in range(nodes):
            if not waits[u]:
                continue
            waits[u] = False
            best = np.int64(0)
            best_low, best_high, best_gap, best_turned = np.int64(0), np.int64(0), np.int64(0), False
            for length in range(1, min(LONGEST, nodes - 1) + 1):
                for step in (1, -1):
                    p = place[u]
                    t = p + step * (length - 1)
                    if t < 0 or t >= nodes or (length == 1 and step < 0):
                        continue
                    low, high = min(p, t), max(p, t)
                    leave = _leave(order, weights, pull, reach, low, high)
                    for v in near[u]:
                        if v < 0:
                            break
                        at = place[v]
                        if low <= at <= high:
                            continue
                        for side in (0, 1):
                            gap = at + side
                            turned = length > 1 and (p == low) != (side == 1)
                            if (gap == low or gap == high + 1) and not turned:
                                continue
                            if gap - high - 1 >= reach or low - gap >= reach:
                                gain = leave - opening[length - 1, gap]
                                gain += _enter(order, weights, pull, reach, low, high, gap, turned)
                            else:
                                gain = _near_gain(order, weights, pull, reach, low, high, gap, turned, found)
                            if gain > best:
                                best = gain
                                best_low, best_high, best_gap, best_turned = low, high, gap, turned
            if best == 0:
                continue
            moves += 1
            low, high, gap = best_low, best_high, best_gap
            size = high - low + 1
            first, last = _moved(order, low, high, gap, best_turned, found)
            for spot in range(first, last):
                order[spot] = found[spot - first]
                place[order[spot]] = spot
            # The openings between the two places move along; those within reach of either are added up anew.
            if gap <= low:
                for spot in range(last, first + size - 1, -1):
                    opening[:, spot] = opening[:, spot - size]
                ends = (gap, gap + size, high + 1, high + 1)
            else:
                for spot in range(first, last - size + 1):
                    opening[:, spot] = opening[:, spot + size]
                ends = (low, low, gap - size, gap)
            if ends[2] - ends[1] <= 2 * reach:
                _open(order, weights, pull, reach, ends[0] - reach, ends[3] + reach + 1, opening)
            else:
                _open(order, weights, pull, reach, ends[0] - reach, ends[1] + reach + 1, opening)
                _open(order, weights, pull, reach, ends[2] - reach, ends[3] + reach + 1, opening)
            for spot in range(max(first - reach, 0), min(last + reach, nodes)):
                if spot < ends[1] + reach or spot >= ends[2] - reach:
                    waits[order[spot]] = True
        if moves == 0 and whole:
            break
        if moves == 0:
            waits[:] = True  # a node may want to move beside one whose surroundings changed
