"""The stage `semantic` after the real stages it reads."""

import collections

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import semantic
from ropewalk.schemas import tables, testing
from ropewalk.schemas.recipe import parse_recipe

WALK = ("filter", "embed", "cluster", "semantic")
COLUMNS = {
    "documents": ["id", "text", "source"], "filter": ["passed"], "embed": ["vector"],
    "cluster": ["cluster", "distance"], "semantic": ["semantic_keep", "semantic_dup_of", "semantic_similarity"],
}  # fmt: skip


def reworded(count, *, seed=0):
    """Documents of a few meanings: the same 25 words in another order, one or two of them changed."""
    random = np.random.default_rng(seed)
    meanings = [[f"w{i}" for i in random.integers(0, 400, 25)] for _ in range(max(1, count // 4))]
    texts = []
    for i in range(count):
        words = [str(w) for w in random.permutation(meanings[int(random.integers(len(meanings)))])]
        for place in random.integers(0, 25, int(random.integers(0, 4))):
            words[place] = f"other{random.integers(99)}"
        texts.append(" ".join(words if i % 17 else words[:2]))  # some are too short for the filter
    batch = testing.of_texts(texts)
    sources = pa.array([("web", "books")[i % 3 == 0] for i in range(count)], pa.string())
    return batch.set_column(2, tables.DOCUMENTS.field("source"), sources)


def cut(documents, shards, *, seed=0):
    order = np.random.default_rng(seed).permutation(documents.num_rows) if seed else np.arange(documents.num_rows)
    mixed = documents.take(pa.array(order))
    borders = np.linspace(0, documents.num_rows, shards + 1).astype(int).tolist()
    return [mixed.slice(a, b - a) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def walk(run_stage, corpus, engine=None, cluster=None, **settings):
    made = parse_recipe({
        "output": corpus.url, "input": "x", "filter": {"min_chars": 20}, "dedup": False, "tokenize": False,
        "pack": False, "cluster": cluster or {"size": 30, "max_size": 60}, "semantic": settings,
    })  # fmt: skip
    return [run_stage(corpus, made, stage, engine) for stage in WALK][-1]


def rows(corpus):
    found = [r for s in range(len(corpus.file_names)) for b in corpus.read(s, COLUMNS) for r in b.to_pylist()]
    assert len(found) == corpus.manifest().rows
    return found


def outcome(corpus):
    return {row["id"]: tuple(row[name] for name in COLUMNS["semantic"]) for row in rows(corpus)}


@pytest.mark.parametrize("rule", ["survivor", "earlier"])
def test_every_verdict_is_right_and_counted(lay, run_stage, rule):
    corpus = lay(*cut(reworded(240), 3))
    manifest = walk(run_stage, corpus, rule=rule, epsilon=0.2)
    found = rows(corpus)
    by_cluster = collections.defaultdict(list)
    for row in found:
        if row["passed"]:
            by_cluster[row["cluster"]].append(row)
        else:
            assert row["semantic_keep"] is row["semantic_dup_of"] is row["semantic_similarity"] is None
    removed = 0
    for members in by_cluster.values():
        members.sort(key=lambda row: (-row["distance"], row["id"]))
        for place, row in enumerate(members):
            v = np.array(row["vector"], np.float64)
            near = [
                (float(v @ w) / float(np.sqrt((v @ v) * (w @ w))), -i, other["id"])
                for i, other in enumerate(members[:place])
                if rule == "earlier" or other["semantic_keep"]
                for w in [np.array(other["vector"], np.float64)]
            ]
            best = max(near, default=(0, 0, None))
            assert row["semantic_keep"] == (best[0] <= 1 - 0.2)
            expected = (None, None) if row["semantic_keep"] else (best[2], np.float32(best[0]))
            assert (row["semantic_dup_of"], row["semantic_similarity"]) == expected
            removed += not row["semantic_keep"]
    considered = sum(len(members) for members in by_cluster.values())
    assert 60 < removed < considered - 20 and considered < 240
    counters, facts = manifest.counters, manifest.facts
    assert counters["docs-in"] == 240 and counters["put_out-docs"] == 240 - considered
    assert counters["kept-docs"] + counters["semantic_duplicate-docs"] == considered == facts["documents"]
    assert counters["semantic_duplicate-docs"] == removed == facts["removed"]
    sizes = collections.Counter(_class(len(m)) for m in by_cluster.values())
    assert {name: entry["clusters"] for name, entry in facts["cluster_sizes"].items()} == dict(sizes)
    assert sum(entry["docs"] for entry in facts["cluster_sizes"].values()) == considered
    assert sum(entry["removed"] for entry in facts["cluster_sizes"].values()) == removed
    for source in ("web", "books"):
        own = [row for row in found if row["source"] == source and row["passed"]]
        gone = sum(not row["semantic_keep"] for row in own)
        assert facts["sources"][source] == {"docs": len(own), "removed": gone}


def _class(size):
    low, high = 0, 1
    while size > high:
        low, high = high, 2 * high
    return str(high) if high - low == 1 else f"{low + 1}-{high}"


def test_sharding_order_passes_and_groups_change_nothing(lay, run_stage, monkeypatch):
    documents = reworded(240, seed=2)
    found = []
    for name, shards, seed, engine in (
        ("one", 1, 0, None), ("four", 4, 1, None), ("seven", 7, 2, Engine(memory_mb=0)),
    ):  # fmt: skip
        corpus = lay(*cut(documents, shards, seed=seed), name=name)
        facts = walk(run_stage, corpus, engine, epsilon=0.1).facts
        found.append((outcome(corpus), facts))
        monkeypatch.setattr(semantic, "GROUP_BYTES", 40_000)
    assert found[0] == found[1] == found[2]


def test_equal_texts_leave_the_one_with_the_smallest_id(lay, run_stage):
    same = "the very same words in every one of them, and not a word more"
    corpus = lay(*cut(testing.of_texts([same] * 90 + ["quite another matter altogether, in its own words"]), 2))
    manifest = walk(run_stage, corpus, cluster={"size": 20, "max_size": 30}, epsilon=0.001)
    found = rows(corpus)
    copies = sorted((row for row in found if row["text"] == same), key=lambda row: row["id"])
    assert [row["semantic_keep"] for row in copies] == [True] + [False] * 89
    assert {row["semantic_dup_of"] for row in copies[1:]} == {copies[0]["id"]}
    assert {row["semantic_similarity"] for row in copies[1:]} == {1.0}
    assert manifest.counters["semantic_duplicate-docs"] == 89
    assert next(row for row in found if row["text"] != same)["semantic_keep"]


@pytest.mark.parametrize("count", [0, 2])
def test_few_documents(lay, run_stage, count):
    texts = [f"rope walk number {i} in full words {'abc'[i]}" for i in range(count)] + ["short"] * 3
    corpus = lay(*cut(testing.of_texts(texts), 2))
    manifest = walk(run_stage, corpus, cluster={"size": 1, "max_size": 2}, epsilon=0.001)
    assert manifest.facts["documents"] == count and manifest.counters["put_out-docs"] == 3
    assert [keep for keep, *_ in outcome(corpus).values()].count(True) == count
