"""`ropewalk explain` on corpora of real and of mock columns."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from ropewalk.pipelines.explain import Explainer
from ropewalk.pipelines.explain_copies import shared
from ropewalk.schemas import tables, testing
from ropewalk.schemas.recipe import RecipeError, parse_recipe

SHORT = "too short"
RED = "\x1b[31m[red]not red[/]"


def explained(url, id):
    console = Console(file=io.StringIO(), width=240)
    Explainer(str(url), console).explain(id)
    return console.file.getvalue()


def words(count, *, seed=0):
    random = np.random.default_rng(seed)
    return [f"word{i}" for i in random.integers(0, 5000, count)]


def with_columns(texts, sources=None, urls=None, metadata=None):
    batch = testing.of_texts(texts)
    for name, values in (("source", sources), ("url", urls), ("metadata", metadata)):
        if values is not None:
            place = tables.DOCUMENTS.get_field_index(name)
            batch = batch.set_column(place, tables.DOCUMENTS.field(name), pa.array(values, pa.string()))
    return batch


def jaccard(a, b, ngram=5):
    x, y = ({tuple(w[i : i + ngram]) for i in range(max(len(w) - ngram + 1, 1))} for w in (a.split(), b.split()))
    return len(x & y) / len(x | y)


def run_dedup(lay, run_stage, *shards, inputs=None, name="corpus", **settings):
    corpus = lay(*shards, name=name)
    made = {"output": corpus.url, "input": inputs or "x", "filter": {"min_chars": 20}, "dedup": settings}
    recipe = parse_recipe(made | {"tokenize": False, "embed": False, "cluster": False, "order": False, "pack": False})
    for stage in ("filter", "dedup"):
        run_stage(corpus, recipe, stage)
    Path(corpus.url, "recipe.json").write_text(recipe.model_dump_json())
    return corpus


def test_copies_are_explained(lay, run_stage):
    base = words(200)
    near = base[:120] + [RED] + base[120:]
    texts = [" ".join(base), " ".join(near), " ".join(words(100, seed=1)), SHORT, " ".join(base).upper()]
    batch = with_columns(texts, urls=[None, f"http://a/{RED}", None, None, None])
    ids = batch.column("id").to_pylist()
    corpus = run_dedup(lay, run_stage, batch.slice(0, 2), batch.slice(2))
    kept, gone = explained(corpus.url, ids[1]), explained(corpus.url, ids[0])
    # The longest of the three copies stays.
    assert "STAYS" in kept and "kept: the best of a group of 3 documents" in kept
    assert "OUT: put out by dedup" in gone and f"of {ids[1]}, similarity" in gone
    true = jaccard(" ".join(base), " ".join(near).replace(RED, "31m red not red"))
    assert f"similarity {true:.4f} as recorded" in gone and gone.count(f"{true:.4f}") >= 2
    assert "longer text (bytes, up to 16 MiB)" in gone and "decides" in gone.split("longer text")[1].splitlines()[0]
    # The two passages on either side of the inserted words, longest first.
    sizes = [int(size.replace(",", "")) for size in re.findall(r"([\d,]+) bytes, at byte", gone)]
    parts = [len(" ".join(base[:120])) + 1, len(" ".join(base[120:]))]  # the space between them is in the first
    assert sizes == parts
    assert "not in any sequence" not in gone and "nothing is packed yet" in gone
    exact = explained(corpus.url, ids[4])
    assert "OUT" in exact and ids[1] in exact
    alone = explained(corpus.url, ids[2])
    assert "no other document of this corpus is a copy of it" in alone and "STAYS" in alone
    short = explained(corpus.url, ids[3])
    assert "OUT: put out by filter" in short and "refused: " in short and "not considered" in short
    # Hostile text is shown, and does nothing.
    assert "\x1b" not in kept + gone and "�[31m[red]not red[/]" in kept


def test_the_criterion_that_decides_is_named(lay, run_stage):
    inputs = [{"path": "a", "source": "low"}, {"path": "b", "source": "high", "priority": 5}]
    texts = [" ".join(words(60, seed=seed)) for seed in (1, 1, 2, 2, 3, 3, 4)]
    texts.append(f"{texts[-1]} longer")
    batch = with_columns(
        texts, sources=["low", "high", "low", "high", "low", "low", "high", "low"],
        metadata=['{"q": 0.9}', '{"q": 0.1}', '{"q": 1}', '{"q": 1}', None, "{}", '{"q": 2}', '{"q": 2}'],
    )  # fmt: skip
    ids = batch.column("id").to_pylist()
    corpus = run_dedup(lay, run_stage, batch, inputs=inputs, quality="q")
    smaller = 4 if ids[4] < ids[5] else 5
    for kept, gone, expected in (
        (0, 1, "higher quality (q)"), (3, 2, "higher priority of the source"), (smaller, 9 - smaller, "smaller id"),
        (7, 6, "longer text"),
    ):  # fmt: skip
        shown = explained(corpus.url, ids[gone])
        assert f"Why {ids[kept]} was kept and not {ids[gone]}" in shown, expected
        assert expected in next(line for line in shown.splitlines() if "decides" in line)


def test_a_copy_of_an_older_corpus(lay, run_stage):
    base, other = words(80), words(80, seed=1)
    old = with_columns([" ".join(base), " ".join(other)], metadata=["{}", "{}"])
    older = run_dedup(lay, run_stage, old, name="older", index=True)
    new = testing.of_texts([" ".join([*base, "changed"]), " ".join(words(50, seed=2))])
    corpus = run_dedup(lay, run_stage, new, name="newer", against=[older.url])
    id_, survivor = new.column("id")[0].as_py(), old.column("id")[0].as_py()
    shown = explained(corpus.url, id_)
    assert f"{survivor} is in the older corpus {older.url}" in shown and "Documents of an older corpus stay" in shown
    true = jaccard(" ".join(base), " ".join([*base, "changed"]))
    assert shown.count(f"{true:.4f}") >= 2 and f"{len(' '.join(base))} bytes, at byte 0 here and 0 there" in shown
    shutil.rmtree(older.url)
    shown = explained(corpus.url, id_)
    assert f"nor in the older ones ({older.url}): its text cannot be compared" in shown


def test_the_whole_walk(lay_walk):
    pairs = [testing.topical(260, seed=i) for i in range(2)]
    corpus = lay_walk([p[0] for p in pairs], [p[1] for p in pairs])
    columns = {"documents": ["id", "text"], "passages": ["repeated_spans", "enough_left"], "decontaminate": ["clean"],
               "semantic": ["semantic_keep", "semantic_dup_of"], "order": ["rank"]}  # fmt: skip
    rows = [row for s in range(2) for b in corpus.read(s, columns) for row in b.to_pylist()]

    def first(rule):
        return next(row for row in rows if rule(row))

    cut = first(lambda row: row["repeated_spans"] and row["enough_left"])
    shown = explained(corpus.url, cut["id"])
    assert "1 passages, 10 bytes, occurred before" in shown and cut["text"][:10] in shown
    little = explained(corpus.url, first(lambda row: row["enough_left"] is False)["id"])
    assert "too little is left" in little and "OUT: put out by passages" in little
    dirty = explained(corpus.url, first(lambda row: row["clean"] is False)["id"])
    assert "bytes 20 to 40, item 7 of mock" in dirty and "OUT: put out by decontaminate" in dirty
    double = first(lambda row: row["semantic_keep"] is False)
    shown = explained(corpus.url, double["id"])
    assert f"removed: it repeats {double['semantic_dup_of']}, cosine 0.9700" in shown and "in no sequence" in shown
    # Where it ended is where the sequences say.
    packed = first(lambda row: row["rank"] == 7)
    shown = explained(corpus.url, packed["id"])
    for layout in ("in_context-512", "random-512"):
        places = []
        number = 0
        for path in sorted(Path(corpus.url, "sequences", layout).glob("*.arrow")):
            for row in pa.ipc.open_stream(path).read_all().to_pylist():
                start = 0
                for id_, length in zip(row["doc_ids"], row["seq_lengths"], strict=True):
                    if id_ == packed["id"]:
                        places.append(f"sequence {number} (from token {start:,}, {length:,} tokens)")
                    start += length
                number += 1
        assert places and f"{layout}: {', '.join(places)}" in shown


@pytest.mark.parametrize("missing", ["filter", "dedup", "passages", "decontaminate", "semantic", "tokenize", "all"])
def test_partial_corpora(lay_walk, missing):
    batch, topics = testing.topical(60)
    corpus = lay_walk([batch], [topics])
    for stage in tables.COLUMNS if missing == "all" else [missing]:
        shutil.rmtree(Path(corpus.url, "columns", stage))
    if missing == "all":
        shutil.rmtree(Path(corpus.url, "sequences"))
    for id_ in batch.column("id").to_pylist()[:8]:
        shown = explained(corpus.url, id_)
        assert f"document {id_}" in shown and ("STAYS" in shown or "OUT" in shown)


def test_ids_by_their_beginning(lay):
    batch = with_columns([f"text {i}" for i in range(40)])
    ids = batch.column("id").to_pylist()
    url = lay(batch).url
    shortest = next(n for n in range(1, 33) if sum(i.startswith(ids[0][:n]) for i in ids) == 1)
    assert f"document {ids[0]}" in explained(url, ids[0][:shortest])
    with pytest.raises(RecipeError, match="several ids begin so: "):
        explained(url, next(a[0] for a in ids if sum(b[0] == a[0] for b in ids) > 1))
    with pytest.raises(RecipeError, match=f"no such document.*{ids[3]}"):
        explained(url, ids[3][:5] + "zzz")
    for wrong in ("", "zz", "'; drop"):
        with pytest.raises(RecipeError, match="no such document"):
            explained(url, wrong)
    with pytest.raises(RecipeError, match="^an empty id: "):
        explained(url, "")
    # Who gives the key of a record instead of its id learns what ids are, and where the key went.
    with pytest.raises(RecipeError, match=r"^book-7: .* 32 hex digits, of which a unique beginning .* in `metadata`"):
        explained(url, "book-7")
    with pytest.raises(FileNotFoundError, match=r"no corpus\.json"):
        explained(Path(url).parent / "elsewhere", ids[0])


def test_documents_that_share_an_id(lay, run_stage):
    base = " ".join(words(40))
    batch = testing.of_texts([base, base, base])
    ids = pa.array(["a" * 32] * 3, pa.string())
    batch = batch.set_column(0, tables.DOCUMENTS.field("id"), ids)
    corpus = run_dedup(lay, run_stage, batch.slice(0, 1), batch.slice(1))
    shown = explained(corpus.url, "a" * 32)
    assert "2 more documents have this id" in shown and "OUT" in shown
    assert "earlier in the corpus (shard, row)" in next(line for line in shown.splitlines() if "decides" in line)


def test_long_texts_are_compared_in_part():
    long = " ".join(words(150_000))
    found = shared(long, f"before {long}", most=3)
    assert found.cut and [tuple(passage) for passage in found.passages] == [(0, 7, (1 << 20) - 7)]
    assert not shared(long[:1000], long[:2000], most=3).cut
