"""Stage `pack`: documents come back whole from their segments, whatever the layout and the sharding."""

import math
import random

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.pipelines.jobs import Engine
from ropewalk.schemas import tables, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms import pack, sequences
from ropewalk.transforms.shards import ShardFolder

LAYOUTS = ["in_context", "concat", "random"]


class Walk:
    """Documents of given lengths with the columns that pack reads, sharded at will; dead ones where `alive` is false.

    The rank goes against the rows, so that order and position cannot be mistaken for one another.
    """

    def __init__(self, num_tokens, alive=None):
        count = len(num_tokens)
        self.num_tokens = np.array(num_tokens, np.uint32)
        self.alive = np.ones(count, bool) if alive is None else np.array(alive, bool)
        self.documents = testing.of_texts([f"document {i}" for i in range(count)])
        self.ids = self.documents.column("id").to_pylist()
        self.tokens = [np.arange(n, dtype=np.uint32) + 1000 * i for i, n in enumerate(self.num_tokens)]
        vectors = np.random.default_rng(0).standard_normal((count, 256))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = (np.rint(vectors * 2048) / 2048).astype(np.float16)
        self.rank = np.where(self.alive, np.cumsum(self.alive[::-1])[::-1] - 1, 0).astype(np.uint64)

    def columns(self):
        out = pa.array(~self.alive)
        ids = pa.array([t if a else None for t, a in zip(self.tokens, self.alive, strict=True)], pa.list_(pa.uint32()))
        vector = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.ravel(), pa.float16()), 256, mask=out)
        count = len(self.alive)
        rank = pa.array(self.rank, mask=~self.alive)
        return {
            "filter": [pa.array(self.alive), *(pa.nulls(count, field.type) for field in list(tables.FILTER)[1:])],
            "tokenize": [ids, pa.array(np.where(self.alive, self.num_tokens, 0).astype(np.uint32))],
            "embed": [vector],
            "order": [rank, pa.nulls(count, pa.float32())],
        }

    def lay(self, lay, name, pieces=1, without=()):
        borders = np.linspace(0, len(self.alive), pieces + 1).astype(int)
        cuts = list(zip(borders[:-1], np.diff(borders), strict=True))
        corpus = lay(*[self.documents.slice(a, n) for a, n in cuts], name=name)
        for stage, columns in self.columns().items():
            if stage in without:
                continue
            batch = pa.RecordBatch.from_arrays(columns, schema=tables.COLUMNS[stage])
            folder = ShardFolder(corpus.folder(stage), batch.schema, pieces, "test")
            for number, (a, n) in enumerate(cuts):
                with folder.writer(number) as writer:
                    step = 7 if n < 1000 else 1000
                    for start in range(0, n, step):
                        writer.write(batch.slice(a + start, min(step, n - start)))
            folder.finish()
        return corpus


def recipe_of(corpus, embed=True, order=True, seed=0, **settings):
    document = {"output": corpus.url, "input": "x", "dedup": False, "seed": seed, "pack": settings}
    if not order:
        document |= {"order": False, "cluster": False}
    if not embed:
        document |= {"embed": False}
    return parse_recipe(document)


def rows_of(manifest, corpus, name):
    folder = ShardFolder(f"{corpus.url}/sequences/{name}", tables.SEQUENCES, len(manifest.shards), "")
    batches = [batch for shard in range(folder.num_shards) for batch in folder.read(shard)]
    return [row for batch in batches for row in batch.to_pylist()]


def packed(walk, lay, run_stage, name="corpus", pieces=1, engine=None, without=(), **settings):
    corpus = walk.lay(lay, name, pieces, without)
    recipe = recipe_of(corpus, embed="embed" not in without, order="order" not in without, **settings)
    manifest = run_stage(corpus, recipe, "pack", engine)
    return rows_of(manifest, corpus, recipe.pack[0].name), manifest


