"""From what a reader took out of a file to rows of `tables.DOCUMENTS`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels.xxh64 import to_hex, xxh64
from ropewalk.schemas import tables
from ropewalk.transforms.ingest.rejects import Reject

BATCH_ROWS = 4096
BATCH_BYTES = 16 << 20
"""Largest batch of documents that is written; one longer document is a batch of its own."""


@dataclass
class Raw:
    """Records as a reader took them, in the order of the file.

    Attributes:
        text: The documents, large_string[n], valid UTF-8, no nulls.
        key: What names the record in its source, string[n]; null where nothing does.
        url: Where it lives, string[n].
        metadata: All its other fields as a JSON object, string[n]; null where there are none.
        rejects: Records that are no documents.
        counters: Other things worth counting, by name.
    """

    text: pa.Array
    key: pa.Array
    url: pa.Array
    metadata: pa.Array
    rejects: list[Reject] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, texts: list[str] | None = None, keys: list[str | None] | None = None, urls: list[str | None] | None = None,
        metadata: list[str | None] | None = None, *, rejects: list[Reject] | None = None,
        counters: dict[str, int] | None = None,
    ) -> "Raw":  # fmt: skip
        """Records from plain lists; keys, urls and metadata default to null."""
        texts = texts or []
        nothing = [None] * len(texts)
        key, url, rest = (pa.array(values or nothing, pa.string()) for values in (keys, urls, metadata))
        return cls(pa.array(texts, pa.large_string()), key, url, rest, rejects or [], counters or {})

    @classmethod
    def of_columns(cls, columns: list[pa.Array], rejects: list[Reject], counters: dict[str, int]) -> "Raw":
        """Records from text, key, url and metadata, strings of either width."""
        text, key, url, metadata = columns
        return cls(text, key.cast(pa.string()), url.cast(pa.string()), metadata.cast(pa.string()), rejects, counters)


Task = Callable[[], Raw]
"""Part of a reader's work that may run in another thread, while the next part is read."""


def document_batches(raw: Raw, source: str) -> Iterator[pa.RecordBatch]:
    """Rows of `tables.DOCUMENTS`, in batches of at most `BATCH_ROWS` rows and `BATCH_BYTES` of text."""
    count = len(raw.text)
    if count == 0:
        return
    num_bytes = pc.binary_length(raw.text).cast(pa.uint32())
    whole = pa.RecordBatch.from_arrays(
        [
            document_ids(raw.text, raw.key, source),
            raw.text,
            pa.repeat(pa.scalar(source), count),
            raw.url,
            pc.utf8_length(raw.text).cast(pa.uint32()),
            num_bytes,
            raw.metadata,
        ],
        schema=tables.DOCUMENTS,
    )
    ends = np.cumsum(num_bytes.to_numpy(), dtype=np.int64)
    start, before = 0, 0
    while start < count:
        stop = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + BATCH_ROWS, count)
        yield whole.slice(start, stop - start)
        start, before = stop, int(ends[stop - 1])


def document_ids(text: pa.Array, key: pa.Array, source: str) -> pa.StringArray:
    """Stable ids: XXH64 with seeds 0 and 1 of `source NUL key`, or of the text where there is no key; string[n]."""
    keyed = pc.fill_null(pc.greater(pc.binary_length(key), 0), False)
    if keyed.true_count == 0:
        return to_hex(*_hashes(text))
    named = pc.binary_join_element_wise(pa.scalar(source + "\0"), key.filter(keyed), "")
    if keyed.true_count == len(key):
        return to_hex(*_hashes(named))
    high, low = np.empty(len(text), np.uint64), np.empty(len(text), np.uint64)
    mask = keyed.to_numpy(zero_copy_only=False)
    high[mask], low[mask] = _hashes(named)
    high[~mask], low[~mask] = _hashes(text.filter(pc.invert(keyed)))
    return to_hex(high, low)


def _hashes(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    values = values.cast(pa.large_string())
    _, offsets, data = values.buffers()
    places = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    octets = np.frombuffer(data or b"\0", np.uint8) if data is None or data.size else np.zeros(1, np.uint8)
    return xxh64(octets, places, 0), xxh64(octets, places, 1)
