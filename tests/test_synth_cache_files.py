"""Segments as files: torn anywhere, cleaned at any moment, counted."""

import asyncio
import itertools
import os
import random
import shutil
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.schemas import files
from ropewalk.schemas.synthesis import CALLS
from ropewalk.synth import cache_files, cache_segments, cache_store
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Completion, Message, Request, Sampling, Usage

DAY = 86400 * 10**9


def key(number: int) -> bytes:
    return bytes(12) + number.to_bytes(4, "big")


def call(
    number: int, created: int, text: str = "text", model: str = "m", step: str = "write-1", reason: Any = "stop"
) -> pa.RecordBatch:
    """One record."""
    asked = Request(f"row-{number}", step, (Message("user", "x"),), Sampling(max_tokens=9))
    answer = Completion(text, (number, 2), reason, Usage(10, 4, number))
    return cache_segments.encode_call(key(number), asked, answer, model, created)


def segment(*batches: pa.RecordBatch, end: bool = True) -> bytes:
    """A segment of these record batches."""
    return cache_segments.HEAD + b"".join(cache_segments.message(b)[0] for b in batches) + cache_segments.END * end


def lay(folder: Path, data: bytes, name: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or cache_segments.new_name("test"))
    path.write_bytes(data)
    return path


def scan(data: bytes) -> cache_segments.Scan:
    return cache_segments.verify(cache_segments.scan(pa.py_buffer(data), "x"), pa.py_buffer(data))


def rows(data: bytes) -> list[dict[str, Any]]:
    """What a segment says, by scanning it and reading what was found."""
    return [
        row
        for batch in scan(data).batches
        for row in cache_segments.read_message(
            pa.py_buffer(data).slice(int(batch["offset"]), int(batch["length"])), int(batch["xxh3"])
        ).to_pylist()
    ]


def plain(data: bytes) -> list[dict[str, Any]]:
    """What plain pyarrow reads of it, up to the first error."""
    found: list[dict[str, Any]] = []
    try:
        with pa.ipc.open_stream(data) as reader:
            for batch in reader:
                found.extend(batch.to_pylist())
    except (pa.ArrowInvalid, OSError):
        pass
    return found


def answers(url: str, numbers: range) -> list[Completion | None]:
    cache = RequestCache.open(url)
    return [cache.get(key(number)) for number in numbers]


BATCHES = [call(1, 10, "first ✓"), pa.concat_batches([call(2, 20), call(3, 30, "third " * 20)]), call(4, 40, "last")]
RECORDS = [row for batch in BATCHES for row in batch.to_pylist()]


def test_a_record_that_is_torn_anywhere_is_left_out_and_all_before_it_kept():
    whole = segment(*BATCHES, end=False)
    starts = [len(segment(*BATCHES[:count], end=False)) for count in range(4)]
    for stop in [*range(0, starts[2], 29), *range(starts[2], len(whole) + 1)]:
        count = sum(start <= stop for start in starts[1:])
        records = RECORDS[: (0, 1, 3, 4)[count]]
        found = scan(whole[:stop])
        assert rows(whole[:stop]) == records == plain(whole[:stop])
        good = starts[count] if stop >= starts[0] else 0
        assert found.torn == stop - good


def test_a_finished_segment_says_so_and_what_follows_is_torn():
    whole = segment(*BATCHES)
    assert rows(whole) == RECORDS and scan(whole).torn == 0
    for tail in (b"\x00", b"\x00" * 4096, b"\xff" * 64, os.urandom(1000), whole):
        assert rows(whole + tail) == RECORDS
        assert scan(whole + tail).torn == len(tail)
    unended = segment(*BATCHES, end=False)
    for tail in (
        b"\x00" * 7,
        b"\x00" * 4096,
        b"\xff" * 4,
        b"\xff\xff\xff\xff\x10\x00\x00\x00" + bytes(4096),
        b"text" * 99,
    ):
        assert rows(unended + tail) == RECORDS
        assert scan(unended + tail).torn == len(tail)


