"""Skew that real corpora have and tests do not: a hot bucket, a giant chain, a giant star, all synthetic.

    .venv/bin/python benchmarks/dedup_skew.py                  # the sizes of the acceptance test
    .venv/bin/python benchmarks/dedup_skew.py --scale 0.01     # a quick look

- `bucket`: documents whose signatures agree in one of 14 bands, through `BandSlices` and `StarEdges`;
- `chain`: a path through randomly numbered nodes, through both ways of `label_components`;
- `star`: leaves around one node that is neither their smallest nor their largest, through both ways.

Each case runs in a process of its own, on the local runner with the default memory for a pass (1 GiB). Peak memory is
that process' own, sampled ten times a second; a case that takes more than 4 GB fails, as does one with a wrong result.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import apache_beam as beam
import numpy as np
import pyarrow as pa
from machine import machine

from ropewalk.kernels.mix64 import mix64
from ropewalk.pipelines.jobs import Engine, Job
from ropewalk.pipelines.label_components import label_components
from ropewalk.pipelines.measure import Meter, versions
from ropewalk.pipelines.walk import Context
from ropewalk.transforms.candidates import EDGES, SLICE_BYTES, SLICES, BandSlices, StarEdges
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.folders import ReadFolder
from ropewalk.transforms.map_shards import WriteGroups
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.sketch import sketch_schema

HERE = Path(__file__).resolve().parent
MOST_BYTES = 4 * 10**9
BANDS, ROWS = 14, 8
BATCH = 1 << 16
BUDGET_MB = 2048
"""For joining in memory: 16 million edges."""


def write(folder: ShardFolder, batches: Iterator[pa.RecordBatch]) -> None:
    """Spreads batches over the folder's shards."""
    writers = [folder.writer(shard) for shard in range(folder.num_shards)]
    for writer in writers:
        writer.__enter__()
    for number, batch in enumerate(batches):
        writers[number % len(writers)].write(batch)
    for writer in writers:
        writer.__exit__(None, None, None)


