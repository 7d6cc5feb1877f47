"""Nearest neighbours in a whole corpus: exact inside the cells that a document is nearest to.

    cells       own cluster and the nearest others of every document
                |  a slice a group of cells: a member of its own, a question to all of them
    partial     the nearest members of each cell for each question
                |  a slice a document shard
    columns     the nearest of all lists: tables.NEIGHBOURS, row for row

A pair of documents is found if the cell of one is among the cells of the other; inside a cell nothing is missed. A
document is never its own neighbour, a similarity of zero or less is none, and equal similarities are decided by id (by
its upper half, 64 bits; then by address: what is left are copies with one id).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import graph_search
from ropewalk.kernels.blocked_search import search
from ropewalk.kernels.merge_top_k import merge_top_k
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.schemas import address, tables
from ropewalk.transforms import batches
from ropewalk.transforms.centroids import Centroids
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.folders import cut
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import to_matrix

CELLS = pa.schema([pa.field("cells", pa.list_(pa.uint32()))])
"""Row for row: the cells a document searches, its own first; null where it is out."""
KEYED = pa.schema(
    [
        pa.field("address", pa.uint64(), False),
        pa.field("rank", pa.uint64(), False),
        pa.field("cell", pa.uint32(), False),
        pa.field("member", pa.bool_(), False),
        pa.field("vector", tables.VECTOR, False),
    ]
)
"""What is sent to a group of cells: a question to one of them; a `member` can be the answer to others."""
PARTIAL = pa.schema(
    [
        pa.field("address", pa.uint64(), False),
        pa.field("neighbours", pa.list_(pa.uint64())),  # null: this row only names the shard
        pa.field("ranks", pa.list_(pa.uint64())),
        pa.field("similarity", pa.list_(pa.float32())),
    ]
)
"""The nearest members of one cell, best first, for the document at `address`."""
HNSW_ROWS = 16_384
"""Members from which a graph pays: with four questions a member, one thread needs 4.9 s for all pairs and 4.3 s along a
graph at 16,000 members, 1.25 s and 1.6 s at 8,000."""
MILLIONTHS = 1_000_000
"""Similarities are summed in millionths: integers add up to the same whatever the order."""


@dataclass
class FindCells:
    """Batch function: `cluster`, `vector` and `alive` in, `CELLS` out.

    Attributes:
        centroids: The file that `Centroids.write` wrote.
        count: Cells a document searches.
    """

    centroids: str
    count: int
    _known: Centroids | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Reads the centroids."""
        if self._known is None:
            self._known = Centroids.read(self.centroids)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Cells of the documents that are in."""
        self.setup()
        assert self._known is not None
        alive = batch.column("alive").to_numpy(zero_copy_only=False)
        kept = batch.filter(batch.column("alive"))
        for name in ("cluster", "vector"):
            if kept.column(name).null_count:
                raise ValueError(f"{name} is null for {kept.column(name).null_count} of {kept.num_rows} documents")
        lengths = np.zeros(len(alive) + 1, np.int32)
        cells = np.zeros((0, 0), np.uint32)
        if kept.num_rows:
            own = kept.column("cluster").to_numpy()
            cells = self._known.cells(to_matrix(kept.column("vector")), own, self.count)
            lengths[1:][alive] = cells.shape[1]
        offsets = pa.array(np.cumsum(lengths, dtype=np.int32))
        lists = pa.ListArray.from_arrays(offsets, pa.array(cells.ravel().astype(np.uint32)), mask=pa.array(~alive))
        return pa.RecordBatch.from_arrays([lists], schema=CELLS), {"searching-docs": kept.num_rows}


@dataclass
class ReadQuestions(beam.PTransform):
    """Shard numbers in, `(group of cells, rows of KEYED)` out.

    Attributes:
        corpus: The corpus.
        cells: Folder of `CELLS`, row-aligned with the documents.
        groups: Groups the cells are dealt into.
        pending: The groups of this pass.
    """

    corpus: CorpusDir
    cells: ShardFolder
    groups: int
    pending: Sequence[int]

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards over workers and cuts their rows."""
        return shards | beam.Reshuffle() | beam.ParDo(_ReadQuestions(self))


