"""Stage `cluster`: the nearest centroid of every document.

sample     vectors of some documents, chosen by their ids -> centroids, trained here
assign     every document to its centroid; repeated with more centroids while a cluster is too large
name       words of some documents of each cluster -> those that tell it from the others

The centroids stay beside the columns (`centroids.arrow`): the order stage chains clusters along them. So do the names
(`terms.arrow`).
"""

from collections.abc import Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import kmeans
from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files
from ropewalk.schemas.manifest import fingerprint
from ropewalk.transforms import cluster as clustering
from ropewalk.transforms import cluster_terms as naming
from ropewalk.transforms import sampling
from ropewalk.transforms.map_shards import MapShards, WriteGroups
from ropewalk.transforms.shards import ShardFolder

VERSION = 2
READS: Sequence[str] = ("passages", "decontaminate", "embed")

ROUNDS = 6
"""Assignments, at most: the first, and one after each round of splits."""


def jobs(context: Context) -> Jobs:
    """A sample, then assignments until no cluster that can be split is too large."""
    config, seed = context.config, context.recipe.seed % 2**32
    documents = context.manifests["embed"].counters.get("embedded-docs", 0)
    wanted = clustering.count_clusters(documents, config.size)
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
    url = files.join(context.folder, "centroids.arrow")
    kept = _kept(url, context.key)
    if kept is None:
        kept = kmeans.train(sample, wanted, iterations=config.iterations, seed=seed), 0
    centroids, first = kept

    unsplittable = 0
    for number in range(first, ROUNDS):
        notes = {"key": context.key, "round": str(number)}
        clustering.write_centroids(url, clustering.centroid_rows(centroids, np.zeros(len(centroids), np.int64)), notes)
        yield _assign(context, url, number)
        target = _target(context, number)
        sizes = _sizes(target, len(centroids))
        if sizes.sum() != documents:
            raise RuntimeError(f"{documents} documents have vectors, but {sizes.sum()} were put into clusters")
        if (sizes <= config.max_size).all():
            unsplittable = 0
            break
        if number + 1 == ROUNDS:
            break
        more, unsplittable = clustering.split_clusters(
            centroids,
            sizes,
            sample,
            size=config.size,
            max_size=config.max_size,
            iterations=config.iterations,
            seed=seed,
        )
        if len(more) == len(centroids):
            break
        centroids = more
    clustering.write_centroids(url, clustering.centroid_rows(centroids, sizes), notes)
    yield from _name(context, url, sizes)
    filled = sizes[sizes > 0]
    return {
        "documents": documents,
        "clusters": len(centroids),
        "empty": int((sizes == 0).sum()),
        "largest": int(filled.max(initial=0)),
        "smallest": int(filled.min()) if len(filled) else 0,
        "oversized": int((sizes > config.max_size).sum()),
        "unsplittable": unsplittable,
        "rounds": number + 1,
        "sampled_docs": len(sample),
    }


def _kept(url: str, key: str) -> tuple[np.ndarray, int] | None:
    """Centroids that an interrupted run of the same work left, and the round they belong to."""
    if files.read_bytes(url) is None:
        return None
    centroids, notes = clustering.read_centroids(url)
    return (centroids, int(notes["round"])) if notes.get("key") == key else None


def _target(context: Context, number: int) -> ShardFolder:
    """The stage's folder as round `number` writes it: shards of an earlier round are stale."""
    last = context.columns("cluster")
    return ShardFolder(last.url, last.schema, last.num_shards, fingerprint([context.key, number]))


def _assign(context: Context, url: str, number: int) -> Job:
    target, function = _target(context, number), clustering.AssignClusters(url)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | beam.Create(shards) | MapShards(context.corpus, {"embed": ["vector"]}, None, function, target)

    return Job("assign to clusters" if number == 0 else f"assign again ({number})", target, build)


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


def _sizes(folder: ShardFolder, clusters: int) -> np.ndarray:
    sizes = np.zeros(clusters, np.int64)
    for batch in _batches(folder):
        sizes += np.bincount(batch.column("cluster").drop_null().to_numpy(), minlength=clusters)
    return sizes
