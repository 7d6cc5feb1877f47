import collections

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import dedup
from ropewalk.schemas import files, testing
from ropewalk.schemas.recipe import RecipeError, parse_recipe
from ropewalk.transforms.verdicts import KINDS

OUT = ("keep", "dup_of", "component_size", "similarity", "dup_kind")


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
    assert c["docs-in"] == 400 == c["kept-docs"] + sum(c[f"{kind}_duplicate-docs"] for kind in KINDS)
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


def with_metadata(batch: pa.RecordBatch, values: list[str | None]) -> pa.RecordBatch:
    return batch.set_column(6, batch.schema.field(6), pa.array(values, pa.string()))


def test_quality_decides_before_length(lay, run_stage):
    text = "the very same words in the very same order " * 3
    batch = testing.of_texts([text + "...", text, text + "!!!!", text, text])
    scores = ['{"score": -2}', '{"score": 0.5}', None, '{"score": "high"}', '{"score": -1e-3}']
    corpus = lay(with_metadata(batch, scores))
    run_stage(corpus, recipe(corpus, quality="score"), "dedup")
    assert [row["keep"] for row in rows(corpus)] == [False, True, False, False, False]


def test_same_url(lay, run_stage):
    texts = [" ".join(f"{word}{i}" for word in "abcdefghij") for i in range(6)]
    urls = [
        "https://www.Example.org/A/",
        "http://example.org/A#part",
        "example.org/a",
        None,
        "https://example.org/A?x",
        "",
    ]
    batch = testing.of_texts(texts)
    corpus = lay(batch.set_column(3, batch.schema.field(3), pa.array(urls, pa.string())))
    manifest = run_stage(corpus, recipe(corpus, url=True), "dedup")
    found = rows(corpus)
    best = min(found[:2], key=lambda row: (-row["num_bytes"], row["id"]))
    assert sum(row["keep"] for row in found) == 5 and best["keep"]
    (gone,) = (row for row in found if not row["keep"])
    assert gone["dup_of"] == best["id"] and gone["similarity"] == 0 and gone in found[:2]
    assert manifest.counters["url_duplicate-docs"] == 1 and manifest.facts["url-pairs"] == 1
    run_stage(corpus, recipe(corpus), "dedup")
    assert all(row["keep"] for row in rows(corpus))


@pytest.mark.parametrize("verify", ["signature", "none"])
def test_candidates_that_are_not_verified_exactly(lay, run_stage, verify):
    documents = testing.documents(300, seed=3, words=(2, 70), copies=0.5)
    corpus = lay(*cut(documents, 3))
    manifest = run_stage(corpus, recipe(corpus, verify=verify, threshold=0.7), "dedup")
    found = rows(corpus)
    texts = {row["id"]: row["text"] for row in found}
    removed = [row for row in found if row["dup_of"]]
    truth = [jaccard(row["text"], texts[row["dup_of"]]) for row in removed]
    assert len(removed) > 80
    for row, s in zip(removed, truth, strict=True):
        if verify == "none":
            assert row["similarity"] == (1 if row["text"] == texts[row["dup_of"]] else None)
        else:
            assert row["similarity"] == pytest.approx(s, abs=5 * np.sqrt(max(s * (1 - s), 0.01) / 112))
    (source,) = manifest.facts["sources"].values()
    below = sum(s < 0.7 for s in truth)
    assert source == {
        "docs": 300, "removed": len(removed), "checked": len(removed), "below_threshold": below,
        "false_positives": round(below / len(removed), 6),
    }  # fmt: skip


def test_a_source_that_would_vanish_stops_the_run(lay, run_stage, monkeypatch):
    texts = ["the same licence text for all of them"] * 1200
    corpus = lay(testing.of_texts(texts[:700]), testing.of_texts(["pad"] * 700 + texts[700:]).slice(700))
    with pytest.raises(RuntimeError, match=r"1,199 of 1,200 documents of source 'mock' \(99.9%\).*max_source_share"):
        run_stage(corpus, recipe(corpus), "dedup")
    assert corpus.stage_manifest("columns/dedup") is None
    monkeypatch.setattr(dedup, "MinHash", NoMinHash)  # all of its work is there: nothing is made again
    manifest = run_stage(corpus, recipe(corpus, max_source_share=1), "dedup")
    assert manifest.counters["kept-docs"] == 1


class NoMinHash:
    def __init__(self, num_perm: int, **settings: object) -> None:
        self.num_perm = num_perm


