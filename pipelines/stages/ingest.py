"""Stage `ingest`: lays the row space. A split of the inputs becomes one shard of documents and one of dead letters."""

import collections
import importlib.metadata
from collections.abc import Generator, Sequence
from typing import Any

import apache_beam as beam

from ropewalk.pipelines.jobs import Engine, Job
from ropewalk.pipelines.walk import Watch, run_jobs
from ropewalk.schemas import files, tables
from ropewalk.schemas.manifest import CorpusManifest, Run, Shard, StageManifest, add_counters, fingerprint
from ropewalk.schemas.recipe import Recipe
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.ingest.read import WriteSplits, number_splits
from ropewalk.transforms.ingest.splits import Plan
from ropewalk.transforms.ingest.splits import plan_splits as plan_splits
from ropewalk.transforms.shards import ShardFolder, discard, sweep

VERSION = 1
REJECTS = "rejects/ingest"


def ingest_key(recipe: Recipe, plan: Plan) -> str:
    """Fingerprint of all that the documents depend on: code, settings and the listing of the inputs."""
    inputs = [entry.model_dump(mode="json", exclude={"priority"}) for entry in recipe.input]
    return fingerprint(
        {
            "version": VERSION,
            "config": recipe.ingest.model_dump(mode="json"),
            "input": sorted(inputs, key=fingerprint),
            "listing": fingerprint(sorted(plan.listing)),
        }
    )


def ingest(
    recipe: Recipe, engine: Engine, *, watch: Watch = lambda job: None, force: bool = False, plan: Plan | None = None
) -> CorpusManifest:
    """Reads the inputs of a recipe into its corpus folder; does nothing if that was done before.

    Args:
        recipe: What to read, and where to write.
        engine: How to run.
        watch: Called before the job, for the progress display.
        force: Read again even if nothing has changed.
        plan: The listing of the inputs, if it is known.

    Returns:
        The manifest of the row space.

    Raises:
        InputError: If an input does not exist, matches nothing, or holds nothing readable; before anything runs.
    """
    plan = plan or plan_splits(recipe)
    key = ingest_key(recipe, plan)
    corpus = CorpusDir(recipe.output)
    manifest_url = files.join(corpus.url, "corpus.json")
    documents = ShardFolder(corpus.folder(DOCUMENTS), tables.DOCUMENTS, len(plan.splits), key)
    rejects = ShardFolder(files.join(corpus.url, REJECTS), tables.REJECTS, len(plan.splits), key)
    laid = corpus.manifest()
    if laid is not None and laid.ingest.key == key and not force:
        sweep(documents.url)
        sweep(rejects.url)
        return laid
    files.remove(manifest_url)
    if force:
        discard(documents.url)
        files.remove(rejects.url)

    def finish(shards: list[Shard], facts: dict[str, Any], run: Run) -> StageManifest:
        return StageManifest(
            stage="ingest", key=key, config=recipe.ingest.model_dump(mode="json"), reads={},
            rows=sum(shard.rows for shard in shards), counters=add_counters([shard.counters for shard in shards]),
            facts=facts, shards=shards, run=run,
        )  # fmt: skip

    # A run that was killed between the two manifests has all its shards.
    stage = corpus.stage_manifest(DOCUMENTS)
    if stage is None or stage.key != key:
        files.remove(files.join(documents.url, "stage.json"))
        stage = run_jobs(_jobs(recipe, plan, engine, documents, rejects), engine, watch=watch, finish=finish)
    manifest = CorpusManifest(
        ropewalk=importlib.metadata.version("ropewalk"),
        rows=stage.rows,
        bytes=sum(shard.bytes for shard in stage.shards),
        content=fingerprint([shard.hash for shard in stage.shards]),
        sources=_sources(stage.counters),
        ingest=stage,
    )
    files.write_bytes(manifest_url, manifest.model_dump_json(indent=1).encode())
    sweep(rejects.url)
    return manifest


def _jobs(
    recipe: Recipe, plan: Plan, engine: Engine, documents: ShardFolder, rejects: ShardFolder
) -> Generator[Job, None, dict[str, Any]]:
    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        write = WriteSplits(recipe.ingest, documents, rejects, threads=engine.threads)
        return pipeline | beam.Create(number_splits(plan.splits, shards)) | write

    rejects.clear_unfinished()
    yield Job("read the inputs", documents, build)
    rejects.finish()
    by_format = collections.Counter(piece.file.format for split in plan.splits for piece in split.pieces)
    return {
        "files": plan.files,
        "bytes": plan.bytes,
        "skipped": plan.skipped,
        "formats": dict(sorted(by_format.items())),
    }


def _sources(counters: dict[str, int]) -> dict[str, int]:
    return {
        name.removeprefix("source:").removesuffix("-docs"): count
        for name, count in counters.items()
        if name.startswith("source:")
    }
