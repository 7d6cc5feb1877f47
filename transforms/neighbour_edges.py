"""The graph of nearest neighbours: an undirected edge where either document has the other among its neighbours."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ropewalk.schemas import address, tables
from ropewalk.transforms import batches


def keyed_edges(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Every link of a batch as a row of `tables.EDGES`, keyed by the shard of its lower end.

    Args:
        batch: Rows with `address` and the columns of `tables.NEIGHBOURS`.
    """
    lists = batch.column("neighbours")
    lengths = np.diff(lists.offsets.to_numpy())  # a null list is an empty one
    here = np.repeat(batch.column("address").to_numpy(), lengths)
    there = lists.flatten().to_numpy()
    similarity = batch.column("neighbour_similarity").flatten()
    low, high = np.minimum(here, there), np.maximum(here, there)
    rows = pa.RecordBatch.from_arrays([pa.array(low), pa.array(high), similarity], schema=tables.EDGES)
    yield from batches.split_by_key(rows, address.shards(low))


@dataclass
class UniteEdges:
    """Batch function: links by their lower ends in, in any order, each edge once out, ascending."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, links: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Edges; those that both ends named are counted."""
        a, b = (links.column(name).to_numpy() for name in ("a", "b"))
        order = np.lexsort((b, a))
        a, b = a[order], b[order]
        first = np.r_[True, (a[1:] != a[:-1]) | (b[1:] != b[:-1])][: len(a)]
        edges = links.take(pa.array(order[first]))
        return edges, {"link-edges": len(a), "graph-edges": edges.num_rows, "mutual-edges": len(a) - edges.num_rows}
