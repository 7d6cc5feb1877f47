"""The stage `neighbours` after the real stages it reads, against brute force."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.kernels import blocked_search
from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import neighbours as stage
from ropewalk.schemas import files, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms import cell_neighbours

WALK = ("filter", "embed", "cluster", "semantic", "neighbours")
COLUMNS = {
    "documents": ["id", "text"], "filter": ["passed"], "embed": ["vector"], "cluster": ["cluster"],
    "neighbours": ["neighbours", "neighbour_similarity"],
}  # fmt: skip


def mixed(count, *, seed=0):
    """Documents between topics, a tenth of them with one text, a few too short for the filter."""
    random = np.random.default_rng(seed)
    texts = []
    for i in range(count):
        topic = int(random.integers(8))
        words = [f"w{topic}x{j}" for j in random.integers(0, 25, 12)]  # and as many of any other topic
        words += [f"w{random.integers(8)}x{j}" for j in random.integers(0, 25, 12)]
        texts.append("short" if i % 19 == 0 else "the same words here and there" if i % 10 == 0 else " ".join(words))
    return testing.of_texts(texts)


def cut(documents, shards, *, seed=0):
    order = np.random.default_rng(seed).permutation(documents.num_rows) if seed else np.arange(documents.num_rows)
    shuffled = documents.take(pa.array(order))
    borders = np.linspace(0, documents.num_rows, shards + 1).astype(int).tolist()
    return [shuffled.slice(a, b - a) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def walk(run_stage, corpus, engine=None, cluster=None, semantic=False, **settings):
    made = parse_recipe({
        "output": corpus.url, "input": "x", "filter": {"min_chars": 20}, "dedup": False, "tokenize": False,
        "pack": False, "cluster": cluster or {"size": 25, "max_size": 50, "terms": 0}, "semantic": semantic,
        "neighbours": settings,
    })  # fmt: skip
    return [run_stage(corpus, made, name, engine) for name in WALK if made.enabled(name)][-1]


def rows(corpus):
    return [r for s in range(len(corpus.file_names)) for b in corpus.read(s, COLUMNS) for r in b.to_pylist()]


def brute(found, count, cells=None):
    """Address -> [(similarity, address)] by integers, whole corpus, or the cells that each document searches."""
    alive = [row for row in found if row["passed"]]
    vectors = np.rint(np.array([row["vector"] for row in alive]) * 2048).astype(np.int64)
    scores = vectors @ vectors.T
    expected = {}
    for i, row in enumerate(alive):
        near = [
            (-int(scores[i, j]), other["id"], other["address"])
            for j, other in enumerate(alive)
            if j != i and scores[i, j] > 0 and (cells is None or other["cluster"] in cells[row["address"]])
        ]
        expected[row["address"]] = [(-score / 2**22, address) for score, _, address in sorted(near)[:count]]
    return expected


def lists(found):
    return {
        row["address"]: list(zip(row["neighbour_similarity"], row["neighbours"], strict=True))
        for row in found
        if row["neighbours"] is not None
    }


def outcome(corpus):
    """Ids and similarities of every document's neighbours by id, and the edges between ids."""
    found = rows(corpus)
    ids = {row["address"]: row["id"] for row in found}
    near = {row["id"]: row["neighbours"] and [(s, ids[a]) for s, a in lists([row])[row["address"]]] for row in found}
    edges = datasets.load_from_disk(files.join(corpus.folder("neighbours"), "edges"))
    return near, {(frozenset((ids[e["a"]], ids[e["b"]])), e["similarity"]) for e in edges}


def test_all_cells_are_brute_force(lay, run_stage):
    corpus = lay(*cut(mixed(300), 3))
    manifest = walk(run_stage, corpus, count=7, cells=256)
    found = rows(corpus)
    assert all((row["neighbours"] is None) == (not row["passed"]) for row in found)
    assert lists(found) == brute(found, 7)
    assert manifest.facts["recall_at_k"] == 1.0 and manifest.facts["recall_sample"] == manifest.facts["documents"]


def test_cells_are_the_own_and_the_nearest(lay, run_stage):
    corpus = lay(*cut(mixed(300), 3))
    manifest = walk(run_stage, corpus, count=5, cells=3)
    found = rows(corpus)
    stored = pa.ipc.open_stream(files.join(corpus.folder("cluster"), "centroids.arrow")).read_all()
    centroids = np.rint(np.array(stored["vector"].to_pylist()) * 2048).astype(np.int64)
    cells = {}
    for row in found:
        if row["passed"]:
            scores = centroids @ np.rint(np.array(row["vector"]) * 2048).astype(np.int64)
            others = [c for c in np.argsort(-scores, kind="stable").tolist() if c != row["cluster"]]
            cells[row["address"]] = {row["cluster"], *others[:2]}
    expected = brute(found, 5, cells)
    true = brute(found, 5)
    assert lists(found) == expected != true
    # Counters and facts say what the columns say.
    facts, counters = manifest.facts, manifest.counters
    links = [similarity for near in expected.values() for similarity, _ in near]
    assert counters["docs-in"] == 300 and counters["put_out-docs"] == 300 - len(expected)
    assert counters["linked-docs"] + counters["alone-docs"] == len(expected) == facts["documents"]
    assert facts["links"] == len(links) == counters["found-links"] and facts["questions"] == 3 * len(expected)
    assert facts["mean_similarity"] == pytest.approx(np.mean(links), abs=1e-6)
    hits = sum(sum(s >= true[a][-1][0] for s, _ in near) for a, near in expected.items() if true[a])
    assert facts["recall_at_k"] == pytest.approx(hits / sum(map(len, true.values())), abs=1e-6)
    assert 0.5 < facts["recall_at_k"] < 1
    # The graph: an edge where either has the other.
    edges = datasets.load_from_disk(files.join(corpus.folder("neighbours"), "edges"))
    pairs = {(min(a, b), max(a, b), s) for a, near in expected.items() for s, b in near}
    assert [(e["a"], e["b"], e["similarity"]) for e in edges] == sorted(pairs) and facts["edges"] == len(pairs)
    assert [batch["a"][0].as_py() >> 32 for batch in edges.data.to_batches() if batch.num_rows] == [0, 1, 2]
    assert "_work" not in files.names(corpus.folder("neighbours")) and "_shards" not in files.names(
        files.join(corpus.folder("neighbours"), "edges")
    )


