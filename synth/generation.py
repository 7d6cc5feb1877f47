"""A run of synthesis: prompts in, rows out, whatever happens in between.

Every prompt becomes one `Row`: a sample, or a reject with its reason. A fault of a recipe in one row is a dead letter
of that row. Only what ends the whole run is raised, as `Stopped`, after everything that was finished has been yielded;
rows that were under way are in the cache as far as they got, and the next run goes on from there.
"""

import asyncio
import itertools
import json
import os
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ropewalk.schemas.synth_recipe import SynthRecipe
from ropewalk.schemas.synthesis import GUARD_METRICS
from ropewalk.synth.ask import Account, Cache, Desk, Guarding, RowAsk
from ropewalk.synth.engine import Engine, EngineDead, EngineInfo
from ropewalk.synth.events import Event, Observer
from ropewalk.synth.limits import Limits
from ropewalk.synth.recipe import Prompt, Recipe, Reject, Sample, Unacceptable
from ropewalk.synth.rollout import FindLoop
from ropewalk.synth.scheduler import Scheduler, Stopped, start_order
from ropewalk.synth.telemetry import Telemetry

__all__ = ["Generation", "Row", "Stopped"]

MAX_TEXT_BYTES = 4096
"""Of a refused text, kept with its reject."""
_GRACE_SECONDS = 30.0  # for requests in flight when an engine dies: a good one fails them all at once


@dataclass(frozen=True)
class Row:
    """What became of a prompt: exactly one of the two.

    Attributes:
        prompt: The prompt.
        sft: A row of `synthesis.SFT`.
        reject: A row of `synthesis.SYNTH_REJECTS`.
    """

    prompt: Prompt
    sft: dict[str, Any] | None = None
    reject: dict[str, Any] | None = None


