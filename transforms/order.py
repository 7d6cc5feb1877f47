"""The similarity order: documents that belong together, one after the other.

In-Context Pretraining's greedy path (arXiv 2310.10638) inside each cluster, its short segments dissolved. How the
clusters follow one another is the business of `ranks`. Only addresses and vectors move.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.dissolve import dissolve
from ropewalk.kernels.greedy_path import greedy_path
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.schemas import tables
from ropewalk.transforms import batches
from ropewalk.transforms.neighbours import nearest, union_graph
from ropewalk.transforms.vectors import to_matrix

LOCAL = pa.schema(
    [
        pa.field("address", pa.uint64(), nullable=False),
        pa.field("cluster", pa.uint32(), nullable=False),
        pa.field("position", pa.uint32(), nullable=False),
        pa.field("prev_similarity", pa.float32()),
        pa.field("starts_segment", pa.bool_(), nullable=False),
    ]
)
"""A document's place in its cluster, from 0; cosine with the one before it (null for the first); whether the path was
taken up anew there."""

KEYED = pa.schema(
    [
        pa.field("id_high", pa.uint64()),
        pa.field("id_low", pa.uint64()),
        pa.field("cluster", pa.uint32()),
        pa.field("address", pa.uint64()),
        pa.field("vector", tables.VECTOR),
    ]
)
"""What is sent to a group of clusters."""


LARGEST = 1 << 15
"""Rows ordered in one go: comparing all with all is quadratic, and a cluster of copies cannot be split by distance."""


def order_vectors(vectors: np.ndarray, *, neighbours: int, min_segment: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Orders the vectors of one cluster.

    Args:
        vectors: Unit vectors, float32[n, d]; equal similarities are decided for the lower row. More than `LARGEST` are
            ordered piece by piece, as they come.
        neighbours: Nearest neighbours of a row in the graph.
        min_segment: Shorter segments of the path are dissolved; 0: none.

    Returns:
        Rows in their order, int64[n]; where a segment starts, bool[n]; segments dissolved.
    """
    if len(vectors) > LARGEST:
        orders, every_start, dissolved = [], [], 0
        for first in range(0, len(vectors), LARGEST):
            part = vectors[first : first + LARGEST]
            order, starts, gone = order_vectors(part, neighbours=neighbours, min_segment=min_segment)
            orders.append(first + order)
            every_start.append(starts)
            dissolved += gone
        return np.concatenate(orders), np.concatenate(every_start), dissolved
    graph = union_graph(*nearest(vectors, min(neighbours, max(len(vectors) - 1, 1))))
    path, starts = greedy_path(*graph)
    order, kept = dissolve(*graph, path, starts, min_segment)
    return order, kept, int(starts.sum() - kept.sum())


@dataclass
class OrderBySimilarity(beam.PTransform):
    """Orders documents inside each cluster.

    In: batches with columns `id` (string, 32 hex digits), `address` (uint64), `cluster` (uint32) and `vector` (any list
    of float16 or float32; unit vectors). Out: batches of `LOCAL`, each cluster whole and in order in one batch. Equal
    similarities are decided by id, so the order of the input does not matter.

    Attributes:
        neighbours: Nearest neighbours of a document in the graph.
        min_segment: Segments with fewer documents are dissolved; 0: the paper's order.
        partitions: Groups the clusters are dealt into; a group must fit in a worker's memory.
    """

    neighbours: int = 10
    min_segment: int = 21
    partitions: int = 16

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Orders whole clusters given as `keyed` slices, joined in any order."""
        columns = {name: batch.column(name).to_numpy() for name in ("cluster", "id_high", "id_low", "address")}
        sort = np.lexsort((columns["address"], columns["id_low"], columns["id_high"], columns["cluster"]))
        clusters = columns["cluster"][sort]
        borders = np.r_[0, np.flatnonzero(clusters[1:] != clusters[:-1]) + 1, len(sort)] if len(sort) else np.zeros(1)
        parts = []
        counters = {"ordered-docs": len(sort), "clusters": len(borders) - 1, "jumps": 0, "dissolved-segments": 0}
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            rows = sort[start:stop]
            vectors = to_matrix(batch.column("vector").take(pa.array(rows)))
            order, starts, dissolved = order_vectors(vectors, neighbours=self.neighbours, min_segment=self.min_segment)
            counters["jumps"] += int(starts.sum()) - 1
            counters["dissolved-segments"] += dissolved
            ordered = vectors[order]
            similarity = np.einsum("ij,ij->i", ordered[1:], ordered[:-1], dtype=np.float64).astype(np.float32)
            parts.append(
                pa.RecordBatch.from_arrays(
                    [
                        columns["address"][rows[order]],
                        clusters[start:stop],
                        np.arange(stop - start, dtype=np.uint32),
                        pa.concat_arrays([pa.nulls(1, pa.float32()), pa.array(similarity)]),
                        starts,
                    ],
                    schema=LOCAL,
                )
            )
        return batches.concat(parts, LOCAL), counters

    def keyed(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Slices of a batch by partition, with the columns and no more that `__call__` needs."""
        high, low = from_hex(batch.column("id"))
        names = ("cluster", "address", "vector")
        for name in names:
            if batch.column(name).null_count:
                raise ValueError(f"{name} is null for {batch.column(name).null_count} of {batch.num_rows} documents")
        slim = pa.RecordBatch.from_pydict(
            {"id_high": high, "id_low": low} | {name: batch.column(name) for name in names}
        )
        yield from batches.split_by_key(slim, batch.column("cluster").to_numpy() % np.uint32(self.partitions))

    def _order(self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        ordered, _ = self(pa.concat_batches(list(group[1])))
        yield ordered

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Deals clusters into partitions and orders each."""
        return (
            documents
            | "Key" >> beam.FlatMap(self.keyed).with_output_types(tuple[int, pa.RecordBatch])
            | beam.GroupByKey()
            | "Order" >> beam.FlatMap(self._order).with_output_types(pa.RecordBatch)
        )
