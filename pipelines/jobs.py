"""One Beam job: a folder of shards to write, run in as many passes as memory asks for, resumed shard by shard."""

import inspect
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.core import CallableWrapperDoFn
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from ropewalk.transforms.shards import ShardFolder

WATCH_SECONDS = 1.0
GRACE_SECONDS = 5.0

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Named in full: Beam's DirectRunner alias first tries to download another runner's binary."""


def _keep_signatures(*classes: type) -> None:
    """Leaves each method's signature where `inspect` looks for one first.

    Beam asks for those of all methods of each DoFn eight times a job: a sixth of what a small job takes.
    """
    for base in {base for cls in classes for base in cls.__mro__}:
        for function in filter(inspect.isfunction, vars(base).values()):
            function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]


_keep_signatures(beam.DoFn, CallableWrapperDoFn)


LOCAL_COPIES = 4
"""How often the local runner holds what it shuffles, measured: encoded, grouped, on the way to a worker, decoded."""


@dataclass(frozen=True)
class Job:
    """A unit of work that can be repeated without harm.

    Attributes:
        label: What it does, for the progress display.
        target: The folder it writes.
        build: Wires the writing of the given shard numbers into a pipeline.
        shuffle_bytes: Estimated bytes that the shuffle of one shard holds in memory on the local runner: what is sent,
            `LOCAL_COPIES` times.
        beside: Whether it may come after the stage's own columns and is not what the stage's manifest is about.
    """

    label: str
    target: ShardFolder
    build: Callable[[beam.Pipeline, Sequence[int]], object]
    shuffle_bytes: int = 0
    beside: bool = False


class Options(PipelineOptions):
    """Beam's options, whose views are made once: they share what they show.

    Beam asks for hundreds of views a job, each of which would build a command-line parser of its own: a third of what a
    small job takes.
    """

    def __init__(self, flags: Sequence[str]) -> None:
        super().__init__(flags)
        object.__setattr__(self, "_views", {})

    def view_as(self, cls: Any) -> Any:
        """A view as options of class `cls`."""
        if cls not in self._views:
            self._views[cls] = super().view_as(cls)
        return self._views[cls]


@dataclass(frozen=True)
class Engine:
    """How jobs run; never part of a result.

    Attributes:
        runner: Beam runner, by name or full path.
        workers: Worker processes of the local runner; 1 runs in this process.
        beam_args: Any other Beam flags, passed through untouched.
        memory_mb: Memory one pass of a local shuffle may take.
    """

    runner: str = LOCAL_RUNNER
    workers: int = 1
    beam_args: tuple[str, ...] = ()
    memory_mb: int = 1024

    @property
    def local(self) -> bool:
        """Whether shuffles live in this machine's memory."""
        return self.runner == LOCAL_RUNNER

    @property
    def threads(self) -> int:
        """Threads one worker's kernels may use."""
        return max(1, (os.cpu_count() or 1) // self.workers) if self.local else 1

    def pipeline(self) -> beam.Pipeline:
        """An empty pipeline that will run as this engine says."""
        args = [f"--runner={self.runner}", *self.beam_args]
        if not self.local or self.workers == 1:
            return beam.Pipeline(options=Options(args))
        # Beam's own multi_processing mode, but for the command: its workers would look for modules in the working
        # directory, where a folder may have the name of a package, and write their log between our lines.
        quiet = "" if logging.getLogger().isEnabledFor(logging.INFO) else " 2>/dev/null"
        command = f"exec {shlex.quote(sys.executable)} -P -m apache_beam.runners.worker.sdk_worker_main{quiet}"
        environment = SubprocessSDKEnvironment.from_command_string(command_string=command)
        options = Options([*args, f"--direct_num_workers={self.workers}"])
        return beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=options)

    def run(self, job: Job) -> float:
        """Writes every shard of the job that is not there yet; returns the seconds it took."""
        start = time.perf_counter()
        job.target.clear_unfinished()
        pending = sorted(set(range(job.target.num_shards)) - set(job.target.done()))
        for shards in self._passes(pending, job.shuffle_bytes):
            pipeline = self.pipeline()
            job.build(pipeline, shards)
            _run_watched(pipeline)
        logging.getLogger(__name__).debug("%s: %d shards", job.label, len(pending))
        return time.perf_counter() - start

    def _passes(self, pending: list[int], shuffle_bytes: int) -> list[list[int]]:
        size = len(pending)
        if self.local and shuffle_bytes:
            size = max(1, (self.memory_mb << 20) // shuffle_bytes)
        return [pending[i : i + size] for i in range(0, len(pending), size)] if pending else []


def _run_watched(pipeline: beam.Pipeline) -> None:
    """Runs a pipeline in a thread of its own, so that an interrupt or a dead worker ends the wait at once.

    Beam's local runner waits for a worker process for ever, also if the system has killed it for its memory. All that
    is heard of it is an exception in the thread that had started it.

    Raises:
        RuntimeError: If a worker process died, or the pipeline failed.
    """
    failures: list[BaseException] = []
    lost: list[threading.ExceptHookArgs] = []
    usual = threading.excepthook

    def run() -> None:
        try:
            pipeline.run().wait_until_finish()
        except BaseException as error:
            failures.append(error)

    def heard(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and failure.thread.name.startswith("run_worker"):
            lost.append(failure)
        else:
            usual(failure)

    thread = threading.Thread(target=run, daemon=True)
    threading.excepthook = heard
    try:
        thread.start()
        while thread.is_alive() and not lost:
            thread.join(WATCH_SECONDS)  # returns at once when the job ends or the user interrupts
        thread.join(GRACE_SECONDS)  # a worker that dies of an error may leave the error itself as well
    finally:
        threading.excepthook = usual
    if failures:
        raise failures[0]
    if thread.is_alive():
        raise RuntimeError(f"{lost[0].exc_value}: killed for its memory, perhaps; use fewer --workers")
