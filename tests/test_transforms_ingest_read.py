"""Every format read in, and every fault found: the reader of splits as a whole."""

import bz2
import errno
import gzip
import io
import json
import os
import random
import tracemalloc

import apache_beam as beam
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.schemas import tables
from ropewalk.schemas.manifest import add_counters
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms.ingest import arrow_tables, chunks
from ropewalk.transforms.ingest.read import ReadDocuments, number_splits, read_split
from ropewalk.transforms.ingest.splits import plan_splits

FNAPI = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def read(path, *, threads=1, ingest=None, **entry):
    """Documents, rejects (as rows) and counters of one input."""
    recipe = parse_recipe({"output": "x", "input": {"path": str(path), **entry}, "ingest": ingest or {}})
    documents, rejects, counters = [], [], []
    for split in plan_splits(recipe).splits:
        for part in read_split(split, recipe.ingest, threads=threads):
            for batch in part.documents:
                assert batch.schema == tables.DOCUMENTS and 0 < batch.num_rows <= 4096
                batch.validate(full=True)
                documents += batch.to_pylist()
            rejects += part.rejects.to_pylist() if part.rejects else []
            counters.append(part.counters)
    total = add_counters(counters)
    assert total["records-in"] == total["docs-out"] + total["rejected-records"]
    assert total["docs-out"] == len(documents) == sum(v for k, v in total.items() if k.startswith("source:"))
    assert total["rejected-records"] == len(rejects)
    for row in documents:
        assert row["num_chars"] == len(row["text"]) and row["num_bytes"] == len(row["text"].encode())
    for row in rejects:
        assert total[f"{row['reason']}-records"] >= 1 and row["stage"] == "ingest" and row["detail"]
    return documents, rejects, total


def hex_id(value: str) -> str:
    return "".join(f"{xxhash.xxh64_intdigest(value.encode(), seed):016x}" for seed in (0, 1))


ROWS = [
    {"text": "one", "id": "a", "url": "http://a", "n": 1, "when": "2020-01-01T00:00:00Z"},
    {"text": 'two "quoted"\n\u00e9\U0001f600', "tags": ["x", {"y": None}], "f": 0.1},
    {"text": "", "id": 7, "url": None},
    {"text": "three", "big": 2**70, "id": None},
]


