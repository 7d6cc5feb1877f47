"""Reader of JSON: JSON Lines, arrays, and objects one after the other.

A compiled kernel takes the records of a chunk apart; what it doubts, `json.loads` decides, which also explains what is
wrong. So speed is the kernel's, and what counts as JSON is Python's.
"""

import functools
import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels import json_records as kernel
from ropewalk.kernels.json_strings import unescape
from ropewalk.schemas.recipe import InputConfig
from ropewalk.transforms.ingest.chunks import Chunk, Limits, line_chunks, value_chunks
from ropewalk.transforms.ingest.records import Raw, Task
from ropewalk.transforms.ingest.rejects import Reject
from ropewalk.transforms.ingest.splits import Piece
from ropewalk.transforms.ingest.streams import Stream, open_file

BOM = b"\xef\xbb\xbf"
_STRING = (kernel.PLAIN, kernel.ESCAPED)
PEEK_BYTES = 1 << 20
"""Start of a `.json` file by which lines are told from values that span them."""


def read_json(piece: Piece, entry: InputConfig, limits: Limits) -> Iterator[Task]:
    """Reads a `.jsonl` or `.json` file, or a byte range of the former."""
    path = piece.file.url
    with open_file(path) as file:
        start = _first_line(file, piece.start) if piece.start else 0
        stream = Stream(file, piece.file.packing)
        head = b"" if piece.start else stream.peek(PEEK_BYTES if piece.file.format == "json" else len(BOM))
        if head.startswith(BOM):
            stream.read(len(BOM))
            start, head = len(BOM), head[len(BOM) :]
        if piece.file.format == "jsonl" or _looks_like_lines(head):
            before = functools.cache(functools.partial(_count_lines, path, start if piece.start else 0))
            chunks = line_chunks(stream, path, limits, start=start, stop=piece.stop, lines_before=before)
        else:
            chunks = value_chunks(stream, path, limits, start=start)
        for chunk in chunks:
            if isinstance(chunk, Reject):
                yield functools.partial(Raw.of, rejects=[chunk])
            else:
                yield functools.partial(parse_chunk, chunk, entry, path, limits)


def parse_chunk(chunk: Chunk, entry: InputConfig, path: str, limits: Limits) -> Raw:
    """Takes every record of a chunk apart.

    Args:
        chunk: The records.
        entry: Which fields hold text, id and url.
        path: The file's name, for dead letters.
        limits: Bounds.
    """
    # One field may have two parts to play (`id: url`), but the kernel wants each name once.
    names = list(dict.fromkeys([entry.text, entry.url, entry.id]))
    text, url, key = (names.index(name) for name in (entry.text, entry.url, entry.id))
    keep = [name not in (entry.text, entry.url) for name in names]
    lengths = chunk.stops - chunk.starts
    status, kinds, spans, rest, rest_offsets = kernel.take_apart(chunk.data, chunk.starts, chunk.stops, names, keep)
    doubtful = status == kernel.ASK
    doubtful |= (status == kernel.FINE) & ~np.isin(kinds[:, text], _STRING)
    doubtful |= (lengths > limits.max_record_bytes) & (status != kernel.BLANK)
    if not _is_utf8(chunk.data):
        for place in np.flatnonzero(status != kernel.BLANK).tolist():
            doubtful[place] |= not _is_utf8(chunk.data[chunk.starts[place] : chunk.stops[place]])
    fine = (status == kernel.FINE) & ~doubtful

    def column(which: int, *wanted: int) -> tuple[pa.Array, np.ndarray]:
        kind = kinds[:, which]
        taken = fine & np.isin(kind, wanted)
        places = np.where(taken[:, None], spans[:, which], 0)
        values, offsets, whole = unescape(chunk.data, places, taken & (kind == kernel.ESCAPED))
        return _strings(values, offsets, taken & whole), whole

    texts, text_whole = column(text, *_STRING)
    urls, url_whole = column(url, *_STRING)
    keys, key_whole = column(key, *_STRING, kernel.OTHER)
    others = kinds[:, key] == kernel.OTHER
    if others.any():  # a whole number is a key, too: its digits
        digits = pc.fill_null(pc.match_substring_regex(keys, "^-?[0-9]+$"), False)
        keys = pc.if_else(pc.or_(digits, pa.array(~others)), keys, pa.scalar(None, keys.type))
    # Half a surrogate pair: a dead letter if it is in the text, and Python's to decide elsewhere.
    doubtful |= fine & ~(text_whole & url_whole & key_whole)
    fine &= ~doubtful
    metadata = _strings(rest, rest_offsets, fine & (np.diff(rest_offsets) > 0))

    blank = int(np.count_nonzero(status == kernel.BLANK))
    counters = {"blank-lines": blank} if blank else {}
    columns = [texts, keys, urls, metadata]
    if fine.all():
        return Raw.of_columns(columns, [], counters)
    kept = [column.filter(pa.array(fine)) for column in columns]
    rows: list[tuple[int, tuple[str | None, ...]]] = []
    rejects: list[Reject] = []
    for place in np.flatnonzero(doubtful).tolist():
        record = chunk.record(place)
        try:
            rows.append((place, _ask(record, entry, limits)))
        except _Refused as refusal:
            line, offset = chunk.place(place)
            payload = record[: limits.payload_limit]
            rejects.append(Reject(refusal.reason, refusal.detail, path, line, offset, payload))
    if rows:
        order = np.argsort(np.r_[np.flatnonzero(fine), [place for place, _ in rows]], kind="stable")
        asked = [pa.array([row[i] for _, row in rows], kept[i].type) for i in range(4)]
        kept = [pa.concat_arrays([one, two]).take(pa.array(order)) for one, two in zip(kept, asked, strict=True)]
    return Raw.of_columns(kept, rejects, counters)


