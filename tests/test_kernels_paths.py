"""Kernels that make and improve paths: linkage, joins, greedy edges, local search."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from ropewalk.kernels.average_linkage import average_linkage, average_linkage_reference
from ropewalk.kernels.greedy_edges import greedy_edges, greedy_edges_reference, roots
from ropewalk.kernels.join_paths import join_paths, walk
from ropewalk.kernels.path_search import improving_moves, path_search, path_value
from ropewalk.kernels.window_search import LONGEST, harmonic, move_reference, window_search, window_value

RANDOM = np.random.default_rng


def symmetric(count, seed, *, values=100):
    """Random integer weights: few values, so that there are ties."""
    random = RANDOM(seed).integers(-values // 4, values, (count, count))
    return np.triu(random, 1).astype(np.int32) + np.triu(random, 1).T.astype(np.int32)


def all_near(weights):
    """Every other node, heaviest first."""
    count = len(weights)
    return np.array(
        [[j for j in np.argsort(-weights[i], kind="stable") if j != i] for i in range(count)], np.int32
    ).reshape(count, max(count - 1, 0))


def members_of(merges, count):
    """The sets of leaves that merges make."""
    found, groups = set(), {i: frozenset([i]) for i in range(count)}
    for a, b in merges:
        groups[a] = groups[a] | groups.pop(b)
        found.add(groups[a])
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(0, 10**6))
def test_average_linkage_is_that_of_the_reference_and_of_scipy(count, seed):
    vectors = RANDOM(seed).standard_normal((count, 5))
    sums = vectors @ vectors.T
    counts = np.ones(count, np.int64)
    mine = average_linkage(sums.copy(), counts)
    assert members_of(mine.tolist(), count) == members_of(average_linkage_reference(sums, counts), count)
    if count > 1:
        apart = 100 - sums
        np.fill_diagonal(apart, 0)
        theirs, groups = set(), [frozenset([i]) for i in range(count)]
        for a, b, _, _ in linkage(squareform(apart, checks=False), "average"):
            groups.append(groups[int(a)] | groups[int(b)])
            theirs.add(groups[-1])
        assert members_of(mine.tolist(), count) == theirs


def test_average_linkage_counts_members():
    # Clusters of 3, 1 and 1: the sum of the first pair is larger, its mean is not.
    sums = np.array([[0, 30, 0], [30, 0, 11], [0, 11, 0]], float)
    assert average_linkage(sums, np.array([3, 1, 1])).tolist() == [[1, 2], [0, 1]]


def test_average_linkage_of_copies_takes_no_longer():
    merges = average_linkage(np.ones((1500, 1500)), np.ones(1500, np.int64))
    assert len(members_of(merges.tolist(), 1500)) == 1499


def test_joins_link_the_ends_that_are_most_similar():
    vectors = np.array([[9, 0], [5, 5], [0, 9], [4, 6]], np.int16)
    ends, links = np.array([[0, 0], [1, 1], [2, 2], [3, 3]]), np.full((4, 2), -1, np.int64)
    join_paths(vectors, ends, links, np.array([[0, 1], [2, 3], [0, 2]]))
    assert walk(links, 0).tolist() == [0, 1, 3, 2] and walk(links, 2).tolist() == [2, 3, 1, 0]
    assert sorted(ends[0].tolist()) == [0, 2]


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 12), st.integers(0, 30), st.integers(0, 10**6))
def test_greedy_edges_are_those_of_the_reference(count, edges, seed):
    random = RANDOM(seed)
    pairs = np.sort(random.integers(0, count, (edges, 2)), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    weights = random.integers(0, 4, len(pairs)) / 4
    found = [np.full((count, 2), -1, np.int64) for _ in range(2)]
    parents = np.arange(count)
    for part in (slice(0, len(pairs) // 2), slice(len(pairs) // 2, None)):  # in two rounds: paths are gone on with
        greedy_edges(pairs[part, 0], pairs[part, 1], weights[part], found[0], parents)
        greedy_edges_reference(pairs[part, 0], pairs[part, 1], weights[part], found[1])
    np.testing.assert_array_equal(*found)
    for end in np.flatnonzero(found[0][:, 1] < 0):
        path = walk(found[0], end)
        assert len(set(path.tolist())) == len(path) and len(set(roots(parents, path).tolist())) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9), st.integers(0, 10**6), st.sampled_from([0, 7]))
def test_path_search_ends_where_no_move_gains(count, seed, kicks):
    weights = symmetric(count, seed, values=12)
    near, order = all_near(weights)[:, :4], RANDOM(seed + 1).permutation(count)
    found = path_search(order, weights, near, kicks)
    assert sorted(found.tolist()) == list(range(count))
    assert path_value(found, weights) >= path_value(order, weights)
    assert improving_moves(found, weights, near) == []
    np.testing.assert_array_equal(found, path_search(order, weights, near, kicks))


def test_improving_moves_sees_what_there_is():
    weights = np.zeros((4, 4), np.int32)
    for a, b in ((0, 1), (1, 2), (2, 3)):
        weights[a, b] = weights[b, a] = 1
    assert improving_moves(np.array([0, 2, 1, 3]), weights, all_near(weights))
    assert not improving_moves(np.array([3, 2, 1, 0]), weights, all_near(weights))


@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_kicks_find_the_heaviest_path_of_few(count):
    for seed in range(12):
        weights = symmetric(count, seed)
        best = max(path_value(np.array(p), weights) for p in itertools.permutations(range(count)))
        found = path_search(np.arange(count), weights, all_near(weights), kicks=400)
        reached = path_value(found, weights)
        assert reached == best if count > 4 else reached >= 0.9 * best


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 16), st.integers(0, 10**6), st.sampled_from([1, 2, 3, 5, 10]))
def test_window_search_ends_where_no_move_gains(count, seed, reach):
    weights, pull = symmetric(count, seed, values=9), harmonic(reach)
    near, order = all_near(weights)[:, :3], RANDOM(seed + 1).permutation(count)
    found = window_search(order, weights, near, pull, 100)
    assert sorted(found.tolist()) == list(range(count))
    value = window_value(found, weights, pull)
    assert value >= window_value(order, weights, pull)
    place = np.argsort(found)
    for u, length, step, v, side in itertools.product(range(count), range(1, LONGEST + 1), (1, -1), range(3), (0, 1)):
        at, end = place[u], place[u] + step * (length - 1)
        low, high = min(at, end), max(at, end)
        if low < 0 or high >= count or high - low + 1 == count or v >= near.shape[1]:
            continue
        beside = place[near[u, v]]
        if not low <= beside <= high:
            turned = length > 1 and (at == low) != (side == 1)
            moved = move_reference(found, low, high, beside + side, turned)
            assert window_value(moved, weights, pull) <= value


def test_window_value_by_hand():
    weights = np.array([[0, 1, 2], [1, 0, 4], [2, 4, 0]], np.int32)
    assert harmonic(2)[:4].tolist() == [0, 5040, 2520, 0]
    assert window_value(np.array([0, 1, 2]), weights, harmonic(2)) == 5040 * (1 + 4) + 2520 * 2
    assert window_value(np.array([1, 0, 2]), weights, harmonic(1)) == 5040 * 3


def test_window_search_brings_kin_together():
    random = RANDOM(0)
    topic = np.repeat(np.arange(12), 10)
    weights = (np.where(topic[:, None] == topic, 1000, 0) + np.triu(random.integers(0, 9, (120, 120)), 1)).astype(
        np.int32
    )
    weights = np.triu(weights, 1) + np.triu(weights, 1).T
    order = np.argsort((np.arange(120) + random.integers(0, 12, 120)), kind="stable")
    found = window_search(order, weights, all_near(weights)[:, :9], harmonic(8), 50)
    assert np.sum(np.diff(topic[found]) != 0) == 11
