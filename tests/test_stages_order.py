"""Stage `order` on laid columns: aligned ranks, chained clusters, resharding, passes."""

import hashlib
import itertools

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.schemas import files, tables, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms.ranks import (
    RANKED,
    AlignRanks,
    Spans,
    chain,
    length_row,
    mean_pair_similarity,
    turn_clusters,
)  # fmt: skip
from ropewalk.transforms.shards import ShardFolder

COUNT = 300
CENTRES = np.random.default_rng(5).standard_normal((6, 256))


def facts_of(ids):
    """Vector, cluster and verdict of documents, by id: the same however they are sharded."""
    vectors, clusters, passed = [], [], []
    for id_ in ids:
        random = np.random.default_rng(int(id_[:8], 16))
        cluster = int(id_[8:12], 16) % 6
        vector = CENTRES[cluster] + random.standard_normal(256)
        vectors.append(np.rint(vector / np.linalg.norm(vector) * 2048) / 2048)
        clusters.append(cluster)
        passed.append(int(id_[12:16], 16) % 8 > 0)
    return np.array(vectors, np.float16).reshape(-1, 256), np.array(clusters), np.array(passed, bool)


def lay_columns(corpus, stage, shards):
    """Writes a stage's columns, one batch a shard."""
    folder = ShardFolder(corpus.folder(stage), tables.COLUMNS[stage], len(shards), "test")
    for number, batch in enumerate(shards):
        with folder.writer(number) as writer:
            for start in range(0, batch.num_rows, 64):
                writer.write(batch.slice(start, 64))
    folder.finish()


def lay_order_inputs(corpus, shards):
    found = [facts_of(shard.column("id").to_pylist()) for shard in shards]
    lay_columns(corpus, "filter", [
        pa.RecordBatch.from_pydict(
            {name: p if name == "passed" else [None] * len(p) for name in tables.FILTER.names}, tables.FILTER
        )
        for _, _, p in found
    ])  # fmt: skip
    embed, cluster = [], []
    for vectors, clusters, passed in found:
        out = pa.array(~passed)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float16()), 256, mask=out)
        embed.append(pa.RecordBatch.from_arrays([column], schema=tables.EMBED))
        number = pa.array(clusters.astype(np.uint32), mask=~passed)
        cluster.append(pa.RecordBatch.from_arrays([number, number.cast(pa.float32())], schema=tables.CLUSTER))
    lay_columns(corpus, "embed", embed)
    lay_columns(corpus, "cluster", cluster)
    unit = CENTRES / np.linalg.norm(CENTRES, axis=1, keepdims=True)
    rows = pa.RecordBatch.from_pydict({
        "cluster": pa.array(range(6), pa.uint32()), "size": pa.array([0] * 6, pa.uint64()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(unit.astype(np.float16).ravel()), 256),
    })  # fmt: skip
    with files.atomic(files.join(corpus.folder("cluster"), "centroids.arrow")) as sink:
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)


def recipe_of(corpus, **settings):
    return parse_recipe({"output": corpus.url, "input": "x", "dedup": False, "order": settings})


