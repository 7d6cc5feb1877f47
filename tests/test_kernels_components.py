"""Kernels over graphs of 64-bit nodes: candidate edges, union-find, large-star and small-star, star clusters."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.csgraph
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import star_clusters, star_contraction, stars, union_find

SETTINGS = settings(max_examples=100, deadline=None)
NODE = st.one_of(st.integers(0, 12), st.sampled_from([2**32, 2**63, 2**64 - 1]))
EDGES = st.lists(st.tuples(NODE, NODE), max_size=40)


def columns(edges) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array(list(edges), np.uint64).reshape(-1, 2).T
    return a, b


def rows(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(a.tolist(), b.tolist(), strict=True))


def scipy_stars(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    """Every node but the smallest of its component, and that one, as scipy finds them; sorted by node."""
    nodes, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    graph = scipy.sparse.coo_matrix((np.ones(len(a)), (index[: len(a)], index[len(a) :])), (len(nodes),) * 2)
    count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.full(count, 2**64 - 1, np.uint64)
    np.minimum.at(smallest, labels, nodes)
    return [pair for pair in rows(nodes, smallest[labels]) if pair[0] != pair[1]]


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 14)), max_size=60), st.integers(1, 40), st.data())
def test_star_edges_are_those_of_the_reference(entries, number, data):
    key, address = columns(entries)
    orders = np.array(data.draw(st.lists(st.integers(0, 7), min_size=15, max_size=15)), np.uint64) << np.uint64(61)
    order = orders[address.astype(int)]
    a, b, (shared, hot, largest) = stars.star_edges(key, order, address)
    assert rows(a, b) == stars.star_edges_reference(key, order, address)
    sizes = np.unique(key, return_counts=True)[1]
    assert shared == (sizes > 1).sum() and hot == 0 and largest == max(sizes, default=0)
    shuffled = np.array(data.draw(st.permutations(range(len(entries)))), np.int64)
    again = stars.star_edges(key[shuffled], order[shuffled], address[shuffled])
    assert rows(*again[:2]) == rows(a, b)


@pytest.mark.parametrize("size", [1, 2, stars.SMALL - 1, stars.SMALL, stars.SMALL + 1, 33, 200])
def test_small_buckets_make_all_pairs_and_large_ones_a_star_and_a_chain(size):
    best_first = np.random.default_rng(size).permutation(size).astype(np.uint64)
    order = np.arange(size, dtype=np.uint64)[::-1].copy()
    a, b, _ = stars.star_edges(np.full(size, 7, np.uint64), order, best_first)
    place = {node: i for i, node in enumerate(best_first.tolist())}
    found = {(place[x], place[y]) for x, y in rows(a, b)}
    if size <= stars.SMALL:
        assert found == {(j, i) for i, j in itertools.combinations(range(size), 2)}
    else:
        assert found == {(i, 0) for i in range(1, size)} | {(i, i - 1) for i in range(1, size)}
    assert len(a) == len(found)


@SETTINGS
@given(st.integers(2, 60), st.data())
def test_equals_in_the_order_are_paired_whatever_their_addresses(size, data):
    # Orders of which each is had by four members at most, so that two places of the chain are within reach.
    orders = np.array(data.draw(st.permutations([i // 4 for i in range(60)]))[:size], np.uint64)
    found = []
    for _ in range(2):
        address = np.array(data.draw(st.permutations(range(100, 100 + size))), np.uint64)
        member = {place: i for i, place in enumerate(address.tolist())}
        a, b, _ = stars.star_edges(np.zeros(size, np.uint64), orders, address)
        found.append({frozenset((member[x], member[y])) for x, y in rows(a, b)})
        assert len(found[-1]) == len(a)
    assert found[0] == found[1]


def test_a_hot_bucket_makes_two_edges_a_member():
    size = stars.HOT + 1
    keys = np.concatenate([np.zeros(size, np.uint64), np.ones(stars.HOT, np.uint64)])
    address = np.arange(len(keys), dtype=np.uint64)
    a, b, seen = stars.star_edges(keys, address, address)
    assert len(a) == 2 * size - 3 + 2 * stars.HOT - 3 and seen == (2, 1, size)
    assert (a < b).all()


@SETTINGS
@given(EDGES, st.integers(1, 5), st.data())
def test_union_find_agrees_with_scipy_and_does_not_depend_on_order(edges, pieces, data):
    a, b = columns(edges)
    found = rows(*union_find.contract(a, b))
    assert found == scipy_stars(a, b)
    labels = union_find.components_reference(edges)
    assert found == sorted((node, label) for node, label in labels.items() if node != label)
    shuffled = data.draw(st.permutations(edges))
    graph = union_find.UnionFind()
    for start in range(pieces):
        graph.join(*columns((y, x) for x, y in shuffled[start::pieces]))
    assert rows(*graph.stars()) == found
    assert graph.num_nodes == len(labels)


@pytest.mark.parametrize("count", [5_000, 100_000])
def test_the_table_grows(count):
    random = np.random.default_rng(count)
    nodes = np.unique(random.integers(0, 2**64, count, dtype=np.uint64))
    a, b = (random.choice(nodes, count * 2 // 3) for _ in range(2))
    assert rows(*union_find.contract(a, b)) == scipy_stars(a, b)


def test_a_long_chain_is_one_component():
    nodes = np.random.default_rng(0).permutation(200_000).astype(np.uint64)
    a, b = union_find.contract(nodes[:-1], nodes[1:])
    assert np.array_equal(a, np.arange(1, 200_000)) and not b.any()


def ends(edges: set[tuple[int, int]], *, both: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows (node, neighbour) in a random order."""
    found = list(edges) + [(b, a) for a, b in edges if both]
    order = np.random.default_rng(len(found)).permutation(len(found))
    return columns(found[i] for i in order)