def lines_of(rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize(
    "layout", ["jsonl", "ndjson", "json-lines", "json-array", "json-pretty", "json-one-line-array"]
)
def test_json_in_every_layout_and_packing(tmp_path, layout, packing):
    data = {
        "jsonl": lines_of(ROWS),
        "ndjson": lines_of(ROWS).replace(b"\n", b"\r\n"),
        "json-lines": lines_of(ROWS),
        "json-array": json.dumps(ROWS, indent=1).encode(),
        "json-pretty": b"\n".join(json.dumps(row, indent=4).encode() for row in ROWS),
        "json-one-line-array": json.dumps(ROWS, ensure_ascii=False).encode(),
    }[layout]
    path = tmp_path / f"books.{layout.split('-')[0]}{packing}"
    path.write_bytes(PACKERS[packing](data))
    documents, rejects, counters = read(path)
    assert rejects == [] and [row["text"] for row in documents] == [row["text"] for row in ROWS]
    assert {row["source"] for row in documents} == {"books"}
    assert [row["url"] for row in documents] == ["http://a", None, None, None]
    assert [row["id"] for row in documents] == [
        hex_id("books\0a"), hex_id(ROWS[1]["text"]), hex_id("books\x007"), hex_id("three"),
    ]  # fmt: skip
    for found, row in zip(documents, ROWS, strict=True):
        rest = {k: v for k, v in row.items() if k != "text" and not (k == "url")}
        assert json.loads(found["metadata"] or "{}") == rest
    assert counters["bytes-in"] == path.stat().st_size and counters["files-in"] == 1


def test_a_mark_at_the_start_and_no_end_at_the_end(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text":"a"}\n\n  \r\n{"text":"b"}')
    documents, rejects, counters = read(path)
    assert [row["text"] for row in documents] == ["a", "b"] and not rejects and counters["blank-lines"] == 2


FAULTS = [
    (b'{"text": "cut', "broken_json"),
    (b'{"text": "a\0b"}', "broken_json"),
    (b"\0\0\0", "broken_json"),
    (b"[1, 2]", "not_an_object"),
    (b'"text"', "not_an_object"),
    (b'{"body": "x"}', "missing_text"),
    (b'{"text": null}', "null_text"),
    (b'{"text": 5}', "text_not_string"),
    (b'{"text": ["a"]}', "text_not_string"),
    (b'{"text": "a\xff"}', "invalid_utf8"),
    (b'{"text": "a", "other": "\xc3"}', "invalid_utf8"),
    (b'{"text": "\\ud800"}', "lone_surrogate"),
    (b'{"text": "' + b"x" * 3000 + b'"}', "oversized_record"),
    (b'{"text": "a"} {"text": "b"}', "broken_json"),
    (b'{"text": "deep", "a": ' + b"[" * 900 + b"}", "broken_json"),
]


@pytest.mark.parametrize("packing", PACKERS)
def test_every_faulty_line_is_a_dead_letter_and_all_others_are_read(tmp_path, packing):
    lines, wanted = [], []
    for n, (fault, reason) in enumerate(FAULTS):
        wanted.append((reason, len(lines) + 1, sum(len(line) + 1 for line in lines), fault))
        lines += [fault, json.dumps({"text": f"good {n}", "n": n}).encode()]
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(PACKERS[packing](b"\n".join(lines) + b"\n"))
    documents, rejects, counters = read(path, ingest={"max_record_bytes": 2000, "payload_limit": 100})
    assert [row["text"] for row in documents] == [f"good {n}" for n in range(len(FAULTS))]
    found = [(r["reason"], r["line"], r["byte_offset"], r["payload"], r["path"]) for r in rejects]
    assert found == [(reason, line, at, fault[:100], str(path)) for reason, line, at, fault in wanted]
    assert counters["records-in"] == len(lines)


def test_records_python_takes_and_the_kernel_doubts_keep_their_place(tmp_path):
    lines = [b'{"text":"a"}', b'{"te\\u0078t":"b","x":NaN,"y":[Infinity, 1]}', b'{"text":"c","text":"d"}',
             b'{"text":"e","id":"\\ud800","half":"\\udc00"}', b'{"text":"f"}']  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    documents, rejects, _ = read(path)
    assert [row["text"] for row in documents] == ["a", "b", "d", "e", "f"] and not rejects
    assert json.loads(documents[1]["metadata"]) == {"x": None, "y": [None, 1]}
    assert json.loads(documents[3]["metadata"]) == {"id": "\ud800", "half": "\udc00"}
    assert documents[3]["id"] == hex_id("e")


def test_only_strings_and_whole_numbers_are_keys(tmp_path):
    ids = [5, -7, "5", 1.5, True, [1], {"a": 1}, None, "", 2**80]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([{"text": f"t{n}", "id": value} for n, value in enumerate(ids)]))
    documents, _, _ = read(path)
    keyed = {0: "5", 1: "-7", 2: "5", 9: str(2**80)}
    assert [row["id"] for row in documents] == [
        hex_id(f"a\0{keyed[n]}" if n in keyed else f"t{n}") for n in range(len(ids))
    ]  # fmt: skip
    assert [json.loads(row["metadata"])["id"] for row in documents] == ids


def test_fields_by_name_and_one_field_with_two_parts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([{"body": "a", "link": "http://a", "text": "other"}, {"body": "b", "link": 5}]))
    documents, _, _ = read(path, text="body", url="link", id="link", source="web")
    assert [row["url"] for row in documents] == ["http://a", None]
    assert [json.loads(row["metadata"]) for row in documents] == [{"text": "other"}, {"link": 5}]
    assert [row["id"] for row in documents] == [hex_id("web\0http://a"), hex_id("web\x005")]


def test_a_changed_text_column_says_which_fields_there_are(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"body":"a"}\n')
    assert "'body'" in read(tmp_path / "a.jsonl")[1][0]["detail"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["text", "url", "id", "a", "b"]) | st.text(max_size=4), json_values),
                min_size=1, max_size=8), st.booleans())  # fmt: skip
def test_metadata_is_what_json_loads_finds(tmp_path, rows, ascii_only):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(json.dumps(row, ensure_ascii=ascii_only).encode() for row in rows))
    documents, rejects, _ = read(path)
    good = [row for row in rows if isinstance(row.get("text"), str)]
    assert len(rejects) == len(rows) - len(good)
    for found, row in zip(documents, good, strict=True):
        has_url = isinstance(row.get("url"), str)
        assert found["text"] == row["text"] and found["url"] == (row["url"] if has_url else None)
        gone = {"text"} | ({"url"} if row.get("url", None) is None or has_url else set())
        assert json.loads(found["metadata"] or "{}") == {k: v for k, v in row.items() if k not in gone}


