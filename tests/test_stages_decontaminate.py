import json

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import decontaminate
from ropewalk.schemas import testing
from ropewalk.schemas.benchmarks import BENCHMARKS, Benchmark
from ropewalk.schemas.decontaminate import DecontaminateConfig
from ropewalk.schemas.recipe import parse_recipe

OUT = ("clean", "contaminated_spans", "masked_spans")
RULES = ("gpt3", "llama2", "palm", "datatrove")


def sentence(start: int, count: int, word: str = "item") -> str:
    """Words that stand nowhere else."""
    return " ".join(f"{word}{i}" for i in range(start, start + count))


def write_items(path, items: list[dict]) -> str:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    return str(path)


def recipe(corpus, path, **settings):
    benchmark = settings.pop("benchmark", {})
    every = settings.pop("stages", {"filter": False, "dedup": False})
    benchmarks = settings.pop("benchmarks", [{"path": path} | benchmark])
    document = {"output": corpus.url, "input": "x", "decontaminate": {"benchmarks": benchmarks} | settings}
    return parse_recipe(document | every)


def rows(corpus) -> list[dict]:
    columns = {"documents": ["id", "text"], "decontaminate": list(OUT)}
    return [r for s in range(len(corpus.file_names)) for b in corpus.read(s, columns) for r in b.to_pylist()]


def spans(row) -> list[tuple[str, str, str]]:
    text = row["text"].encode()
    return [(text[s["start"] : s["stop"]].decode(), s["benchmark"], s["item"]) for s in row["contaminated_spans"]]


def left(row) -> list[str]:
    text, at, pieces = row["text"].encode(), 0, []
    for span in row["masked_spans"]:
        pieces.append(text[at : span["start"]].decode())
        at = span["stop"]
    return [piece for piece in [*pieces, text[at:].decode()] if piece]


def judged(lay, run_stage, texts, path, name="corpus", **settings):
    corpus = lay(testing.of_texts(texts), name=name)
    manifest = run_stage(corpus, recipe(corpus, path, **settings), "decontaminate")
    return rows(corpus), manifest


@pytest.mark.parametrize("before", [0, 100, 399, 400, 401, 440, 441, 442, 600, 860])
def test_gpt3_leaves_two_pieces_if_both_are_long_enough(lay, run_stage, tmp_path, before):
    planted = sentence(100, 13)
    size = len(planted)
    around = "x" * (before - 1) + " " if before else ""
    text = around + planted
    text += " " + "y" * (1000 - len(text) - 1) if len(text) < 1000 else ""
    assert len(text) == 1000
    path = write_items(tmp_path / "bench.jsonl", [{"question": planted}])
    [row], manifest = judged(lay, run_stage, [text], path)
    sides = [text[: max(before - 200, 0)], text[before + size + 200 :]]
    assert left(row) == [side for side in sides if len(side) >= 200] and row["clean"]
    assert (len(left(row)) == 2) == (before - 200 >= 200 and 1000 - before - size - 200 >= 200)
    assert spans(row) == [(planted, "bench", "0")]
    assert manifest.counters["masked-docs"] == manifest.counters["benchmark:bench-spans"] == 1
    assert manifest.counters["masked-bytes"] == 1000 - sum(map(len, left(row)))


