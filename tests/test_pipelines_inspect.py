"""What `ropewalk inspect` shows of similarity: neighbours, and the joints of a sequence."""

import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from ropewalk.pipelines import inspect_similar, joints, measure, nearest
from ropewalk.pipelines.inspect import Inspector
from ropewalk.pipelines.inspect_clusters import show_clusters
from ropewalk.pipelines.inspect_similar import Similar
from ropewalk.schemas import address, files, tables, testing
from ropewalk.schemas.manifest import StageManifest
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import from_matrix

HOSTILE = "<script>alert(1)</script> [red]not red[/] \x1b[31m\u202e"


def text_of(show, *args) -> str:
    console = Console(file=io.StringIO(), width=240)
    show(console, *args)
    return console.file.getvalue()


def similar(url: str, id: str, count: int = 10) -> str:
    return text_of(lambda console: Similar(url, console).show(id, count))


def sequence(url: str, number: int, layout: str | None = None) -> str:
    return text_of(lambda console: Inspector(url, console).sequence(number, layout))


def lay_table(corpus: CorpusDir, folder: str, schema: pa.Schema, shards: list[pa.RecordBatch], **config) -> None:
    target = ShardFolder(files.join(corpus.url, folder), schema, len(shards), "test")
    with measure.Meter() as meter:
        for number, batch in enumerate(shards):
            with target.writer(number) as writer:
                for start in range(0, batch.num_rows, 70):
                    writer.write(batch.slice(start, 70))
        done = target.finish()
    manifest = StageManifest(
        stage=folder.split("/")[-1], key="test", config=config, reads={}, rows=sum(s.rows for s in done), counters={},
        shards=done, run=meter.run(workers=1, runner="none", jobs={}),
    )  # fmt: skip
    files.write_bytes(files.join(target.url, "stage.json"), manifest.model_dump_json().encode())


def lay_vectors(corpus: CorpusDir, *shards: np.ndarray) -> None:
    """A corpus' vectors, NaN in the first place for none."""
    columns = []
    for matrix in shards:
        present = ~np.isnan(matrix[:, 0])
        columns.append(pa.RecordBatch.from_arrays([from_matrix(matrix[present], present)], names=["vector"]))
    lay_table(corpus, "columns/embed", tables.embed_table(shards[0].shape[1]), columns)


def lay_terms(corpus: CorpusDir, terms: dict[int, list[str]]) -> None:
    schema = pa.schema([("cluster", pa.uint32()), ("documents", pa.uint64()), ("terms", pa.list_(pa.string()))])
    rows = [{"cluster": cluster, "documents": 9, "terms": words} for cluster, words in terms.items()]
    url = files.join(corpus.folder("cluster"), "terms.arrow")
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))


def on_grid(matrix: np.ndarray) -> np.ndarray:
    return np.round(matrix / np.linalg.norm(matrix, axis=1, keepdims=True) * 2048) / 2048