def shards_of(pieces):
    documents = testing.documents(COUNT, words=(1, 5))
    borders = np.linspace(0, COUNT, pieces + 1).astype(int)
    return [documents.slice(a, b - a) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def result(corpus, shards):
    """(id, rank, prev_similarity) of all documents."""
    rows = []
    for number, shard in enumerate(shards):
        batches = list(corpus.read(number, {"documents": ["id"], "order": ["rank", "prev_similarity"]}))
        assert sum(b.num_rows for b in batches) == shard.num_rows
        rows += [tuple(r[c] for c in ("id", "rank", "prev_similarity")) for b in batches for r in b.to_pylist()]
    return sorted(rows)


def run(lay, run_stage, pieces, engine=None, name=None, **settings):
    shards = shards_of(pieces)
    corpus = lay(*shards, name=name or f"corpus-{pieces}")
    lay_order_inputs(corpus, shards)
    manifest = run_stage(corpus, recipe_of(corpus, **settings), "order", engine)
    return result(corpus, shards), manifest


def test_ranks_and_similarities(lay, run_stage):
    rows, manifest = run(lay, run_stage, 4, min_segment=5)
    vectors, clusters, passed = facts_of([row[0] for row in rows])
    alive = np.flatnonzero(passed)
    assert [row[1] is not None for row in rows] == passed.tolist()
    order = alive[np.argsort([rows[i][1] for i in alive])]
    assert [rows[i][1] for i in order] == list(range(len(alive)))
    # Clusters are whole, no other chain has more similar centroids, and none turned around would fit better.
    seen = clusters[order][np.r_[True, np.diff(clusters[order]) != 0]]
    unit = CENTRES / np.linalg.norm(CENTRES, axis=1, keepdims=True)
    gram = unit @ unit.T
    best = max(sum(gram[a, b] for a, b in itertools.pairwise(chain)) for chain in itertools.permutations(range(6)))
    assert len(seen) == 6 and sum(gram[a, b] for a, b in itertools.pairwise(seen)) == pytest.approx(best, abs=1e-3)
    wide = vectors[order].astype(np.float64)
    parts = np.split(wide, np.flatnonzero(np.diff(clusters[order])) + 1)
    joins = [
        sum(
            a[-1] @ b[0] for a, b in itertools.pairwise(p[:: -1 if t else 1] for p, t in zip(parts, turns, strict=True))
        )
        for turns in itertools.product((False, True), repeat=6)
    ]
    assert joins[0] == pytest.approx(max(joins), abs=1e-6)
    expected = np.einsum("ij,ij->i", wide[1:], wide[:-1])
    assert rows[order[0]][2] is None
    np.testing.assert_array_equal([rows[i][2] for i in order[1:]], expected.astype(np.float32))
    facts, counters = manifest.facts, manifest.counters
    assert facts["method"] == "tree" and facts["near_duplicate_pairs"] == 0
    assert facts["window_similarity"] >= facts["window_similarity_before_search"] > 0
    assert facts["documents"] == counters["ordered-docs"] == len(alive) and facts["clusters"] == 6
    assert counters["ordered-docs"] + counters["out-docs"] == counters["docs-in"] == COUNT
    assert facts["mean_similarity"] == pytest.approx(expected.mean(), abs=1e-6)
    gram = wide @ wide.T
    pairs = len(alive) * (len(alive) - 1)
    assert facts["mean_similarity_random"] == pytest.approx((gram.sum() - np.trace(gram)) / pairs, abs=1e-6)
    assert facts["mean_similarity"] > facts["mean_similarity_random"] + 0.2


def test_turned_clusters_are_the_best_of_all():
    random = np.random.default_rng(3)
    for count in (1, 2, 5, 7):
        joins = random.integers(-3, 4, (count - 1, 2, 2)).astype(float)
        ways = itertools.product((0, 1), repeat=count)
        values = [sum(joins[i, a, b] for i, (a, b) in enumerate(itertools.pairwise(way))) for way in ways]
        turned = turn_clusters(joins).astype(int)
        assert sum(joins[i, a, b] for i, (a, b) in enumerate(itertools.pairwise(turned))) == max(values)


def test_sharding_and_passes_change_nothing(lay, run_stage):
    expected, manifest = run(lay, run_stage, 1)
    rows, other = run(lay, run_stage, 7)
    assert rows == expected and other.facts == manifest.facts
    rows, other = run(lay, run_stage, 3, Engine(memory_mb=0), name="passes")
    assert rows == expected and other.facts == manifest.facts


def test_many_groups(lay, run_stage, monkeypatch):
    from ropewalk.pipelines.stages import order

    expected, manifest = run(lay, run_stage, 2)
    monkeypatch.setattr(order, "GROUP_BYTES", 30_000)
    rows, other = run(lay, run_stage, 2, name="groups")
    assert rows == expected and other.facts == manifest.facts


def test_nobody_alive(lay, run_stage, monkeypatch):
    monkeypatch.setattr(f"{__name__}.facts_of", lambda ids: (
        np.zeros((len(ids), 256), np.float16), np.zeros(len(ids)), np.zeros(len(ids), bool)
    ))  # fmt: skip
    rows, manifest = run(lay, run_stage, 2)
    assert all(row[1] is None and row[2] is None for row in rows) and len(rows) == COUNT
    assert manifest.facts["documents"] == 0 and manifest.facts["mean_similarity"] is None


def test_seeded_sample_is_about_the_right_size():
    count = 100_000
    local = pa.RecordBatch.from_pydict({
        "address": np.arange(count, dtype=np.uint64), "cluster": np.repeat(np.arange(100, dtype=np.uint32), 1000),
        "position": np.tile(np.arange(1000, dtype=np.uint32), 100),
    })  # fmt: skip
    spans = Spans.scan([local], documents=count, seed=3)
    assert abs(len(spans.sample) - 4096) < 300 and spans.size.tolist() == [1000] * 100
    assert spans.first.tolist() == list(range(0, count, 1000)) and spans.last.tolist() == list(range(999, count, 1000))
    other = Spans.scan([local], documents=count, seed=4)
    assert not np.array_equal(spans.sample, other.sample)
    digest = hashlib.blake2b(Spans.scan([local], documents=count, seed=3).sample.tobytes()).digest()
    assert digest == hashlib.blake2b(spans.sample.tobytes()).digest()


def test_chain_of_many_centroids_visits_each_once():
    random = np.random.default_rng(0)
    angles = np.sort(random.random(2500)) * np.pi  # on a half circle: neighbours in the graph are neighbours in angle
    path = chain(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert sorted(path.tolist()) == list(range(2500))
    assert np.median(np.abs(np.diff(path))) <= 2


def test_mean_pair_similarity_is_that_of_all_pairs():
    vectors = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    pairs = [vectors[i] @ vectors[j] for i in range(9) for j in range(9) if i != j]
    assert mean_pair_similarity(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert mean_pair_similarity(vectors[:1]) is None


def test_ranks_that_do_not_add_up_are_refused():
    def row(address, rank):
        return pa.RecordBatch.from_arrays(
            [pa.array([address], pa.uint64()), pa.array([rank], pa.uint64()), pa.nulls(1, pa.float32())], schema=RANKED
        )

    length = length_row(0, 2)[1]
    aligned, counters = AlignRanks()(pa.concat_batches([row(1, 7), length]))
    assert aligned.column("rank").to_pylist() == [None, 7] and counters["out-docs"] == 1
    with pytest.raises(RuntimeError, match="0 lengths"):
        AlignRanks()(row(1, 7))
    with pytest.raises(RuntimeError, match="2 ranks for 1 documents"):
        AlignRanks()(pa.concat_batches([row(1, 7), row(1, 8), length]))
