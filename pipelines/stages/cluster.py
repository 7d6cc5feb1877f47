"""Stage `cluster`: the nearest centroid of every document.

sample     vectors of some documents, chosen by their ids -> centroids, trained here
train      of a large corpus these are coarse cells: a sample of each -> its centroids, trained in the workers
assign     every document to its centroid
count      the columns -> documents of each cluster
split      a sample of each cluster that is too large -> several centroids for it; assign and count again
name       words of some documents of each cluster -> those that tell it from the others

Nothing here but centroids and their sizes comes together in one place. The centroids stay beside the columns
(`centroids.arrow`, and `coarse.arrow` if they lie in cells): the stages `neighbours` and `order` read them. So do the
names (`terms.arrow`).
"""

import math
from collections.abc import Generator, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import kmeans
from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files
from ropewalk.schemas.manifest import add_counters, fingerprint
from ropewalk.transforms import centroids as cells
from ropewalk.transforms import cluster as clustering
from ropewalk.transforms import cluster_terms as naming
from ropewalk.transforms import sampling, train_cells
from ropewalk.transforms.centroids import Centroids
from ropewalk.transforms.map_shards import MapShards, WriteGroups
from ropewalk.transforms.shards import ShardFolder

VERSION = 2
READS: Sequence[str] = ("passages", "decontaminate", "embed")

ROUNDS = 6
"""Assignments, at most: the first, and one after each round of splits."""
SHARED = 1 << 15
"""Documents that a cluster may have if no distance splits it: copies of one vector. More share several clusters."""
GROUP_BYTES = 32 << 20
SAMPLED_BYTES = 60
"""Bytes a sampled document takes in a shuffle beside its vector."""
COUNTED_CLUSTERS = 1 << 20
"""Clusters counted in one place."""


def jobs(context: Context) -> Jobs:
    """Centroids, then assignments until no cluster that can be split is too large."""
    config = context.config
    documents = context.manifests["embed"].counters.get("embedded-docs", 0)
    wanted = clustering.count_clusters(documents, config.size)
    url = files.join(context.folder, "centroids.arrow")
    kept = _kept(url, context.key)
    sampled, centroids = yield from _first(context, documents, wanted, None if kept is None else kept[0])
    first, unsplittable = 0 if kept is None else kept[1], 0

    for number in range(first, ROUNDS):
        notes = {"key": context.key, "round": str(number)}
        centroids.write(url, np.zeros(len(centroids), np.int64), notes)
        yield _assign(context, url, number)
        sizes = yield from _count(context, number, len(centroids))
        if sizes.sum() != documents:
            raise RuntimeError(f"{documents} documents have vectors, but {sizes.sum()} were put into clusters")
        oversized = np.flatnonzero(sizes > config.max_size)
        if number + 1 == ROUNDS or not len(oversized):
            break
        more = yield from _split(context, number, centroids, sizes, oversized)
        if len(more) == len(centroids):
            unsplittable = len(oversized)
            break
        centroids = more
    centroids.write(url, sizes, notes)
    yield from _name(context, url, sizes)
    counters = add_counters([shard.counters for shard in _target(context, number).done().values()])
    filled = sizes[sizes > 0]
    return {
        "documents": documents,
        "clusters": len(centroids),
        "coarse_cells": len(centroids.coarse),
        "empty": int((sizes == 0).sum()),
        "largest": int(filled.max(initial=0)),
        "smallest": int(filled.min()) if len(filled) else 0,
        "oversized": int((sizes > config.max_size).sum()),
        "unsplittable": unsplittable,
        "sharing": int((centroids.first != np.arange(len(centroids))).sum()),
        "zero_vectors": counters.get("zero-docs", 0),
        "rounds": number + 1,
        "sampled_docs": sampled,
    }


def _first(
    context: Context, documents: int, wanted: int, kept: Centroids | None
) -> Generator[Job, None, tuple[int, Centroids]]:
    """The sample's size, and centroids trained on it, unless an earlier run has left some."""
    config, seed = context.config, context.recipe.seed % 2**32
    rows = min(documents, wanted * config.sample_per_cluster, clustering.SAMPLE_ROWS)
    # A few more than wanted: a shortfall by chance would be as good as certain otherwise.
    limit = sampling.limit(rows + 4 * int(rows**0.5) + 16, documents)
    drawn = context.work("sample", clustering.SAMPLE, context.num_shards)
    draw = clustering.SampleVectors(limit)

    def build_sample(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["id"], "embed": ["vector"]}
        return pipeline | beam.Create(shards) | MapShards(context.corpus, read, None, draw, drawn, aligned=False)

    yield Job("sample vectors", drawn, build_sample)
    sample = clustering.sample_matrix(_batches(drawn), rows)
    sampled, useful = len(sample), sample[sample.any(axis=1)]
    if kept is not None:
        return sampled, kept
    if not len(useful):  # nothing but zero vectors: they are spread over as many clusters as would be
        return sampled, Centroids.of(np.zeros((min(wanted, documents), max(sample.shape[1], 1)), np.float32))
    if wanted <= cells.FLAT:
        trained = train_cells.train(useful, wanted, iterations=config.iterations, seed=seed, balanced=config.balanced)
        return sampled, Centroids.of(*trained)
    coarse, _ = train_cells.train(useful, math.isqrt(wanted), iterations=config.iterations, seed=seed, balanced=False)
    share = np.bincount(kmeans.assign(useful, coarse)[0], minlength=len(coarse)) / len(useful)
    parts = np.maximum(1, np.rint(share * wanted)).astype(int)
    most = sampling.limit(wanted * config.sample_per_cluster, documents)
    trained_cells = context.work("trained", train_cells.TRAINED, _groups(context, int(parts.sum())))
    limits = np.full(len(coarse), most, np.uint64)
    yield _train(context, "train in cells", coarse, limits, dict(enumerate(parts.tolist())), trained_cells)
    return sampled, train_cells.join_cells(coarse, train_cells.parts_of(trained_cells))


