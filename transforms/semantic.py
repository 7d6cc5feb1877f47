"""Semantic duplicates: documents of one cluster whose vectors nearly agree (SemDeDup, arXiv 2303.09540).

    documents   id cluster distance vector
                |  a slice a group of clusters
    found       the documents that go, each with the one it repeats, the nearest that puts it out
                |  a slice a document shard
    columns     tables.SEMANTIC, row for row

In a cluster the farthest from the centroid come first ("hard": the less typical stay), or the nearest; equal distances
are decided by id. Only documents of one cluster are ever compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels.semantic_duplicates import semantic_duplicates
from ropewalk.schemas import address, tables
from ropewalk.transforms import batches
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.folders import cut
from ropewalk.transforms.shards import ShardFolder

KEYED = pa.schema(
    [
        pa.field("address", pa.uint64(), False),
        pa.field("id", pa.string(), False),
        pa.field("cluster", pa.uint32(), False),
        pa.field("distance", pa.float32(), False),
        pa.field("vector", tables.VECTOR, False),
    ]
)
"""What is sent to a group of clusters."""
FOUND = pa.schema(
    [
        pa.field("address", pa.uint64(), False),
        pa.field("dup_of", pa.string()),  # null: this row only names the shard
        pa.field("similarity", pa.float32()),
    ]
)
"""A document that goes, the id of the one it repeats, and their cosine."""


@dataclass
class SemanticDuplicates(beam.PTransform):
    """Documents of whole clusters in, those that go out, as `FOUND`.

    Attributes:
        epsilon: Two documents are duplicates if their cosine is above 1 - epsilon.
        rule: Whether a document goes if it repeats one that stays (`survivor`), or any `earlier` one.
        prefer: Which of a cluster come first: the farthest from the centroid (`hard`), or the nearest (`easy`).
        partitions: Groups the clusters are dealt into; a group must fit in a worker's memory.
    """

    epsilon: float = 0.05
    rule: Literal["survivor", "earlier"] = "survivor"
    prefer: Literal["hard", "easy"] = "hard"
    partitions: int = 16

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Compares inside whole clusters, given as rows of `KEYED` in any order."""
        farthest_first = "descending" if self.prefer == "hard" else "ascending"
        order = [("cluster", "ascending"), ("distance", farthest_first), ("id", "ascending"), ("address", "ascending")]
        sort = pc.sort_indices(batch.drop_columns("vector"), sort_keys=order).to_numpy()
        clusters = batch.column("cluster").to_numpy()[sort]
        borders = np.flatnonzero(np.r_[True, clusters[1:] != clusters[:-1], True]) if len(sort) else np.zeros(1, int)
        parts = []
        counters = {"compared-docs": len(sort), "semantic_duplicate-docs": 0}
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            rows = sort[start:stop]
            other, cosine = semantic_duplicates(
                _float16(batch.column("vector").take(pa.array(rows))), self.epsilon, survivors=self.rule == "survivor"
            )
            gone = np.flatnonzero(other >= 0)
            parts.append(
                pa.RecordBatch.from_arrays(
                    [
                        batch.column("address").take(pa.array(rows[gone])),
                        batch.column("id").take(pa.array(rows[other[gone]])),
                        cosine[gone].astype(np.float32),
                    ],
                    schema=FOUND,
                )
            )
            name = size_class(stop - start)
            counters["semantic_duplicate-docs"] += len(gone)
            for counter, amount in (("clusters", 1), ("docs", stop - start), ("removed", len(gone))):
                counters[f"size_{name}-{counter}"] = counters.get(f"size_{name}-{counter}", 0) + amount
        return batches.concat(parts, FOUND), counters

    def keyed(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows of `KEYED` by group of clusters."""
        slim = batch.select(KEYED.names)
        for column, name in zip(slim.columns, KEYED.names, strict=True):
            if column.null_count:
                raise ValueError(f"{name} is null for {column.null_count} of {batch.num_rows} documents")
        slim = slim.cast(KEYED)
        yield from batches.split_by_key(slim, batch.column("cluster").to_numpy() % np.uint32(self.partitions))

    def _found(self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> pa.RecordBatch:
        return self(batches.concat(group[1], KEYED))[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Deals clusters into groups and compares inside each cluster."""
        return (
            documents
            | "Key" >> beam.FlatMap(self.keyed).with_output_types(tuple[int, pa.RecordBatch])
            | beam.GroupByKey()
            | "Compare" >> beam.Map(self._found).with_output_types(pa.RecordBatch)
        )


def size_class(size: int) -> str:
    """The class of a cluster of `size` documents: 1, 2, 3-4, 5-8 and so on."""
    power = (size - 1).bit_length()
    return str(size) if power < 2 else f"{(1 << power - 1) + 1}-{1 << power}"


def _float16(column: pa.ListArray) -> np.ndarray:
    """A column of vectors of one length without nulls, as it is: float16[n, d]."""
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), len(values) // max(len(column), 1))


