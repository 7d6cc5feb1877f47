"""Connected components of a graph of addresses.

Two ways make the same labels. `JoinFolder` reads all edges in one worker and keeps the nodes only, about 64 bytes each.
`LargeStar` and `SmallStar`, applied in turn by `pipelines.label_components`, are shuffles of 16 or 32 bytes an edge in
which a worker sees some nodes with their neighbours; what it has made is joined once more by itself, which spares edges
and rounds. All neighbours of a node meet in one group: the largest copied text of a corpus costs 16 bytes a copy.

Documents without a copy never get here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.mix64 import bucket, mix64
from ropewalk.kernels.star_contraction import large_star, small_star
from ropewalk.kernels.union_find import UnionFind, contract
from ropewalk.transforms.candidates import EDGES
from ropewalk.transforms.folders import cut
from ropewalk.transforms.shards import ShardFolder

LABELS = pa.schema([("address", pa.uint64()), ("component", pa.uint64())])
"""Every document that has an edge to another, and the smallest address of its component."""

_ROWS = 1 << 18
"""Rows that are cut at once: a shard may be one batch of millions."""


@dataclass
class JoinFolder(beam.PTransform):
    """Each component of a folder of edges as a star around its smallest address; put it at a pipeline's start.

    Attributes:
        edges: Folder with columns `a` and `b`, uint64; direction and repeats do not matter.
    """

    edges: ShardFolder

    def expand(self, start: beam.Pipeline) -> beam.PCollection[pa.RecordBatch]:
        """Reads everything in one worker; rows of `EDGES`."""
        return start | beam.Create([self.edges.num_shards]) | beam.ParDo(_JoinFolder(self))


class _JoinFolder(beam.DoFn):
    def __init__(self, transform: JoinFolder) -> None:
        self.edges = transform.edges

    def process(self, num_shards: int) -> Iterator[pa.RecordBatch]:
        graph = UnionFind()
        for shard in range(num_shards):
            for batch in self.edges.read(shard):
                graph.join(batch.column("a").to_numpy(), batch.column("b").to_numpy())
        a, b = graph.stars()
        for start in range(0, len(a), _ROWS):
            yield _edges(a[start : start + _ROWS], b[start : start + _ROWS])


def _edges(a: np.ndarray, b: np.ndarray) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([a, b], schema=EDGES)


@dataclass
class KeyEnds(beam.PTransform):
    """Batches of edges in, `(partition of a node, its row)` out: `a` is the node and `b` its neighbour.

    Attributes:
        both: Whether each end gets a row; otherwise the larger one does.
        partitions: Groups the nodes are spread over.
        pending: The partitions wanted in this pass.
    """

    both: bool
    partitions: int
    pending: Sequence[int]

    def expand(self, edges: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Turns and cuts each batch."""
        return edges | beam.ParDo(_KeyEnds(self))


class _KeyEnds(beam.DoFn):
    def __init__(self, transform: KeyEnds) -> None:
        self.both, self.partitions, self.pending = transform.both, transform.partitions, transform.pending

    def process(self, edges: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        for start in range(0, edges.num_rows, _ROWS):
            part = edges.slice(start, _ROWS)
            a, b = part.column("a").to_numpy(), part.column("b").to_numpy()
            a, b = a[a != b], b[a != b]
            node, other = np.maximum(a, b), np.minimum(a, b)
            if self.both:
                node, other = np.concatenate([node, other]), np.concatenate([other, node])
            yield from cut(_edges(node, other), bucket(mix64(node), self.partitions), self.pending)


@dataclass
class LargeStar:
    """Batch function: all neighbours of some nodes in, see `KeyEnds`; edges to the smallest one out."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Edges, and how many nodes are not yet tied to the smallest of their component, see the kernel."""
        a, b, unsettled = large_star(rows.column("a").to_numpy(), rows.column("b").to_numpy())
        return _edges(*contract(a, b)), {"unsettled-nodes": unsettled}


@dataclass
class SmallStar:
    """Batch function: all smaller neighbours of some nodes in, see `KeyEnds`; edges to the smallest one out."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Edges."""
        return _edges(*contract(*small_star(rows.column("a").to_numpy(), rows.column("b").to_numpy()))), {}


@dataclass
class LabelStars:
    """Batch function: whole components in, each a star around its smallest address `b`; rows of `LABELS` out.

    Attributes:
        rounds: How many rounds it took to make the stars; kept with the counters, equal in every shard.
    """

    rounds: int = 0

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, stars: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Labels, sorted by component, then address."""
        leaves, centres = stars.column("a").to_numpy(), stars.column("b").to_numpy()
        first = np.unique(centres)
        address, component = np.concatenate([leaves, first]), np.concatenate([centres, first])
        order = np.lexsort((address, component))
        labels = pa.RecordBatch.from_arrays([address[order], component[order]], schema=LABELS)
        return labels, {"copied-groups": len(first), "star-rounds": self.rounds}