def test_pages_that_never_reached_the_disk_are_not_believed():
    """After a power cut a file may have its length and lack some of its pages: zeros anywhere in the last batch."""
    before, whole = segment(*BATCHES[:2], end=False), segment(*BATCHES, end=False)
    for start in range(len(before), len(whole), 16):
        for stop in (start + 8, start + 512, len(whole)):
            data = whole[:start] + bytes(min(stop, len(whole)) - start) + whole[stop:]
            found = rows(data)
            assert found[:3] == RECORDS[:3]
            assert found[3:] in ([], RECORDS[3:])
            assert len(found) == 4 or scan(data).torn > 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_byte_is_never_believed(data):
    """A record of another batch may go with it, where the damage is to a length, but none says anything else."""
    whole = bytearray(segment(*BATCHES))
    place = data.draw(st.integers(len(cache_segments.HEAD), len(whole) - len(cache_segments.END) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    found = rows(bytes(whole))
    assert all(row in RECORDS for row in found)
    assert len(found) < len(RECORDS)
    assert scan(bytes(whole)).torn > 0


def test_names_sort_by_creation_and_hold_any_writer():
    names = [cache_segments.new_name(writer) for writer in ("a/b", "..", "ü x", "", "w-1")]
    assert sorted(names) == names
    assert all("/" not in name and ".." not in name for name in names)
    times = [cache_segments.created_ns(name) for name in names]
    assert times == sorted(times) and times[0] > 1.7e18


def test_record_batches_are_bounded(monkeypatch):
    calls = [call(number, number, "x" * (number % 7 * 300)) for number in range(200)]
    monkeypatch.setattr(cache_segments, "BATCH_BYTES", 10_000)
    batches = list(cache_segments.join([pa.concat_batches(calls[:50]), *calls[50:]]))
    assert pa.Table.from_batches(batches) == pa.Table.from_batches(calls)
    assert all(batch.nbytes < 30_000 for batch in batches[1:])
    assert len(batches) > 5


# Several records of one key.

RECORD = st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(["a", "b", "c"]))
"""Number, time, text: few of each, so that keys, times and whole records coincide."""
SEGMENTS = st.lists(st.tuples(st.lists(st.lists(RECORD, max_size=4), max_size=3), st.integers(0, 3)), max_size=4)
"""Record batches of each segment, and how much of its end is torn off."""


def lay_all(folder: Path, segments: list[tuple[list[list[tuple[int, int, str]]], int]]) -> list[tuple[int, int, str]]:
    """Lays segments; the records that can be read."""
    readable = []
    for batches, torn in segments:
        made = [pa.concat_batches([call(*record) for record in batch]) for batch in batches if batch]
        data = segment(*made, end=torn == 0)
        kept = [batch for batch in batches if batch]
        if torn > 1 and made:
            data, kept = data[: -8 * torn], kept[:-1]
        lay(folder, data)
        readable += [record for batch in kept for record in batch]
    return readable


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEGMENTS, st.randoms())
def test_the_first_record_of_a_key_wins_before_and_after_cleaning(tmp_path, segments, chance):
    folder = tmp_path / uuid.uuid4().hex
    records = lay_all(folder, segments)
    before = answers(str(folder), range(6))
    for number, answer in enumerate(before):
        times = [time for n, time, _ in records if n == number]
        first = {text for n, time, text in records if n == number and time == min(times)}
        assert (answer is None) == (not first)
        assert answer is None or answer.text in first

    # Whatever order they are listed in.
    names = sorted(path.name for path in folder.glob("*"))
    other = folder.with_suffix(".other")
    for name, source in zip(names, chance.sample(names, len(names)), strict=True):
        lay(other, (folder / source).read_bytes(), name)
    assert answers(str(other), range(6)) == before

    # Cleaned, and cleaned again.
    read = [row for batch in cache_files.read(str(folder)) for row in batch.to_pylist()]
    stats = cache_files.stats(str(folder))
    would = cache_files.collect(str(folder), dry_run=True)
    assert sorted(path.name for path in folder.glob("*.arrow")) == names
    done = cache_files.collect(str(folder))
    assert answers(str(folder), range(6)) == before
    keys = len({number for number, _, _ in records})
    assert (done.kept, done.duplicates, done.filtered) == (keys, len(records) - keys, 0)
    assert (would.kept, would.duplicates, would.torn_bytes) == (done.kept, done.duplicates, done.torn_bytes)
    assert (stats.records, stats.keys, stats.duplicates) == (len(records), keys, len(records) - keys)
    assert done.torn_bytes == stats.torn_bytes and done.bytes_before == stats.bytes
    again = cache_files.collect(str(folder))
    assert (again.kept, again.duplicates, again.torn_bytes) == (keys, 0, 0)
    assert again.segments_replaced == again.segments_written == 0
    assert done.bytes_after == again.bytes_before == sum(p.stat().st_size for p in folder.glob("*.arrow"))

    def ordered(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(found, key=lambda row: row["key"])

    assert ordered(read) == ordered([row for batch in cache_files.read(str(folder)) for row in batch.to_pylist()])
    assert [RequestCache.open(str(folder)).get(row["key"]).text for row in read] == [row["text"] for row in read]


@pytest.mark.parametrize("steps", range(12))
def test_cleaning_that_is_killed_changes_no_answer(tmp_path, monkeypatch, steps):
    """It stops after so many renames and removals; then somebody reads, cleans again, and reads."""

    class Killed(BaseException):
        pass

    monkeypatch.setattr(cache_segments, "BATCH_BYTES", 1000)
    monkeypatch.setattr(cache_files, "SEGMENT_BYTES", 6000)
    for part in range(5):
        calls = [call(n, n * 10 + part, f"by {part}" * 200) for n in range(part * 3, part * 3 + 6)]
        lay(tmp_path / "cache", segment(*calls) + b"torn")
    url = str(tmp_path / "cache")
    before = answers(url, range(20))
    copy = shutil.copytree(url, tmp_path / "copy")
    done = cache_files.collect(str(copy))
    assert done.segments_replaced == 5 and done.segments_written > 1
    left = steps
    real = {"replace": os.replace, "remove": files.remove}

    def step(name: str) -> Any:
        def run(*args: Any) -> Any:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return real[name](*args)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", step("replace"))
        patch.setattr(files, "remove", step("remove"))
        try:
            cache_files.collect(url)
            finished = True
        except Killed:
            finished = False
    assert finished == (steps >= done.segments_replaced + done.segments_written)
    assert answers(url, range(20)) == before
    cache_files.collect(url)
    assert answers(url, range(20)) == before
    stats = cache_files.stats(url)
    assert (stats.records, stats.keys) == (18, 18)


def test_cleaning_on_a_full_disk_leaves_the_cache_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_files, "SEGMENT_BYTES", 6000)
    monkeypatch.setattr(cache_segments, "BATCH_BYTES", 1000)
    for part in range(4):
        lay(tmp_path, segment(*[call(n, n, "x" * 500) for n in range(part * 5, part * 5 + 5)]) + b"torn")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.arrow")}
    syncs = itertools.count()
    real = os.fsync

    def fsync(file: int) -> None:
        if next(syncs) == 4:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        cache_files.collect(str(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.glob("*") if path.name != ".lock"} == before


def test_large_segments_are_left_and_small_ones_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_segments, "BATCH_BYTES", 1000)
    monkeypatch.setattr(cache_files, "SEGMENT_BYTES", 30_000)
    large = lay(tmp_path, segment(*[call(n, n, "x" * 500) for n in range(20)]))
    small = [lay(tmp_path, segment(*[call(n, n, "x" * 500) for n in range(20 + i * 4, 24 + i * 4)])) for i in range(8)]
    assert large.stat().st_size > 15_000 > small[0].stat().st_size
    done = cache_files.collect(str(tmp_path))
    assert large.exists() and not any(path.exists() for path in small)
    assert (done.kept, done.segments_replaced, done.segments_written) == (52, 8, 2)
    assert all(path.stat().st_size < 40_000 for path in tmp_path.glob("*.arrow") if path != large)
    assert None not in answers(str(tmp_path), range(52))


