"""Clusters, neighbours and order at 10 thousand, 100 thousand and 1 million documents of 256 dimensions.

    .venv/bin/python benchmarks/similarity_scale.py --sizes 10000 100000 1000000        # some 15 minutes on 2 cores

The vectors are made, not embedded: topics inside themes, topic sizes by a power law (the n-th largest has a share of
1/n), a spread of every topic along some directions of its own and a little in all, one document in fifty a copy of the
vector before it; on the grid. They are laid as a corpus whose stage `embed` has run, and the real stages `cluster`,
`neighbours` and `order` walk it as `ropewalk run` does, in this process. Seconds, CPU seconds and peak memory are those
of each `stage.json`.

Floors: `gemm_gflops` is what the machine's own float32 matrix product does here and now with blocks like those of the
stages (2048 x 256 x 1024), on all cores; `gemm_seconds` is what a stage's multiplications take at that rate. `bytes`
are the vectors read and shuffled once each, `bytes_seconds` at the rate of a copy in memory. `ratio` is the stage's
wall time over the larger of both floors; `cpu_ratio` its CPU seconds over those of its multiplications, which holds on
a machine that others share as well. `load` is the load average before and after.
"""

import argparse
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from machine import machine

from ropewalk.kernels import kmeans
from ropewalk.kernels.grid import normalise
from ropewalk.pipelines import corpus as walking
from ropewalk.pipelines import measure
from ropewalk.schemas import files, tables
from ropewalk.schemas.manifest import CorpusManifest, StageManifest, fingerprint
from ropewalk.schemas.recipe import Recipe, parse_recipe
from ropewalk.transforms import train_cells, vectors
from ropewalk.transforms.centroids import Centroids
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.shards import ShardFolder, sweep

HERE = Path(__file__).resolve().parent
STAGES = ("cluster", "neighbours", "order")
DIMENSIONS = 256
SHARD_ROWS = 25_000
BLOCK_ROWS = 5_000
TOPIC_ROWS = 400  # documents of a topic, in the mean
DIRECTIONS = 12  # along which a topic spreads


