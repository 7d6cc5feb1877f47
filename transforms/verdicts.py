"""Deduplication's columns: one row for each document of a shard, made of the few rows that speak of copies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.schemas import address, tables
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.folders import cut
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.similarity import PairSimilarity

EVIDENCE = pa.schema(
    [
        ("address", pa.uint64()),
        ("other", pa.uint64()),  # null: this row only names the shard
        ("component_size", pa.uint32()),  # null: an edge, not a verdict
        ("similarity", pa.float32()),  # null: a verdict
    ]
)
"""What a shard's verdicts are made of: the shard's name, its survivors' rows and the verified edges of its members."""


_NAMES, _SURVIVORS, _EDGES = range(3)


@dataclass
class ReadEvidence(beam.PTransform):
    """`(shard, rows of EVIDENCE)` for each wanted shard; put it at a pipeline's start.

    Attributes:
        survivors: Folder of `survivors.SURVIVORS`.
        verified: Folder of `similarity.VERIFIED`; an edge is evidence on the worse document of its pair.
        pending: The shards wanted in this pass.
    """

    survivors: ShardFolder
    verified: ShardFolder
    pending: Sequence[int]

    def expand(self, start: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards of both folders over workers and cuts their rows."""
        work = [(_NAMES, shard) for shard in self.pending]
        work += [(_SURVIVORS, part) for part in range(self.survivors.num_shards)]
        work += [(_EDGES, part) for part in range(self.verified.num_shards)]
        return start | beam.Create(work) | beam.Reshuffle() | beam.ParDo(_ReadEvidence(self))


class _ReadEvidence(beam.DoFn):
    def __init__(self, transform: ReadEvidence) -> None:
        self.survivors, self.verified, self.pending = transform.survivors, transform.verified, transform.pending

    def process(self, work: tuple[int, int]) -> Iterator[tuple[int, pa.RecordBatch]]:
        kind, part = work
        if kind == _NAMES:
            yield part, _evidence([address.of_rows(part, 0, 1), None, None, None], 1)
            return
        for batch in (self.survivors if kind == _SURVIVORS else self.verified).read(part):
            if kind == _SURVIVORS:
                rows = _evidence([*batch.columns, None], batch.num_rows)
            else:
                a, b, similarity = batch.columns
                rows = _evidence([a, b, None, similarity], batch.num_rows)
            yield from cut(rows, address.shards(rows.column("address").to_numpy()), self.pending)


def _evidence(columns: Sequence[pa.Array | np.ndarray | None], count: int) -> pa.RecordBatch:
    filled = [pa.nulls(count, f.type) if c is None else c for c, f in zip(columns, EVIDENCE, strict=True)]
    return pa.RecordBatch.from_arrays(filled, schema=EVIDENCE)


@dataclass
class Verdicts:
    """Batch function: all evidence on one shard in, its rows of `tables.DEDUP` out.

    Attributes:
        corpus: The corpus.
        sketches: Table of the sketches.
        alive: Stages that put documents out.
        ngram: Words in a shingle.
        threads: Threads for the kernels.
    """

    corpus: CorpusDir
    sketches: str
    alive: Sequence[str]
    ngram: int
    threads: int = 1
    _open: tuple[PairSimilarity, Gather] | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the tables."""
        pairs = PairSimilarity(self.corpus, self.sketches, self.ngram, self.threads)
        self._open = pairs, Gather(self.corpus, DOCUMENTS, ["id"])

    def __call__(self, evidence: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verdicts in the order of the rows, and what became of the documents."""
        assert self._open is not None
        pairs, ids = self._open
        header = evidence.filter(evidence.column("other").is_null())
        shard = int(address.shards(header.column("address").to_numpy())[0])
        alive = np.concatenate([np.empty(0, bool), *self._alive(shard)])
        count = len(alive)

        places = address.of_rows(shard, 0, count)
        survivor, size = places.copy(), np.ones(count, np.uint32)
        rows, others, sizes = _columns(evidence, "component_size")
        survivor[rows], size[rows] = others, sizes
        removed = survivor != places

        similarity = np.full(count, np.nan, np.float32)
        rows, others, values = _columns(evidence, "similarity")
        direct = survivor[rows] == others
        similarity[rows[direct]] = values[direct]
        similarity[~removed] = np.nan
        exact = np.zeros(count, bool)
        exact[removed] = pairs.exact(places[removed], survivor[removed])
        similarity[exact] = 1
        # Tied to the survivor only through others: compared now.
        open_ = removed & np.isnan(similarity)
        similarity[open_] = pairs.jaccard(places[open_], survivor[open_]).astype(np.float32)

        kind = np.full(count, "near", object)
        kind[open_] = "chained"
        kind[exact] = "exact"
        names = ids.rows(survivor[removed]).column(0)
        place = np.cumsum(removed) - 1
        columns = [
            pa.array(~removed, mask=~alive),
            names.take(pa.array(place, mask=~removed)) if len(names) else pa.nulls(count, pa.string()),
            pa.array(size),
            pa.array(similarity, mask=~removed),
            pa.array(kind, pa.string(), mask=~removed),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=tables.DEDUP), {
            "docs-in": count,
            "put_out-docs": int((~alive).sum()),
            "kept-docs": int((alive & ~removed).sum()),
            "exact_duplicate-docs": int(exact.sum()),
            "near_duplicate-docs": int((removed & ~exact).sum()),
            "compared_again-pairs": int(open_.sum()),
        }

    def _alive(self, shard: int) -> Iterator[np.ndarray]:
        for batch in self.corpus.read(shard, {DOCUMENTS: ["num_bytes"]}, alive=self.alive):
            yield batch.column("alive").to_numpy(zero_copy_only=False)


def _columns(evidence: pa.RecordBatch, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the shard, the other address and the value of `column`, where there is one."""
    said = evidence.filter(evidence.column(column).is_valid())
    rows = address.rows(said.column("address").to_numpy())
    return rows, said.column("other").to_numpy(), said.column(column).to_numpy()