class Generation:
    """Makes rows with one recipe, one engine and one cache. All methods belong to one event loop.

    Args:
        recipe: The way of writing.
        engine: Who writes; started and closed here.
        cache: Where replies are kept; opened and closed by the caller.
        config: The run.
        judge: Who judges; none: the engine itself.
        observer: Is told of every event, after the telemetry.
        guards: Checks of texts; default: `guards.check.Guards` with the thresholds of the run.
        find_loop: Looks for loops at the seams of segments; default: `guards.loops.find_loop`.
    """

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        cache: Cache,
        config: SynthRecipe,
        *,
        judge: Engine | None = None,
        observer: Observer | None = None,
        guards: Guarding | None = None,
        find_loop: FindLoop | None = None,
    ) -> None:
        self._recipe, self._engine, self._judge, self._cache, self._config = recipe, engine, judge, cache, config
        self._observer = observer
        self._guards, self._find_loop = guards, find_loop
        self._desk: Desk | None = None
        self._orders = itertools.count()
        self._feeder_wake, self._consumer_wake = asyncio.Event(), asyncio.Event()
        self.limits = Limits(config.limits)
        self.telemetry = Telemetry(config.limits.price)

    async def start(self) -> EngineInfo:
        """Starts the engines.

        Raises:
            Stopped: One cannot start; the message names the remedy.
        """
        config = self._config
        try:
            writer = await self._schedule(self._engine, config.engine.max_sequences)
            judge = writer
            if self._judge is not None:
                judge = await self._schedule(self._judge, config.judge.max_sequences if config.judge else None)
        except EngineDead as error:
            await self.close()
            raise Stopped(f"engine_dead: {error}") from error
        self.telemetry.busy = writer.busy_seconds
        guards, find_loop = self._guards or _default_guards(config), self._find_loop or _default_find_loop()
        self._desk = Desk(config, self._cache, writer, judge, guards, find_loop, self._tell)
        return writer.info

    @property
    def judge_info(self) -> EngineInfo | None:
        """Who judges, if not the engine itself; known once it has started."""
        return None if self._judge is None or self._desk is None else self._desk.judge.info

    async def close(self) -> None:
        """Ends the engines; safe to call twice."""
        await self._engine.close()
        if self._judge is not None:
            await self._judge.close()

    def drain(self, reason: str = "interrupted") -> None:
        """Starts nothing more: what is in flight is finished and cached, then `run` raises `Stopped(reason)`."""
        for scheduler in self._schedulers:
            scheduler.stop(reason)

    async def make(self, prompt: Prompt) -> Row:
        """Makes one row; as many at once as the caller likes, the engine gets no more than it can take.

        Raises:
            Stopped: The run has ended; this row is not finished.
        """
        expected = self._recipe.expected_tokens(prompt)
        self.telemetry.expect(1, expected)
        return await self._make(self._open(prompt), expected)

    async def run(self, prompts: Iterable[Prompt]) -> AsyncGenerator[Row, None]:
        """Makes a row of every prompt, thousands at once, and yields them as they are finished, in any order.

        Args:
            prompts: Read window by window; may be longer than memory.

        Raises:
            Stopped: A limit, the breaker, `drain` or the death of the engine ended the run; all rows that were
                finished have been yielded.
        """
        ended: deque[asyncio.Task[Row]] = deque()
        feeder = asyncio.create_task(self._feed(prompts, ended))
        feeder.add_done_callback(lambda _: self._consumer_wake.set())
        try:
            while not feeder.done() or ended:
                while ended:
                    task = ended.popleft()
                    self._feeder_wake.set()
                    if not isinstance(task.exception(), Stopped):
                        yield task.result()
                if not feeder.done():
                    self._consumer_wake.clear()
                    await self._consumer_wake.wait()
            feeder.result()
        finally:
            feeder.cancel()
            await asyncio.wait([feeder])
        if (reason := self._stopped) is not None:
            raise Stopped(reason)

    async def _feed(self, prompts: Iterable[Prompt], ended: deque[asyncio.Task[Row]]) -> None:
        """Starts rows as long as there is room for them; ends when the last has ended."""
        running: set[asyncio.Task[Row]] = set()

        def end(task: asyncio.Task[Row]) -> None:
            running.discard(task)
            if not task.cancelled():
                ended.append(task)
            self._notify()

        rows = self._rows(prompts)
        try:
            while self._stopped is None:
                if not self._has_room or len(ended) >= self._config.generation.window_rows:
                    self._feeder_wake.clear()
                    await self._feeder_wake.wait()
                elif (row := next(rows, None)) is not None:
                    task = asyncio.create_task(self._make(*row))
                    running.add(task)
                    task.add_done_callback(end)
                else:
                    break
            while running:
                # The row that meets a dead engine ends at once: this loop turns, and gives the others a while.
                dead = (self._stopped or "").startswith("engine_dead")
                timeout = _GRACE_SECONDS if dead else None
                done, _ = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if dead and not done:
                    break
        finally:
            left = list(running)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)

    def _rows(self, prompts: Iterable[Prompt]) -> Iterator[tuple[RowAsk, int]]:
        """Rows in the order they start. Taking one takes its place at the engine."""
        for window in start_order(prompts, self._recipe.expected_tokens, self._config.generation.window_rows):
            self.telemetry.expect(len(window), sum(expected for _, expected in window))
            for prompt, expected in window:
                yield self._open(prompt), expected

    def _open(self, prompt: Prompt) -> RowAsk:
        if self._desk is None:
            raise RuntimeError("the generation has not been started: await start() first")
        ask = RowAsk(prompt, self._desk, next(self._orders))
        ask.begin()
        return ask

    async def _make(self, ask: RowAsk, expected_tokens: int) -> Row:
        """Runs the recipe over one row, and makes a row of whatever comes of it."""
        prompt = ask.prompt
        ask.tell("started", facts={"expected-tokens": expected_tokens})
        try:
            sample = await self._recipe(prompt, ask)
            row = Row(prompt, sft=self._sft_row(prompt, sample, ask.account))
            reject = None
        except Exception as error:
            if self._stopped is not None and not isinstance(error, Reject | Unacceptable):
                raise Stopped(self._stopped) from error  # an engine that is going down makes strange faults
            reject = _reject_of(error)
        finally:
            ask.end()
        if ask.interruptions:  # also where the recipe has swallowed it
            raise ask.interruptions[0]
        if reject is not None:
            ask.tell("rejected", reject.step, reason=reject.reason, detail=reject.detail)
            return Row(prompt, reject=_reject_row(prompt, reject, ask.account))
        ask.tell("done")
        return row

    def _sft_row(self, prompt: Prompt, sample: Sample, account: Account) -> dict[str, Any]:
        assert self._desk is not None
        config, writer = self._config, self._desk.writer
        output_tokens = writer.engine.count_tokens(sample.messages[-1].content)
        finish_reasons = [reason for reasons in account.accepted.values() for reason in reasons]
        return {
            "id": prompt.id,
            "recipe": self._recipe.name,
            "recipe_version": self._recipe.version,
            "seed": config.seed,
            "language": sample.language,
            "messages": [{"role": message.role, "content": message.content} for message in sample.messages],
            "required_words": sample.required_words,
            "output_words": sample.output_words,
            "output_tokens": output_tokens,
            "s_l": sample.s_l,
            "s_q": sample.s_q,
            "len_lo": sample.len_lo,
            "len_hi": sample.len_hi,
            "loss_weight": 1 / max(1, output_tokens),
            "finish_reasons": finish_reasons,
            "n_segments": len(finish_reasons),
            "n_attempts": account.requests,
            "plan": [{"point": step.point, "words": step.words} for step in sample.plan] or None,
            "guard_metrics": {name: sample.guard_metrics.get(name) for name in GUARD_METRICS},
            "source": prompt.source,
            "source_ids": list(prompt.source_ids),
            "model": writer.info.model,
            "model_revision": writer.info.revision,
            "engine": ", ".join(sorted(account.engines)) or writer.info.engine,
            "sampling": json.dumps(config.sampling.model_dump(), sort_keys=True),
            "prompt_tokens": account.prompt_tokens,
            "completion_tokens": account.generated_tokens,
            "license": config.license,
        }

    async def _schedule(self, engine: Engine, max_sequences: int | None) -> Scheduler:
        info = await engine.start()
        return Scheduler(engine, info, limits=self.limits, max_sequences=max_sequences, on_change=self._notify)

    @property
    def _schedulers(self) -> list[Scheduler]:
        return [] if self._desk is None else [self._desk.writer, self._desk.judge]

    @property
    def _stopped(self) -> str | None:
        return next((s.stopped for s in self._schedulers if s.stopped is not None), None)

    @property
    def _has_room(self) -> bool:
        return self._desk is not None and self._desk.writer.has_room and not self._desk.judge.is_overloaded

    def _notify(self) -> None:
        """Something has changed: whoever waits looks again. What stops one engine stops the run."""
        if (reason := self._stopped) is not None:
            for scheduler in self._schedulers:
                scheduler.stop(reason)
        self._feeder_wake.set()
        self._consumer_wake.set()

    def _tell(self, event: Event) -> None:
        self.telemetry.observe(event)
        if self._observer is not None:
            self._observer(event)


