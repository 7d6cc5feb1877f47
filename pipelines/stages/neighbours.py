"""Stage `neighbours`: the nearest documents of every document, and the graph they make.

cells      vectors -> own cluster and the nearest others of every document            4 bytes a cell
search     documents by cell -> the nearest of each cell                              one vector a document and cell
merge      their lists by shard -> the columns, row for row                           20 bytes a neighbour and cell
edges      links by the shard of the lower end -> each edge once                      20 bytes a link
recall     some documents against all -> how many of the true neighbours were found
"""

import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from ropewalk.pipelines.jobs import LOCAL_COPIES, Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files, tables
from ropewalk.schemas.manifest import add_counters, fingerprint
from ropewalk.transforms import batches, sampling
from ropewalk.transforms.cell_neighbours import (
    CELLS,
    KEYED,
    MILLIONTHS,
    PARTIAL,
    CutByShard,
    FindCells,
    MergeNeighbours,
    ReadQuestions,
    SearchCells,
    name_row,
)
from ropewalk.transforms.corpus_dir import DOCUMENTS
from ropewalk.transforms.folders import KeyPending, ReadFolder
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.map_shards import MapShards, ReadShards, WriteGroups
from ropewalk.transforms.neighbour_edges import UniteEdges, keyed_edges
from ropewalk.transforms.neighbour_recall import (
    SAMPLED,
    BestLists,
    CompareAll,
    SampleQuestions,
    recall,
    write_questions,
)
from ropewalk.transforms.shards import ShardFolder, sweep

VERSION = 1
READS: Sequence[str] = ("filter", "dedup", "passages", "decontaminate", "embed", "cluster", "semantic")

ROW_BYTES = 60
"""Bytes a question takes in the shuffle beside its vector: address, rank, cell, and Arrow's share."""
GROUP_BYTES = 32 << 20
LINK_BYTES = 60
"""Bytes a link takes in its shuffle, the parts it is joined from included."""


def jobs(context: Context) -> Jobs:
    """Neighbours, then what is made of them."""
    corpus, config, alive = context.corpus, context.config, context.alive
    laid = corpus.manifest()
    assert laid is not None
    longest = max((shard.rows for shard in laid.shards), default=0)
    clusters = max(1, int(context.manifests["cluster"].facts["clusters"]))
    cells = context.work("cells", CELLS, context.num_shards)
    find = FindCells(files.join(corpus.folder("cluster"), "centroids.arrow"), config.cells)

    def find_cells(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"cluster": ["cluster"], "embed": ["vector"]}
        return pipeline | beam.Create(shards) | MapShards(corpus, read, alive, find, cells)

    yield Job("find cells", cells, find_cells)

    width = context.vector_bytes + ROW_BYTES
    questions = context.rows * min(config.cells, clusters)
    groups = max(1, min(math.ceil(questions * width / GROUP_BYTES), clusters))
    partial = context.work("partial", PARTIAL, groups)
    function = SearchCells(config.count, config.search)

    def search(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | ReadQuestions(corpus, cells, groups, shards)
            | WriteGroups(function, partial, shards, KEYED)
        )

    yield Job("search cells", partial, search, math.ceil(questions / groups) * width * LOCAL_COPIES)

    target = context.columns("neighbours")
    merge = MergeNeighbours(corpus, alive, config.count)

    def merge_lists(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        names = pipeline | "Names" >> beam.Create([name_row(shard) for shard in shards]).with_output_types(
            tuple[int, pa.RecordBatch]
        )
        lists = pipeline | ReadFolder(partial) | beam.ParDo(CutByShard(shards))
        return (names, lists) | beam.Flatten() | WriteGroups(merge, target, shards, PARTIAL)

    links = longest * config.count * min(config.cells, clusters)
    yield Job("merge lists", target, merge_lists, links * LINK_BYTES)
    searched = add_counters([shard.counters for shard in partial.done().values()])
    facts = _facts(searched, add_counters([shard.counters for shard in target.done().values()]))
    facts["edges"] = yield from _edges(context, longest * config.count * LINK_BYTES)
    facts["recall_sample"], facts["recall_at_k"] = yield from _recall(context, facts["documents"])
    return facts


def _edges(context: Context, shuffle_bytes: int) -> Generator[Job, None, int | None]:
    """Writes the graph; returns how many edges it has, none if it is not wanted."""
    url = files.join(context.folder, "edges")
    if not context.config.edges:
        files.remove(url)
        return None
    edges = ShardFolder(url, tables.EDGES, context.num_shards, fingerprint([context.key, "edges"]))

    def unite(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | ReadShards(context.corpus, {"neighbours": tables.NEIGHBOURS.names})
            | beam.ParDo(KeyPending(keyed_edges, shards))
            | WriteGroups(UniteEdges(), edges, shards, tables.EDGES)
        )

    yield Job("unite edges", edges, unite, shuffle_bytes, beside=True)
    count = sum(shard.rows for shard in edges.finish())
    sweep(url)
    return count


def _recall(context: Context, documents: int) -> Generator[Job, None, tuple[int, float | None]]:
    """Compares some documents with all others; returns how many, and the share of true neighbours that were found."""
    corpus, config, alive = context.corpus, context.config, context.alive
    wanted = min(config.recall_sample, documents)
    if not wanted:
        return 0, None
    limit = sampling.limit(wanted + 4 * int(wanted**0.5) + 16, documents)
    drawn = context.work("questions", SAMPLED, context.num_shards)

    def draw(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {DOCUMENTS: ["id"], "embed": ["vector"]}
        mapped = MapShards(corpus, read, alive, SampleQuestions(limit), drawn, aligned=False)
        return pipeline | beam.Create(shards) | mapped

    yield Job("sample questions", drawn, draw, beside=True)
    url = files.join(context.folder, "_work", "questions.arrow")
    addresses = write_questions(url, _batches(drawn), wanted)
    bytes_ = context.num_shards * len(addresses) * config.count * LINK_BYTES
    groups = max(1, min(math.ceil(bytes_ / GROUP_BYTES), len(addresses)))
    exact = context.work("exact", PARTIAL, groups)

    def compare(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | CompareAll(corpus, alive, url, config.count, groups, shards)
            | WriteGroups(BestLists(len(addresses), config.count), exact, shards, PARTIAL)
        )

    yield Job("compare with all", exact, compare, math.ceil(bytes_ / groups), beside=True)
    found = Gather(corpus, "neighbours", ["neighbour_similarity"]).rows(addresses).column(0)
    hits, total = recall(batches.concat(_batches(exact), PARTIAL), found)
    return len(addresses), round(hits / total, 6) if total else None


def _batches(folder: ShardFolder) -> Iterator[pa.RecordBatch]:
    for shard in range(folder.num_shards):
        yield from folder.read(shard)


def _facts(searched: dict[str, int], merged: dict[str, int]) -> dict[str, Any]:
    documents = merged["docs-in"] - merged["put_out-docs"]
    if searched["member-docs"] != documents or merged["linked-docs"] + merged["alone-docs"] != documents:
        raise RuntimeError(f"{documents} documents are in, but {searched['member-docs']} were searched")
    links = merged["found-links"]
    return {
        "documents": documents,
        "alone": merged["alone-docs"],
        "links": links,
        "questions": searched["question-docs"],
        "questions_by_graph": searched["graph-docs"],
        "compared_pairs": searched["compared-pairs"],
        "mean_similarity": round(merged["similarity-millionths"] / MILLIONTHS / links, 6) if links else None,
    }
