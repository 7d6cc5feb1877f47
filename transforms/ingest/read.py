"""Splits in, documents and dead letters out: as batches for any pipeline, or as the shards of a corpus."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import apache_beam as beam
import pyarrow as pa

from ropewalk.schemas.recipe import IngestConfig
from ropewalk.transforms import batches, metrics
from ropewalk.transforms.ingest import arrow_tables, json_records, whole_files
from ropewalk.transforms.ingest.chunks import Limits
from ropewalk.transforms.ingest.records import Raw, Task, document_batches
from ropewalk.transforms.ingest.rejects import Reject, reject_batch, unreadable
from ropewalk.transforms.ingest.splits import Piece, Split
from ropewalk.transforms.shards import ShardFolder

assert batches  # registers the coder of RecordBatch

FILES_BYTES = 4 << 20
"""Bytes of small files that are read together: they share a batch."""
PACKED_WEIGHT = 64
"""Bytes that a packed byte counts as among them: what it holds is known only later."""


@dataclass
class Read:
    """Some records of a split, as they leave it.

    Attributes:
        documents: Rows of `tables.DOCUMENTS`.
        rejects: Rows of `tables.REJECTS`; none for none.
        counters: `records-in` = `docs-out` + `rejected-records`, and what they are made of.
    """

    documents: list[pa.RecordBatch]
    rejects: pa.RecordBatch | None
    counters: dict[str, int] = field(default_factory=dict)


def read_split(split: Split, config: IngestConfig, *, threads: int = 1) -> Iterator[Read]:
    """Reads a split piece by piece, in order; holds `threads` + 1 parsed pieces of some megabytes at most.

    Args:
        split: What to read.
        config: Bounds.
        threads: Threads that parse while the files are read.
    """
    yield Read([], None, {f"skipped:{ending}-files": count for ending, count in split.skipped.items()})
    finish = functools.partial(_finish, split=split, payload_limit=config.payload_limit)
    left = split.limit
    for read in _ahead(finish, _tasks(split, config), threads):
        if left is not None and read.counters["docs-out"] >= left:
            yield _cut(read, left)
            return
        if left is not None:
            left -= read.counters["docs-out"]
        yield read


def _tasks(split: Split, config: IngestConfig) -> Iterator[Task]:
    limits = Limits(config.max_record_bytes, config.payload_limit)
    for pieces in _groups(split.pieces):
        if pieces[0].file.repository is not None:
            yield functools.partial(whole_files.read_repository, pieces, limits)
        elif pieces[0].file.format in whole_files.FORMATS:
            yield functools.partial(whole_files.read_files, pieces, limits)
        else:
            yield from _table_tasks(split, pieces[0], limits)
        counters = {"bytes-in": sum(piece.bytes for piece in pieces)}
        # A file that is cut counts with its first range.
        counters["files-in"] = sum(piece.start == 0 for piece in pieces)
        yield functools.partial(Raw.of, counters=counters)


def _groups(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces that are read together: a repository's files, a handful of small documents, or one table."""
    waiting: list[Piece] = []
    size = 0
    for piece in pieces:
        repository, whole = piece.file.repository, piece.file.format in whole_files.FORMATS
        weight = piece.bytes * (PACKED_WEIGHT if piece.file.packing else 1)
        same = whole and bool(waiting) and waiting[-1].file.repository == repository
        if waiting and not (same and (repository is not None or size + weight <= FILES_BYTES)):
            yield waiting
            waiting, size = [], 0
        waiting.append(piece)
        size += weight
        if not whole:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def _table_tasks(split: Split, piece: Piece, limits: Limits) -> Iterator[Task]:
    form = piece.file.format
    if piece.file.size == 0:
        reject = Reject("empty_file", "no bytes: was the copy complete?", piece.file.url)
        yield functools.partial(Raw.of, rejects=[reject])
        return
    try:
        if form in ("jsonl", "json"):
            yield from json_records.read_json(piece, split.input, limits)
        elif form == "parquet":
            yield from arrow_tables.read_parquet(piece, split.input, limits)
        else:
            yield from arrow_tables.read_arrow(piece, split.input, limits)
    except OSError as error:  # what came before it is read
        yield functools.partial(Raw.of, rejects=[unreadable(piece.file.url, error)])