def bucket(folder: Path, size: int) -> dict[str, Any]:
    """One hot bucket: time, memory, edges."""
    schema = pa.schema([("address", pa.uint64()), *sketch_schema(BANDS * ROWS)])
    sketches = ShardFolder(str(folder / "sketches"), schema, 8, "skew")

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, size, BATCH):
            address = np.arange(start, min(start + BATCH, size), dtype=np.uint64)
            random = np.random.default_rng([0, start])
            signature = random.integers(0, 2**32, (len(address), BANDS * ROWS), dtype=np.uint32)
            signature[:, :ROWS] = 7  # the first band is the same everywhere
            columns: dict[str, Any] = {
                "address": address,
                "order": mix64(address, 1),
                "exact_high": mix64(address, 2),
                "exact_low": mix64(address, 3),
                "url": pa.nulls(len(address), pa.uint64()),
                "signature": pa.FixedSizeListArray.from_arrays(pa.array(signature.ravel()), BANDS * ROWS),
            }
            yield pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema)

    write(sketches, batches())
    slices = size * (BANDS + 1) * SLICE_BYTES
    groups = max(1, slices >> 26)
    edges = ShardFolder(str(folder / "edges"), EDGES, groups, "skew")

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        slices = pipeline | ReadFolder(sketches) | BandSlices(BANDS, ROWS, groups, shards)
        return slices | WriteGroups(StarEdges(), edges, shards, SLICES)

    with Meter() as meter:
        Engine().run(Job("find candidates", edges, build, 3 * slices // groups))
    counters = [shard.counters for shard in edges.done().values()]
    assert max(c["largest_bucket-docs"] for c in counters) == size
    assert sum(c["candidate-pairs"] for c in counters) == 2 * size - 3
    hot = sum(c["hot-buckets"] for c in counters)
    return cost(meter) | {"banded_keys": size * (BANDS + 1), "edges": 2 * size - 3, "hot_buckets": hot}


def chain(folder: Path, size: int, budget_mb: int) -> dict[str, Any]:
    """One path through all nodes, in a random order."""
    nodes = np.random.default_rng(0).permutation(size).astype(np.uint64)
    return components(folder, nodes[:-1], nodes[1:], budget_mb)


def star(folder: Path, size: int, budget_mb: int) -> dict[str, Any]:
    """Leaves around one node, half of them smaller."""
    leaves = np.delete(np.arange(size + 1, dtype=np.uint64), size // 2)
    return components(folder, leaves, np.full(size, size // 2, np.uint64), budget_mb)


def components(folder: Path, a: np.ndarray, b: np.ndarray, budget_mb: int) -> dict[str, Any]:
    """Labels one component whose smallest node is 0."""
    edges = ShardFolder(str(folder / "edges"), EDGES, 8, "skew")
    parts = ((a[i : i + BATCH], b[i : i + BATCH]) for i in range(0, len(a), BATCH))
    write(edges, (pa.RecordBatch.from_arrays(list(part), schema=EDGES) for part in parts))
    nodes = len(a) + 1
    del a, b
    nothing = cast(Any, None)
    context = Context(CorpusDir("none"), nothing, nothing, 0, 1, "skew", str(folder), {}, ())
    with Meter() as meter:
        labels = run(label_components(context, edges, budget_mb=budget_mb))
    done = labels.done()
    assert sum(shard.rows for shard in done.values()) == nodes
    assert all((batch.column("component").to_numpy() == 0).all() for s in done for batch in labels.read(s))
    rounds = max(shard.counters["star-rounds"] for shard in done.values())
    return cost(meter) | {"nodes": nodes, "rounds": rounds, "labels": [shard.hash for shard in done.values()]}


def run(jobs: Generator[Job, None, ShardFolder]) -> ShardFolder:
    """Runs a generator of jobs; what it returns."""
    engine = Engine()
    while True:
        try:
            job = next(jobs)
        except StopIteration as stop:
            return cast(ShardFolder, stop.value)
        engine.run(job)


def cost(meter: Meter) -> dict[str, Any]:
    """What a case took."""
    return {
        "seconds": round(meter.seconds, 1),
        "cpu_seconds": round(meter.cpu_seconds, 1),
        "peak_memory_mb": round(meter.peak / 1e6),
    }


def in_own_process(case: Callable[..., dict[str, Any]], scratch: str | None, *arguments: object) -> dict[str, Any]:
    """Runs a case where nothing else has taken memory."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=scratch) as folder, concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(case, Path(folder), *arguments).result()


def main() -> None:
    """Runs all cases and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    parser.add_argument("--scratch", help="folder for intermediate files, about 2 GB")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "dedup_skew.json")
    args = parser.parse_args()
    million = round(1_000_000 * args.scale)
    cases: dict[str, tuple[Callable[..., dict[str, Any]], tuple[int, ...]]] = {
        "bucket": (bucket, (million,)),
        "chain in memory": (chain, (10 * million, BUDGET_MB)),
        "chain by rounds": (chain, (10 * million, 0)),
        "star in memory": (star, (million, BUDGET_MB)),
        "star by rounds": (star, (million, 0)),
    }
    results: dict[str, dict[str, Any]] = {}
    for name, (case, arguments) in cases.items():
        results[name] = in_own_process(case, args.scratch, *arguments)
        shown = {key: value for key, value in results[name].items() if key != "labels"}
        print(f"{name:16s} {json.dumps(shown)}", flush=True)
    for shape in ("chain", "star"):
        ways = [results[f"{shape} {way}"].pop("labels") for way in ("in memory", "by rounds")]
        assert ways[0] == ways[1], f"{shape}: the two ways made different labels"
    facts = machine(versions()) | {"command": " ".join(["benchmarks/dedup_skew.py", *sys.argv[1:]])}
    args.output.write_text(
        json.dumps({"machine": facts, "most_memory_mb": MOST_BYTES // 10**6, "cases": results}, indent=1)
    )
    over = [name for name, result in results.items() if result["peak_memory_mb"] * 1e6 > MOST_BYTES]
    if over:
        raise SystemExit(f"more than {MOST_BYTES / 1e9:.0f} GB: {', '.join(over)}")


if __name__ == "__main__":
    main()