@SETTINGS
@given(EDGES)
def test_star_rounds_are_those_of_the_reference_and_end_at_the_components(edges):
    graph = {(max(e), min(e)) for e in edges if e[0] != e[1]}
    expected = scipy_stars(*columns(graph))
    for _ in range(20):
        settled = sorted(graph) == expected
        a, b, unsettled = star_contraction.large_star(*ends(graph, both=True))
        assert settled == (unsettled == 0)
        made = star_contraction.large_star_reference(graph)
        assert set(rows(a, b)) == made and len(a) == len(graph)
        if settled:
            assert made == graph
            return
        small = star_contraction.small_star(*ends(made, both=False))
        graph = star_contraction.small_star_reference(made)
        assert set(rows(*small)) == graph and len(small[0]) == len(made)
    raise AssertionError("20 rounds are not enough for 15 nodes")


@SETTINGS
@given(st.integers(0, 12), st.data())
def test_star_clusters_are_those_of_the_reference(count, data):
    node = st.integers(0, max(count - 1, 0))
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=40)) if count else []
    edges = [(a, b) for a, b in pairs if a != b]
    a, b = np.array(edges, np.int64).reshape(-1, 2).T
    found = star_clusters.star_clusters(count, a, b)
    assert found.tolist() == star_clusters.star_clusters_reference(count, edges)
    near = {(x, y) for x, y in edges} | {(y, x) for x, y in edges}
    stay = [v for v in range(count) if found[v] == v]
    assert not any((x, y) in near for x in stay for y in stay)  # no two that stay are copies
    for v in set(range(count)) - set(stay):
        assert found[v] == min(u for u in stay if (u, v) in near)


def test_a_chain_is_cut_in_stars():
    # 0 - 1 - 2 - 3: 1 goes to 0, 2 has lost its neighbour and stays, 3 goes to 2.
    assert star_clusters.star_clusters(4, np.array([1, 1, 3]), np.array([0, 2, 2])).tolist() == [0, 0, 2, 2]