class Topics:
    """The law the vectors are drawn from."""

    def __init__(self, documents: int) -> None:
        self.count = max(20, documents // TOPIC_ROWS)
        random = np.random.default_rng([documents, 1])
        themes = random.normal(size=(max(4, math.isqrt(self.count)), DIMENSIONS))
        self.centres = 0.8 * themes[random.integers(0, len(themes), self.count)]
        self.centres += random.normal(size=(self.count, DIMENSIONS))
        self.spread = random.normal(size=(64, DIRECTIONS, DIMENSIONS))
        share = 1 / np.arange(1, self.count + 1)
        self.share = share / share.sum()

    def draw(self, block: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Topics int64[rows] and vectors float16[rows, d] of a block of documents."""
        random = np.random.default_rng([block, 2])
        topic = random.choice(self.count, rows, p=self.share)
        made = self.centres[topic] + 0.45 * random.normal(size=(rows, DIMENSIONS))
        own = 0.45 * random.normal(size=(rows, DIRECTIONS))
        for way in range(len(self.spread)):
            here = topic % len(self.spread) == way
            made[here] += own[here] @ self.spread[way]
        copies = np.flatnonzero(np.arange(rows) % 50 == 49)
        made[copies] = made[copies - 1]
        return topic, normalise(made)


def lay(url: str, documents: int) -> CorpusDir:
    """Writes documents and vectors as stages `ingest` and `embed` would leave them."""
    topics = Topics(documents)
    shards = -(-documents // SHARD_ROWS)
    schema = tables.embed_table(DIMENSIONS)
    texts = ShardFolder(files.join(url, "documents"), tables.DOCUMENTS, shards, "bench")
    columns = ShardFolder(files.join(url, "columns", "embed"), schema, shards, "bench")
    with measure.Meter() as meter:
        for shard in range(shards):
            with texts.writer(shard) as text_writer, columns.writer(shard) as vector_writer:
                for start in range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, documents), BLOCK_ROWS):
                    rows = min(BLOCK_ROWS, documents - start)
                    topic, made = topics.draw(start // BLOCK_ROWS, rows)
                    text_writer.write(batch_of(start, topic))
                    column = vectors.from_matrix(made, np.ones(rows, bool))
                    vector_writer.write(pa.RecordBatch.from_arrays([column], schema=schema))
                vector_writer.count("embedded-docs", vector_writer.rows)
        done, embedded = texts.finish(), columns.finish()
    run = meter.run(workers=1, runner="bench", jobs={})
    content = fingerprint([shard.hash for shard in done])
    ingest = StageManifest(
        stage="ingest", key="bench", config={}, reads={}, rows=documents, counters={}, shards=done, run=run
    )
    laid = CorpusManifest(
        ropewalk="bench", rows=documents, bytes=sum(shard.bytes for shard in done), content=content,
        sources={"bench": documents}, ingest=ingest,
    )  # fmt: skip
    files.write_bytes(files.join(url, "corpus.json"), laid.model_dump_json().encode())
    corpus = CorpusDir.open(url)
    state = next(state for state in walking.states(recipe(url), corpus, content) if state.step.name == "embed")
    manifest = StageManifest(
        stage="embed", key=state.key, config={}, reads=state.reads, rows=documents,
        counters={"embedded-docs": documents}, facts={"dimensions": DIMENSIONS}, shards=embedded, run=run,
    )  # fmt: skip
    files.write_bytes(files.join(columns.url, "stage.json"), manifest.model_dump_json().encode())
    for folder in (texts.url, columns.url):
        sweep(folder)
    return corpus


def batch_of(start: int, topic: np.ndarray) -> pa.RecordBatch:
    """Short documents that name their topic; ids are hashes, in no order."""
    rows = len(topic)
    high = np.random.default_rng([start, 3]).integers(0, 2**63, (rows, 2))
    texts = [f"hemp rope about {'abcdefghij'[t % 10]}{'klmnopqrst'[t // 10 % 10]}topic" for t in topic.tolist()]
    lengths = [len(text) for text in texts]
    fields: dict[str, Any] = {
        "id": [f"{a:016x}{b:016x}" for a, b in high.tolist()], "text": texts, "source": ["bench"] * rows,
        "url": [None] * rows, "num_chars": lengths, "num_bytes": lengths, "metadata": [None] * rows,
    }  # fmt: skip
    return pa.RecordBatch.from_pydict(fields, schema=tables.DOCUMENTS)


def recipe(url: str, changes: dict[str, Any] | None = None) -> Recipe:
    """The walk: only what this is about."""
    off = dict.fromkeys(("filter", "dedup", "tokenize", "pack"), False)
    return parse_recipe({"output": url, "input": "none", "report": False, "neighbours": {}} | off | (changes or {}))


def gemm_gflops() -> tuple[float, float]:
    """Rate of the matrix product on all cores, by the clock and by CPU seconds: the best of some, a quiet moment's."""
    random = np.random.default_rng(0)
    a = random.normal(size=(2048, DIMENSIONS)).astype(np.float32)
    b = random.normal(size=(1024, DIMENSIONS)).astype(np.float32)
    work = 2 * a.shape[0] * b.shape[0] * DIMENSIONS / 1e9
    rates = []
    for _ in range(100):
        start, cpu = time.perf_counter(), time.process_time()
        _ = a @ b.T
        rates.append((work / (time.perf_counter() - start), work / (time.process_time() - cpu)))
    return max(wall for wall, _ in rates), max(cpu for _, cpu in rates)


def copy_gbs() -> float:
    """Gigabytes a second that a copy in memory moves (read and written)."""
    block = np.ones(64 << 20, np.uint8)
    rates = []
    for _ in range(8):
        start = time.perf_counter()
        block.copy()
        rates.append(2 * block.nbytes / (time.perf_counter() - start) / 1e9)
    return float(np.median(rates))


def multiplications(stage: str, corpus: CorpusDir, manifest: StageManifest) -> float:
    """Floating point operations of the matrix products that a stage cannot do without."""
    documents, facts = manifest.facts["documents"], manifest.facts
    clusters = corpus.stage_manifest("columns/cluster")
    assert clusters is not None
    k = clusters.facts["clusters"]
    if stage == "cluster":
        return (
            2.0 * DIMENSIONS * k * (documents * facts["rounds"] + facts["sampled_docs"] * manifest.config["iterations"])
        )
    if stage == "neighbours":
        pairs = facts["compared_pairs"] + documents * (k + facts["recall_sample"])
        return 2.0 * DIMENSIONS * float(pairs)
    sizes = pa.ipc.open_stream(files.join(corpus.folder("cluster"), "centroids.arrow")).read_all()["size"].to_numpy()
    return 2.0 * DIMENSIONS * float((sizes.astype(np.float64) ** 2).sum())


def vector_bytes(stage: str, manifest: StageManifest) -> float:
    """Bytes of vectors that a stage reads and shuffles."""
    documents, facts = manifest.facts["documents"], manifest.facts
    passes = {"cluster": facts.get("rounds", 0), "order": 2}.get(stage, 2)
    return 2.0 * DIMENSIONS * (documents * passes + facts.get("questions", 0))


def walk(documents: int, scratch: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Lays a corpus and walks it."""
    url = str(scratch / f"{documents}")
    shutil.rmtree(url, ignore_errors=True)
    start = time.perf_counter()
    corpus = lay(url, documents)
    print(f"{documents:,} documents laid in {time.perf_counter() - start:.0f} s", flush=True)
    before, (rate, cpu_rate), copied = os.getloadavg(), gemm_gflops(), copy_gbs()
    start = time.perf_counter()
    outcome = walking.run(recipe(url, changes), first="cluster", until="order")
    seconds = time.perf_counter() - start
    found: dict[str, Any] = {
        "documents": documents,
        "seconds": round(seconds, 1),
        "load": [round(before[0], 1), round(os.getloadavg()[0], 1)],
        "gemm_gflops": round(rate, 1),
        "gemm_gflops_per_cpu_second": round(cpu_rate, 1),
        "copy_gb_per_second": round(copied, 1),
        "stages": {},
    }
    for stage in STAGES:
        manifest = outcome.stages[stage]
        run = manifest.run
        work, moved = multiplications(stage, corpus, manifest), vector_bytes(stage, manifest)
        floor = max(work / rate / 1e9, moved / copied / 1e9)
        found["stages"][stage] = {
            "seconds": run.seconds,
            "cpu_seconds": run.cpu_seconds,
            "peak_memory_mb": round(run.peak_memory_bytes / 1e6),
            "bytes_read": run.bytes_read,
            "bytes_written": run.bytes_written,
            "jobs": run.jobs,
            "gemm_gflop": round(work / 1e9, 1),
            "gemm_seconds": round(work / rate / 1e9, 2),
            "bytes": round(moved),
            "bytes_seconds": round(moved / copied / 1e9, 2),
            "ratio": round(run.seconds / floor, 1) if floor else None,
            "cpu_ratio": round(run.cpu_seconds / (work / cpu_rate / 1e9), 1),
            "facts": manifest.facts,
        }
        print(
            f"{stage:12}{run.seconds:8.1f} s {run.cpu_seconds:8.1f} CPU s {run.peak_memory_bytes / 1e6:8.0f} MB"
            f"   floor {floor:6.2f} s   {manifest.facts}\n{'':12}{run.jobs}",
            flush=True,
        )
    shutil.rmtree(url)
    return found


def measure_cells(documents: int, size: int) -> dict[str, Any]:
    """Centroids in coarse cells against flat ones: mean cosine with a document's own, and CPU seconds in one thread.

    Both are trained on all of the documents, which is more than the stage takes, and assigned in batches as it does.
    """
    topics = Topics(documents)
    made = np.concatenate([topics.draw(b, BLOCK_ROWS)[1] for b in range(documents // BLOCK_ROWS)]).astype(np.float32)
    wanted, found = documents // size, {}
    for name in ("flat", "cells"):
        start = time.process_time()
        if name == "flat":
            known = Centroids.of(*train_cells.train(made, wanted, iterations=12, seed=0, balanced=False))
        else:
            coarse, _ = train_cells.train(made, math.isqrt(wanted), iterations=12, seed=0, balanced=False)
            cell, _ = kmeans.assign(made, coarse)
            share = np.bincount(cell, minlength=len(coarse)) / documents
            parts = {
                c: train_cells.train(
                    made[cell == c], max(1, round(share[c] * wanted)), iterations=12, seed=c, balanced=False
                )
                for c in range(len(coarse))
            }
            known = train_cells.join_cells(coarse, parts)
        trained = time.process_time()
        dots = [known.nearest(made[i : i + 4096])[1] for i in range(0, documents, 4096)]
        found[name] = {
            "clusters": len(known),
            "coarse_cells": len(known.coarse),
            "mean_cosine": round(float(np.concatenate(dots).mean(dtype=np.float64)), 5),
            "train_cpu_seconds": round(trained - start, 2),
            "assign_cpu_seconds": round(time.process_time() - trained, 2),
        }
    return {"documents": documents, "size": size} | found


def exponents(found: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """log(time ratio) / log(size ratio) between neighbouring sizes; n log n has 1.08 from 10^4 to 10^5 and 1.06 on."""
    grown: dict[str, dict[str, list[float]]] = {}
    for stage in STAGES:
        for unit in ("seconds", "cpu_seconds"):
            grown.setdefault(stage, {})[unit] = [
                round(
                    math.log(b["stages"][stage][unit] / a["stages"][stage][unit])
                    / math.log(b["documents"] / a["documents"]),
                    2,
                )
                for a, b in zip(found, found[1:], strict=False)
            ]
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--cells", type=int, nargs=2, metavar=("N", "SIZE"), help="flat or in cells; nothing else")
    parser.add_argument("--scratch", type=Path, default=Path("build/similarity"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="settings of the stages")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "similarity_scale.json")
    args = parser.parse_args()
    changes: dict[str, Any] = {}
    for name, value in (setting.split("=", 1) for setting in args.set):
        stage, key = name.split(".")
        changes.setdefault(stage, {})[key] = json.loads(value)
    if args.cells:
        print(json.dumps(measure_cells(*args.cells), indent=1))
        return
    found = [walk(documents, args.scratch, changes) for documents in args.sizes]
    result = {
        "machine": machine(measure.versions()),
        "command": f"benchmarks/similarity_scale.py --sizes {' '.join(map(str, args.sizes))}",
        "changes": changes,
        "sizes": found,
        "growth": exponents(found),
    }
    if args.output.name != "-":
        args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
