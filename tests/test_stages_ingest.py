import gzip
import json
import os
import random
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import ingest as stage
from ropewalk.pipelines.stages.ingest import ingest
from ropewalk.schemas.recipe import RecipeError, parse_recipe
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.shards import ShardWriter


def laid(inputs, output, engine=None, **settings):
    """Manifest of a run, and the bytes of every shard."""
    recipe = parse_recipe({"output": str(output), "input": inputs, "ingest": settings})
    manifest = ingest(recipe, engine or Engine())
    return manifest, {
        path.relative_to(output): path.read_bytes()
        for path in sorted(output.glob("**/*.arrow"))
    }  # fmt: skip


def write_lines(path, count, *, bad=()):
    rows = [json.dumps({"text": f"{path.stem} {n} " + "w" * (n % 50), "n": n}) for n in range(count)]
    path.write_text("\n".join("{bad" if n in bad else row for n, row in enumerate(rows)))


def hostile(folder):
    """One broken file of every accepted format, each with something good where the format allows."""
    folder.mkdir()
    good = b'{"text": "good"}\n'
    table = pa.table({"text": [f"good {n}" for n in range(400)]})
    (folder / "lines.jsonl").write_bytes(good + b'{"text": 1}\n' + good)
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(good * 3)[:-9])
    (folder / "array.json").write_bytes(b'[{"text": "good"}, {"text": nul}, {"text": "good"}]')
    (folder / "not.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pa.OSFile(str(folder / "cut.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    data = (folder / "cut.arrow").read_bytes()
    (folder / "cut.arrow").write_bytes(data[: len(data) * 4 // 5])
    (folder / "bytes.txt").write_bytes(b"fine\nbut \xff")
    (folder / "bytes.md").write_bytes(b"\xc3")
    (folder / "empty.rst").write_bytes(b"")
    (folder / "bytes.html").write_bytes(b"<p>\xff</p>")
    (folder / "other.csv").write_bytes(b"1,2")


def test_a_hostile_folder_is_read_to_its_end(tmp_path):
    hostile(tmp_path / "in")
    manifest, _ = laid(str(tmp_path / "in"), tmp_path / "corpus")
    counters = manifest.ingest.counters
    documents = datasets.load_from_disk(tmp_path / "corpus" / "documents")
    rejects = datasets.load_from_disk(tmp_path / "corpus" / "rejects" / "ingest")
    found = {
        (os.path.basename(row["path"]), row["line"], row["byte_offset"], row["reason"]) for row in rejects
    }  # fmt: skip
    assert found == {
        ("lines.jsonl", 2, 17, "text_not_string"),
        ("packed.jsonl.gz", 4, 51, "truncated_file"),
        ("array.json", 1, 19, "broken_json"),
        ("not.parquet", None, None, "damaged_file"),
        ("cut.arrow", 301, None, "truncated_file"),
        ("bytes.txt", 2, 9, "invalid_utf8"),
        ("bytes.md", 1, 0, "invalid_utf8"),
        ("empty.rst", None, None, "empty_file"),
        ("bytes.html", 1, 3, "invalid_utf8"),
    }
    assert len(documents) == manifest.rows == counters["docs-out"] == 2 + 3 + 2 + 300
    assert len(rejects) == counters["rejected-records"] == 9
    assert counters["records-in"] == len(documents) + len(rejects)
    assert counters["skipped:.csv-files"] == 1 and counters["files-in"] == 9
    assert sum(count for name, count in counters.items() if name.endswith("-records") and name not in
               ("records-in", "rejected-records")) == 9  # fmt: skip
    assert manifest.sources == {"in": len(documents)}


@pytest.mark.parametrize("engine", [Engine(), pytest.param(Engine(workers=2), marks=pytest.mark.slow)])
def test_order_of_inputs_and_workers_change_no_byte(tmp_path, engine):
    names = ["c", "a", "b"]
    for name in names:
        (tmp_path / name).mkdir()
        for n in range(3):
            write_lines(tmp_path / name / f"{n}.jsonl", 60, bad=(7,))
    inputs = [{"path": str(tmp_path / name)} for name in names]
    expected, files = laid(inputs, tmp_path / "one", shard_bytes=4000)
    assert len(expected.shards) > 5 and expected.rows == 9 * 59
    random.Random(1).shuffle(inputs)
    again, same = laid(inputs[::-1], tmp_path / "two", engine, shard_bytes=4000)
    assert same == files and again.content == expected.content and again.ingest.key == expected.ingest.key
    coarse, _ = laid(inputs, tmp_path / "three")
    rows = [datasets.load_from_disk(tmp_path / name / "documents").to_list() for name in ("one", "three")]
    assert rows[0] == rows[1] and coarse.sources == expected.sources == {"a": 177, "b": 177, "c": 177}


def test_a_second_run_does_nothing_until_something_changes(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.jsonl", 50)
    first, files = laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus")
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run", lambda *_: pytest.fail("nothing was to be done"))
        assert laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus")[0] == first
    os.utime(tmp_path / "a.jsonl", (1, 1))
    touched, same = laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus")
    assert touched.ingest.key != first.ingest.key and touched.content == first.content and same == files
    write_lines(tmp_path / "a.jsonl", 51)
    assert laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus")[0].content != first.content
    monkeypatch.setattr(stage, "VERSION", 99)
    assert laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus")[0].ingest.key != first.ingest.key


def test_a_killed_run_keeps_its_finished_shards(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.jsonl", 300, bad=(3, 200))
    _, expected = laid(str(tmp_path / "a.jsonl"), tmp_path / "whole", shard_bytes=2000)
    written: list[int] = []
    enter = ShardWriter.__enter__

    def stumble(self):
        if len(written) == 8:
            raise KeyboardInterrupt
        written.append(self.shard)
        return enter(self)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "__enter__", stumble)
        with pytest.raises(BaseException):  # noqa: B017
            laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus", shard_bytes=2000)
    assert CorpusDir(str(tmp_path / "corpus")).manifest() is None
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "corpus" / "documents").glob("*.arrow")}
    assert finished
    manifest, files = laid(str(tmp_path / "a.jsonl"), tmp_path / "corpus", shard_bytes=2000)
    assert files == expected and manifest.rows == 298
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "corpus" / "documents").glob("*.arrow")}
    assert finished.items() <= after.items()
    assert not list((tmp_path / "corpus").glob("**/_shards"))


