"""Local search for the heaviest Hamiltonian path: 2-opt and Or-opt over neighbour lists, then kicks.

    value = sum over neighbours a, b on the path of weights[a, b]
    2-opt:  turn a stretch of the path around
    Or-opt: move a stretch of 1, 2 or 3 nodes elsewhere, either way around (Or 1976)
    kick:   swap two short stretches that follow one another (a double bridge, kept local), search on from their ends,
            take it all back if the path is lighter than before

A node is looked at again only after something near it changed (Bentley 1992). Every move is up to three reversals of
stretches of one array, so a kick is taken back by reversing them again. Weights are integers: a gain is exactly what it
says, and the same on every machine. A reversal costs what it turns: for paths of some thousand nodes, not of millions.
"""

from typing import Any

import numpy as np
from numba import njit

LONGEST = 3
"""Nodes in a stretch that Or-opt moves."""
KICK = 24
"""Nodes in a stretch that a kick swaps, at most."""


def path_value(order: np.ndarray, weights: np.ndarray) -> int:
    """Sum of the weights along a path: int64[n], int32[n, n] -> int."""
    return int(weights[order[1:], order[:-1]].sum(dtype=np.int64))


def improving_moves(order: np.ndarray, weights: np.ndarray, near: np.ndarray) -> list[tuple[str, int, int, int]]:
    """All 2-opt and Or-opt moves that would gain, found by making them: what a local optimum has none of.

    Only moves count that put an end of the stretch (2-opt: any node) beside one of its `near`; in 2-opt this must weigh
    more than what the node loses. Returns the kind, first and last place, and place after.
    """
    found, count, value = [], len(order), path_value(order, weights)
    wanted = [set(row) for row in near.tolist()]
    pairs = set(zip(order[1:].tolist(), order[:-1].tolist(), strict=True))
    pairs |= {(b, a) for a, b in pairs}

    def look(kind: str, other: np.ndarray, first: int, last: int, at: int) -> None:
        now = set(zip(other[1:].tolist(), other[:-1].tolist(), strict=True))
        now |= {(b, a) for a, b in now}
        lost = {a: int(weights[a, b]) for a, b in pairs - now}
        ends = {int(order[first]), int(order[last])}
        reached = any(
            b in wanted[a] and (weights[a, b] > lost.get(a, 0) if kind == "2-opt" else a in ends and b not in ends)
            for a, b in now - pairs
        )
        if reached and path_value(other, weights) > value:
            found.append((kind, first, last, at))

    for first in range(count):
        for last in range(first, count):
            stretch = order[first : last + 1]
            look("2-opt", np.r_[order[:first], stretch[::-1], order[last + 1 :]], first, last, first)
            if last - first < LONGEST:
                rest = np.r_[order[:first], order[last + 1 :]]
                for at in range(len(rest) + 1):
                    look("Or-opt", np.r_[rest[:at], stretch, rest[at:]], first, last, at)
                    look("Or-opt", np.r_[rest[:at], stretch[::-1], rest[at:]], first, last, at)
    return found


def path_search(order: np.ndarray, weights: np.ndarray, near: np.ndarray, kicks: int, seed: int = 0) -> np.ndarray:
    """Makes a path heavier.

    Args:
        order: The nodes in their order, int64[n].
        weights: Symmetric, int32[n, n].
        near: Nodes that are worth having beside each node, best first, int32[n, k], -1 for none.
        kicks: How many kicks; 0: only to the first local optimum.
        seed: Where the kicks are.

    Returns:
        The nodes in their new order, int64[n]; the path is not lighter.
    """
    count = len(order)
    if count < 3:
        return order
    found = order.astype(np.int64)
    _path_search(found, weights, near, kicks, np.uint64(seed))
    return found


@njit(cache=True, nogil=True)
def _turn(order: np.ndarray, place: np.ndarray, journal: np.ndarray, used: int, first: int, last: int) -> Any:
    """Turns the stretch from place `first` to place `last` around and notes it."""
    journal[used, 0] = first
    journal[used, 1] = last
    while first < last:
        a, b = order[first], order[last]
        order[first], order[last] = b, a
        place[b], place[a] = first, last
        first += 1
        last -= 1
    return used + 1


