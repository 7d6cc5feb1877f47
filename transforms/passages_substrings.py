"""Runs of n bytes that occurred before, wherever they begin: exact, for runs of any length from n on.

    window     n bytes at any place of a text, characters cut or not
    first      its first occurrence in the corpus, in the order of `passages`
    cut        bytes of windows that are not first, but not those of any window that is the first of several; runs of n
               bytes or more of them

So each window that is cut somewhere stands whole where it is first, and a megabyte of one byte loses all but n bytes.

Windows meet by their anchors (`kernels.winnow`): equal windows have equal anchors at the same distance, so grouping the
anchors by hash, 44 bytes for one in n / 4 bytes of text, brings all of them together. In a group:

    all around it equal   all windows are judged at once: the first occurrence is first, the others repeats. Equality
                          is that of a 64-bit hash among equal anchors: two contexts pass for one with 2^-64 a pair
    several contexts      one text of each context is fetched by address, and each window judged on its bytes
                          (`kernels.window_verdicts`)

A group's cost is linear in its size. Windows that repeat a window up to 16 bytes before (`kernels.periodic_windows`)
have no anchor: they are no firsts, and what they repeat has one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ropewalk.kernels import spans
from ropewalk.kernels.copy_spans import copy_spans
from ropewalk.kernels.periodic_windows import periodic_windows
from ropewalk.kernels.window_verdicts import FIRST, UNIQUE, window_verdicts
from ropewalk.kernels.winnow import context_hashes, winnow
from ropewalk.transforms import utf8
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.passages import LivePieces, changes, shared

ANCHORS = pa.schema(
    [
        ("high", pa.uint64()),  # hash of the anchor
        ("low", pa.uint64()),  # hash of its context
        ("order", pa.uint64()),
        ("address", pa.uint64()),
        ("anchor", pa.uint32()),
        ("first", pa.uint32()),
        ("last", pa.uint32()),
    ]
)
"""Anchors by hash: bytes of the text where the anchor and the first and the last of its windows begin."""
ANCHOR_BYTES = 44

WINDOWS = pa.schema([("address", pa.uint64()), ("start", pa.uint32()), ("stop", pa.uint32()), ("keep", pa.bool_())])
"""Windows that begin in bytes [start, stop): repeats, or, if they are kept, the first ones of several."""

CONTEXT_BYTES = 64 << 20
"""Text that is compared at once; only the contexts of one anchor can be more."""


def anchor_bytes(least: int) -> int:
    """Bytes of an anchor, for windows of `least` bytes: half of them."""
    return least // 2


def run_windows(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows of runs as `periodic_windows` finds them, joined: starts and stops."""
    return spans.union(runs[:, 0], runs[:, 1] + 1)


