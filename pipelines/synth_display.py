"""Live progress of a synthesis run: rows, requests, tokens, cost; sparse plain lines where there is no terminal."""

import time
import types
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ropewalk.pipelines.failures import EXIT_INTERRUPTED, errors, leave
from ropewalk.pipelines.synth import Watcher
from ropewalk.pipelines.synth_inspect import funnel
from ropewalk.pipelines.synth_manifest import SynthManifest
from ropewalk.pipelines.terminal import clean, shown
from ropewalk.schemas.manifest import StageManifest
from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import EngineInfo

PLAIN_SECONDS = 30.0
"""Between two lines where there is no terminal."""


class SynthDisplay(Watcher):
    """Context manager that shows a run.

    Args:
        output: Folder of the run, named in what it says at the end.
        console: Where to show.
    """

    def __init__(self, output: str, console: Console) -> None:
        self.output, self.console = output, console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("rows"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._metrics: dict[str, Any] = {}
        self._rows = self._finished = 0
        self._next_line = 0.0
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._live.stop()

    def prompts(self, laid: StageManifest) -> None:
        """Says how many there are."""
        records = laid.counters["records-in"]
        note = "" if records == laid.rows else f" of {records:,} records; the others are rejects"
        self.console.print(f"{laid.rows:,} prompts{note}", highlight=False)

    def starting(self, engine: EngineConfig) -> None:
        """Says what it waits for."""
        name = engine.name + (f", model {engine.model}" if engine.model else "")
        self._bar.update(self._task, description=f"starting engine {shown(name)}")

    def begin(self, info: EngineInfo, rows: int, finished: int) -> None:
        """Says who answers, and what is left to do."""
        self._rows, self._finished = rows, finished
        self._next_line = time.monotonic() + PLAIN_SECONDS
        kept = f"; {finished:,} rows are finished" if finished else ""
        who = f"{info.engine}, model {info.model}, {info.max_sequences:,} requests at once{kept}"
        self.console.print(shown(who), highlight=False)
        self._bar.update(self._task, description="writing", total=rows, completed=finished)

    def tick(self, metrics: dict[str, Any]) -> None:
        """Renews the figures; where there is no terminal, prints them now and then."""
        self._metrics = metrics
        done = self._finished + metrics["done-rows"] + metrics["rejected-rows"]
        self._bar.update(self._task, completed=done)
        if not self.console.is_terminal and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_SECONDS
            self._print(f"{done:,}/{self._rows:,} rows · " + " · ".join(figures(metrics)))

    def end(self, manifest: SynthManifest) -> None:
        """Says what came of the prompts, what it took, and how to look at it."""
        self._live.stop()
        self.stopped()
        self.console.print(funnel(manifest.counts["records"], manifest.counters))
        counts = manifest.counts
        parts = (
            f"{counts['sft']:,} samples + {counts['filtered']:,} set aside + {counts['dead_letters']:,} dead letters"
        )
        self._print(f"Done: {counts['records']:,} records = {parts} in {manifest.run.seconds:,.0f} s")
        self.console.print(f"Look at a row: [bold]ropewalk inspect {shown(self.output)} --row 0[/]", highlight=False)
        if counts["sft"] < counts["records"]:
            self.console.print(f"Why the others are none: [bold]ropewalk inspect {shown(self.output)} --rejects[/]")

    def stopped(self) -> None:
        """The last figures, of a run that has ended in whatever way."""
        self._live.stop()
        if self._metrics:
            for line in figures(self._metrics):
                self._print(line)

    def fresh(self, manifest: SynthManifest) -> None:
        """Says that there was nothing to do."""
        counts = manifest.counts
        self._print(
            f"Up to date: {counts['sft']:,} samples of {counts['records']:,} records in {self.output}, "
            f"finished {manifest.run.finished}. --force makes the rows again."
        )

    def interrupted(self, again: bool) -> None:
        """Says what happens now; the second time, nothing happens any more."""
        if not again:
            self._print("Interrupted: what is in flight finishes and is kept. Ctrl-C again ends at once.")
            return
        self._live.stop()
        errors.print(
            "Interrupted. The requests in flight are lost, all others kept: the same command goes on from here."
        )
        leave(EXIT_INTERRUPTED)

    def _print(self, line: str) -> None:
        self.console.print(shown(line), highlight=False)

    def _render(self) -> RenderableType:
        lines = [Text(clean("  " + line), style="dim") for line in figures(self._metrics)] if self._metrics else []
        return Group(self._bar, *lines)


def figures(metrics: dict[str, Any]) -> list[str]:
    """A snapshot of the telemetry in a few lines of words."""
    answered, cached = metrics["answered-requests"], metrics["cached-requests"]
    requests = [f"{answered:,} requests answered"]
    if cached:
        requests.append(f"{cached:,} from the cache ({cached / (answered + cached):.0%})")
    requests += [
        f"{metrics[f'{name}-requests']:,} {name}" for name in ("retried", "failed") if metrics[f"{name}-requests"]
    ]
    generated = metrics["generated-tokens"]
    tokens = [f"{generated:,} tokens", f"{metrics['generated-tokens_per_second']:,.0f} tok/s"]
    tokens.append(f"{metrics['wasted-tokens'] / max(1, generated):.1%} wasted")
    tokens.append(f"{metrics['busy-share']:.0%} busy")
    if metrics["prompt-tokens"]:
        tokens.append(f"{metrics['cached-tokens'] / metrics['prompt-tokens']:.0%} of prompts in the prefix cache")
    lines = [", ".join(requests), ", ".join(tokens)]
    for name, title in (
        ("finish_reasons-requests", "ended by"),
        ("refused_by_reason-replies", "replies refused"),
        ("rejected_by_reason-rows", "rows rejected"),
    ):
        if metrics[name]:
            lines.append(f"{title}: " + ", ".join(f"{reason} {count:,}" for reason, count in metrics[name].items()))
    cost, projected, left = metrics["cost-money"], metrics["projected_cost-money"], metrics["eta-seconds"]
    ends = [f"cost {cost:,.4g}"] if cost else []
    ends += [f"of about {projected:,.4g} in all"] if cost and projected else []
    if left:
        ends.append(f"about {left:,.0f} s left" if left < 3600 else f"about {left / 3600:,.1f} h left")
    return [*lines, " ".join(ends)] if ends else lines
