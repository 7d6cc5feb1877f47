"""Every table Ropewalk writes, one Arrow schema each, with the unit of each number in the field's metadata.

A corpus is one row space. `DOCUMENTS` defines it; each entry of `COLUMNS` is row-aligned with it: row r of shard s is
the same document in every folder. Column names are disjoint across these tables, so that
`datasets.concatenate_datasets([documents, columns], axis=1)` is the joined view.
`SEQUENCES` and `REJECTS` are row spaces of their own.
"""

import pyarrow as pa

VECTOR_DIMENSIONS = 256
"""Length of a lexical vector: 256 float16 values, 512 bytes."""
MAX_DIMENSIONS = 512
"""No vector is longer: 1 KiB a document."""
VECTOR = pa.list_(pa.float16())
"""A vector where one travels between jobs: of whatever length the embedder has."""


def column(name: str, type_: pa.DataType, about: str, *, unit: str | None = None, nullable: bool = False) -> pa.Field:
    """A column whose meaning and unit travel in its metadata."""
    metadata = {"about": about} | ({"unit": unit} if unit else {})
    return pa.field(name, type_, nullable=nullable, metadata=metadata)


DOCUMENTS = pa.schema(
    [
        column("id", pa.string(), "stable 128-bit hash of (source, key), or of the text where there is no key; hex"),
        column("text", pa.large_string(), "the document, UTF-8, as it was read"),
        column("source", pa.string(), "name of the input it came from"),
        column("url", pa.string(), "where the document lives, if the input says", nullable=True),
        column("num_chars", pa.uint32(), "length of the text", unit="codepoints"),
        column("num_bytes", pa.uint32(), "length of the text in UTF-8", unit="bytes"),
        column("metadata", pa.string(), "all other fields of the record, as one JSON object", nullable=True),
    ]
)

SPAN = pa.struct([pa.field("start", pa.uint32(), False), pa.field("stop", pa.uint32(), False)])
"""Bytes [start, stop) of a document's UTF-8; both are borders of characters."""

FILTER = pa.schema(
    [
        column("passed", pa.bool_(), "whether every filter let the document through"),
        column("filter_reason", pa.string(), "the first filter that refused it", nullable=True),
        column("language", pa.string(), "code of its language; null: not asked for, or not known", nullable=True),
        column("language_score", pa.float32(), "how certain that is, 0 to 1", unit="1", nullable=True),
    ]
)

DEDUP = pa.schema(
    [
        column("keep", pa.bool_(), "false: a copy of `dup_of`; null: not considered", nullable=True),
        column("dup_of", pa.string(), "id of the copy that was kept", nullable=True),
        column("component_size", pa.uint32(), "documents in its group of copies, itself included", unit="documents"),
        column("similarity", pa.float32(), "exact Jaccard of shingles with `dup_of`", unit="1", nullable=True),
        column("dup_kind", pa.string(), "exact, url, near, or chained: a copy of a copy only", nullable=True),
    ]
)

PASSAGES = pa.schema(
    [
        column("repeated_spans", pa.list_(SPAN), "bytes of the text that occurred before, ascending, apart"),
        column("repeated_bytes", pa.uint32(), "length of all of them", unit="bytes"),
        column("enough_left", pa.bool_(), "false: too little is left; null: not considered", nullable=True),
    ]
)

DECONTAMINATE = pa.schema(
    [
        column("clean", pa.bool_(), "false: contaminated, and out; null: not considered", nullable=True),
        column(
            "contaminated_spans",
            pa.list_(
                pa.struct([*SPAN, pa.field("benchmark", pa.string(), False), pa.field("item", pa.string(), False)])
            ),
            "bytes of the text that a benchmark holds as well, and which item of it",
        ),
        column("masked_spans", pa.list_(SPAN), "bytes that are cut for it, ascending, apart; none unless masking"),
    ]
)

TOKENIZE = pa.schema(
    [
        column("input_ids", pa.list_(pa.uint32()), "tokens of the text and the end-of-text token", nullable=True),
        column("num_tokens", pa.uint32(), "length of `input_ids`; 0 where the document is out", unit="tokens"),
    ]
)