class _ReadQuestions(beam.DoFn):
    def __init__(self, transform: ReadQuestions) -> None:
        self.corpus, self.cells, self.groups = transform.corpus, transform.cells, transform.groups
        self.pending = np.array(transform.pending)

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        parts = [batch.column("cells") for batch in self.cells.read(shard)]
        cells = pa.chunked_array(parts, CELLS.field("cells").type).combine_chunks()
        row = 0
        for batch in self.corpus.read(shard, {DOCUMENTS: ["id"], "embed": ["vector"]}):
            asked = cells.slice(row, batch.num_rows)
            row += batch.num_rows
            if asked.null_count < len(asked):
                yield from self._questions(batch, asked)

    def _questions(self, batch: pa.RecordBatch, asked: pa.ListArray) -> Iterator[tuple[int, pa.RecordBatch]]:
        rows = np.flatnonzero(asked.is_valid().to_numpy(zero_copy_only=False))
        cells = asked.flatten().to_numpy().reshape(len(rows), -1)
        groups = cells % np.uint32(self.groups)
        row, place = np.nonzero(np.isin(groups, self.pending))
        take, where = pa.array(rows[row]), (row, place)
        high, _ = from_hex(batch.column("id").take(take))
        columns = [batch.column("address").take(take), high, cells[where], place == 0]
        vector = batch.column("vector").take(take).cast(tables.VECTOR)
        yield from batches.split_by_key(pa.RecordBatch.from_arrays([*columns, vector], schema=KEYED), groups[where])


@dataclass
class SearchCells(beam.PTransform):
    """Batch function: rows of `KEYED` of whole cells in, in any order, rows of `PARTIAL` out.

    As a transform: `(group, rows of KEYED)` in.

    Attributes:
        count: Neighbours of a document.
        how: `exact`, or by a graph inside each cell of `HNSW_ROWS` members or more (`hnsw`).
    """

    count: int = 10
    how: Literal["exact", "hnsw"] = "exact"

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The nearest members of each cell for each of its questions."""
        places = {name: batch.column(name).to_numpy() for name in ("address", "rank", "cell")}
        member = batch.column("member").to_numpy(zero_copy_only=False)
        sort = np.lexsort((places["address"], places["rank"], places["cell"]))
        cell = places["cell"][sort]
        borders = np.r_[0, np.flatnonzero(cell[1:] != cell[:-1]) + 1, len(sort)] if len(sort) else np.zeros(1, int)
        parts = []
        counters = {"member-docs": int(member.sum()), "question-docs": len(sort), "graph-docs": 0, "compared-pairs": 0}
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            rows = sort[start:stop]
            inside = np.flatnonzero(member[rows])
            if not len(inside):
                continue
            vectors = to_matrix(batch.column("vector").take(pa.array(rows)))
            own = np.full(len(rows), -1, np.int64)
            own[inside] = np.arange(len(inside))
            if self.how == "hnsw" and len(inside) >= HNSW_ROWS:
                found, similarity = graph_search.search(vectors, vectors[inside], own, self.count)
                counters["graph-docs"] += len(rows)
            else:
                found, similarity = search(vectors, vectors[inside], own, self.count)
                counters["compared-pairs"] += len(rows) * len(inside)
            parts.append(_lists(rows, rows[inside], found, similarity, places))
        return batches.concat(parts, PARTIAL), counters

    def _partial(self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> pa.RecordBatch:
        return self(batches.concat(group[1], KEYED))[0]

    def expand(self, keyed: beam.PCollection[tuple[int, pa.RecordBatch]]) -> beam.PCollection[pa.RecordBatch]:
        """Brings whole cells together and searches them."""
        return keyed | beam.GroupByKey() | beam.Map(self._partial).with_output_types(pa.RecordBatch)


def _lists(
    rows: np.ndarray, members: np.ndarray, found: np.ndarray, similarity: np.ndarray, places: dict[str, np.ndarray]
) -> pa.RecordBatch:
    """`PARTIAL` rows of the questions that have an answer: of best members first, those with a positive similarity."""
    good = similarity > 0
    lengths = good.sum(axis=1)
    answered = lengths > 0
    offsets = pa.array(np.r_[0, np.cumsum(lengths[answered])].astype(np.int32))
    answers = members[found[good]]
    columns = [places["address"][answers], places["rank"][answers], similarity[good]]
    lists = [pa.ListArray.from_arrays(offsets, pa.array(column)) for column in columns]
    return pa.RecordBatch.from_arrays([places["address"][rows[answered]], *lists], schema=PARTIAL)


class CutByShard(beam.DoFn):
    """Rows of `PARTIAL` in, slices by document shard out, for the shards of this pass only.

    Args:
        pending: The document shards wanted.
    """

    def __init__(self, pending: Sequence[int]) -> None:
        self.pending = pending

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Cuts a batch."""
        yield from cut(batch, address.shards(batch.column("address").to_numpy()), self.pending)


