"""Document vectors: a protocol for embedders, and the lexical one that needs no model.

Whatever makes them, vectors are snapped to the grid of multiples of 2^-11 (`kernels.grid`), so that every later dot
product is exact and no neighbour, cluster or order depends on batches, threads or machines.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import grid, lexical
from ropewalk.schemas import files, tables
from ropewalk.transforms import sampling, utf8, vectors
from ropewalk.transforms.tokenize import alive_rows

FREQUENCIES = pa.schema([pa.field("bucket", pa.uint32(), False), pa.field("documents", pa.uint32(), False)])
"""Partial document frequencies: the classes of words a batch holds, and in how many of its documents each occurs."""
SAMPLE_DOCUMENTS = 200_000
"""Documents that the frequencies are counted on, about: a frequency of 1 % is then known to 2 % of itself."""
SAMPLE_SEED = 0x1DF


class Embedder(Protocol):
    """Texts to vectors.

    Attributes:
        name: What it is called in a recipe.
        dimensions: Length of a vector.
    """

    name: str
    dimensions: int

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides which vector a text gets, hex; after `setup`."""

    def setup(self) -> None:
        """Loads the model; once in each worker."""

    def embed(self, texts: pa.Array) -> np.ndarray:
        """Unit vectors on the grid: large_string[n] without nulls -> float16[n, dimensions]."""


@dataclass
class LexicalEmbedder:
    """Hashed TF-IDF, randomly projected: documents that share rare words are near each other.

    Attributes:
        frequencies: File of document frequencies that `write_frequencies` wrote; none weighs all words the same.
        threads: Threads of the kernel.
    """

    frequencies: str | None = None
    threads: int = 1
    name: str = field(default="lexical", init=False)
    dimensions: int = field(default=lexical.DIMENSIONS, init=False)
    _idf: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Hash of the word weights."""
        return hashlib.sha256(b"lexical 1" + self._weights().tobytes()).hexdigest()

    def setup(self) -> None:
        """Reads the frequencies."""
        self._weights()

    def embed(self, texts: pa.Array) -> np.ndarray:
        """See `Embedder.embed`; a text without words gets the zero vector."""
        data, offsets = utf8.buffers(texts)
        weights = self._weights()
        found = np.empty((len(texts), self.dimensions), np.float16)

        def run(first: int, last: int) -> None:
            found[first:last] = grid.snap(lexical.project(data, offsets[first : last + 1], weights))

        utf8.spread(run, offsets, self.threads)
        return found

    def _weights(self) -> np.ndarray:
        if self._idf is None:
            if self.frequencies is None:
                self._idf = np.ones(lexical.BUCKETS, np.float32)
            else:
                self._idf = lexical.idf(*read_frequencies(self.frequencies))
        return self._idf


def embed(batch: pa.RecordBatch, embedder: Embedder) -> pa.RecordBatch:
    """Vectors of a batch of documents.

    Args:
        batch: n rows with `text` (large_string) and, where some are out, `alive` (bool).
        embedder: Prepared by its `setup`.

    Returns:
        n rows of `tables.embed_table`; null where a row is not alive.
    """
    alive = alive_rows(batch)
    found = embedder.embed(batch.column("text").filter(pa.array(alive)))
    return pa.RecordBatch.from_arrays(
        [vectors.from_matrix(found, alive)], schema=tables.embed_table(embedder.dimensions)
    )


@dataclass
class Embed(beam.PTransform):
    """Batches of documents in, their `tables.embed_table` columns out, row for row.

    Attributes:
        embedder: What makes the vectors.
    """

    embedder: Embedder = field(default_factory=LexicalEmbedder)

    def setup(self) -> None:
        """Loads the embedder."""
        self.embedder.setup()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Vectors, and counts of documents with one and of those whose vector is zero."""
        result = embed(batch, self.embedder)
        column = result.column("vector")
        found = vectors.to_matrix(column.drop_null())
        return result, {"embedded-docs": len(found), "zero_vector-docs": int((~found.any(axis=1)).sum())}

    def _columns(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._columns).with_output_types(pa.RecordBatch)


@dataclass
class CountFrequencies(beam.PTransform):
    """Batches of documents in, partial document frequencies of a sample (`FREQUENCIES`) out: add them up by bucket.

    Attributes:
        limit: Documents whose hashed id is at most this are counted, see `sampling.limit`.
        threads: Threads of the kernel.
    """

    limit: int = 2**64 - 1
    threads: int = 1

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Frequencies, and how many documents they come from."""
        chosen = alive_rows(batch) & (sampling.hash_ids(batch.column("id"), seed=SAMPLE_SEED) <= np.uint64(self.limit))
        data, offsets = utf8.buffers(batch.column("text").filter(pa.array(chosen)))
        parts: list[np.ndarray] = []

        def run(first: int, last: int) -> None:
            parts.append(lexical.frequencies(data, offsets[first : last + 1]))

        utf8.spread(run, offsets, self.threads)
        counts: np.ndarray = np.stack(parts).sum(axis=0)
        buckets = np.flatnonzero(counts)
        arrays = [pa.array(buckets.astype(np.uint32)), pa.array(counts[buckets].astype(np.uint32))]
        return pa.RecordBatch.from_arrays(arrays, schema=FREQUENCIES), {"sampled-docs": int(chosen.sum())}

    def _rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._rows).with_output_types(pa.RecordBatch)


def add_frequencies(total: np.ndarray, part: pa.RecordBatch) -> None:
    """Adds partial frequencies (`FREQUENCIES`) to `total`, int64[BUCKETS]."""
    np.add.at(total, part.column("bucket").to_numpy(), part.column("documents").to_numpy().astype(np.int64))


def write_frequencies(url: str, frequencies: np.ndarray, documents: int) -> None:
    """Writes document frequencies (int64[BUCKETS]) of a sample of `documents` as an Arrow file."""
    schema = pa.schema([pa.field("documents", pa.int64(), False)], {"documents": str(documents)})
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array(frequencies)], schema=schema))


def read_frequencies(url: str) -> tuple[np.ndarray, int]:
    """What `write_frequencies` wrote: int64[BUCKETS], and the number of documents."""
    reader = files.open_arrow(url)
    documents = int(reader.schema.metadata[b"documents"])
    return reader.read_all()["documents"].to_numpy(), documents