@pytest.mark.parametrize("shard_bytes", [1024, 1500, 5000, 1 << 20])
@pytest.mark.parametrize("chunk", [64, 700, 1 << 20])
def test_ranges_and_chunks_change_nothing(tmp_path, monkeypatch, shard_bytes, chunk):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk)
    randomly = random.Random(5)
    rows, lines = [], []
    for n in range(200):
        rows.append({"text": "w" * randomly.randrange(200), "n": n})
        lines.append(b"" if n % 17 == 0 else b"{bad" if n % 23 == 0 else json.dumps(rows[-1]).encode())
    lines[50] = b'{"text": "' + b"y" * 4000 + b'"}'
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    documents, rejects, counters = read(path, ingest={"shard_bytes": shard_bytes, "max_record_bytes": 2000})
    keep = [n for n, line in enumerate(lines) if line.startswith(b'{"text"') and n != 50]
    assert [json.loads(row["metadata"])["n"] for row in documents] == keep
    starts = np.cumsum([0] + [len(line) + 1 for line in lines])
    bad = [n for n, line in enumerate(lines) if line == b"{bad" or n == 50]
    assert [(r["line"], r["byte_offset"]) for r in rejects] == [(n + 1, starts[n]) for n in bad]
    assert counters["blank-lines"] == sum(line == b"" for line in lines) and counters["files-in"] == 1