def chain(count: int) -> list[str]:
    """Texts each of which is much like its neighbours and little like the others."""
    words = [f"w{i:04}" for i in range(100 + 8 * count)]
    return [" ".join(words[8 * i : 8 * i + 100 - i]) for i in range(count)]


def test_star_clusters_keep_what_is_like_no_survivor(lay, run_stage):
    texts = chain(6)
    close = [[jaccard(x, y) >= 0.75 for y in texts] for x in texts]
    assert all(close[i][j] == (abs(i - j) <= 1) for i in range(6) for j in range(6))
    corpus = lay(testing.of_texts(texts[:4]), testing.of_texts(["x"] * 4 + texts[4:]).slice(4))
    settings = {"bands": 30, "rows": 5, "threshold": 0.75}
    run_stage(corpus, recipe(corpus, **settings), "dedup")
    assert [row["keep"] for row in rows(corpus)] == [True] + [False] * 5  # the longest one stays
    assert [row["dup_kind"] for row in rows(corpus)] == [None, "near", "chained", "chained", "chained", "chained"]
    run_stage(corpus, recipe(corpus, clusters="star", **settings), "dedup")
    found = rows(corpus)
    assert [row["keep"] for row in found] == [True, False] * 3
    assert [row["component_size"] for row in found] == [2] * 6
    assert all(
        row["dup_of"] == found[i - 1]["id"] and row["similarity"] >= 0.75 for i, row in enumerate(found) if i % 2
    )


@pytest.mark.parametrize(
    ("settings", "other", "same"),
    [
        ({}, "ÉLAN vital 2024 — naïve café", True),
        ({}, "élan vital 2023, naive café", False),
        ({"normalize": {"digits": True, "accents": True}}, "Elan vital 7, NAIVE cafe\u0301", True),
        ({"normalize": {"case": False}}, "Élan vital 2024, naïve café", False),
        ({"normalize": {"punctuation": False}}, "élan vital 2024; naïve café", False),
        ({}, "e\u0301lan vital 2024, nai\u0308ve cafe\u0301", True),
        ({"normalize": {"nfc": False}}, "e\u0301lan vital 2024, nai\u0308ve cafe\u0301", False),
        ({"preset": "datatrove"}, "elan vital 19, naive cafe", True),
        ({"unit": "character", "ngram": 13}, "élan  vital  2024, naïve... café!", True),
    ],
)
def test_what_does_not_count(lay, run_stage, settings, other, same):
    corpus = lay(testing.of_texts(["élan vital 2024, naïve café", other]))
    run_stage(corpus, recipe(corpus, **settings), "dedup")
    assert sum(row["keep"] for row in rows(corpus)) == (1 if same else 2)


