"""Random access to rows by address: the one way text or tokens move out of their shard.

On a local disk shards are memory-mapped and only the pages of the rows asked for are read. Elsewhere a shard is read
whole and the last few are kept.
"""

import collections
import itertools
from collections.abc import Iterator, Sequence

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
        parts, places = [], []
        for batch, rows, where in self.parts(addresses):
            parts.append(batch.take(pa.array(rows)))
            places.append(where)
        if not parts:
            schema = pa.schema([self._schema().field(name) for name in self.columns])
            return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)
        back = np.empty(len(addresses), np.int64)
        back[np.concatenate(places)] = np.arange(len(addresses))
        return pa.concat_batches(parts).take(pa.array(back))

    def parts(self, addresses: np.ndarray) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """The rows at `addresses` where they lie, without a copy; reads shard after shard.

        Args:
            addresses: uint64[n].

        Yields:
            A batch, rows of it, and the places in `addresses` that asked for them: int64[m] each.
        """
        order = np.argsort(addresses, kind="stable")
        wanted = addresses[order]
        shards, rows = address.shards(wanted), address.rows(wanted)
        borders = [*np.flatnonzero(np.diff(shards, prepend=-1)).tolist(), len(wanted)]
        for first, last in itertools.pairwise(borders):
            batches, starts = self.batches(int(shards[first]))
            cuts = [*(np.searchsorted(rows[first:last], starts) + first).tolist(), last]
            for batch, start, a, b in zip(batches, starts.tolist(), cuts[:-1], cuts[1:], strict=True):
                if a < b:
                    yield batch, rows[a:b] - start, order[a:b]

    def batches(self, shard: int) -> tuple[list[pa.RecordBatch], np.ndarray]:
        """The batches of a shard and the first row of each: int64[batches]."""
        if shard not in self._open:
            batches = [batch.select(self.columns) for batch in self._reader(shard)]
            starts = np.cumsum([0] + [batch.num_rows for batch in batches])[:-1].astype(np.int64)
            self._open[shard] = (batches, starts)
            if len(self._open) > (
                OPEN_SHARDS if files.is_local(self.corpus.shard_url(self.table, shard)) else OPEN_REMOTE_SHARDS
            ):
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _reader(self, shard: int) -> pa.RecordBatchReader:
        return files.open_arrow(self.corpus.shard_url(self.table, shard))

    def _schema(self) -> pa.Schema:
        return self._reader(0).schema
