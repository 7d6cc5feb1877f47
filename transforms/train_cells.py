"""Centroids trained where their documents come together: in cells of a large corpus, and to split what is too large.

    sample     of every cell so many documents, chosen by their ids
               |  a slice a group of cells
    trained    centroids of each cell; where asked for, with prices that even out their sizes

The sample of one cell is bounded by `cluster.SAMPLE_ROWS`; no worker holds more than its own cells'.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import kmeans, prices
from ropewalk.schemas import tables
from ropewalk.transforms import batches, sampling, vectors
from ropewalk.transforms.centroids import Centroids
from ropewalk.transforms.cluster import SAMPLE_ROWS, SAMPLE_SEED, sample_matrix
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.shards import ShardFolder

CELL_SAMPLE = pa.schema(
    [
        pa.field("cell", pa.uint32(), False),
        pa.field("hash", pa.uint64(), False),
        pa.field("vector", tables.VECTOR, False),
    ]
)
"""A sampled document of a cell."""
TRAINED = pa.schema(
    [
        pa.field("cell", pa.uint32(), False),
        pa.field("vector", tables.VECTOR, False),
        pa.field("price", pa.float32(), False),
    ]
)
"""A centroid of a cell."""
COUNTED = pa.schema([pa.field("cluster", pa.uint32(), False), pa.field("size", pa.int64(), False)])
"""Documents of a cluster."""
SLACK = 1.25
"""A balanced cluster has at most so many times its share of the sample."""
BALANCE_ROUNDS = 40


def train(sample: np.ndarray, k: int, *, iterations: int, seed: int, balanced: bool) -> tuple[np.ndarray, np.ndarray]:
    """Centroids float32[<= k, d] of a sample float32[n, d] without zero vectors, and their prices float32[<= k]."""
    centroids = kmeans.train(sample, k, iterations=iterations, seed=seed)
    if not balanced:
        return centroids, np.zeros(len(centroids), np.float32)
    return centroids, prices.balance(sample, centroids, slack=SLACK, rounds=BALANCE_ROUNDS)


@dataclass
class SampleCells(beam.PTransform):
    """Shard numbers in, `(group of cells, rows of CELL_SAMPLE)` out.

    Attributes:
        corpus: The corpus.
        cells: Cells are the clusters of the stage's own columns (none), or the nearest of these coarse centroids.
        limits: Largest hash of an id to accept, by cell: uint64[cells]; 0 for a cell that is left alone.
        groups: Groups the cells are dealt into.
        pending: The groups of this pass.
    """

    corpus: CorpusDir
    cells: np.ndarray | None
    limits: np.ndarray
    groups: int
    pending: Sequence[int]

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards over workers and reads the sampled rows of each."""
        return shards | beam.Reshuffle() | beam.ParDo(_SampleCells(self))


class _SampleCells(beam.DoFn):
    def __init__(self, transform: SampleCells) -> None:
        self.transform = transform

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        transform, limits = self.transform, self.transform.limits
        columns: dict[str, Sequence[str]] = {DOCUMENTS: ["id"], "embed": ["vector"]}
        if transform.cells is None:
            columns["cluster"] = ["cluster"]
        for batch in transform.corpus.read(shard, columns):
            batch = batch.filter(batch.column("vector").is_valid())
            hashes = sampling.hash_ids(batch.column("id"), seed=SAMPLE_SEED)
            if transform.cells is None:
                cell = batch.column("cluster").to_numpy()
                chosen = np.flatnonzero((hashes <= limits[cell]) & (limits[cell] > 0))
                cell = cell[chosen]
            else:  # a matrix product only for rows that some cell may accept
                chosen = np.flatnonzero(hashes <= limits.max(initial=0))
                matrix = vectors.to_matrix(batch.column("vector").take(pa.array(chosen)))
                chosen = chosen[matrix.any(axis=1)]
                cell = kmeans.assign(matrix[matrix.any(axis=1)], transform.cells)[0] if len(chosen) else chosen
                accepted = hashes[chosen] <= limits[cell]
                chosen, cell = chosen[accepted], cell[accepted]
            group = cell % transform.groups
            wanted = np.isin(group, np.array(transform.pending))
            taken = batch.column("vector").take(pa.array(chosen[wanted])).cast(tables.VECTOR)
            arrays = [pa.array(cell[wanted].astype(np.uint32)), pa.array(hashes[chosen[wanted]]), taken]
            yield from batches.split_by_key(pa.RecordBatch.from_arrays(arrays, schema=CELL_SAMPLE), group[wanted])


