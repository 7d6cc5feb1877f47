"""Every table Ropewalk writes, one Arrow schema each, with the unit of each number in the field's metadata.

A corpus is one row space. `DOCUMENTS` defines it; each entry of `COLUMNS` is row-aligned with it: row r of shard s is
the same document in every folder. Column names are disjoint across these tables, so that
`datasets.concatenate_datasets([documents, columns], axis=1)` is the joined view.
`SEQUENCES` and `REJECTS` are row spaces of their own.
"""

import pyarrow as pa

VECTOR_DIMENSIONS = 256
"""Length of a document vector: 256 float16 values, 512 bytes."""


def _field(name: str, type_: pa.DataType, about: str, *, unit: str | None = None, nullable: bool = False) -> pa.Field:
    metadata = {"about": about} | ({"unit": unit} if unit else {})
    return pa.field(name, type_, nullable=nullable, metadata=metadata)


DOCUMENTS = pa.schema(
    [
        _field("id", pa.string(), "stable 128-bit hash of (source, key), or of the text where there is no key; hex"),
        _field("text", pa.large_string(), "the document, UTF-8, as it was read"),
        _field("source", pa.string(), "name of the input it came from"),
        _field("url", pa.string(), "where the document lives, if the input says", nullable=True),
        _field("num_chars", pa.uint32(), "length of the text", unit="codepoints"),
        _field("num_bytes", pa.uint32(), "length of the text in UTF-8", unit="bytes"),
        _field("metadata", pa.string(), "all other fields of the record, as one JSON object", nullable=True),
    ]
)

FILTER = pa.schema(
    [
        _field("passed", pa.bool_(), "whether every filter let the document through"),
        _field("filter_reason", pa.string(), "the first filter that refused it", nullable=True),
    ]
)

DEDUP = pa.schema(
    [
        _field("keep", pa.bool_(), "false: a copy of `dup_of`; null: not considered", nullable=True),
        _field("dup_of", pa.string(), "id of the copy that was kept", nullable=True),
        _field("component_size", pa.uint32(), "documents in its group of copies, itself included", unit="documents"),
        _field("similarity", pa.float32(), "exact Jaccard of shingles with `dup_of`", unit="1", nullable=True),
    ]
)

TOKENIZE = pa.schema(
    [
        _field("input_ids", pa.list_(pa.uint32()), "tokens of the text and the end-of-text token", nullable=True),
        _field("num_tokens", pa.uint32(), "length of `input_ids`; 0 where the document is out", unit="tokens"),
    ]
)

EMBED = pa.schema(
    [
        _field(
            "vector",
            pa.list_(pa.float16(), VECTOR_DIMENSIONS),
            "unit vector on the grid of multiples of 2^-11: dot products of two are exact in float32",
            nullable=True,
        ),
    ]
)

CLUSTER = pa.schema(
    [
        _field("cluster", pa.uint32(), "index of the nearest centroid", nullable=True),
        _field("distance", pa.float32(), "1 - cosine to that centroid", unit="1", nullable=True),
    ]
)

ORDER = pa.schema(
    [
        _field("rank", pa.uint64(), "place in the similarity order of the whole corpus, from 0", nullable=True),
        _field("prev_similarity", pa.float32(), "cosine with the document before it", unit="1", nullable=True),
    ]
)

COLUMNS: dict[str, pa.Schema] = {
    "filter": FILTER,
    "dedup": DEDUP,
    "tokenize": TOKENIZE,
    "embed": EMBED,
    "cluster": CLUSTER,
    "order": ORDER,
}
"""Column tables by the stage that writes them, in the order of the walk."""

SEQUENCES = pa.schema(
    [
        _field("input_ids", pa.list_(pa.uint32()), "the sequence: its segments, one after the other, no padding"),
        _field("num_tokens", pa.uint32(), "length of `input_ids`, at most the layout's length", unit="tokens"),
        _field("seq_lengths", pa.list_(pa.uint32()), "length of each segment", unit="tokens"),
        _field("cu_seqlens", pa.list_(pa.int32()), "borders: 0, then the running sum of `seq_lengths`", unit="tokens"),
        _field("doc_ids", pa.list_(pa.string()), "document of each segment"),
        _field("doc_starts", pa.list_(pa.uint32()), "where each segment starts inside its document", unit="tokens"),
        _field("loss_weights", pa.list_(pa.float32()), "weight of each target token of a segment", unit="1"),
        _field("similarity", pa.float32(), "mean cosine over pairs of documents; null for one", nullable=True),
    ]
)

REJECTS = pa.schema(
    [
        _field("stage", pa.string(), "stage that could not take the record"),
        _field("reason", pa.string(), "reason code"),
        _field("detail", pa.string(), "what exactly was wrong, and how to mend it"),
        _field("source", pa.string(), "name of the input"),
        _field("path", pa.string(), "file the record came from"),
        _field("line", pa.uint64(), "line in the file (or record in a binary file), from 1", nullable=True),
        _field("byte_offset", pa.uint64(), "start of the record in the unpacked file", unit="bytes", nullable=True),
        _field("payload", pa.large_binary(), "the record as read, cut at `payload_limit`", nullable=True),
    ]
)
