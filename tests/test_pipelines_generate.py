"""`prompts | Generate(recipe)`: the same rows however prompts are cut, shuffled and spread over processes."""

import json
import random
import threading
from pathlib import Path
from typing import Any

import apache_beam as beam
import datasets
import pyarrow as pa
import pytest

from ropewalk.pipelines import generate, synth
from ropewalk.pipelines.generate import Generate
from ropewalk.pipelines.jobs import Engine
from ropewalk.schemas.synth_recipe import SynthRecipe, parse_synth_recipe
from ropewalk.schemas.synthesis import PROMPTS

COUNT = 50
OPTIONS = {"tokens": 100, "permanent": 0.1, "refusal": 0.1, "empty": 0.1}


def recipe(output: Path, prompts: Path, **options: Any) -> SynthRecipe:
    return parse_synth_recipe(
        {
            "output": str(output),
            "prompts": str(prompts),
            "recipe": "direct",
            "engine": {"name": "echo", "options": OPTIONS | options},
            "guards": {"no_end": float("inf")},
        }
    )


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """Tasks, their prompts, and the rows `ropewalk synth` makes of them."""
    folder = tmp_path_factory.mktemp("expected")
    path = folder / "tasks.jsonl"
    rows = [{"prompt": f"Write about rope {n}.", "required_words": 40 + 5 * n} for n in range(COUNT)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    synth.run(recipe(folder / "out", path))
    prompts, sft, rejects = (
        datasets.load_from_disk(str(folder / "out" / t)).to_list() for t in ("prompts", "sft", "rejects")
    )
    assert len(sft) + len(rejects) == COUNT and len(rejects) >= 5
    return path, prompts, sorted(json.dumps(row, sort_keys=True) for row in [*sft, *rejects])


def batches(prompts: list[dict[str, Any]], size: int, seed: int) -> list[pa.RecordBatch]:
    shuffled = random.Random(seed).sample(prompts, len(prompts))
    return [pa.RecordBatch.from_pylist(shuffled[i : i + size], schema=PROMPTS) for i in range(0, COUNT, size)]


def written(engine: Engine, settings: SynthRecipe, elements: list[pa.RecordBatch], folder: Path) -> list[str]:
    """Runs the transform; every row of both outputs as JSON, sorted."""
    with engine.pipeline() as pipeline:
        found = pipeline | beam.Create(elements) | beam.Reshuffle() | Generate(settings)
        for name in ("sft", "rejects"):
            lines = found[name] | f"{name} rows" >> beam.FlatMap(pa.RecordBatch.to_pylist)
            lines = lines | f"{name} lines" >> beam.Map(json.dumps, sort_keys=True)
            lines | f"write {name}" >> beam.io.WriteToText(str(folder / name))
    return sorted(line for path in folder.glob("*-of-*") for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("workers", "size", "seed"),
    [(1, COUNT, 0), (1, 7, 1), pytest.param(2, 3, 2, marks=pytest.mark.slow)],
    ids=["one batch", "small batches", "two processes"],
)
def test_rows_do_not_depend_on_batches_order_and_workers(expected, tmp_path, workers, size, seed):
    path, prompts, rows = expected
    settings = recipe(tmp_path / "out", path)
    (tmp_path / "rows").mkdir()
    assert written(Engine(workers=workers), settings, batches(prompts, size, seed), tmp_path / "rows") == rows
    writers = {name.split("-writer-")[0] for name in map(str, (tmp_path / "out" / "cache").glob("*.arrow"))}
    assert 1 <= len(writers) <= workers
    assert generate._workers == {}
    # A bundle that is tried again finds its answers: only what failed for good is asked once more.
    (tmp_path / "again").mkdir()
    logged = recipe(tmp_path / "out", path, log=str(tmp_path / "log"))
    assert written(Engine(), logged, batches(prompts, 11, 3), tmp_path / "again") == rows
    failed = {json.loads(row)["id"] for row in rows if '"bad_request"' in row}
    assert {json.loads(line)[0] for line in (tmp_path / "log").read_text().splitlines()} == failed


def test_a_bundle_goes_on_while_a_batch_waits(expected, tmp_path):
    path, prompts, rows = expected
    settings = recipe(tmp_path / "out", path)
    small = settings.model_copy(update={"generation": settings.generation.model_copy(update={"window_rows": 1})})
    (tmp_path / "rows").mkdir()
    assert written(Engine(), small, batches(prompts, 4, 0), tmp_path / "rows") == rows


def test_the_death_of_the_engine_fails_the_bundle(expected, tmp_path):
    path, prompts, _ = expected
    (tmp_path / "rows").mkdir()
    settings = recipe(tmp_path / "out", path, die_at=20)
    with pytest.raises(Exception, match="generation has ended: engine_dead"):
        written(Engine(), settings, batches(prompts, 10, 0), tmp_path / "rows")


def test_an_engine_that_cannot_start_says_why(expected, tmp_path):
    path, prompts, _ = expected
    settings = recipe(tmp_path / "out", path, token_count=3)
    with pytest.raises(Exception, match="no option 'token_count'"):
        written(Engine(), settings, batches(prompts, 10, 0), tmp_path)


def test_threads_of_a_process_share_one_engine(expected, tmp_path):
    settings = recipe(tmp_path / "out", expected[0]).model_dump_json()
    acquired: list[generate._Worker] = []
    threads = [threading.Thread(target=lambda: acquired.append(generate._acquire(settings))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acquired) == 8 and len({id(worker) for worker in acquired}) == 1
    for worker in acquired:
        generate._release(worker)
    assert generate._workers == {}
    other = generate._acquire(settings)
    assert other is not acquired[0]
    generate._release(other)


def test_workers_for_vllm_ask_for_an_accelerator(tmp_path):
    for engine, expected in (({"name": "echo"}, False), ({"name": "vllm", "model": "m"}, True)):
        settings = parse_synth_recipe({"output": str(tmp_path), "prompts": "x", "engine": engine})
        pipeline = beam.Pipeline()
        pipeline | beam.Create([], reshuffle=False) | Generate(settings, min_ram="2GB")
        hints = [
            hint for env in pipeline.to_runner_api().components.environments.values() for hint in env.resource_hints
        ]
        assert any("accelerator" in hint for hint in hints) is expected
        assert any("min_ram" in hint for hint in hints)
