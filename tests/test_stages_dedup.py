import collections

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import dedup
from ropewalk.schemas import testing
from ropewalk.schemas.recipe import parse_recipe

OUT = ("keep", "dup_of", "component_size", "similarity")


def rows(corpus) -> list[dict]:
    columns = {"documents": ["id", "text", "num_bytes"], "dedup": list(OUT)}
    return [
        row for shard in range(len(corpus.file_names)) for b in corpus.read(shard, columns) for row in b.to_pylist()
    ]


def by_id(corpus) -> dict:
    return {row["id"]: tuple(row[name] for name in OUT) for row in rows(corpus)}


def recipe(corpus, filter=False, input="x", **settings):
    return parse_recipe({"output": corpus.url, "input": input, "filter": filter, "dedup": settings})


def jaccard(a: str, b: str, ngram: int = 5) -> float:
    x, y = ({tuple(w[i : i + ngram]) for i in range(max(len(w) - ngram + 1, 1))} for w in (a.split(), b.split()))
    return len(x & y) / len(x | y)


def cut(documents: pa.RecordBatch, shards: int) -> list[pa.RecordBatch]:
    borders = np.linspace(0, documents.num_rows, shards + 1).astype(int).tolist()
    return [documents.slice(a, b - a) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def test_every_verdict_is_right_and_counted(lay, run_stage):
    documents = testing.documents(400, seed=3, words=(2, 70), copies=0.5)
    corpus = lay(*cut(documents, 3))
    manifest = run_stage(corpus, recipe(corpus, threshold=0.7), "dedup")
    found = rows(corpus)
    by = {row["id"]: row for row in found}
    groups = collections.defaultdict(list)
    for row in found:
        groups[row["dup_of"] or row["id"]].append(row)
        assert row["keep"] == (row["dup_of"] is None) == (row["similarity"] is None)
        if row["dup_of"]:
            best = by[row["dup_of"]]
            assert best["keep"] and row["similarity"] == np.float32(jaccard(row["text"], best["text"]))
    for best, group in groups.items():
        assert all(row["component_size"] == len(group) for row in group)
        assert best == min(group, key=lambda row: (-row["num_bytes"], row["id"]))["id"]
        # Each document has reached the group through some document similar enough.
        for row in group:
            near = [jaccard(row["text"], other["text"]) for other in group if other is not row]
            assert len(group) == 1 or max(near) >= 0.7
    kept = [row["text"] for row in found if row["keep"]]
    left = sum(jaccard(a, b) >= 0.9 for i, a in enumerate(kept) for b in kept[:i])
    assert left == 0 and len(kept) < 300

    c, facts = manifest.counters, manifest.facts
    assert c["docs-in"] == 400 == c["kept-docs"] + c["exact_duplicate-docs"] + c["near_duplicate-docs"]
    assert c["kept-docs"] == len(kept) and c["put_out-docs"] == 0
    assert facts["compared-pairs"] == facts["candidate-pairs"] == facts["verified-pairs"] + facts["rejected-pairs"]
    sizes = [len(group) for group in groups.values() if len(group) > 1]
    assert facts["components"] == len(sizes) and facts["largest_component-docs"] == max(sizes)
    powers = collections.Counter(int(np.ceil(np.log2(size))) for size in sizes)
    names = {1: "2", 2: "3-4", 3: "5-8", 4: "9-16", 5: "17-32", 6: "33-64"}
    assert facts["component_sizes"] == {names[power]: count for power, count in powers.items()}
    joined = [datasets.load_from_disk(corpus.folder(name)) for name in ("documents", "dedup")]
    assert len(datasets.concatenate_datasets(joined, axis=1)) == 400


def test_sharding_order_threads_and_passes_change_nothing(lay, run_stage, monkeypatch):
    documents = testing.documents(240, seed=9, words=(2, 60), copies=0.5)
    shuffled = documents.take(pa.array(np.random.default_rng(1).permutation(240)))
    results = []
    for name, batch, shards in (("one", documents, 1), ("two", shuffled, 2), ("seven", documents, 7)):
        corpus = lay(*cut(batch, shards), name=name)
        run_stage(corpus, recipe(corpus), "dedup", Engine(memory_mb=1))
        results.append(by_id(corpus))
    monkeypatch.setattr(dedup, "GROUP_BYTES", 40_000)  # several groups in each shuffle
    monkeypatch.setattr(Engine, "threads", 3)
    monkeypatch.setattr(dedup, "COPIES", 100)  # … and a pass for each
    corpus = lay(*cut(shuffled, 3), name="passes")
    run_stage(corpus, recipe(corpus), "dedup", Engine(memory_mb=1))
    results.append(by_id(corpus))
    assert all(result == results[0] for result in results)
    assert 100 < sum(keep for keep, *_ in results[0].values()) < 200


@pytest.mark.slow
def test_worker_processes_change_nothing(lay, run_stage):
    documents = testing.documents(120, seed=9, words=(2, 60), copies=0.5)
    found = []
    for workers in (1, 2):
        corpus = lay(*cut(documents, 4), name=f"workers-{workers}")
        manifest = run_stage(corpus, recipe(corpus), "dedup", Engine(workers=workers))
        found.append((by_id(corpus), [s.hash for s in manifest.shards], manifest.counters))
    assert found[0] == found[1]


CHINESE = "北京是中华人民共和国的首都，也是全国的政治中心、文化中心。这座城市有三千多年的建城史和八百多年的建都史。"
THAI = "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทยเป็นศูนย์กลางการปกครองการศึกษาและการคมนาคมขนส่ง"


@pytest.mark.parametrize(
    ("texts", "groups"),
    [
        pytest.param([CHINESE * 2, CHINESE + CHINESE.replace("三千", "五千"), THAI], [(0, 1)], id="chinese"),
        pytest.param([THAI + THAI, THAI + THAI[:-2], CHINESE], [(0, 1)], id="thai"),
        pytest.param(
            ["Two words!!", "two, words", "two other words", "words two"], [(0, 1)], id="shorter than a shingle"
        ),
        pytest.param(["???", "???", "!!!", "", ""], [(0, 1), (3, 4)], id="no words"),
        pytest.param(["Same text here", "Same text here", "same text HERE!"], [(0, 1, 2)], id="exact"),
    ],
)
def test_texts_unlike_english_prose(lay, run_stage, texts, groups):
    corpus = lay(testing.of_texts(texts))
    run_stage(corpus, recipe(corpus), "dedup")
    found = rows(corpus)
    best = {i: min(group, key=lambda k: (-found[k]["num_bytes"], found[k]["id"])) for group in groups for i in group}
    assert [row["dup_of"] for row in found] == [
        found[best[i]]["id"] if best.get(i, i) != i else None for i in range(len(found))
    ]


def test_documents_put_out_take_no_part(lay, run_stage):
    text = "one two three four five six seven eight nine ten"
    texts = [text + " eleven twelve thirteen", text, text + ".", "short", "short"]
    corpus = lay(testing.of_texts(texts[:2]), testing.of_texts(["pad pad"] * 2 + texts[2:]))
    settings = {"min_chars": len(text) + 1, "max_chars": len(text) + 5}
    manifest = None
    for stage in ("filter", "dedup"):
        manifest = run_stage(corpus, recipe(corpus, settings), stage)
    assert [row["keep"] for row in rows(corpus)] == [None, None, None, None, True, None, None]
    assert all(row["component_size"] == 1 and row["dup_of"] is None for row in rows(corpus))
    assert manifest.counters["put_out-docs"] == 6 and manifest.counters["kept-docs"] == 1


def test_exact_only(lay, run_stage):
    words = [f"w{i}" for i in range(100)]
    texts = [" ".join(words), " ".join([*words, "more"]), ", ".join(words).upper()]
    corpus = lay(testing.of_texts(texts))
    manifest = run_stage(corpus, recipe(corpus, near=False), "dedup")
    assert [row["keep"] for row in rows(corpus)] == [False, True, True]  # the commas make it longer
    assert manifest.facts["bands"] == 0 and manifest.facts["midpoint"] is None
    again = lay(testing.of_texts(texts), name="near")
    run_stage(again, recipe(again), "dedup")
    assert [row["keep"] for row in rows(again)] == [False, False, True]


def test_source_priority_decides_between_equal_lengths(lay, run_stage):
    text = "the very same words in the very same order"
    sources = [testing.of_texts([text], source=name) for name in ("web", "books", "wiki")]
    for first, kept in (("books", "books"), ("wiki", "wiki")):
        corpus = lay(*sources, name=first)
        inputs = [{"path": name, "priority": 5 * (name == first)} for name in ("web", "books", "wiki")]
        run_stage(corpus, recipe(corpus, input=inputs), "dedup")
        found = [b.to_pylist() for s in range(3) for b in corpus.read(s, {"documents": ["source"], "dedup": ["keep"]})]
        assert [row["source"] for part in found for row in part if row["keep"]] == [kept]


def test_empty_corpus(lay, run_stage):
    corpus = lay(testing.of_texts([]))
    manifest = run_stage(corpus, recipe(corpus), "dedup")
    assert manifest.rows == 0 and manifest.facts["components"] == 0
