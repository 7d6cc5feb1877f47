import itertools
import uuid
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
import scipy.sparse.csgraph

from ropewalk.kernels import bands, minhash
from ropewalk.schemas import testing
from ropewalk.transforms import candidates, similarity, sketch, survivors, utf8
from ropewalk.transforms.components import LABELS, JoinFolder
from ropewalk.transforms.folders import ReadFolder
from ropewalk.transforms.map_shards import MapShards, ReadShards
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.shingle_sets import Shingling

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def save(batch: pa.RecordBatch, folder: str) -> None:
    with pa.OSFile(f"{folder}/{uuid.uuid4().hex}.arrow", "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)


def saved(folder: Path) -> list[pa.RecordBatch]:
    return [batch for path in sorted(folder.glob("*.arrow")) for batch in pa.ipc.open_stream(path.read_bytes())]


@pytest.fixture
def collect(tmp_path):
    """Runs transforms one after the other; the batches that the last one makes: `collect(Create(…), Transform())`."""

    def collect(*transforms: beam.PTransform) -> list[pa.RecordBatch]:
        folder = tmp_path / f"collected-{uuid.uuid4().hex}"
        folder.mkdir()
        with beam.Pipeline(runner=RUNNER) as p:
            collection = p
            for number, transform in enumerate(transforms):
                collection = collection | f"{number}" >> transform
            collection | beam.Map(save, str(folder)).with_output_types(None)
        return saved(folder)

    return collect


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_spread_covers_every_text_once(threads):
    for lengths in ([], [5], [0, 0, 0], [10**6, 1, 1], [1, 1, 10**6], [3] * 100):
        offsets = np.concatenate([[7], 7 + np.cumsum(lengths)]).astype(np.int64)
        seen = np.zeros(len(lengths), int)

        def run(first, last, seen=seen):
            seen[first:last] += 1

        utf8.spread(run, offsets, threads)
        assert (seen == 1).all()


def test_buffers_of_slices():
    texts = pa.array(["one", "", "three", "é"], pa.large_string())
    for part in (texts, texts.slice(1, 2), texts.slice(2, 0), texts.slice(0, 0)):
        data, offsets = utf8.buffers(part)
        found = [bytes(data[i:j]).decode() for i, j in itertools.pairwise(offsets.tolist())]
        assert found == part.to_pylist()


@pytest.mark.parametrize("threads", [1, 2])
def test_minhash_transform_row_for_row(collect, threads):
    batch = testing.documents(40, words=(0, 30))
    batch = batch.append_column("alive", pa.array([i % 3 != 0 for i in range(40)]))
    whole, counters = sketch.MinHash(num_perm=24, threads=threads)(batch)
    assert whole.schema == sketch.sketch_schema(24) and whole.num_rows == 40
    assert counters["sketched-docs"] == 26 and whole.column("exact_high").null_count == 14
    # Cut differently: the same rows.
    parts = collect(beam.Create([batch.slice(0, 7), batch.slice(7, 1), batch.slice(8)]), sketch.MinHash(num_perm=24))
    rows = [part.to_pylist() for part in sorted(parts, key=lambda b: b.num_rows)]
    assert rows[1] + rows[0] + rows[2] == whole.to_pylist()


def test_order_prefers_longer_then_priority_then_smaller_id():
    ids = ["0" * 32, "f" * 32, "0" * 32, "f" * 32, "00000f" + "0" * 26, "0" * 32]
    num_bytes = np.array([10, 11, 10, 10, 10, 1 << 30])
    priority = np.array([0, -128, 1, 127, 0, 0])
    keys = sketch.order_keys(pa.array(ids), num_bytes, priority)
    assert np.argsort(keys)[::-1].tolist() == [5, 1, 3, 2, 0, 4]
    capped = sketch.order_keys(pa.array(ids[:2]), np.array([1 << 24, 1 << 30]), np.array([1, 0]))
    assert capped[0] > capped[1]  # beyond 16 MiB the priority decides


def test_survivor_order_ends_with_id_and_address():
    labels = pa.RecordBatch.from_arrays(
        [np.array([1, 2, 3, 4, 5, 9], np.uint64), np.array([1, 1, 3, 3, 3, 3], np.uint64)], schema=LABELS
    )
    order = pa.array([7, 8, 5, 5, 5, 4], pa.uint64())
    found = survivors.survivors(labels, order, pa.array(["a", "b", "y", "x", "x", "a"]))
    assert found.to_pydict() == {
        "address": [2, 1, 4, 5, 3, 9],
        "survivor": [2, 2, 4, 4, 4, 4],
        "component_size": [2, 2, 4, 4, 4, 4],
    }
    assert survivors.survivors(labels.slice(0, 0), order.slice(0, 0), pa.array([], pa.string())).num_rows == 0


SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PAIRS = 8000
"""Of each similarity: the standard error of a rate is at most 0.56 points."""


@pytest.mark.parametrize(
    ("number", "rows"), [(14, 8), (20, 13), (9, 13), pytest.param(450, 20, marks=pytest.mark.slow)]
)
def test_s_curve_through_beam(collect, tmp_path, number, rows):
    """NEARDUP-s: pairs of integer shingle sets of exact Jaccard s; the rate of candidates follows the law."""
    union, a_b = 400, minhash.permutations(number * rows, 1)
    schema = pa.schema([("address", pa.uint64()), *sketch.sketch_schema(number * rows)])
    folder = ShardFolder(str(tmp_path / "sketches"), schema, len(SIMILARITIES), "k")
    for place, s in enumerate(SIMILARITIES):
        common = round(union * s)
        own = (union - common) // 2
        assert common / (common + 2 * own) == s
        ids = np.arange(union * PAIRS, dtype=np.uint32).reshape(PAIRS, union) + np.uint32(place * union * PAIRS)
        sets = np.stack([ids[:, : common + own], np.concatenate([ids[:, :common], ids[:, common + own :]], 1)], 1)
        borders = np.arange(0, sets.size + 1, common + own)
        signatures = minhash.minhash(sets.reshape(-1), borders, *a_b)
        address = np.arange(2 * PAIRS, dtype=np.uint64) + np.uint64(place << 32)
        mixed = address * np.uint64(0x9E3779B97F4A7C15)
        values = pa.FixedSizeListArray.from_arrays(signatures.reshape(-1), number * rows)
        with folder.writer(place) as writer:
            urls = pa.nulls(2 * PAIRS, pa.uint64())
            writer.write(pa.RecordBatch.from_arrays([address, address, mixed, mixed, urls, values], schema=schema))
    found = collect(ReadFolder(folder), candidates.CandidateEdges(number, rows, partitions=3))
    edges = np.unique(np.concatenate([np.stack([c.to_numpy() for c in b.columns], 1) for b in found]), axis=0)
    assert (edges[:, 1] == edges[:, 0] + 1).all() and not (edges[:, 0] % 2).any()  # the pairs only; b is the better one
    found = np.bincount((edges[:, 0] >> 32).astype(int)) / PAIRS
    assert found == pytest.approx([bands.match_probability(s, number, rows) for s in SIMILARITIES], abs=0.02)


def test_wordless_documents_meet_only_exact_copies(collect):
    batch = testing.of_texts(["...", "!!!", "...", "", ""])
    made = sketch.MinHash(num_perm=12)(batch)[0]
    made = made.add_column(0, "address", pa.array(range(5), pa.uint64()))
    (edges,) = collect(beam.Create([made]), candidates.CandidateEdges(3, 4))
    joined = {frozenset(pair) for pair in zip(*(c.to_pylist() for c in edges.columns), strict=True)}
    assert joined == {frozenset({0, 2}), frozenset({3, 4})}


def exact_similarity(texts: list[str]) -> np.ndarray:
    """Jaccard of word 5-gram sets of every pair, in plain Python, for texts of simple words."""
    sets = []
    for text in texts:
        words = text.lower().split()
        sets.append({tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))})
    return np.array([[len(x & y) / len(x | y) for y in sets] for x in sets])


