"""Stage `dedup`: exact and near duplicates, each group reduced to its best document.

    sketch      documents  -> exact hash, MinHash signature, survivor order         no shuffle
    candidates  sketches   -> edges to the best of each LSH bucket                  24 bytes a band and document
    verify      edges      -> those whose exact Jaccard passes                      16 bytes an edge; text by address
    survivors   verified   -> components, and who stays                             16 bytes an edge and member
    verdicts    survivors  -> the columns, row for row                              24 bytes a member

The settings' `seed` chooses the permutations. Every result is sorted inside its group, so nothing depends on workers.
"""

import math
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from ropewalk.kernels.bands import midpoint
from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas.manifest import add_counters
from ropewalk.schemas.recipe import source_name
from ropewalk.transforms import verdicts
from ropewalk.transforms.candidates import EDGES, SLICE_BYTES, SLICES, BandSlices, StarEdges
from ropewalk.transforms.components import LABELS, ConnectedComponents
from ropewalk.transforms.folders import KeyByHash, ReadFolder
from ropewalk.transforms.map_shards import MapShards, ReadShards, WriteGroups
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.similarity import VERIFIED, VerifyEdges
from ropewalk.transforms.sketch import MinHash, sketch_schema
from ropewalk.transforms.survivors import SURVIVORS, PickSurvivors

VERSION = 1
READS: Sequence[str] = ("filter",)

EDGE_BYTES = 16
"""Two addresses."""
GROUP_BYTES = 64 << 20
"""Bytes of slices in one group of a shuffle."""
COPIES = 3
"""How often a slice is in memory at the worst moment: as the runner holds it, decoded, and joined."""


def jobs(context: Context) -> Jobs:
    """Sketch, candidates, verify, survivors, verdicts."""
    corpus, config, alive = context.corpus, context.config, context.alive
    bands = config.bands if config.near else 0
    hasher = MinHash(
        ngram=config.ngram,
        num_perm=bands * config.rows,
        seed=context.recipe.seed,
        priorities={source_name(entry): entry.priority for entry in context.recipe.input},
        threads=context.threads,
    )
    sketches = context.work("sketch", sketch_schema(hasher.num_perm), context.num_shards)
    table = "dedup/_work/sketch"

    def sketch(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["id", "text", "source", "num_bytes"]}
        return pipeline | beam.Create(shards) | MapShards(corpus, read, alive, hasher, sketches)

    yield Job("sketch documents", sketches, sketch)
    counters = _counters(sketches)

    slices = counters.get("sketched-docs", 0) * (bands + 1) * SLICE_BYTES
    edges = context.work("edges", EDGES, _partitions(slices))

    def candidates(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {table: sketches.schema.names}
        return (
            pipeline
            | beam.Create(list(range(context.num_shards)))
            | ReadShards(corpus, read)
            | BandSlices(bands, config.rows, edges.num_shards, shards)
            | WriteGroups(StarEdges(), edges, shards, SLICES)
        )

    yield Job("find candidates", edges, candidates, COPIES * slices // edges.num_shards)
    largest = max(shard.counters["largest_bucket-docs"] for shard in edges.done().values())
    counters |= _counters(edges) | {"largest_bucket-docs": largest}

    # At least as many groups as shards: here the work is reading texts, and each group can be another worker's.
    size = edges.progress()[0] * EDGE_BYTES
    verified = context.work("verified", VERIFIED, max(context.num_shards, _partitions(size)))
    verifier = VerifyEdges(corpus, table, config.ngram, config.threshold, config.near, context.threads)

    def verify(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | ReadFolder(edges)
            | KeyByHash("b", verified.num_shards, shards)
            | WriteGroups(verifier, verified, shards, EDGES)
        )

    yield Job("verify candidates", verified, verify, COPIES * size // verified.num_shards)
    counters |= _counters(verified)

    size = counters["verified-pairs"] * 2 * EDGE_BYTES
    groups = context.work("survivors", SURVIVORS, _partitions(size))

    def pick(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | ReadFolder(verified)
            | ConnectedComponents()
            | KeyByHash("component", groups.num_shards, shards)
            | WriteGroups(PickSurvivors(corpus, table), groups, shards, LABELS)
        )

    yield Job("join copies", groups, pick, COPIES * size // groups.num_shards)

    target = context.columns("dedup")
    judge = verdicts.Verdicts(corpus, table, alive, config.ngram, context.threads)

    def write(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        evidence = pipeline | verdicts.ReadEvidence(groups, verified, shards)
        return evidence | WriteGroups(judge, target, shards, verdicts.EVIDENCE)

    yield Job("write verdicts", target, write, COPIES * size // context.num_shards)
    return {
        "bands": bands,
        "rows": config.rows,
        "midpoint": round(midpoint(bands, config.rows), 4) if bands else None,
        **dict(sorted(counters.items())),
        **_component_facts(groups),
    }


def _partitions(size: int) -> int:
    return max(1, math.ceil(size / GROUP_BYTES))


def _counters(folder: ShardFolder) -> dict[str, int]:
    return add_counters([shard.counters for shard in folder.done().values()])


def _component_facts(groups: ShardFolder) -> dict[str, Any]:
    """Number of groups of copies, and how many there are of sizes "2", "3-4", "5-8" and so on."""
    by_power: dict[int, int] = {}
    count = largest = 0
    for shard in range(groups.num_shards):
        for batch in groups.read(shard):
            first = batch.column("address").to_numpy() == batch.column("survivor").to_numpy()
            sizes = batch.column("component_size").to_numpy()[first].astype(np.int64)
            count, largest = count + len(sizes), max(largest, int(sizes.max(initial=0)))
            powers, times = np.unique(np.ceil(np.log2(sizes)).astype(int), return_counts=True)
            for power, number in zip(powers.tolist(), times.tolist(), strict=True):
                by_power[power] = by_power.get(power, 0) + number
    histogram = {
        f"{(1 << power - 1) + 1}-{1 << power}" if power > 1 else "2": number
        for power, number in sorted(by_power.items())
    }
    return {"components": count, "largest_component-docs": largest, "component_sizes": histogram}