def test_what_a_writer_holds_is_left_alone_until_it_ends(tmp_path):
    url = str(tmp_path)

    async def put(cache: RequestCache, number: int) -> None:
        asked = Request(f"row-{number}", "s", (), Sampling(1))
        await cache.put(key(number), asked, Completion(f"t{number}", (), "stop", Usage()), "m")

    async def run() -> None:
        other = RequestCache.open(url)
        await put(other, 1)
        await other.close()
        cache = RequestCache.open(url)
        await put(cache, 2)
        (held,) = {path for path in tmp_path.glob("*.arrow")} - {min(tmp_path.glob("*.arrow"))}
        assert cache_files.stats(url).open_segments == 1
        done = cache_files.collect(url, older_than_days=0)
        assert (done.kept, done.filtered, done.segments_open) == (0, 1, 1)
        assert [path for path in tmp_path.glob("*.arrow")] == [held]
        await put(cache, 3)
        await cache.close()
        assert cache_files.stats(url).open_segments == 0

    asyncio.run(run())
    assert [answer and answer.text for answer in answers(url, range(1, 4))] == [None, "t2", "t3"]


def test_one_cleaning_at_a_time(tmp_path):
    lay(tmp_path, segment(call(1, 1)))
    with files.lock(str(tmp_path)), pytest.raises(BlockingIOError, match="being cleaned already"):
        cache_files.collect(str(tmp_path))