@dataclass
class FindAnchors:
    """Batch function: documents in, their anchors out (`ANCHORS`).

    Attributes:
        least: Bytes of a window.
        earlier: Columns of spans that were cut before.
        threads: Threads for the kernels.
    """

    least: int
    earlier: Sequence[str] = ()
    threads: int = 1

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Anchors, in the order of the texts."""
        live = LivePieces.of(batch, self.earlier)

        def find(part: slice) -> tuple[np.ndarray, ...]:
            begin, end = live.begin[part], live.end[part]
            first, stop = run_windows(periodic_windows(live.data, begin, end, self.least))
            found, high = winnow(live.data, begin, end, self.least, anchor_bytes(self.least), first, stop - 1)
            low = context_hashes(live.data, found, self.least)
            found[:, 0] += part.start
            return found, high, low

        found, high, low = live.spread(find, self.threads)
        text = live.texts(found[:, 0])
        places = (found[:, 1:] - live.offsets[text][:, None]).astype(np.uint32)
        columns = [high, low, live.order[text], live.address[text], *np.ascontiguousarray(places.T)]
        return pa.RecordBatch.from_arrays(columns, schema=ANCHORS), {
            "anchors": len(text),
            "anchored-bytes": int((live.end - live.begin).sum()),
        }


@dataclass
class JudgeAnchors:
    """Batch function: all anchors of some hashes in, what became of their windows out (`WINDOWS`), sorted.

    Attributes:
        corpus: Where the texts are.
        least: Bytes of a window.
    """

    corpus: CorpusDir
    least: int
    _texts: Gather | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the texts."""
        self._texts = Gather(self.corpus, DOCUMENTS, ["text"])

    def __call__(self, anchors: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Judges whole groups at once where their contexts agree, else window by window."""
        high, low, order, address, place, first, last = (column.to_numpy() for column in anchors.columns)
        rows = shared(high)
        rows = rows[np.lexsort((place[rows], address[rows], order[rows], low[rows], high[rows]))]
        anew, fresh = changes(high[rows]), changes(high[rows], low[rows])
        contexts = np.diff(np.append(np.flatnonzero(fresh), len(rows)))  # anchors of each context
        per_group = np.bincount(np.cumsum(anew) - 1, fresh, minlength=0)[np.cumsum(anew) - 1]  # contexts of its group
        whole = ~fresh | (per_group == 1)
        parts = [(address[rows[whole]], first[rows[whole]], last[rows[whole]].astype(np.int64) + 1, fresh[whole])]

        several = np.repeat(contexts > 1, contexts)[fresh & ~whole]
        rows = rows[fresh & ~whole]
        by_order = np.lexsort((place[rows], address[rows], order[rows], high[rows]))
        rows, several = rows[by_order], several[by_order]
        size = last[rows].astype(np.int64) - first[rows] + self.least
        for chunk in _chunks(changes(high[rows]), size):
            these = rows[chunk]
            parts.append(
                self._judge(high[these], address[these], place[these].astype(np.int64), first[these].astype(np.int64),
                            last[these].astype(np.int64), several[chunk])
            )  # fmt: skip
        where, starts, stops, keep = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        by_place = np.lexsort((stops, starts, where))
        columns = [where, starts.astype(np.uint32), stops.astype(np.uint32), keep]
        return pa.RecordBatch.from_arrays([column[by_place] for column in columns], schema=WINDOWS), {
            "repeated-anchors": int(len(anew)),
            "most_copies-anchors": int(np.bincount(np.cumsum(anew)).max(initial=0)),
            "compared-anchors": len(rows),
            "compared-bytes": int(size.sum()),
        }

    def _judge(
        self, high: np.ndarray, address: np.ndarray, place: np.ndarray, first: np.ndarray, last: np.ndarray,
        several: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Address, starts, stops and `keep` of runs of windows with one verdict; groups by `high`, members in order."""
        assert self._texts is not None
        sizes = last - first + self.least
        offsets, borders = np.append(0, np.cumsum(sizes)), np.append(0, np.cumsum(last - first + 1))
        data, verdicts = np.empty(offsets[-1], np.uint8), np.empty(borders[-1], np.uint8)
        for batch, at, members in self._texts.parts(address):
            texts, begin = utf8.buffers(batch.column("text"))
            copy_spans(texts, begin[at] + first[members], sizes[members], data, offsets[members])
        groups = np.append(np.flatnonzero(changes(high)), len(high))
        window_verdicts(
            data, offsets, place - first, last - first, groups, self.least, anchor_bytes(self.least), borders, verdicts
        )
        member = np.repeat(np.arange(len(high)), np.diff(borders))
        # The one text that was fetched stands for others that are equal all around: it is the first of them.
        verdicts[several[member] & (verdicts == UNIQUE)] = FIRST
        starts = np.flatnonzero(changes(member, verdicts))
        stops = np.append(starts[1:], len(verdicts))
        told = verdicts[starts] != UNIQUE
        starts, stops = starts[told], stops[told]
        member = member[starts]
        shift = first[member] - borders[member]
        return address[member], starts + shift, stops + shift, verdicts[starts] == FIRST


def _chunks(anew: np.ndarray, size: np.ndarray) -> Iterator[slice]:
    """Ranges of whole groups of about `CONTEXT_BYTES` together."""
    total = np.append(0, np.cumsum(size))
    starts = np.append(np.flatnonzero(anew), len(size))
    start = 0
    while start < len(size):
        full = int(np.searchsorted(total[starts], total[start] + CONTEXT_BYTES, side="right")) - 1
        stop = int(starts[max(full, int(np.searchsorted(starts, start)) + 1)])
        yield slice(start, stop)
        start = stop


def repeated_spans(
    live: LivePieces, windows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is cut of some texts.

    Args:
        live: The texts.
        windows: Text, start, stop and `keep` of the windows that were judged, as in `WINDOWS`, int64[m] and bool[m].
        least: Bytes of a window; a cut has as many at least.

    Returns:
        Text, and start and stop in `live.data`: int64[cuts] each, ascending. Ends may be inside a character.
    """
    runs = periodic_windows(live.data, live.begin, live.end, least)
    # Each text is moved on by its number: what touches is in one text.
    text, starts, stops, keep = windows
    shift = live.offsets[text] + text
    starts, stops = starts + shift, stops + shift
    in_text = live.texts_at(runs[:, 0])
    first, last, period = runs[:, 0] + in_text, runs[:, 1] + in_text, runs[:, 2]
    repeats = spans.union(np.append(starts[~keep], first), np.append(stops[~keep], last + 1))
    # What the first windows of a run repeat is first, unless it is known for a repeat itself.
    sources = spans.union(first - period, np.minimum(first, last - period + 1))
    sources = spans.difference(*sources, *repeats)
    firsts = spans.union(np.append(starts[keep], sources[0]), np.append(stops[keep], sources[1]))
    cut = spans.union(repeats[0], repeats[1] + least - 1)
    kept = spans.union(firsts[0], firsts[1] + least - 1)
    starts, stops = spans.difference(*cut, *kept)
    long = stops - starts >= least
    starts, stops = starts[long], stops[long]
    text = np.searchsorted(live.offsets[:-1] + np.arange(len(live.offsets) - 1), starts, side="right") - 1
    return text, starts - text, stops - text
