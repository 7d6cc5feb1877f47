"""The walk: stages in order, each run only if its inputs or settings changed, each leaving its manifest last."""

import importlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
from pydantic import BaseModel

from ropewalk.pipelines import measure
from ropewalk.pipelines.jobs import Engine, Job
from ropewalk.schemas import files, tables
from ropewalk.schemas.manifest import Run, Shard, StageManifest, add_counters, fingerprint
from ropewalk.schemas.recipe import STAGES, Recipe, source_name
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, DOCUMENTS, SPAN_COLUMNS, CorpusDir
from ropewalk.transforms.shards import ShardFolder, sweep

Jobs = Generator[Job, None, dict[str, Any]]
"""A stage's jobs, one after the other: code between two of them may read what the first one wrote. Returns facts."""


@dataclass(frozen=True)
class Context:
    """What a stage knows when it runs.

    Attributes:
        corpus: The corpus folder, its row space laid.
        recipe: The whole recipe.
        config: This stage's own settings.
        rows: Documents in the corpus.
        threads: Threads a worker's kernels may use.
        key: Fingerprint of everything the stage's result depends on.
        folder: URL of what the stage writes.
        manifests: Finished earlier stages, by name.
        stages: Stages that the recipe runs and this stage may read.
    """

    corpus: CorpusDir
    recipe: Recipe
    config: Any
    rows: int
    threads: int
    key: str
    folder: str
    manifests: dict[str, StageManifest]
    stages: tuple[str, ...]

    @property
    def num_shards(self) -> int:
        """Shards of the row space."""
        return len(self.corpus.file_names)

    @property
    def alive(self) -> list[str]:
        """Stages whose verdicts put documents out for this one."""
        return [stage for stage in self.stages if stage in ALIVE_COLUMNS]

    @property
    def cut(self) -> list[str]:
        """Stages whose spans are cut out of the text that this one reads."""
        return [stage for stage in self.stages if stage in SPAN_COLUMNS]

    @property
    def vector_bytes(self) -> int:
        """What a document's vector takes."""
        embed = self.manifests.get("embed")
        return 2 * int(embed.facts.get("dimensions", tables.VECTOR_DIMENSIONS) if embed else tables.VECTOR_DIMENSIONS)

    def columns(self, stage: str, schema: pa.Schema | None = None) -> ShardFolder:
        """The folder of this stage's row-aligned columns; by default they are those of `tables.COLUMNS`."""
        return ShardFolder(self.folder, schema or tables.COLUMNS[stage], self.num_shards, self.key)

    def work(self, name: str, schema: pa.Schema, num_shards: int) -> ShardFolder:
        """A folder for intermediate results; removed when the stage has finished."""
        return ShardFolder(files.join(self.folder, "_work", name), schema, num_shards, fingerprint([self.key, name]))


class StageModule(Protocol):
    """A module of `pipelines.stages`."""

    VERSION: int
    """Raised when the stage's result changes for the same input and settings."""
    READS: Sequence[str]
    """Earlier stages whose columns it reads; those that are switched off are skipped."""

    def jobs(self, context: Context) -> Jobs:
        """The stage's jobs; the last one writes the stage's own folder. Returns facts for the manifest."""


@dataclass(frozen=True)
class Step:
    """One stage to run: `pack` makes one for each layout.

    Attributes:
        name: What users call it (`dedup`, `pack in_context-8192`).
        stage: The stage.
        folder: Where it writes, below the corpus.
        config: Its settings.
    """

    name: str
    stage: str
    folder: str
    config: BaseModel

    @property
    def module(self) -> StageModule:
        """The stage's module."""
        module: StageModule = importlib.import_module(f"ropewalk.pipelines.stages.{self.stage}")
        return module


def steps(recipe: Recipe) -> list[Step]:
    """The steps of a recipe after ingest and before the report, in order."""
    found = []
    for stage in STAGES:
        if stage in ("ingest", "report") or not recipe.enabled(stage):
            continue
        if stage == "pack":
            for pack in recipe.pack or ():
                found.append(Step(f"pack {pack.name}", stage, f"sequences/{pack.name}", pack))
        else:
            found.append(Step(stage, stage, f"columns/{stage}", getattr(recipe, stage)))
    return found


def stage_key(step: Step, recipe: Recipe, reads: dict[str, str]) -> str:
    """Fingerprint of all that the step's result depends on.

    A stage module may have a function `extra_key(config) -> dict` for what its settings only point at, such as the
    content of a tokenizer file, and `NOT_IN_KEY`, names of settings that never change a result.
    """
    extra_key = getattr(step.module, "extra_key", None)
    return fingerprint(
        {
            "stage": step.stage,
            "version": step.module.VERSION,
            "config": step.config.model_dump(mode="json", exclude=set(getattr(step.module, "NOT_IN_KEY", ()))),
            "extra": extra_key(step.config) if extra_key else None,
            "seed": recipe.seed,
            "priorities": {source_name(i): i.priority for i in recipe.input} if step.stage == "dedup" else None,
            "reads": reads,
        }
    )


def reads_of(step: Step, keys: dict[str, str]) -> dict[str, str]:
    """Keys of what the step reads: the documents' content and the earlier stages it names."""
    return {name: keys[name] for name in (DOCUMENTS, *step.module.READS) if name in keys}


Watch = Callable[[Job], None]
"""Called before each job: how the progress display learns what to look at."""


def run_step(
    step: Step, recipe: Recipe, corpus: CorpusDir, engine: Engine, manifests: dict[str, StageManifest], *,
    key: str, reads: dict[str, str], watch: Watch,
) -> StageManifest:  # fmt: skip
    """Runs one step and writes its manifest, last."""
    laid = corpus.manifest()
    assert laid is not None
    folder = files.join(corpus.url, step.folder)
    files.remove(files.join(folder, "stage.json"))
    stages = tuple(stage for stage in step.module.READS if recipe.enabled(stage))
    context = Context(corpus, recipe, step.config, laid.rows, engine.threads, key, folder, manifests, stages)
    return run_jobs(step.module.jobs(context), engine, watch=watch, finish=lambda target, facts, run: StageManifest(
        stage=step.stage, key=key, config=step.config.model_dump(mode="json"), reads=reads,
        rows=sum(shard.rows for shard in target), counters=add_counters([s.counters for s in target]),
        facts=facts, shards=target, run=run,
    ))  # fmt: skip


def run_jobs(
    jobs: Jobs, engine: Engine, *, watch: Watch, finish: Callable[[list[Shard], dict[str, Any], Run], StageManifest]
) -> StageManifest:
    """Runs a stage's jobs in turn; the target of the last that is not `beside` becomes the stage's folder."""
    seconds: dict[str, float] = {}
    last: Job | None = None
    with measure.Meter() as meter:
        while True:
            try:
                job = next(jobs)
            except StopIteration as stop:
                facts = stop.value or {}
                break
            watch(job)
            seconds[job.label] = round(engine.run(job), 3)
            last = last if job.beside else job
        assert last is not None
        shards = last.target.finish()
    run = meter.run(workers=engine.workers, runner=engine.runner.rsplit(".", 1)[-1], jobs=seconds)
    manifest = finish(shards, facts, run)
    files.write_bytes(files.join(last.target.url, "stage.json"), manifest.model_dump_json(indent=1).encode())
    sweep(last.target.url)
    return manifest