@pytest.mark.parametrize("sharding", [[300], [100, 0, 200], [43] * 6 + [42]])
def test_edges_against_every_pair(lay, collect, tmp_path, sharding):
    documents = testing.documents(300, seed=5, words=(3, 80), copies=0.5)
    truth, threshold = exact_similarity(documents.column("text").to_pylist()), 0.7
    starts = np.cumsum([0, *sharding])
    corpus = lay(*(documents.slice(start, size) for start, size in zip(starts, sharding, strict=False)))
    number = {(s << 32) + r: starts[s] + r for s, size in enumerate(sharding) for r in range(size)}
    hasher = sketch.MinHash()
    folder = ShardFolder(corpus.folder("sketch"), sketch.sketch_schema(hasher.num_perm), len(sharding), "k")
    shards = list(range(len(sharding)))
    read = {"documents": ["id", "text", "source", "num_bytes"]}
    with beam.Pipeline(runner=RUNNER) as p:
        p | beam.Create(shards) | MapShards(corpus, read, None, hasher, folder)

    proposed = collect(
        beam.Create(shards), ReadShards(corpus, {"sketch": folder.schema.names}), candidates.CandidateEdges(14, 8)
    )
    passed = collect(beam.Create(proposed), similarity.VerifyEdges(corpus, "sketch", Shingling(), threshold))
    verified = ShardFolder(str(tmp_path / "verified"), similarity.VERIFIED, len(passed), "k")
    for shard, batch in enumerate(passed):
        with verified.writer(shard) as writer:
            writer.write(batch)
    joined = collect(JoinFolder(verified))

    def pairs(found):
        return {
            (number[a], number[b])
            for e in found
            for a, b in zip(e.column("a").to_pylist(), e.column("b").to_pylist(), strict=True)
        }

    kept = pairs(passed)
    assert kept == {(a, b) for a, b in pairs(proposed) if truth[a, b] >= threshold}
    for row in (row for batch in passed for row in batch.to_pylist()):
        assert row["similarity"] == np.float32(truth[number[row["a"]], number[row["b"]]])

    a, b = np.array(sorted(kept)).T
    _, expected = scipy.sparse.csgraph.connected_components(
        scipy.sparse.coo_matrix((np.ones(len(a)), (a, b)), (300, 300)), directed=False
    )
    component = np.arange(300) + 1000
    for row in (row for batch in joined for row in batch.to_pylist()):
        component[[number[row["a"]], number[row["b"]]]] = number[row["b"]]
    together = component[:, None] == component
    assert np.array_equal(together, expected[:, None] == expected)
    # Nothing that is nearly the same stays apart: 1 - (1 - .9^8)^14 = 0.9997 for one pair.
    assert together[truth >= 0.9].all()
    assert together[truth >= threshold].mean() > 0.95


def test_similarity_in_chunks(lay, tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "CHUNK_BYTES", 700)
    documents = testing.documents(30, words=(0, 60), copies=0.7)
    corpus = lay(documents.slice(0, 11), documents.slice(11))
    made = sketch.MinHash()(documents)[0]
    folder = ShardFolder(corpus.folder("sketch"), made.schema, 2, "k")
    for shard, part in enumerate((made.slice(0, 11), made.slice(11))):
        with folder.writer(shard) as writer:
            writer.write(part)
    truth = exact_similarity(documents.column("text").to_pylist())
    place = np.array([i if i < 11 else (1 << 32) + i - 11 for i in range(30)], np.uint64)
    left, right = np.random.default_rng(0).permutation(np.argwhere(np.triu(np.ones((30, 30)), 1))).T
    for threads in (1, 2):
        pairs = similarity.PairSimilarity(corpus, "sketch", Shingling(), threads)
        assert np.array_equal(pairs.jaccard(place[left], place[right]), truth[left, right])
        texts = np.array(documents.column("text").to_pylist())
        assert np.array_equal(pairs.exact(place[left], place[right]), texts[left] == texts[right])
        assert len(pairs.jaccard(place[:0], place[:0])) == 0