def examine(walk, rows, manifest, length, loss="token"):
    """Everything a row promises, and that the documents come back."""
    back = {}
    for row in rows:
        lengths, borders = row["seq_lengths"], row["cu_seqlens"]
        assert row["num_tokens"] == len(row["input_ids"]) == sum(lengths) and 1 <= row["num_tokens"] <= length
        assert borders == [0, *np.cumsum(lengths).tolist()]
        assert len(row["doc_ids"]) == len(row["doc_starts"]) == len(row["loss_weights"]) == len(lengths)
        weights = [1.0 if loss == "token" else float(np.float32(1 / n)) for n in lengths]
        assert row["loss_weights"] == weights
        for i, (id_, start) in enumerate(zip(row["doc_ids"], row["doc_starts"], strict=True)):
            back.setdefault(id_, []).append((start, row["input_ids"][borders[i] : borders[i + 1]]))
        documents = [walk.ids.index(id_) for id_ in row["doc_ids"]]
        assert len(set(documents)) == len(documents)
        gram = walk.vectors[documents].astype(np.float64) @ walk.vectors[documents].astype(np.float64).T
        pairs = len(documents) * (len(documents) - 1)
        if pairs and row["similarity"] is not None:
            assert row["similarity"] == np.float32((gram.sum() - np.trace(gram)) / pairs)
    for i, id_ in enumerate(walk.ids):
        pieces = sorted(back.pop(id_, []))
        assert [t for _, tokens in pieces for t in tokens] == (walk.tokens[i].tolist() if walk.alive[i] else [])
        assert [start for start, _ in pieces] == np.cumsum([0, *(len(t) for _, t in pieces)])[:-1].tolist()
    assert not back
    alive = walk.num_tokens[walk.alive]
    facts = manifest.facts
    assert facts["tokens_in"] == facts["tokens_out"] == alive.sum() == manifest.counters.get("tokens-out", 0)
    assert facts["documents"] == len(alive) and facts["empty_documents"] == np.count_nonzero(alive == 0)
    assert facts["sequences"] == len(rows) == manifest.rows
    if rows:
        assert facts["fill"] == alive.sum() / (len(rows) * length)
        assert facts["segments_per_sequence"] == sum(len(r["seq_lengths"]) for r in rows) / len(rows)
        found = [r["similarity"] for r in rows if r["similarity"] is not None]
        if found:
            assert facts["mean_similarity"] == pytest.approx(np.mean(found), abs=1e-6)


