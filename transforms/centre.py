"""Length bias: how much a document's length alone decides what it is like, and vectors with that taken out.

Long texts say a little of everything, so that their vectors crowd together: the mean cosine of a document with all
others grows with its length. `length_bias` measures it. `centre` takes from each vector the mean vector of documents
of like length, so that what is left is how a document differs from others of its size.

Means come from a sample that is chosen by the documents' ids, and from sums of whole numbers (grid points): they do not
depend on shards, workers or the order of rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels import grid
from ropewalk.schemas import files, tables
from ropewalk.transforms import sampling, vectors

SAMPLE = pa.schema([pa.field("num_bytes", pa.uint64(), False, {"unit": "bytes"}), pa.field("vector", tables.VECTOR)])
"""Sampled documents that have a vector other than zero: the length of their text as embedded, and the vector."""
SAMPLE_DOCUMENTS = 16384
SAMPLE_SEED = 0xCE
BINS = 33
"""A bin for each power of 2 of bytes."""
PRIOR = 8
"""The mean of a bin is taken as if it had so many documents more, all of them the mean of all bins."""


@dataclass
class SampleLengths(beam.PTransform):
    """Batches with `id`, `text` and `vector` in, rows of `SAMPLE` out.

    Attributes:
        limit: Documents whose hashed id is at most this are taken, see `sampling.limit`.
    """

    limit: int = 2**64 - 1

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The sampled rows, and how many."""
        chosen = sampling.hash_ids(batch.column("id"), seed=SAMPLE_SEED) <= np.uint64(self.limit)
        rows = batch.filter(pa.array(chosen & batch.column("vector").is_valid().to_numpy(zero_copy_only=False)))
        matrix = vectors.to_matrix(rows.column("vector"))
        some = matrix.any(axis=1)
        lengths = lengths_of(rows.column("text"))[some].astype(np.uint64)
        columns = [pa.array(lengths), vectors.to_lists(matrix[some])]
        return pa.RecordBatch.from_arrays(columns, schema=SAMPLE), {"sampled-docs": int(some.sum())}

    def _rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._rows).with_output_types(pa.RecordBatch)


def sample_of(parts: Iterable[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths in bytes, int64[n], and vectors, float32[n, d], of a sample."""
    some = [part for part in parts if part.num_rows]
    if not some:
        return np.zeros(0, np.int64), np.zeros((0, 1), np.float32)
    lengths = np.concatenate([part.column("num_bytes").to_numpy() for part in some]).astype(np.int64)
    return lengths, np.concatenate([vectors.to_matrix(part.column("vector")) for part in some])


def lengths_of(texts: pa.Array) -> np.ndarray:
    """Bytes of each text: large_string[n] -> int64[n]."""
    return pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]


def bins_of(lengths: np.ndarray) -> np.ndarray:
    """Bin of each length in bytes: the digits of the number in base 2; int64[n] -> int64[n]."""
    bins: np.ndarray = np.frexp(lengths.astype(np.float64))[1].clip(0, BINS - 1).astype(np.int64)
    return bins


def length_bias(lengths: np.ndarray, matrix: np.ndarray) -> float | None:
    """Correlation (Pearson's) of log length with the mean cosine to all others; none where it has no meaning.

    Args:
        lengths: int64[n], above 0.
        matrix: Unit vectors on the grid, float32[n, d].
    """
    if len(lengths) < 3:
        return None
    points = np.rint(matrix * np.float32(grid.GRID)).astype(np.int64)
    # Dot products with the sum of all, less that with itself: whole numbers below 2^53.
    dots = points @ points.sum(axis=0) - (points * points).sum(axis=1)
    means = np.sort(dots / (grid.GRID**2 * (len(dots) - 1)))  # sorted, and the lengths with them: sums in one order
    order = np.lexsort((lengths, dots))
    logs = np.log2(lengths[order].astype(np.float64))
    if means.std() < 1e-9 or logs.std() < 1e-9:
        return None
    return round(float(np.corrcoef(logs, means)[0, 1]), 4)


def means_of(lengths: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Mean vector of each bin of lengths: float64[BINS, d]; of an empty one, the mean of all.

    Args:
        lengths: int64[n].
        matrix: Vectors on the grid, float32[n, d].
    """
    points, bins = np.rint(matrix * np.float32(grid.GRID)).astype(np.int64), bins_of(lengths)
    sums, counts = np.zeros((BINS, matrix.shape[1]), np.int64), np.bincount(bins, minlength=BINS)
    np.add.at(sums, bins, points)
    whole = sums.sum(axis=0) / max(len(points), 1)
    means: np.ndarray = (sums + PRIOR * whole) / (counts[:, None] + PRIOR) / grid.GRID
    return means


def centre(matrix: np.ndarray, lengths: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Vectors less the mean of their bin, normalised, on the grid: float32[n, d] -> float16[n, d]; zero stays zero."""
    moved = matrix.astype(np.float64) - means[bins_of(lengths)]
    moved[~matrix.any(axis=1)] = 0
    return grid.normalise(moved)


@dataclass
class Centre(beam.PTransform):
    """Batches with `text` and the columns of uncentred vectors in, those of centred ones out, row for row.

    Attributes:
        means: File that `write_means` wrote.
        schema: `tables.embed_table(…, centred=True)`.
    """

    means: str
    schema: pa.Schema
    _matrix: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Reads the means."""
        if self._matrix is None:
            self._matrix = read_means(self.means)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Columns, and counts of documents with a vector and of those whose vector is zero."""
        self.setup()
        assert self._matrix is not None
        raw = batch.column("vector")
        present = raw.is_valid().to_numpy(zero_copy_only=False)
        lengths = lengths_of(batch.column("text"))[present]
        moved = centre(vectors.to_matrix(raw.drop_null()), lengths, self._matrix)
        arrays = {name: batch.column(name) for name in batch.schema.names} | {"raw_vector": raw}
        arrays["vector"] = vectors.from_matrix(moved, present)
        result = pa.RecordBatch.from_arrays([arrays[f.name] for f in self.schema], schema=self.schema)
        return result, {"embedded-docs": len(moved), "zero_vector-docs": int((~moved.any(axis=1)).sum())}

    def _columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._columns).with_output_types(pa.RecordBatch)


def write_means(url: str, means: np.ndarray) -> None:
    """Writes the means of all bins (float64[BINS, d]) as an Arrow file."""
    schema = pa.schema([pa.field("mean", pa.list_(pa.float64()), False)])
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array(means.tolist(), schema[0].type)], schema=schema))


def read_means(url: str) -> np.ndarray:
    """What `write_means` wrote."""
    return np.array(files.open_arrow(url).read_all()["mean"].to_pylist(), np.float64)
