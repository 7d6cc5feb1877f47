"""From the orders of single clusters to one order of the whole corpus.

The clusters follow one another along a path through their centroids, each turned around where that joins the documents
at the borders better: rank = documents of all clusters before it on the path + position in the cluster, counted from
the end that comes first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.mix64 import mix64
from ropewalk.schemas import address
from ropewalk.schemas.tables import ORDER
from ropewalk.transforms import batches
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.local_search import LocalSearch
from ropewalk.transforms.paths import edges_path
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import to_matrix

CHAIN = pa.schema(
    [
        pa.field("cluster", pa.uint32(), nullable=False),
        pa.field("offset", pa.uint64(), nullable=False),
        pa.field("turned", pa.bool_(), nullable=False),
        pa.field("prev_similarity", pa.float32()),
    ]
)
"""Clusters that have documents, ascending: the lowest rank in it, whether its order is turned around, and the cosine of
its first document, once turned, with the last one of the cluster before it on the path."""

RANKED = pa.schema(
    [
        pa.field("address", pa.uint64(), nullable=False),
        pa.field("rank", pa.uint64()),
        pa.field("prev_similarity", pa.float32()),
    ]
)
"""What is sent to a shard: its documents' ranks, and one row past its last with no rank, which says how long it is."""

CHAIN_NEIGHBOURS = 64
CHAIN_KICKS = 16
"""Kicks a cluster in the search for the path through the centroids: there are few clusters."""
SAMPLE = 4096
"""Documents, about, in the sample that says how similar documents in random order are."""
GATHER_ROWS = 8192
MILLIONTHS = 1_000_000
"""Similarities are summed in millionths: integers add up to the same whatever the order."""


def chain(centroids: np.ndarray) -> np.ndarray:
    """A path through centroids on which neighbours are alike: float[k, d] on the grid -> int64[k]."""
    wide = centroids.astype(np.float32)
    if len(wide) < 2:
        return np.arange(len(wide))
    neighbours = min(CHAIN_NEIGHBOURS, len(wide) - 1)
    search = LocalSearch(window=1, search=CHAIN_KICKS, neighbours=neighbours, near_duplicate=np.inf)
    return search(wide, edges_path(wide, neighbours=neighbours))[0]


def turn_clusters(joins: np.ndarray) -> np.ndarray:
    """Which clusters of a chain to turn around, so that the documents at the borders are most similar in sum.

    A dynamic programme of two states along the chain, in float64; ties are decided for not turning.

    Args:
        joins: Cosines at each border between the last document before it and the first one after it, with
            [border, turned before, turned after], float[k - 1, 2, 2].

    Returns:
        bool[k].
    """
    count = len(joins) + 1
    best, came = np.zeros(2), np.zeros((count, 2), np.int64)
    for border in range(count - 1):
        through = best[:, None] + joins[border]
        came[border + 1] = through.argmax(axis=0)
        best = through.max(axis=0)
    turned = np.zeros(count, bool)
    state = int(best.argmax())
    for cluster in range(count - 1, -1, -1):
        turned[cluster] = state == 1
        state = int(came[cluster, state])
    return turned


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
    if not len(spans.cluster):
        return batches.concat([], CHAIN)
    path = chain(centroids[spans.cluster])
    offset = np.empty(len(path), np.uint64)
    offset[path] = np.cumsum(spans.size[path]) - spans.size[path]
    joins = np.empty((len(path) - 1, 2, 2))
    for start in range(1, len(path), GATHER_ROWS):
        here = path[start : start + GATHER_ROWS]
        before = path[start - 1 : start - 1 + len(here)]
        # What a cluster ends with is its last document as it is, its first one turned; the other way around ahead.
        ends = [to_matrix(vectors.rows(side[before]).column(0)) for side in (spans.last, spans.first)]
        heads = [to_matrix(vectors.rows(side[here]).column(0)) for side in (spans.first, spans.last)]
        for i, j in np.ndindex(2, 2):
            joins[start - 1 : start - 1 + len(here), i, j] = np.einsum("ij,ij->i", ends[i], heads[j], dtype=np.float64)
    state = turn_clusters(joins).astype(np.int64)
    turned, similarity = np.zeros(len(path), bool), np.full(len(path), np.nan, np.float32)
    turned[path] = state == 1
    similarity[path[1:]] = joins[np.arange(len(path) - 1), state[:-1], state[1:]]
    columns = [spans.cluster, offset, pa.array(turned), pa.array(similarity, mask=np.isnan(similarity))]
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
        turned = self._chain.column("turned").to_numpy(zero_copy_only=False)
        for batch in self.local.read(number):
            shard = address.shards(batch.column("address").to_numpy())
            wanted = np.isin(shard, self.pending)
            if not wanted.any():
                continue
            # A batch holds whole clusters, each in order: the neighbours of a document are the rows beside it.
            cluster, position = batch.column("cluster").to_numpy(), batch.column("position").to_numpy().astype(np.int64)
            entry = np.searchsorted(clusters, cluster)
            starts = np.flatnonzero(position == 0)
            sizes = np.diff(np.r_[starts, len(position)])
            turn = turned[entry]
            place = np.where(turn, np.repeat(sizes, sizes) - 1 - position, position)
            row = np.arange(len(position)) + turn  # a turned document follows the next one, and shares its cosine
            similarity = batch.column("prev_similarity").take(pa.array(np.minimum(row, len(row) - 1)))
            border = self._chain.column("prev_similarity").take(pa.array(entry))
            similarity = pa.compute.if_else(pa.array(place == 0), border, similarity)
            ranked = pa.RecordBatch.from_arrays(
                [batch.column("address"), pa.array(offsets[entry] + place.astype(np.uint64)), similarity], schema=RANKED
            ).filter(pa.array(wanted))
            shard = shard[wanted]
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