@dataclass
class TrainCells:
    """Batch function: rows of `CELL_SAMPLE` of whole cells in, in any order, rows of `TRAINED` out.

    Attributes:
        parts: Centroids wanted, by cell; only cells named here are sampled.
        per_part: Sampled documents for each centroid.
        iterations: Rounds of k-means.
        seed: Seed of k-means; each cell adds its number.
        balanced: Whether prices are found.
    """

    parts: dict[int, int]
    per_part: int
    iterations: int
    seed: int
    balanced: bool

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Trains cell after cell."""
        cells = batch.column("cell").to_numpy()
        order = np.argsort(cells, kind="stable")
        found = []
        for cell in np.unique(cells).tolist():
            here = order[np.searchsorted(cells[order], cell) : np.searchsorted(cells[order], cell, side="right")]
            rows = min(self.parts[cell] * self.per_part, SAMPLE_ROWS)
            sample = sample_matrix([batch.select(["hash", "vector"]).take(pa.array(here))], rows)
            sample = sample[sample.any(axis=1)]
            trained, price = train(
                sample, self.parts[cell], iterations=self.iterations, seed=self.seed + cell, balanced=self.balanced
            )
            columns = [pa.array(np.full(len(trained), cell, np.uint32)), vectors.to_lists(trained), pa.array(price)]
            found.append(pa.RecordBatch.from_arrays(columns, schema=TRAINED))
        return batches.concat(found, TRAINED), {"trained-cells": len(found), "sampled-docs": len(cells)}


def parts_of(trained: ShardFolder) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Trained centroids float32[parts, d] and their prices float32[parts], by cell."""
    found: dict[int, list[pa.RecordBatch]] = {}
    for shard in range(trained.num_shards):
        for batch in trained.read(shard):
            for cell, part in batches.split_by_key(batch, batch.column("cell").to_numpy()):
                found.setdefault(cell, []).append(part)
    return {
        cell: (
            np.concatenate([vectors.to_matrix(part["vector"]) for part in parts]),
            np.concatenate([part["price"].to_numpy() for part in parts]),
        )
        for cell, parts in sorted(found.items())
    }


def join_cells(coarse: np.ndarray, parts: dict[int, tuple[np.ndarray, np.ndarray]]) -> Centroids:
    """Centroids of all coarse cells, cell after cell; a cell without any is represented by its own."""
    alone = {cell: (coarse[cell : cell + 1], np.zeros(1, np.float32)) for cell in range(len(coarse))}
    every = [parts.get(cell, alone[cell]) for cell in range(len(coarse))]
    cell = np.repeat(np.arange(len(coarse)), [len(vectors) for vectors, _ in every])
    return Centroids.of(np.concatenate([v for v, _ in every]), np.concatenate([p for _, p in every]), cell, coarse)


@dataclass
class CountClusters(beam.PTransform):
    """Shard numbers in, `(group, rows of COUNTED)` out: documents of each cluster in the stage's own columns.

    Attributes:
        corpus: The corpus.
        group: Clusters counted together: group g has clusters g * `group` and on.
        pending: The groups of this pass.
    """

    corpus: CorpusDir
    group: int
    pending: Sequence[int]

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards over workers and counts each."""
        return shards | beam.Reshuffle() | beam.ParDo(_CountClusters(self))


class _CountClusters(beam.DoFn):
    def __init__(self, transform: CountClusters) -> None:
        self.corpus, self.group, self.pending = transform.corpus, transform.group, np.array(transform.pending)

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        read = self.corpus.read(shard, {"cluster": ["cluster"]})
        every = [np.empty(0, np.uint32), *(batch.column("cluster").drop_null().to_numpy() for batch in read)]
        cluster, size = np.unique(np.concatenate(every), return_counts=True)
        wanted = np.isin(cluster // self.group, self.pending)
        rows = pa.RecordBatch.from_arrays([pa.array(cluster[wanted]), pa.array(size[wanted])], schema=COUNTED)
        yield from batches.split_by_key(rows, cluster[wanted] // self.group)


@dataclass
class SumCounts:
    """Batch function: counts of all shards in, in any order, one row a cluster out."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Adds up."""
        cluster, inverse = np.unique(rows.column("cluster").to_numpy(), return_inverse=True)
        sizes = np.zeros(len(cluster), np.int64)
        np.add.at(sizes, inverse, rows.column("size").to_numpy())
        columns = [pa.array(cluster), pa.array(sizes)]
        return pa.RecordBatch.from_arrays(columns, schema=COUNTED), {"counted-docs": int(sizes.sum())}