def test_temporary_names_of_killed_writers_are_swept(tmp_path):
    lay(tmp_path, segment(call(1, 1)))
    old = lay(tmp_path, b"half", f"{10**18:019d}-w-1.arrow.tmp-")
    older = lay(tmp_path, b"half", f"{10**18:019d}-w-1.arrow.tmp-abc")
    young = lay(tmp_path, b"half", cache_segments.new_name("w") + ".tmp-")
    foreign = lay(tmp_path, b"half", "notes.tmp-")
    cache_files.collect(str(tmp_path), dry_run=True)
    assert old.exists()
    cache_files.collect(str(tmp_path))
    assert not old.exists() and not older.exists() and young.exists() and foreign.exists()


def test_objects_younger_than_an_hour_are_left_alone():
    url = f"memory://{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    now = cache_segments.created_ns(cache_segments.new_name("x"))
    for age_minutes, number in ((0, 1), (59, 2), (61, 3), (600, 4)):
        name = f"{now - age_minutes * 60 * 10**9:019d}-w-{number}.arrow"
        fs.pipe_file(files.join(files.filesystem(url)[1], name), segment(call(number, number)))
    done = cache_files.collect(url)
    assert (done.kept, done.segments_open, done.segments_replaced, done.segments_written) == (2, 2, 2, 1)
    assert len(cache_segments.sizes(url)) == 3
    assert None not in answers(url, range(1, 5))


@pytest.mark.parametrize(
    ("filters", "stay"),
    [
        ({"model": "a"}, {3, 4, 5}),
        ({"older_than_days": 10}, {1, 4}),
        ({"older_than_days": 10, "model": "a"}, {1, 3, 4, 5}),
        ({"model": "c"}, {1, 2, 3, 4, 5}),
    ],
)
def test_filters(tmp_path, filters, stay):
    now = cache_segments.created_ns(cache_segments.new_name("x"))
    young, old = now - 9 * DAY, now - 11 * DAY
    lay(tmp_path, segment(call(1, young, model="a"), call(2, old, model="a"), call(3, old, model="b")))
    lay(
        tmp_path,
        segment(call(4, young, model="b"), pa.concat_batches([call(5, old, model="b"), call(2, young, model="b")])),
    )
    would = cache_files.collect(str(tmp_path), **filters, dry_run=True)
    done = cache_files.collect(str(tmp_path), **filters)
    assert {n for n, answer in enumerate(answers(str(tmp_path), range(6))) if answer} == stay
    assert (done.kept, done.filtered, done.duplicates) == (len(stay), 5 - len(stay), 1)
    assert (would.kept, would.filtered, would.duplicates, would.segments_written) == (len(stay), 5 - len(stay), 1, 0)


