"""Sketches: the fixed-size stand-in of a document in deduplication.

    documents  id text source num_bytes [alive]
               |
    sketches   order       which copy is better, as one integer
               exact_*     128-bit hash of its words, in order: equal for copies up to case, punctuation and spacing
               signature   MinHash of its word n-grams

Order of survivors, best first: higher quality, longer text (compared up to 16 MiB), higher priority of the source,
smaller id, smaller address. `order` holds what 64 bits can of it, larger is better:

    bits 63-56  quality (0: no stage measures it yet)
    bits 55-32  bytes of the text, at most 2^24 - 1
    bits 31-24  priority of the source + 128
    bits 23-0   the id's first 24 bits, inverted
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import minhash, words
from ropewalk.kernels.sketch import sketch
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.transforms import utf8

MAX_LENGTH = (1 << 24) - 1


def sketch_schema(num_perm: int) -> pa.Schema:
    """Schema of sketches with `num_perm` signature values; without a signature if there are none."""
    fields = [
        pa.field("order", pa.uint64(), nullable=False),
        pa.field("exact_high", pa.uint64()),  # null: the document is out
        pa.field("exact_low", pa.uint64()),
    ]
    if num_perm:
        # Null also where a document has no words, and so nothing to be similar by.
        fields.append(pa.field("signature", pa.list_(pa.uint32(), num_perm)))
    return pa.schema(fields)


def order_keys(ids: pa.Array, num_bytes: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """The prefix of the survivor order, see the module.

    Args:
        ids: Document ids, 32 hex digits each, string[n].
        num_bytes: Length of each text, integer[n].
        priority: Priority of each document's source, -128 … 127, integer[n].

    Returns:
        uint64[n], larger is better.
    """
    high, _ = from_hex(ids)
    length = np.minimum(num_bytes, MAX_LENGTH).astype(np.uint64)
    place = (priority.astype(np.int64) + 128).astype(np.uint64)
    keys: np.ndarray = length << np.uint64(32) | place << np.uint64(24) | ~high >> np.uint64(40)
    return keys


@dataclass
class MinHash(beam.PTransform):
    """Batches of documents in, their sketches out, row for row.

    Attributes:
        ngram: Words in a shingle.
        num_perm: Values in a signature; 0 for exact hashes only.
        seed: Seed of the permutations, as datasketch takes it.
        priorities: Priority by source name; others have 0.
        threads: Threads for the kernel.
    """

    ngram: int = 5
    num_perm: int = 112
    seed: int = 1
    priorities: Mapping[str, int] = field(default_factory=dict)
    threads: int = 1

    def setup(self) -> None:
        """Compiles the kernel, or loads it."""
        words.table()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Sketches; rows that a column `alive` puts out get nulls."""
        count = batch.num_rows
        data, offsets = utf8.buffers(batch.column("text"))
        alive = np.ones(count, bool)
        if "alive" in batch.schema.names:
            alive = batch.column("alive").to_numpy(zero_copy_only=False)
        a, b = minhash.permutations(self.num_perm, self.seed % (1 << 32))
        exact = np.zeros((count, 2), np.uint64)
        num_words = np.zeros(count, np.int64)
        signatures = np.full((count, self.num_perm), minhash.EMPTY, np.uint32)

        def run(first: int, last: int) -> None:
            sketch(
                data, offsets, alive, first, last, words.table(), self.ngram, a, b, exact, num_words, signatures
            )  # fmt: skip

        utf8.spread(run, offsets, self.threads)
        priority = np.array([self.priorities.get(s, 0) for s in batch.column("source").to_pylist()], np.int64)
        columns: list[pa.Array] = [
            pa.array(order_keys(batch.column("id"), batch.column("num_bytes").to_numpy(), priority)),
            pa.array(exact[:, 0], mask=~alive),
            pa.array(exact[:, 1], mask=~alive),
        ]
        if self.num_perm:
            flat = pa.array(signatures.reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, self.num_perm, mask=pa.array(num_words == 0)))
        result = pa.RecordBatch.from_arrays(columns, schema=sketch_schema(self.num_perm))
        counters = {
            "sketched-docs": int(alive.sum()),
            "sketched-bytes": int(np.diff(offsets)[alive].sum()),
            "wordless-docs": int((alive & (num_words == 0)).sum()),
        }
        return result, counters

    def _sketches(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._sketches).with_output_types(pa.RecordBatch)
