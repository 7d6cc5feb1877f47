"""The similarity order as a Beam transform: published gold values, determinism, edges."""

import tempfile
import uuid
from pathlib import Path

import apache_beam as beam
import faiss
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.transforms.neighbours import nearest, union_graph
from ropewalk.transforms.order import LOCAL, OrderBySimilarity
from ropewalk.transforms.vectors import to_matrix

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
WINDOW = 16


def topic_2k():
    """The fixture TOPIC-2k of the design notes: float64[2000, 32] unit vectors around 20 topics."""
    random = np.random.default_rng(0)
    topics = random.standard_normal((20, 32))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    documents = topics[random.integers(0, 20, 2000)] + 0.15 * random.standard_normal((2000, 32))
    return documents / np.linalg.norm(documents, axis=1, keepdims=True)


def grid_vectors(count, *, topics=8, seed=0):
    """Unit vectors on the grid of `tables.EMBED`: float16[count, 256]; the last two are copies of the first."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((topics, 256))
    found = centres[random.integers(0, topics, count)] + 0.7 * random.standard_normal((count, 256))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found[-2:] = found[0]
    return (np.rint(found * 2048) / 2048).astype(np.float16)


def batch_of(vectors, clusters=None, ids=None):
    count = len(vectors)
    ids = ids if ids is not None else [f"{i:032x}" for i in range(count)]
    clusters = np.zeros(count, np.uint32) if clusters is None else clusters.astype(np.uint32)
    if vectors.dtype == np.float16:
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    else:
        column = pa.array(list(vectors.astype(np.float32)), pa.list_(pa.float32()))
    # Addresses are not in the order of ids: they must decide nothing.
    addresses = np.arange(count, dtype=np.uint64)[::-1].copy()
    return pa.RecordBatch.from_pydict({"id": ids, "address": addresses, "cluster": clusters, "vector": column})


def save(batch, folder):
    with pa.ipc.new_stream(f"{folder}/{uuid.uuid4().hex}", batch.schema) as stream:
        stream.write_batch(batch)


def ordered(batches, transform):
    """What the transform makes of the batches: one table, sorted by cluster and position."""
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner=RUNNER) as p:
            typed = beam.Create(batches).with_output_types(pa.RecordBatch)
            _ = p | typed | transform | beam.Map(save, folder).with_output_types(None)
        found = [pa.ipc.open_stream(path.read_bytes()).read_next_batch() for path in Path(folder).iterdir()]
    return pa.Table.from_batches(found, schema=LOCAL).sort_by([("cluster", "ascending"), ("position", "ascending")])


def in_window(vectors):
    windows = [vectors[i : i + WINDOW] for i in range(0, len(vectors) - WINDOW + 1, WINDOW)]
    gram = [w @ w.T for w in windows]
    return np.mean([(g.sum() - np.trace(g)) / (WINDOW * (WINDOW - 1)) for g in gram])


def quality(min_segment):
    vectors = topic_2k()
    table = ordered(
        [batch_of(vectors)],
        OrderBySimilarity(method="icp" if min_segment == 0 else "dissolve", min_segment=min_segment, search=0),
    )
    rows = 1999 - table["address"].to_numpy().astype(np.int64)
    assert sorted(rows.tolist()) == list(range(2000))
    path = vectors[rows]
    adjacent = np.einsum("ij,ij->i", path[1:], path[:-1])
    np.testing.assert_allclose(table["prev_similarity"].to_numpy()[1:], adjacent, atol=1e-5)
    return int(np.sum(table["starts_segment"].to_numpy())) - 1, adjacent.mean(), in_window(path)


def test_topic_2k_graph():
    indptr, _, weights = union_graph(*nearest(topic_2k().astype(np.float32), 10))
    assert len(weights) // 2 == 14_807
    assert (np.diff(indptr).min(), np.diff(indptr).max()) == (10, 67)


def test_topic_2k_paper_greedy():
    jumps, adjacent, window = quality(0)
    assert jumps == 224
    assert adjacent == pytest.approx(0.6654, abs=1e-3)
    assert window == pytest.approx(0.4694, abs=1e-3)


def test_topic_2k_dissolved():
    jumps, adjacent, window = quality(21)
    assert jumps == 18
    assert window >= 0.57 and round(window, 3) == 0.577
    assert adjacent == pytest.approx(0.702, abs=1e-3)


def test_topic_2k_half_dissolved():
    jumps, adjacent, window = quality(5)
    assert jumps == 57
    assert (round(adjacent, 3), round(window, 3)) == (0.705, 0.528)


def test_neighbours_are_those_of_faiss():
    vectors = grid_vectors(500).astype(np.float32)[:-2]  # without the copies, whose order faiss leaves open
    found, similarity = nearest(vectors, 10, block_bytes=4 * 498 * 60)
    theirs, indices = faiss.knn(vectors, vectors, 11, metric=faiss.METRIC_INNER_PRODUCT)
    np.testing.assert_allclose(similarity, theirs[:, 1:], atol=1e-6)
    distinct = np.all(np.diff(theirs, axis=1) < -1e-6, axis=1)
    assert distinct.sum() > 300
    np.testing.assert_array_equal(found[distinct], indices[distinct, 1:])


def test_neighbours_of_copies_are_decided_by_row():
    vectors = np.zeros((6, 4), np.float32)
    vectors[:, 0] = 1
    found, _ = nearest(vectors, 3, block_bytes=1)
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("settings", [{}, {"method": "edges", "window": 1}, {"method": "dissolve", "min_segment": 6}])
def test_order_of_input_does_not_matter(settings):
    vectors = grid_vectors(600)
    clusters = np.random.default_rng(1).integers(0, 5, 600)
    ids = [f"{(i * 7919) % 600:032x}" for i in range(600)]
    batch = batch_of(vectors, clusters, ids)
    shuffled = batch.take(pa.array(np.random.default_rng(2).permutation(600)))
    transform = OrderBySimilarity(neighbours=8, partitions=3, **settings)
    expected = ordered([batch], transform)
    for parts in ([shuffled], [shuffled.slice(i, 97) for i in range(0, 600, 97)]):
        assert ordered(parts, transform).equals(expected)
    assert ordered([batch], OrderBySimilarity(neighbours=8, partitions=1, **settings)).equals(expected)
    assert expected["cluster"].to_pylist() == sorted(clusters.tolist())


def test_counters_tell_of_copies_side_by_side():
    batch = batch_of(grid_vectors(300), np.random.default_rng(1).integers(0, 3, 300) * np.r_[np.ones(298), 0, 0])
    keyed = [part for _, part in OrderBySimilarity(partitions=1).keyed(batch)]
    _, apart = OrderBySimilarity()(keyed[0])
    rows, beside = OrderBySimilarity(search=0)(keyed[0])
    assert apart["near-duplicate-pairs"] == 0 < beside["near-duplicate-pairs"]
    pairs = rows.column("prev_similarity").drop_null().to_numpy() >= 0.95
    assert beside["near-duplicate-pairs"] == pairs.sum()
    assert beside["window-before-millionths"] == beside["window-after-millionths"] < apart["window-after-millionths"]
    for counters in (apart, beside):
        assert counters["ordered-docs"] == 300 and counters["clusters"] == 3 and counters["dissolved-segments"] == 0


def test_topic_2k_by_the_default_is_more_alike_than_dissolved():
    vectors = topic_2k()
    table = ordered([batch_of(vectors)], OrderBySimilarity())
    path = vectors[1999 - table["address"].to_numpy().astype(np.int64)]
    assert in_window(path) > 0.6 and np.einsum("ij,ij->i", path[1:], path[:-1]).mean() > 0.72


def test_zero_vectors_and_lonely_clusters():
    vectors = grid_vectors(40)
    vectors[[3, 7, 11]] = 0
    clusters = np.zeros(40)
    clusters[39] = 9
    table = ordered([batch_of(vectors, clusters)], OrderBySimilarity(min_segment=4))
    assert sorted(table["address"].to_pylist()) == list(range(40))
    assert not np.isnan(table["prev_similarity"].drop_null().to_numpy()).any()
    assert table["prev_similarity"].null_count == 2  # the first document of each cluster
    assert table["position"].to_pylist() == [*range(39), 0]


def test_nothing_in_nothing_out():
    assert ordered([], OrderBySimilarity()).num_rows == 0


def test_documents_without_a_vector_are_refused():
    vector = pa.array([None], pa.list_(pa.float32()))
    batch = batch_of(np.zeros((1, 4), np.float32)).set_column(3, "vector", vector)
    with pytest.raises(ValueError, match="vector is null for 1 of 1"):
        list(OrderBySimilarity().keyed(batch))
    with pytest.raises(ValueError, match="from 1 to 2 values"):
        to_matrix(pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())))
