"""Paragraphs and lines that occurred before: all copies but the first.

Units are compared by a 128-bit hash of their words (`kernels.passage_units`): of 10^12 different units, two share one
with probability 1e-15 (two that differ in one word only, with 2^-64, as that word's hash has 64 bits).

The first copy is the one in the document with the smallest id, and in it the one that comes first; where ids agree in
their first 64 bits, the address decides. So neither shards nor the order of rows matter.

    documents  id text [alive] [spans cut before]
               |
    units      hash, order of the document, place: 40 bytes each        no shuffle
               |
    repeats    places of all copies but the first                       the units by hash; 16 bytes a repeat
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ropewalk.kernels import passage_units, words
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.transforms import utf8
from ropewalk.transforms.cuts import pieces

UNITS = pa.schema(
    [
        ("high", pa.uint64()),
        ("low", pa.uint64()),
        ("order", pa.uint64()),  # the first 64 bits of the document's id: the smallest is first
        ("address", pa.uint64()),
        ("start", pa.uint32()),
        ("stop", pa.uint32()),
    ]
)
"""Units by hash; bytes [start, stop) of a document's text."""
UNIT_BYTES = 40

REPEATS = pa.schema([("address", pa.uint64()), ("start", pa.uint32()), ("stop", pa.uint32())])
"""Bytes to cut."""

KINDS = {"paragraph": passage_units.PARAGRAPH, "line": passage_units.LINE}


@dataclass(frozen=True)
class LivePieces:
    """What is looked at of a batch of documents: the texts of those that are in, without what was cut before.

    Attributes:
        address: Address of each text, uint64[n].
        order: Place of its document in the order that tells which copy is first, uint64[n].
        data: Bytes of all texts, uint8.
        offsets: Where each text is in them, int64[n + 1].
        begin: Where each piece begins, int64[p].
        end: Where each piece ends, int64[p].
        borders: Where the pieces of each text are, int64[n + 1].
    """

    address: np.ndarray
    order: np.ndarray
    data: np.ndarray
    offsets: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    borders: np.ndarray

    @classmethod
    def of(cls, batch: pa.RecordBatch, earlier: Sequence[str]) -> "LivePieces":
        """From columns `address`, `id`, `text`, `alive` and those of the spans that were cut before."""
        if batch.column("alive").true_count < batch.num_rows:
            batch = batch.filter(batch.column("alive"))
        text = batch.column("text")
        order, _ = from_hex(batch.column("id"))
        parts = pieces(text, [batch.column(name) for name in earlier])
        return cls(batch.column("address").to_numpy(), order, *utf8.buffers(text), *parts)

    def spread(self, find: Callable[[slice], tuple[np.ndarray, ...]], threads: int) -> list[np.ndarray]:
        """Calls `find(pieces)` for ranges of pieces on some threads; joins what it returns, piece after piece."""
        found: dict[int, tuple[np.ndarray, ...]] = {}

        def run(first: int, last: int) -> None:
            found[first] = find(slice(self.borders[first], self.borders[last]))

        utf8.spread(run, self.offsets, threads)
        return [np.concatenate(parts) for parts in zip(*(found[first] for first in sorted(found)), strict=True)]

    def texts(self, piece: np.ndarray) -> np.ndarray:
        """The text that each piece belongs to: int64[m] -> int64[m]."""
        return np.searchsorted(self.borders, piece, side="right") - 1

    def texts_at(self, place: np.ndarray) -> np.ndarray:
        """The text that holds each byte of `data`: int64[m] -> int64[m]."""
        return np.searchsorted(self.offsets, place, side="right") - 1


@dataclass
class HashUnits:
    """Batch function: documents in, their paragraphs or lines out (`UNITS`).

    Attributes:
        kind: `paragraph` or `line`.
        least: Bytes of a unit, at least.
        earlier: Columns of spans that were cut before.
        threads: Threads for the kernel.
    """

    kind: str
    least: int
    earlier: Sequence[str] = ()
    threads: int = 1

    def setup(self) -> None:
        """Makes the table of characters."""
        words.table()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Units, in the order of the texts."""
        live = LivePieces.of(batch, self.earlier)

        def find(part: slice) -> tuple[np.ndarray, ...]:
            begin, end = live.begin[part], live.end[part]
            room = passage_units.count_lines(live.data, begin, end)
            piece, starts, stops = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
            hashes = np.empty((room, 2), np.uint64)
            count = passage_units.passage_units(
                live.data, begin, end, KINDS[self.kind], self.least, words.table(), piece, starts, stops, hashes
            )
            return piece[:count] + part.start, starts[:count], stops[:count], hashes[:count]

        piece, starts, stops, hashes = live.spread(find, self.threads)
        text = live.texts(piece)
        base = live.offsets[text]
        units = pa.RecordBatch.from_arrays(
            [
                hashes[:, 0], hashes[:, 1], live.order[text], live.address[text],
                (starts - base).astype(np.uint32), (stops - base).astype(np.uint32),
            ],
            schema=UNITS,
        )  # fmt: skip
        return units, {f"hashed-{self.kind}s": len(text), f"hashed_{self.kind}-bytes": int((stops - starts).sum())}


@dataclass
class KeepFirst:
    """Batch function: all units of some hashes in, those that are not the first of theirs out (`REPEATS`), sorted.

    Attributes:
        kind: `paragraph` or `line`.
    """

    kind: str

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, units: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Repeats, and how many there are of the one that has most."""
        high, low, order, address, start, stop = (column.to_numpy() for column in units.columns)
        rows = shared(high)
        rows = rows[np.lexsort((start[rows], address[rows], order[rows], low[rows], high[rows]))]
        fresh = changes(high[rows], low[rows])
        sizes = np.diff(np.append(np.flatnonzero(fresh), len(rows)))
        rows = rows[~fresh]
        rows = rows[np.lexsort((start[rows], address[rows]))]
        repeats = pa.RecordBatch.from_arrays([address[rows], start[rows], stop[rows]], schema=REPEATS)
        return repeats, {
            f"repeated-{self.kind}s": len(rows),
            f"most_copies-{self.kind}s": int(sizes.max(initial=0)),
        }


def shared(keys: np.ndarray) -> np.ndarray:
    """Rows whose key another row has as well: uint64[n] -> int64[m], by key."""
    rows = np.argsort(keys)
    same = keys[rows[1:]] == keys[rows[:-1]]
    return rows[np.append(same, False) | np.append(False, same)] if len(rows) else rows


def changes(*keys: np.ndarray) -> np.ndarray:
    """Whether a row of sorted keys differs from the one before it: [n] each -> bool[n]; the first one does."""
    fresh = np.zeros(len(keys[0]), bool)
    fresh[:1] = True
    for key in keys:
        fresh[1:] |= key[1:] != key[:-1]
    return fresh
