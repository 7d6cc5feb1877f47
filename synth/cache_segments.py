"""What a segment of the request cache looks like: one Arrow IPC stream of `synthesis.CALLS`.

    <Unix ns>-<writer>-<random>.arrow = schema, record batch, record batch, …, end of stream

Names sort by creation. A writer that is killed leaves no end of stream, and perhaps half a record batch: both are read
as if it had stopped before. Each record batch holds the xxh3 of its message, metadata and body, in its custom metadata
(`xxh3`: 16 hex digits, which count as `0` in the hash), for after a power cut a file may be as long as it should be and
lack some of its pages: a batch whose hash is wrong or missing is none. Anything that reads Arrow reads a segment:

    with pyarrow.memory_map(path) as source, pyarrow.ipc.open_stream(source) as reader:
        for batch in reader:  # OSError or ArrowInvalid after the last good batch if its writer was killed writing
            ...
"""

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import xxhash

from ropewalk.schemas import files
from ropewalk.schemas.synthesis import CALLS
from ropewalk.synth.engine import Completion, FinishReason, Request, Timing, Usage

HEAD: bytes = CALLS.serialize().to_pybytes()
"""Begins every segment: the schema."""
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Ends a finished one."""
BATCH_BYTES = 1 << 20
"""Record batches are closed when they reach this size: what is read to answer one `get`."""
BATCH = np.dtype([("segment", "u4"), ("rows", "u4"), ("offset", "u8"), ("length", "u8"), ("xxh3", "u8")])
"""A record batch: number of its segment, its rows, where it is, and its hash."""
_NO_HASH = b"0" * 16
_HASH_WITHIN = 16384
"""The hash stands in the metadata, which comes first; that of `CALLS` has 2 KB."""
BROKEN = (pa.ArrowException, OSError, EOFError)
"""What pyarrow raises on bytes that are no Arrow stream."""

_ROW = pa.struct(list(CALLS))
_NEVER_NULL = [number for number, column in enumerate(CALLS) if not column.nullable]
_KEYS_ONLY = pa.ipc.IpcReadOptions(included_fields=[CALLS.names.index("key"), CALLS.names.index("created_ns")])
_NAME = re.compile(r"\d{19}-.*\.arrow")


class Damaged(ValueError):
    """A record batch is not what was written."""


def new_name(writer: str) -> str:
    """A name no other segment has; `writer` makes it readable."""
    return f"{time.time_ns():019d}-{re.sub(r'[^A-Za-z0-9_]+', '_', writer)}-{uuid.uuid4().hex[:12]}.arrow"


def created_ns(name: str) -> int:
    """When a segment was begun, from its name; Unix nanoseconds."""
    return int(name[:19])


def sizes(url: str) -> dict[str, int]:
    """The segments of a cache, oldest first, with their sizes in bytes."""
    return {name: size for name, size in sorted(files.sizes(url).items()) if _NAME.fullmatch(name)}


def encode_call(key: bytes, request: Request, completion: Completion, model: str, created: int) -> pa.RecordBatch:
    """One record. Lone surrogates, which UTF-8 has no bytes for, become U+FFFD.

    Raises:
        ValueError: The completion does not fit the schema, such as a token id below 0.
    """
    usage, timing = completion.usage, completion.timing
    row = (
        key, _utf8(request.row), _utf8(request.step), request.attempt, request.segment, _utf8(model),
        _utf8(completion.text), completion.token_ids, completion.finish_reason, _utf8(completion.stop_reason),
        usage.prompt, usage.cached, usage.generated, completion.logprobs,
        timing.queued, timing.first_token, timing.total, _utf8(completion.engine), created,
    )  # fmt: skip
    try:
        columns = pa.array([row], _ROW).flatten()  # one conversion, not one for each column
    except (pa.ArrowException, OverflowError, TypeError) as fault:
        raise ValueError(
            f"the completion of row {request.row!r}, step {request.step!r} does not fit the request cache "
            f"({fault}): token ids are 0 to 2^32 - 1, counts below 2^31"
        ) from fault
    if any(columns[number].null_count for number in _NEVER_NULL):
        raise ValueError(
            f"the completion of row {request.row!r}, step {request.step!r} does not fit the request cache: only "
            "stop_reason and logprobs may be none"
        )
    return pa.RecordBatch.from_arrays(columns, schema=CALLS)


def decode_call(batch: pa.RecordBatch, row: int) -> Completion:
    """A record as the completion that was cached; log-probabilities and seconds are float32."""
    value = {name: batch.column(name)[row].as_py() for name in CALLS.names[6:18]}
    logprobs = value["logprobs"]
    return Completion(
        text=value["text"],
        token_ids=tuple(value["token_ids"]),
        finish_reason=cast(FinishReason, value["finish_reason"]),
        usage=Usage(value["prompt_tokens"], value["cached_tokens"], value["generated_tokens"]),
        stop_reason=value["stop_reason"],
        timing=Timing(value["queued_seconds"], value["first_token_seconds"], value["seconds"]),
        logprobs=None if logprobs is None else tuple(logprobs),
        engine=value["engine"],
    )


def _utf8(text: str | None) -> str | None:
    """`text` without lone surrogates."""
    try:
        "" if text is None else text.encode()
    except UnicodeEncodeError:
        return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def join(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in record batches of about `BATCH_BYTES`."""
    gathered: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if batch.num_rows:
            gathered.append(batch)
            size += batch.nbytes
        if size >= BATCH_BYTES:
            yield pa.concat_batches(gathered)
            gathered, size = [], 0
    if gathered:
        yield pa.concat_batches(gathered)


