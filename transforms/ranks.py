"""From the orders of single clusters to one order of the whole corpus.

The clusters follow one another along a greedy path through their centroids: rank = documents of all clusters before it
on the path + position in the cluster.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.greedy_path import greedy_path
from ropewalk.kernels.mix64 import mix64
from ropewalk.schemas import address
from ropewalk.schemas.tables import ORDER
from ropewalk.transforms import batches
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.neighbours import nearest, union_graph
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import to_matrix

CHAIN = pa.schema(
    [
        pa.field("cluster", pa.uint32(), nullable=False),
        pa.field("offset", pa.uint64(), nullable=False),
        pa.field("prev_similarity", pa.float32()),
    ]
)
"""Clusters that have documents, ascending: rank of the first one, and its cosine with the last one of the cluster
before it on the path."""

RANKED = pa.schema(
    [
        pa.field("address", pa.uint64(), nullable=False),
        pa.field("rank", pa.uint64()),
        pa.field("prev_similarity", pa.float32()),
    ]
)
"""What is sent to a shard: its documents' ranks, and one row past its last with no rank, which says how long it is."""

COMPLETE = 2048
"""Up to so many centroids are chained along their complete graph (32 MiB of similarities); more along a sparse one."""
CHAIN_NEIGHBOURS = 64
SAMPLE = 4096
"""Documents, about, in the sample that says how similar documents in random order are."""
GATHER_ROWS = 8192
MILLIONTHS = 1_000_000
"""Similarities are summed in millionths: integers add up to the same whatever the order."""


def chain(centroids: np.ndarray) -> np.ndarray:
    """Greedy path through centroids, from the first: float[k, d] -> int64[k]."""
    count = len(centroids)
    if count > COMPLETE:
        path, _ = greedy_path(*union_graph(*nearest(centroids.astype(np.float32), CHAIN_NEIGHBOURS)))
        return path
    # float16 values multiply and add up without rounding in float64, so threads cannot change the path.
    similarity = centroids.astype(np.float64) @ centroids.T.astype(np.float64)
    path = np.zeros(count, np.int64)
    for place in range(1, count):
        similarity[:, path[place - 1]] = -np.inf
        path[place] = np.argmax(similarity[path[place - 1]])
    return path


@dataclass(frozen=True)
class Spans:
    """The clusters that have documents, ascending, and a sample of the documents.

    Attributes:
        cluster: uint32[k].
        size: Documents, int64[k].
        first: Address of the first document in the cluster's order, uint64[k].
        last: Address of the last one, uint64[k].
        sample: Addresses of a seeded sample of about `SAMPLE` documents, uint64[s].
    """

    cluster: np.ndarray
    size: np.ndarray
    first: np.ndarray
    last: np.ndarray
    sample: np.ndarray

    @classmethod
    def scan(cls, local: Iterable[pa.RecordBatch], *, documents: int, seed: int) -> "Spans":
        """Reads `order.LOCAL` batches, whole clusters each.

        Args:
            local: All clusters' orders.
            documents: How many documents they hold.
            seed: Seed of the sample; it depends on clusters and positions only.
        """
        found: list[list[np.ndarray]] = [[np.empty(0, np.uint32)], [], [], [], [np.empty(0, np.uint64)]]
        most = np.uint64(min(2**64 - 1, int(2**64 * SAMPLE / max(documents, 1))))
        for batch in local:
            where = batch.column("address").to_numpy()
            cluster = batch.column("cluster").to_numpy()
            position = batch.column("position").to_numpy()
            starts = np.flatnonzero(position == 0)
            stops = np.r_[starts[1:], len(where)]
            mixed = mix64(cluster.astype(np.uint64) << np.uint64(32) | position, seed)
            parts = cluster[starts], stops - starts, where[starts], where[stops - 1], where[mixed <= most]
            for column, part in zip(found, parts, strict=True):
                column.append(part)
        cluster, size, first, last, sample = (np.concatenate(c) if c else np.empty(0, np.uint64) for c in found)
        order = np.argsort(cluster)
        return cls(cluster[order], size[order], first[order], last[order], sample)


