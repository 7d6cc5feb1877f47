"""The request cache: what was acknowledged is there, whatever fails."""

import asyncio
import dataclasses
import errno
import math
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ropewalk.schemas.synthesis import CALLS
from ropewalk.synth import cache_files, cache_store
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.cache_key import cache_key
from ropewalk.synth.engine import Completion, EngineInfo, Message, Request, Sampling, Timing, Usage

INFO = EngineInfo("echo 1", "org/model")


def request(number: int) -> Request:
    return Request(f"row-{number}", "write-1", (Message("user", "x"),), Sampling(max_tokens=9, seed=number))


def key(number: int) -> bytes:
    return cache_key(INFO, request(number))


def completion(number: int, words: int = 20) -> Completion:
    return Completion(
        f"text {number} " * words, tuple(range(number % 40)), "stop", Usage(3, 1, number), engine="echo 1"
    )


async def put(cache: RequestCache, number: int, answer: Completion | None = None) -> Completion:
    return await cache.put(key(number), request(number), answer or completion(number), "org/model")


async def put_all(cache: RequestCache, numbers: range) -> None:
    await asyncio.gather(*(put(cache, number) for number in numbers))


def filled(url: str, numbers: range, writer: str | None = None) -> None:
    """A cache with these, closed."""

    async def run() -> None:
        cache = RequestCache.open(url, writer=writer)
        await put_all(cache, numbers)
        await cache.close()

    asyncio.run(run())