def message(batch: pa.RecordBatch) -> tuple[bytes, int]:
    """A record batch as the bytes that stand for it in a segment, and their xxh3."""
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, CALLS)  # never closed: no end of stream
    writer.write_batch(batch, custom_metadata={"xxh3": _NO_HASH})
    data = bytes(sink.getvalue()[len(HEAD) :])
    xxh3 = xxhash.xxh3_64_intdigest(data)
    return data.replace(_NO_HASH, b"%016x" % xxh3, 1), xxh3


def read_message(data: pa.Buffer, xxh3: int) -> pa.RecordBatch:
    """The record batch that some bytes stand for.

    Args:
        data: What `message` returned.
        xxh3: Their hash, as it was written.

    Raises:
        Damaged: They are something else.
    """
    place = bytes(data[:_HASH_WITHIN]).find(b"%016x" % xxh3)
    rest = place + len(_NO_HASH)
    digest = xxhash.xxh3_64(data[: max(place, 0)])
    digest.update(_NO_HASH)
    digest.update(data[rest:])
    if digest.intdigest() != xxh3:
        raise Damaged("it does not have the hash it was written with")
    try:
        return pa.ipc.read_record_batch(data, CALLS)
    except BROKEN as fault:  # written so
        raise Damaged(str(fault)) from fault


@dataclass(frozen=True)
class Scan:
    """What is in one segment.

    Attributes:
        batches: `BATCH`, `segment` left 0; offsets count from the beginning of the segment.
        keys: uint64 (n, 2): the keys of all records, big-endian halves.
        created: int64 (n,): when they were cached; Unix nanoseconds.
        torn: Bytes that belong to no sound record batch.
    """

    batches: np.ndarray
    keys: np.ndarray
    created: np.ndarray
    torn: int

    def only(self, keep: np.ndarray) -> "Scan":
        """Without some of its record batches, which count as torn; `keep` is bool, one for each."""
        if keep.all():
            return self
        rows = np.repeat(keep, self.batches["rows"])
        torn = self.torn + int(self.batches["length"][~keep].sum())
        return Scan(self.batches[keep], self.keys[rows], self.created[rows], torn)


def verify(found: Scan, data: pa.Buffer) -> Scan:
    """Reads the whole segment: what remains is as it was written."""
    return found.only(np.array([_is_sound(data, batch) for batch in found.batches], bool))


def _is_sound(data: pa.Buffer, batch: np.void) -> bool:
    try:
        read_message(data.slice(int(batch["offset"]), int(batch["length"])), int(batch["xxh3"]))
    except Damaged:
        return False
    return True


def scan(data: pa.Buffer, name: str) -> Scan:
    """Finds the records of a segment; of a memory-mapped one only keys and times are read.

    Args:
        data: The segment.
        name: Its name, for the message of the error.

    Raises:
        ValueError: It is a sound Arrow stream of something else.
    """
    batches: list[tuple[int, int, int, int, int]] = []
    keys, created = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
    source = pa.BufferReader(data)
    good, ended = 0, False
    _check_schema(data, name)
    try:
        reader = pa.ipc.open_stream(source, options=_KEYS_ONLY)
        good = source.tell()
        while True:
            batch, notes = reader.read_next_batch_with_custom_metadata()
            batch.validate()
            key, when = batch.columns
            digest = int(notes[b"xxh3"], 16)
            # Copied: the segment itself is let go after the scan.
            keys.append(np.frombuffer(key.buffers()[1], ">u8", 2 * len(key)).reshape(-1, 2).astype(np.uint64))
            created.append(np.array(when))
            batches.append((0, batch.num_rows, good, source.tell() - good, digest))
            good = source.tell()
    except StopIteration:
        ended = bytes(data[good : good + len(END)]) == END
    except (*BROKEN, ValueError, TypeError, KeyError):  # the last three: no hash
        pass
    torn = data.size - good - len(END) * ended
    return Scan(np.array(batches, BATCH), np.concatenate(keys), np.concatenate(created), torn)


def _check_schema(data: pa.Buffer, name: str) -> None:
    """Raises ValueError if `data` is a stream of something else; one that is none is torn."""
    try:
        schema = pa.ipc.read_schema(pa.BufferReader(data))
    except BROKEN:
        return
    if not schema.equals(CALLS):
        raise ValueError(
            f"{name} is not a segment of the request cache of this version (its columns are "
            f"{', '.join(schema.names)}): give the run a `cache` folder of its own"
        )