@pytest.mark.parametrize("rule", RULES)
def test_planted_items_are_found_by_every_rule_and_named(lay, run_stage, tmp_path, rule):
    documents = testing.documents(200, seed=4, words=(60, 150))
    texts = documents.column("text").to_pylist()
    items = [{"id": f"q{i}", "q": sentence(100 * i, 30), "a": sentence(100 * i + 50, 14)} for i in range(20)]
    one = write_items(tmp_path / "one.jsonl", items[:12])
    two = write_items(tmp_path / "two.jsonl", items[12:])
    planted = {}
    for i in range(0, 20, 2):
        words = texts[9 * i].split(" ")
        at = (0, len(words) // 2, len(words))[i % 3]  # at the beginning, inside, at the end
        shout = items[i]["a"].upper().replace(" ", ", ")
        texts[9 * i] = " ".join([*words[:at], shout, *words[at:]])
        planted[9 * i] = (shout, "one" if i < 12 else "two", f"q{i}")
    benchmarks = [{"path": path, "fields": ["q"], "answers": ["a"]} for path in (one, two)]
    results = {}
    for name, order, shards in (("one", np.arange(200), 1), ("three", np.random.default_rng(1).permutation(200), 3)):
        batch = testing.of_texts(texts).take(pa.array(order))
        corpus = lay(*(batch.slice(a, 67) for a in range(0, 200, 67)) if shards > 1 else (batch,), name=name)
        settings = recipe(corpus, "", benchmarks=benchmarks, rule=rule, action="flag")
        manifest = run_stage(corpus, settings, "decontaminate")
        found = rows(corpus)
        assert {i: spans(row)[0] for i, row in zip(order.tolist(), found, strict=True) if spans(row)} == planted
        assert all(len(spans(row)) < 2 and row["clean"] and not row["masked_spans"] for row in found)
        results[name] = ({row["id"]: row["contaminated_spans"] for row in found}, manifest.counters, manifest.facts)
    assert results["one"] == results["three"]
    _, counters, facts = results["one"]
    assert counters["docs-in"] == 200 and counters["clean-docs"] == 190 and counters["flagged-docs"] == 10
    assert counters["put_out-docs"] == counters["dropped-docs"] == counters["masked-bytes"] == 0
    assert (
        counters["benchmark:one-docs"] == 6 == counters["benchmark:one-spans"] and counters["benchmark:two-docs"] == 4
    )
    assert facts["benchmarks"]["one"]["hit-items"] == 6 and facts["benchmarks"]["two"]["items"] == 8
    shown = facts["benchmarks"]["two"]["examples"]
    assert len(shown) == 4 and {s["item"] for s in shown} == {"q12", "q14", "q16", "q18"}
    by_id = {row["id"]: row["text"] for row in found}
    assert all(s["passage"] in by_id[s["document"]] and len(s["passage"]) > 50 for s in shown)


@pytest.mark.parametrize("rule", RULES)
def test_near_the_border_of_each_rule(lay, run_stage, tmp_path, rule):
    item = {"question": sentence(0, 27), "answer": sentence(50, 25, "answer")}
    question, answer = item["question"].split(), item["answer"].split()
    path = write_items(tmp_path / "bench.jsonl", [item])
    fields = {"fields": ["question"], "answers": ["answer"]}
    rest = sentence(0, 30, "other")
    cases = {
        # 20 n-grams of 8 words: 14 of them are 70 %
        "palm": [(question[:21], True), (question[:20], False)],
        # 20 of 25 words are 80 %; 4 words differ, or 5; the last may not; 10 words are no match
        "llama2": [
            (answer[:20], True), (answer[:19], False), ([*answer[:12], "a", "b", "c", "d", *answer[16:]], True),
            ([*answer[:10], *"abcde", *answer[15:]], False), ([*answer[:19], "x"], False), (answer[:10], False),
        ],
        "gpt3": [(question[:13], True), (question[:12], False), (answer[12:], True), ([*question[:12], "x"], False)],
        "datatrove": [
            (answer[:12], True), (answer[:11], False), (question, False), ([*question[-11:], answer[0]], True),
            ([question[-1], *answer[:11]], True), ([*question[-10:], answer[0]], False),
        ],
    }  # fmt: skip
    texts = [f"{rest} {' '.join(words)} {rest}" for words, _ in cases[rule]]
    found, manifest = judged(lay, run_stage, texts, path, benchmark=fields, rule=rule, action="drop")
    assert [not row["clean"] for row in found] == [wanted for _, wanted in cases[rule]]
    assert [bool(row["contaminated_spans"]) for row in found] == [not row["clean"] for row in found]
    assert manifest.counters["dropped-docs"] == sum(wanted for _, wanted in cases[rule])
    if rule == "llama2":
        assert manifest.facts["touched-docs"] == 2 and manifest.facts["benchmarks"]["bench"]["hit-items"] == 1
        assert spans(found[2]) == [(" ".join(cases[rule][2][0]), "bench", "0")]


def test_common_phrases_do_not_count(lay, run_stage, tmp_path):
    phrase, other = sentence(0, 13), sentence(100, 13)
    path = write_items(tmp_path / "bench.jsonl", [{"q": phrase}, {"q": other}])
    texts = [f"{sentence(i, 80, 'word')} {phrase if i < 11 else other} {sentence(i, 80, 'word')}" for i in range(21)]
    texts[0] = f"{phrase} {texts[0]} {phrase}"  # a document counts once
    found, manifest = judged(lay, run_stage, texts, path)
    assert [bool(row["masked_spans"]) for row in found] == [False] * 11 + [True] * 10
    assert manifest.facts["common-ngrams"] == 1 and manifest.facts["benchmarks"]["bench"]["hit-items"] == 1
    found, manifest = judged(lay, run_stage, texts[1:], path, name="ten")
    assert all(row["masked_spans"] for row in found) and manifest.facts["common-ngrams"] == 0
    found, _ = judged(lay, run_stage, texts, path, name="all", max_documents=None)
    assert all(row["masked_spans"] or not row["clean"] for row in found)


def test_what_a_name_brings_is_part_of_the_key(tmp_path, monkeypatch):
    path = write_items(tmp_path / "bench.jsonl", [{"q": sentence(0, 13), "a": "so"}])
    config = DecontaminateConfig(benchmarks=[{"path": path, "name": "longbench"}])
    keys = []
    for known in (Benchmark(None, ("q",), ("a",), "x"), Benchmark(None, ("a",), ("a",), "x"),
                  Benchmark(None, ("q",), (), "x"), Benchmark(None, ("q",), ("a",), "y")):  # fmt: skip
        monkeypatch.setitem(BENCHMARKS, "longbench", known)
        keys.append(json.dumps(decontaminate.extra_key(config)))
    assert len(set(keys)) == 4
    monkeypatch.setitem(BENCHMARKS, "longbench", Benchmark(None, ("q",), ("a",), "x", how="elsewhere"))
    assert json.dumps(decontaminate.extra_key(config)) == keys[0]


def test_too_many_pieces_and_nothing_left(lay, run_stage, tmp_path):
    planted = sentence(0, 13)
    path = write_items(tmp_path / "bench.jsonl", [{"q": planted}])
    filler = "z" * 700
    texts = [
        filler + f" {planted} {filler}" * 9,  # 10 pieces
        filler + f" {planted} {filler}" * 10,  # 11 pieces
        f"{planted} short",
    ]
    found, manifest = judged(lay, run_stage, texts, path)
    assert [row["clean"] for row in found] == [True, False, False]
    assert [len(left(row)) for row in found[:1]] == [10] and not found[1]["masked_spans"]
    assert manifest.counters["dropped-docs"] == 2 and manifest.counters["masked-docs"] == 1
    found, _ = judged(lay, run_stage, texts, path, name="free", max_pieces=None, window=0, min_piece=0)
    assert [row["clean"] for row in found] == [True] * 3 and left(found[2]) == [" short"]


def test_scripts_without_spaces(lay, run_stage, tmp_path):
    chinese = "北京是中华人民共和国的首都也是全国的政治中心文化中心"
    thai = "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุด"
    items = [{"id": 7, "q": chinese, "x": 3}, {"id": "thai", "q": thai}, {"q": "no id, and " + sentence(0, 13)}]
    path = write_items(tmp_path / "bench.jsonl", items)
    texts = [
        "我" * 500 + "，" + chinese[:6] + "、" + chinese[6:] + "他" * 500 + "😀",
        thai,
        "กข" * 300,
        sentence(0, 13).upper(),
    ]
    found, _ = judged(lay, run_stage, texts, path, rule="palm", action="mask")
    named = [[(benchmark, item) for _, benchmark, item in spans(row)] for row in found]
    assert named == [[("bench", "7")], [("bench", "thai")], [], []]  # 13 of 15 words of the last: 6 of 8 n-grams
    assert left(found[0]) == ["我" * 500 + "，", "他" * 500 + "😀"]
    found, _ = judged(lay, run_stage, texts, path, name="gpt3")
    assert left(found[0]) == ["我" * 301, "他" * 300 + "😀"] and spans(found[3])[0][1:] == ("bench", "2")


def test_documents_put_out_take_no_part(lay, run_stage, tmp_path):
    planted = sentence(0, 13)
    path = write_items(tmp_path / "bench.jsonl", [{"q": planted}])
    texts = [planted, f"{planted} long enough to stay", "short", "a clean text that is " + "long enough " * 9]
    corpus = lay(testing.of_texts(texts))
    settings = recipe(corpus, path, stages={"dedup": False, "filter": {"min_chars": len(planted) + 1}}, action="drop")
    for stage in ("filter", "decontaminate"):
        manifest = run_stage(corpus, settings, stage)
    assert [row["clean"] for row in rows(corpus)] == [None, False, None, True]
    assert [bool(row["contaminated_spans"]) for row in rows(corpus)] == [False, True, False, False]
    assert manifest.counters["put_out-docs"] == 2 and manifest.counters["dropped-docs"] == 1


def test_tokens_are_those_of_the_masked_text(lay, run_stage, tmp_path):
    planted = sentence(0, 13)
    path = write_items(tmp_path / "bench.jsonl", [{"q": planted}])
    texts = ["é" * 450 + " " + planted + " " + "y" * 600, "clean", f"{planted} gone"]
    corpus = lay(testing.of_texts(texts))
    settings = recipe(
        corpus, path, stages={"filter": False, "dedup": False, "tokenize": {"tokenizer": "bytes", "add_eos": False}}
    )
    for stage in ("decontaminate", "tokenize"):
        run_stage(corpus, settings, stage)
    tokens = [r for b in corpus.read(0, {"tokenize": ["num_tokens"]}) for r in b.column(1).to_pylist()]
    assert tokens == [2 * 251 + 401, 5, 0]


def test_an_item_shared_by_many_is_named_once(lay, run_stage, tmp_path):
    context, template = sentence(0, 200), sentence(900, 15, "template")
    items = [{"id": str(i), "context": context, "q": f"{template} {sentence(1000 + 20 * i, 20)}"} for i in range(30)]
    path = write_items(tmp_path / "bench.jsonl", items)
    texts = [f"start {context} end", f"{template} {sentence(1000 + 20 * 7, 20)}"]
    for rule in ("gpt3", "palm", "llama2"):
        found, manifest = judged(lay, run_stage, texts, path, name=rule, rule=rule, action="flag")
        assert spans(found[0]) == [(context, "bench", "0")]
        assert spans(found[1]) == [(texts[1], "bench", "7")]
        assert manifest.facts["benchmarks"]["bench"]["hit-items"] == 30


def test_length_of_n_grams_derived_for_each_benchmark(lay, run_stage, tmp_path):
    short = write_items(tmp_path / "short.jsonl", [{"q": sentence(50 * i, 6 if i == 9 else 9)} for i in range(40)])
    long = write_items(tmp_path / "long.jsonl", [{"q": sentence(50 * i, 30, "long"), "kind": "x"} for i in range(40)])
    benchmarks = [{"path": short}, {"path": long}]
    texts = [sentence(0, 9), sentence(0, 8), sentence(0, 13, "long"), sentence(0, 12, "long")]
    found, manifest = judged(lay, run_stage, texts, "", benchmarks=benchmarks, ngram=None, action="drop")
    facts = manifest.facts["benchmarks"]
    assert [(b["ngram"], b["items"], b["short-items"]) for b in facts.values()] == [(9, 40, 1), (13, 40, 0)]
    assert [row["clean"] for row in found] == [False, True, False, True]


@pytest.mark.slow
def test_worker_processes_change_nothing(lay, run_stage, tmp_path):
    planted = sentence(0, 13)
    path = write_items(tmp_path / "bench.jsonl", [{"q": planted}])
    texts = [
        f"{sentence(100 * i, 90, 'word')} {planted if i % 3 else ''} {sentence(5000 + 100 * i, 90)}" for i in range(12)
    ]
    found = []
    for workers in (1, 2):
        batch = testing.of_texts(texts)
        corpus = lay(*(batch.slice(a, 3) for a in range(0, 12, 3)), name=f"workers-{workers}")
        manifest = run_stage(corpus, recipe(corpus, path), "decontaminate", Engine(workers=workers))
        found.append((rows(corpus), [s.hash for s in manifest.shards], manifest.counters, manifest.facts))
    assert found[0] == found[1] and found[0][2]["masked-docs"] == 8
