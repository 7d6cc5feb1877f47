"""The corpus half as one call: `run(recipe)` walks from the inputs to packed sequences and the report.

Running it again is a no-op. A changed setting reruns its stage and those that read it; a killed run goes on where
it was, shard by shard.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ropewalk.pipelines import walk
from ropewalk.pipelines.jobs import Engine, Job
from ropewalk.schemas import files
from ropewalk.schemas.manifest import CorpusManifest, StageManifest, fingerprint
from ropewalk.schemas.recipe import STAGES, Recipe, RecipeError
from ropewalk.transforms import shards
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.earlier_vectors import set_aside

REPORT_VERSION = 2
"""Raised when the report shows the same corpus in another way."""


class Watcher:
    """What happens, told step by step; this one keeps quiet. The command line shows it (`display.Display`)."""

    def inputs(self, size: int) -> None:
        """The inputs were listed: so many bytes to read."""

    def begin(self, name: str, corpus: CorpusManifest | None) -> None:
        """A step starts."""

    def job(self, job: Job) -> None:
        """A job of the step starts."""

    def end(self, name: str, manifest: StageManifest | None) -> None:
        """The step has finished; no manifest for the report."""

    def fresh(self, name: str, manifest: StageManifest | None) -> None:
        """The step's result was there already."""


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        corpus: The row space.
        stages: Manifest of each step, by its name.
        report: URL of the report, if it was written.
    """

    corpus: CorpusManifest
    stages: dict[str, StageManifest] = field(default_factory=dict)
    report: str | None = None

    @property
    def rejected(self) -> int:
        """Records in the dead-letter table."""
        return self.corpus.ingest.counters.get("rejected-records", 0)


@dataclass(frozen=True)
class State:
    """Where a step stands: its key, and whether its result is there already."""

    step: walk.Step
    key: str
    reads: dict[str, str]
    fresh: StageManifest | None


def states(recipe: Recipe, corpus: CorpusDir, content: str) -> list[State]:
    """Where each step of the recipe stands, for a row space of this content."""
    keys = {DOCUMENTS: content}
    found = []
    for step in walk.steps(recipe):
        reads = walk.reads_of(step, keys)
        key = walk.stage_key(step, recipe, reads)
        manifest = corpus.stage_manifest(step.folder)
        found.append(State(step, key, reads, manifest if manifest and manifest.key == key else None))
        if step.stage != "pack":
            keys[step.stage] = key
    return found


def run(
    recipe: Recipe,
    engine: Engine | None = None,
    *,
    first: str = "ingest",
    until: str = "report",
    force: bool = False,
    watcher: Watcher | None = None,
) -> Outcome:
    """Runs the stages of a recipe that are not up to date.

    Args:
        recipe: The recipe.
        engine: How to run; default: this process.
        first: First stage to look at; those before it must have finished.
        until: Last stage to run.
        force: Run the stages from `first` on even if they are up to date.
        watcher: Told what happens.

    Raises:
        RecipeError: If an input is missing or a stage name is unknown.
        BlockingIOError: If another run is writing this corpus.
    """
    begin, end = _index(first), _index(until)
    if end < begin:
        raise RecipeError(f"--until {until} comes before --from {first}: the walk is {' → '.join(STAGES)}")
    with files.lock(recipe.output):
        return _run(recipe, engine or Engine(memory_mb=recipe.memory_mb), begin, end, force, watcher or Watcher())


def _run(recipe: Recipe, engine: Engine, begin: int, end: int, force: bool, watcher: Watcher) -> Outcome:
    from ropewalk.pipelines.stages.ingest import ingest, plan_splits

    first = STAGES[begin]
    corpus = CorpusDir(recipe.output)
    if begin == 0:
        before = corpus.manifest()
        plan = plan_splits(recipe)
        watcher.inputs(plan.bytes)
        watcher.begin("ingest", before)
        laid = ingest(recipe, engine, watch=watcher.job, force=force, plan=plan)
        same = before is not None and before.ingest.run == laid.ingest.run
        (watcher.fresh if same else watcher.end)("ingest", laid.ingest)
    else:
        found = corpus.manifest()
        if found is None:
            raise RecipeError(f"{recipe.output}: --from {first} needs an ingested corpus, and there is none yet")
        laid = found
    if laid.rows == 0:
        raise RecipeError(f"{recipe.output}: no document came through: {_why_empty(laid)}")
    outcome = Outcome(laid)
    corpus = CorpusDir.open(recipe.output)
    _keep_recipe(recipe)
    _drop_stale(corpus, laid, reuse=recipe.embed is not False and recipe.embed.embedder != "lexical")
    manifests: dict[str, StageManifest] = {}
    keys = [laid.ingest.key]
    for state in states(recipe, corpus, laid.content):
        name, place = state.step.name, _index(state.step.stage)
        if place > end:
            break
        manifest = state.fresh
        if place < begin:
            if manifest is None:
                raise RecipeError(f"--from {first}: {name} has no up-to-date result: use --from {state.step.stage}")
        elif manifest is not None and not force:
            shards.sweep(files.join(corpus.url, state.step.folder))
            watcher.fresh(name, manifest)
        else:
            if force:
                shards.discard(files.join(corpus.url, state.step.folder))
            watcher.begin(name, laid)
            manifest = walk.run_step(
                state.step, recipe, corpus, engine, manifests, key=state.key, reads=state.reads, watch=watcher.job
            )
            watcher.end(name, manifest)
        keys.append(state.key)
        outcome.stages[name] = manifest
        if state.step.stage != "pack":
            manifests[state.step.stage] = manifest
    if recipe.report and end == _index("report"):
        outcome.report = _report(
            recipe, watcher, fingerprint([REPORT_VERSION, recipe.model_dump(mode="json"), keys]), force
        )
    return outcome


def _why_empty(laid: CorpusManifest) -> str:
    rejected = laid.ingest.counters.get("rejected-records", 0)
    if rejected:
        return f"all {rejected:,} records were rejected; `ropewalk inspect DIR --rejects` says why"
    return "the inputs hold no record"


def _keep_recipe(recipe: Recipe) -> None:
    """Leaves the effective recipe in the corpus: what its columns were made by, and which of them count.

    Its paths stay as they were given, as the keys and the order of the shards depend on them; the folder from which
    relative ones count goes beside it, so that `retry-rejects` can run it again from anywhere.
    """
    kept = {"recipe.json": recipe.model_dump_json(indent=1).encode(), "recipe.folder": os.fsencode(os.getcwd())}
    for name, data in kept.items():
        url = files.join(recipe.output, name)
        if files.read_bytes(url) != data:
            files.write_bytes(url, data)


def _drop_stale(corpus: CorpusDir, laid: CorpusManifest, *, reuse: bool) -> None:
    """Removes columns and sequences of an earlier row space: joined with these documents they would be wrong.

    Vectors that may be found again by their texts are set aside.
    """
    for group in ("columns", "sequences"):
        for name in files.names(files.join(corpus.url, group)):
            manifest = corpus.stage_manifest(f"{group}/{name}")
            if manifest is None or manifest.reads.get(DOCUMENTS) == laid.content:
                continue
            if reuse and (group, name) == ("columns", "embed"):
                set_aside(files.join(corpus.url, group, name))
            else:
                shards.discard(files.join(corpus.url, group, name))


def _report(recipe: Recipe, watcher: Watcher, key: str, force: bool) -> str:
    from ropewalk.pipelines.report import write_report

    url, key_url = files.join(recipe.output, "report.html"), files.join(recipe.output, "report.key")
    if not force and files.read_bytes(key_url) == key.encode() and "report.html" in files.names(recipe.output):
        watcher.fresh("report", None)
        return url
    watcher.begin("report", None)
    url = write_report(recipe.output, recipe=recipe.model_dump(mode="json"))
    files.write_bytes(key_url, key.encode())
    watcher.end("report", None)
    return url


def _index(stage: str) -> int:
    if stage not in STAGES:
        raise RecipeError(f"unknown stage {stage!r}: the walk is {' → '.join(STAGES)}")
    return STAGES.index(stage)


def walked(recipe: Recipe) -> Sequence[str]:
    """Names of everything a run of the recipe goes through, in order."""
    report = ["report"] if recipe.report else []
    return ["ingest", *(step.name for step in walk.steps(recipe)), *report]