def name_row(shard: int) -> tuple[int, pa.RecordBatch]:
    """The row of `PARTIAL` that tells `MergeNeighbours` its shard, keyed by it: a shard may have no other."""
    nothing = [pa.nulls(1, part.type) for part in list(PARTIAL)[1:]]
    return shard, pa.RecordBatch.from_arrays([pa.array(address.of_rows(shard, 0, 1)), *nothing], schema=PARTIAL)


@dataclass
class MergeNeighbours:
    """Batch function: all rows of `PARTIAL` of one shard in, in any order, its columns of `tables.NEIGHBOURS` out.

    Attributes:
        corpus: The corpus.
        alive: Stages that put documents out.
        count: Neighbours of a document.
    """

    corpus: CorpusDir
    alive: Sequence[str]
    count: int

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, partial: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Neighbours in the order of the rows; none for a document like no other, null for one that is out."""
        name = partial.filter(partial.column("neighbours").is_null()).column("address").to_numpy()
        if len(name) != 1:
            raise RuntimeError(f"{len(name)} names were sent to one shard, not 1")
        read = self.corpus.read(int(address.shards(name)[0]), {"cluster": ["cluster"]}, alive=self.alive)
        kept = [part.column("alive").to_numpy(zero_copy_only=False) for part in read]
        alive = np.concatenate([np.empty(0, bool), *kept])
        best, lengths = merge_lists(partial.filter(partial.column("neighbours").is_valid()), len(alive), self.count)
        if lengths[~alive].any():
            raise RuntimeError(f"{int((lengths[~alive] > 0).sum())} documents that are out have neighbours")
        offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
        lists = best.column("neighbours"), best.column("similarity")
        columns = [pa.ListArray.from_arrays(offsets, part, mask=pa.array(~alive)) for part in lists]
        similarity = lists[1].to_numpy().astype(np.float64)
        counters = {
            "docs-in": len(alive),
            "put_out-docs": int((~alive).sum()),
            "linked-docs": int((lengths > 0).sum()),
            "alone-docs": int((alive & (lengths == 0)).sum()),
            "found-links": best.num_rows,
            "similarity-millionths": int(np.rint(similarity * MILLIONTHS).sum()),
        }
        return pa.RecordBatch.from_arrays(columns, schema=tables.NEIGHBOURS), counters


def merge_lists(lists: pa.RecordBatch, rows: int, count: int) -> tuple[pa.RecordBatch, np.ndarray]:
    """The best of all lists of each row.

    Args:
        lists: Rows of `PARTIAL` without nulls, in any order; the address says the row.
        rows: How many there are.
        count: Neighbours wanted.

    Returns:
        `neighbours`, `ranks` and `similarity`, best first, one row after the other; how many each row has, int64[rows].
    """
    lists = lists.take(pa.array(np.argsort(lists.column("address").to_numpy(), kind="stable")))
    flat = {name: lists.column(name).flatten() for name in PARTIAL.names[1:]}
    candidates = np.zeros(rows + 1, np.int64)
    lengths = np.diff(lists.column("neighbours").offsets.to_numpy())
    np.add.at(candidates, address.rows(lists.column("address").to_numpy()) + 1, lengths)
    similarity, ranks, neighbours = (flat[name].to_numpy() for name in ("similarity", "ranks", "neighbours"))
    found = merge_top_k(np.cumsum(candidates), similarity, ranks, neighbours, count)
    good = found >= 0
    best: pa.RecordBatch = pa.RecordBatch.from_pydict(flat).take(pa.array(found[good]))
    return best, good.sum(axis=1)
