"""Which records a request cache holds, and which of several with one key counts.

Workers that run twice (Beam's bundles are at least once) leave several records of one key. The winner is the one cached
first, ties broken by a hash of the content: it depends neither on the order segments are listed or compacted in nor on
where a record lies. Of each winner the index keeps key and place, 24 bytes, and 32 of each record batch; texts stay on
disk.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ropewalk.synth.cache_segments import BATCH, Scan


@dataclass(frozen=True)
class Catalog:
    """All records of some segments, in the order they are read: segment by segment, batch by batch.

    Attributes:
        batches: `BATCH`; `segment` counts the scans.
        keys: uint64 (n, 2).
        created: int64 (n,), Unix nanoseconds.
        batch: uint32 (n,): record batch of each record.
        row: uint32 (n,): its row in it.
    """

    batches: np.ndarray
    keys: np.ndarray
    created: np.ndarray
    batch: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, scans: Sequence[Scan]) -> "Catalog":
        """Joins what was found in segments."""
        batches = np.concatenate([np.empty(0, BATCH), *(scan.batches for scan in scans)])
        batches["segment"] = np.repeat(np.arange(len(scans)), [len(scan.batches) for scan in scans])
        rows = batches["rows"].astype(np.int64)
        first = np.cumsum(rows) - rows
        return cls(
            batches,
            np.concatenate([np.empty((0, 2), np.uint64), *(scan.keys for scan in scans)]),
            np.concatenate([np.empty(0, np.int64), *(scan.created for scan in scans)]),
            np.repeat(np.arange(len(rows), dtype=np.uint32), rows),
            (np.arange(rows.sum()) - np.repeat(first, rows)).astype(np.uint32),
        )

    def winners(self, read: Callable[[int], pa.RecordBatch]) -> np.ndarray:
        """The record that counts of each key: int64 record numbers, in the order of their keys.

        Args:
            read: Gives a record batch by number; called only where records of one key have one time, such as copies
                left by a compaction that was killed.
        """
        order = np.lexsort((self.created, self.keys[:, 1], self.keys[:, 0]))
        keys, created = self.keys[order], self.created[order]
        first = np.ones(len(order), bool)
        first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        tied = np.zeros(len(order) + 1, bool)
        tied[1:-1] = ~first[1:] & (created[1:] == created[:-1])
        starts = np.flatnonzero(first)
        winners = order[starts]
        ties = np.flatnonzero(tied[starts + 1])
        for place in ties[np.argsort(winners[ties])]:  # in the order of the files, so that each is read once
            start = int(starts[place])
            stop = start + 1
            while tied[stop]:
                stop += 1
            records = order[start:stop].tolist()
            rows = [read(int(self.batch[record])).slice(int(self.row[record]), 1) for record in records]
            if not all(row.equals(rows[0]) for row in rows[1:]):
                winners[place] = min(zip(map(_content, rows), records, strict=True))[1]
        return winners


def _content(row: pa.RecordBatch) -> bytes:
    """A hash of one record, wherever it lies."""
    text = json.dumps(row.to_pylist(), sort_keys=True, default=bytes.hex)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Index:
    """Finds the winner of a key by binary search."""

    def __init__(self, catalog: Catalog, winners: np.ndarray) -> None:
        self.batches = catalog.batches
        self._high = catalog.keys[winners, 0]
        self._low = catalog.keys[winners, 1]
        self._batch = catalog.batch[winners]
        self._row = catalog.row[winners]

    def __len__(self) -> int:
        return len(self._high)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(a.nbytes for a in (self.batches, self._high, self._low, self._batch, self._row))

    def find(self, key: bytes) -> tuple[int, int] | None:
        """Number of the record batch that holds `key`, and the row in it."""
        high, low = struct.unpack(">QQ", key)
        place = int(np.searchsorted(self._high, np.uint64(high)))
        while place < len(self._high) and self._high[place] == high:
            if self._low[place] == low:
                return int(self._batch[place]), int(self._row[place])
            place += 1
        return None
