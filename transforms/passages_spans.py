"""Repeated passages as columns: what is cut of each document, row for row.

repeats of one rule   -> `<rule>_spans` of every document of the shard      grouped by shard, then by row
spans of all rules    -> `tables.PASSAGES`                                  no shuffle
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import spans, words
from ropewalk.schemas import address, tables
from ropewalk.transforms import utf8
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.cuts import span_buffers
from ropewalk.transforms.folders import cut
from ropewalk.transforms.passages import LivePieces
from ropewalk.transforms.passages_substrings import repeated_spans
from ropewalk.transforms.shards import ShardFolder


def span_schema(rule: str) -> pa.Schema:
    """Schema of the spans that a rule cuts."""
    return pa.schema([pa.field(f"{rule}_spans", pa.list_(tables.SPAN), nullable=False)])


def span_column(row: np.ndarray, starts: np.ndarray, stops: np.ndarray, rows: int) -> pa.ListArray:
    """Spans as a column.

    Args:
        row: Row of each span, ascending, int64[n].
        starts: First byte of each span in its text.
        stops: End of each span.
        rows: Rows of the column.
    """
    places = [pa.array(values.astype(np.uint32)) for values in (starts, stops)]
    borders = np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)
    structs = pa.StructArray.from_arrays(places, fields=list(tables.SPAN))
    return pa.ListArray.from_arrays(pa.array(borders), structs, type=pa.list_(tables.SPAN))


@dataclass
class ReadByShard(beam.PTransform):
    """`(shard, rows)` of a folder whose rows have an `address`, for each wanted shard; put it at a pipeline's start.

    Each shard also gets a row of nulls with its first address: a shard without others has to be written as well.

    Attributes:
        folder: What to read.
        pending: The shards wanted in this pass.
    """

    folder: ShardFolder
    pending: Sequence[int]

    def expand(self, start: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the parts of the folder over workers and cuts their rows."""
        names = start | "Shards" >> beam.Create(list(self.pending)) | beam.ParDo(_NameShard(self.folder.schema))
        rows = start | "Parts" >> beam.Create(list(range(self.folder.num_shards))) | beam.ParDo(_ReadPart(self))
        return (names, rows) | beam.Flatten()


class _NameShard(beam.DoFn):
    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        name = pa.array(address.of_rows(shard, 0, 1))
        nulls = [pa.nulls(1, field.type) for field in self.schema][1:]
        yield shard, pa.RecordBatch.from_arrays([name, *nulls], schema=self.schema)


