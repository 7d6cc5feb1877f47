"""The synthesis half as one call: `run(recipe)` goes from prompts to rows of training data.

    list the inputs → lay the prompts → start the engine → make the rows → write each shard when it is complete

Running it again is a no-op. A changed setting makes the rows again; what still applies comes out of the request cache.
A run that was killed, interrupted or stopped by a limit goes on where it was.
"""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ropewalk.pipelines import measure, synth_prompts
from ropewalk.pipelines.synth_manifest import MANIFEST, METRICS, RECIPE, SynthManifest, read_manifest
from ropewalk.pipelines.synth_tables import SynthTables
from ropewalk.schemas import files
from ropewalk.schemas.manifest import StageManifest, fingerprint
from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import EngineConfig, SynthRecipe
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Engine, EngineInfo
from ropewalk.synth.engines.load import load as load_engine
from ropewalk.synth.generation import Generation, Stopped
from ropewalk.synth.guards.check import Guards
from ropewalk.synth.guards.table import guards as resolved_guards
from ropewalk.synth.recipe import Recipe
from ropewalk.synth.recipes.load import load as load_recipe
from ropewalk.transforms.shards import discard, sweep

VERSION = 1
METRICS_SECONDS = 2.0
"""How often the live figures are written and shown."""


class Watcher:
    """What happens, told step by step; this one keeps quiet. The command line shows it (`SynthDisplay`)."""

    def prompts(self, laid: StageManifest) -> None:
        """The prompts are there."""

    def starting(self, engine: EngineConfig) -> None:
        """The engine starts: it loads a model, or connects."""

    def begin(self, info: EngineInfo, rows: int, finished: int) -> None:
        """The engine is there; of so many rows so many were finished before."""

    def tick(self, metrics: dict[str, Any]) -> None:
        """The live figures, every few seconds and at the end."""

    def end(self, manifest: SynthManifest) -> None:
        """All rows are made."""

    def fresh(self, manifest: SynthManifest) -> None:
        """All rows were there already."""

    def interrupted(self, again: bool) -> None:
        """The user wants to stop: the run drains. Asked again, it ends here.

        Raises:
            KeyboardInterrupt: The second time.
        """
        if again:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        manifest: Of a finished run.
        stopped: Why it ended before its last row: a limit, too many errors, the end of the engine.
        interrupted: Whether the user ended it.
    """

    manifest: SynthManifest | None = None
    stopped: str | None = None
    interrupted: bool = False


def run(recipe: SynthRecipe, *, force: bool = False, watcher: Watcher | None = None) -> Outcome:
    """Makes the rows of a recipe that are not there yet.

    Args:
        recipe: The recipe.
        force: Make all rows again; what the cache holds is not asked again.
        watcher: Told what happens.

    Raises:
        RecipeError: The recipe cannot be run; before anything is asked.
        EngineDead: The engine cannot start.
        BlockingIOError: Another run is writing this folder.
    """
    way, engine = load_recipe(recipe.recipe), _engine(recipe.engine, "engine")
    judge = None if recipe.judge is None else _engine(recipe.judge, "judge")
    guards = Guards(recipe.guards)
    watcher = watcher or Watcher()
    with files.lock(recipe.output):
        inputs = synth_prompts.list_prompts(recipe)
        key = run_key(recipe, way, synth_prompts.prompts_key(recipe, inputs))
        manifest = read_manifest(recipe.output)
        if manifest is not None and manifest.key == key and not force:
            _sweep(recipe.output)
            watcher.fresh(manifest)
            return Outcome(manifest)
        prompts = synth_prompts.lay_prompts(recipe, inputs, force=force)
        watcher.prompts(prompts)
        return asyncio.run(_Run(recipe, way, engine, judge, guards, prompts, key, force, watcher).run())


def run_key(recipe: SynthRecipe, way: Recipe, prompts_key: str) -> str:
    """Fingerprint of all that the rows depend on, as far as it is known before the engine has started.

    What a run may cost, where its server is and how many rows it looks ahead are no part of a row.
    """
    return fingerprint(
        {
            "version": VERSION,
            "prompts": prompts_key,
            "recipe": [way.version, way.model_dump(mode="json")],
            "engines": [_engine_key(config) for config in (recipe.engine, recipe.judge) if config is not None],
            "sampling": recipe.sampling.model_dump(mode="json"),
            "generation": recipe.generation.model_dump(mode="json", exclude={"window_rows"}),
            "guards": [asdict(guard) for guard in resolved_guards(recipe.guards)],
            "license": recipe.license,
            "seed": recipe.seed,
        }
    )


def shards_key(key: str, *engines: EngineInfo | None) -> str:
    """Fingerprint a shard of rows carries: the run's, and the identity of the models that wrote and judged."""
    return fingerprint([key, *([info.model, info.revision, info.template] for info in engines if info is not None)])


