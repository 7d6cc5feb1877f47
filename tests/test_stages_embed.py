"""The stage embed with an encoder: any sharding, new documents, interruptions, bad vectors, centring."""

import json
import zlib
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines import corpus as walk
from ropewalk.pipelines import plan
from ropewalk.pipelines.jobs import Engine
from ropewalk.schemas import files, tables, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.schemas.similarity import EmbedConfig
from ropewalk.transforms import vectors
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.embedders import load
from ropewalk.transforms.embedders.encoder import EmbedderError

CALLS = []
"""Windows that `Letters` was asked for."""
DIES_AT = [10**9]


@dataclass(frozen=True)
class Letters:
    """Counts letters, one piece a character; `!` makes NaN of a window."""

    limit: int = 100
    short: int = 20
    dimensions: int = 26
    name = "letters"
    fingerprint = "letters"

    def setup(self):
        pass

    def pieces(self, texts):
        return texts.to_pylist()

    def encode(self, windows):
        if len(CALLS) + len(windows) > DIES_AT[0]:
            raise EmbedderError("embedder letters: power cut")
        CALLS.extend(windows)
        rows = np.array([np.bincount([ord(c) % 26 for c in w], minlength=26) for w in windows], np.float32)
        rows[["!" in w for w in windows]] = np.nan
        return rows


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    CALLS.clear()
    DIES_AT[0] = 10**9
    monkeypatch.setattr(load, "encoder", lambda config, threads=1: Letters())


def words(count, seed, longest=60):
    random = np.random.default_rng(seed)
    vocabulary = ["".join(random.choice(list("abcdefghijklmnop"), 5)) for _ in range(40)]
    return [" ".join(random.choice(vocabulary, random.integers(3, longest))) + f" {seed} {i}" for i in range(count)]


def write(folder, name, texts):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


OFF = {stage: False for stage in ("dedup", "tokenize", "cluster", "order", "pack", "report")}


def run(tmp_path, out="out", filter=None, **embed):
    recipe = {"output": str(tmp_path / out), "input": {"path": str(tmp_path / "in" / "*.jsonl")}, **OFF}
    recipe |= {"filter": filter or {"min_chars": 20}, "embed": {"embedder": "minilm"} | embed}
    recipe["ingest"] = {"shard_bytes": 4000}
    return walk.run(parse_recipe(recipe), Engine())


def rows_of(tmp_path, out="out"):
    url = str(tmp_path / out)
    parts = [datasets.load_from_disk(f"{url}/{name}") for name in ("documents", "columns/filter", "columns/embed")]
    return sorted(datasets.concatenate_datasets(parts, axis=1), key=lambda row: row["id"])


def shard_bytes(tmp_path, out="out"):
    folder = tmp_path / out / "columns" / "embed"
    return {path.name: zlib.crc32(path.read_bytes()) for path in folder.glob("data-*.arrow")}


@pytest.mark.parametrize("centre", [False, True])
def test_any_sharding_gives_the_same(lay, run_stage, centre):
    documents = testing.of_texts([*words(90, 1), *words(9, 2, longest=2000), "", "!", "a!" * 300])
    made = parse_recipe(
        {
            "output": "x",
            "input": "x",
            **OFF,
            "filter": False,
            "embed": {"embedder": "minilm", "centre": centre, "max_windows": 32},
        }
    )
    found = []
    for number, (count, seed) in enumerate([(1, 0), (3, 5)]):
        order = np.random.default_rng(seed).permutation(documents.num_rows) if seed else np.arange(documents.num_rows)
        shuffled = documents.take(order)
        borders = np.linspace(0, documents.num_rows, count + 1).astype(int)
        parts = [shuffled.slice(a, b - a) for a, b in zip(borders[:-1], borders[1:], strict=True)]
        corpus = lay(*parts, name=f"corpus{number}")
        manifest = run_stage(corpus, made, "embed")
        tables = [datasets.load_from_disk(corpus.folder(name)) for name in ("documents", "embed")]
        rows = {row["id"]: row for row in datasets.concatenate_datasets(tables, axis=1)}
        found.append((rows, manifest.counters, manifest.facts))
    assert found[0] == found[1]
    rows, counters, facts = found[0]
    assert counters["embedded-docs"] == len(rows) == 102 and counters["zero_vector-docs"] == 3
    by_text = {row["text"]: row for row in rows.values()}
    assert by_text[""]["num_windows"] == 0 and by_text["!"]["text_hash"] is None
    long = max(by_text.values(), key=lambda row: len(row["text"]))
    assert long["num_windows"] == 32 and 0 < long["dispersion"] < 1 and len(long["head_vector"]) == 26
    assert facts["windows"] == sum(row["num_windows"] for row in rows.values())
    assert facts["windowed_docs"] == sum(row["num_windows"] > 1 for row in rows.values())
    assert facts["most_windows_docs"] == sum(row["num_windows"] == 32 for row in rows.values()) > 0
    assert -1 <= facts["length_bias"] <= 1 and facts["length_bias_docs"] == 99
    assert ("raw_vector" in long) == centre
    if centre:
        assert -1 <= facts["length_bias_centred"] <= 1


