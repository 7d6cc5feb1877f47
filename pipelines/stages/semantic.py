"""Stage `semantic`: documents of one cluster that say the same in other words, reduced to those that differ.

compare     documents by cluster -> those that go, and the one each repeats      one vector a document
verdicts    those that go, by shard -> the columns, row for row                  64 bytes a removed document
"""

import math
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from ropewalk.pipelines.jobs import LOCAL_COPIES, Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms.folders import KeyPending
from ropewalk.transforms.map_shards import ReadShards, WriteGroups
from ropewalk.transforms.semantic import FOUND, KEYED, ReadFound, SemanticDuplicates, SemanticVerdicts
from ropewalk.transforms.shards import ShardFolder

VERSION = 1
READS: Sequence[str] = ("filter", "dedup", "passages", "decontaminate", "embed", "cluster")

ROW_BYTES = 68
"""Bytes a document takes in the shuffle beside its vector: id, address, cluster, distance, and Arrow's share."""
GROUP_BYTES = 32 << 20
FOUND_BYTES = 100
"""Bytes a removed document takes in its shuffle, the parts it is joined from included."""


def jobs(context: Context) -> Jobs:
    """Compares inside the clusters, then verdicts."""
    corpus, config, alive = context.corpus, context.config, context.alive
    clusters = max(1, int(context.manifests["cluster"].facts["clusters"]))
    width = context.vector_bytes + ROW_BYTES
    partitions = max(1, min(math.ceil(context.rows * width / GROUP_BYTES), clusters))
    function = SemanticDuplicates(config.epsilon, config.rule, config.prefer, partitions)
    found = context.work("found", FOUND, partitions)
    columns = {"documents": ["id"], "embed": ["vector"], "cluster": ["cluster", "distance"]}

    def compare(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | ReadShards(corpus, columns, alive)
            | beam.ParDo(KeyPending(function.keyed, shards))
            | WriteGroups(function, found, shards, KEYED)
        )

    yield Job("compare in clusters", found, compare, math.ceil(context.rows / partitions) * width * LOCAL_COPIES)

    counters = add_counters([shard.counters for shard in found.done().values()])
    target = context.columns("semantic")
    judge = SemanticVerdicts(corpus, alive)

    def write(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | ReadFound(found, shards) | WriteGroups(judge, target, shards, FOUND)

    share = math.ceil(counters.get("semantic_duplicate-docs", 0) / context.num_shards)
    yield Job("write verdicts", target, write, share * FOUND_BYTES)
    return _facts(counters, target)


def _facts(compared: dict[str, int], target: ShardFolder) -> dict[str, Any]:
    counters = add_counters([shard.counters for shard in target.done().values()])
    before = compared["compared-docs"], compared["semantic_duplicate-docs"]
    after = counters["docs-in"] - counters["put_out-docs"], counters["semantic_duplicate-docs"]
    if before != after:
        raise RuntimeError(f"documents and duplicates: {before} were compared, but {after} have verdicts")
    sizes = {name.removeprefix("size_").rsplit("-", 1)[0] for name in compared if name.startswith("size_")}
    return {
        "documents": before[0],
        "removed": before[1],
        "cluster_sizes": {
            size: {unit: compared[f"size_{size}-{unit}"] for unit in ("clusters", "docs", "removed")}
            for size in sorted(sizes, key=lambda size: int(size.split("-")[0]))
        },
        "sources": {
            name.removeprefix("source:").removesuffix("-docs"): {
                "docs": count,
                "removed": counters.get(name.removesuffix("-docs") + "-removed", 0),
            }
            for name, count in counters.items()
            if name.startswith("source:") and name.endswith("-docs")
        },
    }