def months(seed: int = 7) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Older and newer documents with copies inside both and across; the older ones have the better quality."""
    both = testing.documents(300, seed=seed, words=(2, 70), copies=0.5)
    place = np.random.default_rng(seed).permutation(300)
    both = with_metadata(both, [f'{{"age": {int(i in set(place[:200].tolist()))}}}' for i in range(300)])
    return both.take(pa.array(place[:200])), both.take(pa.array(place[200:]))


def test_against_an_older_corpus(lay, run_stage):
    old, new = months()
    settings = {"threshold": 0.7, "quality": "age"}
    together = lay(*cut(old, 2), *cut(new, 2), name="together")
    run_stage(together, recipe(together, **settings), "dedup")
    expected = {row["id"]: row["keep"] for row in rows(together)}

    year = lay(*cut(old, 3), name="year")
    run_stage(year, recipe(year, index=True, **settings), "dedup")
    kept_before = {row["id"]: row for row in rows(year)}
    results = []
    for name, shards in (("month", 1), ("cut", 2)):
        month = lay(*cut(new, shards), name=name)
        manifest = run_stage(month, recipe(month, against=[year.url], index=True, **settings), "dedup")
        found = rows(month)
        assert {row["id"]: row["keep"] for row in found} == {row["id"]: expected[row["id"]] for row in found}
        texts = {row["id"]: row["text"] for row in [*found, *kept_before.values()]}
        to_old = [row for row in found if row["dup_of"] in kept_before]
        assert len(to_old) > 20 and all(kept_before[row["dup_of"]]["keep"] for row in to_old)
        for row in found:
            if row["dup_kind"] == "near" and row["dup_of"] not in kept_before:
                assert row["similarity"] == np.float32(jaccard(row["text"], texts[row["dup_of"]]))
        assert manifest.facts["older-keys"] > 0 and manifest.facts["older_left_out-keys"] == 0
        results.append(by_id(month))
    assert results[0] == results[1]

    # A third corpus against both: the copy of a copy names what the first one kept.
    week = lay(new.slice(0, 60), name="week")
    run_stage(week, recipe(week, against=[year.url, month.url], **settings), "dedup")
    assert not any(row["keep"] for row in rows(week))
    kept = {row["id"] for corpus in (year, month) for row in rows(corpus) if row["keep"]}
    assert {row["dup_of"] for row in rows(week)} <= kept


def test_a_copy_of_an_old_document_that_went(lay, run_stage):
    """A and B are alike, B and C, but not A and C; A and B are old, and B went for A."""
    texts = chain(3)
    settings = {"bands": 30, "rows": 5, "threshold": 0.75}
    for clusters, kept in (("components", False), ("star", True)):
        year = lay(testing.of_texts(texts[:2]), name=f"year-{clusters}")
        run_stage(year, recipe(year, index=True, **settings), "dedup")
        first, second = rows(year)
        assert first["keep"] and second["dup_of"] == first["id"]
        month = lay(testing.of_texts(["pad", "pads", texts[2]]).slice(2), name=f"month-{clusters}")
        run_stage(month, recipe(month, against=[year.url], clusters=clusters, **settings), "dedup")
        (found,) = rows(month)
        assert found["keep"] == kept
        if not kept:  # nothing was computed between it and A, whose text might not be at hand
            assert (found["dup_of"], found["similarity"], found["dup_kind"]) == (first["id"], None, "chained")


def test_an_index_counts_when_its_run_has_finished(lay, run_stage):
    old, new = months()
    year, month = lay(old, name="year"), lay(new, name="month")
    run_stage(year, recipe(year, index=True), "dedup")
    stage = f"{year.url}/columns/dedup/stage.json"
    written = files.read_bytes(stage)
    files.remove(stage)
    with pytest.raises(RecipeError, match="deduplication of .*year has not finished"):
        run_stage(month, recipe(month, against=[year.url]), "dedup")
    files.write_bytes(stage, written)
    with pytest.raises(RecipeError, match="month/ is the corpus itself"):
        run_stage(month, recipe(month, against=[month.url + "/"], index=True), "dedup")
    with pytest.raises(RecipeError, match="year/. is named twice"):
        run_stage(month, recipe(month, against=[year.url, year.url + "/."]), "dedup")
    run_stage(month, recipe(month, against=[year.url]), "dedup")


def test_the_kind_does_not_depend_on_where_a_document_lies(lay, run_stage):
    words = [f"w{i:03}" for i in range(200)]
    texts = [" ".join(words), " ".join([*words[:-1], "x999"])]
    batch = with_metadata(testing.of_texts(texts), ['{"q": 1}', '{"q": 1e999999}'.replace("1e999999", "9" * 400)])
    batch = batch.set_column(0, batch.schema.field(0), pa.array(["0001" + "0" * 28, "0000" + "f" * 28]))
    for name, quality in (("large", "q"), ("none", "missing")):
        results = []
        for order in ([0, 1], [1, 0]):
            corpus = lay(batch.take(pa.array(order)), name=f"{name}-{order[0]}")
            run_stage(corpus, recipe(corpus, quality=quality), "dedup")
            results.append(by_id(corpus))
        assert results[0] == results[1]
        assert sorted(str(row[4]) for row in results[0].values()) == ["None", "near"]


def test_an_index_must_be_there_and_made_alike(lay, run_stage):
    old, new = months()
    year, month = lay(old, name="year"), lay(new, name="month")
    run_stage(year, recipe(year), "dedup")
    with pytest.raises(RecipeError, match=r"year has no index .*`dedup: \{index: true\}`"):
        run_stage(month, recipe(month, against=[year.url]), "dedup")
    run_stage(year, recipe(year, index=True), "dedup")
    with pytest.raises(RecipeError, match="ngram is 5 there, 4 here"):
        run_stage(month, recipe(month, against=[year.url], ngram=4), "dedup")
    lay(old.slice(1), name="year")
    with pytest.raises(RecipeError, match="index of .*year is that of an earlier ingest"):
        run_stage(month, recipe(month, against=[year.url]), "dedup")
    year = lay(old, name="year")
    run_stage(year, recipe(year), "dedup")  # without `index` it goes
    with pytest.raises(RecipeError, match="has no index"):
        run_stage(month, recipe(month, against=[year.url]), "dedup")
