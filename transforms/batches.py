"""Arrow batches as Beam elements: a compact coder, and slices of a batch by key.

Shuffle sub-batches, never rows: cut a batch once by key, send a few slices, join the slices of a group on the other
side. The number of Beam elements then depends on shards and partitions, never on documents.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa


class RecordBatchCoder(beam.coders.Coder):
    """Arrow IPC. Beam's default pickles the whole parent buffer of a slice (apache/arrow#26685)."""

    def encode(self, value: pa.RecordBatch) -> bytes:
        """One IPC stream: the schema and this batch's rows only."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_batch(value)
        return bytes(sink.getvalue().to_pybytes())

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        """The batch, its buffers inside `encoded`."""
        return pa.ipc.open_stream(encoded).read_next_batch()

    def is_deterministic(self) -> bool:
        """Equal batches may have different buffers, so never a key."""
        return False

    def to_type_hint(self) -> type:
        """The element type this codes."""
        return pa.RecordBatch  # type: ignore[no-any-return]


beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)


def split_by_key(batch: pa.RecordBatch, keys: np.ndarray) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cuts `batch` into one slice per distinct key, keys ascending, rows of a key in their order.

    Args:
        batch: n rows.
        keys: Integer key of each row, [n], each below 2^63.

    Yields:
        `(key, slice)`.
    """
    if batch.num_rows == 0:
        return
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    stops = np.r_[starts[1:], len(ordered)]
    if len(starts) > 1:
        batch = batch.take(pa.array(order))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield int(ordered[start]), batch.slice(start, stop - start)


def concat(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Joins slices into one batch of `schema`; none gives an empty batch."""
    parts = [batch for batch in batches if batch.num_rows]
    if parts:
        return pa.concat_batches(parts)
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
