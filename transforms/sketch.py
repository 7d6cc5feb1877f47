"""Sketches: the fixed-size stand-in of a document in deduplication.

    documents  id text source num_bytes [url] [metadata] [alive]
               |
    sketches   order       which copy is better, as one integer
               exact_*     128-bit hash of its words, in order: equal for copies up to what is normalised away
               url         64-bit hash of the document's address, if it has one and addresses count
               signature   MinHash of its shingles

Order of survivors, best first: documents of older corpora, higher quality, longer text (compared up to 16 MiB), higher
priority of the source, smaller id, smaller address. `order` holds what 64 bits can of it, larger is better:

    bit  63     1: a document of an older corpus, see `older`
    16 bits     quality as a bfloat16, so to about three digits; left out where the recipe names none
    24 bits     bytes of the text, at most 2^24 - 1
    8 bits      priority of the source + 128
    15 or 31    the id's first bits, inverted
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ropewalk.kernels import minhash, nfc, words
from ropewalk.kernels.sketch import sketch
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.transforms import utf8

MAX_LENGTH = (1 << 24) - 1
LARGEST_QUALITY = 3e38
"""About what 32 bits can hold; larger numbers count as this one."""


def sketch_schema(num_perm: int) -> pa.Schema:
    """Schema of sketches with `num_perm` signature values; without a signature if there are none."""
    fields = [
        pa.field("order", pa.uint64(), nullable=False),
        pa.field("exact_high", pa.uint64()),  # null: the document is out
        pa.field("exact_low", pa.uint64()),
        pa.field("url", pa.uint64()),
    ]
    if num_perm:
        # Null also where a document has no words, and so nothing to be similar by.
        fields.append(pa.field("signature", pa.list_(pa.uint32(), num_perm)))
    return pa.schema(fields)


def order_keys(
    ids: pa.Array, num_bytes: np.ndarray, priority: np.ndarray, quality: np.ndarray | None = None
) -> np.ndarray:
    """The prefix of the survivor order, see the module.

    Args:
        ids: Document ids, 32 hex digits each, string[n].
        num_bytes: Length of each text, integer[n].
        priority: Priority of each document's source, -128 … 127, integer[n].
        quality: Quality of each document, larger is better, float[n]; NaN counts as the lowest.

    Returns:
        uint64[n], larger is better.
    """
    high, _ = from_hex(ids)
    length = np.minimum(num_bytes, MAX_LENGTH).astype(np.uint64)
    place = (priority.astype(np.int64) + 128).astype(np.uint64)
    keys: np.ndarray = length << np.uint64(8) | place
    if quality is None:
        return keys << np.uint64(31) | ~high >> np.uint64(33)
    bits = np.where(np.isnan(quality), -np.inf, quality).astype(np.float32).view(np.uint32)
    ascending = np.where(bits >> np.uint32(31) == 1, ~bits, bits | np.uint32(1 << 31))  # integers that sort alike
    keys |= (ascending >> np.uint32(16)).astype(np.uint64) << np.uint64(32)
    return keys << np.uint64(15) | ~high >> np.uint64(49)


def qualities(metadata: pa.Array, name: str) -> np.ndarray:
    """The number called `name` in each document's metadata (JSON objects): float64[n], NaN where there is none."""
    found = np.full(len(metadata), np.nan)
    for row, text in enumerate(metadata.to_pylist()):
        value = json.loads(text).get(name) if text else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[row] = min(max(value, -LARGEST_QUALITY), LARGEST_QUALITY)
    return found


def url_keys(urls: pa.Array) -> pa.Array:
    """Hash of each URL without scheme, `www.`, fragment and last slashes, host in lower case: uint64[n], or null."""
    plain = pc.replace_substring_regex(urls, r"^[A-Za-z][A-Za-z0-9+.-]*://", "")
    plain = pc.replace_substring_regex(pc.replace_substring_regex(plain, r"#.*$", ""), r"/+$", "")
    host = pc.replace_substring_regex(pc.utf8_lower(pc.replace_substring_regex(plain, r"[/?].*$", "")), r"^www\.", "")
    rest = pc.replace_substring_regex(plain, r"^[^/?]*", "")
    keys = [
        None if h is None or not h + r else xxhash.xxh3_64_intdigest(f"{h}{r}".encode())
        for h, r in zip(host.to_pylist(), rest.to_pylist(), strict=True)
    ]
    return pa.array(keys, pa.uint64())