def chain_clusters(spans: Spans, centroids: np.ndarray, vectors: Gather) -> pa.RecordBatch:
    """Chains the clusters that have documents.

    Args:
        spans: The clusters.
        centroids: Centroid of every cluster, by its number, float16[all, d].
        vectors: Where the documents' vectors are: to compare them across the borders of clusters.

    Returns:
        `CHAIN` rows.
    """
    path = chain(centroids[spans.cluster])
    offset = np.empty(len(path), np.uint64)
    offset[path] = np.cumsum(spans.size[path]) - spans.size[path]
    similarity = np.full(len(path), np.nan, np.float32)
    for start in range(1, len(path), GATHER_ROWS):
        here = path[start : start + GATHER_ROWS]
        before = path[start - 1 : start - 1 + len(here)]
        a = to_matrix(vectors.rows(spans.last[before]).column(0))
        b = to_matrix(vectors.rows(spans.first[here]).column(0))
        similarity[here] = np.einsum("ij,ij->i", a, b, dtype=np.float64)
    unknown = np.isnan(similarity)
    columns = [spans.cluster, offset, pa.array(similarity, mask=unknown)]
    return pa.RecordBatch.from_arrays(columns, schema=CHAIN)


def mean_pair_similarity(vectors: np.ndarray) -> float | None:
    """Mean inner product over all pairs, (|sum v|^2 - sum |v|^2) / (n (n - 1)): what a random order has in the mean.

    Args:
        vectors: float32[n, d].

    Returns:
        None for fewer than two vectors.
    """
    count = len(vectors)
    if count < 2:
        return None
    wide = vectors.astype(np.float64)
    total = wide.sum(axis=0)
    return float((total @ total - np.einsum("ij,ij->", wide, wide)) / (count * (count - 1)))


class RankClusters(beam.DoFn):
    """From the number of a shard of `order.LOCAL` to `RANKED` slices by document shard.

    Args:
        local: The clusters' orders.
        chain: One shard of `CHAIN` rows.
        pending: The document shards of this pass.
    """

    def __init__(self, local: ShardFolder, chain: ShardFolder, pending: Sequence[int]) -> None:
        self.local, self.chain, self.pending = local, chain, np.array(sorted(pending))

    def setup(self) -> None:
        """Reads the chain."""
        self._chain = batches.concat(self.chain.read(0), CHAIN)

    def process(self, number: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Reads, ranks and cuts one shard."""
        clusters = self._chain.column("cluster").to_numpy()
        offsets = self._chain.column("offset").to_numpy()
        for batch in self.local.read(number):
            shard = address.shards(batch.column("address").to_numpy())
            wanted = np.isin(shard, self.pending)
            if not wanted.any():
                continue
            batch, shard = batch.filter(pa.array(wanted)), shard[wanted]
            entry = np.searchsorted(clusters, batch.column("cluster").to_numpy())
            position = batch.column("position").to_numpy()
            border = self._chain.column("prev_similarity").take(pa.array(entry))
            similarity = pa.compute.if_else(pa.array(position == 0), border, batch.column("prev_similarity"))
            ranked = pa.RecordBatch.from_arrays(
                [batch.column("address"), pa.array(offsets[entry] + position), similarity], schema=RANKED
            )
            yield from batches.split_by_key(ranked, shard)


def length_row(shard: int, rows: int) -> tuple[int, pa.RecordBatch]:
    """The `RANKED` row that tells `AlignRanks` how many rows a shard has, keyed by the shard."""
    past = pa.array(address.of_rows(shard, rows, 1))
    nothing = [pa.nulls(1, pa.uint64()), pa.nulls(1, pa.float32())]
    return shard, pa.RecordBatch.from_arrays([past, *nothing], schema=RANKED)


@dataclass
class AlignRanks:
    """From `RANKED` rows of one shard, in any order, to its `tables.ORDER` columns, row for row."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Puts every rank in its row; rows without one are null."""
        rows = address.rows(batch.column("address").to_numpy())
        ranked = batch.column("rank").is_valid().to_numpy(zero_copy_only=False)
        if len(rows) - ranked.sum() != 1:
            raise RuntimeError(f"{len(rows) - ranked.sum()} lengths were sent to one shard, not 1")
        length = int(rows[~ranked][0])
        source = np.full(length, -1, np.int64)
        source[rows[ranked]] = np.flatnonzero(ranked)
        if np.count_nonzero(source >= 0) != ranked.sum():
            raise RuntimeError(f"{ranked.sum()} ranks for {np.count_nonzero(source >= 0)} documents: one has two")
        take = pa.array(source, mask=source < 0)
        columns = [batch.column(field.name).take(take) for field in ORDER]
        similarity = columns[1].drop_null().to_numpy().astype(np.float64)
        counters = {
            "docs-in": length,
            "ordered-docs": int(ranked.sum()),
            "out-docs": int(length - ranked.sum()),
            "compared-docs": len(similarity),
            "similarity-millionths": int(np.rint(similarity * MILLIONTHS).astype(np.int64).sum()),
        }
        return pa.RecordBatch.from_arrays(columns, schema=ORDER), counters