@dataclass
class ReadFound(beam.PTransform):
    """`(shard, rows of FOUND)` for each wanted shard; put it at a pipeline's start.

    Attributes:
        found: Folder of `FOUND`.
        pending: The document shards of this pass.
    """

    found: ShardFolder
    pending: Sequence[int]

    def expand(self, start: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the folder's shards over workers, cuts their rows, and names every shard."""
        names = start | "Names" >> beam.Create([name_row(shard) for shard in self.pending]).with_output_types(
            tuple[int, pa.RecordBatch]
        )
        parts = start | "Parts" >> beam.Create(list(range(self.found.num_shards))) | beam.Reshuffle()
        return (names, parts | beam.ParDo(_ReadFound(self))) | beam.Flatten()


class _ReadFound(beam.DoFn):
    def __init__(self, transform: ReadFound) -> None:
        self.found, self.pending = transform.found, transform.pending

    def process(self, part: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in self.found.read(part):
            yield from cut(batch, address.shards(batch.column("address").to_numpy()), self.pending)


def name_row(shard: int) -> tuple[int, pa.RecordBatch]:
    """The row of `FOUND` that tells `SemanticVerdicts` its shard, keyed by it: a shard may have no other."""
    nothing = [pa.nulls(1, pa.string()), pa.nulls(1, pa.float32())]
    return shard, pa.RecordBatch.from_arrays([pa.array(address.of_rows(shard, 0, 1)), *nothing], schema=FOUND)


@dataclass
class SemanticVerdicts:
    """Batch function: all rows of `FOUND` of one shard in, in any order, its columns of `tables.SEMANTIC` out.

    Attributes:
        corpus: The corpus.
        alive: Stages that put documents out.
    """

    corpus: CorpusDir
    alive: Sequence[str]

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, found: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verdicts in the order of the rows, and what became of the documents."""
        gone = found.filter(found.column("dup_of").is_valid())
        name = found.filter(found.column("dup_of").is_null()).column("address").to_numpy()
        if len(name) != 1:
            raise RuntimeError(f"{len(name)} names were sent to one shard, not 1")
        read = self.corpus.read(int(address.shards(name)[0]), {DOCUMENTS: ["source"]}, alive=self.alive)
        parts = [(part.column("alive"), part.column("source")) for part in read]
        alive = np.concatenate([np.empty(0, bool), *(p[0].to_numpy(zero_copy_only=False) for p in parts)])
        place = np.full(len(alive), -1, np.int64)
        place[address.rows(gone.column("address").to_numpy())] = np.arange(gone.num_rows)
        removed = place >= 0
        if removed.sum() != gone.num_rows or (removed & ~alive).any():
            raise RuntimeError(f"{gone.num_rows} verdicts for {int((removed & alive).sum())} documents: one is wrong")
        take = pa.array(place, mask=~removed)
        columns = [pa.array(~removed, mask=~alive), gone.column("dup_of").take(take), gone.column(2).take(take)]
        counters = {
            "docs-in": len(alive),
            "put_out-docs": int((~alive).sum()),
            "kept-docs": int((alive & ~removed).sum()),
            "semantic_duplicate-docs": int(removed.sum()),
        }
        sources = pa.chunked_array([p[1] for p in parts], pa.string())
        for unit, mask in (("docs", alive), ("removed", removed)):
            for value in pc.value_counts(sources.filter(pa.array(mask))).to_pylist():
                counters[f"source:{value['values']}-{unit}"] = value["counts"]
        return pa.RecordBatch.from_arrays(columns, schema=tables.SEMANTIC), counters