class _ReadPart(beam.DoFn):
    def __init__(self, transform: ReadByShard) -> None:
        self.folder, self.pending = transform.folder, transform.pending

    def process(self, part: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in self.folder.read(part):
            yield from cut(batch, address.shards(batch.column("address").to_numpy()), self.pending)


def _of_shard(rows: pa.RecordBatch) -> tuple[int, list[np.ndarray]]:
    """The shard that rows of `ReadByShard` belong to, and their columns by row and start; the first is the row."""
    named = rows.column("start").is_null()
    shard = int(address.shards(rows.filter(named).column("address").to_numpy())[0])
    said = rows.filter(rows.column("start").is_valid())
    values = [column.to_numpy(zero_copy_only=False) for column in said.columns]
    order = np.lexsort((values[1], values[0]))
    row = address.rows(values[0][order])
    return shard, [row, *(value[order] for value in values[1:])]


@dataclass
class SpanUnits:
    """Batch function: all repeats of one shard in (`passages.REPEATS`), the spans of its documents out.

    Attributes:
        corpus: The corpus.
        rule: `paragraph` or `line`.
    """

    corpus: CorpusDir
    rule: str

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, repeats: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Spans; units that touch are one."""
        shard, (row, starts, stops) = _of_shard(repeats)
        rows = sum(batch.num_rows for batch in self.corpus.read(shard, {DOCUMENTS: ["num_bytes"]}))
        begins = np.ones(len(row), bool)
        begins[1:] = (row[1:] != row[:-1]) | (starts[1:] != stops[:-1])
        ends = np.roll(begins, -1)
        column = span_column(row[begins], starts[begins], stops[ends], rows)
        return pa.RecordBatch.from_arrays([column], schema=span_schema(self.rule)), {}


@dataclass
class SpanSubstrings:
    """Batch function: the judged windows of one shard in (`passages_substrings.WINDOWS`), its documents' spans out.

    Attributes:
        corpus: The corpus.
        alive: Stages that put documents out.
        least: Bytes of a window.
        snap: What cuts are drawn in to: `line`, `word` or `character`.
        earlier: Columns of spans that were cut before, by table.
    """

    corpus: CorpusDir
    alive: Sequence[str]
    least: int
    snap: str
    earlier: Mapping[str, Sequence[str]]

    def setup(self) -> None:
        """Makes the table of characters."""
        words.table()

    def __call__(self, windows: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Reads the shard again and draws its cuts in."""
        shard, (row, starts, stops, keep) = _of_shard(windows)
        read = {DOCUMENTS: ["id", "text"], **self.earlier}
        names = [name for columns in self.earlier.values() for name in columns]
        nothing = np.empty(0, np.int64)
        done, columns, counted = 0, [span_column(nothing, nothing, nothing, 0)], [0, 0]
        for batch in self.corpus.read(shard, read, alive=self.alive):
            live = LivePieces.of(batch, names)
            rows = address.rows(live.address)
            mine = slice(*np.searchsorted(row, [done, done + batch.num_rows]))
            text = np.searchsorted(rows, row[mine])
            judged = text, starts[mine].astype(np.int64), stops[mine].astype(np.int64), keep[mine]
            text, begin, end = repeated_spans(live, judged, self.least)
            counted[0] += len(text)
            counted[1] += int((end - begin).sum())
            offsets = live.offsets
            how = spans.SNAPS[self.snap]
            spans.snap(live.data, begin, end, offsets[text], offsets[text + 1], how, words.table())
            text, begin, end = text[begin < end], begin[begin < end], end[begin < end]
            columns.append(span_column(rows[text] - done, begin - offsets[text], end - offsets[text], batch.num_rows))
            done += batch.num_rows
        result = pa.RecordBatch.from_arrays([pa.concat_arrays(columns)], schema=span_schema("substring"))
        return result, {"matched-substrings": counted[0], "matched_substring-bytes": counted[1]}


@dataclass
class JoinSpans:
    """Batch function: documents and the spans of each rule in, `tables.PASSAGES` out, row for row.

    Attributes:
        rules: The rules, in the order they cut; each has a column `<rule>_spans`.
        min_left: Characters that must be left of a document that is cut.
    """

    rules: Sequence[str]
    min_left: int

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Joins the spans of all rules and counts what is left."""
        count = batch.num_rows
        alive = batch.column("alive").to_numpy(zero_copy_only=False)
        data, offsets = utf8.buffers(batch.column("text"))
        counters: dict[str, int] = {}
        starts, stops = np.empty(0, np.int64), np.empty(0, np.int64)
        for rule in self.rules:
            first, last, borders = span_buffers(batch.column(f"{rule}_spans"))
            counters |= {f"{rule}-spans": len(first), f"{rule}-bytes": int((last - first).sum())}
            text = np.repeat(np.arange(count), np.diff(borders))
            # Each text is moved on by its number: spans of two never touch.
            shift = offsets[text] + text
            starts, stops = np.append(starts, first + shift), np.append(stops, last + shift)
        starts, stops = spans.union(starts, stops)
        text = np.searchsorted(offsets[:-1] + np.arange(count), starts, side="right") - 1
        starts, stops = starts - text, stops - text
        size = np.bincount(text, stops - starts, minlength=count).astype(np.int64)
        gone = np.bincount(text, spans.count_characters(data, starts, stops), minlength=count)
        left = batch.column("num_chars").to_numpy() - gone
        cut_ = size > 0
        enough = ~cut_ | (left >= self.min_left)
        base = offsets[text]
        columns = [
            span_column(text, starts - base, stops - base, count),
            pa.array(size.astype(np.uint32)),
            pa.array(enough, mask=~alive),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=tables.PASSAGES), counters | {
            "put_out-docs": int((~alive).sum()),
            "untouched-docs": int((alive & ~cut_).sum()),
            "cut-docs": int((cut_ & enough).sum()),
            "too_little_left-docs": int((~enough).sum()),
            "cut-bytes": int(size.sum()),
        }