def _finish(task: Task, *, split: Split, payload_limit: int) -> Read:
    raw = task()
    counters = collections.Counter({"docs-out": len(raw.text), "rejected-records": len(raw.rejects)})
    counters["records-in"] = len(raw.text) + len(raw.rejects)
    counters[f"source:{split.source}-docs"] = len(raw.text)
    if split.mended:
        counters["mended-docs"] = len(raw.text)
    counters.update(raw.counters)
    counters.update(f"{reject.reason}-records" for reject in raw.rejects)
    rejects = reject_batch(raw.rejects, source=split.source, payload_limit=payload_limit) if raw.rejects else None
    return Read(list(document_batches(raw, split.source)), rejects, dict(counters))


def _cut(read: Read, limit: int) -> Read:
    """The first `limit` documents; records behind them count as not read."""
    documents = []
    over = read.counters["docs-out"] - limit
    for batch in read.documents:
        documents.append(batch.slice(0, limit))
        limit -= documents[-1].num_rows
    counters = {name: count - over * _counts_documents(name) for name, count in read.counters.items()}
    return Read([batch for batch in documents if batch.num_rows], read.rejects, counters)


def _counts_documents(name: str) -> bool:
    return name in ("docs-out", "records-in", "mended-docs") or name.startswith("source:")


def _ahead(function: Callable[[Task], Read], items: Iterable[Task], threads: int) -> Iterator[Read]:
    """Maps in order, `threads` items ahead of the reader."""
    if threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        running: collections.deque[Future[Read]] = collections.deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


@dataclass
class WriteSplits(beam.PTransform):
    """Numbered splits in, finished shard numbers out; writes a corpus' documents and their dead letters.

    Elements are (shard number, split as JSON), see `number_splits`.

    Attributes:
        config: Bounds.
        documents: Folder of `tables.DOCUMENTS`.
        rejects: Folder of `tables.REJECTS`, as many shards.
        threads: Threads that parse in each worker.
    """

    config: IngestConfig
    documents: ShardFolder
    rejects: ShardFolder
    threads: int = 1

    def expand(self, splits: beam.PCollection[tuple[int, str]]) -> beam.PCollection[int]:
        """Spreads the splits over workers."""
        return splits | beam.Reshuffle() | beam.ParDo(_WriteSplit(self))


class _WriteSplit(beam.DoFn):
    def __init__(self, transform: WriteSplits) -> None:
        self.config, self.threads = transform.config, transform.threads
        self.documents, self.rejects = transform.documents, transform.rejects

    def process(self, numbered: tuple[int, str]) -> Iterator[int]:
        shard, split = numbered
        # The documents close last: their record says that both shards are whole.
        with self.documents.writer(shard) as documents, self.rejects.writer(shard) as rejects:
            for read in read_split(Split.model_validate_json(split), self.config, threads=self.threads):
                for batch in read.documents:
                    documents.write(batch)
                if read.rejects is not None:
                    rejects.write(read.rejects)
                for name, amount in read.counters.items():
                    documents.count(name, amount)
                    metrics.count(WriteSplits, name, amount)
        yield shard


@dataclass
class ReadDocuments(beam.PTransform):
    """Numbered splits in, batches of documents out: how to begin any pipeline of one's own.

        plan = plan_splits(recipe)
        found = pipeline | beam.Create(number_splits(plan.splits)) | ReadDocuments()
        found.documents | …;  found.rejects | …

    Attributes:
        config: Bounds.
        threads: Threads that parse in each worker.
    """

    config: IngestConfig = field(default_factory=IngestConfig)
    threads: int = 1

    def expand(self, splits: beam.PCollection[tuple[int, str]]) -> beam.pvalue.DoOutputsTuple:
        """Outputs `documents` (`tables.DOCUMENTS`) and `rejects` (`tables.REJECTS`)."""
        read = beam.ParDo(_ReadSplit(self)).with_output_types(pa.RecordBatch, rejects=pa.RecordBatch)
        return splits | beam.Reshuffle() | read.with_outputs("rejects", main="documents")


class _ReadSplit(beam.DoFn):
    def __init__(self, transform: ReadDocuments) -> None:
        self.config, self.threads = transform.config, transform.threads

    def process(self, numbered: tuple[int, str]) -> Iterator[pa.RecordBatch]:
        for read in read_split(Split.model_validate_json(numbered[1]), self.config, threads=self.threads):
            yield from read.documents
            if read.rejects is not None:
                yield beam.pvalue.TaggedOutput("rejects", read.rejects)
            for name, amount in read.counters.items():
                metrics.count(ReadDocuments, name, amount)


def number_splits(splits: Iterable[Split], shards: Iterable[int] | None = None) -> list[tuple[int, str]]:
    """Splits as Beam elements: (number, JSON), all of them or those of the given numbers."""
    every = list(splits)
    return [(shard, every[shard].model_dump_json()) for shard in (range(len(every)) if shards is None else shards)]
