"""Readers of Parquet and Arrow files (streams, files, Hugging Face datasets): tables with a text column."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ropewalk.schemas import files
from ropewalk.schemas.recipe import InputConfig
from ropewalk.transforms.ingest.chunks import Limits
from ropewalk.transforms.ingest.json_columns import as_strings, json_objects, not_utf8
from ropewalk.transforms.ingest.records import BATCH_BYTES, BATCH_ROWS, Raw, Task
from ropewalk.transforms.ingest.rejects import Reject
from ropewalk.transforms.ingest.splits import Piece
from ropewalk.transforms.ingest.streams import open_file

FILE_MAGIC = b"ARROW1"
"""First bytes of the Arrow file format; the stream format has none."""
PART_BYTES = 64 << 20
"""Most bytes of strings that are parsed at a time, unless a row has more."""
_FAULTS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What damaged files make Arrow raise."""


def read_parquet(piece: Piece, entry: InputConfig, limits: Limits) -> Iterator[Task]:
    """Reads a Parquet file, one row group after the other; a damaged group does not stop the ones behind it."""
    path = piece.file.url
    with open_file(path) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False)
        except _FAULTS as error:
            _raise_if_system(error)
            yield _fault("damaged_file", f"no Parquet footer that can be read: {error}", path)
            return
        row = 0
        unfit = _unfit(entry, table.schema_arrow, path)
        if unfit is not None:
            yield unfit
            return
        for group in range(table.num_row_groups):
            about = table.metadata.row_group(group)
            step = _step(about.total_byte_size, about.num_rows)
            done = 0
            try:
                for batch in table.iter_batches(batch_size=step, row_groups=[group], use_threads=False):
                    _check(batch)
                    for part in _parts(batch):
                        yield functools.partial(parse_batch, part, entry, path, limits, row + done)
                        done += part.num_rows
            except _FAULTS as error:
                _raise_if_system(error)
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
            _raise_if_system(error)
            yield _fault("damaged_file", f"not an Arrow file: {error}", path)
            return
        unfit = _unfit(entry, reader.schema, path)
        if unfit is not None:
            yield unfit
            return
        row = number = 0
        while not random or number < reader.num_record_batches:
            try:
                batch = reader.get_batch(number) if random else reader.read_next_batch()
                _check(batch)
            except StopIteration:
                return
            except _FAULTS as error:
                _raise_if_system(error)
                rest = "" if random else ", and all behind it, because a stream cannot be entered in the middle"
                reason = "damaged_rows" if random else "truncated_file"
                yield _fault(reason, f"record batch {number}{rest}: {error}", path, line=row + 1)
                if not random:
                    return
                number += 1
                continue
            for part in _parts(batch):
                yield functools.partial(parse_batch, part, entry, path, limits, row)
                row += part.num_rows
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
    sizes = pc.fill_null(pc.binary_length(metadata), 0)
    for i in pc.indices_nonzero(pc.greater(sizes, limits.max_record_bytes)).to_pylist():
        faults.setdefault(i, ("oversized_record", f"its other columns are {limits.oversized(sizes[i].as_py())}"))
    columns = [texts, _keys(batch, entry), url, metadata]
    kept = pa.array([i not in faults for i in range(batch.num_rows)], pa.bool_()) if faults else None
    whole = [pa.nulls(batch.num_rows, pa.large_string()) if values is None else values for values in columns]
    found = whole if kept is None else [values.filter(kept) for values in whole]
    rejects = [
        Reject(*faults[i], path, line=row + i + 1, payload=_payload(texts, i, limits.payload_limit))
        for i in sorted(faults)
    ]
    return Raw.of_columns(found, rejects, {})


def _raise_if_system(error: BaseException) -> None:
    """Raises what the filesystem says; Arrow has a bare OSError for damaged data as well."""
    if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
        raise error


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


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of about `BATCH_BYTES`, and of no more than `PART_BYTES` but for one larger row."""
    step = _step(batch.nbytes, batch.num_rows)
    ends = np.cumsum(_row_bytes(batch), dtype=np.int64)
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + PART_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + step, batch.num_rows)
        yield batch.slice(start, stop - start)
        start = stop


def _row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes of the strings in each row, int64[n]: of a dictionary, which a batch holds once, each time it is used."""
    size = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        type_ = values.type
        if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_binary(type_):
            lengths = pc.binary_length(values)
            lengths = lengths if values is column else lengths.take(column.indices)
            size += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    return size


def _unfit(entry: InputConfig, schema: pa.Schema, path: str) -> Task | None:
    """The dead letter of a table whose columns are not the ones to be read, if they are not."""
    names = ", ".join(map(repr, schema.names)) or "none at all"
    if entry.text not in schema.names:
        return _fault("missing_text", f"no column {entry.text!r}; the file has {names}: set `text` of the input", path)
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        detail = f"more than one column {', '.join(map(repr, twice))}; the file has {names}: rename all but one"
        return _fault("duplicate_column", detail, path)
    return None


def _fault(reason: str, detail: str, path: str, **where: Any) -> Task:
    return functools.partial(Raw.of, rejects=[Reject(reason, detail, path, **where)])
