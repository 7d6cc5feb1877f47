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
from ropewalk.transforms.earlier_vectors import EarlierVectors, text_hashes
from ropewalk.transforms.embedders.windows import WindowEmbedder
from ropewalk.transforms.tokenize import alive_rows

FREQUENCIES = pa.schema([pa.field("bucket", pa.uint32(), False), pa.field("documents", pa.uint32(), False)])
"""Partial document frequencies: the classes of words a batch holds, and in how many of its documents each occurs."""
SAMPLE_DOCUMENTS = 200_000
"""Documents that the frequencies are counted on, about: a frequency of 1 % is then known to 2 % of itself."""
SAMPLE_SEED = 0x1DF


class Embedder(Protocol):
    """Texts to vectors.

    Attributes:
        reusable: Whether a vector depends on its text alone, not on the other documents.
        windowed: Whether it is a `windows.WindowEmbedder`, which tells more than vectors.
    """

    reusable: bool
    windowed: bool

    @property
    def name(self) -> str:
        """What it is called in a recipe."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

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
    reusable = False
    windowed = False
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


def table_of(embedder: Embedder, *, centred: bool = False) -> pa.Schema:
    """Schema of what `Embed` makes with an embedder; `centred`: of what `centre.Centre` makes of that."""
    reusable = embedder.fingerprint if embedder.reusable else None
    return tables.embed_table(embedder.dimensions, reusable=reusable, windowed=embedder.windowed, centred=centred)


def embed(batch: pa.RecordBatch, embedder: Embedder, earlier: EarlierVectors | None = None) -> pa.RecordBatch:
    """Vectors of a batch of documents.

    Args:
        batch: n rows with `text` (large_string) and, where some are out, `alive` (bool).
        embedder: Prepared by its `setup`.
        earlier: Vectors that need not be made again; `batch` must then have `address`.

    Returns:
        n rows of `table_of(embedder)`; null where a row is not alive.
    """
    return _embed(batch, embedder, earlier)[0]


def _embed(
    batch: pa.RecordBatch, embedder: Embedder, earlier: EarlierVectors | None
) -> tuple[pa.RecordBatch, dict[str, int]]:
    alive = alive_rows(batch)
    texts = batch.column("text").filter(pa.array(alive))
    if not embedder.reusable:
        return _columns({"vector": embedder.embed(texts)}, alive, table_of(embedder)), {}
    hashes = text_hashes(texts)
    known = np.zeros(len(texts), bool)
    found: dict[str, np.ndarray] = {}
    if earlier is not None:
        known, found = earlier.find(batch.column("address").to_numpy()[alive], hashes)
    fresh = texts.filter(pa.array(~known))
    counters = {"reused-docs": int(known.sum())}
    if isinstance(embedder, WindowEmbedder):
        windowed = embedder.embed_windows(fresh)
        made = {"vector": windowed.vectors, "head_vector": windowed.heads}
        made |= {"dispersion": windowed.dispersion, "num_windows": windowed.num_windows}
        hashes[np.flatnonzero(~known)[windowed.not_finite]] = None
        counters["not_finite_vector-docs"] = int(windowed.not_finite.sum())
    else:
        made = {"vector": embedder.embed(fresh)}
    values: dict[str, np.ndarray] = {"text_hash": hashes}
    for name, part in made.items():
        values[name] = np.empty((len(texts), *part.shape[1:]), part.dtype)
        values[name][~known] = part
        if known.any():
            values[name][known] = found[name]
    return _columns(values, alive, table_of(embedder)), counters


def _columns(values: dict[str, np.ndarray], present: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    """Columns of n rows from the values of those that are present (bool[n]); the others are null."""
    arrays = []
    for field_ in schema:
        part = values[field_.name]
        if part.ndim == 2:
            arrays.append(vectors.from_matrix(part, present))
            continue
        full = np.zeros(len(present), part.dtype)
        full[present] = part
        arrays.append(pa.array(full, field_.type, mask=~present))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@dataclass
class Embed(beam.PTransform):
    """Batches of documents in, their columns (`table_of`) out, row for row.

    Attributes:
        embedder: What makes the vectors.
        earlier: Vectors that need not be made again; the batches must then have a column `address`.
    """

    embedder: Embedder = field(default_factory=LexicalEmbedder)
    earlier: EarlierVectors | None = None

    def setup(self) -> None:
        """Loads the embedder."""
        self.embedder.setup()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Columns, and counts: documents with a vector, with a zero vector, and what the windows tell."""
        result, counters = _embed(batch, self.embedder, self.earlier)
        found = vectors.to_matrix(result.column("vector").drop_null())
        counters |= {"embedded-docs": len(found), "zero_vector-docs": int((~found.any(axis=1)).sum())}
        if isinstance(self.embedder, WindowEmbedder):
            windows = result.column("num_windows").drop_null().to_numpy()
            spread = result.column("dispersion").drop_null().to_numpy()[windows > 1].astype(np.float64)
            counters["windows"] = int(windows.sum())
            counters["windowed-docs"] = int((windows > 1).sum())
            counters["most_windows-docs"] = int((windows == self.embedder.max_windows).sum())
            counters["dispersion-millionths"] = int(np.rint(spread * 1e6).sum())
        return result, counters

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
