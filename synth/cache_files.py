"""A request cache as files: what is in it, reading it, and cleaning it up.

Cleaning never changes a segment: it writes new ones, and when they are durable removes those they replace. A run that
is killed in between leaves some records twice, and equal ones at that: the cache answers as before, and the next
cleaning removes them. Segments a writer is still at are left alone: on a local disk those that are locked, on other
filesystems those put within the last hour. A run that has the cache open goes on: its index is renewed when a segment
is gone.
"""

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import files
from ropewalk.synth import cache_segments, cache_store
from ropewalk.synth.cache_index import Catalog

_LEFT = re.compile(r"\d{19}-.*\.arrow" + re.escape(files.TEMPORARY) + ".*")
_SUMS = ("prompt_tokens", "cached_tokens", "generated_tokens")
SEGMENT_BYTES = 256 << 20
"""Cleaning ends a segment at this size, and joins segments smaller than half of it."""


@dataclass
class Tally:
    """Records and the tokens generated for them."""

    records: int = 0
    generated_tokens: int = 0


@dataclass
class CacheStats:
    """What is in a cache.

    Attributes:
        segments: Files.
        open_segments: Of those, being written (on object stores: younger than an hour).
        torn_segments: Closed ones with bytes that are no record: their writer was killed, or the disk is bad.
        bytes: Size of all.
        torn_bytes: Bytes of closed segments that are no record.
        records: Readable records.
        keys: Distinct requests.
        duplicates: Records that another of the same request stands for.
        prompt_tokens: Read by the model for these records, duplicates included, as are the next two.
        cached_tokens: Of those, found in a prefix cache.
        generated_tokens: Generated.
        by_model: Records by model.
        by_step: By family of steps: `write` is `write-1`, `write-2`, …
        by_finish_reason: By why the generation ended.
        oldest_ns: When the first record was cached, Unix nanoseconds; none in an empty cache.
        newest_ns: When the last was.
    """

    segments: int = 0
    open_segments: int = 0
    torn_segments: int = 0
    bytes: int = 0
    torn_bytes: int = 0
    records: int = 0
    keys: int = 0
    duplicates: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    by_model: dict[str, Tally] = field(default_factory=dict)
    by_step: dict[str, Tally] = field(default_factory=dict)
    by_finish_reason: dict[str, Tally] = field(default_factory=dict)
    oldest_ns: int | None = None
    newest_ns: int | None = None


@dataclass(frozen=True)
class CollectResult:
    """What a cleaning did, or would do.

    Attributes:
        kept: Records that stay, in closed segments.
        duplicates: Records removed because an earlier one of the same request stands for them.
        filtered: Winners removed because they were asked to be.
        torn_bytes: Bytes removed because they were no record.
        segments_replaced: Segments removed.
        segments_written: Segments they were joined in; 0 in a dry run.
        segments_open: Segments left alone because somebody may be writing them.
        bytes_before: Size of all closed segments before.
        bytes_after: And after; as before in a dry run.
    """

    kept: int = 0
    duplicates: int = 0
    filtered: int = 0
    torn_bytes: int = 0
    segments_replaced: int = 0
    segments_written: int = 0
    segments_open: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


@dataclass
class _Segment:
    """A segment that was looked at.

    Attributes:
        keep: bool, one for each of its records: whether it stays.
    """

    name: str
    size: int
    torn: int
    batches: np.ndarray
    keep: np.ndarray

    def rows(self, data: pa.Buffer) -> Iterator[pa.RecordBatch]:
        """The records that stay."""
        start = 0
        for batch in self.batches:
            keep = self.keep[start : start + int(batch["rows"])]
            start += len(keep)
            if keep.any():
                rows = _read(data, batch)
                yield rows if keep.all() else rows.filter(pa.array(keep))