def test_sharding_order_passes_and_groups_change_nothing(lay, run_stage, monkeypatch):
    documents = mixed(240, seed=2)
    found = []
    for name, shards, seed, engine in (
        ("one", 1, 0, None), ("four", 4, 1, None), ("seven", 7, 2, Engine(memory_mb=0)),
    ):  # fmt: skip
        corpus = lay(*cut(documents, shards, seed=seed), name=name)
        facts = walk(run_stage, corpus, engine, count=4, cells=2, recall_sample=50).facts
        found.append((outcome(corpus), facts))
        monkeypatch.setattr(stage, "GROUP_BYTES", 40_000)
        monkeypatch.setattr(blocked_search, "BLOCK_BYTES", 1000)
    assert found[0] == found[1] == found[2]


def test_semantic_duplicates_are_nobodys_neighbours(lay, run_stage):
    corpus = lay(*cut(mixed(200), 2))
    manifest = walk(run_stage, corpus, semantic={"epsilon": 0.05}, count=3, cells=3, edges=False)
    kept = [
        b.to_pylist() for s in range(2)
        for b in corpus.read(s, {"semantic": ["semantic_keep"], "neighbours": ["neighbours"]})
    ]  # fmt: skip
    kept = {row["address"]: row for part in kept for row in part}
    assert {a for a, row in kept.items() if row["neighbours"] is not None} == {
        a for a, row in kept.items() if row["semantic_keep"]
    }
    assert all(kept[n]["semantic_keep"] for row in kept.values() for n in row["neighbours"] or ())
    assert manifest.facts["edges"] is None and "edges" not in files.names(corpus.folder("neighbours"))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_documents(lay, run_stage, count):
    texts = [f"rope walk number {i} in full words {'abc'[i]}" for i in range(count)] + ["short"] * 3
    corpus = lay(*cut(testing.of_texts(texts), 2))
    facts = walk(run_stage, corpus, cluster={"size": 1, "max_size": 2}).facts
    assert facts["documents"] == count and facts["links"] == count * (count - 1)
    assert lists(rows(corpus)) == brute(rows(corpus), 10)
    assert len(datasets.load_from_disk(files.join(corpus.folder("neighbours"), "edges"))) == count * (count - 1) // 2


def test_texts_without_a_word_have_no_neighbours(lay, run_stage):
    texts = ["! " * 20 + "." * i for i in range(12)] + [f"rope walk number {i} in words" for i in range(12)]
    corpus = lay(*cut(testing.of_texts(texts), 2))
    manifest = walk(run_stage, corpus, cluster={"size": 5, "max_size": 9}, count=3)
    found = rows(corpus)
    zero = [row for row in found if not any(row["vector"])]
    assert len(zero) == 12 == manifest.facts["alone"] and all(row["neighbours"] == [] for row in zero)
    near = lists(found)
    assert all(len(near[row["address"]]) == 3 for row in found if any(row["vector"]))


def test_an_interrupted_search_goes_on_where_it_was(lay, run_stage, monkeypatch):
    corpus = lay(*cut(mixed(240), 3))
    monkeypatch.setattr(stage, "GROUP_BYTES", 60_000)
    monkeypatch.setattr(blocked_search, "BLOCK_BYTES", 4000)
    expected = walk(run_stage, corpus, count=4, cells=2).facts
    before = outcome(corpus)
    files.remove(corpus.folder("neighbours"))
    merge = cell_neighbours.MergeNeighbours.__call__

    def failing(self, partial):
        raise RuntimeError("power cut")

    monkeypatch.setattr(cell_neighbours.MergeNeighbours, "__call__", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        walk(run_stage, corpus, count=4, cells=2)
    monkeypatch.setattr(cell_neighbours.MergeNeighbours, "__call__", merge)

    def never(self, batch):
        raise AssertionError("searched again")

    monkeypatch.setattr(cell_neighbours.SearchCells, "__call__", never)
    made_again = walk(run_stage, corpus, count=4, cells=2).facts
    assert made_again == expected and outcome(corpus) == before
