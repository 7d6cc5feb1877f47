"""Orders of one cluster: trees, edges and local search on awkward vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from ropewalk.kernels.grid import normalise
from ropewalk.transforms import local_search, order, paths
from ropewalk.transforms.local_search import LocalSearch
from ropewalk.transforms.order import order_vectors

METHODS = ("tree", "edges", "dissolve", "icp")
DEFAULT = LocalSearch(window=10, search=4, neighbours=10, near_duplicate=0.95)
NEIGHBOURS_ONLY = LocalSearch(window=1, search=4, neighbours=10, near_duplicate=0.95)


def topics(count, *, seed=0, centres=12, noise=0.06):
    """Unit vectors on the grid around some centres: float32[count, 256], and their topics."""
    random = np.random.default_rng(seed)
    middle = random.standard_normal((centres, 256))
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    topic = random.integers(0, centres, count)
    return normalise(middle[topic] + noise * random.standard_normal((count, 256))).astype(np.float32), topic


def adjacent(vectors, found):
    return float(np.einsum("ij,ij->i", vectors[found[1:]], vectors[found[:-1]]).mean())


AWKWARD = {
    "none": np.zeros((0, 8)),
    "one": np.eye(8)[:1],
    "two": np.eye(8)[:2],
    "three": np.eye(8)[:3],
    "copies": np.tile(np.eye(8)[:1], (40, 1)),
    "zeros": np.zeros((30, 8)),
    "unlike": np.eye(64),
    "opposite": np.repeat(np.array([[1.0, 0], [-1, 0]]), 9, axis=0),
    "negative": np.eye(12) - 1 / 12,
    "copies of two": np.repeat(np.eye(8)[:2], 25, axis=0),
}


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("search", [DEFAULT, NEIGHBOURS_ONLY], ids=["window", "neighbours"])
def test_awkward_vectors_are_ordered(name, method, search):
    vectors = normalise(AWKWARD[name]).astype(np.float32)
    found, starts, counts = order_vectors(vectors, method, search)
    assert sorted(found.tolist()) == list(range(len(vectors))) and len(starts) == len(vectors)
    assert counts["window-after-millionths"] >= counts["window-before-millionths"]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from(METHODS),
    st.sampled_from([1, 2, 10]), st.integers(0, 3), st.integers(1, 12),
)  # fmt: skip
def test_every_order_is_a_permutation_that_search_does_not_worsen(count, width, seed, method, window, passes, k):
    # Few dimensions and coarse coordinates: many ties, copies and zero vectors.
    raw = np.random.default_rng(seed).integers(-1, 2, (count, width)).astype(float)
    vectors = normalise(raw).astype(np.float32)
    search = LocalSearch(window=window, search=passes, neighbours=k, near_duplicate=0.95)
    found, _, counts = order_vectors(vectors, method, search)
    assert sorted(found.tolist()) == list(range(count))
    assert counts["window-after-millionths"] >= counts["window-before-millionths"]
    again, _, _ = order_vectors(vectors.copy(), method, search)
    np.testing.assert_array_equal(found, again)


def test_tree_is_the_dendrogram_of_scipy():
    vectors, _ = topics(300)
    apart = np.maximum(1 - vectors.astype(float) @ vectors.T.astype(float), 0)
    np.fill_diagonal(apart, 0)
    found = paths.tree_path(vectors)
    merged, groups = linkage(squareform(apart, checks=False), "average"), [frozenset([i]) for i in range(300)]
    place = np.argsort(found)
    for a, b, _, _ in merged:
        groups.append(groups[int(a)] | groups[int(b)])
        where = [place[i] for i in groups[-1]]
        assert max(where) - min(where) == len(where) - 1  # every branch lies together
    assert adjacent(vectors, found) > adjacent(vectors, leaves_list(merged))


def test_tree_in_rounds_is_nearly_the_tree(monkeypatch):
    vectors, topic = topics(900, centres=30)
    exact = paths.tree_path(vectors)
    monkeypatch.setattr(paths, "MATRIX", 40)
    rounds = paths.tree_path(vectors)
    assert sorted(rounds.tolist()) == list(range(900))
    assert np.sum(np.diff(topic[rounds]) != 0) <= np.sum(np.diff(topic[exact]) != 0) + 3
    assert adjacent(vectors, rounds) > adjacent(vectors, exact) - 0.01


@pytest.mark.parametrize("kind", ["copies", "zeros", "unlike"])
def test_rounds_of_a_tree_get_on_with_ties(kind, monkeypatch):
    monkeypatch.setattr(paths, "MATRIX", 8)
    vectors = {"copies": np.tile(np.eye(16)[:1], (3000, 1)), "zeros": np.zeros((3000, 16)), "unlike": np.eye(900)}[kind]
    found = paths.tree_path(vectors.astype(np.float32))
    assert sorted(found.tolist()) == list(range(len(vectors)))


def test_edges_without_a_positive_similarity_follow_by_row():
    assert paths.edges_path(np.eye(5, dtype=np.float32), neighbours=3).tolist() == [0, 1, 2, 3, 4]
    assert paths.edges_path(np.zeros((4, 3), np.float32), neighbours=2).tolist() == [0, 1, 2, 3]


def test_edges_are_joined_by_their_nearest_ends():
    angles = np.array([0, 1, 2, 20, 21, 22, 9, 10, 11]) * np.pi / 60
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = paths.edges_path(vectors, neighbours=2).tolist()
    assert found in ([0, 1, 2, 6, 7, 8, 3, 4, 5], [5, 4, 3, 8, 7, 6, 2, 1, 0])


def test_pieces_are_searched_each_in_itself(monkeypatch):
    vectors, _ = topics(500)
    whole, _, counts = DEFAULT(vectors, np.arange(500))
    monkeypatch.setattr(local_search, "PIECE", 100)
    found, jumps, pieces = DEFAULT(vectors, np.arange(500))
    assert [set(found[i : i + 100]) for i in range(0, 500, 100)] == [set(range(i, i + 100)) for i in range(0, 500, 100)]
    assert jumps[::100].all() and pieces["window-after-millionths"] < counts["window-after-millionths"]


def test_near_duplicates_are_kept_apart():
    vectors, topic = topics(200, centres=4, noise=0.04)
    vectors = np.concatenate([vectors, vectors[:20]])  # each of 20 documents twice
    for method in METHODS:
        found, _, _ = order_vectors(vectors, method, DEFAULT)
        gram = np.einsum("ij,ij->i", vectors[found[1:]], vectors[found[:-1]])
        assert (gram >= 0.95).sum() == 0
        assert np.sum(np.diff(np.r_[topic, topic[:20]][found]) != 0) <= 8
    copies = np.tile(vectors[:1], (6, 1))  # nothing else to put between them
    found, _, _ = order_vectors(copies, "tree", DEFAULT)
    assert sorted(found.tolist()) == list(range(6))


def test_clusters_larger_than_fit_are_ordered_piece_by_piece(monkeypatch):
    vectors, _ = topics(250)
    monkeypatch.setattr(order, "LARGEST", 100)
    found, starts, counts = order_vectors(vectors, "tree", DEFAULT)
    for first in (0, 100, 200):
        part, _, _ = order_vectors(vectors[first : first + 100], "tree", DEFAULT)
        np.testing.assert_array_equal(found[first : first + 100], part + first)
        assert starts[first]
    assert counts["window-after-millionths"] > counts["window-before-millionths"]


def test_paths_by_edges_and_kicks_are_near_the_best_there_is():
    # An independent search: the best of all paths is known, the vectors lie on an arc in this order.
    angles = np.sort(np.random.default_rng(1).random(120)) * np.pi / 2
    vectors = normalise(np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)
    search = LocalSearch(window=1, search=16, neighbours=10, near_duplicate=np.inf)
    found, _, _ = order_vectors(vectors[np.random.default_rng(2).permutation(120)], "edges", search)
    shuffled = vectors[np.random.default_rng(2).permutation(120)]
    assert adjacent(shuffled, found) >= adjacent(vectors, np.arange(120)) * 0.9999
