"""Stage `order`: a rank for every document, so that similar documents follow one another.

local orders: documents by cluster -> an order of each cluster, improved by a local search.
ranks: clusters chained along their centroids, each turned to fit -> rank and previous similarity, back at each
    document's row.
"""

import math
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.pipelines.jobs import LOCAL_COPIES, Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files
from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms import ranks
from ropewalk.transforms.cluster import read_centroids
from ropewalk.transforms.folders import KeyPending
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.map_shards import ReadShards, WriteGroups
from ropewalk.transforms.order import KEYED, LOCAL, OrderBySimilarity
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import to_matrix

VERSION = 2
READS: Sequence[str] = ("filter", "dedup", "passages", "decontaminate", "embed", "cluster", "semantic")

ROW_BYTES = 48
"""Bytes a document takes in the shuffle beside its vector: an id, an address, a cluster, and Arrow's share."""
GROUP_BYTES = 32 << 20
RANK_BYTES = 64
"""Bytes a rank takes in its shuffle, the parts it is joined from included."""


def jobs(context: Context) -> Jobs:
    """Orders inside the clusters, then ranks."""
    corpus, config = context.corpus, context.config
    laid = corpus.manifest()
    assert laid is not None
    target = context.columns("order")
    centroids, _ = read_centroids(files.join(corpus.folder("cluster"), "centroids.arrow"))
    width = context.vector_bytes + ROW_BYTES
    partitions = max(1, min(math.ceil(context.rows * width / GROUP_BYTES), len(centroids)))
    function = OrderBySimilarity(**config.model_dump(), partitions=partitions)
    local = context.work("local", LOCAL, partitions)
    columns = {"documents": ["id"], "embed": ["vector"], "cluster": ["cluster"]}
    alive = context.alive

    def order_locally(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | ReadShards(corpus, columns, alive)
            | beam.ParDo(KeyPending(function.keyed, shards))
            | WriteGroups(function, local, shards, KEYED)
        )

    yield Job("local orders", local, order_locally, math.ceil(context.rows / partitions) * width * LOCAL_COPIES)

    counters = add_counters([shard.counters for shard in local.done().values()])
    documents = counters["ordered-docs"]
    orders = (batch for number in range(partitions) for batch in local.read(number))
    spans = ranks.Spans.scan(orders, documents=documents, seed=context.recipe.seed)
    vectors = Gather(corpus, "embed", ["vector"])
    chain = context.work("chain", ranks.CHAIN, 1)
    with chain.writer(0) as writer:
        writer.write(ranks.chain_clusters(spans, centroids, vectors))
    lengths = [shard.rows for shard in laid.shards]

    def rank(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        ranked = (
            pipeline | "Locals" >> beam.Create(range(partitions)) | beam.ParDo(ranks.RankClusters(local, chain, shards))
        )
        rows = pipeline | "Lengths" >> beam.Create(
            [ranks.length_row(shard, lengths[shard]) for shard in shards]
        ).with_output_types(tuple[int, pa.RecordBatch])
        return (ranked, rows) | beam.Flatten() | WriteGroups(ranks.AlignRanks(), target, shards, ranks.RANKED)

    yield Job("ranks", target, rank, max(lengths, default=0) * RANK_BYTES)

    return {"method": config.method} | _facts(
        counters, target, to_matrix(vectors.rows(np.sort(spans.sample)).column(0))
    )


def _facts(local: dict[str, int], target: ShardFolder, sample: np.ndarray) -> dict[str, Any]:
    counters = add_counters([shard.counters for shard in target.done().values()])
    if counters["ordered-docs"] != local["ordered-docs"]:
        raise RuntimeError(
            f"{local['ordered-docs']} documents were ordered, but {counters['ordered-docs']} were ranked"
        )
    compared = counters["compared-docs"]
    random = ranks.mean_pair_similarity(sample)
    return {
        "documents": local["ordered-docs"],
        "clusters": local["clusters"],
        "jumps": local["jumps"],
        "segments_dissolved": local["dissolved-segments"],
        "near_duplicate_pairs": local["near-duplicate-pairs"],
        "window_similarity_before_search": _mean(local["window-before-millionths"], local["ordered-docs"]),
        "window_similarity": _mean(local["window-after-millionths"], local["ordered-docs"]),
        "mean_similarity": _mean(counters["similarity-millionths"], compared),
        "mean_similarity_random": None if random is None else round(random, 6),
    }


def _mean(millionths: int, count: int) -> float | None:
    return millionths / ranks.MILLIONTHS / count if count else None