@njit(cache=True, nogil=True)
def _swap(
    order: np.ndarray, place: np.ndarray, journal: np.ndarray, used: int, first: int, middle: int, last: int
) -> Any:
    """Swaps the stretches first..middle - 1 and middle..last, each the way around it was."""
    used = _turn(order, place, journal, used, first, last)
    used = _turn(order, place, journal, used, first, first + last - middle)
    return _turn(order, place, journal, used, first + last - middle + 1, last)


@njit(cache=True, nogil=True)
def _wake(order: np.ndarray, waits: np.ndarray, queue: np.ndarray, tail: int, at: int) -> Any:
    """Puts the node at a place, if there is one, at the end of the queue, if it is not in it."""
    if at < 0 or at >= len(order) or waits[order[at]]:
        return tail
    waits[order[at]] = True
    queue[tail % len(queue)] = order[at]
    return tail + 1


@njit(cache=True, nogil=True)
def _two_opt(order: np.ndarray, place: np.ndarray, weights: np.ndarray, near: np.ndarray, u: int) -> Any:
    """The first move found that turns a stretch around and puts u beside one of `near`: its places and the gain."""
    nodes = len(order)
    row = weights[u]
    p = place[u]
    for step in (1, -1):
        q = p + step
        inside = 0 <= q < nodes
        old = np.int64(row[order[q]]) if inside else np.int64(0)
        for v in near[u]:
            if v < 0 or row[v] <= old:
                break
            at = place[v]
            beyond = at + step
            gain = np.int64(row[v]) - old
            if 0 <= beyond < nodes:
                gain -= weights[v, order[beyond]]
                if inside:
                    gain += weights[order[q], order[beyond]]
            if gain > 0:
                low, high = min(p, at), max(p, at)
                return (low + 1, high, gain) if step == 1 else (low, high - 1, gain)
    return np.int64(0), np.int64(0), np.int64(0)


@njit(cache=True, nogil=True)
def _or_opt(order: np.ndarray, place: np.ndarray, weights: np.ndarray, near: np.ndarray, u: int) -> Any:
    """The first move found of a stretch that begins or ends with u, to put u beside one of `near`.

    Returns its places, the place before which it goes, whether it is turned around, and the gain.
    """
    nodes = len(order)
    row = weights[u]
    p = place[u]
    for length in range(1, min(LONGEST, nodes - 1) + 1):
        for step in (1, -1):
            t = p + step * (length - 1)
            if t < 0 or t >= nodes or (length == 1 and step < 0):
                continue
            low, high = min(p, t), max(p, t)
            base = np.int64(0)
            if low > 0:
                base -= weights[order[low - 1], order[low]]
            if high < nodes - 1:
                base -= weights[order[high], order[high + 1]]
            if low > 0 and high < nodes - 1:
                base += weights[order[low - 1], order[high + 1]]
            tail = order[t]
            for v in near[u]:
                if v < 0:
                    break
                at = place[v]
                if low <= at <= high:
                    continue
                for side in (0, 1):  # the stretch goes right before v, or right after it
                    gap = at + side
                    other = at - 1 if side == 0 else at + 1
                    if gap == low or gap == high + 1:
                        # It stays where it is, v on the same side; turned around if that puts u beside v.
                        if length == 1 or (gap == low) == (p == low):
                            continue
                        gain = np.int64(row[v]) - weights[v, tail]
                        far = high + 1 if gap == low else low - 1
                        if 0 <= far < nodes:
                            gain += np.int64(weights[tail, order[far]]) - row[order[far]]
                    else:
                        gain = base + row[v]
                        if 0 <= other < nodes:
                            gain += np.int64(weights[tail, order[other]]) - weights[v, order[other]]
                    if gain > 0:
                        # u comes first right after v, and last right before it.
                        return low, high, gap, np.int64((p == low) != (side == 1) and length > 1), gain
    return np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)


