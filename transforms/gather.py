"""Random access to rows by address: the one way text or tokens move out of their shard.

On a local disk shards are memory-mapped and only the pages of the rows asked for are read. Elsewhere a shard is read
whole and the last few are kept.
"""

import collections
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ropewalk.schemas import address, files
from ropewalk.transforms.corpus_dir import CorpusDir

OPEN_SHARDS = 64
OPEN_REMOTE_SHARDS = 4


class Gather:
    """Fetches rows of one table of a corpus.

    Args:
        corpus: The corpus.
        table: `documents`, or a stage.
        columns: The columns wanted.
    """

    def __init__(self, corpus: CorpusDir, table: str, columns: Sequence[str]) -> None:
        self.corpus, self.table, self.columns = corpus, table, list(columns)
        self._open: collections.OrderedDict[int, tuple[list[pa.RecordBatch], np.ndarray]] = collections.OrderedDict()

    def rows(self, addresses: np.ndarray) -> pa.RecordBatch:
        """The rows at `addresses` (uint64[n]), in that order; reads shard after shard."""
        order = np.argsort(addresses, kind="stable")
        wanted = addresses[order]
        parts = []
        for shard in np.unique(address.shards(wanted)).tolist():
            rows = address.rows(wanted[address.shards(wanted) == shard])
            batches, starts = self.batches(shard)
            where = np.searchsorted(starts, rows, side="right") - 1
            for index in np.unique(where).tolist():
                parts.append(batches[index].take(pa.array(rows[where == index] - starts[index])))
        if not parts:
            schema = pa.schema([self._schema().field(name) for name in self.columns])
            return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_batches(parts).take(pa.array(back))

    def batches(self, shard: int) -> tuple[list[pa.RecordBatch], np.ndarray]:
        """The batches of a shard and the first row of each: int64[batches]."""
        if shard not in self._open:
            batches = [batch.select(self.columns) for batch in self._reader(shard)]
            starts = np.cumsum([0] + [batch.num_rows for batch in batches])[:-1].astype(np.int64)
            self._open[shard] = (batches, starts)
            if len(self._open) > (OPEN_SHARDS if files.is_local(self.corpus.url) else OPEN_REMOTE_SHARDS):
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _reader(self, shard: int) -> pa.RecordBatchReader:
        return files.open_arrow(files.join(self.corpus.folder(self.table), self.corpus.file_names[shard]))

    def _schema(self) -> pa.Schema:
        return self._reader(0).schema
