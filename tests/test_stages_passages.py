import collections
import itertools

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.kernels import words
from ropewalk.kernels.passage_units import LINE, PARAGRAPH, units_reference
from ropewalk.kernels.spans import snap_reference
from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import passages
from ropewalk.schemas import tables, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms import passages_substrings

OUT = tuple(tables.PASSAGES.names)
Spans = list[tuple[int, int]]


def rows(corpus) -> list[dict]:
    columns = {"documents": ["id", "text"], "passages": list(OUT)}
    found = [
        row for shard in range(len(corpus.file_names)) for b in corpus.read(shard, columns) for row in b.to_pylist()
    ]
    for row in found:
        row["spans"] = [(span["start"], span["stop"]) for span in row["repeated_spans"]]
    return found


def recipe(corpus, filter=False, dedup=False, **settings):
    return parse_recipe(
        {"output": corpus.url, "input": "x", "filter": filter, "dedup": dedup, "passages": settings}
        | {"tokenize": {"tokenizer": "bytes", "add_eos": False}}
    )


def cut(documents: pa.RecordBatch, shards: int) -> list[pa.RecordBatch]:
    borders = np.linspace(0, documents.num_rows, shards + 1).astype(int).tolist()
    return [documents.slice(a, b - a) for a, b in itertools.pairwise(borders)]


def joined(spans: Spans) -> Spans:
    found: Spans = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def pieces(text: bytes, spans: Spans) -> Spans:
    borders = [0, *(end for span in joined(spans) for end in span), len(text)]
    return [(a, b) for a, b in zip(borders[::2], borders[1::2], strict=True) if a < b]


def units(documents: dict[str, bytes], gone: dict[str, Spans], kind: int, least: int) -> dict[str, Spans]:
    """All copies but the first, by a dictionary in the order of the ids."""
    seen: set[tuple[str, ...]] = set()
    found: dict[str, Spans] = {}
    for id_ in sorted(documents):
        for a, b in pieces(documents[id_], gone[id_]):
            piece = documents[id_][a:b]
            for start, end, stop in units_reference(piece, kind):
                key = tuple(words.words_reference(piece[start:end].decode()))
                if end - start >= least and key:
                    if key in seen:
                        found.setdefault(id_, []).append((a + start, a + stop))
                    seen.add(key)
    return found


def substrings(documents: dict[str, bytes], gone: dict[str, Spans], n: int) -> dict[str, Spans]:
    """Bytes of windows that occurred before, but for those of first windows; by a dictionary of all windows."""
    places: dict[bytes, list[tuple[str, int]]] = collections.defaultdict(list)
    for id_ in sorted(documents):
        for a, b in pieces(documents[id_], gone[id_]):
            for s in range(a, b - n + 1):
                places[documents[id_][s : s + n]].append((id_, s))
    marks = {id_: bytearray(len(text)) for id_, text in documents.items()}
    for _, *others in places.values():
        for id_, s in others:
            marks[id_][s : s + n] = b"\1" * n
    for first, *others in places.values():
        if others:
            marks[first[0]][first[1] : first[1] + n] = b"\0" * n
    found = {}
    for id_, mark in marks.items():
        runs = [list(run) for cut_, run in itertools.groupby(range(len(mark)), key=mark.__getitem__) if cut_]
        found[id_] = [(run[0], run[-1] + 1) for run in runs if len(run) >= n]
    return found


def expected(documents: dict[str, bytes], paragraphs=None, lines=None, substrings_=None, snap="line"):
    """Spans of each document, rule after rule."""
    gone: dict[str, Spans] = {id_: [] for id_ in documents}
    for kind, least in ((PARAGRAPH, paragraphs), (LINE, lines)):
        if least is not None:
            for id_, spans in units(documents, gone, kind, least).items():
                gone[id_] = joined(gone[id_] + spans)
    if substrings_ is not None:
        for id_, spans in substrings(documents, gone, substrings_).items():
            snapped = [snap_reference(documents[id_].decode(), *span, snap) for span in spans]
            gone[id_] = joined(gone[id_] + [span for span in snapped if span != (0, 0)])
    return gone