@njit(cache=True, nogil=True)
def _settle(
    order: np.ndarray, place: np.ndarray, weights: np.ndarray, near: np.ndarray, waits: np.ndarray, queue: np.ndarray,
    head: int, tail: int, journal: np.ndarray, used: int,
) -> Any:  # fmt: skip
    """Makes moves until no node in the queue has one: the queue's end, the gain, and the journal."""
    total = np.int64(0)
    while head < tail:
        u = queue[head % len(queue)]
        head += 1
        waits[u] = False
        if used + 8 > len(journal):
            longer = np.empty((2 * len(journal), 2), np.int64)
            longer[:used] = journal[:used]
            journal = longer
        first, last, gain = _two_opt(order, place, weights, near, u)
        if gain > 0:
            used = _turn(order, place, journal, used, first, last)
        else:
            low, high, gap, turned, gain = _or_opt(order, place, weights, near, u)
            if gain == 0:
                continue
            length = high - low + 1
            for at in (low - 1, high + 1):
                tail = _wake(order, waits, queue, tail, at)
            if gap > high + 1:
                used = _swap(order, place, journal, used, low, high + 1, gap - 1)
                first, last = gap - length, gap - 1
            elif gap < low:
                used = _swap(order, place, journal, used, gap, low, high)
                first, last = gap, gap + length - 1
            else:
                first, last = low, high
            if turned:
                used = _turn(order, place, journal, used, first, last)
        total += gain
        for at in (first - 1, first, last, last + 1, place[u]):
            tail = _wake(order, waits, queue, tail, at)
    return tail, total, used, journal


@njit(cache=True, nogil=True)
def _settle_all(
    order: np.ndarray, place: np.ndarray, weights: np.ndarray, near: np.ndarray, waits: np.ndarray, queue: np.ndarray,
    tail: int, journal: np.ndarray,
) -> Any:  # fmt: skip
    """Makes moves until no node has one: the queue's end, and the journal."""
    gain = np.int64(1)
    while gain > 0:
        head = tail
        for at in range(len(order)):
            tail = _wake(order, waits, queue, tail, at)
        tail, gain, _, journal = _settle(order, place, weights, near, waits, queue, head, tail, journal, 0)
    return tail, journal


@njit(cache=True, nogil=True)
def _path_search(order: np.ndarray, weights: np.ndarray, near: np.ndarray, kicks: int, seed: np.uint64) -> None:
    nodes = len(order)
    place = np.empty(nodes, np.int64)
    place[order] = np.arange(nodes)
    waits = np.zeros(nodes, np.bool_)
    queue = np.empty(nodes, np.int64)
    journal = np.empty((1024, 2), np.int64)
    tail, journal = _settle_all(order, place, weights, near, waits, queue, 0, journal)
    if nodes < 5 or kicks == 0:
        return
    head = tail
    state = seed
    for _ in range(kicks):
        # A step of the 64-bit generator of Knuth's MMIX; its upper bits are good.
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        mixed = state >> np.uint64(20)
        one = 1 + np.int64(mixed % np.uint64(min(KICK, nodes // 2)))
        other = 1 + np.int64((mixed >> np.uint64(5)) % np.uint64(min(KICK, nodes // 2)))
        first = np.int64((mixed >> np.uint64(12)) % np.uint64(nodes - one - other + 1))
        middle, last = first + one, first + one + other - 1
        change = np.int64(0)
        if first > 0:
            change += np.int64(weights[order[first - 1], order[middle]]) - weights[order[first - 1], order[first]]
        if last < nodes - 1:
            change += np.int64(weights[order[middle - 1], order[last + 1]]) - weights[order[last], order[last + 1]]
        change += np.int64(weights[order[last], order[first]]) - weights[order[middle - 1], order[middle]]
        tail = head
        used = _swap(order, place, journal, 0, first, middle, last)
        for end in (first - 1, first, first + other - 1, first + other, last, last + 1):
            tail = _wake(order, waits, queue, tail, end)
        head, gain, used, journal = _settle(order, place, weights, near, waits, queue, head, tail, journal, used)
        if change + gain < 0:
            for back in range(used - 1, -1, -1):
                _turn(order, place, journal, back, journal[back, 0], journal[back, 1])
    _settle_all(order, place, weights, near, waits, queue, head, journal)