def _reject_of(error: Exception) -> Reject:
    """What an exception means for the row: a decision keeps its reason, anything else is a fault of the recipe."""
    errors = [error]
    while groups := [e for e in errors if isinstance(e, ExceptionGroup)]:  # of a recipe's own `TaskGroup`
        errors = [e for e in errors if e not in groups] + [e for group in groups for e in group.exceptions]
    rejects = [e for e in errors if isinstance(e, Reject)]
    if rejects:
        return min(rejects, key=lambda reject: (reject.step, reject.reason))
    refusals = [e for e in errors if isinstance(e, Unacceptable)]
    if refusals:  # a guard called outside `accept`
        return Reject(refusals[0].reason, refusals[0].detail, tries=())
    fault = errors[0]
    frames = traceback.extract_tb(fault.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return Reject("recipe_error", f"{type(fault).__name__}: {fault}{where}")


def _reject_row(prompt: Prompt, reject: Reject, account: Account) -> dict[str, Any]:
    last = reject.tries[-1] if reject.tries else None
    return {
        "id": prompt.id,
        "kind": "filtered" if reject.filtered else "dead_letter",
        "reason": reject.reason,
        "detail": reject.detail,
        "step": reject.step,
        "attempt": last.reply.attempt if last else None,
        "finish_reason": last.reply.finish_reason if last else None,
        "text": _cut(last.reply.text) if last else "",
        "metrics": json.dumps(last.fault.metrics if last else {}, sort_keys=True),
        "completion_tokens": account.generated_tokens,
        "source": prompt.source,
        "prompt": prompt.prompt,
    }


def _cut(text: str) -> str:
    """At most `MAX_TEXT_BYTES` of UTF-8, whole characters."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def _default_guards(config: SynthRecipe) -> Guarding:
    from ropewalk.synth.guards.check import Guards

    return Guards(config.guards)


def _default_find_loop() -> FindLoop:
    from ropewalk.synth.guards.loops import find_loop, find_text_loop

    return lambda answer: find_text_loop(answer) if isinstance(answer, str) else find_loop(answer)