def parts(seed: int, count: int) -> list[str]:
    """Documents made of a few sentences, in lines and paragraphs, with typing of different care."""
    random = np.random.default_rng(seed)
    pool = [" ".join(f"{w}{random.integers(90)}" for w in ("rope", "hemp", "tar", "deck")) for _ in range(12)]
    pool += ["北京是中华人民共和国的首都，也是全国的政治中心。", "กรุงเทพมหานครเป็นเมืองหลวง", "", "...", "Wind! 🙂 wind."]
    texts = []
    for _ in range(count):
        chosen = [pool[i] for i in random.integers(0, len(pool), random.integers(0, 9))]
        chosen = [part.upper() if random.random() < 0.1 else part for part in chosen]
        texts.append("".join(part + "\n\n\n  \r"[: random.integers(0, 6)] for part in chosen))
    return texts


CASES = [
    {"paragraphs": 20, "lines": 10},
    {"substrings": 20, "snap": "character"},
    {"paragraphs": 30, "lines": 12, "substrings": 12, "snap": "word"},
    {"lines": 25, "substrings": 16, "snap": "line"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_spans_are_those_of_a_dictionary_on_any_sharding(lay, run_stage, monkeypatch, case):
    documents = testing.of_texts(parts(4, 60))
    texts = {row["id"]: row["text"].encode() for row in documents.to_pylist()}
    wanted = expected(texts, **{"substrings_" if k == "substrings" else k: v for k, v in case.items()})
    shuffled = documents.take(pa.array(np.random.default_rng(1).permutation(60)))
    for name, batch, shards in (("one", documents, 1), ("three", shuffled, 3)):
        if name == "three":
            monkeypatch.setattr(passages, "GROUP_BYTES", 6_000)  # several groups in each shuffle
            monkeypatch.setattr(passages, "COPIES", 4_000)  # ... and a pass for each few
            monkeypatch.setattr(passages_substrings, "CONTEXT_BYTES", 500)
            monkeypatch.setattr(Engine, "threads", 3)
        corpus = lay(*cut(batch, shards), name=name)
        manifest = run_stage(corpus, recipe(corpus, min_left=0, **case), "passages", Engine(memory_mb=64))
        found = rows(corpus)
        assert {row["id"]: row["spans"] for row in found} == wanted
        assert any(wanted.values())
        total = sum(b - a for spans in wanted.values() for a, b in spans)
        counters = manifest.counters
        assert counters["cut-bytes"] == total == sum(row["repeated_bytes"] for row in found)
        assert total == sum(counters.get(f"{rule}-bytes", 0) for rule in passages.RULES)
        assert counters["cut-docs"] == sum(bool(spans) for spans in wanted.values())
        assert counters["docs-in"] == 60 == counters["cut-docs"] + counters["untouched-docs"]


LONG = "The rope was laid in the walk and tarred before the winter came."


def test_later_stages_read_what_is_left(lay, run_stage):
    documents = testing.of_texts(parts(8, 40))
    corpus = lay(*cut(documents, 2))
    settings = recipe(corpus, paragraphs=20, lines=12, substrings=20, snap="word", min_left=30)
    manifest = run_stage(corpus, settings, "passages")
    run_stage(corpus, settings, "tokenize")
    found, outcomes = rows(corpus), collections.Counter()
    tokens = [b.column("input_ids").to_pylist() for s in range(2) for b in corpus.read(s, {"tokenize": ["input_ids"]})]
    for row, ids in zip(found, itertools.chain(*tokens), strict=True):
        text, at, left = row["text"].encode(), 0, b""
        for start, stop in row["spans"]:
            assert at <= start < stop and (at < start or at == 0)  # ascending and apart
            left, at = left + text[at:start], stop
        left += text[at:]
        chars = len(left.decode())
        assert row["enough_left"] == (chars >= 30 or not row["spans"])
        assert bytes(ids or ()) == (left if row["enough_left"] else b"")
        assert (ids is None) == (not row["enough_left"])
        outcomes["cut" if row["enough_left"] and row["spans"] else "whole" if row["enough_left"] else "out"] += 1
    counters = manifest.counters
    assert min(outcomes.values()) > 0 and len(outcomes) == 3
    assert counters["cut-docs"] == outcomes["cut"] and counters["untouched-docs"] == outcomes["whole"]
    assert counters["too_little_left-docs"] == outcomes["out"]
    assert all(counters[f"{rule}-spans"] > 0 for rule in passages.RULES)


def test_documents_put_out_take_no_part(lay, run_stage):
    """Neither are they cut, nor do they hold a first copy."""
    copy = LONG + " Twice as long it is, and so it stays."
    texts = [LONG + "\n", copy, LONG + "\n", copy]
    corpus = lay(testing.of_texts(texts[:1]), testing.of_texts(["pad", *texts[1:]]).slice(1))
    settings = recipe(corpus, filter={"min_chars": 70}, dedup=True, lines=20, substrings=20, min_left=0)
    for stage in ("filter", "dedup", "passages"):
        manifest = run_stage(corpus, settings, stage)
    found = rows(corpus)
    assert sorted(str(row["enough_left"]) for row in found) == ["None", "None", "None", "True"]
    assert not any(row["spans"] for row in found)
    counters = manifest.counters
    assert counters["put_out-docs"] == 3 and counters["untouched-docs"] == 1 and counters["cut-bytes"] == 0


def test_nothing_to_do_and_nothing_left(lay, run_stage):
    for name, texts in (("none", []), ("empty", ["", "", "\n\n \n", "...\n\n...", "\x00" * 50])):
        corpus = lay(testing.of_texts(texts), name=name)
        manifest = run_stage(corpus, recipe(corpus, paragraphs=1, lines=1, substrings=8, min_left=0), "passages")
        assert manifest.rows == len(texts)
        assert [row["enough_left"] for row in rows(corpus)] == [True] * len(texts)
    # The zeros are one line: there is no whole one to cut. Without their line they are cut but for one window.
    assert not any(row["spans"] for row in rows(corpus))
    corpus = lay(testing.of_texts([LONG] * 3), name="all")
    manifest = run_stage(corpus, recipe(corpus, lines=1), "passages")
    assert sorted(row["repeated_bytes"] for row in rows(corpus)) == [0, len(LONG), len(LONG)]
    assert sorted(row["enough_left"] for row in rows(corpus)) == [False, False, True]
    assert manifest.facts["most_copies_of_a_line"] == 3 and manifest.counters["too_little_left-docs"] == 2


HOSTILE = [
    pytest.param(["a" * 200_000, "b" + "a" * 5_000], "character", 200, id="one letter"),
    pytest.param(["北" * 60_000, "京" + "北" * 3_000], "word", 200, id="one ideograph"),
    pytest.param(["北" * 60_000, "京" + "北" * 3_000], "line", 189_003, id="one line"),
    pytest.param(
        ["\u202eשלום\u202c " * 2_000, "🙂👩‍👩‍👧‍👦e\u0301" * 3_000], "character", 400, id="right to left, emoji, marks"
    ),
    pytest.param(["\x00\v\f\x85\u2028" * 4_000, "\n" * 30_000, "\r\n" * 9_000], "word", 200, id="no words"),
    pytest.param(["x"] * 300 + ["x\n" * 5] * 30, "line", 2, id="tiny"),
]


@pytest.mark.parametrize(("texts", "snap", "most"), HOSTILE)
def test_hostile_texts(lay, run_stage, texts, snap, most):
    corpus = lay(testing.of_texts(texts))
    settings = recipe(corpus, substrings=50, lines=1, snap=snap, min_left=0)
    manifest = run_stage(corpus, settings, "passages")
    left = 0
    for row in rows(corpus):
        text = row["text"].encode()
        assert sum(b - a for a, b in row["spans"]) == row["repeated_bytes"] <= len(text)
        left += len(text) - row["repeated_bytes"]
        for a, b in row["spans"]:
            text[a:b].decode()
            text[b:].decode()
    assert manifest.counters["docs-in"] == len(texts) and 0 < left <= most


@pytest.mark.slow
def test_worker_processes_change_nothing(lay, run_stage):
    documents = testing.of_texts(parts(2, 50))
    found = []
    for workers in (1, 2):
        corpus = lay(*cut(documents, 2), name=f"workers-{workers}")
        manifest = run_stage(corpus, recipe(corpus, lines=12, substrings=20), "passages", Engine(workers=workers))
        found.append((rows(corpus), [s.hash for s in manifest.shards], manifest.counters, manifest.facts))
    assert found[0] == found[1]
