"""Kernels of the similarity order: selection of neighbours, greedy path, dissolving."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.dissolve import dissolve, dissolve_reference
from ropewalk.kernels.greedy_path import greedy_path, greedy_path_reference
from ropewalk.kernels.mix64 import bucket, mix64, mix64_reference
from ropewalk.kernels.top_k import top_k, top_k_reference


def graph_of(nodes, edges):
    """Compressed rows of an undirected graph given as {(a, b): weight}."""
    both = sorted([(a, b, w) for (a, b), w in edges.items()] + [(b, a, w) for (a, b), w in edges.items()])
    counts = np.bincount([a for a, _, _ in both], minlength=nodes) if both else np.zeros(nodes, np.int64)
    return (
        np.r_[0, np.cumsum(counts)].astype(np.int64),
        np.array([b for _, b, _ in both], np.int32),
        np.array([w for _, _, w in both], np.float32),
    )


@st.composite
def graphs(draw):
    nodes = draw(st.integers(1, 24))
    pairs = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)).filter(lambda p: p[0] < p[1])
    # Few distinct weights: ties must be decided the same way by both.
    weights = st.sampled_from([0.25, 0.5, 0.75])
    return graph_of(nodes, draw(st.dictionaries(pairs, weights, max_size=40)) if nodes > 1 else {})


GOLD = graph_of(6, {(0, 1): 0.9, (1, 2): 0.8, (0, 2): 0.7, (2, 3): 0.2, (4, 5): 0.95})


@pytest.mark.parametrize("path_of", [greedy_path, greedy_path_reference])
def test_gold_graph(path_of):
    path, starts = path_of(*GOLD)
    assert "".join("ABCDEF"[i] for i in path) == "DCBAEF"
    assert np.flatnonzero(starts).tolist() == [0, 4]


@settings(deadline=None, max_examples=300)
@given(graphs())
def test_path_is_the_reference_path(graph):
    for mine, theirs in zip(greedy_path(*graph), greedy_path_reference(*graph), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_empty_graph():
    empty = np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
    path, starts = greedy_path(*empty)
    assert len(path) == len(starts) == 0
    assert len(dissolve(*empty, path, starts, 5)[0]) == 0


def test_dissolve_inserts_before_the_strongest_placed_neighbour():
    graph = graph_of(5, {(0, 1): 0.9, (1, 2): 0.9, (2, 3): 0.4, (0, 3): 0.3, (3, 4): 0.9})
    path, starts = np.array([0, 1, 2, 4, 3]), np.array([True, False, False, True, False])
    order, new_starts = dissolve(*graph, path, starts, 3)
    # 4 waits for 3; 3 goes before 2, then 4 before 3.
    assert order.tolist() == [0, 1, 4, 3, 2] and new_starts.tolist() == [True, False, False, False, False]


def test_dissolve_keeps_the_longest_where_nothing_is_placed():
    graph = graph_of(5, {(0, 1): 0.9, (2, 3): 0.5, (3, 4): 0.5, (1, 2): 0.1})
    path, starts = np.array([0, 1, 2, 3, 4]), np.array([True, False, True, False, False])
    order, new_starts = dissolve(*graph, path, starts, 10)
    assert order.tolist() == [0, 1, 2, 3, 4] and new_starts.tolist() == [True, False, False, False, False]
    assert dissolve(*graph, path, starts, 0)[1].sum() == 2


@settings(deadline=None, max_examples=300)
@given(graphs(), st.integers(0, 12))
def test_dissolve_is_the_reference(graph, min_segment):
    path, starts = greedy_path(*graph)
    mine = dissolve(*graph, path, starts, min_segment)
    for a, b in zip(mine, dissolve_reference(*graph, path, starts, min_segment), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(mine[0].tolist()) == list(range(len(path))) and mine[1].sum() <= starts.sum()


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 6), st.integers(1, 12), st.integers(0, 8), st.integers(0, 99), st.sampled_from([np.inf, 2, 1, -2])
)
def test_top_k_is_the_reference(rows, columns, k, seed, below):
    scores = np.random.default_rng(seed).integers(-2, 3, (rows, columns)).astype(np.float32)
    own = np.arange(rows) - 1
    for mine, theirs in zip(top_k(scores, own, k, below), top_k_reference(scores, own, k, below), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_mix64_is_splitmix():
    # First outputs of splitmix64.c for state 1234567 (a published test vector).
    assert mix64_reference(1234567) == 6457827717110365317
    values = np.array([0, 1, 1234567, 2**63, 2**64 - 1], np.uint64)
    for seed in (0, 7, 2**63 - 1):
        assert mix64(values, seed).tolist() == [mix64_reference(int(v), seed) for v in values]


def test_buckets_are_equal_ranges():
    mixed = np.sort(mix64(np.arange(30_000, dtype=np.uint64)))
    found = bucket(mixed, 3)
    assert np.all(np.diff(found) >= 0) and np.all(np.abs(np.bincount(found) - 10_000) < 400)
    assert bucket(np.array([0, 2**64 - 1], np.uint64), 7).tolist() == [0, 6]
