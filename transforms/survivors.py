"""Who stays of a group of copies: the best by an explicit total order.

Higher quality, longer text (compared up to 16 MiB), higher priority of the source, smaller id, smaller address; the
first three are in a sketch's `order`, see `sketch`. A group is a connected component, or a star in it: what is itself
similar to the survivor, see `kernels.star_clusters`.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels.star_clusters import star_clusters
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.members import split

SURVIVORS = pa.schema([("address", pa.uint64()), ("survivor", pa.uint64()), ("component_size", pa.uint32())])
"""Every document of a group of copies, the address of the one that stays, and the group's size."""


def survivors(
    labels: pa.RecordBatch, order: pa.Array, ids: pa.Array, edges: pa.RecordBatch | None = None
) -> pa.RecordBatch:
    """Picks the survivor of each group.

    Args:
        labels: n members, whole components: `address` and `component`.
        order: Prefix of the survivor order of each row, larger is better, uint64[n].
        ids: Document id of each row, string[n].
        edges: `address` and `other` of all edges between them; groups are stars. None: groups are components.

    Returns:
        Rows of `SURVIVORS`, sorted by component, then best first; documents that no other one belongs with are left
        out.
    """
    table = pa.table(
        {"component": labels.column("component"), "order": order, "id": ids, "address": labels.column("address")}
    )
    best_first = [("component", "ascending"), ("order", "descending"), ("id", "ascending"), ("address", "ascending")]
    place = pc.sort_indices(table, sort_keys=best_first).to_numpy()
    address, component = labels.column("address").to_numpy()[place], labels.column("component").to_numpy()[place]
    if edges is None:
        starts = np.flatnonzero(np.diff(component, prepend=component[:1] + np.uint64(1)))
        survivor = np.repeat(starts, np.diff(np.append(starts, len(component))))
    else:
        by_address = np.argsort(address)
        a, b = (
            by_address[np.searchsorted(address, edges.column(name).to_numpy(), sorter=by_address)]
            for name in ("address", "other")
        )
        survivor = star_clusters(len(address), a, b)
    sizes = np.bincount(survivor, minlength=len(address))[survivor]
    copied = sizes > 1
    columns = [address[copied], address[survivor[copied]], sizes[copied].astype(np.uint32)]
    return pa.RecordBatch.from_arrays(columns, schema=SURVIVORS)


@dataclass
class PickSurvivors:
    """Batch function: whole components in (`members.MEMBERS`), `SURVIVORS` out.

    Attributes:
        corpus: Where the ids are.
        sketches: Table of the sketches.
        clusters: `components`, or `star`, which needs the components' edges as well.
    """

    corpus: CorpusDir
    sketches: str
    clusters: Literal["components", "star"] = "components"
    _tables: tuple[Gather, Gather] | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the tables."""
        self._tables = Gather(self.corpus, self.sketches, ["order"]), Gather(self.corpus, DOCUMENTS, ["id"])

    def __call__(self, members: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Survivors; how many groups there are, and how many members belong with no other after all."""
        assert self._tables is not None
        labels, edges = (members, None) if self.clusters == "components" else split(members)
        address = labels.column("address").to_numpy()
        order, ids = (table.rows(address).column(0) for table in self._tables)
        result = survivors(labels, order, ids, edges)
        return result, {
            "copied-docs": int((result.column("address").to_numpy() == result.column("survivor").to_numpy()).sum()),
            "unpaired-docs": labels.num_rows - result.num_rows,
        }
