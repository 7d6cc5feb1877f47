"""Types choose coders: every PCollection of every stage has a concrete type and an exact coder.

An untyped PCollection falls back to pickle, which drags a slice's whole parent batch along (apache/arrow#26685), and
whose bytes are unfit for keys. So the whole walk runs once on a small corpus, and each pipeline is looked at before
it runs.
"""

import dataclasses
import json
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.coders import coders, typecoders
from apache_beam.pipeline import PipelineVisitor

from ropewalk.pipelines import corpus, jobs, stages
from ropewalk.pipelines.generate import Generate
from ropewalk.schemas import testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.schemas.synthesis import PROMPTS
from ropewalk.transforms import batches

BEAMS_OWN = "/ReshufflePerKey/"
"""Inside Reshuffle, Beam carries a timestamp that may be none with its own fallback coder; no data of ours."""
FALLBACKS = (coders.FastPrimitivesCoder, coders.PickleCoder, coders.DillCoder)


def parts(coder: coders.Coder) -> Iterator[coders.Coder]:
    """A coder and all coders inside it."""
    yield coder
    for inner in coder._get_component_coders():
        yield from parts(inner)


class Untyped(PipelineVisitor):
    """Collects the labels of outputs whose type is unknown or whose coder is a fallback."""

    def __init__(self) -> None:
        self.looked_at = 0
        self.found: list[str] = []

    def visit_transform(self, node: Any) -> None:
        """One leaf of the pipeline."""
        for output in node.outputs.values():
            self.looked_at += 1
            kind = output.element_type
            coder = typecoders.registry.get_coder(kind)
            fallback = any(isinstance(part, FALLBACKS) for part in parts(coder)) and BEAMS_OWN not in node.full_label
            if kind in (Any, None, beam.typehints.Any) or fallback:
                self.found.append(f"{node.full_label}: {kind} has {coder}")


def stage_of(url: str, root: str) -> str:
    """Stage that writes a folder of the corpus, its intermediate ones included."""
    first, *rest = url.removeprefix(root).strip("/").split("/")
    return rest[0] if first == "columns" else {"documents": "ingest", "rejects": "ingest", "sequences": "pack"}[first]


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Untyped]]:
    """What was found in the pipelines of each stage, over a walk with every stage, layout and kind of job."""
    root = tmp_path_factory.mktemp("types")
    batch = testing.documents(120, copies=0.3, words=(20, 120))
    with open(root / "mock.jsonl", "w") as sink:
        for row in batch.select(["id", "text"]).to_pylist():
            sink.write(json.dumps(row) + "\n")
        sink.write("not JSON\n")
    (root / "benchmark.jsonl").write_text(json.dumps({"question": batch.column("text")[0].as_py()}) + "\n")
    recipe = parse_recipe(
        {
            "output": str(root / "corpus"),
            "input": str(root / "mock.jsonl"),
            "ingest": {"shard_bytes": 20_000},
            "passages": {"paragraphs": 40, "lines": 40, "substrings": 100},
            "decontaminate": {"benchmarks": str(root / "benchmark.jsonl")},
            "tokenize": {"tokenizer": "bytes"},
            "semantic": {},
            "neighbours": {},
            "cluster": {"size": 30, "max_size": 40},
            "pack": [{"layout": layout, "length": 512} for layout in ("in_context", "concat", "random")],
            "report": False,
        }
    )
    found: dict[str, list[Untyped]] = {}
    run = jobs.Engine.run

    def run_after_a_look(self: jobs.Engine, job: jobs.Job) -> float:
        def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
            built = job.build(pipeline, shards)
            visitor = Untyped()
            pipeline.visit(visitor)
            found.setdefault(stage_of(job.target.url, recipe.output), []).append(visitor)
            return built

        return run(self, dataclasses.replace(job, build=build))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.Engine, "run", run_after_a_look)
        corpus.run(recipe)
    return found


STAGES = [module.name for module in pkgutil.iter_modules(stages.__path__)]


@pytest.mark.parametrize("stage", STAGES)
def test_every_pcollection_is_typed(looked_at, stage):
    visitors = looked_at[stage]
    assert sum(visitor.looked_at for visitor in visitors) > 0
    assert [label for visitor in visitors for label in visitor.found] == []


def test_no_job_escapes(looked_at):
    assert set(looked_at) == set(STAGES)


def test_generation_is_typed(tmp_path):
    settings = parse_synth_recipe({"output": str(tmp_path), "prompts": "x", "engine": "echo"})
    pipeline = beam.Pipeline(runner=jobs.LOCAL_RUNNER)
    found = pipeline | beam.Create([pa.RecordBatch.from_pylist([], schema=PROMPTS)]) | Generate(settings)
    visitor = Untyped()
    pipeline.visit(visitor)
    assert visitor.looked_at > 2 and visitor.found == []
    assert {found[tag].element_type for tag in ("sft", "rejects")} == {pa.RecordBatch}


def test_untyped_outputs_are_found():
    def typed(number: int) -> pa.RecordBatch:
        return testing.documents(number)

    def generator(number: int):
        yield number, testing.documents(number)

    pipeline = beam.Pipeline(runner=jobs.LOCAL_RUNNER)
    numbers = pipeline | beam.Create([1])
    numbers | "typed" >> beam.Map(typed)
    numbers | "lambda" >> beam.Map(lambda number: testing.documents(number))
    numbers | "generator" >> beam.FlatMap(generator)
    numbers | "inside a pair" >> beam.Map(lambda number: (1, typed(number))).with_output_types(tuple[int, Any])
    visitor = Untyped()
    pipeline.visit(visitor)
    assert isinstance(typecoders.registry.get_coder(pa.RecordBatch), batches.RecordBatchCoder)
    assert [label.split(":")[0] for label in visitor.found] == ["lambda", "generator", "inside a pair"]
