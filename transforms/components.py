"""Connected components of a graph of addresses.

All edges meet in one group and are joined by union-find: 16 bytes an edge, 24 bytes a document that has one. That
group is the one place where deduplication does not spread over workers; documents without a copy never get here.
"""

from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.union_find import components
from ropewalk.transforms import batches
from ropewalk.transforms.candidates import EDGES

LABELS = pa.schema([("address", pa.uint64()), ("component", pa.uint64())])
"""Every document that has an edge, and the smallest address of its component."""


def connected_components(edges: pa.RecordBatch) -> pa.RecordBatch:
    """Labels the nodes of a graph.

    Args:
        edges: Columns `a` and `b`, uint64; direction does not matter.

    Returns:
        Rows of `LABELS`, sorted by address.
    """
    ends = np.concatenate([edges.column("a").to_numpy(), edges.column("b").to_numpy()])
    nodes, index = np.unique(ends, return_inverse=True)
    labels = components(len(nodes), index[: edges.num_rows], index[edges.num_rows :])
    return pa.RecordBatch.from_arrays([nodes, nodes[labels]], schema=LABELS)


@dataclass
class ConnectedComponents(beam.PTransform):
    """Batches of edges in, one batch of `LABELS` out."""

    def expand(self, edges: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Gathers all edges in one group and labels them."""
        return (
            edges
            | beam.Map(_alone).with_output_types(tuple[int, pa.RecordBatch])
            | beam.GroupByKey()
            | beam.Map(_label).with_output_types(pa.RecordBatch)
        )


def _alone(edges: pa.RecordBatch) -> tuple[int, pa.RecordBatch]:
    return 0, edges.select(EDGES.names)


def _label(group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> pa.RecordBatch:
    return connected_components(batches.concat(group[1], EDGES))
