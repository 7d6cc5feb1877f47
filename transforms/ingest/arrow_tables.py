"""Readers of Parquet and Arrow files (streams, files, Hugging Face datasets): tables with a text column."""

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ropewalk.schemas.recipe import InputConfig
from ropewalk.transforms import files
from ropewalk.transforms.ingest.chunks import Limits
from ropewalk.transforms.ingest.json_columns import as_strings, json_objects, not_utf8
from ropewalk.transforms.ingest.records import BATCH_BYTES, BATCH_ROWS, Raw, Task
from ropewalk.transforms.ingest.rejects import Reject
from ropewalk.transforms.ingest.splits import Piece
from ropewalk.transforms.ingest.streams import open_file

FILE_MAGIC = b"ARROW1"
"""First bytes of the Arrow file format; the stream format has none."""
_FAULTS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What damaged files make Arrow raise."""


def read_parquet(piece: Piece, entry: InputConfig, limits: Limits) -> Iterator[Task]:
    """Reads a Parquet file, one row group after the other; a damaged group does not stop the ones behind it."""
    path = piece.file.url
    with open_file(path) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False)
        except _FAULTS as error:
            yield _fault("damaged_file", f"no Parquet footer that can be read: {error}", path)
            return
        row = 0
        if entry.text not in table.schema_arrow.names:
            yield _no_text(entry, table.schema_arrow, path)
            return
        for group in range(table.num_row_groups):
            about = table.metadata.row_group(group)
            step = _step(about.total_byte_size, about.num_rows)
            done = 0
            try:
                for batch in table.iter_batches(batch_size=step, row_groups=[group], use_threads=False):
                    _check(batch)
                    yield functools.partial(parse_batch, batch, entry, path, limits, row + done)
                    done += batch.num_rows
            except _FAULTS as error:
                detail = f"row group {group}, {about.num_rows - done} of its {about.num_rows} rows lost: {error}"
                yield _fault("damaged_rows", detail, path, line=row + done + 1)
            row += about.num_rows


def read_arrow(piece: Piece, entry: InputConfig, limits: Limits) -> Iterator[Task]:
    """Reads an Arrow stream or file, memory-mapped where it is local."""
    path = piece.file.url
    fs, local_path = files.filesystem(path)
    local = isinstance(fs, LocalFileSystem)
    with pa.memory_map(local_path) if local else pa.PythonFile(open_file(path), "r") as source:
        try:
            random = source.read(len(FILE_MAGIC)) == FILE_MAGIC
            source.seek(0)
            reader = pa.ipc.open_file(source) if random else pa.ipc.open_stream(source)
        except _FAULTS as error:
            yield _fault("damaged_file", f"not an Arrow file: {error}", path)
            return
        if entry.text not in reader.schema.names:
            yield _no_text(entry, reader.schema, path)
            return
        row = number = 0
        while not random or number < reader.num_record_batches:
            try:
                batch = reader.get_batch(number) if random else reader.read_next_batch()
                _check(batch)
            except StopIteration:
                return
            except _FAULTS as error:
                rest = "" if random else ", and all behind it, because a stream cannot be entered in the middle"
                reason = "damaged_rows" if random else "truncated_file"
                yield _fault(reason, f"record batch {number}{rest}: {error}", path, line=row + 1)
                if not random:
                    return
                number += 1
                continue
            step = _step(batch.nbytes, batch.num_rows)
            for start in range(0, batch.num_rows, step):
                part = batch.slice(start, step)
                yield functools.partial(parse_batch, part, entry, path, limits, row + start)
            row += batch.num_rows
            number += 1


def parse_batch(batch: pa.RecordBatch, entry: InputConfig, path: str, limits: Limits, row: int) -> Raw:
    """Turns rows of a table into records.

    Args:
        batch: The rows.
        entry: Which columns hold text, id and url.
        path: The file's name, for dead letters.
        limits: Bounds.
        row: Rows of the file before this batch.
    """
    column = batch.column(entry.text)
    texts = as_strings(column)
    faults: dict[int, tuple[str, str]] = {}
    if texts is None:
        for i in range(batch.num_rows):
            reason = "text_not_string" if column[i].is_valid else "null_text"
            faults[i] = reason, f"column {entry.text!r} is {column.type}; set `text` of the input"
        texts = pa.nulls(batch.num_rows, pa.large_string())
    else:
        lengths = pc.binary_length(texts)
        for i in pc.indices_nonzero(pc.is_null(texts)).to_pylist():
            faults[i] = "null_text", f"column {entry.text!r} is null"
        for i in pc.indices_nonzero(pc.fill_null(pc.greater(lengths, limits.max_record_bytes), False)).to_pylist():
            faults[i] = "oversized_record", limits.oversized(lengths[i].as_py())
        for i in not_utf8(texts):
            faults.setdefault(i, ("invalid_utf8", f"column {entry.text!r} is not UTF-8"))
    url = as_strings(batch.column(entry.url)) if entry.url in batch.schema.names else None
    leaving = {entry.text} | ({entry.url} if url is not None else set())
    metadata, broken = json_objects(batch, [name for name in batch.schema.names if name not in leaving])
    for i in [] if url is None else not_utf8(url):
        broken[i] = f"column {entry.url!r} is not UTF-8"
    for i, detail in broken.items():
        faults.setdefault(i, ("invalid_utf8", detail))
    columns = [texts, _keys(batch, entry), url, metadata]
    kept = pa.array([i not in faults for i in range(batch.num_rows)], pa.bool_()) if faults else None
    whole = [pa.nulls(batch.num_rows, pa.string()) if values is None else values for values in columns]
    found = whole if kept is None else [values.filter(kept) for values in whole]
    rejects = [
        Reject(*faults[i], path, line=row + i + 1, payload=_payload(texts, i, limits.payload_limit))
        for i in sorted(faults)
    ]
    return Raw.of_columns(found, rejects, {})


def _check(batch: pa.RecordBatch) -> None:
    """Raises if the buffers of a batch contradict each other; strings that are not UTF-8 are left to their rows."""
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise


def _keys(batch: pa.RecordBatch, entry: InputConfig) -> pa.Array | None:
    if entry.id not in batch.schema.names:
        return None
    column = batch.column(entry.id)
    if pa.types.is_integer(column.type):
        return column.cast(pa.large_string())
    strings = as_strings(column)
    return None if strings is None or not_utf8(strings) else strings


def _payload(texts: pa.Array, row: int, limit: int) -> bytes | None:
    value = texts.slice(row, 1).view(pa.large_binary())[0]
    if not value.is_valid:
        return None
    start = memoryview(value.as_buffer())[:limit]
    return bytes(start)


def _step(size: int, rows: int) -> int:
    """Rows of a batch that holds about `BATCH_BYTES`."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))


def _no_text(entry: InputConfig, schema: pa.Schema, path: str) -> Task:
    names = ", ".join(map(repr, schema.names)) or "none at all"
    return _fault("missing_text", f"no column {entry.text!r}; the file has {names}: set `text` of the input", path)


def _fault(reason: str, detail: str, path: str, **where: Any) -> Task:
    return functools.partial(Raw.of, rejects=[Reject(reason, detail, path, **where)])
