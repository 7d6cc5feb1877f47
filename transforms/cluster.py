"""Clusters of documents: they bound how many documents are ever compared with each other.

Centroids are trained on a sample that is chosen by the documents' ids, then every document goes to the nearest one.
Clusters that turn out too large are split again, by centroids trained on their own part of the sample. Vectors and
centroids lie on the grid (`kernels.grid`), so that nothing here depends on shards, batches, threads or machines.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import kmeans
from ropewalk.schemas import files, tables
from ropewalk.transforms import sampling, vectors

CENTROIDS = pa.schema(
    [
        pa.field("cluster", pa.uint32(), False),
        pa.field("size", pa.uint64(), False, {"unit": "documents"}),
        pa.field("vector", tables.VECTOR, False),
    ]
)
"""Centroids, one a row, by number."""
SAMPLE = pa.schema([pa.field("hash", pa.uint64(), False), pa.field("vector", tables.VECTOR, False)])
"""Sampled documents: their hashed ids and their vectors."""
SAMPLE_ROWS = 1 << 18
"""Largest sample: 256 MB of float32 vectors where they are trained."""
SAMPLE_SEED = 0xC1


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


def split_clusters(
    centroids: np.ndarray,
    sizes: np.ndarray,
    sample: np.ndarray,
    *,
    size: int,
    max_size: int,
    iterations: int,
    seed: int,
) -> tuple[np.ndarray, int]:
    """Replaces the centroid of each oversized cluster by several, trained on its part of the sample.

    Args:
        centroids: float32[k, d].
        sizes: Documents of each cluster, int64[k].
        sample: float32[n, d].
        size: Documents a cluster should have.
        max_size: Clusters with more are split.
        iterations: Rounds of k-means.
        seed: Seed of k-means.

    Returns:
        The new centroids, float32[>= k, d]: the first part of a split cluster keeps its number, the others come last.
        And how many oversized clusters could not be split, since their part of the sample holds fewer than two
        distinct vectors.
    """
    index, _ = kmeans.assign(sample, centroids)
    found, last, unsplittable = centroids.copy(), [], 0
    for cluster in np.flatnonzero(sizes > max_size).tolist():
        wanted = max(2, math.ceil(int(sizes[cluster]) / size))
        parts = kmeans.train(sample[index == cluster], wanted, iterations=iterations, seed=seed + cluster)
        if len(parts) < 2:
            unsplittable += 1
            continue
        found[cluster] = parts[0]
        last.append(parts[1:])
    return np.concatenate([found, *last]), unsplittable


def assign_clusters(batch: pa.RecordBatch, centroids: np.ndarray) -> pa.RecordBatch:
    """Nearest centroid of each document.

    Args:
        batch: n rows with `vector`.
        centroids: float32[k, d]; k = 0 only if no row has a vector.

    Returns:
        n rows of `tables.CLUSTER`; null where a row has no vector.
    """
    column = batch.column("vector")
    present = column.is_valid().to_numpy(zero_copy_only=False)
    cluster, distance = np.zeros(len(column), np.uint32), np.zeros(len(column), np.float32)
    if present.any():
        index, dots = kmeans.assign(vectors.to_matrix(column.drop_null()), centroids)
        cluster[present] = index
        distance[present] = np.maximum(np.float32(1) - dots, 0)  # lengths on the grid are 1 up to 0.4 %
    return pa.RecordBatch.from_arrays(
        [pa.array(cluster, mask=~present), pa.array(distance, mask=~present)], schema=tables.CLUSTER
    )


@dataclass
class AssignClusters(beam.PTransform):
    """Batches with `vector` in, their `tables.CLUSTER` columns out, row for row.

    Attributes:
        centroids: Rows of `CENTROIDS`: the file that `write_centroids` wrote, or a PCollection of batches.
    """

    centroids: str | beam.PCollection[pa.RecordBatch]
    _matrix: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Reads the centroids from their file."""
        if isinstance(self.centroids, str) and self._matrix is None:
            self._matrix = read_centroids(self.centroids)[0]

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Columns and a count."""
        self.setup()
        if self._matrix is None:
            raise TypeError("centroids in a PCollection can only be used inside a pipeline: give a file instead")
        result = assign_clusters(batch, self._matrix)
        return result, {"clustered-docs": result.num_rows - result.column("cluster").null_count}

    def _columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        if isinstance(self.centroids, str):
            return documents | beam.Map(self._columns).with_output_types(pa.RecordBatch)
        side = beam.pvalue.AsIter(self.centroids)
        return documents | beam.Map(_assign_beside, side).with_output_types(pa.RecordBatch)


def _assign_beside(batch: pa.RecordBatch, centroids: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    return assign_clusters(batch, _matrix(centroids))


def _matrix(parts: Iterable[pa.RecordBatch]) -> np.ndarray:
    """Vectors of `CENTROIDS` batches in any order, by number: float32[k, d]."""
    rows = [(part["cluster"].to_numpy(), vectors.to_matrix(part["vector"])) for part in parts if part.num_rows]
    if not rows:
        return np.zeros((0, 0), np.float32)
    return np.concatenate([row[1] for row in rows])[np.argsort(np.concatenate([row[0] for row in rows]))]


def centroid_rows(centroids: np.ndarray, sizes: np.ndarray) -> pa.RecordBatch:
    """Centroids (float32[k, d] on the grid) and their sizes (int64[k]) as rows of `CENTROIDS`."""
    numbers = pa.array(np.arange(len(centroids), dtype=np.uint32))
    column = vectors.to_lists(centroids)
    return pa.RecordBatch.from_arrays([numbers, pa.array(sizes.astype(np.uint64)), column], schema=CENTROIDS)


def write_centroids(url: str, rows: pa.RecordBatch, notes: dict[str, str]) -> None:
    """Writes `CENTROIDS` rows with `notes` in the schema's metadata."""
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, CENTROIDS.with_metadata(notes)) as writer:
        writer.write_batch(rows)


def read_centroids(url: str) -> tuple[np.ndarray, dict[str, str]]:
    """Centroids by number, float32[k, d], and the notes written with them."""
    reader = files.open_arrow(url)
    notes = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    return _matrix(reader), notes