@dataclass
class _Run:
    """One call of `run` from the engine's start on."""

    recipe: SynthRecipe
    way: Recipe
    engine: Engine
    judge: Engine | None
    guards: Guards
    prompts: StageManifest
    key: str
    force: bool
    watcher: Watcher

    async def run(self) -> Outcome:
        cache = RequestCache.open(self.recipe.cache_url)
        generation = Generation(self.way, self.engine, cache, self.recipe, judge=self.judge, guards=self.guards)
        self._interrupts = 0
        complete, stopped = False, ""
        with measure.Meter() as meter, self._signals(generation):
            self.watcher.starting(self.recipe.engine)
            try:
                self.info = await generation.start()
                tables = self._begin(generation.judge_info)
                generation.telemetry.total_rows = self.prompts.rows - self.finished
                self.watcher.begin(self.info, self.prompts.rows, self.finished)
                if not self._interrupts:
                    await self._make(generation, tables)
                    complete = True
            except Stopped as end:
                stopped = end.reason
            finally:
                await generation.close()
                await cache.close()
        if not complete:
            return Outcome(interrupted=True) if self._interrupts else Outcome(stopped=stopped)
        manifest = self._finish(tables, meter)
        self.watcher.end(manifest)
        return Outcome(manifest)

    def _begin(self, judge: EngineInfo | None) -> SynthTables:
        """From here on the folder is this run's: what an earlier one with other settings left is removed."""
        output = self.recipe.output
        files.remove(files.join(output, MANIFEST))
        _keep_recipe(self.recipe)
        for table in ("sft", "rejects") if self.force else ():
            discard(files.join(output, table))
        tables = SynthTables(output, self.prompts, shards_key(self.key, self.info, judge))
        self.finished = tables.begin()
        return tables

    async def _make(self, generation: Generation, tables: SynthTables) -> None:
        """Makes all rows, and writes each shard once its rows are there."""
        ticking = asyncio.create_task(self._tick(generation))
        try:
            async with contextlib.aclosing(generation.run(tables.pending())) as rows:
                async for row in rows:
                    shard = tables.add(row.prompt.id, row.sft, row.reject)
                    if shard is not None:
                        await asyncio.to_thread(tables.write, shard)
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])
            await self._write_metrics(generation)

    async def _tick(self, generation: Generation) -> None:
        while True:
            await self._write_metrics(generation)
            await asyncio.sleep(METRICS_SECONDS)

    async def _write_metrics(self, generation: Generation) -> None:
        """Live figures for whoever looks. A run does not end because they cannot be written."""
        self.metrics = {
            "engine": asdict(self.info),
            "judge": None if generation.judge_info is None else asdict(generation.judge_info),
            "prompts": {"rows": self.prompts.rows, "finished-before-rows": self.finished},
            **generation.telemetry.snapshot(),
            "engine_stats": self.engine.stats(),
        }
        data = json.dumps(self.metrics, indent=1, ensure_ascii=False).encode()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(files.write_bytes, files.join(self.recipe.output, METRICS), data)
        self.watcher.tick(self.metrics)

    @contextlib.contextmanager
    def _signals(self, generation: Generation) -> Iterator[None]:
        """An interrupt lets what is in flight finish, so that it is cached; the second one ends at once."""

        def interrupted() -> None:
            self._interrupts += 1
            self.watcher.interrupted(self._interrupts > 1)
            generation.drain()

        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        try:
            for number in numbers:
                loop.add_signal_handler(number, interrupted)
        except (ValueError, RuntimeError):  # not the main thread: signals are somebody else's
            yield
            return
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _finish(self, tables: SynthTables, meter: measure.Meter) -> SynthManifest:
        counters = tables.counters()
        shards = tables.finish()
        counts = {
            "records": self.prompts.counters["records-in"],
            "sft": counters.get("sft-rows", 0),
            "filtered": counters.get("filtered-rows", 0),
            "dead_letters": counters.get("dead_letter-rows", 0),
        }
        if counts["records"] != counts["sft"] + counts["filtered"] + counts["dead_letters"]:
            raise RuntimeError(f"{self.recipe.output}: the counts do not add up: {counts}; run it again with --force")
        manifest = SynthManifest(
            ropewalk=importlib.metadata.version("ropewalk"), key=self.key, prompts=self.prompts.key,
            recipe={"name": self.way.name, "version": self.way.version},
            config=json.loads(self.recipe.model_dump_json(exclude={"output"})), engine=asdict(self.info), counts=counts,
            counters=counters, shards={"prompts": self.prompts.shards, **shards},
            run=meter.run(workers=1, runner="none", jobs={}), metrics=self.metrics,
        )  # fmt: skip
        data = manifest.model_dump_json(indent=1).encode()
        files.write_bytes(files.join(self.recipe.output, MANIFEST), data)
        _sweep(self.recipe.output)
        return manifest


def _engine(config: EngineConfig, field: str) -> Engine:
    try:
        return load_engine(config)
    except ValueError as error:
        raise RecipeError(f"{field}: {error}") from None


def _engine_key(config: EngineConfig) -> dict[str, Any]:
    """What of an engine's settings can change an answer: not where it is reached, nor how busy it is kept."""
    found = config.model_dump(mode="json", exclude={"url", "api_key_env", "max_sequences"})
    if config.model and os.path.exists(config.model):  # files that were replaced are another model
        names = sorted(os.listdir(config.model)) if os.path.isdir(config.model) else [""]
        entries = [os.stat(os.path.join(config.model, name) if name else config.model) for name in names]
        found["files"] = [[entry.st_size, entry.st_mtime_ns] for entry in entries]
    return found


def _keep_recipe(recipe: SynthRecipe) -> None:
    """Leaves the effective recipe beside the rows: `inspect` and `cache` go by it."""
    url = files.join(recipe.output, RECIPE)
    data = recipe.model_dump_json(indent=1).encode()
    if files.read_bytes(url) != data:
        files.write_bytes(url, data)


def _sweep(output: str) -> None:
    """Removes what a finished run no longer needs; a run that was killed just here left it behind."""
    for table in ("sft", "rejects"):
        sweep(files.join(output, table))