@pytest.mark.parametrize("border", range(-3, 4))
def test_a_range_that_begins_at_a_line_s_start_owns_it(tmp_path, border):
    line = lambda n: json.dumps({"text": f"{n}"}).encode() + b"\n"  # noqa: E731
    path = tmp_path / "a.jsonl"
    first = b'{"text":"' + b"x" * (1024 - 12 + border) + b'"}\n'
    path.write_bytes(first + b"".join(line(n) for n in range(1024 // 14 + 1)))
    documents, rejects, _ = read(path, ingest={"shard_bytes": 1024})
    assert [row["text"] for row in documents[1:]] == [str(n) for n in range(1024 // 14 + 1)] and not rejects


@pytest.mark.parametrize("chunk", [50, 500, 1 << 20])
def test_values_that_span_lines(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk)
    parts = [
        b'{"text": "a",\n "n": 1}',
        b'{"text": tru}',
        b"7",
        b'{"text": "' + b"z\\n" * 400 + b'"}',
        b'{"text": "b"}',
    ]
    data = b"[\n" + b",\n".join(parts) + b"\n]\n"
    (tmp_path / "a.json").write_bytes(data)
    documents, rejects, _ = read(tmp_path / "a.json", ingest={"max_record_bytes": 1000, "payload_limit": 20})
    assert [row["text"] for row in documents] == ["a", "b"]
    wanted = [("broken_json", 4, parts[1]), ("not_an_object", 5, parts[2]), ("oversized_record", 6, parts[3][:20])]
    assert [(r["reason"], r["line"], r["payload"]) for r in rejects] == wanted
    assert [r["byte_offset"] for r in rejects] == [data.index(part) for part in parts[1:4]]


@pytest.mark.parametrize("cut", [b'[{"text": "a"}, {"text": "b"', b'[{"text": "a"}, {"text": "b"}', b'[{"text": "a"},'])
def test_an_array_that_is_not_closed(tmp_path, cut):
    (tmp_path / "a.json").write_bytes(cut)
    documents, rejects, _ = read(tmp_path / "a.json")
    assert [row["text"] for row in documents] == (["a", "b"] if cut.endswith(b"}") else ["a"])
    assert [row["reason"] for row in rejects] == ["truncated_file"]


@pytest.mark.parametrize("form", ["jsonl", "json"])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_truncated_packed_files_give_what_came_before_the_break(tmp_path, packing, share, form):
    noise = random.Random(1).randbytes(700 * 800).hex()
    rows = [{"text": noise[n * 700 : n * 700 + 700], "n": n} for n in range(800)]
    packed = PACKERS[packing](lines_of(rows) if form == "jsonl" else json.dumps(rows).encode())
    path = tmp_path / f"a.{form}{packing}"
    path.write_bytes(packed[: int(len(packed) * share)])
    documents, rejects, counters = read(path)
    assert [json.loads(row["metadata"])["n"] for row in documents] == list(range(len(documents)))
    assert len(documents) / 800 == pytest.approx(share, abs=0.15)
    assert [row["reason"] for row in rejects] == ["truncated_file"]
    if form == "jsonl":
        assert rejects[0]["line"] == len(documents) + 1
        assert rejects[0]["byte_offset"] == len(lines_of(rows[: len(documents)]))


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_members_and_frames_one_after_the_other(tmp_path, packing):
    pack = PACKERS[packing]
    padding = b"\0" * 600_000 if packing == ".gz" else b""
    (tmp_path / f"a.jsonl{packing}").write_bytes(
        pack(lines_of(ROWS[:2])) + pack(b"") + pack(lines_of(ROWS[2:])) + padding
    )
    documents, rejects, _ = read(tmp_path / f"a.jsonl{packing}")
    assert len(documents) == len(ROWS) and not rejects


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_what_is_not_packed_at_all(tmp_path, packing):
    (tmp_path / f"a.jsonl{packing}").write_bytes(bz2.compress(b"x" * 100))
    documents, rejects, _ = read(tmp_path / f"a.jsonl{packing}")
    assert not documents and [row["reason"] for row in rejects] == ["damaged_file"]


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow", "a.txt", "a.html"]
)
def test_empty_files_are_dead_letters(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    documents, rejects, _ = read(tmp_path)
    assert not documents and [(r["reason"], r["path"]) for r in rejects] == [("empty_file", str(tmp_path / name))]


def peak_of_reading(path, trace=True) -> tuple[int, int, int]:
    """Documents, largest batch, and peak of Python's and numpy's memory if it is traced."""
    recipe = parse_recipe({"output": "x", "input": str(path), "ingest": {"shard_bytes": 1 << 30}})
    (split,) = plan_splits(recipe).splits
    if trace:
        tracemalloc.start()
    largest = rows = 0
    for part in read_split(split, recipe.ingest, threads=2):
        largest = max([largest, *(batch.nbytes for batch in part.documents)])
        rows += sum(batch.num_rows for batch in part.documents)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return rows, largest, peak


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_a_larger_file_needs_no_more_memory(tmp_path, monkeypatch, packing):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1 << 20)
    line = json.dumps({"text": "lorem ipsum " * 160, "n": 1}).encode() + b"\n"
    peaks = []
    for count in (100, 4000, 32000):  # the first loads what is loaded once; 8 and 62 MB
        path = tmp_path / f"{count}.jsonl{packing}"
        path.write_bytes((gzip.compress(line * 100, 1) if packing else line * 100) * (count // 100))
        rows, largest, peak = peak_of_reading(path, trace=count > 100)
        assert rows == count and largest < 2 << 20
        peaks.append(peak)
    # How many chunks are on their way at once is a matter of time: a few more or less than with the small file.
    assert peaks[1] < 25 << 20 and peaks[2] < peaks[1] + (5 << 20)


def test_an_endless_line_is_not_held(tmp_path):
    path = tmp_path / "big.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text":"a"}\n{"text":"')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"text":"b"}\n')
    tracemalloc.start()
    documents, rejects, _ = read(path, ingest={"max_record_bytes": 1 << 20, "payload_limit": 10})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["text"] for row in documents] == ["a", "b"] and peak < 60 << 20
    (row,) = rejects
    assert (row["reason"], row["line"], row["byte_offset"], row["payload"]) == (
        "oversized_record",
        2,
        13,
        b'{"text":"x',
    )
    assert row["detail"].startswith(f"{(100 << 20) + 11} bytes")


def test_text_html_and_code(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("plain é", encoding="utf-8")
    (tmp_path / "sub" / "a.txt").write_text("below")
    (tmp_path / "b.md").write_bytes(b"\xef\xbb\xbf# head")
    (tmp_path / "c.rst.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "d.html").write_text("<html><body><p>Hello <b>you</b></p><script>no()</script></body></html>")
    (tmp_path / "e.html").write_bytes('<meta charset="latin-1"><p>caf\xe9</p>'.encode("latin-1"))
    (tmp_path / "f.txt").write_bytes(b"line\nbad \xff")
    (tmp_path / "g.csv").write_text("1,2")
    (tmp_path / "h.tar.gz").write_text("x")
    (tmp_path / "noending").write_text("x")
    (tmp_path / ".hidden.txt").write_text("x")
    documents, rejects, counters = read(tmp_path, source="s")
    assert {row["url"]: row["text"].strip() for row in documents} == {
        "a.txt": "plain é", "b.md": "# head", "c.rst.gz": "packed", "d.html": "Hello you", "e.html": "café",
        "sub/a.txt": "below",
    }  # fmt: skip
    assert {row["id"] for row in documents} >= {hex_id("s\0a.txt"), hex_id("s\0sub/a.txt")}
    assert [(r["reason"], r["line"], r["byte_offset"]) for r in rejects] == [("invalid_utf8", 2, 9)]
    skipped = {name: count for name, count in counters.items() if name.startswith("skipped")}
    assert skipped == {f"skipped:{e}-files": 1 for e in (".csv", ".tar.gz", "none", "hidden")}


def test_source_code_one_document_a_file(tmp_path):
    for name in ("a.py", "Makefile", "b.CPP", "data.bin", "c.json"):
        (tmp_path / name).write_text(f"in {name}")
    documents, _, counters = read(tmp_path, format="code")
    assert [row["url"] for row in documents] == ["Makefile", "a.py", "b.CPP", "c.json"]
    assert counters["skipped:.bin-files"] == 1


def test_repositories_are_joined_in_order_of_path(tmp_path):
    for repository in ("beta", "alpha"):
        (tmp_path / repository / "src").mkdir(parents=True)
        (tmp_path / repository / "src" / "z.py").write_text("z = 1\n")
        (tmp_path / repository / "src" / "a.py").write_text("import z\n\n")
        (tmp_path / repository / "README.md").write_text(f"# {repository}")
        (tmp_path / repository / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "beta" / "broken.c").write_bytes(b"\xff")
    documents, rejects, counters = read(tmp_path, unit="repository", ingest={"shard_bytes": 1024})
    assert [row["url"] for row in documents] == ["alpha", "beta"]
    assert documents[0]["text"] == "# README.md\n\n# alpha\n\n# src/a.py\n\nimport z\n\n# src/z.py\n\nz = 1\n"
    assert [row["path"] for row in rejects] == [str(tmp_path / "beta" / "broken.c")]
    assert counters["skipped:.png-files"] == 2
    for path in (tmp_path / "alpha", f"{tmp_path}/al*"):  # one repository by itself, or by a pattern
        (row,), _, _ = read(path, unit="repository")
        assert row["text"] == documents[0]["text"] and row["url"] == "alpha"
    _, rejects, _ = read(tmp_path, unit="repository", ingest={"max_record_bytes": 10})
    assert [row["reason"] for row in rejects] == ["oversized_record"] * 2


def rows_of(count: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"r{n}" for n in range(count)],
            "text": [f"text {n} é\n" for n in range(count)],
            "n": pa.array(range(count), pa.int16()),
            "f": pa.array([n / 3 if n % 2 else float("nan") for n in range(count)]),
            "s": [None if n % 3 == 0 else f'q"\\{n}' for n in range(count)],
            "c": ["tab\t" if n == 1 else "x" for n in range(count)],
            "l": [[n, None] for n in range(count)],
            "t": pa.array([n for n in range(count)], pa.timestamp("ms")),
            "d": pa.array([f"k{n % 2}" for n in range(count)]).dictionary_encode(),
        }
    )


def expected_metadata(n: int) -> dict:
    rest = {"id": f"r{n}", "n": n, "c": "tab\t" if n == 1 else "x", "l": [n, None], "d": f"k{n % 2}"}
    rest |= {"f": n / 3} if n % 2 else {}
    rest |= {} if n % 3 == 0 else {"s": f'q"\\{n}'}
    return rest


@pytest.mark.parametrize("form", ["parquet", "arrow-stream", "arrow-file", "dataset", "dataset-dict"])
@pytest.mark.parametrize("text_type", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_tables(tmp_path, form, text_type):
    table = rows_of(30)
    table = table.set_column(1, "text", table["text"].cast(text_type) if "dict" not in str(text_type)
                             else table["text"].dictionary_encode())  # fmt: skip
    path = tmp_path / "t.arrow"
    if form == "parquet":
        path = tmp_path / "t.parquet"
        pq.write_table(table, path, row_group_size=7)
    elif form.startswith("arrow"):
        new = pa.ipc.new_stream if form == "arrow-stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    else:
        path = tmp_path / "t"
        made = datasets.Dataset(table.set_column(1, "text", table["text"].cast(pa.string())))
        made = made if form == "dataset" else datasets.DatasetDict(
            {"train": made.select(range(20)), "test": made.select(range(20, 30))}
        )  # fmt: skip
        made.save_to_disk(path, **({"num_shards": 3} if form == "dataset" else {}))
    documents, rejects, counters = read(path, source="t")
    documents.sort(key=lambda row: int(row["text"].split()[1]))
    assert not rejects and counters["docs-out"] == 30 and not any("skipped" in name for name in counters)
    for n, row in enumerate(documents):
        assert row["text"] == f"text {n} é\n" and row["id"] == hex_id(f"t\0r{n}")
        rest = json.loads(row["metadata"])
        assert "1970-01-01" in rest.pop("t") and rest == expected_metadata(n)


def test_faults_inside_tables(tmp_path):
    bad = pa.LargeStringArray.from_buffers(2, pa.py_buffer(np.array([0, 2, 4], np.int64)), pa.py_buffer(b"ok\xff\xfe"))
    table = pa.table({"text": ["a", None, "b" * 500, "c", "d"], "x": pa.concat_arrays([pa.array(["1", "2", "3"],
                     pa.large_string()), bad])})  # fmt: skip
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    documents, rejects, _ = read(tmp_path, ingest={"max_record_bytes": 100, "payload_limit": 5})
    assert [(row["text"], row["metadata"]) for row in documents] == [("a", '{"x":"1"}'), ("c", '{"x":"ok"}')]
    assert [(r["reason"], r["line"], r["payload"]) for r in rejects] == [
        ("null_text", 2, None), ("oversized_record", 3, b"bbbbb"), ("invalid_utf8", 5, b"d"),
    ]  # fmt: skip


def test_rows_without_any_other_value_have_no_metadata(tmp_path):
    pq.write_table(
        pa.table({"text": ["a", "b", "c"], "x": ["1", None, None], "y": [None, None, 2.5]}), tmp_path / "a.parquet"
    )
    assert [row["metadata"] for row in read(tmp_path)[0]] == ['{"x":"1"}', None, '{"y":2.5}']


def test_a_text_column_of_numbers_and_none_at_all(tmp_path):
    pq.write_table(pa.table({"text": [1, None]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    _, rejects, _ = read(tmp_path)
    assert [(r["reason"], r["line"]) for r in rejects] == [
        ("text_not_string", 1),
        ("null_text", 2),
        ("missing_text", None),
    ]
    assert "'body'" in rejects[2]["detail"]


def test_a_damaged_row_group_does_not_stop_the_next(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(rows_of(40), path, row_group_size=10, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = (
        b"\xa5" * column.total_compressed_size
    )
    path.write_bytes(data)
    documents, rejects, _ = read(path)
    assert [int(row["text"].split()[1]) for row in documents] == [*range(10), *range(20, 40)]
    assert [(r["reason"], r["line"]) for r in rejects] == [("damaged_rows", 11)] and "10 of its 10 rows" in rejects[0][
        "detail"
    ]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_that_is_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a table at all, whatever its name says")
    documents, rejects, _ = read(tmp_path)
    assert not documents and [row["reason"] for row in rejects] == ["damaged_file"]


@pytest.mark.parametrize("form", ["stream", "file"])
def test_a_truncated_arrow_file(tmp_path, form):
    path, table = tmp_path / "a.arrow", rows_of(3000)
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    documents, rejects, _ = read(path)
    assert [int(row["text"].split()[1]) for row in documents] == list(range(len(documents)))
    if form == "stream":
        assert 1000 < len(documents) < 2000 and rejects[0]["line"] == len(documents) + 1
    assert [r["reason"] for r in rejects] == ["truncated_file" if form == "stream" else "damaged_file"]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(tmp_path, monkeypatch, threads):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 256)
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines_of([{"text": f"t{n}"}]) + b"bad\n" for n in range(300)))
    documents, rejects, _ = read(tmp_path, threads=threads)
    assert [row["text"] for row in documents] == [f"t{n}" for n in range(300)]
    assert [row["line"] for row in rejects] == list(range(2, 602, 2))


def test_a_limit_stops_the_reading(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines_of([{"text": f"{name}{n}"} for n in range(50)]))
    for limit in (1, 50, 70, 100, 500):
        documents, _, counters = read(tmp_path, ingest={"limit": limit})
        assert len(documents) == min(limit, 100) and documents[0]["text"] == "a0"
    assert counters["records-in"] == 100


def test_transform_for_other_pipelines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines_of(ROWS) + b"bad\n")
    recipe = parse_recipe({"output": "x", "input": str(tmp_path), "ingest": {"shard_bytes": 1024}})

    def texts(batches):
        assert sorted(t for b in batches for t in b.column("text").to_pylist()) == sorted(r["text"] for r in ROWS)

    def reasons(batches):
        assert [r for b in batches for r in b.column("reason").to_pylist()] == ["broken_json"]

    with TestPipeline(runner=FNAPI) as pipeline:
        found = pipeline | beam.Create(number_splits(plan_splits(recipe).splits)) | ReadDocuments(recipe.ingest)
        assert found.documents.element_type == found.rejects.element_type == pa.RecordBatch
        assert_that(found.documents, texts, label="documents")
        assert_that(found.rejects, reasons, label="rejects")


@pytest.mark.parametrize(
    "charset", ["undefined", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "hex", "rot13", "utf-16",
                "utf-7", "aliases", "nosuch", "__init__"],
)  # fmt: skip
def test_pages_of_strange_character_sets_are_dead_letters(tmp_path, charset):
    (tmp_path / "a.html").write_bytes(f'<meta charset="{charset}">'.encode() + b"<p>\\ud800 +2AA- \xff</p>")
    (tmp_path / "b.html").write_text("<p>fine</p>")
    documents, rejects, _ = read(tmp_path)
    assert [row["text"].strip() for row in documents] == ["fine"]
    assert [(row["reason"], row["byte_offset"] > 20) for row in rejects] == [("invalid_utf8", True)]


def test_pages_that_nest_too_deep_are_dead_letters_and_long_ones_are_not(tmp_path):
    cell = "<div><table><tr><td></div>"  # its end is no end: a cell keeps it out
    deep = {"plain": "<div>" * 60_000, "noise": "<div></x>" * 60_000, "quoted": '<div a="></div>">' * 60_000,
            "cells": cell * 20_000, "limit": "<div>" * 1001}  # fmt: skip
    flat = {"unclosed": "<p>x<li>y" * 3000, "closed": "<div><b>x</b><br><a href='y'>z</a></div>" * 3000,
            "almost": "<div>" * 990}  # fmt: skip
    for name, body in (deep | flat).items():
        (tmp_path / f"{name}.html").write_text(f"<html><body>{body}word")
    documents, rejects, _ = read(tmp_path)
    assert {row["reason"] for row in rejects} == {"html_too_deep"}
    assert sorted(os.path.basename(row["path"]) for row in rejects) == sorted(f"{name}.html" for name in deep)
    assert sorted(row["url"] for row in documents) == sorted(f"{name}.html" for name in flat)
    assert all("word" in row["text"] for row in documents)


NAMES = ["a.txt", "a.html", "a.jsonl", "a.json", "a.jsonl.gz", "a.parquet", "a.arrow"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_goes_after_the_listing_is_a_dead_letter(tmp_path, name):
    (tmp_path / name).write_bytes(b"x" * 3000)
    (tmp_path / "kept.txt").write_text("kept")
    recipe = parse_recipe({"output": "x", "input": str(tmp_path)})
    plan = plan_splits(recipe)
    (tmp_path / name).unlink()
    parts = [part for split in plan.splits for part in read_split(split, recipe.ingest)]
    assert [text for part in parts for b in part.documents for text in b["text"].to_pylist()] == ["kept"]
    (row,) = [row for part in parts if part.rejects for row in part.rejects.to_pylist()]
    assert (row["reason"], row["path"]) == ("unreadable_file", str(tmp_path / name))
    assert "No such file" in row["detail"]


class BadDisk(io.FileIO):
    """Fails in the middle."""

    def read(self, size=-1):
        if size < 0 or self.tell() + size > (1 << 20) + 1024:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.jsonl.gz"])
def test_a_disk_that_fails_in_the_middle(tmp_path, monkeypatch, name):
    noise = random.Random(1).randbytes(1 << 20).hex()
    data = b"".join(lines_of([{"text": noise[n : n + 2000], "n": n}]) for n in range(0, len(noise), 2000))
    (tmp_path / name).write_bytes(PACKERS[".gz" if name.endswith("gz") else ""](data))
    for module in ("json_records", "whole_files"):
        monkeypatch.setattr(f"ropewalk.transforms.ingest.{module}.open_file", lambda path: BadDisk(path))
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1 << 18)
    documents, rejects, _ = read(tmp_path)
    assert [(row["reason"], "Input/output" in row["detail"]) for row in rejects] == [("unreadable_file", True)]
    assert name == "a.txt" or len(documents) > 100


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_on_a_disk_that_fails(tmp_path, monkeypatch, name):
    noise = random.Random(1).randbytes(1 << 20).hex()
    table = pa.table({"text": [noise[n : n + 2000] for n in range(0, len(noise), 2000)]})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name, row_group_size=100, use_dictionary=False)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    monkeypatch.setattr("ropewalk.transforms.ingest.arrow_tables.open_file", lambda path: BadDisk(path))
    monkeypatch.setattr("ropewalk.transforms.ingest.arrow_tables.LocalFileSystem", type(None))  # no memory map
    documents, rejects, _ = read(tmp_path)
    assert [(row["reason"], "Input/output" in row["detail"]) for row in rejects] == [("unreadable_file", True)]
    assert len(documents) == (0 if name == "a.parquet" else 500)  # Parquet's footer is at the end


def test_a_repository_of_packed_files_is_not_held_beyond_its_bound(tmp_path):
    (tmp_path / "repo").mkdir()
    for n in range(40):
        (tmp_path / "repo" / f"{n:02}.py.gz").write_bytes(gzip.compress(b"x = 1\n" * 100_000))
    tracemalloc.start()
    documents, rejects, _ = read(tmp_path, unit="repository", ingest={"max_record_bytes": 2 << 20})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not documents and [row["reason"] for row in rejects] == ["oversized_record"] and peak < 16 << 20
    documents, rejects, _ = read(tmp_path, unit="repository")
    assert len(documents) == 1 and not rejects and documents[0]["num_bytes"] > 24_000_000


def test_packed_files_of_unknown_size_do_not_share_a_batch(tmp_path):
    for n in range(8):
        (tmp_path / f"{n}.txt.gz").write_bytes(gzip.compress(b"x" * (30 << 20)))  # 30 KB each, as stored
    recipe = parse_recipe({"output": "x", "input": str(tmp_path)})
    (split,) = plan_splits(recipe).splits
    assert max(len(part.documents) for part in read_split(split, recipe.ingest)) <= 2


def column_of(type_: pa.DataType, raw: int) -> pa.Array:
    return pa.array([raw], pa.int32() if type_.bit_width == 32 else pa.int64()).view(type_)


@pytest.mark.parametrize(
    ("type_", "raw"),
    [(pa.date32(), 2**31 - 1), (pa.date64(), 86_400_000 * 10**9), (pa.timestamp("s"), 2**62), (pa.duration("s"), 2**62),
     (pa.timestamp("s", "Nowhere/City"), 5), (pa.timestamp("us"), -(2**62))],
)  # fmt: skip
@pytest.mark.parametrize("form", ["plain", "list", "struct", "dictionary", "map"])
def test_times_that_python_cannot_hold_are_written_as_their_numbers(tmp_path, type_, raw, form):
    column = column_of(type_, raw)
    if form == "list":
        column = pa.ListArray.from_arrays([0, 1], column)
    elif form == "struct":
        column = pa.StructArray.from_arrays([column, pa.array(["x"])], ["t", "y"])
    elif form == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0]), column)
    elif form == "map":
        column = pa.MapArray.from_arrays([0, 1], pa.array(["k"]), column)
    table = pa.table({"text": ["a"], "when": column, "n": [1]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    documents, rejects, _ = read(tmp_path)
    wanted = {"list": [str(raw)], "struct": {"t": str(raw), "y": "x"}, "map": [{"key": "k", "value": str(raw)}]}
    assert not rejects and json.loads(documents[0]["metadata"]) == {"n": 1, "when": wanted.get(form, str(raw))}


def test_a_struct_with_two_fields_of_one_name_keeps_both(tmp_path):
    column = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    table = pa.table({"text": ["a"], "s": column})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    documents, rejects, _ = read(tmp_path)
    assert not rejects and json.loads(documents[0]["metadata"]) == {"s": [["x", 1], ["x", 2]]}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("twice", ["text", "other"])
def test_two_columns_of_one_name_are_one_dead_letter(tmp_path, name, twice):
    names = ["text", twice, "n", twice] if twice != "text" else ["text", "text", "n", "x"]
    table = pa.table([pa.array(["a", "b"])] * 4, names=names)
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    documents, rejects, _ = read(tmp_path)
    assert not documents and [row["reason"] for row in rejects] == ["duplicate_column"]
    assert repr(twice) in rejects[0]["detail"]


def test_dictionaries_are_unpacked_a_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_tables, "PART_BYTES", 1 << 20)
    words = ["x" * 300_000, "y" * 10, "z" * 2_000_000]
    places = random.Random(1).choices(range(3), weights=[20, 60, 1], k=600)
    text = pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), pa.array(words))
    table = pa.table({"text": text, "n": list(range(600)), "k": pa.array(["k"] * 600).dictionary_encode()})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    recipe = parse_recipe({"output": "x", "input": str(tmp_path)})
    (split,) = plan_splits(recipe).splits
    found = []
    for part in read_split(split, recipe.ingest):
        lengths = [row for batch in part.documents for row in batch["num_bytes"].to_pylist()]
        assert sum(lengths) <= 1 << 20 or len(lengths) == 1
        found += lengths
    assert found == [len(words[place]) for place in places] and sum(found) > 30 << 20


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_other_columns_are_bounded_as_records_are(tmp_path, name):
    table = pa.table({"text": ["a", "b", "c"], "x": ["1", "\x01" * 1000, "3"]})  # six bytes each, in JSON
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    documents, rejects, _ = read(tmp_path, ingest={"max_record_bytes": 5000})
    assert [row["text"] for row in documents] == ["a", "c"]
    assert [(row["reason"], row["line"]) for row in rejects] == [("oversized_record", 2)]
