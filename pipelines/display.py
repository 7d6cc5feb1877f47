"""Live progress: one line a step with rows, MB/s and time left; plain lines where there is no terminal."""

import threading
import time
import types
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ropewalk.pipelines.corpus import Watcher
from ropewalk.pipelines.jobs import Job
from ropewalk.schemas.manifest import CorpusManifest, StageManifest

POLL_SECONDS = 0.5


class Display(Watcher):
    """Context manager that shows a run. It reads the shard folders only, so it works for every runner.

    Args:
        console: Where to show.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.input_bytes = console, 0
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("[bold]{task.description:<24}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            disable=not console.is_terminal,
        )
        self._job: Job | None = None
        self._task: TaskID | None = None
        self._corpus: CorpusManifest | None = None
        self._started = self._job_started = time.monotonic()
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._progress.start()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is not None and self._task is not None:
            self._progress.stop_task(self._task)
        self._progress.stop()

    def inputs(self, size: int) -> None:
        """Notes the size of the inputs, the measure of ingest's progress."""
        self.input_bytes = size

    def begin(self, name: str, corpus: CorpusManifest | None) -> None:
        """Adds the step's line."""
        self._corpus, self._started = corpus, time.monotonic()
        self._task = self._progress.add_task(name, total=None, note="starting")

    def job(self, job: Job) -> None:
        """Shows what the step is doing."""
        self._job, self._job_started = job, time.monotonic()

    def end(self, name: str, manifest: StageManifest | None) -> None:
        """Fills the bar, and says what came out and how fast."""
        note = _summary(name, manifest, self._corpus) if manifest else "written"
        self._close(name, f"{time.monotonic() - self._started:6.1f} s  {note}", note)

    def fresh(self, name: str, manifest: StageManifest | None) -> None:
        """Says that nothing had to be done."""
        if self._task is None or name != "ingest":
            self._task = self._progress.add_task(name, total=None, note="")
        note = "up to date" + (f", {manifest.rows:,} rows" if manifest else "")
        self._close(name, note, note)

    def _close(self, name: str, line: str, note: str) -> None:
        self._job, task = None, self._task
        self._task = None
        if task is not None:
            self._progress.update(task, total=1, completed=1, note=note)
        if not self.console.is_terminal:
            self.console.print(f"{name:<24} {line}", highlight=False)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            job, task = self._job, self._task
            if job is None or task is None:
                continue
            try:
                rows, size = job.target.progress()
            except (OSError, ValueError):  # a shard record replaced while it was read: look again next time
                continue
            total, completed, unit = self._measure(job, rows, size)
            seconds = max(time.monotonic() - self._job_started, 1e-9)
            parts = [job.label]
            if rows:
                parts.append(f"{rows:,} rows")
            if unit and completed:
                parts.append(f"{unit * completed / total / seconds / 1e6:,.1f} MB/s")
            if completed and total:
                left = seconds * (total - completed) / completed
                parts.append(f"{left:,.0f} s left" if left < 3600 else f"{left / 3600:,.1f} h left")
            shown = min(completed, 0.99 * total)  # a full bar is a finished step, and there may be another job
            self._progress.update(task, total=total or None, completed=shown, note=" · ".join(parts))

    def _measure(self, job: Job, rows: int, size: int) -> tuple[int, int, int]:
        """Total, completed, and the bytes of text the total stands for (0 if unknown)."""
        if self._corpus is None or job.target.url.endswith("/documents"):
            return self.input_bytes, size, self.input_bytes
        # As many shards as the documents: columns, one row a document, but for tables that happen to be cut alike.
        if job.target.num_shards == len(self._corpus.shards) and rows <= self._corpus.rows:
            return self._corpus.rows, rows, self._corpus.bytes
        return job.target.num_shards, len(job.target.done()), 0


def _summary(name: str, manifest: StageManifest, corpus: CorpusManifest | None) -> str:
    seconds = max(manifest.run.seconds, 1e-9)
    size = corpus.bytes if corpus else sum(shard.bytes for shard in manifest.shards)
    kind = "sequences" if manifest.stage == "pack" else "documents"
    memory = manifest.run.peak_memory_bytes / 1e9
    return f"{manifest.rows:,} {kind} · {size / seconds / 1e6:,.1f} MB/s · peak {memory:.1f} GB"
