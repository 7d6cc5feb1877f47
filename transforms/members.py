"""Members of groups of copies, with the edges between them where the shape of a group matters.

Labels (address, component) and edges (a, b) meet by hash of the address, 24 bytes each, and an edge learns its
component; then whole components come together, their labels and edges, by hash of the component, 24 bytes an edge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.mix64 import bucket, mix64
from ropewalk.transforms.folders import cut
from ropewalk.transforms.shards import ShardFolder

MEMBERS = pa.schema(
    [
        ("address", pa.uint64()),
        ("component", pa.uint64()),  # null: an edge whose component is not known yet
        ("other", pa.uint64()),  # null: a member; otherwise an edge between `address` and `other`
    ]
)
"""Rows of two kinds: the members of a component, and the edges between them."""


@dataclass
class ReadApart(beam.PTransform):
    """`(partition of the address, rows of MEMBERS)` of labels and edges; put it at a pipeline's start.

    Attributes:
        labels: Folder of `components.LABELS`.
        edges: Folder with columns `a` and `b`.
        partitions: Groups the addresses are spread over.
        pending: The partitions wanted in this pass.
    """

    labels: ShardFolder
    edges: ShardFolder
    partitions: int
    pending: Sequence[int]

    def expand(self, start: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards of both folders over workers and cuts their rows."""
        work = [(True, shard) for shard in range(self.labels.num_shards)]
        work += [(False, shard) for shard in range(self.edges.num_shards)]
        return start | beam.Create(work) | beam.ParDo(_ReadApart(self))


class _ReadApart(beam.DoFn):
    def __init__(self, transform: ReadApart) -> None:
        self.labels, self.edges = transform.labels, transform.edges
        self.partitions, self.pending = transform.partitions, transform.pending

    def process(self, work: tuple[bool, int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        labelled, shard = work
        for batch in (self.labels if labelled else self.edges).read(shard):
            address, second = (batch.column(name) for name in (("address", "component") if labelled else ("a", "b")))
            nothing = pa.nulls(batch.num_rows, pa.uint64())
            columns = [address, second, nothing] if labelled else [address, nothing, second]
            rows = pa.RecordBatch.from_arrays(columns, schema=MEMBERS)
            yield from cut(rows, bucket(mix64(address.to_numpy()), self.partitions), self.pending)


@dataclass
class LocateEdges:
    """Batch function: all labels and edges of some addresses in, the edges with their component out."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Edges, sorted by address, then other end; loops are left out."""
        labels, edges = split(rows)
        address, other = edges.column("address").to_numpy(), edges.column("other").to_numpy()
        order = np.lexsort((other, address))
        order = order[address[order] != other[order]]
        address, other = address[order], other[order]
        known = labels.column("address").to_numpy()
        by_address = np.argsort(known)
        place = by_address[np.searchsorted(known, address, sorter=by_address)]
        component = labels.column("component").to_numpy()[place]
        return pa.RecordBatch.from_arrays([address, component, other], schema=MEMBERS), {}


@dataclass
class ReadMembers(beam.PTransform):
    """`(shard of labels, rows of MEMBERS)`, whole components; put it at a pipeline's start.

    Attributes:
        labels: Folder of `components.LABELS`, by hash of the component.
        located: Folder of the edges with their component; none: members only.
        pending: The shards wanted in this pass.
    """

    labels: ShardFolder
    located: ShardFolder | None
    pending: Sequence[int]

    def expand(self, start: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards of both folders over workers; labels lie where they belong, edges are cut."""
        work = [(True, shard) for shard in self.pending]
        work += [(False, shard) for shard in range(self.located.num_shards if self.located else 0)]
        return start | beam.Create(work) | beam.ParDo(_ReadMembers(self))


class _ReadMembers(beam.DoFn):
    def __init__(self, transform: ReadMembers) -> None:
        self.labels, self.located, self.pending = transform.labels, transform.located, transform.pending

    def process(self, work: tuple[bool, int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        labelled, shard = work
        if labelled:
            for batch in self.labels.read(shard):
                columns = [batch.column("address"), batch.column("component"), pa.nulls(batch.num_rows, pa.uint64())]
                yield shard, pa.RecordBatch.from_arrays(columns, schema=MEMBERS)
            return
        assert self.located is not None
        for batch in self.located.read(shard):
            keys = bucket(mix64(batch.column("component").to_numpy()), self.labels.num_shards)
            yield from cut(batch, keys, self.pending)


def split(members: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """The rows that are members, and those that are edges."""
    alone = members.column("other").is_null()
    return members.filter(alone), members.filter(members.column("other").is_valid())
