"""How many of the true neighbours were found: exact ones of some documents, sought among all documents.

    recall@k = found neighbours at least as near as the k-th true one / true neighbours,   over all sampled documents

The sample depends on ids alone. Its vectors are compared with every vector of the corpus, shard by shard: a product of
two matrices, n s d multiplications for s sampled of n documents, and 20 k s bytes a shard to bring together.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.blocked_search import search
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.schemas import files, tables
from ropewalk.transforms import batches, sampling
from ropewalk.transforms.cell_neighbours import PARTIAL, merge_lists
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.vectors import to_matrix

SAMPLED = pa.schema(
    [
        pa.field("hash", pa.uint64(), False),
        pa.field("address", pa.uint64(), False),
        pa.field("vector", tables.VECTOR, False),
    ]
)
"""A sampled document."""
SAMPLE_SEED = 0x4E


@dataclass
class SampleQuestions:
    """Batch function: `address`, `id`, `vector` and `alive` in, rows of `SAMPLED` out.

    Attributes:
        limit: Documents whose hashed id is at most this are taken, see `sampling.limit`.
    """

    limit: int

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The sampled rows."""
        hashes = sampling.hash_ids(batch.column("id"), seed=SAMPLE_SEED)
        chosen = batch.column("alive").to_numpy(zero_copy_only=False) & (hashes <= np.uint64(self.limit))
        columns = [pa.array(hashes), batch.column("address"), batch.column("vector").cast(tables.VECTOR)]
        rows = pa.RecordBatch.from_arrays(columns, names=SAMPLED.names).filter(pa.array(chosen))
        return pa.RecordBatch.from_arrays(rows.columns, schema=SAMPLED), {"sampled-docs": rows.num_rows}


def write_questions(url: str, parts: Iterable[pa.RecordBatch], count: int) -> np.ndarray:
    """Writes the `count` sampled documents with the smallest hashes; returns their addresses, uint64[<= count]."""
    rows = batches.concat(parts, SAMPLED)
    order = np.lexsort((rows.column("address").to_numpy(), rows.column("hash").to_numpy()))[:count]
    rows = rows.take(pa.array(order))
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, SAMPLED) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(rows.columns, schema=SAMPLED))
    found: np.ndarray = rows.column("address").to_numpy()
    return found


@dataclass
class CompareAll(beam.PTransform):
    """Shard numbers in, `(group, rows of PARTIAL)` out: the nearest of the shard for every question.

    The `address` of a row is the number of the question.

    Attributes:
        corpus: The corpus.
        alive: Stages that put documents out.
        questions: The file that `write_questions` wrote.
        count: Neighbours of a document.
        groups: Groups the questions are dealt into.
        pending: The groups of this pass.
    """

    corpus: CorpusDir
    alive: Sequence[str]
    questions: str
    count: int
    groups: int
    pending: Sequence[int]

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards over workers."""
        return shards | beam.Reshuffle() | beam.ParDo(_CompareAll(self))


class _CompareAll(beam.DoFn):
    def __init__(self, transform: CompareAll) -> None:
        self.transform = transform

    def setup(self) -> None:
        rows = batches.concat(files.open_arrow(self.transform.questions), SAMPLED)
        self.address = rows.column("address").to_numpy()
        self.vectors = to_matrix(rows.column("vector"))

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        transform = self.transform
        number = np.flatnonzero(np.isin(np.arange(len(self.address)) % transform.groups, np.array(transform.pending)))
        parts = []
        columns = {DOCUMENTS: ["id"], "embed": ["vector"]}
        for batch in transform.corpus.read(shard, columns, alive=transform.alive):
            batch = batch.filter(batch.column("alive"))
            if batch.num_rows:
                parts.append(nearest_of(batch, number, self.address, self.vectors, transform.count))
        merged = best_lists(batches.concat(parts, PARTIAL), len(self.address), transform.count)
        yield from batches.split_by_key(merged, merged.column("address").to_numpy() % np.uint64(transform.groups))


def nearest_of(
    batch: pa.RecordBatch, number: np.ndarray, own: np.ndarray, vectors: np.ndarray, count: int
) -> pa.RecordBatch:
    """Nearest documents of a batch for some questions.

    Args:
        batch: Rows with `address`, `id` and `vector`.
        number: The questions, int64[q].
        own: Address of every question, uint64[all].
        vectors: Their vectors, float32[all, d].
        count: Neighbours wanted.

    Returns:
        `PARTIAL` rows.
    """
    places, (rank, _) = batch.column("address").to_numpy(), from_hex(batch.column("id"))
    order = np.lexsort((places, rank))
    places, rank = places[order], rank[order]
    by_place = np.argsort(places)
    at = np.minimum(np.searchsorted(places, own[number], sorter=by_place), len(places) - 1)
    itself = np.where(places[by_place[at]] == own[number], by_place[at], -1)
    members = to_matrix(batch.column("vector").take(pa.array(order)))
    found, similarity = search(vectors[number], members, itself, count)
    good = similarity > 0
    return _rows(number, good.sum(axis=1), places[found[good]], rank[found[good]], similarity[good])


def best_lists(lists: pa.RecordBatch, questions: int, count: int) -> pa.RecordBatch:
    """One list for each question that has one: `PARTIAL` rows in any order -> `PARTIAL` rows."""
    best, lengths = merge_lists(lists, questions, count)
    return _rows(np.arange(questions), lengths, *(best.column(name).to_numpy() for name in PARTIAL.names[1:]))


def _rows(
    number: np.ndarray, lengths: np.ndarray, places: np.ndarray, ranks: np.ndarray, similarity: np.ndarray
) -> pa.RecordBatch:
    some = lengths > 0
    offsets = pa.array(np.r_[0, np.cumsum(lengths[some])].astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, pa.array(flat)) for flat in (places, ranks, similarity)]
    return pa.RecordBatch.from_arrays([number[some].astype(np.uint64), *lists], schema=PARTIAL)


@dataclass
class BestLists:
    """Batch function: the lists of all shards for some questions in, one list each out.

    Attributes:
        questions: Questions there are.
        count: Neighbours of a document.
    """

    questions: int
    count: int

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, lists: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Merges."""
        merged = best_lists(lists, self.questions, self.count)
        return merged, {"answered-docs": merged.num_rows}


def recall(exact: pa.RecordBatch, found: pa.ListArray) -> tuple[int, int]:
    """Compares found with true neighbours.

    Args:
        exact: The true lists, rows of `PARTIAL`; the address is the number of the question.
        found: Similarities of the neighbours that were found, by number: list<float32>[questions].

    Returns:
        How many of the found are as near as the last true one, and how many true ones there are.
    """
    hits = total = 0
    lists = exact.column("similarity").to_pylist()
    for number, true in zip(exact.column("address").to_pylist(), lists, strict=True):
        near = [similarity for similarity in found[number].as_py() or () if similarity >= true[-1]]
        hits, total = hits + min(len(near), len(true)), total + len(true)
    return hits, total
