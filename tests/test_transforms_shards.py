import os

import datasets
import numpy as np
import pyarrow as pa
import pytest
import xxhash

from ropewalk.schemas import files, tables, testing
from ropewalk.schemas.address import of_rows
from ropewalk.transforms import batches
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.shards import ShardFolder


def folder(url, key="k", num=2):
    return ShardFolder(str(url), tables.DOCUMENTS, num, key)


def test_a_finished_folder_is_a_dataset(tmp_path):
    parts = [testing.documents(7), testing.documents(5, seed=1)]
    target = folder(tmp_path)
    for number, part in enumerate(parts):
        with target.writer(number) as writer:
            writer.write(part)
            writer.count("docs-in", part.num_rows)
    shards = target.finish()
    loaded = datasets.load_from_disk(str(tmp_path))
    assert loaded["text"][:] == [t for part in parts for t in part.column("text").to_pylist()]
    for shard, part in zip(shards, parts, strict=True):
        data = (tmp_path / shard.file).read_bytes()
        assert (shard.hash, shard.bytes) == (xxhash.xxh3_128(data).hexdigest(), len(data))
        assert shard.counters == {"docs-in": part.num_rows}


def test_an_error_leaves_no_shard(tmp_path):
    target = folder(tmp_path)
    with pytest.raises(ZeroDivisionError), target.writer(0) as writer:
        writer.write(testing.documents(3))
        raise ZeroDivisionError
    assert target.done() == {} and [n for n in os.listdir(tmp_path) if not n.startswith("_")] == []
    with pytest.raises(RuntimeError, match=r"shards \[0, 1\] of 2 were not written"):
        target.finish()


def test_only_shards_of_the_same_work_count_as_done(tmp_path):
    with folder(tmp_path, "old").writer(0) as writer:
        writer.write(testing.documents(3))
    assert set(folder(tmp_path, "old").done()) == {0}
    new = folder(tmp_path, "new")
    assert new.done() == {}
    new.clear_unfinished()
    assert not os.path.exists(tmp_path / "data-00000-of-00002.arrow")


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    target = folder(tmp_path)
    with target.writer(0) as writer:
        writer.write(testing.documents(3))
    (tmp_path / "data-00001-of-00002.arrow.tmp-abc").write_bytes(b"half")
    (tmp_path / "data-00001-of-00002.arrow").write_bytes(b"renamed, but its record was never written")
    (tmp_path / "_shards" / "00001.progress").write_bytes(b"{}")
    target.clear_unfinished()
    assert sorted(os.listdir(tmp_path)) == ["_shards", "data-00000-of-00002.arrow"]
    assert set(target.done()) == {0}


def test_atomic_files_on_a_remote_filesystem():
    files.write_bytes("memory://ropewalk/a/b.json", b"{}")
    assert files.read_bytes("memory://ropewalk/a/b.json") == b"{}"
    assert files.names("memory://ropewalk/a") == ["b.json"]
    files.remove("memory://ropewalk/a")
    assert files.read_bytes("memory://ropewalk/a/b.json") is None


def test_a_corpus_on_a_remote_filesystem_reads_like_a_local_one():
    batch = testing.documents(9)
    target = folder("memory://ropewalk/corpus/documents", num=1)
    with target.writer(0) as writer:
        writer.write(batch.slice(0, 4))
        writer.write(batch.slice(4))
    corpus = CorpusDir("memory://ropewalk/corpus", (target.finish()[0].file,))
    read = pa.Table.from_batches(corpus.read(0, {"documents": ["id", "text"]}))
    assert read.column("id").to_pylist() == batch.column("id").to_pylist()
    assert (
        Gather(corpus, "documents", ["id"]).rows(of_rows(0, 3, 3)).column(0).to_pylist() == read["id"].to_pylist()[3:6]
    )


def filter_rows(passed):
    nothing = {name: [None] * len(passed) for name in tables.FILTER.names}
    return pa.RecordBatch.from_pydict(nothing | {"passed": passed}, tables.FILTER)


def test_columns_of_other_batch_sizes_are_aligned(lay):
    corpus = lay(testing.documents(250))
    verdicts = ShardFolder(corpus.folder("filter"), tables.FILTER, 1, "k")
    passed = [i % 3 != 0 for i in range(250)]
    with verdicts.writer(0) as writer:
        for start, stop in ((0, 33), (33, 34), (34, 250)):
            part = passed[start:stop]
            writer.write(filter_rows(part))
    verdicts.finish()
    rows = pa.Table.from_batches(corpus.read(0, {"documents": ["id"]}, alive=["filter"]))
    assert rows.column("address").to_pylist() == list(range(250))
    assert rows.column("alive").to_pylist() == passed


def test_columns_with_missing_rows_are_refused(lay):
    corpus = lay(testing.documents(250))
    with ShardFolder(corpus.folder("filter"), tables.FILTER, 1, "k").writer(0) as writer:
        writer.write(filter_rows([True]))
    with pytest.raises(RuntimeError, match="different numbers of rows"):
        list(corpus.read(0, {"documents": ["id"]}, alive=["filter"]))


def test_gather_returns_rows_in_the_order_asked(lay):
    parts = [testing.documents(250), testing.documents(120, seed=1)]
    corpus = lay(*parts)
    every = np.concatenate([of_rows(0, 0, 250), of_rows(1, 0, 120)])
    texts = [t for part in parts for t in part.column("text").to_pylist()]
    picks = np.random.default_rng(0).integers(0, len(every), 400)  # with repeats
    rows = Gather(corpus, "documents", ["text"]).rows(every[picks])
    assert rows.column("text").to_pylist() == [texts[i] for i in picks]
    assert Gather(corpus, "documents", ["text"]).rows(every[:0]).num_rows == 0


def test_slices_of_a_batch_are_small_and_complete():
    batch = testing.documents(1000)
    coder = batches.RecordBatchCoder()
    whole = len(coder.encode(batch))
    slices = dict(batches.split_by_key(batch, np.arange(1000) % 7))
    assert sorted(slices) == list(range(7))
    assert sum(s.num_rows for s in slices.values()) == 1000
    assert all(len(coder.encode(s)) < whole / 5 for s in slices.values())
    assert slices[3].column("id").to_pylist() == batch.column("id").to_pylist()[3::7]
    assert coder.decode(coder.encode(slices[3])).equals(slices[3])
    assert list(batches.split_by_key(batch.slice(0, 0), np.arange(0))) == []
    assert batches.concat([], tables.DOCUMENTS).schema == tables.DOCUMENTS
