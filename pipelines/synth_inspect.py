"""`ropewalk inspect` of a synthesis run: what came of the prompts, one row, and everything that led to it.

Prompts and replies come from anyone: they are escaped, and stripped of control codes.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from ropewalk.pipelines import synth_manifest, synth_prompts
from ropewalk.pipelines.terminal import SHOWN_CHARS, clean, shorten, shown
from ropewalk.schemas import files
from ropewalk.schemas.manifest import Shard, add_counters
from ropewalk.schemas.settings import RecipeError
from ropewalk.synth.engine import Completion, Request
from ropewalk.synth.events import Event
from ropewalk.synth.recipe import Prompt
from ropewalk.transforms.shards import shard_name

TEXT_CHARS = 4 * SHOWN_CHARS
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class SynthInspector:
    """Shows parts of one run, finished or not.

    Args:
        url: Its folder.
        console: Where to show.
        full: Show texts whole, not cut in the middle.

    Raises:
        RecipeError: The folder holds no run, or its prompts were never laid.
    """

    def __init__(self, url: str, console: Console, *, full: bool = False) -> None:
        self.url, self.console, self.full = url, console, full
        self.recipe = synth_manifest.read_recipe(url)
        prompts = synth_prompts.manifest(url)
        if prompts is None:
            raise RecipeError(f"{url}: the prompts of this run were never laid: run `ropewalk synth` on its recipe")
        self.prompts = prompts
        self.manifest = synth_manifest.read_manifest(url)

    def overview(self) -> None:
        """How many prompts became rows, why the others did not, and how long and how good the rows are."""
        samples, rejects = self._shards("sft"), self._shards("rejects")
        self.console.print(f"Synthesis run [bold]{shown(self.url)}[/]: {self._state(samples)}")
        engine = synth_manifest.read_engine(self.url)
        about = f"recipe {self.recipe.recipe['name']}, seed {self.recipe.seed}"
        if engine is not None:
            about += f", {engine.engine}, model {engine.model}" + (f" ({engine.revision})" if engine.revision else "")
        self.console.print(shown(about), highlight=False)
        counters = add_counters([shard.counters for shard in [*samples.values(), *rejects.values()]])
        self.console.print(funnel(self.prompts.counters["records-in"], counters))
        figures = Table("of the samples", "least", "quarter", "median", "three quarters", "most", "mean")
        for name in ("required_words", "output_words", "output_tokens", "s_l", "s_q", "n_attempts"):
            values = self._column("sft", samples, name)
            if len(values):
                cells = [*np.quantile(values, QUANTILES), values.mean()]
                figures.add_row(name, *(f"{cell:,.1f}".removesuffix(".0") for cell in cells))
        if figures.row_count:
            self.console.print(figures)
        if samples:
            self.console.print(f"A row: [bold]ropewalk inspect {shown(self.url)} --row 0[/] (--trace, --full)")

    def row(self, number: int | None, id: str | None) -> None:
        """One row: its prompt, and what became of it.

        Raises:
            RecipeError: There is no such prompt.
        """
        shard, prompt, address = self._find(number, id)
        self.console.print(Rule(shown(f"prompt {prompt.id} · {address}"), align="left"))
        about = {name: value for name, value in asdict(prompt).items() if name not in ("id", "prompt") and value}
        self.console.print(shown(", ".join(f"{name} {value}" for name, value in about.items())), highlight=False)
        sample = self._fetch("sft", shard, prompt.id)
        if sample is not None:
            self._sample(sample)
            return
        self._text(prompt.prompt)
        reject = self._fetch("rejects", shard + 1, prompt.id)
        if reject is None:
            self.console.print("Not made yet: its shard is unfinished. The same `ropewalk synth` goes on.")
        else:
            self._reject(reject)

    def trace(self, number: int | None, id: str | None) -> None:
        """Everything that led to a row: its coroutine runs once more, with an engine that knows only the cache.

        Raises:
            RecipeError: There is no such prompt, or nothing was asked yet.
        """
        from ropewalk.synth.cache import RequestCache
        from ropewalk.synth.recipes.load import load
        from ropewalk.synth.trace import trace as events_of

        _, prompt, address = self._find(number, id)
        info = synth_manifest.read_engine(self.url)
        if info is None:
            raise RecipeError(f"{self.url}: no engine has answered in this run yet, so there is nothing to trace")
        recipe, cache = load(self.recipe.recipe), RequestCache.open(self.recipe.cache_url)
        judge = synth_manifest.read_engine(self.url, "judge")
        events = asyncio.run(events_of(prompt, recipe, cache, info, self.recipe, judge=judge))
        self.console.print(Rule(shown(f"trace of prompt {prompt.id} · {address}"), align="left"))
        for event in events:
            self._event(event)

    def rejects(self, count: int = 50) -> None:
        """The first rows that were not made, with reason and step."""
        table = Table("kind", "reason", "step", "id", "detail", "text")
        printed = total = 0
        for shard, record in sorted(self._shards("rejects").items()):
            total += record.rows
            for batch in self._read("rejects", shard) if printed < count else ():
                for row in batch.slice(0, count - printed).to_pylist():
                    cells = (row["kind"], row["reason"], row["step"], row["id"], shorten(row["detail"], 200))
                    table.add_row(*map(shown, cells), shown(shorten(row["text"], 80)))
                    printed += 1
        self.console.print(table if printed else "Nothing was rejected.")
        if total > printed:
            self.console.print(f"{total - printed:,} more in {shown(files.join(self.url, 'rejects'))}")

    def _sample(self, row: dict[str, Any]) -> None:
        table = Table(show_header=False, box=None, padding=(0, 2))
        for name, value in row.items():
            if name not in ("messages", "plan", "guard_metrics", "id") and value is not None:
                table.add_row(name, shown(shorten(value)))
        figures = {name: value for name, value in (row["guard_metrics"] or {}).items() if value is not None}
        table.add_row("guard_metrics", shown(", ".join(f"{name} {value:.3g}" for name, value in figures.items())))
        self.console.print(table)
        for number, step in enumerate(row["plan"] or (), 1):
            self.console.print(shown(f"{number:>3}. {step['point']} ({step['words']} words)"), highlight=False)
        for message in row["messages"]:
            self.console.print(Rule(shown(message["role"]), align="left"))
            self._text(message["content"])

    def _reject(self, row: dict[str, Any]) -> None:
        what = "set aside" if row["kind"] == "filtered" else "dead letter"
        self.console.print(Rule(shown(f"{what}: {row['reason']}"), align="left"))
        table = Table(show_header=False, box=None, padding=(0, 2))
        for name in ("detail", "step", "attempt", "finish_reason", "metrics", "completion_tokens"):
            if row[name] not in (None, ""):
                table.add_row(name, shown(shorten(row[name])))
        self.console.print(table)
        if row["text"]:
            self.console.print(Rule("its last text", align="left"))
            self._text(row["text"])

    def _event(self, event: Event) -> None:
        place = f"{event.step} · " if event.step else ""
        attempt = f" · attempt {event.attempt}, segment {event.segment}" if event.step and event.request else ""
        facts = ", ".join(f"{name} {value}" for name, value in event.facts.items())
        parts = [part for part in (event.reason, event.detail, facts) if part]
        self.console.print(Rule(shown(f"{place}{event.kind}{attempt}"), align="left"))
        if parts:
            self.console.print(shown(": ".join(parts)), highlight=False)
        if event.request is not None:
            self._request(event.request)
        if event.completion is not None:
            self._completion(event.completion)

    def _request(self, request: Request) -> None:
        sampling = request.sampling
        about = f"max_tokens {sampling.max_tokens:,}, temperature {sampling.temperature:g}, seed {sampling.seed}"
        if request.prompt_ids:
            about += f", {len(request.prompt_ids):,} prompt tokens"
        self.console.print(f"[dim]{about}[/]")
        for message in request.messages:
            self.console.print(f"[bold]{message.role}[/]")
            self._text(message.content)
        if request.generated_text or request.generated_ids:
            self.console.print(f"[bold]so far[/] ({len(request.generated_ids):,} tokens)")
            self._text(request.generated_text)

    def _completion(self, completion: Completion) -> None:
        usage = completion.usage
        self.console.print(
            f"[bold]reply[/] ({completion.finish_reason}; {usage.generated:,} tokens after {usage.prompt:,}, "
            f"{usage.cached:,} of them cached; {completion.timing.total:.2f} s)"
        )
        self._text(completion.text)

    def _text(self, text: str) -> None:
        self.console.print(shown(clean(text) if self.full else shorten(text, TEXT_CHARS)), highlight=False)

    def _state(self, samples: dict[int, Shard]) -> str:
        if self.manifest is not None:
            return f"finished {self.manifest.run.finished}, {self.manifest.run.seconds:,.0f} s"
        return f"unfinished, {len(samples)} of {len(self.prompts.shards)} shards written"

    def _shards(self, table: str) -> dict[int, Shard]:
        """The written shards of a table by number; of an unfinished run from the records beside them."""
        if self.manifest is not None:
            return dict(enumerate(self.manifest.shards[table]))
        found = {}
        folder = files.join(self.url, table, "_shards")
        for name in files.names(folder):
            if name.endswith(".json"):
                record = json.loads(files.read_bytes(files.join(folder, name)) or b"{}")
                record.pop("key", None)
                found[int(name.removesuffix(".json"))] = Shard.model_validate(record)
        return found

    def _read(self, table: str, shard: int) -> Iterator[pa.RecordBatch]:
        total = len(self.prompts.shards) + (table == "rejects")
        return iter(files.open_arrow(files.join(self.url, table, shard_name(shard, total))))

    def _column(self, table: str, shards: dict[int, Shard], name: str) -> np.ndarray:
        """All values of a column but nulls: float64[n]."""
        parts = [pc.drop_null(batch.column(name)) for shard in shards for batch in self._read(table, shard)]
        return np.concatenate([np.empty(0), *(part.to_numpy(zero_copy_only=False) for part in parts)])

    def _find(self, number: int | None, id: str | None) -> tuple[int, Prompt, str]:
        """Shard of a prompt, the prompt, and where it lies."""
        left = number if number is not None else -1
        for shard, record in enumerate(self.prompts.shards):
            if id is None and left >= record.rows:
                left -= record.rows
                continue
            place = 0
            for batch in self._read(synth_prompts.STEP, shard):
                if id is not None:
                    left = pc.index(batch.column("id"), id).as_py()
                if 0 <= left < batch.num_rows:
                    prompt = next(synth_prompts.prompts_of(batch.slice(left, 1)))
                    return shard, prompt, f"shard {shard}, row {place + left}"
                left, place = left - batch.num_rows, place + batch.num_rows
        if id is not None:
            unread = "; the record was no prompt: see --rejects" if self._fetch("rejects", 0, id) else ""
            raise RecipeError(f"--id {id}: no such prompt in {self.url}{unread}")
        raise RecipeError(f"--row {number}: the run has {self.prompts.rows:,} prompts, numbered from 0")

    def _fetch(self, table: str, shard: int, id: str) -> dict[str, Any] | None:
        if shard not in self._shards(table):
            return None
        for batch in self._read(table, shard):
            row = pc.index(batch.column("id"), id).as_py()
            if row >= 0:
                return dict(batch.slice(row, 1).to_pylist()[0])
        return None


def funnel(records: int, counters: dict[str, int]) -> Table:
    """From records to samples: what was set aside on the way, and why."""
    table = Table("", "rows", "share")
    for column in table.columns[1:]:
        column.justify = "right"

    def add(name: str, count: int, style: str = "") -> None:
        table.add_row(shown(name), f"{count:,}", f"{count / max(1, records):.1%}", style=style)

    add("records read", records)
    for kind, title in (("filtered", "set aside"), ("dead_letter", "dead letters")):
        add(f"− {title}", counters.get(f"{kind}-rows", 0))
        reasons = {name: count for name, count in counters.items() if name.startswith(f"{kind}:")}
        for name, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            add(f"    {name.removeprefix(f'{kind}:').removesuffix('-rows')}", count, "dim")
    add("= samples", counters.get("sft-rows", 0))
    written = sum(counters.get(f"{kind}-rows", 0) for kind in ("filtered", "dead_letter", "sft"))
    if written < records:
        add("  not made yet", records - written)
    return table
