"""What a stage cost: seconds, CPU, peak memory of all its processes, bytes read and written."""

import datetime
import importlib.metadata
import os
import sys
import threading
import time
import types
from typing import Self

import psutil

from ropewalk.schemas.manifest import Run

SAMPLE_SECONDS = 0.1
CHILDREN_SECONDS = 1.0
"""How often new worker processes are looked for: it means reading all of /proc."""


class Meter:
    """Context manager that watches this process and its children while a stage runs."""

    def __enter__(self) -> Self:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self.peak = 0
        self._start = time.perf_counter()
        self._cpu = self._cpu_seconds()
        self._io = self._process.io_counters()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = self._cpu_seconds() - self._cpu
        now = self._process.io_counters()
        self.bytes_read = now.read_chars - self._io.read_chars
        self.bytes_written = now.write_chars - self._io.write_chars

    def run(self, *, workers: int, runner: str, jobs: dict[str, float]) -> Run:
        """The measured cost, as a manifest records it."""
        return Run(
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=round(self.seconds, 3),
            cpu_seconds=round(self.cpu_seconds, 3),
            peak_memory_bytes=self.peak,
            bytes_read=self.bytes_read,
            bytes_written=self.bytes_written,
            workers=workers,
            runner=runner,
            jobs=jobs,
            versions=versions(),
        )

    def _sample(self) -> None:
        processes, looked = [self._process], 0.0
        while True:
            if time.monotonic() - looked > CHILDREN_SECONDS:
                processes, looked = [self._process, *self._process.children(recursive=True)], time.monotonic()
            self.peak = max(self.peak, sum(map(_private_bytes, processes)))
            if self._stop.wait(SAMPLE_SECONDS):
                return

    def _cpu_seconds(self) -> float:
        spent = os.times()
        return spent.user + spent.system + spent.children_user + spent.children_system


def _private_bytes(process: psutil.Process) -> int:
    """Resident memory that is the process' own: memory-mapped shards in the page cache do not count."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def versions() -> dict[str, str]:
    """Versions of what can change a result's bytes."""
    packages = ("ropewalk", "apache-beam", "pyarrow", "numpy", "numba", "faiss-cpu", "tokenizers")
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
