"""Writers that are killed at any moment: what they acknowledged is there, and nothing is garbled."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.synth import cache_files
from ropewalk.synth.cache import RequestCache

pytestmark = pytest.mark.slow

KILLS = 20
WRITER = """
import asyncio, os, sys
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Completion, Request, Sampling, Usage

def answer(n):
    return Completion(f"{n} " * (n * 37 % 3000 + 1), tuple(range(n % 300)), "stop", Usage(n, 0, n))

async def main(url, log, start):
    cache = RequestCache.open(url)
    numbers = iter(range(start, start + 10**6))
    acknowledged = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async def work():
        for n in numbers:
            await cache.put(n.to_bytes(16, "big"), Request(str(n), "s", (), Sampling(1)), answer(n), "m")
            os.write(acknowledged, b"%d\\n" % n)
    await asyncio.gather(*(work() for _ in range(16)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def numbers(log: Path) -> list[int]:
    """What was acknowledged; the last line only if it is whole."""
    return [int(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def check(url: str, acknowledged: list[int]) -> None:
    cache = RequestCache.open(url)
    for number in acknowledged:
        found = cache.get(number.to_bytes(16, "big"))
        assert found is not None, f"{number} was acknowledged and is gone"
        assert found.text == f"{number} " * (number * 37 % 3000 + 1)
        assert found.token_ids == tuple(range(number % 300))
    for batch in cache_files.read(url):  # and whatever else is there is whole
        for key, row, text in zip(*(batch.column(name).to_pylist() for name in ("key", "row", "text")), strict=True):
            number = int.from_bytes(key, "big")
            assert (row, text) == (str(number), f"{number} " * (number * 37 % 3000 + 1))


def test_kill_at_random_moments(tmp_path):
    url, log = str(tmp_path / "cache"), tmp_path / "acknowledged"
    chance = random.Random(20)
    log.touch()
    for life in range(KILLS):
        before = len(numbers(log))
        writer = subprocess.Popen([sys.executable, "-P", "-c", WRITER, url, log, str(life * 10**6)])
        while len(numbers(log)) == before:  # until it is at work
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    acknowledged = numbers(log)
    assert len(set(number // 10**6 for number in acknowledged)) == KILLS
    check(url, acknowledged)
    stats = cache_files.stats(url)
    assert stats.open_segments == 0 and stats.records >= len(acknowledged)
    done = cache_files.collect(url)
    assert (done.kept, done.duplicates) == (stats.keys, 0)
    assert cache_files.stats(url).torn_segments == 0
    check(url, acknowledged)


def test_kill_cleaning_at_random_moments(tmp_path):
    """A writer goes on meanwhile."""
    url, log = str(tmp_path / "cache"), tmp_path / "acknowledged"
    chance = random.Random(21)
    log.touch()
    writer = subprocess.Popen([sys.executable, "-P", "-c", WRITER, url, log, "0"])
    while len(numbers(log)) < 300:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer = subprocess.Popen([sys.executable, "-P", "-c", WRITER, url, log, "1000000"])
    cleaning = """
import sys
from ropewalk.synth import cache_files, cache_segments
cache_files.SEGMENT_BYTES = cache_segments.BATCH_BYTES = 100_000
print(flush=True)
while True:
    cache_files.collect(sys.argv[1])
    cache_files.SEGMENT_BYTES += 1000  # so that there is always something to do
"""
    for _ in range(5):
        cleaner = subprocess.Popen([sys.executable, "-P", "-c", cleaning, url], stdout=subprocess.PIPE)
        assert cleaner.stdout is not None and cleaner.stdout.readline()
        time.sleep(chance.uniform(0, 0.5))
        os.kill(cleaner.pid, signal.SIGKILL)
        cleaner.wait()
        cleaner.stdout.close()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    check(url, numbers(log))
    cache_files.collect(url)
    check(url, numbers(log))
