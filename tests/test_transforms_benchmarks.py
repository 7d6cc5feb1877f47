"""Benchmarks from all kinds of files, and what is said of those that cannot be read."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.schemas.benchmarks import BENCHMARKS
from ropewalk.schemas.decontaminate import BenchmarkConfig, DecontaminateConfig
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.benchmark_index import build_index
from ropewalk.transforms.benchmarks import BenchmarkError, find_benchmark, find_benchmarks, fingerprint, read_items

ROWS = [
    {"id": "one", "q": "first question", "choices": ["a", "b"], "qa": [{"Q": "why", "A": "so"}], "n": 3},
    {"id": "two", "q": "second", "choices": ["c"], "qa": [{"Q": "who", "A": "me"}, {"Q": "how", "A": "thus"}], "n": 4},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def items(path, **settings):
    source = find_benchmark(BenchmarkConfig(path=str(path), **settings))
    return source.name, [(item.name, item.texts, item.answers) for item in read_items(source)]


def jsonl(path):
    path.write_text(LINES.replace("\n", "\n\n"))


def packed(path):
    path.write_bytes(gzip.compress(LINES.encode()))


def json_list(path):
    path.write_text("\ufeff" + json.dumps(ROWS, indent=1))


def json_object(path):
    path.write_text(json.dumps({"version": "1.1", "data": ROWS}))


def json_lines(path):
    path.write_text(LINES)


def json_by_name(path):
    path.write_text(json.dumps({row["id"]: {k: v for k, v in row.items() if k != "id"} for row in ROWS}))


def parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def arrow_file(path):
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(path, table.schema) as sink:
        sink.write_table(table)


def arrow_stream(path):
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(path, table.schema) as sink:
        sink.write_table(table)


def dataset(path):
    datasets.Dataset.from_list(ROWS).save_to_disk(path)


def dataset_dict(path):
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("b.jsonl", jsonl), ("b.jsonl.gz", packed), ("b.json", json_list), ("b2.json", json_object),
        ("b3.json", json_lines), ("b4.json", json_by_name), ("b.parquet", parquet), ("b.arrow", arrow_file),
        ("c.arrow", arrow_stream), ("folder", dataset), ("folders", dataset_dict),
    ],
)  # fmt: skip
def test_every_kind_of_file(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    fields = {"fields": ["q", "choices", "qa.Q"], "answers": ["qa.A"]}
    expected = [
        ("one", ("first question", "a", "b", "why"), ("so",)),
        ("two", ("second", "c", "who", "how"), ("me", "thus")),
    ]
    assert items(path, **fields) == (name.split(".")[0], expected)
    assert sorted(items(path)[1][0][1]) == sorted(["first question", "a", "b", "why", "so"])
    assert sorted(items(path, answers=["qa.A", "q"])[1][0][1]) == sorted(["a", "b", "why"])


def test_items_of_a_folder_are_numbered_through(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"q": f"{name}{i}"}) + "\n" for i in range(2)))
    (tmp_path / "README.md").write_text("not an item")
    assert items(tmp_path, name="mine") == (
        "mine",
        [(str(i), (q,), ()) for i, q in enumerate(["a0", "a1", "b0", "b1"])],
    )
    assert [name for name, _, _ in items(tmp_path / "*.jsonl", id="q")[1]] == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        ("", {}, ["b.jsonl", "no items"]),
        ("\n\n", {}, ["b.jsonl", "no items"]),
        ('{"q": "x"}\n{"q": \n', {}, ["b.jsonl, line 2", "not JSON"]),
        ('["x"]\n', {}, ["line 1", "an item is an object, got list"]),
        (LINES, {"fields": ["question", "q"]}, ["'question'", "its fields are id, q, choices, qa, n"]),
        (LINES, {"answers": ["qa.B"]}, ["'qa.B'", "Correct"]),
        (LINES, {"fields": ["n"]}, ["no item has text in 'n'"]),
    ],
)
def test_what_is_said_of_a_wrong_file(tmp_path, content, settings, words):
    path = tmp_path / "b.jsonl"
    path.write_text(content)
    with pytest.raises(BenchmarkError) as error:
        items(path, **settings)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.parquet", b"PAR1 and no more", "copy it again"),
        ("b.arrow", b"ARROW1 and no more", "copy it again"),
        ("c.arrow", b"no Arrow", "copy it again"),
        ("b.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:40], "truncated_file"),
        ("b.jsonl", b'{"q": "\xff"}', "cannot be read"),
        ("b.json", b"[1, 2]", "not a list of objects"),
        ("b.json", b'[{"q": ]', "line 1: not JSON"),
        ("b.txt", b"a text", "holds text only"),
        ("b.csv", b"a,b", "benchmark"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecipeError) as error:
        items(path)
    assert words in str(error.value) and name in str(error.value)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(BenchmarkError, match="benchmark '.*nowhere.jsonl': no such file or folder"):
        items(tmp_path / "nowhere.jsonl")


def test_half_a_character_in_a_name_is_no_reason_to_stop(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text('{"id": "\\ud800", "q": "' + "word " * 20 + '"}\n')
    assert [name for name, *_ in items(path)[1]] == ["?"]
    config = DecontaminateConfig(benchmarks=[{"path": str(path)}])
    index = build_index(str(tmp_path / "index"), find_benchmarks(config.benchmarks), config)
    assert index.item_names.to_pylist() == ["?"]


@pytest.mark.parametrize("name", ["bench.jsonl", "bench.json"])
def test_a_number_of_too_many_digits_is_named(tmp_path, name):
    path = tmp_path / name
    line = '{"id": 1, "q": ' + "1" * 5000 + "}"
    path.write_text('{"id": 0, "q": "x"}\n' + line if name.endswith("l") else f"[{line}]")
    with pytest.raises(BenchmarkError, match=rf"{name}{', line 2' if name.endswith('l') else ''}: a number of too"):
        items(path)


def test_half_a_character_is_no_reason_to_stop(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"q": "a \\ud800 b"}\n')
    assert items(tmp_path / "b.jsonl")[1][0][1] == ("a ? b",)


def test_known_benchmarks_bring_their_fields(tmp_path):
    row = {"_id": "x", "input": "the question", "context": "the context", "answers": ["yes"], "all_classes": ["no"]}
    (tmp_path / "hotpotqa.jsonl").write_text(json.dumps(row))
    assert items(tmp_path, name="LongBench")[1] == [("x", ("the question", "the context"), ("yes",))]
    assert items(tmp_path, name="longbench", fields=["all_classes"])[1] == [("x", ("no",), ())]


def test_known_benchmarks_without_a_file_or_the_network(monkeypatch):
    with pytest.raises(BenchmarkError, match=r"longbench': no plain file to read; unpack data.zip .* set `path` to it"):
        items("longbench")

    def offline(entry, output=None):
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr("ropewalk.transforms.benchmarks.list_input", offline)
    with pytest.raises(BenchmarkError, match="ConnectionError: no route.* Without the network, copy its files here"):
        items("longbench-v2")


def test_every_known_benchmark_can_be_had():
    for name, benchmark in BENCHMARKS.items():
        assert name == name.lower() and bool(benchmark.url) != bool(benchmark.how)


def test_two_of_one_name(tmp_path):
    (tmp_path / "b.jsonl").write_text(LINES)
    twice = [BenchmarkConfig(path=str(tmp_path / "b.jsonl"))] * 2
    with pytest.raises(BenchmarkError, match="two are called 'b'"):
        find_benchmarks(twice)


def test_fingerprint_is_of_the_content(tmp_path):
    (tmp_path / "b.jsonl").write_text(LINES)
    source = find_benchmark(BenchmarkConfig(path=str(tmp_path / "b.jsonl")))
    first = fingerprint(source)
    assert fingerprint(source) == first
    (tmp_path / "b.jsonl").write_text(LINES + LINES)
    assert fingerprint(source) != first


def test_benchmarks_that_could_never_match_are_refused(tmp_path):
    (tmp_path / "b.jsonl").write_text(LINES)
    source = find_benchmark(BenchmarkConfig(path=str(tmp_path / "b.jsonl")))
    config = DecontaminateConfig(benchmarks=[{"path": "x"}])
    with pytest.raises(BenchmarkError, match="none of its 2 items has a text of 13 words or more.*smaller `ngram`"):
        build_index(str(tmp_path / "index"), [source], config)
    with pytest.raises(BenchmarkError, match="rule 'datatrove' looks for answers, and none are named"):
        build_index(
            str(tmp_path / "index"), [source], DecontaminateConfig(benchmarks=[{"path": "x"}], rule="datatrove")
        )
    found = build_index(str(tmp_path / "index"), [source], config.model_copy(update={"ngram": 2}))
    assert found.info["b"] == {"items": 2, "texts": 11, "ngram": 2, "short-items": 1}


def test_rules_and_what_wins_over_them():
    config = DecontaminateConfig(benchmarks=[{"path": "x"}])
    assert (config.rule, config.ngram, config.action, config.window, config.max_documents) == (
        "gpt3",
        13,
        "mask",
        200,
        10,
    )
    palm = DecontaminateConfig(benchmarks=[{"path": "x"}], rule="palm", share=0.5)
    assert (palm.ngram, palm.share, palm.share_of, palm.action, palm.window) == (8, 0.5, "ngrams", "drop", 0)
    for wrong in ({"skips": 2, "share_of": "ngrams"}, {"skips": 2, "ngram": None}, {"share": 0.1, "clean_below": 0.2}):
        with pytest.raises(ValueError, match="share_of|clean_below"):
            DecontaminateConfig(benchmarks=[{"path": "x"}], **wrong)


def test_the_list_in_the_documentation_is_that_of_the_code():
    page = (Path(__file__).resolve().parent.parent / "docs" / "decontamination.md").read_text(encoding="utf-8")
    told = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}
    assert list(BENCHMARKS) == [name for name in told if name in BENCHMARKS]
    for name, benchmark in BENCHMARKS.items():
        for word in (*benchmark.fields, *benchmark.answers, benchmark.how or benchmark.url):
            assert word in told[name]
