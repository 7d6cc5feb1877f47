import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines import report, report_data, report_histogram, report_map, report_sequences
from ropewalk.schemas import files, tables, testing
from ropewalk.schemas.tables import COLUMNS
from ropewalk.transforms.cluster_terms import TERMS, write_terms
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, CorpusDir
from ropewalk.transforms.ingest.mended import Mended, letter_key, write_mended
from ropewalk.transforms.shards import ShardFolder

VOID = {"meta", "link", "br", "img", "input", "hr"}
TAGS = set(
    "html head meta link title style body header main footer section nav h1 h2 h3 p a b i bdi small strong code pre "
    "ul ol li dl dt dd div span table thead tbody tr th td details summary figure figcaption "
    "svg g path rect text polyline br label input".split()
)


class Page(HTMLParser):
    """The page as a browser would see it: tags, attributes, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.texts, self.rows, self.styles = html, [], [], [], []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.rows.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data):
        (self.styles if self.open and self.open[-1] == "style" else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def figures(self, name):
        return [float(row["data-value"]) for row in self.rows if row.get("data-figure") == name]

    def levels(self):
        return {row["data-level"]: int(row["data-count"]) for row in self.rows if "data-level" in row}

    def losses(self):
        return {row["data-reason"]: int(row["data-count"]) for row in self.rows if "data-reason" in row}


def check_sealed(page: Page) -> None:
    """Nothing is loaded, nothing runs, and no tag is there that the template does not write."""
    assert not page.open
    assert {tag for tag, _ in page.tags} <= TAGS
    for tag, attrs in page.tags:
        if tag == "input":  # it chooses what is seen; there is no form to send
            assert set(attrs) <= {"type", "name", "checked", "aria-label"} and attrs["type"] == "radio"
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith("#") or value == "data:,", (tag, value)
            assert "url(" not in (value or "") or name.startswith("data-") or name == "content", (tag, name)
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    style = "".join(page.styles)
    assert "url(" not in style and "@import" not in style and "expression" not in style
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", page.html)


def shards_of(*sizes, seed=0):
    pairs = [testing.topical(size, seed=seed + i) for i, size in enumerate(sizes)]
    return [p[0] for p in pairs], [p[1] for p in pairs]


def counted_manifest(corpus: CorpusDir, counters: dict[str, int]) -> None:
    path = Path(corpus.url, "corpus.json")
    manifest = json.loads(path.read_bytes())
    manifest["ingest"]["counters"] = counters
    path.write_text(json.dumps(manifest))


def lay_rejects(corpus: CorpusDir, rows: list[dict]) -> None:
    folder = ShardFolder(files.join(corpus.url, "rejects", "ingest"), tables.REJECTS, 1, "test")
    with folder.writer(0) as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=tables.REJECTS))


def reject(reason="not_json", detail="line is no JSON: mend it", source="mock", path="in/a.jsonl", line=3):
    return {"stage": "ingest", "reason": reason, "detail": detail, "source": source, "path": path, "line": line,
            "byte_offset": None, "payload": b"{"}  # fmt: skip


def write(corpus: CorpusDir, **options) -> Page:
    url = report.write_report(corpus.url, **options)
    assert url == files.join(corpus.url, "report.html")
    assert not [name for name in files.names(corpus.url) if files.TEMPORARY in name]
    page = Page(Path(url).read_text(encoding="utf-8"))
    check_sealed(page)
    return page


def packed_rows(corpus: CorpusDir, layout: str) -> list[dict]:
    paths = sorted(Path(corpus.url, "sequences", layout).glob("*.arrow"))
    return [row for path in paths for batch in files.open_arrow(str(path)) for row in batch.to_pylist()]


def with_copies(batch: pa.RecordBatch, copies: int) -> pa.RecordBatch:
    """The last `copies` texts repeat the first one."""
    texts = batch.column("text").to_pylist()
    texts = texts[: len(texts) - copies] + [texts[0]] * copies
    again = testing.of_texts(texts)
    return again.set_column(2, tables.DOCUMENTS.field("source"), batch.column("source"))


def test_numbers_are_those_of_the_tables(lay_walk):
    shards, topics = shards_of(230, 120)
    shards[0] = with_copies(shards[0], 5)
    corpus = lay_walk(shards, topics)
    counted_manifest(corpus, {
        "records-in": 357, "docs-out": 350, "rejected-records": 7, "not_json-records": 4, "no_text-records": 3,
        "source:web-docs": 1, "skipped:.png-files": 12,
    })  # fmt: skip
    lay_rejects(corpus, [reject()] * 4 + [reject("no_text")] * 3)
    page = write(corpus)

    joined = [
        row
        for s in range(2)
        for batch in corpus.read(s, {"documents": ["id", "source", "num_bytes"]} | {
            "filter": ["passed"], "dedup": ["keep", "component_size"], "tokenize": ["num_tokens"],
            "passages": ["enough_left"], "decontaminate": ["clean"], "semantic": ["semantic_keep"],
            "order": ["prev_similarity"],
        })
        for row in batch.to_pylist()
    ]  # fmt: skip
    left = [joined]
    for name in ("passed", "keep", "enough_left", "clean", "semantic_keep"):
        left.append([row for row in left[-1] if row[name]])
    passed, kept = len(left[1]), left[-1]
    tokens = sum(row["num_tokens"] for row in kept)
    packed = {kind: packed_rows(corpus, f"{kind}-512") for kind in ("in_context", "random")}
    counts = [len(rows) for rows in left]
    assert counts == sorted(set(counts), reverse=True) and counts[1] - counts[2] == 5  # each step loses some
    assert page.levels() == {
        "records": 357, "documents": 350, "passed": passed, "kept": counts[2], "enough": counts[3], "clean": counts[4],
        "distinct": len(kept), "packed in_context-512": len(kept), "packed random-512": len(kept),
    }  # fmt: skip
    assert page.losses() == {
        "not_json": 4, "no_text": 3, "too_short": 350 - passed, "exact copy": 5,
        "too little left": counts[2] - counts[3], "contaminated": counts[3] - counts[4],
        "semantic duplicate": counts[4] - counts[5],
    }  # fmt: skip
    assert page.figures("documents") == [350] and page.figures("kept") == [len(kept)]
    assert page.figures("tokens") == [tokens]
    assert page.figures("layout-sequences") == [len(packed["in_context"]), len(packed["random"])]
    assert page.figures("layout-tokens") == [tokens, tokens]
    fill = [tokens / (len(rows) * 512) for rows in packed.values()]
    assert page.figures("layout-fill") == pytest.approx(fill) and page.figures("fill") == pytest.approx(fill[:1])
    similar = [row["similarity"] for row in packed["in_context"] if row["similarity"] is not None]
    assert page.figures("similarity") == pytest.approx([np.mean(similar)], rel=1e-6)
    neighbours = [row["prev_similarity"] for row in joined if row["prev_similarity"] is not None]
    assert page.figures("order-mean") == pytest.approx([np.mean(neighbours)], rel=1e-6)
    assert len(neighbours) == len(kept) - 1
    assert page.figures("random-mean")[0] < page.figures("order-mean")[0] - 0.1
    shown = dict(re.findall(r'<tr data-source="(\w+)">.*?<td class="n">([\d,]+)</td>', page.html))
    assert {name: int(n.replace(",", "")) for name, n in shown.items()} == Counter(row["source"] for row in joined)
    assert "6 documents in the largest group" in page.text and "1 groups of two or more" in page.text
    assert ".png 12" in page.text
    assert "does not add up" not in page.text and "Something" not in page.text


def test_what_does_not_add_up_is_said(lay_walk):
    corpus = lay_walk(*shards_of(60))
    counted_manifest(corpus, {"records-in": 70, "docs-out": 60, "rejected-records": 9, "not_json-records": 9})
    page = write(corpus)
    assert "Records read do not add up: 70 in, 60 out, 9 accounted for." in page.text
    assert "ingest has 9 rejected records, the tables have 0." in page.text
    assert "✗" not in page.text and "does not add up: 70 ≠ 60 + 9" in page.text
    counted_manifest(corpus, {"records-in": 60})
    assert "does not add up" not in write(corpus).text


def test_hostile_documents_stay_text(lay_walk):
    script, image = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
    texts = [
        f"{script} {image} \u202etxt.exe \x00 \x1b[31m </title></svg></style> {{{{ 7 * 7 }}}} &lt;b&gt; word{i} " * 3
        for i in range(40)
    ]
    batch = testing.of_texts(texts, source=f"{script}{image}\u202e")
    batch = batch.set_column(
        3, tables.DOCUMENTS.field("url"), pa.array([f"javascript:alert({i}){image}" for i in range(40)])
    )
    corpus = lay_walk([batch], [np.arange(40) % 3])
    counted_manifest(corpus, {"records-in": 41, f"{image}-records": 1, f"skipped:.{script}-files": 2})
    lay_rejects(corpus, [reject(image, script, script, image)])
    recipe = {"output": corpus.url, "input": [{"path": f"/data/{script}", "source": image}],
              "pack": [{"layout": "in_context", "length": 512}]}  # fmt: skip
    page = write(corpus, recipe=recipe)  # `check_sealed` sees to it that no tag and no attribute came through
    assert page.text.count(script) >= 10 and page.text.count("onerror=alert(1)>") >= 10
    assert script not in page.html and "<img" not in page.html
    assert "{{ 7 * 7 }}" in page.text and "⟨U+202E⟩" in page.text and "␀" in page.text and "␛[31m" in page.text
    assert "&lt;b&gt;" in page.text  # what was escaped in the document is shown as it was
    assert page.losses()[image] == 1


OPTIONAL = ("passages", "decontaminate", "semantic")


@pytest.mark.parametrize("missing", [*COLUMNS, "sequences", "all"])
def test_missing_stages_are_tolerated(lay_walk, missing):
    corpus = lay_walk(*shards_of(80, 40))
    for stage in COLUMNS if missing == "all" else [missing]:
        shutil.rmtree(Path(corpus.url, "columns", stage), ignore_errors=True)
    if missing in ("sequences", "all"):
        shutil.rmtree(Path(corpus.url, "sequences"))
    page = write(corpus)
    assert page.figures("documents") == [120]
    for stage in [*COLUMNS, "pack"]:
        gone = missing in (stage, "all") or (stage, missing) == ("pack", "sequences")
        gone &= (stage, missing) != ("cluster", "all")  # without vectors there is no map that clusters could colour
        gone &= stage not in (*OPTIONAL, "neighbours")  # off unless a recipe sets them: not worth a word
        assert (f"Stage {stage} has not run, or is switched off." in page.text) == gone, stage
    for stage in OPTIONAL:
        shown = [attrs for tag, attrs in page.tags if attrs.get("id") == stage or attrs.get("href") == f"#{stage}"]
        assert len(shown) == (0 if missing in (stage, "all") else 2), stage
    if missing == "all":
        assert page.levels() == {"documents": 120}


def test_recipe_tells_what_is_switched_off(lay_walk):
    corpus = lay_walk(*shards_of(80))
    recipe = {"output": corpus.url, "input": [{"path": "in"}], "dedup": False,
              "pack": [{"layout": "random", "length": 512}]}  # fmt: skip
    page = write(corpus, recipe=recipe)
    assert "Stage dedup is switched off in the recipe." in page.text
    assert "kept" not in page.levels() and "packed in_context-512" not in page.levels()
    assert "packed random-512" in page.levels()


def edit_manifest(corpus: CorpusDir, folder: str, **changes) -> None:
    path = Path(corpus.url, folder, "stage.json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def relay(corpus: CorpusDir, stage: str, rows: list[dict]) -> None:
    """Writes the columns of a stage of a one-shard corpus again."""
    folder = ShardFolder(corpus.folder(stage), tables.COLUMNS[stage], 1, "test")
    with folder.writer(0) as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=tables.COLUMNS[stage]))


def test_removed_copies_by_kind_source_and_similarity(lay_walk):
    shards, topics = shards_of(300)
    corpus = lay_walk(shards, topics)
    random = np.random.default_rng(2)
    sources = shards[0].column("source").to_pylist()
    ids = shards[0].column("id").to_pylist()
    passed = [row["passed"] for b in corpus.read(0, {"filter": ["passed"]}) for row in b.to_pylist()]
    rows, expected, below = [], {}, 0
    for i in range(300):
        kind = random.choice(["exact", "url", "near", "chained", "", ""]) if passed[i] and i else ""
        similarity = {"exact": 1.0, "url": 0.1, "near": 0.7, "chained": 0.35}.get(str(kind))
        if kind == "near" and i % 2:
            similarity = 0.95
        below += similarity is not None and similarity < 0.7
        if kind:
            expected[sources[i], str(kind)] = expected.get((sources[i], str(kind)), 0) + 1
        rows.append({"keep": not kind if passed[i] else None, "dup_of": ids[0] if kind else None,
                     "component_size": 1, "similarity": similarity, "dup_kind": str(kind) or None})  # fmt: skip
    relay(corpus, "dedup", rows)
    hostile = "<script>alert(1)</script>"
    facts = {"sources": {"web": {"false_positives": 0.0123}, hostile: {"false_positives": "x"}, "code": None}}
    edit_manifest(corpus, "columns/dedup", config={"threshold": 0.7}, facts=facts)
    page = write(corpus)
    counted = {row["data-kind"]: int(row["data-count"]) for row in page.rows if "data-kind" in row}
    names = {"exact copy": "exact", "same URL": "url", "near copy": "near", "copy of a copy": "chained"}
    assert counted == {name: sum(n for (_, k), n in expected.items() if k == kind) for name, kind in names.items()}
    assert page.figures("below-threshold") == [below] and below > 20
    for source in ("web", "books", "code"):
        row = re.search(f'<tr data-dedup-source="{source}">(.*?)</tr>', page.html, re.S).group(1)
        cells = re.findall(r'<td class="n">(.*?)</td>', row)
        own = [expected.get((source, kind), 0) for kind in names.values()]
        considered = sum(p for p, s in zip(passed, sources, strict=True) if s == source)
        assert [cells[0], cells[1], *cells[3:7]] == [str(n) for n in (considered, sum(own), *own)]
        assert cells[7] == ("1.2 %" if source == "web" else "")


def test_passages_benchmarks_and_semantic_copies(lay_walk):
    shards, topics = shards_of(300)
    corpus = lay_walk(shards, topics)
    script, image = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>\u202e'
    edit_manifest(corpus, "columns/passages", counters={"paragraph-bytes": 4000, "paragraph-spans": 7})
    example = {"item": f"{image}7", "document": script, "passage": f"{script} a passage {image} \x1b[31m"}
    edit_manifest(corpus, "columns/decontaminate", config={"rule": script, "action": image}, facts={"benchmarks": {
        f"{script}bench": {"items": 200, "hit-items": 3, "touched-items": 1, "docs": 9, "examples": [example] * 9},
        "quiet": {"items": 5}, "odd": {"examples": "none"},
    }})  # fmt: skip
    edit_manifest(corpus, "columns/semantic", config={"epsilon": 0.125, "rule": "earlier"}, facts={
        "cluster_sizes": {name: {"clusters": 4, "docs": 9, "removed": 2} for name in ("1", image)}
    })  # fmt: skip
    page = write(corpus)
    rows = [
        row for b in corpus.read(0, {"documents": ["source", "num_bytes"], "passages": ["repeated_bytes"],
                                     "decontaminate": ["contaminated_spans"], "semantic": ["semantic_keep"]})
        for row in b.to_pylist()
    ]  # fmt: skip
    assert page.figures("cut-bytes") == [sum(row["repeated_bytes"] for row in rows)]
    assert page.figures("cut-docs") == [sum(row["repeated_bytes"] > 0 for row in rows)]
    assert page.figures("contaminated-docs") == [sum(bool(row["contaminated_spans"]) for row in rows)]
    assert page.figures("semantic-removed") == [sum(row["semantic_keep"] is False for row in rows)]
    assert all(page.figures(name)[0] > 0 for name in ("cut-bytes", "contaminated-docs", "semantic-removed"))
    assert "4.0 kB in 7 paragraphs" in page.text
    assert "cosine above 0.875 with any earlier document" in page.text
    assert f"{script}bench" in page.text and "1.5 %" in page.text  # 3 of 200
    section = page.html[page.html.index('id="decontaminate"') : page.html.index('id="semantic"')]
    assert section.count("a passage") == 3 and section.count("␛[31m") == 3 and "⟨U+202E⟩" in section
    assert script not in page.html and "<img" not in page.html  # and `check_sealed` has looked at every tag
    gone = {row["data-semantic-source"] for row in page.rows if "data-semantic-source" in row}
    assert gone == {"web", "books", "code"}


def test_mended_dead_letters_are_counted(lay_walk):
    corpus = lay_walk(*shards_of(30))
    rows = [reject(line=line) for line in range(5)]
    lay_rejects(corpus, rows)
    about = Mended(source="mock", text="text", id="id", url="url", letters=(letter_key(rows[1]), letter_key(rows[4])))
    write_mended(corpus.url, about, [b"{}", b"{}"])
    page = write(corpus)
    assert page.figures("mended") == [2] and "5 records could not be taken" in page.text
    assert "in/a.jsonl , line 0" in page.text and "in/a.jsonl , line 1" not in page.text


def test_columns_that_nobody_reads_any_more_do_not_count(lay_walk):
    """Dedup was switched off after it ran: its folder is there, but the later stages did not read it."""
    corpus = lay_walk(*shards_of(60))
    for stage in ("tokenize", "embed"):
        edit_manifest(corpus, f"columns/{stage}", reads={"filter": "key of columns/filter"})
    page = write(corpus)
    assert "passed" in page.levels() and "kept" not in page.levels()


def test_stale_columns_are_named(lay_walk):
    corpus = lay_walk(*shards_of(60))
    edit_manifest(corpus, "columns/order", reads={"cluster": "another key", "dedup": "key of columns/dedup"})
    edit_manifest(corpus, "columns/embed", rows=59)
    page = write(corpus)
    assert "order was made from an earlier cluster: run the recipe again." in page.text
    assert "The columns of embed belong to an earlier ingest" in page.text
    assert "from an earlier dedup" not in page.text


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_corpora(lay_walk, count):
    page = write(lay_walk(*shards_of(count)))
    assert page.figures("documents") == [count]
    if not count:
        assert "The corpus is empty" in page.text


def test_no_corpus_no_report(tmp_path):
    with pytest.raises(FileNotFoundError, match="no corpus.json"):
        report.write_report(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_sharding_does_not_matter(lay, lay_walk, tmp_path):
    """The same documents in other shards and another order: the same sample and the same numbers."""
    (whole,), (topics,) = shards_of(700)
    order = np.random.default_rng(1).permutation(700)
    mixed, mixed_topics = whole.take(pa.array(order)), topics[order]
    found = []
    for shards, parts in (
        ([whole], [topics]),
        ([mixed.slice(0, 50), mixed.slice(50)], [mixed_topics[:50], mixed_topics[50:]]),
    ):
        corpus = lay_walk(shards, parts)
        stages = report_data.find_stages(corpus, corpus.manifest(), None)
        documents = report_data.collect(corpus, stages, sample=60)
        found.append((documents.sample.column("id").to_pylist(), documents.kept, documents.sources, documents.clusters,
                      documents.chars_kept.counts.tolist(), documents.prev_similarity.count,
                      [id_ for _, id_, _ in documents.apart.far]))  # fmt: skip
        kept = sorted(
            id_
            for s in range(len(shards))
            for batch in corpus.read(s, {"documents": ["id"]}, alive=list(ALIVE_COLUMNS))
            for id_ in batch.filter(batch.column("alive")).column("id").to_pylist()
        )
        assert documents.sample.column("id").to_pylist() == kept[:60]
        shutil.rmtree(corpus.url)
    assert found[0] == found[1]


def test_histogram_counts_like_numpy():
    values = np.random.default_rng(0).lognormal(6, 2, 5000).astype(np.int64)
    found = report_histogram.Histogram(report_data.LENGTH_EDGES)
    for part in np.array_split(values, 7):
        found.add(part)
    expected, _ = np.histogram(values[values > 0], report_data.LENGTH_EDGES)
    assert found.counts.tolist() == expected.tolist()
    assert found.below == (values == 0).sum() and found.count == 5000
    assert found.mean == pytest.approx(values.mean())
    assert found.median() == pytest.approx(np.median(values), rel=0.1)
    assert 1000 in report_data.LENGTH_EDGES and 10**10 in report_data.LENGTH_EDGES


def test_size_counts_like_a_loop():
    sizes = np.random.default_rng(0).geometric(0.1, 1000)
    found = report_histogram.SizeCounts()
    found.add(sizes[:300])
    found.add(sizes[300:])
    labels, values = found.bars()
    for label, value in zip(labels, values, strict=True):
        low, high = (int(part) for part in (label if "–" in label else f"{label}–{label}").split("–"))
        assert value == sum(low <= size <= high for size in sizes.tolist()), label
    assert sum(values) == 1000 and labels[:6] == ["1", "2", "3", "4", "5–8", "9–16"]
    assert (found.largest, found.sum) == (sizes.max(), sizes.sum())


def test_projection_is_the_eigenvectors_of_the_covariance():
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(300, 20)) * np.r_[5, 3, np.ones(18)]).astype(np.float32)
    places, shares = report_map.project(vectors)
    values = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64)))[::-1]
    assert np.var(places, axis=0, ddof=1) == pytest.approx(values[:2])
    assert shares == pytest.approx(values[:2] / values.sum())
    turned, _ = report_map.project(vectors[::-1])
    assert turned[::-1] == pytest.approx(places)


def test_telling_words_tell_clusters_apart(lay_walk):
    shards, topics = shards_of(400)
    corpus = lay_walk(shards, topics)
    documents = report_data.collect(corpus, report_data.find_stages(corpus, corpus.manifest(), None))
    found = report_map.collect_map(corpus, documents.sample.column("address").to_numpy(), documents.clusters)
    assert len(found.points) == documents.kept and len(found.groups) == 6
    for group in found.groups:
        assert group.documents == documents.clusters[group.cluster]
        letter = "abcdef"[group.cluster]  # the words of a topic end in its letter
        assert len(group.words.split(", ")) == 5 and all(word.endswith(letter) for word in group.words.split(", "))


def lay_terms(corpus: CorpusDir, terms: dict[int, list[str]]) -> None:
    rows = [{"cluster": cluster, "documents": 9, "terms": words} for cluster, words in terms.items()]
    write_terms(files.join(corpus.folder("cluster"), "terms.arrow"),
                iter([pa.RecordBatch.from_pylist(rows, schema=TERMS)]), np.full(6, 9))  # fmt: skip


def test_clusters_are_called_by_their_names(lay_walk):
    shards, topics = shards_of(200)
    corpus = lay_walk(shards, topics)
    hostile = "<img src=x onerror=alert(1)>"
    lay_terms(corpus, {c: [hostile, f"name{c}", "c", "d", "e", "sixth"] for c in range(5)})  # cluster 5 has none
    page = write(corpus)
    assert "<img" not in page.html and "sixth" not in page.html
    choices = [attrs["aria-label"] for tag, attrs in page.tags if tag == "input" and "aria-label" in attrs]
    assert sorted(choices) == [f"Show cluster {c} alone" for c in range(6)]
    section = page.html[page.html.index('id="map"') : page.html.index('id="order"')]
    for c in range(5):
        assert section.count(f"name{c}, c, d, e</bdi></label>") == 1
        assert section.count(f"[cluster {c}: &lt;img") > 5 and "; cosine 0.50 with its centroid]" in section
    assert "(no words)" in section and "[cluster 5; cosine" in section
    parts = re.findall(r"cluster (\d): <bdi>&lt;img src=x onerror=alert\(1\)&gt;, name(\d), c", page.html)
    assert len(parts) > 10 and all(a == b for a, b in parts)


def test_one_cluster_has_nothing_to_choose_from(lay_walk):
    (batch,), _ = shards_of(40)
    page = write(lay_walk([batch], [np.zeros(40, np.int64)]))
    assert not [tag for tag, _ in page.tags if tag in ("input", "label")] and "choose a cluster" not in page.text


def test_documents_that_stand_apart(lay_walk):
    """The furthest from centroids, those with the weakest best neighbour, those at distance 1; ties by id."""
    shards, topics = shards_of(260)
    corpus = lay_walk(shards, topics)
    random = np.random.default_rng(4)
    read = {"documents": ["id", "text"], "cluster": ["cluster"], "semantic": ["semantic_keep"], "embed": ["vector"]}
    rows = [row for b in corpus.read(0, read) for row in b.to_pylist()]
    alive = [row for row in rows if row["semantic_keep"]]
    zero, odd = alive[5:15], alive[20]
    for row in rows:
        row["distance"] = None if row["cluster"] is None else float(np.float32(random.integers(1, 20) / 32))
    for row in zero:
        row["distance"], row["vector"] = 1.0, [0.0] * 256
    odd["distance"] = 1.0
    gone = next(row for row in rows if row["semantic_keep"] is False)
    gone["distance"] = 1.5  # far, but not in the corpus
    for row in rows:
        known = [] if row["semantic_keep"] and random.random() < 0.2 else [float(random.integers(-4, 9)) / 16, -0.5]
        row["near"] = known if row["semantic_keep"] else None
    relay(corpus, "neighbours", [{"neighbours": row["near"] and [7] * 2, "neighbour_similarity": row["near"]}
                                 for row in rows])  # fmt: skip
    relay(corpus, "cluster", [{"cluster": row["cluster"], "distance": row["distance"]} for row in rows])
    relay(corpus, "embed", [{"vector": row["vector"]} for row in rows])
    page = write(corpus)
    shown = [row["data-outlier"] for row in page.rows if "data-outlier" in row]
    far = sorted((-row["distance"], row["id"]) for row in alive if row["distance"] != 1)[:8]
    unlike = sorted(row["id"] for row in [*zero, odd])[:8]
    lonely = [id_ for _, id_ in sorted((row["near"][0], row["id"]) for row in alive if row["near"])[:8]]
    assert shown == list(dict.fromkeys([*(id_ for _, id_ in far), *lonely, *unlike]))
    assert page.text.count("best neighbour at cosine −0.250") == len(set(lonely) - {row["id"] for row in zero}) > 2
    zeros = {row["id"] for row in zero} & set(shown)
    assert page.text.count("zero vector: no words to go by") == len(zeros) >= 7
    assert page.text.count(f"cosine with its centroid {1 + far[0][0]:.3f}") == sum(d == far[0][0] for d, _ in far)
    rings = re.search(r'<g class="rings">(.*?)</g>', page.html, re.S).group(1)
    assert rings.count("<path") == rings.count("<title>") == len(shown) > 16
    for id_ in shown:
        text = next(row["text"] for row in rows if row["id"] == id_)
        assert text[:30] in page.text


def test_few_documents_do_not_stand_apart(lay_walk):
    page = write(lay_walk(*shards_of(12)))
    assert "stand apart" not in page.text and 'class="rings"' not in page.html


def test_facts_of_similarity_are_shown_as_far_as_known(lay_walk):
    corpus = lay_walk(*shards_of(120))
    script = "<script>alert(1)</script>"
    edit_manifest(corpus, "columns/embed", counters={"embedded-docs": 1234, "zero_vector-docs": 0},
                  facts={"embedder": script, "dimensions": [256], "length_bias": -0.25, "unheard_of": 7})  # fmt: skip
    edit_manifest(corpus, "columns/cluster", facts={"clusters": 6, "empty": None, "largest": "many", "oversized": 0,
                                                    "unsplittable": 3, "smallest": float("nan")})  # fmt: skip
    edit_manifest(corpus, "columns/neighbours", facts={"recall_at_k": 0.99999, "recall_sample": 512, "alone": "none"})
    edit_manifest(corpus, "columns/order", facts={"mean_similarity": 0.5, "jumps": True})
    page = write(corpus)
    found = {row["data-fact"]: row["data-value"] for row in page.rows if "data-fact" in row}
    assert found == {
        "embed.embedder": script, "embed.embedded-docs": "1234", "embed.zero_vector-docs": "0",
        "embed.length_bias": "-0.25", "cluster.clusters": "6", "cluster.unsplittable": "3",
        "neighbours.recall_at_k": "0.99999", "neighbours.recall_sample": "512", "order.mean_similarity": "0.5",
    }  # fmt: skip
    assert "99.9 % of the true neighbours found" in page.text
    assert "1,234 documents with a vector" in page.text and "−0.250 correlation of length" in page.text
    windows = {row["data-window"]: None for row in page.rows if "data-window" in row}
    assert list(windows) == ["in_context-512", "random-512"]
    means = []
    for name in windows:
        known = [row["similarity"] for row in packed_rows(corpus, name) if row["similarity"] is not None]
        means.append(float(np.mean(known)))
    assert page.figures("window-mean") == pytest.approx(means, rel=1e-6)
    assert page.figures("window-lift")[0] == pytest.approx(means[0] - means[1], abs=1e-6)
    assert page.figures("window-lift")[1] == pytest.approx(means[1] - page.figures("random-mean")[0], abs=1e-6)
    for stage in ("embed", "cluster", "neighbours", "order"):
        edit_manifest(corpus, f"columns/{stage}", facts={}, counters={})
    page = write(corpus)
    assert not [row for row in page.rows if "data-fact" in row] and page.figures("window-mean")


@pytest.mark.parametrize("width", [2, 384])
def test_vectors_of_any_width(lay_walk, width):
    corpus = lay_walk(*shards_of(90))
    rows = [row for b in corpus.read(0, {"embed": ["vector"]}) for row in b.to_pylist()]
    random = np.random.default_rng(0)
    values = [None if row["vector"] is None else random.normal(size=width).astype(np.float16).tolist() for row in rows]
    folder = ShardFolder(corpus.folder("embed"), tables.embed_table(width), 1, "test")
    with folder.writer(0) as writer:
        writer.write(pa.RecordBatch.from_pylist([{"vector": v} for v in values], schema=tables.embed_table(width)))
    page = write(corpus)
    assert "documents drawn at random" in page.text and page.figures("random-mean")


def test_joints_of_the_shown_sequences(lay_walk):
    shards, topics = shards_of(150)
    corpus = lay_walk(shards, topics, length=900)
    page = write(corpus)
    known = [float(row["data-joint"]) for row in page.rows if row.get("data-joint")]
    vectors = {
        row["id"]: np.array(row["vector"]) for b in corpus.read(0, {"documents": ["id"], "embed": ["vector"]})
        for row in b.to_pylist() if row["vector"] is not None
    }  # fmt: skip
    place, weak, checked = 0, 0, 0
    for layout in ("in_context-900", "random-900"):
        rows = packed_rows(corpus, layout)
        section = page.html.split(f'data-layout="{layout}"')[1].split("data-layout=")[0]
        for number in re.findall(r"<b>sequence (\d+)</b>", section):
            ids = rows[int(number)]["doc_ids"][: report_sequences.SEGMENTS]
            expected = [float(vectors[a] @ vectors[b]) for a, b in zip(ids, ids[1:], strict=False)]
            assert known[place : place + len(expected)] == pytest.approx(expected, abs=1e-6)
            place, weak, checked = place + len(expected), weak + (len(expected) > 1), checked + 1
    assert place == len(known) and checked >= 8 and weak > 3
    assert page.text.count("weakest joint · cosine") == weak
    lowest = [float(row["data-joint"]) for row in page.rows if row.get("class") == "border weak"]
    assert len(lowest) == weak and set(lowest) <= set(known)


def test_shown_segments_are_the_documents(lay_walk):
    shards, topics = shards_of(150, 150)
    corpus = lay_walk(shards, topics, length=300)
    stages = report_data.find_stages(corpus, corpus.manifest(), None)
    layouts = [report_sequences.collect_layout(corpus, name, m) for name, m in stages.layouts.items()]
    documents = report_data.collect(corpus, stages, wanted=report_sequences.wanted_ids(layouts))
    examples = [example for layout in layouts for example in layout.examples]
    report_sequences.fill_texts(corpus, examples, documents.addresses, stages.columns)
    walked = testing.columns(shards, topics)
    texts = {
        i: t for s in shards for i, t in zip(s.column("id").to_pylist(), s.column("text").to_pylist(), strict=True)
    }
    vectors = {
        i: np.array(v, np.float32)
        for s, w in zip(shards, walked["embed"], strict=True)
        for i, v in zip(s.column("id").to_pylist(), w.column("vector").to_pylist(), strict=True)
        if v is not None
    }
    parts = whole = 0
    for example in examples:
        assert sum(example.lengths) == example.tokens <= 300
        for before, segment in zip([None, *example.segments], example.segments, strict=False):
            text = texts[segment.doc_id]
            if segment.part:
                parts += 1
                assert segment.head in text and segment.tail in text
                # the mock tokenizer makes a token of four bytes: proportion is right to a few characters
                assert abs(text.find(segment.head) - 4 * segment.doc_start) <= 8
            else:
                whole += 1
                assert text.startswith(segment.head) and text.endswith(segment.tail)
                assert len(segment.head) + segment.omitted + len(segment.tail) == len(text)
            if before is not None:
                expected = float(np.dot(vectors[before.doc_id].astype(np.float64), vectors[segment.doc_id]))
                assert segment.similarity == pytest.approx(expected, abs=1e-6)
    assert parts > 3 and whole > 10


def test_page_size_is_bounded(lay_walk):
    """More documents than the map takes, every character of them as long as can be once escaped."""
    count = 4900
    batch = testing.of_texts([f"{i} " + '"' * 2000 for i in range(count)], source="'" * 500)
    batch = batch.set_column(3, tables.DOCUMENTS.field("url"), pa.array(["\u202e" * 300] * count))
    page = write(lay_walk([batch], [np.arange(count) % 40], length=4000))
    assert len([1 for tag, _ in page.tags if tag == "path"]) > 4000
    assert len(page.html.encode()) < 3_000_000
