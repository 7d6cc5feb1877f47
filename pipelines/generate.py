"""`prompts | Generate(recipe)`: a way of writing as a Beam transform.

One engine works in each worker process, whatever the number of bundles and threads: all of them feed the same event
loop, so the engine's batch stays full over the ends of bundles. A fault of one prompt is a row of `rejects`; only the
end of the engine, or of a budget, fails a bundle, and what is cached by then is not asked again when it is retried.

    found = prompts | Generate(load_synth_recipe("essays.yaml"))
    found.sft | …;  found.rejects | …
"""

import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import WindowedValue

from ropewalk.pipelines.synth_prompts import prompts_of
from ropewalk.schemas.conform import conform
from ropewalk.schemas.synth_recipe import SynthRecipe
from ropewalk.schemas.synthesis import PROMPTS, SFT, SYNTH_REJECTS
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engines.load import load as load_engine
from ropewalk.synth.generation import Generation, Row, Stopped
from ropewalk.synth.recipe import Prompt
from ropewalk.synth.recipes.load import load as load_recipe
from ropewalk.transforms import batches, metrics

assert batches  # registers the coder of RecordBatch

T = TypeVar("T")

REJECTS = "rejects"


@dataclass
class Generate(beam.PTransform):
    """Batches of prompts in; samples and rejects out, one for each prompt.

    Equal prompts make equal rows however they are cut in batches and spread over workers, as far as the engine gives
    equal answers, or the cache has them.

    Attributes:
        recipe: The run: way of writing, engine, sampling, cache. Its `prompts` are not read here, and nothing but the
            cache is written to its `output`. Its `limits` hold for each worker process.
        accelerator: What a worker of engine `vllm` needs, as Beam's resource hint.
        min_ram: Memory a worker needs, as Beam's resource hint.
    """

    recipe: SynthRecipe
    accelerator: str = "type:nvidia-l4;count:1;install-nvidia-driver"
    min_ram: str = "16GB"

    def expand(self, prompts: beam.PCollection[pa.RecordBatch]) -> beam.pvalue.DoOutputsTuple:
        """From `synthesis.PROMPTS` to outputs `sft` (`synthesis.SFT`) and `rejects` (`synthesis.SYNTH_REJECTS`)."""
        hints = {"min_ram": self.min_ram}
        if self.recipe.engine.name == "vllm":
            hints["accelerator"] = self.accelerator
        work = beam.ParDo(_Generate(self.recipe.model_dump_json(), self.recipe.generation.window_rows))
        typed = work.with_output_types(pa.RecordBatch, rejects=pa.RecordBatch).with_resource_hints(**hints)
        return prompts | typed.with_outputs(REJECTS, main="sft")


@dataclass(frozen=True)
class _Batch:
    """A batch whose rows are being made, and where its results belong in time."""

    rows: Sequence["Future[Row]"]
    timestamp: Any
    window: Any

    @property
    def done(self) -> bool:
        return all(row.done() for row in self.rows)


class _Generate(beam.DoFn):
    """Hands prompts to the process' engine as they come, and results on when a whole batch is there."""

    def __init__(self, recipe: str, window_rows: int) -> None:
        self.recipe, self.window_rows = recipe, window_rows

    def setup(self) -> None:
        self._worker = _acquire(self.recipe)

    def teardown(self) -> None:
        _release(self._worker)

    def start_bundle(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._waiting = 0

    def process(
        self, batch: pa.RecordBatch, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[pa.RecordBatch]:
        prompts = prompts_of(conform(batch, PROMPTS, table="prompts"))
        self._batches.append(_Batch([self._worker.make(prompt) for prompt in prompts], timestamp, window))
        self._waiting += batch.num_rows
        # What is ahead is made meanwhile: so many rows may wait before this bundle does.
        while self._batches and (self._batches[0].done or self._waiting > self.window_rows):
            yield from self._emit(self._batches.popleft())

    def finish_bundle(self) -> Iterator[pa.RecordBatch]:
        while self._batches:
            yield from self._emit(self._batches.popleft())

    def _emit(self, batch: _Batch) -> Iterator[Any]:
        try:
            rows = [row.result() for row in batch.rows]
        except Stopped as end:
            raise RuntimeError(f"generation has ended: {end.reason}") from end
        self._waiting -= len(rows)
        for tag, schema, made in (
            (None, SFT, [row.sft for row in rows if row.sft is not None]),
            (REJECTS, SYNTH_REJECTS, [row.reject for row in rows if row.reject is not None]),
        ):
            if made:
                metrics.count(Generate, f"{tag or 'sft'}-rows", len(made))
                result = WindowedValue(pa.RecordBatch.from_pylist(made, schema=schema), batch.timestamp, [batch.window])
                yield result if tag is None else beam.pvalue.TaggedOutput(tag, result)


class _Worker:
    """The engine of this process: a run of generation, with its event loop in a thread of its own."""

    def __init__(self, recipe: str) -> None:
        self.recipe, self.users = recipe, 0
        self.ended = False
        self._under_way: dict[tuple[str, str], asyncio.Future[Row]] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="generate", daemon=True).start()
        try:
            self._call(self._open(SynthRecipe.model_validate_json(recipe))).result()
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise

    def make(self, prompt: Prompt) -> "Future[Row]":
        """Starts a row; any thread may ask."""
        return self._call(self._make(prompt))

    def close(self) -> None:
        """Ends the engine and flushes the cache."""
        self._call(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _open(self, recipe: SynthRecipe) -> None:
        judge = None if recipe.judge is None else load_engine(recipe.judge)
        engine, way = load_engine(recipe.engine), load_recipe(recipe.recipe)
        self._cache = RequestCache.open(recipe.cache_url, writer=f"{socket.gethostname()}-{os.getpid()}")
        self._generation = Generation(way, engine, self._cache, recipe, judge=judge)
        await self._generation.start()

    async def _make(self, prompt: Prompt) -> Row:
        """A bundle that is tried again finds the rows of its first try still under way, and waits for them."""
        name = (prompt.id, prompt.prompt)
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = asyncio.ensure_future(self._generation.make(prompt))
            task.add_done_callback(lambda _: self._under_way.pop(name))
        try:
            return await asyncio.shield(task)
        except Stopped:
            self.ended = True
            raise

    async def _close(self) -> None:
        await self._generation.close()
        await self._cache.close()


_workers: dict[str, _Worker] = {}
_lock = threading.Lock()


def _acquire(recipe: str) -> _Worker:
    """The worker of this process for a recipe: started once, and anew after its engine has died."""
    with _lock:
        worker = _workers.get(recipe)
        if worker is None or worker.ended:
            worker = _workers[recipe] = _Worker(recipe)
        worker.users += 1
        return worker


def _release(worker: _Worker) -> None:
    with _lock:
        worker.users -= 1
        if worker.users:
            return
        if _workers.get(worker.recipe) is worker:
            del _workers[worker.recipe]
    worker.close()
