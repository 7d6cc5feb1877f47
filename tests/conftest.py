"""Fixtures shared by all tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines import measure
from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.kernel_cache import drop_stale_kernels
from ropewalk.pipelines.walk import Step, run_step, steps
from ropewalk.schemas import files, tables, testing
from ropewalk.schemas.manifest import CorpusManifest, StageManifest, fingerprint
from ropewalk.schemas.recipe import Recipe
from ropewalk.transforms import shards as shards_module
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.shards import ShardFolder


def pytest_configure() -> None:
    """Tests what the sources say, not what was compiled from earlier ones."""
    drop_stale_kernels()


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CorpusDir]:
    """Lays document batches, one a shard, as a corpus folder: `corpus = lay(batch, batch, name="corpus")`."""
    monkeypatch.setattr(shards_module, "BATCH_ROWS", 100)  # several batches a shard, as real ones have

    def lay(*shards: pa.RecordBatch, name: str = "corpus") -> CorpusDir:
        url = str(tmp_path / name)
        folder = ShardFolder(files.join(url, "documents"), tables.DOCUMENTS, len(shards), "test")
        for number, batch in enumerate(shards):
            with folder.writer(number) as writer:
                for start in range(0, batch.num_rows, 50):
                    writer.write(batch.slice(start, 50))
        done = folder.finish()
        with measure.Meter() as meter:
            pass
        stage = StageManifest(
            stage="ingest", key="test", config={}, reads={}, rows=sum(s.rows for s in done), counters={},
            shards=done, run=meter.run(workers=1, runner="none", jobs={}),
        )  # fmt: skip
        sources: dict[str, int] = {}
        for batch in shards:
            for source in batch.column("source").to_pylist():
                sources[source] = sources.get(source, 0) + 1
        manifest = CorpusManifest(
            ropewalk="test", rows=stage.rows, bytes=sum(s.bytes for s in done),
            content=fingerprint([s.hash for s in done]), sources=sources, ingest=stage,
        )  # fmt: skip
        files.write_bytes(files.join(url, "corpus.json"), manifest.model_dump_json().encode())
        return CorpusDir.open(url)

    return lay


@pytest.fixture
def lay_walk(lay: Callable[..., CorpusDir]) -> Callable[..., CorpusDir]:
    """Lays documents with mock columns of every stage and two layouts: `corpus = lay_walk([batch], [topics])`."""

    def lay_walk(shards: list[pa.RecordBatch], topics: list[np.ndarray], *, length: int = 512) -> CorpusDir:
        corpus = lay(*shards)

        def write(folder: str, schema: pa.Schema, batches: list[pa.RecordBatch], config: dict[str, object]) -> None:
            target = ShardFolder(files.join(corpus.url, folder), schema, len(batches), "test")
            with measure.Meter() as meter:
                for number, batch in enumerate(batches):
                    with target.writer(number) as writer:
                        for start in range(0, batch.num_rows, 70):
                            writer.write(batch.slice(start, 70))
                done = target.finish()
            manifest = StageManifest(
                stage=folder.split("/")[-1], key=f"key of {folder}", config=config, reads={},
                rows=sum(s.rows for s in done), counters={}, shards=done,
                run=meter.run(workers=1, runner="mock", jobs={"mock": 0.5}),
            )  # fmt: skip
            files.write_bytes(files.join(target.url, "stage.json"), manifest.model_dump_json().encode())

        walked = testing.columns(shards, topics)
        for stage, batches in walked.items():
            write(f"columns/{stage}", tables.COLUMNS[stage], batches, {})
        for layout, shuffle in (("in_context", None), ("random", 1)):
            rows = testing.sequences(shards, walked, length=length, shuffle=shuffle)
            halves = [rows.slice(0, rows.num_rows // 2), rows.slice(rows.num_rows // 2)]
            config: dict[str, object] = {"layout": layout, "length": length}
            write(f"sequences/{layout}-{length}", tables.SEQUENCES, halves, config)
        return corpus

    return lay_walk


@pytest.fixture
def run_stage() -> Callable[..., StageManifest]:
    """Runs one stage of a recipe on a corpus whose earlier stages have run: `run_stage(corpus, recipe, "dedup")`."""

    def run(corpus: CorpusDir, recipe: Recipe, name: str, engine: Engine | None = None) -> StageManifest:
        step: Step = next(step for step in steps(recipe) if step.name == name or step.stage == name)
        manifests = {
            earlier.stage: found
            for earlier in steps(recipe)
            if earlier.stage != "pack" and (found := corpus.stage_manifest(earlier.folder))
        }
        return run_step(
            step, recipe, corpus, engine or Engine(), manifests, key=f"test-{name}", reads={}, watch=lambda job: None
        )

    return run