def missing(url: str, numbers: range) -> list[int]:
    """Those of the numbers that are not in the cache as they were put there."""
    cache = RequestCache.open(url)
    return [number for number in numbers if cache.get(key(number)) != completion(number)]


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty cache on a disk, and one of objects."""
    monkeypatch.setattr(cache_store.ObjectStore, "interval", 0.01)
    if request.param == "local":
        yield str(tmp_path / "cache")
    else:
        yield f"memory://{uuid.uuid4().hex}/cache"


COMPLETIONS = st.builds(
    Completion,
    text=st.text(max_size=20),
    token_ids=st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", "repetition", "content_filter", "abort", "error"]),
    usage=st.builds(Usage, *[st.integers(0, 2**31 - 1)] * 3),
    stop_reason=st.none() | st.text(max_size=3),
    timing=st.builds(Timing, *[st.floats(0, 1e6, width=32)] * 3),
    logprobs=st.none() | st.lists(st.floats(max_value=0, width=32), max_size=3).map(tuple),
    engine=st.text(max_size=3),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(COMPLETIONS, min_size=1, max_size=5))
def test_what_was_put_is_got(url, completions):
    url = f"{url}/{uuid.uuid4().hex}"

    async def run() -> None:
        cache = RequestCache.open(url)
        for number, answer in enumerate(completions):
            assert cache.get(key(number)) is None
            assert await put(cache, number, answer) == answer
            assert cache.get(key(number)) == answer
        await cache.close()
        reopened = RequestCache.open(url)
        assert [reopened.get(key(number)) for number in range(len(completions))] == completions
        assert reopened.get(key(99)) is None
        assert len(reopened) == len(completions)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a\ud800b", "a�b"),
        ("\udc00", "�"),
        ("\ud83d\ude00", "😀"),
        ("\ufeff\x00\u2028\U0010ffff", "\ufeff\x00\u2028\U0010ffff"),
    ],
)
def test_lone_surrogates_become_replacement_characters(url, text, stored):
    async def run() -> None:
        cache = RequestCache.open(url)
        answer = await put(cache, 1, dataclasses.replace(completion(1), text=text, stop_reason=text))
        assert (answer.text, answer.stop_reason) == (stored, stored)
        assert cache.get(key(1)) == answer

    asyncio.run(run())


def test_put_returns_log_probabilities_and_seconds_as_they_are_read_back(url):
    async def run() -> None:
        cache = RequestCache.open(url)
        given = dataclasses.replace(completion(1), logprobs=(-0.1, -math.inf), timing=Timing(total=0.3))
        answer = await put(cache, 1, given)
        assert answer.logprobs == (float(np.float32(-0.1)), -math.inf)
        assert answer.timing.total == float(np.float32(0.3))
        assert cache.get(key(1)) == answer

    asyncio.run(run())


def test_when_put_returns_everybody_else_can_read_it(url):
    async def run() -> None:
        cache = RequestCache.open(url)
        for number in range(5):
            await put(cache, number)
            assert missing(url, range(number + 1)) == []

    asyncio.run(run())


def test_looking_writes_nothing(url, tmp_path):
    async def run() -> None:
        cache = RequestCache.open(url)
        assert cache.get(key(1)) is None
        await cache.close()

    asyncio.run(run())
    fs, path = fsspec.core.url_to_fs(url)
    assert not fs.exists(path)


def test_a_closed_cache_says_so(url):
    async def run() -> None:
        cache = RequestCache.open(url)
        await put(cache, 1)
        await cache.close()
        await cache.close()
        with pytest.raises(ValueError, match="is closed"):
            cache.get(key(1))
        with pytest.raises(ValueError, match="is closed"):
            await put(cache, 2)

    asyncio.run(run())


def test_close_writes_what_waits(url, monkeypatch):
    monkeypatch.setattr(cache_store.ObjectStore, "interval", 3600)

    async def run() -> None:
        cache = RequestCache.open(url)
        await put(cache, 0)  # the next commit on an object store is an hour away
        waiting = asyncio.gather(*(put(cache, number) for number in range(1, 5)))
        await asyncio.sleep(0)
        await cache.close()
        await waiting

    asyncio.run(run())
    assert missing(url, range(5)) == []


def test_close_writes_what_an_event_loop_that_ended_left(url, monkeypatch):
    monkeypatch.setattr(cache_store.ObjectStore, "interval", 3600)
    cache = RequestCache.open(url)

    async def leave() -> None:
        await put(cache, 0)
        task = asyncio.create_task(put(cache, 1))
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(leave())
    asyncio.run(cache.close())
    assert missing(url, range(2)) == []


def test_one_cache_serves_one_event_loop_after_another(url):
    cache = RequestCache.open(url)
    for number in range(3):
        asyncio.run(put(cache, number))
    asyncio.run(cache.close())
    assert missing(url, range(3)) == []


def test_the_first_answer_stays(url):
    async def run() -> None:
        cache = RequestCache.open(url)
        first, second = await asyncio.gather(put(cache, 1), put(cache, 1, completion(2)))
        assert first == second == await put(cache, 1, completion(3)) == completion(1)
        await cache.close()

    asyncio.run(run())
    assert cache_files.stats(url).records == 1


def test_a_put_that_is_cancelled_is_kept(url):
    async def run() -> None:
        cache = RequestCache.open(url)
        task = asyncio.create_task(put(cache, 1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cache.close()

    asyncio.run(run())
    assert missing(url, range(1, 2)) == []


@pytest.mark.parametrize("fault", [{"token_ids": (-1,)}, {"usage": Usage(2**31)}, {"text": None}])
def test_an_answer_that_does_not_fit_harms_no_other(url, fault):
    async def run() -> None:
        cache = RequestCache.open(url)
        bad = dataclasses.replace(completion(7), **fault)
        done = await asyncio.gather(
            *(put(cache, n, bad if n == 7 else None) for n in range(20)), return_exceptions=True
        )
        assert [n for n, answer in enumerate(done) if answer != completion(n)] == [7]
        with pytest.raises(ValueError, match="row 'row-7', step 'write-1' does not fit"):
            raise done[7]
        await cache.close()

    asyncio.run(run())
    assert missing(url, range(20)) == [7]


class Gate:
    """Stops a function until it is opened, and counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        self.entered.set()
        assert self.opened.wait(60)
        return self.function(*args, **kwargs)