def stats(url: str) -> CacheStats:
    """Reads a whole cache and counts; all 0 if there is none."""
    found = CacheStats()
    keys = [np.empty((0, 2), np.uint64)]
    tables: list[pa.Table] = []
    sizes: dict[str, int] = {}
    for name, data in cache_store.load_all(url):
        still_open = cache_store.is_open(url, name)
        scan = cache_segments.verify(cache_segments.scan(data, name), data)
        sizes[name] = data.size
        found.open_segments += still_open
        if not still_open:
            found.torn_segments += scan.torn > 0
            found.torn_bytes += scan.torn
        keys.append(scan.keys)
        tables.extend(_summary(_read(data, batch)) for batch in scan.batches)
    found.segments, found.bytes = len(sizes), sum(sizes.values())
    if tables:
        _count(found, pa.concat_tables(tables))
        found.keys = len(np.unique(np.concatenate(keys), axis=0))
        found.duplicates = found.records - found.keys
    return found


def read(url: str) -> Iterator[pa.RecordBatch]:
    """The records of a cache, one of each request, as batches of `synthesis.CALLS`.

    Args:
        url: Folder of the cache; nothing is yielded if there is none.

    Raises:
        FileNotFoundError: A compaction ran meanwhile; begin anew.
    """
    for segment in _survey(url):
        if segment.keep.any():
            yield from segment.rows(cache_store.load(url, segment.name, segment.size))


def collect(
    url: str, *, older_than_days: float | None = None, model: str | None = None, dry_run: bool = False
) -> CollectResult:
    """Cleans a cache: duplicates and torn tails go, small segments become large ones. Runs may go on meanwhile.

    With a filter, records that meet it go as well; with both, those that meet both.

    Args:
        url: Folder of the cache.
        older_than_days: Remove records cached longer ago.
        model: Remove records of this model.
        dry_run: Only say what would be done.

    Raises:
        BlockingIOError: Somebody else is cleaning this (local) cache.
        OSError: The disk is full, or failed; the cache is whole.
    """
    names = cache_segments.sizes(url)
    if not names:
        return CollectResult()
    with _alone(url):
        is_open = {name for name in names if cache_store.is_open(url, name)}
        segments = _survey(url, skip=lambda name: name in is_open or name not in names)
        winners = sum(int(segment.keep.sum()) for segment in segments)
        if older_than_days is not None or model is not None:
            before = None if older_than_days is None else time.time_ns() - int(older_than_days * 86400e9)
            for segment in segments:
                segment.keep &= ~_filtered(url, segment, before, model)
        replaced = _worth_replacing(segments)
        written = [] if dry_run else _rewrite(url, replaced)
        for segment in [] if dry_run else replaced:
            files.remove(files.join(url, segment.name))
        if not dry_run:
            _sweep(url)
        kept = sum(int(segment.keep.sum()) for segment in segments)
        before_bytes = sum(segment.size for segment in segments)
        freed = 0 if dry_run else sum(segment.size for segment in replaced) - sum(written)
        return CollectResult(
            kept=kept,
            duplicates=sum(len(segment.keep) for segment in segments) - winners,
            filtered=winners - kept,
            torn_bytes=sum(segment.torn for segment in segments),
            segments_replaced=len(replaced),
            segments_written=len(written),
            segments_open=len(is_open),
            bytes_before=before_bytes,
            bytes_after=before_bytes - freed,
        )


def _read(data: pa.Buffer, batch: np.void) -> pa.RecordBatch:
    """A record batch of a segment."""
    return cache_segments.read_message(data.slice(int(batch["offset"]), int(batch["length"])), int(batch["xxh3"]))


def _summary(batch: pa.RecordBatch) -> pa.Table:
    """Few rows for many: records and tokens by model, step and finish reason."""
    step = pc.replace_substring_regex(batch.column("step"), r"(-\d+)+$", "")
    table = pa.table(
        {name: batch.column(name) for name in ("model", "finish_reason", *_SUMS, "created_ns")} | {"step": step}
    )
    sums = [(name, "sum") for name in _SUMS] + [("created_ns", how) for how in ("min", "max", "count")]
    return table.group_by(["model", "step", "finish_reason"]).aggregate(sums)


