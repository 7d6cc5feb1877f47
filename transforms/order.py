"""The similarity order: documents that belong together, one after the other.

Inside each cluster documents are put in order by one of four methods and moved by a local search. Which is best is a
matter of measurement (`benchmarks/order_quality.py`): on five corpora the tree with a window of ten documents had the
most similar windows. How the clusters follow one another is the business of `ranks`. Only addresses and vectors move.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.dissolve import dissolve
from ropewalk.kernels.greedy_path import greedy_path
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.schemas import tables
from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms import batches
from ropewalk.transforms.local_search import LocalSearch
from ropewalk.transforms.neighbours import nearest, union_graph
from ropewalk.transforms.paths import edges_path, tree_path
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
"""A document's place in its cluster, from 0; cosine with the one before it (null for the first); whether a segment
starts there, see `order_vectors`."""

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


COUNTERS = (
    "jumps", "dissolved-segments", "near-duplicate-pairs", "window-before-millionths", "window-after-millionths",
)  # fmt: skip
"""Of the orders of clusters: segments taken up anew, segments dissolved, neighbours that are near-duplicates all the
same, and the similarity in windows before and after the local search."""

LARGEST = 1 << 15
"""Rows ordered in one go: comparing all with all is quadratic, and a cluster of copies cannot be split by distance."""


Method = Literal["tree", "edges", "dissolve", "icp"]


def order_vectors(
    vectors: np.ndarray, method: Method, search: LocalSearch, *, min_segment: int = 21
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Orders the vectors of one cluster.

    Args:
        vectors: Unit vectors, float32[n, d]; equal similarities are decided for the lower row. More than `LARGEST` are
            ordered piece by piece, as they come.
        method: `tree`: leaves of average linkage; `edges`: greedy edges; `icp`: greedy path of In-Context Pretraining;
            `dissolve`: the same, its short segments dissolved.
        search: What moves documents afterwards; its neighbours are those of the graph too.
        min_segment: Shorter segments are dissolved by `dissolve`.

    Returns:
        Rows in their order, int64[n]; where a segment starts, bool[n]: without a search, where the path of `icp` and
        `dissolve` was taken up anew, else where a row and the one before it are not among each other's nearest; counts.
    """
    if len(vectors) > LARGEST:
        parts = [
            order_vectors(vectors[first : first + LARGEST], method, search, min_segment=min_segment)
            for first in range(0, len(vectors), LARGEST)
        ]
        order = np.concatenate([i * LARGEST + part[0] for i, part in enumerate(parts)])
        return order, np.concatenate([part[1] for part in parts]), add_counters([part[2] for part in parts])
    starts, dissolved = None, 0
    if method == "tree":
        path = tree_path(vectors)
    elif method == "edges":
        path = edges_path(vectors, neighbours=search.neighbours, below=search.near_duplicate)
    else:
        graph = union_graph(*nearest(vectors, min(search.neighbours, max(len(vectors) - 1, 1))))
        path, starts = greedy_path(*graph)
        if method == "dissolve":
            before = int(starts.sum())
            path, starts = dissolve(*graph, path, starts, min_segment)
            dissolved = before - int(starts.sum())
    order, jumps, counts = search(vectors, path)
    return order, jumps if starts is None or search.search else starts, counts | {"dissolved-segments": dissolved}


@dataclass
class OrderBySimilarity(beam.PTransform):
    """Orders documents inside each cluster.

    In: batches with columns `id` (string, 32 hex digits), `address` (uint64), `cluster` (uint32) and `vector` (any list
    of float16 or float32; unit vectors). Out: batches of `LOCAL`, each cluster whole and in order in one batch. Equal
    similarities are decided by id, so the order of the input does not matter.

    Attributes:
        method: See `order_vectors`.
        neighbours: Nearest neighbours of a document in the graph, and beside which it may move.
        min_segment: Segments with fewer documents are dissolved by `dissolve`.
        window: Documents ahead over which similarity counts in the local search, see `LocalSearch`.
        search: Its passes; 0: none. `icp` without a search is the paper's order.
        near_duplicate: Documents as similar as this, or more, are kept apart by it.
        partitions: Groups the clusters are dealt into; a group must fit in a worker's memory.
    """

    method: Method = "tree"
    neighbours: int = 10
    min_segment: int = 21
    window: int = 10
    search: int = 4
    near_duplicate: float = 0.95
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
        search = LocalSearch(self.window, self.search, self.neighbours, self.near_duplicate)
        counters = {"ordered-docs": len(sort), "clusters": len(borders) - 1} | dict.fromkeys(COUNTERS, 0)
        for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            rows = sort[start:stop]
            vectors = to_matrix(batch.column("vector").take(pa.array(rows)))
            order, starts, counts = order_vectors(vectors, self.method, search, min_segment=self.min_segment)
            ordered = vectors[order]
            similarity = np.einsum("ij,ij->i", ordered[1:], ordered[:-1], dtype=np.float64).astype(np.float32)
            counts["jumps"] = int(starts.sum()) - 1
            counts["near-duplicate-pairs"] = int(np.sum(similarity >= np.float32(self.near_duplicate)))
            counters = add_counters([counters, counts])
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
