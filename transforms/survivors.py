"""Who stays of a group of copies: the best by an explicit total order.

Higher quality, longer text (compared up to 16 MiB), higher priority of the source, smaller id, smaller address; the
first three are in a sketch's `order`, see `sketch`.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather

SURVIVORS = pa.schema([("address", pa.uint64()), ("survivor", pa.uint64()), ("component_size", pa.uint32())])
"""Every document of a group of copies, the address of the one that stays, and the group's size."""


def survivors(labels: pa.RecordBatch, order: pa.Array, ids: pa.Array) -> pa.RecordBatch:
    """Picks the survivor of each component.

    Args:
        labels: n rows of `components.LABELS`, whole components.
        order: Prefix of the survivor order of each row, larger is better, uint64[n].
        ids: Document id of each row, string[n].

    Returns:
        n rows of `SURVIVORS`, sorted by component, then best first.
    """
    table = pa.table(
        {"component": labels.column("component"), "order": order, "id": ids, "address": labels.column("address")}
    )
    best_first = [("component", "ascending"), ("order", "descending"), ("id", "ascending"), ("address", "ascending")]
    place = pc.sort_indices(table, sort_keys=best_first).to_numpy()
    address, component = labels.column("address").to_numpy()[place], labels.column("component").to_numpy()[place]
    starts = np.flatnonzero(np.diff(component, prepend=component[:1] + np.uint64(1)))
    sizes = np.diff(np.append(starts, len(component)))
    columns = [address, np.repeat(address[starts], sizes), np.repeat(sizes, sizes).astype(np.uint32)]
    return pa.RecordBatch.from_arrays(columns, schema=SURVIVORS)


@dataclass
class PickSurvivors:
    """Batch function: whole components in (`components.LABELS`), `SURVIVORS` out.

    Attributes:
        corpus: Where the ids are.
        sketches: Table of the sketches.
    """

    corpus: CorpusDir
    sketches: str
    _tables: tuple[Gather, Gather] | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the tables."""
        self._tables = Gather(self.corpus, self.sketches, ["order"]), Gather(self.corpus, DOCUMENTS, ["id"])

    def __call__(self, labels: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Survivors, and how many groups there are."""
        assert self._tables is not None
        address = labels.column("address").to_numpy()
        order, ids = (table.rows(address).column(0) for table in self._tables)
        result = survivors(labels, order, ids)
        return result, {"copied-docs": int((result.column("address").to_numpy() == result.column(1).to_numpy()).sum())}