def test_only_new_documents_are_embedded(tmp_path):
    write(tmp_path / "in", "b.jsonl", words(30, 1))
    run(tmp_path)
    assert len({*CALLS}) >= 30
    before = len(CALLS)
    # A file that sorts before the first moves every document of it.
    new = words(12, 2)
    write(tmp_path / "in", "a.jsonl", new)
    CALLS.clear()
    outcome = run(tmp_path)
    assert 0 < len(CALLS) < before and all(any(call in text for text in new) for call in CALLS)
    assert outcome.stages["embed"].counters["reused-docs"] == 30
    assert outcome.stages["embed"].counters["embedded-docs"] == 42
    run(tmp_path, out="fresh")
    assert rows_of(tmp_path) == rows_of(tmp_path, "fresh") and shard_bytes(tmp_path) == shard_bytes(tmp_path, "fresh")
    assert not {"_earlier", "_work"} & set(files.names(str(tmp_path / "out/columns/embed")))
    # Documents that go, and other verdicts on those that stay, cost nothing; nor does another way of centring.
    (tmp_path / "in" / "b.jsonl").write_text("".join((tmp_path / "in" / "b.jsonl").read_text().splitlines(True)[5:]))
    strict = {"filter": {"min_chars": 100}}
    for settings in ({}, strict, strict | {"centre": True}, strict):
        CALLS.clear()
        counters = run(tmp_path, **settings).stages["embed"].counters
        assert CALLS == []
    assert 0 < counters["embedded-docs"] == counters["reused-docs"] < 37
    # Another way of pooling makes other vectors.
    run(tmp_path, max_windows=2)
    assert len(CALLS) > 0


def test_what_was_embedded_before_a_crash_is_not_lost(tmp_path):
    for number in range(4):
        write(tmp_path / "in", f"{number}.jsonl", words(20, number))
    run(tmp_path, out="fresh")
    total = len(CALLS)
    CALLS.clear()
    DIES_AT[0] = total * 3 // 5
    with pytest.raises(Exception, match="embedder letters: power cut"):
        run(tmp_path)
    assert CorpusDir(str(tmp_path / "out")).stage_manifest("columns/embed") is None
    spent = len(CALLS)
    DIES_AT[0] = 10**9
    CALLS.clear()
    run(tmp_path)
    assert len(CALLS) < total and shard_bytes(tmp_path) == shard_bytes(tmp_path, "fresh")
    assert len(shard_bytes(tmp_path)) > 1 and spent + len(CALLS) < 2 * total
    # And if the documents change before it is run again.
    files.remove(str(tmp_path / "out/columns"))
    CALLS.clear()
    DIES_AT[0] = total * 3 // 5
    with pytest.raises(Exception, match="power cut"):
        run(tmp_path)
    DIES_AT[0] = 10**9
    CALLS.clear()
    write(tmp_path / "in", "0a.jsonl", words(3, 9))
    counters = run(tmp_path).stages["embed"].counters
    assert counters["reused-docs"] > 0 and counters["embedded-docs"] == 83 and len(CALLS) < total


@pytest.mark.parametrize("count", [1, 2, 30])
def test_bad_vectors_and_copies_reach_the_sequences(tmp_path, count):
    write(tmp_path / "in", "a.jsonl", ["the very same words " * 3] * count + ["!" * 30] * (count > 1))
    recipe = {
        "output": str(tmp_path / "out"), "input": {"path": str(tmp_path / "in" / "*.jsonl")}, "dedup": False,
        "tokenize": {"tokenizer": "bytes"}, "embed": {"embedder": "minilm"}, "filter": {"min_chars": 1},
        "pack": [{"layout": "in_context", "length": 64}],
    }  # fmt: skip
    outcome = walk.run(parse_recipe(recipe), Engine())
    counters = outcome.stages["embed"].counters
    documents = outcome.corpus.rows
    assert counters["embedded-docs"] == documents
    assert counters["not_finite_vector-docs"] == counters["zero_vector-docs"] == documents - count
    packed = datasets.load_from_disk(str(tmp_path / "out/sequences/in_context-64"))
    assert sum(start == 0 for row in packed for start in row["doc_starts"]) == documents
    assert sum(packed["num_tokens"]) == outcome.stages["tokenize"].counters["tokens"]