def _count(found: CacheStats, table: pa.Table) -> None:
    """Adds summaries up."""
    for name in _SUMS:
        setattr(found, name, pc.sum(table[f"{name}_sum"]).as_py())
    found.records = pc.sum(table["created_ns_count"]).as_py()
    found.oldest_ns = pc.min(table["created_ns_min"]).as_py()
    found.newest_ns = pc.max(table["created_ns_max"]).as_py()
    for column, target in (
        ("model", found.by_model), ("step", found.by_step), ("finish_reason", found.by_finish_reason)
    ):  # fmt: skip
        sums = table.group_by(column).aggregate([("created_ns_count", "sum"), ("generated_tokens_sum", "sum")])
        for row in sums.sort_by(column).to_pylist():
            target[row[column]] = Tally(row["created_ns_count_sum"], row["generated_tokens_sum_sum"])


def _survey(url: str, skip: Callable[[str], bool] = lambda name: False) -> list[_Segment]:
    """Looks at all segments; of each, the winners stay."""
    names, sizes, scans = [], [], []
    for name, data in cache_store.load_all(url, skip):
        names.append(name)
        sizes.append(data.size)
        scans.append(cache_segments.verify(cache_segments.scan(data, name), data))
    if not scans:
        return []
    catalog = Catalog.of(scans)
    segment_data = functools.lru_cache(2)(lambda number: cache_store.load(url, names[number], sizes[number]))

    @functools.lru_cache(16)
    def read(number: int) -> pa.RecordBatch:
        batch = catalog.batches[number]
        return _read(segment_data(int(batch["segment"])), batch)

    keep = np.zeros(len(catalog.keys), bool)
    keep[catalog.winners(read)] = True
    parts = np.split(keep, np.cumsum([len(scan.keys) for scan in scans])[:-1])
    return [
        _Segment(name, size, scan.torn, scan.batches, part)
        for name, size, scan, part in zip(names, sizes, scans, parts, strict=True)
    ]


def _filtered(url: str, segment: _Segment, before_ns: int | None, model: str | None) -> np.ndarray:
    """Which records of a segment meet the filters: bool, one for each."""
    data = cache_store.load(url, segment.name, segment.size)
    hits = [np.empty(0, bool)]
    for batch in segment.batches:
        rows = _read(data, batch)
        hit = np.ones(rows.num_rows, bool)
        if before_ns is not None:
            hit &= rows.column("created_ns").to_numpy() < before_ns
        if model is not None:
            hit &= pc.equal(rows.column("model"), model).to_numpy(zero_copy_only=False)
        hits.append(hit)
    return np.concatenate(hits)


def _worth_replacing(segments: list[_Segment]) -> list[_Segment]:
    """Segments with something to remove, and small ones if there are several to join."""
    dirty = [segment.torn > 0 or not segment.keep.all() for segment in segments]
    small = [segment.size < SEGMENT_BYTES // 2 for segment in segments]
    several = sum(small) > 1
    return [
        segment
        for segment, has_dirt, is_small in zip(segments, dirty, small, strict=True)
        if has_dirt or (is_small and several)
    ]


def _rewrite(url: str, segments: list[_Segment]) -> list[int]:
    """Writes what stays of some segments into new ones; their sizes. They are durable when it returns."""
    kept = (
        batch
        for segment in segments
        if segment.keep.any()
        for batch in segment.rows(cache_store.load(url, segment.name, segment.size))
    )
    batches = cache_segments.join(kept)
    written: dict[str, int] = {}
    batch = next(batches, None)
    try:
        while batch is not None:
            with cache_store.new_segment(url, "collect") as (name, sink):
                written[name] = sink.write(cache_segments.HEAD)
                while batch is not None and written[name] < SEGMENT_BYTES:
                    written[name] += sink.write(cache_segments.message(batch)[0])
                    batch = next(batches, None)
                written[name] += sink.write(cache_segments.END)
    except BaseException:
        for name in written:  # copies, for what they replace is still there
            files.remove(files.join(url, name))
        raise
    return list(written.values())


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """Keeps a second cleaning off a local folder."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.lock(url))
        except BlockingIOError:
            raise BlockingIOError(f"{url}: this cache is being cleaned already; wait for it to end") from None
        yield


def _sweep(url: str) -> None:
    """Removes what killed processes left under temporary names."""
    for name in files.names(url):
        if _LEFT.fullmatch(name) and cache_store.is_old(name) and not cache_store.is_open(url, name):
            files.remove(files.join(url, name))
