"""Packing, first half: from documents in their order to a plan of sequences. Only lengths move, no tokens.

The order is cut into partitions of `PARTITION_DOCS` documents, each planned by itself: sequences never reach across,
which costs at most `open_bins` partly filled sequences in some 2^28 tokens. Partitions go by place in the order, never
by shard, so the plan is the same however the documents are sharded.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.mix64 import bucket, mix64
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.transforms import batches
from ropewalk.transforms.segments import Segments, check

PARTITION_DOCS = 1 << 18

PLACED = pa.schema(
    [
        pa.field("place", pa.uint64(), nullable=False),
        pa.field("tie", pa.uint64(), nullable=False),
        pa.field("address", pa.uint64(), nullable=False),
        pa.field("num_tokens", pa.uint32(), nullable=False),
    ]
)
"""A document on its way to its partition: its place in the order (rank, or hash of the id), what decides between equal
places (half of the id), address and length in tokens."""

PLAN = pa.schema(
    [
        pa.field("sequence", pa.uint64(), nullable=False),
        pa.field("address", pa.uint64(), nullable=False),
        pa.field("start", pa.uint32(), nullable=False),
        pa.field("length", pa.uint32(), nullable=False),
        pa.field("nth", pa.uint32(), nullable=False),
    ]
)
"""A segment: its sequence (a random-looking distinct number: ascending, it is the order sequences are written in), its
document, first token and tokens, and its place in the sequence."""


class Layout(Protocol):
    """A module of `transforms.layouts`."""

    ALONG: str
    """The order it wants: `rank` or `id`."""

    def plan(self, num_tokens: np.ndarray, *, length: int, open_bins: int) -> Segments:
        """From the lengths of documents in their order to segments."""


def layout_module(name: str) -> Layout:
    """The layout called `name`."""
    module: Layout = importlib.import_module(f"ropewalk.transforms.layouts.{name}")
    return module


@dataclass
class PlanSequences(beam.PTransform):
    """Plans training sequences.

    In: batches with `address` (uint64), `num_tokens` (uint32), and `rank` (uint64, from 0 without gaps) or `id`
    (string, 32 hex digits), as the layout wants. Out: batches of `PLAN`, by sequence.

    Attributes:
        layout: Name of a module of `transforms.layouts`.
        length: Tokens in a sequence, at most.
        open_bins: Sequences kept open at once.
        seed: Seed of the order of sequences, and of the documents in layout `random`.
        partitions: Pieces the order is planned in, for orders of ids; at least documents / `PARTITION_DOCS`.
    """

    layout: str = "in_context"
    length: int = 8192
    open_bins: int = 10
    seed: int = 0
    partitions: int = 1

    @property
    def along(self) -> str:
        """The column that says the order."""
        return layout_module(self.layout).ALONG

    def setup(self) -> None:
        """Nothing to prepare."""

    def keyed(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Slices of a batch by partition of the order."""
        tie = np.zeros(batch.num_rows, np.uint64)
        if self.along == "rank":
            if batch.column("rank").null_count:
                raise RuntimeError(f"{batch.column('rank').null_count} documents to pack have no rank: rerun order")
            place = batch.column("rank").to_numpy()
        else:
            high, tie = from_hex(batch.column("id"))
            place = mix64(high ^ mix64(tie), self.seed)
        columns = [place, tie, batch.column("address"), batch.column("num_tokens")]
        placed = pa.RecordBatch.from_arrays([pa.array(c) for c in columns], schema=PLACED)
        yield from batches.split_by_key(placed, self._partition(place))

    def _partition(self, place: np.ndarray) -> np.ndarray:
        if self.along == "rank":
            return (place // np.uint64(PARTITION_DOCS)).astype(np.int64)
        return bucket(place, self.partitions)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Plans one partition, given as `PLACED` rows in any order."""
        columns = {name: batch.column(name).to_numpy() for name in PLACED.names}
        order = np.lexsort((columns["address"], columns["tie"], columns["place"]))
        place, num_tokens = columns["place"][order], columns["num_tokens"][order]
        if self.along == "rank" and len(place):
            start = int(place[0]) // PARTITION_DOCS * PARTITION_DOCS
            if not np.array_equal(place, np.arange(start, start + len(place), dtype=np.uint64)):
                raise RuntimeError(f"ranks from {place[0]} to {place[-1]} have gaps or doubles: rerun order")
        segments = layout_module(self.layout).plan(num_tokens, length=self.length, open_bins=self.open_bins)
        check(segments, num_tokens, self.length)
        borders = np.flatnonzero(np.r_[True, segments.sequence[1:] != segments.sequence[:-1]][: len(segments.sequence)])
        sizes = np.diff(np.r_[borders, len(segments.sequence)])
        nth = np.arange(len(segments.sequence)) - np.repeat(borders, sizes)
        partition = int(self._partition(place[:1])[0]) if len(place) else 0
        number = segments.sequence.astype(np.uint64) | np.uint64(partition << 32)
        columns_out = [
            mix64(number, self.seed),
            columns["address"][order][segments.document],
            segments.start.astype(np.uint32),
            segments.length.astype(np.uint32),
            nth.astype(np.uint32),
        ]
        pieces = np.bincount(segments.document, minlength=len(num_tokens))
        counters = {
            "docs-in": len(num_tokens),
            "tokens-in": int(num_tokens.sum(dtype=np.int64)),
            "empty-docs": int(np.count_nonzero(num_tokens == 0)),
            "cut-docs": int(np.count_nonzero(pieces > 1)),
            "segments": len(segments.document),
            "sequences": len(borders),
        }
        return pa.RecordBatch.from_arrays([pa.array(c) for c in columns_out], schema=PLAN), counters

    def _plan(self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        plan, _ = self(pa.concat_batches(list(group[1])))
        yield plan

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Deals documents into partitions of their order and plans each."""
        return (
            documents
            | "Key" >> beam.FlatMap(self.keyed).with_output_types(tuple[int, pa.RecordBatch])
            | beam.GroupByKey()
            | "Plan" >> beam.FlatMap(self._plan).with_output_types(pa.RecordBatch)
        )