def _split(
    context: Context, number: int, centroids: Centroids, sizes: np.ndarray, oversized: np.ndarray
) -> Generator[Job, None, Centroids]:
    """Several centroids for each oversized cluster; a huge one that no distance splits shares some clusters."""
    config = context.config
    shares = np.bincount(centroids.first, minlength=len(centroids))[centroids.first]
    parts = {c: max(2, math.ceil(int(sizes[c]) / config.size)) for c in oversized.tolist() if shares[c] == 1}
    if not parts:
        return centroids
    limits = np.zeros(len(centroids), np.uint64)
    for cluster, wanted in parts.items():
        limits[cluster] = sampling.limit(wanted * config.sample_per_cluster, int(sizes[cluster]))
    folder = context.work(f"split-{number}", train_cells.TRAINED, _groups(context, sum(parts.values())))
    yield _train(context, f"split ({number + 1})", None, limits, parts, folder)
    trained = train_cells.parts_of(folder)
    for cluster in parts:
        vectors, price = trained.get(cluster, (centroids.vectors[:0], centroids.price[:0]))
        if len(vectors) >= 2:
            centroids = centroids.with_parts(cluster, vectors, price)
        elif sizes[cluster] > SHARED:
            centroids = centroids.with_shares(cluster, math.ceil(2 * int(sizes[cluster]) / SHARED))
    return centroids


def _groups(context: Context, parts: int) -> int:
    """Groups in which the samples for so many centroids are brought together."""
    rows: int = parts * context.config.sample_per_cluster
    return max(1, math.ceil(rows * _row_bytes(context) / GROUP_BYTES))


def _row_bytes(context: Context) -> int:
    return context.vector_bytes + SAMPLED_BYTES


def _train(
    context: Context, label: str, coarse: np.ndarray | None, limits: np.ndarray, parts: dict[int, int],
    target: ShardFolder,
) -> Job:  # fmt: skip
    config = context.config
    function = train_cells.TrainCells(
        parts, config.sample_per_cluster, config.iterations, context.recipe.seed % 2**32, config.balanced
    )

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | train_cells.SampleCells(context.corpus, coarse, limits, target.num_shards, shards)
            | WriteGroups(function, target, shards, train_cells.CELL_SAMPLE)
        )

    rows = sum(parts.values()) * config.sample_per_cluster
    return Job(label, target, build, math.ceil(rows / target.num_shards) * _row_bytes(context), beside=True)


def _kept(url: str, key: str) -> tuple[Centroids, int] | None:
    """Centroids that an interrupted run of the same work left, and the round they belong to."""
    if files.read_bytes(url) is None:
        return None
    notes = cells.notes_of(url)
    return (Centroids.read(url), int(notes["round"])) if notes.get("key") == key else None


def _target(context: Context, number: int) -> ShardFolder:
    """The stage's folder as round `number` writes it: shards of an earlier round are stale."""
    last = context.columns("cluster")
    return ShardFolder(last.url, last.schema, last.num_shards, fingerprint([context.key, number]))


def _assign(context: Context, url: str, number: int) -> Job:
    target, function = _target(context, number), clustering.AssignClusters(url)
    read = {"documents": ["id"], "embed": ["vector"]}

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | beam.Create(shards) | MapShards(context.corpus, read, None, function, target)

    return Job("assign to clusters" if number == 0 else f"assign again ({number})", target, build)


def _count(context: Context, number: int, clusters: int) -> Generator[Job, None, np.ndarray]:
    """Documents of each cluster, int64[clusters]."""
    groups = max(1, -(-clusters // COUNTED_CLUSTERS))
    counted = context.work(f"sizes-{number}", train_cells.COUNTED, groups)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | train_cells.CountClusters(context.corpus, COUNTED_CLUSTERS, shards)
            | WriteGroups(train_cells.SumCounts(), counted, shards, train_cells.COUNTED)
        )

    rows = min(context.rows, COUNTED_CLUSTERS * context.num_shards)
    yield Job("count" if number == 0 else f"count again ({number})", counted, build, rows * 16, beside=True)
    sizes = np.zeros(clusters, np.int64)
    for batch in _batches(counted):
        sizes[batch.column("cluster").to_numpy()] = batch.column("size").to_numpy()
    return sizes


def _name(context: Context, url: str, sizes: np.ndarray) -> Iterator[Job]:
    """Names the clusters; their words go beside the columns."""
    terms = files.join(context.folder, naming.FILE)
    if not context.config.terms:
        files.remove(terms)
        return
    groups = max(1, -(-len(sizes) // naming.GROUP))
    named = context.work("terms", naming.TERMS, groups)
    function = naming.NameClusters(url, context.config.terms)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        words = naming.SampleWords(context.corpus, url, groups, shards, context.cut)
        return (
            pipeline
            | beam.Create(range(context.num_shards))
            | words
            | WriteGroups(function, named, shards, naming.WORDS)
        )

    yield Job("name clusters", named, build, naming.GROUP * naming.SAMPLE * 3 * naming.HEAD_CHARS, beside=True)
    naming.write_terms(terms, _batches(named), sizes)


def _batches(folder: ShardFolder) -> Iterator[pa.RecordBatch]:
    for shard in range(folder.num_shards):
        yield from folder.read(shard)
