"""Clusters of documents: they bound how many documents are ever compared with each other.

Centroids are trained on a sample that is chosen by the documents' ids, then every document goes to the nearest one.
Clusters that turn out too large are split again, by centroids trained on a sample of their own. Vectors and centroids
lie on the grid (`kernels.grid`), so that nothing here depends on shards, batches, threads or machines.

A zero vector, a text without a word, is like no other and nearest to nothing: it trains no centroid, and its document
goes to a cluster that its hashed id names, so that many of them make no cluster too large.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.schemas import files, tables
from ropewalk.transforms import sampling, vectors
from ropewalk.transforms.centroids import Centroids, notes_of

SAMPLE = pa.schema([pa.field("hash", pa.uint64(), False), pa.field("vector", tables.VECTOR, False)])
"""Sampled documents: their hashed ids and their vectors."""
SAMPLE_ROWS = 1 << 18
"""Largest sample: 256 MB of float32 vectors where they are trained."""
SAMPLE_SEED = 0xC1
SHARE_SEED = 0xC2
"""Seed of the hashes that spread zero vectors, and copies over the clusters that share them."""


@dataclass
class SampleVectors(beam.PTransform):
    """Batches with `id` and `vector` in, rows of `SAMPLE` out.

    Attributes:
        limit: Documents whose hashed id is at most this are taken, see `sampling.limit`.
    """

    limit: int = 2**64 - 1

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The sampled rows, and how many."""
        hashes = sampling.hash_ids(batch.column("id"), seed=SAMPLE_SEED)
        present = batch.column("vector").is_valid().to_numpy(zero_copy_only=False)
        chosen = pa.array(present & (hashes <= np.uint64(self.limit)))
        columns = [pa.array(hashes), batch.column("vector").cast(tables.VECTOR)]
        rows = pa.RecordBatch.from_arrays(columns, names=SAMPLE.names).filter(chosen)
        return pa.RecordBatch.from_arrays(rows.columns, schema=SAMPLE), {"sampled-docs": rows.num_rows}

    def _rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._rows).with_output_types(pa.RecordBatch)


def sample_matrix(parts: Iterable[pa.RecordBatch], rows: int) -> np.ndarray:
    """The `rows` sampled vectors (`SAMPLE`) with the smallest hashes, in their order: float32[<= rows, d]."""
    hashes, matrix = [], []
    for part in parts:
        if part.num_rows:
            hashes.append(part.column("hash").to_numpy())
            matrix.append(vectors.to_matrix(part.column("vector")))
    if not matrix:
        return np.zeros((0, 0), np.float32)
    every, all_hashes = np.concatenate(matrix), np.concatenate(hashes)
    # Copies of a document may share an id, hence a hash: then their vectors decide.
    order = np.argsort(all_hashes, kind="stable")
    ordered = all_hashes[order]
    for shared in np.unique(ordered[1:][ordered[1:] == ordered[:-1]]):
        here = slice(np.searchsorted(ordered, shared), np.searchsorted(ordered, shared, side="right"))
        order[here] = sorted(order[here], key=lambda row: every[row].tobytes())
    return every[order[:rows]]


def count_clusters(documents: int, size: int) -> int:
    """Clusters for a number of documents: documents / size, rounded, at least one."""
    return max(1, (2 * documents + size) // (2 * size))


def assign_clusters(batch: pa.RecordBatch, centroids: Centroids) -> pa.RecordBatch:
    """Nearest centroid of each document.

    Args:
        batch: n rows with `id` and `vector`.
        centroids: None only if no row has a vector.

    Returns:
        n rows of `tables.CLUSTER`; null where a row has no vector, distance 1 where it is zero.
    """
    column = batch.column("vector")
    present = column.is_valid().to_numpy(zero_copy_only=False)
    cluster, distance = np.zeros(len(column), np.uint32), np.zeros(len(column), np.float32)
    if present.any():
        matrix = vectors.to_matrix(column.drop_null())
        index, dots = centroids.nearest(matrix)
        hashes = sampling.hash_ids(batch.column("id"), seed=SHARE_SEED)[present]
        index = centroids.deal(index, hashes)
        cluster[present] = np.where(matrix.any(axis=1), index, hashes % np.uint64(len(centroids)))
        distance[present] = np.maximum(np.float32(1) - dots, 0)  # lengths on the grid are 1 up to 0.4 %
    return pa.RecordBatch.from_arrays(
        [pa.array(cluster, mask=~present), pa.array(distance, mask=~present)], schema=tables.CLUSTER
    )


@dataclass
class AssignClusters(beam.PTransform):
    """Batches with `id` and `vector` in, their `tables.CLUSTER` columns out, row for row.

    Attributes:
        centroids: Rows of `CENTROIDS`: the file that `Centroids.write` wrote, or a PCollection of batches.
    """

    centroids: str | beam.PCollection[pa.RecordBatch]
    _known: Centroids | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Reads the centroids from their file."""
        if isinstance(self.centroids, str) and self._known is None:
            self._known = Centroids.read(self.centroids)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Columns and counts."""
        self.setup()
        if self._known is None:
            raise TypeError("centroids in a PCollection can only be used inside a pipeline: give a file instead")
        result = assign_clusters(batch, self._known)
        zero = ~vectors.to_matrix(batch.column("vector").drop_null()).any(axis=1)
        clustered = result.num_rows - result.column("cluster").null_count
        return result, {"clustered-docs": clustered, "zero-docs": int(zero.sum())}

    def _columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        if isinstance(self.centroids, str):
            return documents | beam.Map(self._columns).with_output_types(pa.RecordBatch)
        side = beam.pvalue.AsIter(self.centroids)
        return documents | beam.Map(_assign_beside, side).with_output_types(pa.RecordBatch)


def _assign_beside(batch: pa.RecordBatch, centroids: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    return assign_clusters(batch, Centroids.of_rows(centroids))


def read_centroids(url: str) -> tuple[np.ndarray, dict[str, str]]:
    """Centroids by number, float32[k, d], and the notes written with them."""
    parts = [part for part in files.open_arrow(url) if part.num_rows]
    if not parts:
        return np.zeros((0, 0), np.float32), notes_of(url)
    order = np.argsort(np.concatenate([part["cluster"].to_numpy() for part in parts]))
    return np.concatenate([vectors.to_matrix(part["vector"]) for part in parts])[order], notes_of(url)
