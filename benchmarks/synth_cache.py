"""Measures the request cache: acknowledged puts each second, and what it costs to open a large one.

    .venv/bin/python benchmarks/synth_cache.py            # 100,000 records, about 2 GB of scratch below --scratch

Every put is synced to the disk before it counts. The cache is opened in a process of its own, whose memory is measured
before and after; the page cache is warm. Medians of the repetitions go to `results/synth_cache.json`, with all of them.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from machine import machine

from ropewalk.synth import cache_files
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.cache_key import cache_key
from ropewalk.synth.engine import Completion, EngineInfo, Message, Request, Sampling, Usage

HERE = Path(__file__).resolve().parent
INFO = EngineInfo("bench", "model")
WORDS = 1000
TOKENS = 1500


def question(number: int) -> Request:
    """A request of its own."""
    return Request(f"row-{number}", "write-1", (Message("user", "Write."),), Sampling(max_tokens=TOKENS, seed=number))


def answer(number: int) -> Completion:
    """About 6 KB of text and 6 KB of token ids."""
    return Completion(f"w{number % 997} " * WORDS, tuple(range(TOKENS)), "stop", Usage(100, 0, TOKENS), engine="bench")


async def fill(url: str, records: int, concurrency: int) -> dict[str, float]:
    """Puts records, `concurrency` at a time; seconds of each put and of all."""
    cache = RequestCache.open(url)
    numbers = iter(range(records))
    waited: list[float] = []
    syncs, real = 0, os.fdatasync

    def count(file: int) -> None:
        nonlocal syncs
        syncs += 1
        real(file)

    async def work() -> None:
        for number in numbers:
            asked, reply = question(number), answer(number)
            start = time.perf_counter()
            await cache.put(cache_key(INFO, asked), asked, reply, "model")
            waited.append(time.perf_counter() - start)

    os.fdatasync = count
    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    os.fdatasync = real
    await cache.close()
    waited.sort()
    return {
        "puts_per_second": round(records / seconds, 1),
        "cpu_ms_per_put": round(cpu / records * 1e3, 3),
        "puts_per_sync": round(records / syncs, 1),
        "put_ms_median": round(waited[len(waited) // 2] * 1e3, 2),
        "put_ms_p99": round(waited[len(waited) * 99 // 100] * 1e3, 2),
    }


def opened(url: str, records: int) -> dict[str, float]:
    """Opens the cache in this process and reads some records; seconds and memory."""
    process = psutil.Process()
    before = process.memory_info()
    start = time.perf_counter()
    cache = RequestCache.open(url)
    seconds = time.perf_counter() - start
    after = process.memory_info()
    picked = range(0, records, max(1, records // 2000))
    keys = [cache_key(INFO, question(number)) for number in picked]
    start = time.perf_counter()
    assert all(cache.get(key) is not None for key in keys)
    return {
        "open_seconds": round(seconds, 3),
        "index_bytes_per_record": round(cache._index.nbytes / records, 1),
        "private_memory_mb": round(((after.rss - after.shared) - (before.rss - before.shared)) / 1e6, 1),
        "get_ms": round((time.perf_counter() - start) / len(keys) * 1e3, 3),
    }


def open_elsewhere(url: str, records: int) -> dict[str, float]:
    """`opened` in a new process."""
    command = [sys.executable, __file__, "--open", url, "--records", str(records)]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


def measure(folder: Path, records: int, concurrency: int) -> dict[str, Any]:
    """One repetition."""
    url = str(folder / "cache")
    row: dict[str, Any] = dict(asyncio.run(fill(url, records, concurrency)))
    row |= open_elsewhere(url, records)
    row["size_mb"] = round(cache_files.stats(url).bytes / 1e6, 1)
    shutil.rmtree(url)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where to write; removed afterwards")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(opened(args.open, args.records)))
        return
    runs = []
    for _ in range(args.repeat):
        with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
            runs.append(measure(Path(scratch), args.records, args.concurrency))
    report = {
        "command": " ".join(["benchmarks/synth_cache.py", *sys.argv[1:]]),
        "records": args.records,
        "concurrency": args.concurrency,
        "median": {name: statistics.median(run[name] for run in runs) for name in runs[0]},
        "runs": runs,
        "machine": machine({"python": platform.python_version(), "pyarrow": pa.__version__}),
    }
    target = HERE / "results" / "synth_cache.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["median"], indent=2))


if __name__ == "__main__":
    main()