class _Refused(Exception):
    """A record that is no document: reason code and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def _ask(record: bytes, entry: InputConfig, limits: Limits) -> tuple[str | None, ...]:
    """One record by `json.loads`: (text, key, url, metadata); NaN and infinities become null."""
    if len(record) > limits.max_record_bytes:
        raise _Refused("oversized_record", limits.oversized(len(record)))
    try:
        value: Any = json.loads(record.decode(), parse_constant=lambda name: None, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _Refused(
            "invalid_utf8", f"byte {error.start} of the record: {error.reason}; convert the file to UTF-8"
        ) from None
    except RecursionError:
        raise _Refused("broken_json", "nested deeper than Python reads") from None
    except ValueError as error:
        raise _Refused("broken_json", f"{error}") from None
    if not isinstance(value, dict):
        raise _Refused(
            "not_an_object", f"{type(value).__name__}; each record must be an object with a field {entry.text!r}"
        )
    if entry.text not in value:
        fields = ", ".join(sorted(map(repr, value))[:20]) or "no field at all"
        raise _Refused("missing_text", f"no field {entry.text!r}; the record has {fields}: set `text` of the input")
    text, url, key = value[entry.text], value.get(entry.url), value.get(entry.id)
    if text is None:
        raise _Refused("null_text", f"field {entry.text!r} is null")
    if not isinstance(text, str):
        raise _Refused(
            "text_not_string", f"field {entry.text!r} is of type {type(text).__name__}; set `text` of the input"
        )
    if not _encodes(text):
        raise _Refused("lone_surrogate", f"field {entry.text!r} has half of a UTF-16 surrogate pair: write it as UTF-8")
    del value[entry.text]
    url = url if isinstance(url, str) and _encodes(url) else None
    if url is not None or value.get(entry.url, 0) is None:
        value.pop(entry.url, None)
    key = str(key) if type(key) in (int, str) else None
    key = key if key is not None and _encodes(key) else None
    rest = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    rest = rest if _encodes(rest) else json.dumps(value, separators=(",", ":"))
    return text, key, url, rest if value else None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) != float("inf") else None


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_utf8(data: np.ndarray) -> bool:
    """Whether a whole buffer is UTF-8, by Arrow's check."""
    offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(np.ascontiguousarray(data))).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _strings(values: np.ndarray, offsets: np.ndarray, present: np.ndarray) -> pa.Array:
    """A column without copying: large_string[n], null where not `present`."""
    packed = pa.py_buffer(np.packbits(present, bitorder="little"))
    # Cut to length: Arrow pads a column in a file with what lies behind its last value, and here that is not set.
    filled = pa.py_buffer(values[: offsets[-1]])
    return pa.LargeStringArray.from_buffers(len(present), pa.py_buffer(offsets), filled, packed)


def _looks_like_lines(head: bytes) -> bool:
    """Whether the start of a `.json` file is JSON Lines: some line is an object by itself, from its first column on."""
    if head.lstrip()[:1] != b"{":
        return False
    for line in head.split(b"\n")[:20]:
        try:
            if line[:1] == b"{" and isinstance(json.loads(line), dict):
                return True
        except (ValueError, RecursionError):
            continue
    return False


def _first_line(file: IO[bytes], start: int) -> int:
    """Moves to the first line that starts at `start` or later; returns where."""
    file.seek(start - 1)
    at = start - 1
    while block := file.read(1 << 20):
        end = block.find(b"\n")
        if end >= 0:
            file.seek(at + end + 1)
            return at + end + 1
        at += len(block)
    return at


def _count_lines(path: str, stop: int) -> int:
    """Line ends in the first `stop` bytes of a plain file."""
    count, left = 0, stop
    if left:
        with open_file(path) as file:
            while left and (block := file.read(min(left, 8 << 20))):
                count, left = count + block.count(b"\n"), left - len(block)
    return count