def embed_table(
    dimensions: int, *, reusable: str | None = None, windowed: bool = False, centred: bool = False
) -> pa.Schema:
    """Columns of the stage `embed`.

    Args:
        dimensions: Length of the vectors.
        reusable: Fingerprint of an embedder whose vectors depend on the text alone; it goes into the schema's metadata,
            so that a file says for itself by what its vectors were made.
        windowed: Whether long documents were embedded window by window.
        centred: Whether the vectors were centred by length.
    """
    vector = pa.list_(pa.float16(), dimensions)
    about = "unit vector on the grid of multiples of 2^-11: dot products of two are exact in float32"
    columns = [column("vector", vector, about, nullable=True)]
    if centred:
        columns.append(column("raw_vector", vector, "`vector` before it was centred", nullable=True))
    if windowed:
        columns += [
            column("head_vector", vector, "unit vector of the first window alone", nullable=True),
            column("dispersion", pa.float32(), "1 - length of the mean of the unit window vectors", nullable=True),
            column("num_windows", pa.uint32(), "windows that were encoded", unit="windows", nullable=True),
        ]
    if reusable is None:
        return pa.schema(columns)
    columns.append(
        column("text_hash", pa.string(), "XXH3-128 of the text as embedded; hex; null: do not reuse", nullable=True)
    )
    return pa.schema(columns, {"embedder": reusable})


EMBED = embed_table(VECTOR_DIMENSIONS)
"""Columns of `embed` for the lexical embedder."""

CLUSTER = pa.schema(
    [
        column("cluster", pa.uint32(), "index of the nearest centroid", nullable=True),
        column("distance", pa.float32(), "1 - cosine to that centroid", unit="1", nullable=True),
    ]
)

SEMANTIC = pa.schema(
    [
        column("semantic_keep", pa.bool_(), "false: a duplicate by its vector; null: not considered", nullable=True),
        column("semantic_dup_of", pa.string(), "id of the document it repeats", nullable=True),
        column("semantic_similarity", pa.float32(), "cosine with `semantic_dup_of`", unit="1", nullable=True),
    ]
)

NEIGHBOURS = pa.schema(
    [
        column("neighbours", pa.list_(pa.uint64()), "addresses of the nearest documents, best first", nullable=True),
        column("neighbour_similarity", pa.list_(pa.float32()), "cosine with each of them", unit="1", nullable=True),
    ]
)

ORDER = pa.schema(
    [
        column("rank", pa.uint64(), "place in the similarity order of the whole corpus, from 0", nullable=True),
        column("prev_similarity", pa.float32(), "cosine with the document before it", unit="1", nullable=True),
    ]
)

COLUMNS: dict[str, pa.Schema] = {
    "filter": FILTER,
    "dedup": DEDUP,
    "passages": PASSAGES,
    "decontaminate": DECONTAMINATE,
    "tokenize": TOKENIZE,
    "embed": EMBED,
    "cluster": CLUSTER,
    "semantic": SEMANTIC,
    "neighbours": NEIGHBOURS,
    "order": ORDER,
}
"""Column tables by the stage that writes them, in the order of the walk."""

EDGES = pa.schema(
    [
        column("a", pa.uint64(), "address of a document"),
        column("b", pa.uint64(), "address of another, larger than `a`: one of them has the other as a neighbour"),
        column("similarity", pa.float32(), "their cosine", unit="1"),
    ]
)
"""The graph of nearest neighbours, a row space of its own: an edge lies in the shard of `a`, ascending."""

SEQUENCES = pa.schema(
    [
        column("input_ids", pa.list_(pa.uint32()), "the sequence: its segments, one after the other, no padding"),
        column("num_tokens", pa.uint32(), "length of `input_ids`, at most the layout's length", unit="tokens"),
        column("seq_lengths", pa.list_(pa.uint32()), "length of each segment", unit="tokens"),
        column("cu_seqlens", pa.list_(pa.int32()), "borders: 0, then the running sum of `seq_lengths`", unit="tokens"),
        column("doc_ids", pa.list_(pa.string()), "document of each segment"),
        column("doc_starts", pa.list_(pa.uint32()), "where each segment starts inside its document", unit="tokens"),
        column("loss_weights", pa.list_(pa.float32()), "weight of each target token of a segment", unit="1"),
        column("similarity", pa.float32(), "mean cosine over pairs of documents; null for one", nullable=True),
    ]
)

REJECTS = pa.schema(
    [
        column("stage", pa.string(), "stage that could not take the record"),
        column("reason", pa.string(), "reason code"),
        column("detail", pa.string(), "what exactly was wrong, and how to mend it"),
        column("source", pa.string(), "name of the input"),
        column("path", pa.string(), "file the record came from"),
        column("line", pa.uint64(), "line in the file (or record in a binary file), from 1", nullable=True),
        column("byte_offset", pa.uint64(), "start of the record in the unpacked file", unit="bytes", nullable=True),
        column("payload", pa.large_binary(), "the record as read, cut at `payload_limit`", nullable=True),
    ]
)
