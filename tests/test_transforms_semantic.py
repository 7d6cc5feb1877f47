import tempfile
import uuid
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.kernels.grid import normalise
from ropewalk.transforms.semantic import FOUND, SemanticDuplicates, size_class

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def documents(count=150, *, seed=0):
    """Rows that the transform takes: three documents to a meaning, six clusters."""
    random = np.random.default_rng(seed)
    meaning = random.integers(0, count // 3, count)
    vectors = normalise(
        random.standard_normal((count // 3, 256))[meaning] + 0.15 * random.standard_normal((count, 256))
    )
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 256)
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"{hash_:032x}" for hash_ in random.permutation(count).tolist()],
            "address": np.arange(count, dtype=np.uint64),
            "cluster": (meaning % 6).astype(np.uint32),
            "distance": np.round(random.random(count), 1).astype(np.float32),  # many are equal
            "vector": column,
        }
    )


def naive(batch, epsilon, rule, prefer):
    """Address -> (id of the nearest that puts it out, cosine), pair by pair."""
    rows = batch.to_pylist()
    sign = -1 if prefer == "hard" else 1
    rows.sort(key=lambda row: (sign * row["distance"], row["id"], row["address"]))
    gone, before = {}, []
    for row in rows:
        v = np.array(row["vector"], np.float64)
        near = []
        for place, other in enumerate(before):
            if other["cluster"] != row["cluster"] or (rule == "survivor" and other["address"] in gone):
                continue
            w = np.array(other["vector"], np.float64)
            near.append((-(v @ w) / np.sqrt((v @ v) * (w @ w)), place, other["id"]))
        if near and -min(near)[0] > 1 - epsilon:
            gone[row["address"]] = (min(near)[2], pytest.approx(-min(near)[0], abs=1e-6))
        before.append(row)
    return gone


@pytest.mark.parametrize("rule", ["survivor", "earlier"])
@pytest.mark.parametrize("prefer", ["hard", "easy"])
def test_against_a_naive_reference(rule, prefer):
    batch = documents()
    found, counters = SemanticDuplicates(0.05, rule, prefer)(batch)
    expected = naive(batch, 0.05, rule, prefer)
    assert {row["address"]: (row["dup_of"], row["similarity"]) for row in found.to_pylist()} == expected
    assert counters["compared-docs"] == 150 and counters["semantic_duplicate-docs"] == len(expected)
    for unit, total in (("clusters", 6), ("docs", 150), ("removed", len(expected))):
        assert sum(n for name, n in counters.items() if name.startswith("size_") and name.endswith(unit)) == total
    assert 20 < len(expected) < 130


def save(batch, folder):
    with pa.ipc.new_stream(f"{folder}/{uuid.uuid4().hex}", batch.schema) as stream:
        stream.write_batch(batch)


def piped(batches, **settings):
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner=RUNNER) as p:
            typed = beam.Create(batches).with_output_types(pa.RecordBatch)
            _ = p | typed | SemanticDuplicates(**settings) | beam.Map(save, folder).with_output_types(None)
        parts = [pa.ipc.open_stream(path.read_bytes()).read_next_batch() for path in Path(folder).iterdir()]
    return pa.Table.from_batches(parts, FOUND).sort_by("address").to_pylist()


def test_batches_order_and_partitions_change_nothing():
    batch = documents(seed=4)
    mixed = batch.take(pa.array(np.random.default_rng(1).permutation(150)))
    expected = SemanticDuplicates(0.08)(batch)[0].to_pylist()
    expected.sort(key=lambda row: row["address"])
    assert piped([batch], epsilon=0.08) == expected
    assert piped([mixed.slice(0, 40), mixed.slice(40, 1), mixed.slice(41)], epsilon=0.08, partitions=2) == expected


def test_documents_without_a_vector_are_refused():
    batch = documents(6).set_column(2, "cluster", pa.array([1, None] * 3, pa.uint32()))
    with pytest.raises(ValueError, match="cluster is null for 3 of 6"):
        list(SemanticDuplicates().keyed(batch))


def test_nothing_gives_nothing():
    found, counters = SemanticDuplicates()(documents(3).slice(0, 0))
    assert found.num_rows == 0 and counters == {"compared-docs": 0, "semantic_duplicate-docs": 0}


def test_size_classes():
    sizes = {1: "1", 2: "2", 3: "3-4", 4: "3-4", 5: "5-8", 8: "5-8", 9: "9-16", 1025: "1025-2048"}
    assert {size: size_class(size) for size in sizes} == sizes