def test_stats_count_what_is_there(tmp_path):
    chance = random.Random(3)
    made = [
        {
            "number": chance.randrange(40), "created": chance.randrange(10**6), "model": chance.choice("ab"),
            "step": chance.choice(["plan", "write-1", "write-12", "judge-2-1"]),
            "reason": chance.choice(["stop", "length"]),
        }
        for _ in range(100)
    ]  # fmt: skip
    calls = [call(**record) for record in made]
    first = lay(tmp_path, segment(*calls[:30], pa.concat_batches(calls[30:60])))
    second = lay(tmp_path, segment(*calls[60:], end=False) + b"torn")
    found = cache_files.stats(str(tmp_path))

    def tally(field: str, name: Any = lambda value: value) -> dict[str, cache_files.Tally]:
        records, tokens = Counter[str](), Counter[str]()
        for record in made:
            records[name(record[field])] += 1
            tokens[name(record[field])] += record["number"]
        return {group: cache_files.Tally(records[group], tokens[group]) for group in records}

    assert found == cache_files.CacheStats(
        segments=2, open_segments=0, torn_segments=1, bytes=first.stat().st_size + second.stat().st_size, torn_bytes=4,
        records=100, keys=len({record["number"] for record in made}),
        duplicates=100 - len({record["number"] for record in made}),
        prompt_tokens=1000, cached_tokens=400, generated_tokens=sum(record["number"] for record in made),
        by_model=tally("model"), by_step=tally("step", lambda step: step.split("-")[0]),
        by_finish_reason=tally("reason"),
        oldest_ns=min(record["created"] for record in made), newest_ns=max(record["created"] for record in made),
    )  # fmt: skip


def test_no_cache_is_an_empty_one(tmp_path):
    url = str(tmp_path / "none")
    assert cache_files.stats(url) == cache_files.CacheStats()
    assert cache_files.collect(url) == cache_files.CollectResult()
    assert list(cache_files.read(url)) == []
    assert not (tmp_path / "none").exists()


def test_read_yields_the_schema(tmp_path):
    lay(tmp_path, segment(*BATCHES))
    lay(tmp_path, segment(call(1, 5, "earlier")))
    batches = list(cache_files.read(str(tmp_path)))
    assert all(batch.schema.equals(CALLS) for batch in batches)
    assert {row["row"]: row["text"] for batch in batches for row in batch.to_pylist()} == {
        "row-1": "earlier", "row-2": "text", "row-3": "third " * 20, "row-4": "last"
    }  # fmt: skip


def test_objects_read_and_clean_like_files(tmp_path, monkeypatch):
    """The same segments on a disk and as objects, large ones through a temporary file."""
    monkeypatch.setattr(cache_store, "GRACE_SECONDS", -1)
    monkeypatch.setattr(cache_store, "FETCH_BYTES", 8000)
    for part in range(5):
        lay(tmp_path, segment(*[call(n, n + part, f"by {part}") for n in range(part * 3, part * 3 + 2 + 3 * part)]))
    url = f"memory://{uuid.uuid4().hex}"
    fs, path = fsspec.core.url_to_fs(url)
    for source in tmp_path.glob("*"):
        fs.pipe_file(f"{path}/{source.name}", source.read_bytes())
    assert {size > 8000 for size in cache_segments.sizes(url).values()} == {True, False}
    before = answers(str(tmp_path), range(30))
    assert answers(url, range(30)) == before
    there, here = cache_files.stats(url), cache_files.stats(str(tmp_path))
    assert there == here
    assert cache_files.collect(url) == cache_files.collect(str(tmp_path))
    assert answers(url, range(30)) == answers(str(tmp_path), range(30)) == before