def test_lexical_vectors_are_centred_too(lay, run_stage):
    documents = testing.of_texts([*words(40, 1), *words(40, 2, longest=900)])
    made = parse_recipe({"output": "x", "input": "x", **OFF, "filter": False, "embed": {"centre": True}})
    found = []
    for number, order in enumerate((np.arange(80), np.random.default_rng(0).permutation(80))):
        shuffled = documents.take(order)
        corpus = lay(
            *(shuffled.slice(a, 80 // (number + 1)) for a in range(0, 80, 80 // (number + 1))), name=f"c{number}"
        )
        manifest = run_stage(corpus, made, "embed")
        rows = datasets.concatenate_datasets(
            [datasets.load_from_disk(corpus.folder(name)) for name in ("documents", "embed")], axis=1
        )
        found.append(
            ({row["id"]: (row["vector"], row["raw_vector"]) for row in rows}, manifest.counters, manifest.facts)
        )
    assert found[0] == found[1]
    assert found[0][1]["embedded-docs"] == 80 and "reused_docs" not in found[0][2]
    vectors, raw = (np.array(part) for part in zip(*found[0][0].values(), strict=True))
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 0.01 and not np.array_equal(vectors, raw)


def test_force_embeds_all_again(tmp_path):
    write(tmp_path / "in", "a.jsonl", words(10, 1))
    run(tmp_path)
    CALLS.clear()
    run(tmp_path)
    assert CALLS == []
    recipe = {"output": str(tmp_path / "out"), "input": {"path": str(tmp_path / "in" / "*.jsonl")}, **OFF}
    recipe |= {"filter": {"min_chars": 20}, "embed": {"embedder": "minilm"}, "ingest": {"shard_bytes": 4000}}
    walk.run(parse_recipe(recipe), Engine(), first="embed", until="embed", force=True)
    assert len(CALLS) >= 10


def test_every_collection_of_the_search_has_a_type(tmp_path):
    """As `test_pipeline_types` for the stages: `Any` would be pickled."""
    import apache_beam as beam
    from apache_beam.pipeline import PipelineVisitor

    from ropewalk.transforms.earlier_vectors import MATCHES, EarlierVectors, FindEarlier
    from ropewalk.transforms.shards import ShardFolder

    class Kinds(PipelineVisitor):
        found = []

        def visit_transform(self, node):
            self.found += [(node.full_label, output.element_type) for output in node.outputs.values()]

    earlier = EarlierVectors(CorpusDir(str(tmp_path), ("a",)), ("0.arrow",), ShardFolder("x", MATCHES, 1, "k"))
    pipeline = beam.Pipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner")
    pipeline | FindEarlier(earlier, [], [], [0], 4)
    pipeline.visit(Kinds())
    assert len(Kinds.found) > 5
    assert [label for label, kind in Kinds.found if kind in (None, beam.typehints.Any)] == []


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize(("embedder", "width"), [("lexical", 256), ("static", 256), ("minilm", 384)])
def test_the_plan_knows_the_size_of_the_columns(embedder, width, centre):
    other = embedder != "lexical"
    schema = tables.embed_table(width, reusable="x" if other else None, windowed=embedder == "minilm", centred=centre)
    values = {
        "dispersion": pa.array(np.zeros(100, np.float32)), "num_windows": pa.array(np.zeros(100, np.uint32)),
        "text_hash": pa.array(["0" * 32] * 100),
    }  # fmt: skip
    matrix = vectors.from_matrix(np.zeros((100, width), np.float16), np.ones(100, bool))
    batch = pa.RecordBatch.from_arrays([values.get(field.name, matrix) for field in schema], schema=schema)
    planned = plan.vector_bytes(EmbedConfig(embedder=embedder, centre=centre))
    assert planned[0] == 2 * width and abs(planned[1] - batch.nbytes / 100) < 1
    assert 2 * planned[0] <= 2048  # a vector and the one of the first window: at most 1 KiB each


def test_the_plan_counts_windows():
    config = EmbedConfig(embedder="minilm", max_windows=4)
    assert plan.windows(EmbedConfig(), 10, 10**6) is None
    assert plan.windows(config, 10, 10**9) == 40 and plan.windows(config, 10, 900) == 11