def with_copies(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors on the grid of which many are equal, so that ties are decided."""
    random = np.random.default_rng(seed)
    return on_grid(random.normal(size=(max(3, count // 4), width)))[random.integers(0, max(3, count // 4), count)]


def brute_force(ids: list[str], vectors: np.ndarray, row: int, count: int) -> list[tuple[str, str]]:
    whole = np.rint(vectors * 2048).astype(np.int64)
    dots = whole @ whole[row]
    order = sorted((i for i in range(len(ids)) if i != row), key=lambda i: (-dots[i], ids[i]))[:count]
    return [(ids[i], f"{dots[i] / 2**22:.4f}") for i in order]


def shown(text: str) -> list[tuple[str, str]]:
    return [(id_, cosine) for cosine, id_ in re.findall(r"^\d+ · cosine (\S+) · (\w{32})", text, re.M)]


@pytest.mark.parametrize("width", [256, 384])
def test_neighbours_are_those_of_a_loop(lay, width):
    """Against integers, ties and other shards included; the second corpus is the first in other shards and order."""
    (whole, _), count = testing.topical(330), 330
    vectors = with_copies(count, width)
    ids = whole.column("id").to_pylist()
    mixed = np.random.default_rng(1).permutation(count)
    corpora = [lay(whole, name="one"), lay(*(whole.take(pa.array(p)) for p in np.split(mixed, [40, 41])), name="three")]
    lay_vectors(corpora[0], vectors)
    lay_vectors(corpora[1], *(vectors[p] for p in np.split(mixed, [40, 41])))
    for row, most in ((0, 1), (17, 10), (200, 25), (329, 1000)):
        one, other = (similar(corpus.url, ids[row], most) for corpus in corpora)
        assert one == other
        assert shown(one) == brute_force(ids, vectors, row, most)
        assert f"document {ids[row]}" in one and "329 others" in one
    assert similar(corpora[0].url, ids[5][:9]) == similar(corpora[0].url, ids[5])


def test_null_vectors_are_no_neighbours_and_scores_are_watched(lay):
    batch, vectors = testing.documents(150), with_copies(150, 64, seed=3)
    vectors[::3, 0] = np.nan
    corpus = lay(batch.slice(0, 90), batch.slice(90))
    lay_vectors(corpus, vectors[:90], vectors[90:])
    told: list[int] = []
    query = vectors[1].astype(np.float32)
    found, others = nearest.nearest(corpus, query, 7, leave=int(address.of_rows(0, 1, 1)[0]), watch=told.append)
    assert others == 99 and told == sorted(told) and told[-1] == 150
    here = [i for i in range(150) if i % 3]
    expected = brute_force([batch.column("id")[i].as_py() for i in here], vectors[here], here.index(1), 7)
    assert [(one.id, f"{one.similarity:.4f}") for one in found] == expected


def test_where_neighbours_stand_is_told(lay_walk):
    shards, topics = zip(*(testing.topical(count, seed=seed) for seed, count in enumerate((230, 120))), strict=True)
    corpus = lay_walk(list(shards), list(topics))
    lay_terms(corpus, {cluster: [f"word{cluster}", "[red]second[/]", "c", "d", "e", "sixth"] for cluster in range(6)})
    rows = [
        row | {"text": text}
        for s, shard in enumerate(shards)
        for row, text in zip(
            [r for b in corpus.read(s, {"documents": ["id"], "cluster": ["cluster"], "semantic": ["semantic_keep"],
                                        "order": ["rank"], "embed": ["vector"]}) for r in b.to_pylist()],
            shard.column("text").to_pylist(), strict=True)
    ]  # fmt: skip
    by_id = {row["id"]: row for row in rows}
    this = next(row for row in rows if row["rank"] == 50)
    text = similar(corpus.url, this["id"], 400)
    found = [by_id[id_] for id_, _ in shown(text)]
    assert len(found) == sum(row["vector"] is not None for row in rows) - 1
    blocks = re.split(r"^\d+ · cosine", text, flags=re.M)[1:]
    packed = [
        set(row["doc_ids"])
        for path in sorted(Path(corpus.url, "sequences", "in_context-512").glob("*.arrow"))
        for batch in files.open_arrow(str(path)) for row in batch.to_pylist()
    ]  # fmt: skip
    ends = set()
    for row, block in zip(found, blocks, strict=True):
        assert ("OUT: put out by semantic" in block) == (row["semantic_keep"] is False)
        same = row["cluster"] == this["cluster"]
        assert ("the same cluster" in block) == same
        assert same or f"cluster {row['cluster']} (word{row['cluster']}, [red]second[/], c, d, e)" in block
        assert " ".join(row["text"].split())[:100] in block
        if row["rank"] is not None:
            apart = row["rank"] - 50
            ends.add(apart > 0)
            places = f"{abs(apart)} place{'s' if abs(apart) > 1 else ''} {'later' if apart > 0 else 'before'}"
            assert f"rank {row['rank']}, {places}" in block
            together = any({row["id"], this["id"]} <= sequence for sequence in packed)
            assert ("in_context-512: the same sequence" in block) == together
        else:
            assert "rank" not in block and "sequence" not in block.split("These are")[0]
    assert ends == {True, False}
    near = sum(row["rank"] is not None and abs(row["rank"] - 50) <= 10 for row in found)
    assert near == 20 and "; 20 within 10 places of it in the order; " in text


def test_what_cannot_be_compared_is_said(lay_walk):
    shards, topics = testing.topical(200)
    corpus = lay_walk([shards], [topics])
    ids = shards.column("id").to_pylist()

    def first(stage: str, name: str, value: object) -> str:
        read = {"documents": ["id"], stage: [name]}
        return next(r["id"] for b in corpus.read(0, read) for r in b.to_pylist() if r[name] == value)

    with pytest.raises(RecipeError, match="no such document in .* --row 0` shows one"):
        similar(corpus.url, "zz")
    with pytest.raises(RecipeError, match="an empty id"):
        similar(corpus.url, "")
    with pytest.raises(RecipeError, match="several ids begin so"):
        similar(corpus.url, next(id_[0] for id_ in ids if sum(other[0] == id_[0] for other in ids) > 1))
    for stage, name in (("filter", "passed"), ("passages", "enough_left"), ("decontaminate", "clean")):
        gone = first(stage, name, False)
        with pytest.raises(RecipeError, match=f"put out by `{stage}` before `embed`.*explain {corpus.url} {gone}"):
            similar(corpus.url, gone)
    assert "OUT: put out by semantic" in similar(corpus.url, first("semantic", "semantic_keep", False))
    shutil.rmtree(Path(corpus.url, "columns", "embed"))
    with pytest.raises(RecipeError, match="no vectors yet: run the recipe up to `embed`"):
        similar(corpus.url, ids[0])


def test_a_copy_names_the_one_that_was_kept(lay_walk):
    batch = testing.of_texts(["the same words again and again, sixty characters of them at least"] * 2 + ["b" * 70])
    batch = batch.set_column(0, tables.DOCUMENTS.field("id"), pa.array(["a" * 32, "b" * 32, "c" * 32]))
    corpus = lay_walk([batch], [np.zeros(3, np.int64)])
    with pytest.raises(RecipeError, match=f"put out by `dedup` before `embed`.*a copy of {'a' * 32}"):
        similar(corpus.url, "b" * 32)
    # Where copies share an id, the one with a vector is meant.
    corpus = lay_walk([batch.set_column(0, tables.DOCUMENTS.field("id"), pa.array(["b" * 32] * 2 + ["c" * 32]))],
                      [np.zeros(3, np.int64)])  # fmt: skip
    assert [id_ for id_, _ in shown(similar(corpus.url, "b"))] == ["c" * 32]


def test_zero_vectors(lay):
    batch, vectors = testing.documents(40), with_copies(40, 256)
    vectors[7:10] = 0
    corpus = lay(batch)
    lay_vectors(corpus, vectors)
    ids = batch.column("id").to_pylist()
    with pytest.raises(RecipeError, match=f"{ids[8]}: its vector is zero, so it is similar to nothing"):
        similar(corpus.url, ids[8])
    found = dict(shown(similar(corpus.url, ids[0], 100)))
    assert len(found) == 39 and [found[ids[i]] for i in (7, 8, 9)] == ["0.0000"] * 3


@pytest.mark.parametrize("count", [1, 3])
def test_few_documents_and_nothing_but_vectors(lay, count):
    batch = testing.documents(count)
    corpus = lay(batch)
    lay_vectors(corpus, with_copies(count, 256))
    text = similar(corpus.url, batch.column("id")[0].as_py())
    said = "No other document has a vector." if count == 1 else "These are all 2 others that have a vector."
    assert text.rstrip().endswith(said) and "cluster" not in text and "rank" not in text


def test_hostile_text_does_nothing(lay):
    texts = [f"{HOSTILE} {i} " * 30 for i in range(5)]
    batch = testing.of_texts(texts, source=HOSTILE)
    batch = batch.set_column(3, tables.DOCUMENTS.field("url"), pa.array([HOSTILE, None] * 2 + [None], pa.string()))
    corpus = lay(batch)
    lay_vectors(corpus, with_copies(5, 256))
    text = similar(corpus.url, batch.column("id")[0].as_py())
    assert "\x1b" not in text and "\u202e" not in text and text.count("[red]not red[/] �[31m�") >= 10


def test_one_document_of_several_shards_with_a_bar(lay, monkeypatch):
    monkeypatch.setattr(inspect_similar, "QUIET_SECONDS", -1.0)
    batch = testing.documents(60)
    corpus = lay(batch.slice(0, 30), batch.slice(30))
    vectors = with_copies(60, 256)
    lay_vectors(corpus, vectors[:30], vectors[30:])
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True, _environ={})
    Similar(corpus.url, terminal).show(batch.column("id")[0].as_py(), 3)
    assert "looking" in terminal.file.getvalue() and "60/60" in terminal.file.getvalue()


def test_vectors_of_two_runs(lay):
    batch = testing.documents(20)
    corpus = lay(batch.slice(0, 10), batch.slice(10))
    lay_vectors(corpus, with_copies(10, 256), with_copies(10, 256))
    other = ShardFolder(corpus.folder("embed"), tables.embed_table(64), 2, "test")
    with other.writer(1) as writer:
        vectors = from_matrix(with_copies(10, 64), np.ones(10, bool))
        writer.write(pa.RecordBatch.from_arrays([vectors], names=["vector"]))
    with pytest.raises(ValueError, match="shard 1 has vectors of 64 values, the document's has 256: .* again"):
        similar(corpus.url, batch.column("id")[0].as_py())


def packed(corpus: CorpusDir, layout: str) -> list[dict]:
    paths = sorted(Path(corpus.url, "sequences", layout).glob("*.arrow"))
    return [row for path in paths for batch in files.open_arrow(str(path)) for row in batch.to_pylist()]


def test_joints_of_a_sequence(lay_walk):
    shards, topics = zip(*(testing.topical(count, seed=seed) for seed, count in enumerate((150, 80))), strict=True)
    corpus = lay_walk(list(shards), list(topics))
    lay_terms(corpus, {cluster: [f"word{cluster}", HOSTILE] for cluster in range(6)})
    vectors = {
        row["id"]: np.array(row["vector"], np.float64)
        for s in range(2) for b in corpus.read(s, {"documents": ["id"], "embed": ["vector"]}) for row in b.to_pylist()
        if row["vector"] is not None
    }  # fmt: skip
    every = packed(corpus, "random-512")
    number = max(range(len(every)), key=lambda i: len(every[i]["doc_ids"]))
    row = every[number]
    text = sequence(corpus.url, number, "random-512")
    expected = [float(vectors[a] @ vectors[b]) for a, b in zip(row["doc_ids"], row["doc_ids"][1:], strict=False)]
    assert re.findall(r"↕ cosine (\S+)", text) == [f"{cosine:.3f}" for cosine in expected] and len(expected) > 3
    assert text.count("← the weakest joint") == 1
    weak = re.search(r"↕ cosine (\S+) [█·]+  ← the weakest joint", text).group(1)
    assert weak == f"{min(expected):.3f}"
    assert f"{np.mean(expected):.3f} over neighbours ({min(expected):.3f} to {max(expected):.3f})" in text
    assert all(id_ in text for id_ in row["doc_ids"])
    assert re.search(r"cluster \d \(word\d, <script>alert\(1\)</script> \[red\]not red\[/\] �\[31m�\)", text)


def test_sequences_without_vectors_or_documents(lay_walk):
    corpus = lay_walk([testing.topical(100)[0]], [testing.topical(100)[1]])
    for stage in ("embed", "cluster", "order"):
        shutil.rmtree(Path(corpus.url, "columns", stage))
    text = sequence(corpus.url, 0)
    assert "↕ no vectors to compare" in text and "weakest" not in text and "cluster" not in text
    row = packed(corpus, "in_context-512")[0]
    gone, path = row["doc_ids"][1], Path(corpus.url, "documents", "data-00000-of-00001.arrow")
    batches = list(files.open_arrow(str(path)))
    with pa.OSFile(str(path) + "x", "wb") as sink, pa.ipc.new_stream(sink, tables.DOCUMENTS) as writer:
        for batch in batches:
            ids = pa.array(["f" * 32 if id_ == gone else id_ for id_ in batch.column("id").to_pylist()])
            writer.write_batch(batch.set_column(0, tables.DOCUMENTS.field("id"), ids))
    Path(str(path) + "x").rename(path)
    assert f"{gone}: not in the corpus any more" in sequence(corpus.url, 0)


def test_weakest_joint():
    assert joints.weakest([None, 0.5, 0.2, None, 0.2]) == 2
    assert joints.weakest([None, 0.5]) is None and joints.weakest([]) is None
    assert joints.joints([]) == [] and joints.joints([None, np.ones(1, np.float32)]) == [None, None]


def test_names_of_manifest_are_kept(lay):
    """A stage whose columns belong to another ingest does not count."""
    batch = testing.documents(5)
    corpus = lay(batch)
    lay_vectors(corpus, with_copies(5, 256))
    path = Path(corpus.url, "columns", "embed", "stage.json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"rows": 4}))
    with pytest.raises(RecipeError, match=r"no vectors yet.*\(The columns of embed belong to an earlier ingest"):
        similar(corpus.url, batch.column("id")[0].as_py())


def clusters(url: str, count: int = 10) -> str:
    return text_of(lambda console: show_clusters(CorpusDir.open(url), count, console))


def test_clusters_are_those_of_a_loop(lay):
    (whole, _), count = testing.topical(300), 300
    random = np.random.default_rng(2)
    number = [None if random.random() < 0.1 else int(random.choice([0, 2, 2, 3, 7, 7, 7])) for _ in range(count)]
    distance = [None if c is None else float(np.float32(random.integers(2, 12) / 16)) for c in number]  # many ties
    columns = pa.RecordBatch.from_pydict({"cluster": number, "distance": distance}, schema=tables.CLUSTER)
    mixed = np.random.default_rng(1).permutation(count)
    orders = [[np.arange(count)], np.split(mixed, [70, 71])]
    texts = []
    for name, parts in zip(("one", "three"), orders, strict=True):
        corpus = lay(*(whole.take(pa.array(part)) for part in parts), name=name)
        lay_table(corpus, "columns/cluster", tables.CLUSTER, [columns.take(pa.array(part)) for part in parts])
        lay_terms(corpus, {2: ["two", HOSTILE], 7: ["seven"]})
        texts.append(clusters(corpus.url))
        assert "the 1 largest" in clusters(corpus.url, 1)
    assert texts[0] == texts[1]
    ids, sizes = whole.column("id").to_pylist(), Counter(c for c in number if c is not None)
    assert f"{sum(sizes.values())} documents in 4 clusters\n" in texts[0]
    order = sorted(sizes, key=lambda c: (-sizes[c], c))
    blocks = re.split(r"^cluster ", texts[0], flags=re.M)[1:]
    assert [int(block.split()[0]) for block in blocks] == order
    for cluster, block in zip(order, blocks, strict=True):
        rows = [i for i in range(count) if number[i] == cluster]
        mean = 1 - sum(distance[i] for i in rows) / len(rows)
        assert f"{len(rows)} documents, {len(rows) / sum(sizes.values()):.1%} · mean cosine" in block
        assert f"with its centroid {mean:.3f}" in block
        best = sorted(rows, key=lambda i: (distance[i], ids[i]))[:3]
        assert re.findall(r"^  (\S+)  (\w{32})", block, re.M) == [(f"{1 - distance[i]:.3f}", ids[i]) for i in best]
        assert ("\nseven\n" in block) == (cluster == 7)
    assert "\x1b" not in texts[0] and "[red]not red[/] �[31m�" in texts[0]


def test_no_clusters_are_said(lay_walk):
    corpus = lay_walk([testing.topical(30)[0]], [testing.topical(30)[1]])
    shutil.rmtree(Path(corpus.url, "columns", "cluster"))
    with pytest.raises(RecipeError, match="no clusters yet: run the recipe up to `cluster`"):
        clusters(corpus.url)


def test_no_document_in_a_cluster(lay):
    corpus = lay(testing.documents(4))
    none = pa.RecordBatch.from_pydict({"cluster": [None] * 4, "distance": [None] * 4}, schema=tables.CLUSTER)
    lay_table(corpus, "columns/cluster", tables.CLUSTER, [none])
    assert clusters(corpus.url) == "0 documents in 0 clusters\n"
