"""Exact similarity of pairs of documents, computed again from their texts: what a candidate has to pass.

Texts are fetched by address, some megabytes at a time, so memory does not depend on the number of pairs (only a single
pair of huge texts can exceed it); the shingle set of a document is made once for all its pairs in a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import jaccard, words
from ropewalk.kernels.stars import unique_pairs
from ropewalk.transforms import utf8
from ropewalk.transforms.candidates import EDGES
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather

VERIFIED = pa.schema([*EDGES, ("similarity", pa.float32())])
"""Pairs and their exact similarity."""

CHUNK_BYTES = 16 << 20
"""Text whose shingle sets are in memory at once; they take up to four times as much."""


class PairSimilarity:
    """Similarities of pairs of addresses.

    Args:
        corpus: Where the texts are.
        sketches: Table of the sketches, for the exact hashes.
        ngram: Words in a shingle.
        threads: Threads for the kernels.
    """

    def __init__(self, corpus: CorpusDir, sketches: str, ngram: int, threads: int) -> None:
        self.ngram, self.threads = ngram, threads
        self._exact = Gather(corpus, sketches, ["exact_high", "exact_low"])
        self._lengths = Gather(corpus, DOCUMENTS, ["num_bytes"])
        self._texts = Gather(corpus, DOCUMENTS, ["text"])

    def exact(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Whether each pair has the same words in the same order: uint64[n] twice -> bool[n]."""
        left, right = self._exact.rows(a), self._exact.rows(b)
        same = [left.column(name).to_numpy() == right.column(name).to_numpy() for name in left.schema.names]
        both: np.ndarray = np.logical_and(*same)
        return both

    def jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Exact Jaccard similarity of the shingle sets of each pair: uint64[n] twice -> float64[n]."""
        order = np.lexsort((a, b))  # all pairs of one document in a row: its set is made once
        result = np.empty(len(a), np.float64)
        for chunk in self._chunks(a[order], b[order]):
            result[order[chunk]] = self._chunk(a[order[chunk]], b[order[chunk]])
        return result

    def _chunks(self, a: np.ndarray, b: np.ndarray) -> Iterator[slice]:
        lengths = self._lengths.rows(np.concatenate([a, b])).column(0).to_numpy().astype(np.int64)
        left, right = lengths[: len(a)], lengths[len(a) :]
        start = 0
        while start < len(a):
            changes = np.concatenate([[True], b[start + 1 :] != b[start:-1]])
            total = np.cumsum(left[start:] + np.where(changes, right[start:], 0))
            stop = start + max(1, int(np.searchsorted(total, CHUNK_BYTES, side="right")))
            yield slice(start, stop)
            start = stop

    def _chunk(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        places, index = np.unique(np.concatenate([a, b]), return_inverse=True)
        data, offsets = utf8.buffers(self._texts.rows(places).column(0))
        starts = np.concatenate([[0], np.cumsum((np.diff(offsets) + 1) // 2)]).astype(np.int64)
        sets, sizes = np.empty(starts[-1], np.uint64), np.zeros(len(places), np.int64)

        def run(first: int, last: int) -> None:
            jaccard.shingle_sets(data, offsets, first, last, words.table(), self.ngram, starts, sets, sizes)

        utf8.spread(run, offsets, self.threads)
        result = np.empty(len(a), np.float64)
        jaccard.jaccard(sets, starts, sizes, index[: len(a)], index[len(a) :], result)
        return result


@dataclass
class VerifyEdges(beam.PTransform):
    """Candidate edges in, those whose documents are really similar out, with their similarity.

    Attributes:
        corpus: Where the texts are.
        sketches: Table of the sketches.
        ngram: Words in a shingle.
        threshold: Smallest similarity that passes.
        near: Whether documents that are not exact copies can pass at all.
        threads: Threads for the kernels.
    """

    corpus: CorpusDir
    sketches: str
    ngram: int
    threshold: float
    near: bool = True
    threads: int = 1
    _pairs: PairSimilarity | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the tables when first used."""

    def __call__(self, edges: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verified edges, each once, sorted by b, then a."""
        if self._pairs is None:
            self._pairs = PairSimilarity(self.corpus, self.sketches, self.ngram, self.threads)
        a, b = unique_pairs(edges.column("a").to_numpy(), edges.column("b").to_numpy())
        exact = self._pairs.exact(a, b)
        similarity = np.where(exact, 1.0, -1.0)
        if self.near:
            similarity[~exact] = self._pairs.jaccard(a[~exact], b[~exact])
        passed = exact | (similarity >= self.threshold if self.near else exact)
        columns = [a[passed], b[passed], similarity[passed].astype(np.float32)]
        return pa.RecordBatch.from_arrays(columns, schema=VERIFIED), {
            "compared-pairs": len(a),
            "exact-pairs": int(exact.sum()),
            "verified-pairs": int(passed.sum()),
            "rejected-pairs": int((~passed).sum()),
        }

    def _verified(self, edges: pa.RecordBatch) -> pa.RecordBatch:
        return self(edges)[0]

    def expand(self, edges: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Verifies each batch by itself."""
        return edges | beam.Map(self._verified).with_output_types(pa.RecordBatch)