def test_nothing_runs_when_an_input_is_missing(tmp_path):
    write_lines(tmp_path / "a.jsonl", 5)
    with pytest.raises(RecipeError, match="gone.jsonl"):
        laid([str(tmp_path / "a.jsonl"), str(tmp_path / "gone.jsonl")], tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_a_limit_counts_for_each_input(tmp_path):
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", 40)
    manifest, _ = laid([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")], tmp_path / "corpus", limit=7)
    assert manifest.sources == {"a": 7, "b": 7} and len(manifest.shards) == 2


def test_our_own_corpus_can_be_read_again(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "n": [1, 2]}), tmp_path / "t.parquet")
    laid(str(tmp_path / "t.parquet"), tmp_path / "corpus")
    manifest, _ = laid(str(tmp_path / "corpus" / "documents"), tmp_path / "again")
    rows = datasets.load_from_disk(tmp_path / "again" / "documents")
    assert list(rows["text"]) == ["a", "b"] and manifest.ingest.counters["rejected-records"] == 0


def test_a_corpus_below_its_own_input_is_not_read_by_the_second_run(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.jsonl", 20)
    monkeypatch.chdir(tmp_path)
    first, _ = laid(".", Path("out"))
    monkeypatch.setattr(Engine, "run", lambda *_: pytest.fail("nothing was to be done"))
    again, _ = laid(".", Path("out"))
    assert again == first and first.rows == 20
