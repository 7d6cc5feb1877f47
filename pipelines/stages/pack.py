"""Stage `pack`: one layout of training sequences, in a folder and a row space of their own.

plan: lengths of documents by partition of their order -> segments, by sequence.
write sequences: segments by output shard, sequences in a seeded random order -> tokens gathered and written.
"""

import math
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import tables
from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms import pack, sequences
from ropewalk.transforms.folders import KeyPending
from ropewalk.transforms.map_shards import ReadShards, WriteGroups
from ropewalk.transforms.pack import PlanSequences
from ropewalk.transforms.shards import ShardFolder

VERSION = 1
READS: Sequence[str] = (
    "filter", "dedup", "passages", "decontaminate", "tokenize", "embed", "semantic", "order"
)  # fmt: skip

SHARD_TOKENS = 1 << 26
"""Tokens of an output shard, about (256 MiB)."""
SHUFFLE_ROW_BYTES = 80
"""Bytes that a document or a segment holds in a shuffle, the parts it is joined from included."""


def jobs(context: Context) -> Jobs:
    """Plans, then writes."""
    corpus, config = context.corpus, context.config
    partitions = max(1, math.ceil(context.rows / pack.PARTITION_DOCS))
    function = PlanSequences(config.layout, config.length, config.open_bins, context.recipe.seed, partitions)
    plan = context.work("plan", pack.PLAN, partitions)
    columns = {"tokenize": ["num_tokens"]}
    columns |= {"order": ["rank"]} if function.along == "rank" else {"documents": ["id"]}

    def make_plan(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | ReadShards(corpus, columns, context.alive)
            | beam.ParDo(KeyPending(function.keyed, shards))
            | WriteGroups(function, plan, shards, pack.PLACED)
        )

    yield Job("plan", plan, make_plan, min(context.rows, pack.PARTITION_DOCS) * SHUFFLE_ROW_BYTES)

    planned = add_counters([shard.counters for shard in plan.done().values()])
    num_shards = max(1, math.ceil(planned["tokens-in"] / SHARD_TOKENS))
    target = ShardFolder(context.folder, tables.SEQUENCES, num_shards, context.key)
    embedded = context.recipe.enabled("embed")

    def write(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(partitions))
            | beam.ParDo(sequences.SendPlan(plan, num_shards, shards))
            | sequences.WriteSequences(corpus, target, shards, config.loss, embedded)
        )

    yield Job("write sequences", target, write, math.ceil(planned["segments"] / num_shards) * SHUFFLE_ROW_BYTES)

    return _facts(planned, target, config.length)


def _facts(planned: dict[str, int], target: ShardFolder, length: int) -> dict[str, Any]:
    written = {"tokens-out": 0, "segments": 0, "sequences": 0, "compared-sequences": 0, "similarity-millionths": 0}
    written |= add_counters([shard.counters for shard in target.done().values()])
    for before, after in (("tokens-in", "tokens-out"), ("segments", "segments"), ("sequences", "sequences")):
        if planned[before] != written[after]:
            raise RuntimeError(f"{planned[before]} {before} were planned, but {written[after]} {after} were written")
    count, compared = written["sequences"], written["compared-sequences"]
    return {
        "documents": planned["docs-in"],
        "empty_documents": planned["empty-docs"],
        "cut_documents": planned["cut-docs"],
        "tokens_in": planned["tokens-in"],
        "tokens_out": written["tokens-out"],
        "sequences": count,
        "fill": written["tokens-out"] / (count * length) if count else None,
        "segments_per_sequence": written["segments"] / count if count else None,
        "mean_similarity": written["similarity-millionths"] / sequences.MILLIONTHS / compared if compared else None,
    }
