"""JSON streams cut into chunks of whole records, in bounded memory: lines, or values that may span lines.

A record that is longer than `max_record_bytes` is passed over without being held: its first bytes become a dead letter.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ropewalk.kernels.json_values import DEPTH, IN_ARRAY, IN_STRING, START, new_state, value_spans
from ropewalk.kernels.lines import line_spans
from ropewalk.transforms.ingest.rejects import Reject
from ropewalk.transforms.ingest.streams import Stream

CHUNK_BYTES = 8 << 20
"""Bytes parsed at a time, unless a record is longer."""
_NEWLINE = 10


@dataclass
class Chunk:
    """Whole records.

    Attributes:
        data: Their bytes, uint8[any].
        starts: Where each record starts in `data`, int64[n].
        stops: Where it stops, int64[n].
        offset: Place of `data[0]` in the unpacked file, in bytes.
        lines_before: Tells the number of line ends before `data[0]`.
    """

    data: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    offset: int
    lines_before: Callable[[], int]

    def place(self, record: int) -> tuple[int | None, int]:
        """Line of a record, from 1, and its place in the unpacked file in bytes.

        No line if the file, which a range reads again to count them, has gone.
        """
        start = int(self.starts[record])
        try:
            before = self.lines_before()
        except OSError:
            return None, self.offset + start
        return before + _newlines(self.data[:start]) + 1, self.offset + start

    def record(self, record: int) -> bytes:
        """The bytes of a record."""
        return self.data[self.starts[record] : self.stops[record]].tobytes()


@dataclass(frozen=True)
class Limits:
    """Bounds on what is held: `max_record_bytes` and `payload_limit` of the recipe."""

    max_record_bytes: int
    payload_limit: int

    def oversized(self, size: int) -> str:
        """What a dead letter says of a record of `size` bytes."""
        return f"{size} bytes, more than max_record_bytes={self.max_record_bytes}: raise it, or cut the record up"


def line_chunks(
    stream: Stream, path: str, limits: Limits, *, start: int = 0, stop: int | None = None,
    lines_before: Callable[[], int] = lambda: 0,
) -> Iterator[Chunk | Reject]:  # fmt: skip
    """Chunks of the lines that start in [start, stop).

    Args:
        stream: The file from byte `start`; a line starts there.
        path: Its name, for dead letters.
        limits: Bounds.
        start: Where the stream starts.
        stop: Lines that start here or later belong to the next range; none for all.
        lines_before: Tells the number of line ends before `start`.
    """
    pending, offset, passed = b"", start, 0

    def before(here: int) -> Callable[[], int]:
        return lambda: lines_before() + here

    while stop is None or offset < stop:
        block = stream.read(CHUNK_BYTES - len(pending) if len(pending) < CHUNK_BYTES else CHUNK_BYTES)
        data = pending + block
        # The last line of a range is the one that ends first at or behind byte stop - 1.
        limit = len(data) if stop is None else data.find(b"\n", max(0, stop - 1 - offset)) + 1 or len(data)
        cut = data.rfind(b"\n", 0, limit) + 1
        if cut == 0 and block:
            if len(data) <= limits.max_record_bytes:
                pending = data
                continue
            length, pending = _pass_over(stream, len(data))
            line, head = lines_before() + passed + 1, data[: limits.payload_limit]
            yield Reject("oversized_record", limits.oversized(length), path, line, offset, head)
            offset, passed = offset + length + 1, passed + 1
            continue
        if not block and stream.damage is None:
            cut = limit  # a last line needs no end
        if cut:
            whole = np.frombuffer(data, np.uint8)[:cut]
            starts, stops = line_spans(whole)
            yield Chunk(whole, starts, stops, offset, before(passed))
            offset, passed, pending = offset + cut, passed + len(starts), data[cut:]
        if not block:
            if stream.damage is not None:
                reason, detail = stream.damage.reason, stream.damage.detail
                yield Reject(reason, detail, path, lines_before() + passed + 1, offset, data[cut:])
            return


def _pass_over(stream: Stream, length: int) -> tuple[int, bytes]:
    """Reads on to the end of an endless line: (its length, what was read behind its end)."""
    while block := stream.read(CHUNK_BYTES):
        end = block.find(b"\n")
        if end >= 0:
            return length + end, block[end + 1 :]
        length += len(block)
    return length, b""


def value_chunks(stream: Stream, path: str, limits: Limits, *, start: int = 0) -> Iterator[Chunk | Reject]:
    """Chunks of JSON values: elements of a top-level array, or objects one after the other, however they are laid out.

    Args:
        stream: The file from byte `start`.
        path: Its name, for dead letters.
        limits: Bounds.
        start: Where the stream starts.
    """
    state = new_state()
    pending, offset, lines = b"", start, 0  # `pending`: what has come of the value that has begun at `offset`
    lost = lost_lines = 0  # of that value, when it is too long to be held
    while block := stream.read(CHUNK_BYTES):
        data = np.frombuffer(pending + block, np.uint8)
        starts, stops = value_spans(data, len(pending), state)
        if lost and len(starts):
            length = int(stops[0]) + lost
            yield Reject("oversized_record", limits.oversized(length), path, lines + 1, offset, pending)
            offset, lines, lost, lost_lines = offset + lost, lines + lost_lines, 0, 0
            starts, stops = starts[1:], stops[1:]
        if len(starts):
            yield Chunk(data, starts, stops, offset, lambda here=lines: here)  # type: ignore[misc]
        rest = int(state[START]) if state[START] >= 0 else len(data)
        if lost == 0:
            lines += _newlines(data[:rest])
            offset += rest
        pending = data[rest:].tobytes()
        if len(pending) > limits.max_record_bytes:
            kept = pending[: limits.payload_limit]
            lost, lost_lines = lost + len(pending) - len(kept), lost_lines + pending.count(b"\n", len(kept))
            pending = kept
        if state[START] >= 0:
            state[START] = 0
    whole = state[DEPTH] == 0 and not state[IN_STRING] and not lost
    if pending and whole:
        data = np.frombuffer(pending, np.uint8)
        yield Chunk(data, np.array([0]), np.array([len(data)]), offset, lambda: lines)
    if stream.damage is not None or state[IN_ARRAY] or (pending and not whole):
        reason, detail = "truncated_file", "the file ends inside an array or object: copy the file again"
        if stream.damage is not None:
            reason, detail = stream.damage.reason, stream.damage.detail
        if whole:
            offset, pending = offset + len(pending), b""
        yield Reject(reason, detail, path, lines + 1, offset, pending[: limits.payload_limit])


def _newlines(data: np.ndarray) -> int:
    return int(np.count_nonzero(data == _NEWLINE))