def test_five_hundred_puts_during_a_sync_share_the_next_and_the_loop_goes_on(tmp_path, monkeypatch):
    gate = Gate(os.fdatasync)
    monkeypatch.setattr(os, "fdatasync", gate)

    async def run() -> None:
        cache = RequestCache.open(str(tmp_path))
        first = asyncio.create_task(put(cache, 0))
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        others = asyncio.gather(*(put(cache, number) for number in range(1, 501)))
        for _ in range(100):  # the disk stands still, the loop does not
            await asyncio.sleep(0)
        assert not first.done() and not others.done()
        gate.opened.set()
        await first
        await others
        assert gate.calls == 2

    asyncio.run(run())


def test_objects_are_few_and_joined(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    monkeypatch.setattr(cache_store.ObjectStore, "interval", 0.0)
    monkeypatch.setattr(cache_store.ObjectStore, "FOLD", 4)

    async def run() -> None:
        cache = RequestCache.open(url)
        for start in range(0, 90, 10):
            await put_all(cache, range(start, start + 10))
        assert cache_files.stats(url).segments == 3  # two of four commits, one of one
        await put_all(cache, range(90, 100))
        assert missing(url, range(100)) == []
        assert all(cache.get(key(number)) == completion(number) for number in range(100))
        await cache.close()
        assert cache_files.stats(url).segments == 3

    asyncio.run(run())
    assert missing(url, range(100)) == []


def test_a_filesystem_that_fails_is_an_os_error_for_each_who_waits(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    monkeypatch.setattr(cache_store.ObjectStore, "interval", 0.0)
    memory = fsspec.filesystem("memory")

    class HttpError(Exception):
        pass

    def fail(*args: Any, **kwargs: Any) -> None:
        raise HttpError("503")

    async def run() -> None:
        cache = RequestCache.open(url)
        await put_all(cache, range(5))
        with monkeypatch.context() as patch:
            patch.setattr(type(memory), "pipe_file", fail)
            faults = await asyncio.gather(*(put(cache, n) for n in range(5, 8)), return_exceptions=True)
        assert [type(fault) for fault in faults] == [OSError] * 3
        assert "HttpError: 503" in str(faults[0])
        assert [cache.get(key(n)) for n in range(5, 8)] == [None] * 3
        await put_all(cache, range(5, 8))
        await cache.close()

    asyncio.run(run())
    assert missing(url, range(8)) == []


@pytest.mark.parametrize("room", [0, 1, 100, 2735, 2737, 4000, 9000])
def test_a_full_disk(tmp_path, monkeypatch, room):
    """`room` bytes more fit than there are, in a new segment and in one with records."""
    url = str(tmp_path / "cache")
    real, left = os.pwrite, room

    def pwrite(file: int, data: bytes, offset: int) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(file, data[:left], offset)
        left -= done
        return done

    async def run(before: range, lost: range, after: range) -> None:
        nonlocal left
        left = room
        cache = RequestCache.open(url)
        await put_all(cache, before)
        sizes = {path: path.stat().st_size for path in Path(url).glob("*")}
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            faults = await asyncio.gather(*(put(cache, n, completion(n, 500)) for n in lost), return_exceptions=True)
        for fault in faults:
            assert isinstance(fault, OSError) and fault.errno == errno.ENOSPC
            assert "make room or mend it, and run the same command again" in str(fault)
        assert {path: path.stat().st_size for path in Path(url).glob("*")} == sizes  # cut back, nothing left lying
        assert [cache.get(key(n)) for n in lost] == [None] * len(lost)
        await put_all(cache, after)
        await cache.close()

    asyncio.run(run(range(0), range(100, 110), range(5)))
    asyncio.run(run(range(5, 10), range(100, 110), range(10, 15)))
    assert missing(url, range(15)) == []
    stats = cache_files.stats(url)
    assert (stats.records, stats.torn_bytes) == (15, 0)


@pytest.mark.parametrize("function", ["fdatasync", "fsync", "rename"])
def test_a_disk_that_does_not_sync_acknowledges_nothing(tmp_path, monkeypatch, function):
    url = str(tmp_path / "cache")

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def run() -> None:
        cache = RequestCache.open(url)
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(OSError, match="cannot be written"):
                await put(cache, 1)
        assert cache.get(key(1)) is None
        await put(cache, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(OSError, match="cannot be written"):
                await put(cache, 3)
        await put(cache, 4)
        await cache.close()

    asyncio.run(run())
    assert missing(url, range(1, 5)) == [1, 3]


FILLING = """
import asyncio, sys, resource
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Completion, Request, Sampling, Usage
async def main(url, limit):
    cache = RequestCache.open(url)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(1000):
        try:
            await cache.put(number.to_bytes(16, "big"), Request("r", "s", (), Sampling(1)),
                            Completion(f"{number} " * 500, (), "stop", Usage()), "m")
        except OSError as fault:
            print(number, fault.errno)
            return
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def fill(url: str, limit: int) -> tuple[int, int]:
    """Puts until an OSError: records acknowledged, and its number."""
    done = subprocess.run([sys.executable, "-P", "-c", FILLING, url, str(limit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    acknowledged, code = done.stdout.split()
    return int(acknowledged), int(code)


def test_a_real_limit_of_the_kernel(tmp_path):
    """The kernel writes what fits and then refuses: EFBIG, with half a record behind."""
    url = str(tmp_path / "cache")
    acknowledged, code = fill(url, 40_000)
    assert code == errno.EFBIG and acknowledged > 5
    stats = cache_files.stats(url)
    assert (stats.records, stats.torn_bytes) == (acknowledged, 0)


def test_a_real_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        acknowledged, code = fill(str(disk / "cache"), 0)
        assert code == errno.ENOSPC and acknowledged > 5
        stats = cache_files.stats(str(disk / "cache"))
        assert (stats.records, stats.torn_bytes) == (acknowledged, 0)
    finally:
        subprocess.run(["umount", disk], check=True)


WRITING = """
import asyncio, sys
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Completion, Request, Sampling, Usage
async def main(url, name, start, stop):
    cache = RequestCache.open(url, writer=name)
    await asyncio.gather(*(
        cache.put(n.to_bytes(16, "big"), Request(str(n), "s", (), Sampling(1)),
                  Completion(f"{n} by {name}", (), "stop", Usage()), "m")
        for n in range(start, stop)))
    await cache.close()
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def test_several_processes_write_at_once(tmp_path):
    url = str(tmp_path / "cache")
    parts = {"a": (0, 200), "b": (100, 300), "c": (0, 300)}
    processes = [
        subprocess.Popen([sys.executable, "-P", "-c", WRITING, url, name, str(start), str(stop)])
        for name, (start, stop) in parts.items()
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    cache = RequestCache.open(url)
    answers = {}
    for number in range(300):
        answer = cache.get(number.to_bytes(16, "big"))
        assert answer is not None
        text, _, name = answer.text.partition(" by ")
        assert int(text) == number and parts[name][0] <= number < parts[name][1]
        answers[number] = answer.text
    assert cache_files.collect(url).segments_written == 1
    assert {n: RequestCache.open(url).get(n.to_bytes(16, "big")).text for n in range(0, 300, 7)} == {
        n: answers[n] for n in range(0, 300, 7)
    }


def test_an_open_cache_goes_on_when_its_segments_are_compacted(url, monkeypatch):
    monkeypatch.setattr(cache_store, "GRACE_SECONDS", -1)
    filled(url, range(10))
    filled(url, range(10, 20))

    async def run() -> None:
        cache = RequestCache.open(url)
        await put_all(cache, range(20, 25))
        if url.startswith("memory"):  # without locks, a segment that may be written looks like any other
            await cache.close()
            cache = RequestCache.open(url)
        assert cache_files.collect(url).segments_replaced >= 2
        assert [n for n in range(25) if cache.get(key(n)) != completion(n)] == []
        await put_all(cache, range(25, 30))
        await cache.close()

    asyncio.run(run())
    assert missing(url, range(30)) == []


def test_a_damaged_record_is_asked_again_and_not_believed(tmp_path):
    url = str(tmp_path)
    filled(url, range(1, 2))
    filled(url, range(2, 3))
    segment = min(tmp_path.glob("*.arrow"))
    data = segment.read_bytes()
    place = data.index(b"text 1 text 1")
    segment.write_bytes(data[:place] + b"TEXT" + data[place + 4 :])

    async def run() -> None:
        cache = RequestCache.open(url)
        assert cache.get(key(1)) is None
        assert cache.get(key(2)) == completion(2)
        await put(cache, 1)
        assert cache.get(key(1)) == completion(1)
        await cache.close()

    asyncio.run(run())
    assert missing(url, range(1, 3)) == []  # though the damaged record is the older one
    assert cache_files.collect(url).kept == 2
    assert missing(url, range(1, 3)) == []


def test_any_reader_of_arrow_reads_a_segment(url):
    filled(url, range(50))
    fs, path = fsspec.core.url_to_fs(url)
    (name,) = fs.glob(f"{path}/*.arrow")
    with fs.open(name) as source, pa.ipc.open_stream(source) as reader:
        table = reader.read_all()
    assert table.schema.equals(CALLS, check_metadata=True)
    assert table["row"].to_pylist() == [f"row-{n}" for n in range(50)]
    assert table["text"].to_pylist() == [completion(n).text for n in range(50)]
    assert table["created_ns"].to_pylist() == sorted(set(table["created_ns"].to_pylist()))


def test_a_segment_that_was_never_ended_reads_as_far_as_it_goes(tmp_path):
    async def run() -> None:
        cache = RequestCache.open(str(tmp_path))
        await put_all(cache, range(10))
        (segment,) = tmp_path.glob("*.arrow")  # the writer is still at it
        with pa.ipc.open_stream(segment.read_bytes()) as reader:
            assert reader.read_all().num_rows == 10

    asyncio.run(run())


def test_somebody_elses_segment_is_named(tmp_path):
    name = f"{1:019d}-x-y.arrow"
    with pa.ipc.new_stream(str(tmp_path / name), pa.schema([("a", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"a": pa.array([1])}))
    with pytest.raises(ValueError, match=f"{name} is not a segment .* a `cache` folder of its own"):
        RequestCache.open(str(tmp_path))


def test_other_files_are_left_alone(tmp_path):
    for name in ("README.md", "x.arrow", f"{1:019d}-x.arrow.tmp-1"):
        (tmp_path / name).write_text("?")
    filled(str(tmp_path), range(2))
    assert missing(str(tmp_path), range(2)) == []


def test_memory_holds_keys_and_places_only(tmp_path):
    filled(str(tmp_path), range(300))
    index = RequestCache.open(str(tmp_path))._index
    assert (len(index), len(index.batches)) == (300, 1)
    assert index.nbytes == 300 * 24 + 32


def test_opening_while_somebody_cleans(url, monkeypatch):
    """The segments are gone between listing and reading them."""
    monkeypatch.setattr(cache_store, "GRACE_SECONDS", -1)
    for start in range(0, 30, 10):
        filled(url, range(start, start + 10))
    load, cleaned = cache_store.load, []

    def clean_first(*args: Any) -> pa.Buffer:
        if not cleaned:
            cleaned.append(True)
            assert cache_files.collect(url).segments_written == 1
        return load(*args)

    monkeypatch.setattr(cache_store, "load", clean_first)
    assert missing(url, range(30)) == []
    assert cleaned
