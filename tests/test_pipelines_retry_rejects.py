"""Dead letters out, mended, and back in: end to end on real folders."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ropewalk.pipelines import corpus, retry_rejects
from ropewalk.pipelines.inspect import Inspector
from ropewalk.schemas.recipe import RecipeError, parse_recipe
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.ingest import mended as mended_files

OFF = {stage: False for stage in ("dedup", "tokenize", "embed", "cluster", "order", "pack", "report")}


def hostile(folder):
    """Two sources; six records of `web` are broken, each in its own way, one of `books`."""
    folder.mkdir()
    lines = [
        b'{"body": "good one", "n": 1}',
        b'{"body": "cut off, "n": 2}',
        b'{"body": 3}',
        b'{"txt": "another name"}',
        b'{"body": "not \xff UTF-8"}',
        b"[1, 2]",
        b'{"body": "' + b"long " * 40 + b'"',
        b'{"body": "good two"}',
    ]
    (folder / "web.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "books.json").write_bytes(b'[{"text": "a book", "id": 7}, {"text": nul, "id": 8}]')
    return [
        {"path": str(folder / "web.jsonl"), "source": "web", "text": "body"},
        {"path": str(folder / "books.json"), "source": "books"},
    ]


def recipe_of(tmp_path, inputs, **settings):
    ingest = {"payload_limit": 120} | settings
    return parse_recipe({"output": str(tmp_path / "corpus"), "input": inputs, "ingest": ingest} | OFF)


def documents(url):
    opened = CorpusDir.open(str(url))
    columns = {"documents": ["id", "text", "source", "metadata"]}
    found = (b for s in range(len(opened.file_names)) for b in opened.read(s, columns))
    return [row for batch in found for row in batch.drop_columns("address").to_pylist()]


def shards(url):
    return {str(path.relative_to(url)): path.read_bytes() for path in sorted(Path(url).glob("**/*.arrow"))}


def mend(url, changes):
    """The file to mend, with the records of some lines replaced, by line of the input."""
    written = retry_rejects.write_letters(str(url))
    lines = [json.loads(line) for line in Path(written.url).read_text().splitlines()]
    for line in lines:
        place = (line["source"], line["reject"]["line"])
        if place in changes:
            line["record"] = changes[place]
    path = Path(url).parent / "mended.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return written, str(path)


def printed(show, *args):
    console = Console(file=io.StringIO(), width=200)
    show(*args, console)
    return console.file.getvalue()


CHANGES = {
    ("web", 2): '{"body": "cut off no more", "n": 2}',
    ("web", 3): {"body": "given as an object, 東京"},
    ("web", 5): '{"body":\n "is UTF-8",\r\n "k": 1e400}',
    ("web", 6): "[1, 2, 3]",
}


def test_end_to_end(tmp_path):
    url = tmp_path / "corpus"
    recipe = recipe_of(tmp_path, hostile(tmp_path / "in"))
    first = corpus.run(recipe).corpus
    assert first.rows == 3 and first.ingest.counters["rejected-records"] == 7
    before = {row["id"]: row for row in documents(url)}

    written, path = mend(url, CHANGES)
    assert (written.letters, written.files, written.edited) == (7, 0, 0)
    fed = retry_rejects.feed(str(url), path)
    assert fed.records == 3 and fed.unchanged == 3 and fed.answered == 0
    assert [number for number, _ in fed.faults] == [6] and fed.faults[0][1].startswith("not_an_object: list")
    assert len(fed.urls) == 1 and Path(fed.urls[0]).read_bytes().count(b"\n") == 3

    again = corpus.run(recipe).corpus
    counters = again.ingest.counters
    assert again.rows == 6 and counters["mended-docs"] == 3 and counters["rejected-records"] == 7
    assert counters["records-in"] == counters["docs-out"] + counters["rejected-records"] == 13
    assert again.sources == {"books": 1, "web": 5}
    found = {row["text"]: row for row in documents(url)}
    assert {"cut off no more", "given as an object, 東京", "is UTF-8"} <= found.keys()
    assert json.loads(found["cut off no more"]["metadata"]) == {"n": 2}
    assert all(row["source"] == "web" for text, row in found.items() if text != "a book")
    after = {row["id"]: row for row in found.values()}
    assert {id_: after[id_] for id_ in before} == before

    # The same file once more adds nothing, and changes no byte.
    bytes_before, files_before = shards(url), sorted(p.name for p in (url / "mended").iterdir())
    fed = retry_rejects.feed(str(url), path)
    assert (fed.records, fed.answered, fed.unchanged, len(fed.faults)) == (0, 3, 3, 1) and not fed.urls
    assert sorted(p.name for p in (url / "mended").iterdir()) == files_before
    assert corpus.run(recipe).corpus == again and shards(url) == bytes_before

    # Only what is not answered yet is shown and written again; what was edited stays as edited.
    letters = {(letter.row["source"], letter.row["line"]) for letter in retry_rejects.letters(str(url))}
    assert letters == {("web", 4), ("web", 6), ("web", 7), ("books", 1)}
    console = Console(file=io.StringIO(), width=200)
    Inspector(str(url), console).rejects()
    shown = console.file.getvalue()
    assert shown.count("web.jsonl") == 3 and "3 others have been mended" in shown and "retry-rejects" in shown

    # A second round.
    _, path = mend(url, {("books", 1): '{"text": "null no more", "id": 8}', ("web", 4): {"body": "named"}})
    assert retry_rejects.feed(str(url), path).records == 2
    last = corpus.run(recipe).corpus
    assert last.rows == 8 and last.ingest.counters["mended-docs"] == 5 and last.sources == {"books": 2, "web": 6}
    book = next(row for row in documents(url) if row["text"] == "null no more")
    assert book["source"] == "books" and json.loads(book["metadata"]) == {"id": 8}
    # Its id is that of a record with key 8 of its source.
    other = recipe_of(tmp_path / "other", [{"path": str(tmp_path / "whole.jsonl"), "source": "books"}])
    (tmp_path / "whole.jsonl").write_text('{"text": "x", "id": 8}\n')
    corpus.run(other)
    assert documents(other.output)[0]["id"] == book["id"]


def test_edits_survive_a_second_writing(tmp_path):
    url = tmp_path / "corpus"
    corpus.run(recipe_of(tmp_path, hostile(tmp_path / "in")))
    written = retry_rejects.write_letters(str(url))
    path = Path(written.url)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["record"] = "half done \ud800"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = retry_rejects.write_letters(str(url))
    assert (again.letters, again.edited) == (7, 1)
    assert json.loads(path.read_text().splitlines()[2]) == lines[2]
    fed = retry_rejects.feed(str(url), str(path))
    assert fed.records == 0 and len(fed.faults) == 1
    path.write_text("broken\n")
    with pytest.raises(RecipeError, match="line 1: not JSON"):
        retry_rejects.write_letters(str(url))
    assert path.read_text() == "broken\n"


def test_wrong_lines_are_told(tmp_path):
    url = tmp_path / "corpus"
    corpus.run(recipe_of(tmp_path, hostile(tmp_path / "in")))
    _, path = mend(url, {("web", 2): '{"body": "ok"}', ("web", 3): {"text": "wrong field [red]"}, ("web", 5): "  "})
    lines = Path(path).read_text().splitlines()
    wrong = ["", "{", "[]", '{"letter": "0123", "record": "x"}', '{"letter": 5}', lines[1].replace('"record"', '"r"')]
    Path(path).write_text("\n".join([*lines, *wrong]))
    fed = retry_rejects.feed(str(url), path)
    assert fed.records == 1
    reasons = dict(fed.faults)
    expected = {
        3: "missing_text", 5: "the record is empty", 9: "not JSON", 10: "not a line of", 11: "no such dead letter",
        12: "not a line of", 13: "not a line of",
    }  # fmt: skip
    assert reasons.keys() == expected.keys()
    assert all(reasons[number].startswith(start) for number, start in expected.items()), reasons
    shown = printed(retry_rejects.show_fed, fed)
    assert "1 mended records taken" in shown and "line 3: missing_text" in shown


def test_payloads_that_were_cut_and_whole_files(tmp_path):
    folder = tmp_path / "in"
    inputs = hostile(folder)
    (folder / "page.txt").write_bytes(b"bad \xff text")
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(b'{"body": "x"}\n' * 9)[:-9])
    table = pa.table({"text": pa.array([b"fine", b"half \xc3"]).view(pa.binary())})
    bad = pa.StringArray.from_buffers(2, *table["text"].chunk(0).buffers()[1:])
    pq.write_table(pa.table({"text": bad}), folder / "rows.parquet")
    inputs += [
        {"path": str(folder / name), "source": name.split(".")[0], "text": "body" if "packed" in name else "text"}
        for name in ("page.txt", "packed.jsonl.gz", "rows.parquet")
    ]
    corpus.run(recipe_of(tmp_path, inputs))
    letters = {(letter.row["source"], letter.row["line"]): letter for letter in
               retry_rejects.letters(str(tmp_path / "corpus"))}  # fmt: skip
    assert letters["web", 7].whole is False and len(letters["web", 7].record) == 120  # payload_limit
    assert letters["web", 2].whole and letters["web", 2].record == '{"body": "cut off, "n": 2}'
    assert letters["web", 5].record == '{"body": "not � UTF-8"}'
    page = next(letter for (source, _), letter in letters.items() if source == "page")
    assert page.record is None and not page.whole
    row = next(letter for (source, _), letter in letters.items() if source == "rows")
    assert json.loads(row.record)["text"].startswith("half ") and not row.whole
    written = retry_rejects.write_letters(str(tmp_path / "corpus"))
    assert written.files == 1
    assert "mend the files" in printed(retry_rejects.show_written, written, str(tmp_path / "corpus"))


def test_nothing_to_mend(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n')
    corpus.run(recipe_of(tmp_path, [{"path": str(tmp_path / "a.jsonl")}]))
    written = retry_rejects.write_letters(str(tmp_path / "corpus"))
    assert written.letters == 0 and not Path(written.url).exists()
    assert "no dead letter" in printed(retry_rejects.show_written, written, "x")
    with pytest.raises(FileNotFoundError):
        retry_rejects.write_letters(str(tmp_path))


def test_a_file_without_its_description_is_not_read(tmp_path):
    """A process killed between the two files of mended records."""
    recipe = recipe_of(tmp_path, hostile(tmp_path / "in"))
    corpus.run(recipe)
    (tmp_path / "corpus" / "mended").mkdir()
    (tmp_path / "corpus" / "mended" / "web-0.jsonl").write_text('{"body": "half"}\n')
    assert mended_files.mended_inputs(recipe.output, {"web", "books"}) == ([], 0)
    assert corpus.run(recipe).corpus.rows == 3


def test_mended_records_go_with_their_source(tmp_path):
    url, inputs = tmp_path / "corpus", hostile(tmp_path / "in")
    corpus.run(recipe_of(tmp_path, inputs))
    _, path = mend(url, CHANGES | {("books", 1): '{"text": "null no more", "id": 8}'})
    assert retry_rejects.feed(str(url), path).records == 4
    assert corpus.run(recipe_of(tmp_path, inputs)).corpus.sources == {"books": 2, "web": 5}
    (tmp_path / "other.txt").write_text("quite another source")
    other = recipe_of(tmp_path, [{"path": str(tmp_path / "other.txt"), "source": "other"}])
    laid = corpus.run(other).corpus
    assert [row["text"] for row in documents(url)] == ["quite another source"]
    assert "mended-docs" not in laid.ingest.counters
    assert laid.ingest.facts["skipped"] == {"mended (source not in the recipe)": 2}
    shown = printed(retry_rejects.show_state, str(url))
    assert "4 mended records are not read" in shown and "Careful" not in shown
    assert all(f"{path.name} and {path.stem}.json (" in shown for path in (url / "mended").glob("*.jsonl"))
    # With the source they come back.
    assert corpus.run(recipe_of(tmp_path, inputs)).corpus.sources == {"books": 2, "web": 5}
    assert printed(retry_rejects.show_state, str(url)) == ""


def test_a_record_corrected_in_the_input_as_well_is_told(tmp_path):
    url, inputs = tmp_path / "corpus", hostile(tmp_path / "in")
    recipe = recipe_of(tmp_path, inputs)
    corpus.run(recipe)
    _, path = mend(url, {("books", 1): '{"text": "null no more", "id": 8}'})
    (books,) = retry_rejects.feed(str(url), path).urls
    _, path = mend(url, CHANGES)
    (web,) = retry_rejects.feed(str(url), path).urls
    corpus.run(recipe)
    assert printed(retry_rejects.show_state, str(url)) == ""
    (tmp_path / "in" / "books.json").write_text('[{"text": "a book", "id": 7}, {"text": "null no more", "id": 8}]')
    corpus.run(recipe)
    ids = [row["id"] for row in documents(url)]
    assert len(ids) - len(set(ids)) == 1
    shown = printed(retry_rejects.show_state, str(url))
    assert "Careful: 1 mended records" in shown and books in shown and web not in shown
    # What it advises helps.
    Path(books).unlink()
    Path(books).with_suffix(".json").unlink()
    corpus.run(recipe)
    ids = [row["id"] for row in documents(url)]
    assert len(ids) == len(set(ids)) == 7 and printed(retry_rejects.show_state, str(url)) == ""


def test_correcting_what_was_taken(tmp_path):
    url = tmp_path / "corpus"
    recipe = recipe_of(tmp_path, hostile(tmp_path / "in"))
    corpus.run(recipe)
    _, path = mend(url, CHANGES)
    lines = Path(path).read_text().splitlines()
    (file,) = retry_rejects.feed(str(url), path).urls
    assert not retry_rejects.is_current(str(url))
    corpus.run(recipe)
    assert retry_rejects.is_current(str(url))
    lines[1] = json.dumps(json.loads(lines[1]) | {"record": {"body": "better"}})  # after that of `books`
    Path(path).write_text("\n".join(lines))
    fed = retry_rejects.feed(str(url), path)
    assert (fed.records, fed.answered, fed.corrected) == (0, 2, {file: 1}) and not fed.all_wrong
    shown = printed(retry_rejects.show_fed, fed)
    assert "1 lines differ from the record that was taken" in shown and f"{file} and {Path(file).stem}.json" in shown
    Path(file).unlink()
    Path(file).with_suffix(".json").unlink()
    assert retry_rejects.feed(str(url), path).records == 3
    corpus.run(recipe)
    texts = {row["text"] for row in documents(url)}
    assert "better" in texts and "cut off no more" not in texts
    Path(path).write_text(lines[1].replace("better", "best"))
    assert retry_rejects.feed(str(url), path).all_wrong


def test_one_letter_mended_twice_in_a_file(tmp_path):
    url = tmp_path / "corpus"
    corpus.run(recipe_of(tmp_path, hostile(tmp_path / "in")))
    _, path = mend(url, {("web", 2): {"body": "one"}})
    line = Path(path).read_text().splitlines()[1]
    Path(path).write_text("\n".join([line, line, line.replace("one", "two")]))
    fed = retry_rejects.feed(str(url), path)
    assert (fed.records, fed.answered) == (1, 1) and [number for number, _ in fed.faults] == [3]


def test_records_are_not_held_in_memory(tmp_path):
    """Two hundred dead letters of 64 KiB: what Python holds at once is a few of them."""
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "fine"}\n' + b"".join(b"%d" % i * 30_000 + b"\n" for i in range(100, 300))
    )
    recipe = recipe_of(tmp_path, [{"path": str(tmp_path / "a.jsonl")}], payload_limit=64 << 10)
    corpus.run(recipe)
    written = retry_rejects.write_letters(recipe.output)
    size = Path(written.url).stat().st_size
    assert written.letters == 200 and size > 200 * (64 << 10)
    for step in (
        lambda: retry_rejects.write_letters(recipe.output),
        lambda: retry_rejects.feed(recipe.output, written.url),
    ):
        tracemalloc.start()
        try:
            done = step()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert done.unchanged == 200 if isinstance(done, retry_rejects.Fed) else done.letters == 200
        assert peak < size / 4
