"""Similarity of pairs of documents: what a candidate has to pass.

`exact`: from the shingle sets, made again from the texts. Texts are read where they lie, some megabytes at a time, so
memory does not depend on the number of pairs; the set of a document is made once for all its pairs in a chunk. A very
long text is compared by a share of its shingles, see `shingle_sets`. Where texts cannot be mapped, see `sent_sets`.
`signature`: estimated from the signatures, standard error sqrt(s (1 - s) / values): no text moves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels.stars import unique_pairs
from ropewalk.transforms.ahead import ahead
from ropewalk.transforms.candidates import EDGES
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.shingle_sets import Part, Shingling, shingle_sets

VERIFIED = pa.schema([*EDGES, ("similarity", pa.float32())])
"""Pairs and their similarity; NaN where it was not looked at (`verify: none`)."""

CHUNK_BYTES = 8 << 20
"""Text whose shingle sets a thread has in memory at once; they take up to eight times as much."""


class Comparison(Protocol):
    """What pairs of addresses are compared by: uint64[n] twice, to bool[n] or float64[n]."""

    def exact(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether each pair has the same words in the same order."""

    def same_url(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether each pair has a URL, and the same."""

    def signature(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Share of equal signature values of each pair; 0 without a signature."""

    def jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Jaccard similarity of the shingle sets of each pair."""


class PairSimilarity:
    """Similarities of pairs of addresses.

    Args:
        corpus: Where the texts are.
        sketches: Table of the sketches.
        shingling: What the shingles are.
        threads: Threads for the kernels.
    """

    def __init__(self, corpus: CorpusDir, sketches: str, shingling: Shingling, threads: int) -> None:
        self.shingling, self.threads = shingling, threads
        self._exact = Gather(corpus, sketches, ["exact_high", "exact_low"])
        self._urls = Gather(corpus, sketches, ["url"])
        self._signatures = Gather(corpus, sketches, ["signature"])
        self._lengths = Gather(corpus, DOCUMENTS, ["num_bytes"])
        self._texts = Gather(corpus, DOCUMENTS, ["text"])

    def exact(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether each pair has the same words in the same order: uint64[n] twice -> bool[n]."""
        return self._same(self._exact, a, b)

    def same_url(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether each pair has a URL, and the same: uint64[n] twice -> bool[n]."""
        return self._same(self._urls, a, b)

    def _same(self, table: Gather, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        both = table.rows(np.concatenate([a, b]))
        return same_rows(both.slice(0, len(a)), both.slice(len(a)))

    def signature(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Share of equal signature values of each pair: uint64[n] twice -> float64[n]; 0 without a signature."""
        result = np.zeros(len(a))
        for start in range(0, len(a), 4096):
            part = slice(start, start + 4096)
            left, right = (self._signatures.rows(ends[part]).column(0) for ends in (a, b))
            result[part] = signature_similarity(left, right)
        return result

    def jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Exact Jaccard similarity of the shingle sets of each pair: uint64[n] twice -> float64[n]."""
        order = np.lexsort((a, b))  # all pairs of one document in a row: its set is made once
        a, b = a[order], b[order]
        result = np.empty(len(a), np.float64)
        chunks = (self._open(a[chunk], b[chunk]) for chunk in self._chunks(a, b))
        result[order] = np.concatenate([np.empty(0), *ahead(self._compare, chunks, self.threads)])
        return result

    def _chunks(self, a: np.ndarray, b: np.ndarray) -> Iterator[slice]:
        lengths = self._lengths.rows(np.concatenate([a, b])).column(0).to_numpy().astype(np.int64)
        lengths = np.minimum(lengths, CHUNK_BYTES)
        left, right = lengths[: len(a)], lengths[len(a) :]
        fresh = np.diff(b, prepend=b[:1] + np.uint64(1)) != 0
        total = np.cumsum(left + np.where(fresh, right, 0))
        start = 0
        while start < len(a):
            before = total[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(total, before + CHUNK_BYTES, side="right")))
            yield slice(start, stop)
            start = stop

    def _open(self, a: np.ndarray, b: np.ndarray) -> "_Chunk":
        places, index = np.unique(np.concatenate([a, b]), return_inverse=True)
        parts = [(batch.column(0), rows, at) for batch, rows, at in self._texts.parts(places)]
        return _Chunk(parts, len(places), index[: len(a)], index[len(a) :])

    def _compare(self, chunk: "_Chunk") -> np.ndarray:
        sets = shingle_sets(chunk.parts, chunk.size, self.shingling, self.threads)
        return sets.similarity(chunk.left, chunk.right, self.threads)


class _Chunk(NamedTuple):
    """Texts where they lie, how many there are, and the pairs of them to compare, by number: int64[m] twice."""

    parts: list[Part]
    size: int
    left: np.ndarray
    right: np.ndarray


def same_rows(left: pa.RecordBatch, right: pa.RecordBatch) -> np.ndarray:
    """Where two batches of the same integer columns agree in all of them, nulls agreeing with nothing: bool[n]."""
    same = np.ones(left.num_rows, bool)
    for x, y in zip(left.columns, right.columns, strict=True):
        same &= pc.fill_null(pc.equal(x, y), False).to_numpy(zero_copy_only=False)
    return same


def signature_similarity(left: pa.Array, right: pa.Array) -> np.ndarray:
    """Share of equal values of two columns of signatures, 0 where one is null: float64[n]."""
    both = pc.and_(left.is_valid(), right.is_valid())
    result = np.zeros(len(left))
    where = both.to_numpy(zero_copy_only=False)
    if where.any():
        x, y = (side.filter(both).flatten().to_numpy() for side in (left, right))
        result[where] = (x == y).reshape(int(where.sum()), -1).mean(axis=1)
    return result


@dataclass
class VerifyEdges(beam.PTransform):
    """Candidate edges in, those whose documents are really similar out, with their similarity.

    Attributes:
        corpus: Where the texts are.
        sketches: Table of the sketches.
        shingling: What the shingles are.
        threshold: Smallest similarity that passes.
        near: Whether documents that are not exact copies can pass at all.
        verify: See `DedupConfig.verify`.
        url: Whether documents with the same URL pass.
        threads: Threads for the kernels.
    """

    corpus: CorpusDir
    sketches: str
    shingling: Shingling
    threshold: float
    near: bool = True
    verify: Literal["exact", "signature", "none"] = "exact"
    url: bool = False
    threads: int = 1
    _pairs: PairSimilarity | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the tables when first used."""

    def __call__(self, edges: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verified edges, each once, sorted by b, then a."""
        if self._pairs is None:
            self._pairs = PairSimilarity(self.corpus, self.sketches, self.shingling, self.threads)
        a, b = unique_pairs(edges.column("a").to_numpy(), edges.column("b").to_numpy())
        return self.judge(a, b, self._pairs)

    def judge(self, a: np.ndarray, b: np.ndarray, pairs: "Comparison") -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verified edges of unique pairs, uint64[n] twice."""
        exact = pairs.exact(a, b)
        same = exact | pairs.same_url(a, b) if self.url else exact
        similarity = np.where(exact, 1.0, np.nan)
        passed = same.copy()
        if self.near:
            open_ = ~exact
            if self.verify == "none":
                passed |= True
            else:
                compare = pairs.jaccard if self.verify == "exact" else pairs.signature
                similarity[open_] = compare(a[open_], b[open_])
                passed |= similarity >= self.threshold
        columns = [a[passed], b[passed], similarity[passed].astype(np.float32)]
        return pa.RecordBatch.from_arrays(columns, schema=VERIFIED), {
            "compared-pairs": len(a),
            "exact-pairs": int(exact.sum()),
            "url-pairs": int((same & ~exact).sum()),
            "verified-pairs": int(passed.sum()),
            "rejected-pairs": int((~passed).sum()),
        }

    def _verified(self, edges: pa.RecordBatch) -> pa.RecordBatch:
        return self(edges)[0]

    def expand(self, edges: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Verifies each batch by itself."""
        return edges | beam.Map(self._verified).with_output_types(pa.RecordBatch)