@dataclass
class MinHash(beam.PTransform):
    """Batches of documents in, their sketches out, row for row.

    Attributes:
        ngram: Words in a shingle.
        num_perm: Values in a signature; 0 for exact hashes only.
        seed: Seed of the permutations, as datasketch takes it.
        scheme: `affine32`, datasketch's, or `one_permutation`, see the kernels.
        normal: What of a text does not count, and whether its words or its characters are compared.
        nfc: Whether composed and decomposed characters count as the same.
        priorities: Priority by source name; others have 0.
        quality: Field of the metadata that says how good a document is; none for no such thing.
        url: Whether documents with the same URL are to be found.
        threads: Threads for the kernel.
    """

    ngram: int = 5
    num_perm: int = 112
    seed: int = 1
    scheme: Literal["affine32", "one_permutation"] = "affine32"
    normal: words.Normal = field(default_factory=words.Normal)
    nfc: bool = True
    priorities: Mapping[str, int] = field(default_factory=dict)
    quality: str | None = None
    url: bool = False
    threads: int = 1

    def setup(self) -> None:
        """Builds the tables that batches share."""
        words.table(self.normal)
        if self.nfc:
            nfc.table()

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Sketches; rows that a column `alive` puts out get nulls."""
        count = batch.num_rows
        texts = batch.column("text")
        alive = np.ones(count, bool)
        if "alive" in batch.schema.names:
            alive = batch.column("alive").to_numpy(zero_copy_only=False)
        apart = utf8.maybe_decomposed(texts, np.arange(count)) & alive if self.nfc else np.zeros(count, bool)
        exact, num_words, signatures = self._sketch(texts, alive & ~apart)
        if apart.any():
            composed = utf8.composed(texts.filter(pa.array(apart)))
            parts = self._sketch(composed, np.ones(len(composed), bool))
            exact[apart], num_words[apart], signatures[apart] = parts
        priority = np.array([self.priorities.get(s, 0) for s in batch.column("source").to_pylist()], np.int64)
        quality = qualities(batch.column("metadata"), self.quality) if self.quality else None
        columns: list[pa.Array] = [
            pa.array(order_keys(batch.column("id"), batch.column("num_bytes").to_numpy(), priority, quality)),
            pa.array(exact[:, 0], mask=~alive),
            pa.array(exact[:, 1], mask=~alive),
            url_keys(batch.column("url")) if self.url else pa.nulls(count, pa.uint64()),
        ]
        if self.num_perm:
            flat = pa.array(signatures.reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, self.num_perm, mask=pa.array(num_words == 0)))
        result = pa.RecordBatch.from_arrays(columns, schema=sketch_schema(self.num_perm))
        counters = {
            "sketched-docs": int(alive.sum()),
            "sketched-bytes": int(np.diff(utf8.buffers(texts)[1])[alive].sum()),
            "wordless-docs": int((alive & (num_words == 0)).sum()),
        }
        return result, counters

    def _sketch(self, texts: pa.LargeStringArray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Exact hash, number of words and signature of the texts wanted (bool[n]), rows of the others as they began."""
        data, offsets = utf8.buffers(texts)
        classes, seed = words.table(self.normal), self.seed % (1 << 32)
        a, b = minhash.permutations(self.num_perm if self.scheme == "affine32" else 0, seed)
        exact = np.zeros((len(texts), 2), np.uint64)
        num_words = np.zeros(len(texts), np.int64)
        signatures = np.full((len(texts), self.num_perm), minhash.EMPTY, np.uint32)

        def run(first: int, last: int) -> None:
            sketch(
                data, offsets, wanted, first, last, classes, self.ngram, a, b, seed, exact, num_words, signatures
            )  # fmt: skip

        utf8.spread(run, offsets, self.threads)
        return exact, num_words, signatures

    def _sketches(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._sketches).with_output_types(pa.RecordBatch)