@pytest.mark.parametrize(("layout", "loss"), [("in_context", "token"), ("concat", "document"), ("random", "document")])
def test_documents_come_back(lay, run_stage, layout, loss):
    random = np.random.default_rng(0)
    walk = Walk(random.integers(0, 90, 150), random.random(150) < 0.8)
    rows, manifest = packed(walk, lay, run_stage, pieces=3, layout=layout, length=64, loss=loss)
    examine(walk, rows, manifest, 64, loss)
    assert all((r["similarity"] is None) == (len(r["doc_ids"]) < 2) for r in rows)


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 7, 8, 9, 16, 17, 30]), st.booleans()), min_size=1, max_size=20),
    st.sampled_from(LAYOUTS), st.integers(1, 3), st.integers(1, 4),
)  # fmt: skip
def test_small_corpora_come_back(lay, run_stage, tmp_path_factory, documents, layout, pieces, open_bins):
    walk = Walk([n for n, _ in documents], [a for _, a in documents])
    name = tmp_path_factory.mktemp("corpus").name
    rows, manifest = packed(
        walk, lay, run_stage, name=name, pieces=pieces, layout=layout, length=8, open_bins=open_bins
    )
    examine(walk, rows, manifest, 8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sharding_passes_and_batches_change_nothing(lay, run_stage, monkeypatch, layout):
    walk = Walk(np.random.default_rng(3).integers(0, 200, 140))
    expected, manifest = packed(walk, lay, run_stage, layout=layout, length=64)
    rows, other = packed(walk, lay, run_stage, name="resharded", pieces=7, layout=layout, length=64)
    assert rows == expected and other.facts == manifest.facts
    assert [s.hash for s in other.shards] == [s.hash for s in manifest.shards]
    monkeypatch.setattr(sequences, "BATCH_TOKENS", 500)
    monkeypatch.setattr("ropewalk.pipelines.stages.pack.SHARD_TOKENS", 5000)
    rows, other = packed(walk, lay, run_stage, "passes", 3, Engine(memory_mb=0), layout=layout, length=64)
    assert rows == expected and other.facts == manifest.facts and len(other.shards) >= 3


def test_partitions_are_planned_apart(lay, run_stage, monkeypatch):
    monkeypatch.setattr(pack, "PARTITION_DOCS", 50)
    walk = Walk(np.random.default_rng(3).integers(1, 40, 140))
    for layout in ("concat", "random"):
        rows, manifest = packed(walk, lay, run_stage, name=layout, pieces=2, layout=layout, length=64)
        examine(walk, rows, manifest, 64)
        if layout == "concat":  # one short sequence a partition, at most
            assert sum(row["num_tokens"] < 64 for row in rows) <= 3


def test_len_20k(lay, run_stage):
    source = random.Random(0)
    lengths = [max(1, int(math.exp(source.gauss(math.log(600), 1.3)))) for _ in range(20_000)]
    corpus = Walk(lengths[::-1]).lay(lay, "corpus", 2)  # ranks go against the rows
    manifest = run_stage(corpus, recipe_of(corpus, layout="in_context", length=8192, open_bins=10), "pack")
    assert manifest.rows == manifest.facts["sequences"] == 3443
    assert manifest.facts["tokens_out"] == manifest.counters["tokens-out"] == 28_155_227
    assert manifest.facts["cut_documents"] == 454 and round(manifest.facts["fill"], 4) == 0.9982


def test_related_documents_share_a_sequence_and_sequences_are_shuffled(lay, run_stage):
    walk = Walk(np.full(512, 8))
    rows, _ = packed(walk, lay, run_stage, layout="in_context", length=64)
    ranks = [[int(walk.rank[walk.ids.index(i)]) for i in row["doc_ids"]] for row in rows]
    assert all(r == list(range(r[0], r[0] + 8)) for r in ranks)
    assert abs(np.corrcoef([r[0] for r in ranks[1:]], [r[0] for r in ranks[:-1]])[0, 1]) < 0.3


@pytest.mark.parametrize(("layout", "count"), [("in_context", 9), ("in_context", 8), ("concat", 9), ("random", 1)])
def test_one_document(lay, run_stage, layout, count):
    rows, manifest = packed(Walk([count]), lay, run_stage, layout=layout, length=8)
    assert sorted(row["num_tokens"] for row in rows) == {8: [8], 9: [1, 8], 1: [1]}[count]
    assert manifest.facts["cut_documents"] == (count == 9) and manifest.facts["mean_similarity"] is None
    assert all(row["similarity"] is None for row in rows)


@pytest.mark.parametrize("walk", [Walk([0, 0]), Walk([5, 6], [False, False])], ids=["empty", "nobody alive"])
def test_nothing_to_pack(lay, run_stage, walk):
    rows, manifest = packed(walk, lay, run_stage, layout="in_context", length=8)
    assert rows == [] and manifest.rows == 0
    assert manifest.facts["sequences"] == 0 and manifest.facts["fill"] is None


def test_random_layout_needs_neither_order_nor_vectors(lay, run_stage):
    walk = Walk(np.random.default_rng(0).integers(1, 30, 60))
    rows, manifest = packed(walk, lay, run_stage, without=("embed", "order"), layout="random", length=64)
    examine(walk, rows, manifest, 64)
    assert manifest.facts["mean_similarity"] is None and all(row["similarity"] is None for row in rows)


def test_folder_is_a_dataset(lay, run_stage):
    corpus = Walk(np.random.default_rng(0).integers(1, 30, 60)).lay(lay, "corpus", 2)
    manifest = run_stage(corpus, recipe_of(corpus, layout="in_context", length=64), "pack")
    found = datasets.load_from_disk(f"{corpus.url}/sequences/in_context-64")
    assert found.to_list() == rows_of(manifest, corpus, "in_context-64")


def test_lost_tokens_are_noticed(lay, run_stage):
    walk = Walk([5, 6, 7])
    walk.tokens[1] = walk.tokens[1][:-1]
    with pytest.raises(RuntimeError, match="fewer tokens than its num_tokens"):
        packed(walk, lay, run_stage, layout="in_context", length=8)
