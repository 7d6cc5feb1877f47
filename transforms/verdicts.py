"""Deduplication's columns: one row for each document of a shard, made of the few rows that speak of copies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import address, tables
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.folders import cut
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.shingle_sets import Shingling
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


KINDS = ("exact", "url", "near", "chained")
"""What a copy can be of its survivor: `tables.DEDUP.dup_kind`."""
SAMPLED = 256
"""Removals of a shard that are checked where verification is not exact."""

_NAMES, _SURVIVORS, _EDGES = range(3)


@dataclass
class ReadEvidence(beam.PTransform):
    """`(shard, rows of EVIDENCE)` for each wanted shard; put it at a pipeline's start.

    Attributes:
        survivors: Folder of `survivors.SURVIVORS`.
        verified: Folder of `similarity.VERIFIED`; an edge is evidence on both its documents.
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
        return start | beam.Create(work) | beam.ParDo(_ReadEvidence(self))


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
                # To both ends: which one goes may be decided by their ids, which a pair does not know.
                a, b, similarity = (column.to_numpy() for column in batch.columns)
                ends = [np.concatenate([a, b]), np.concatenate([b, a]), None, np.tile(similarity, 2)]
                rows = _evidence(ends, 2 * batch.num_rows)
            yield from cut(rows, address.shards(rows.column("address").to_numpy()), self.pending)


def _evidence(columns: Sequence[pa.Array | np.ndarray | None], count: int) -> pa.RecordBatch:
    filled = [pa.nulls(count, f.type) if c is None else c for c, f in zip(columns, EVIDENCE, strict=True)]
    return pa.RecordBatch.from_arrays(filled, schema=EVIDENCE)


@dataclass
class Verdicts:
    """Batch function: all evidence on one shard in, its rows of `tables.DEDUP` out.

    Attributes:
        corpus: The corpus, with the older ones behind it if there are any.
        sketches: Table of the sketches.
        alive: Stages that put documents out.
        shingling: What the shingles are.
        threshold: Similarity from which two documents count as copies.
        verify: See `DedupConfig.verify`.
        url: Whether documents with the same URL are copies.
        threads: Threads for the kernels.
    """

    corpus: CorpusDir
    sketches: str
    alive: Sequence[str]
    shingling: Shingling
    threshold: float
    verify: Literal["exact", "signature", "none"] = "exact"
    url: bool = False
    threads: int = 1
    _open: tuple[PairSimilarity, Gather, Gather] | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Opens the tables."""
        pairs = PairSimilarity(self.corpus, self.sketches, self.shingling, self.threads)
        self._open = pairs, Gather(self.corpus, DOCUMENTS, ["id"]), Gather(self.corpus, "dedup", ["dup_of"])

    def __call__(self, evidence: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verdicts in the order of the rows, and what became of the documents."""
        assert self._open is not None
        pairs = self._open[0]
        header = evidence.filter(evidence.column("other").is_null())
        shard = int(address.shards(header.column("address").to_numpy())[0])
        alive, sources = self._documents(shard)
        count = len(alive)

        places = address.of_rows(shard, 0, count)
        survivor, size = places.copy(), np.ones(count, np.uint32)
        rows, others, sizes = _columns(evidence, "component_size")
        survivor[rows], size[rows] = others, sizes
        removed = survivor != places

        similarity = np.full(count, np.nan, np.float32)
        direct = np.zeros(count, bool)
        rows, others, values = _columns(evidence, "similarity")
        mine = (survivor[rows] == others) & removed[rows]
        direct[rows[mine]], similarity[rows[mine]] = True, values[mine]
        exact, same_url = np.zeros(count, bool), np.zeros(count, bool)
        exact[removed] = pairs.exact(places[removed], survivor[removed])
        if self.url:
            same_url[removed] = pairs.same_url(places[removed], survivor[removed])
        similarity[exact] = 1
        # Tied to the survivor only through others: compared now.
        open_ = removed & np.isnan(similarity)
        if self.verify == "exact":
            similarity[open_] = pairs.jaccard(places[open_], survivor[open_]).astype(np.float32)
        elif self.verify == "signature":
            similarity[open_] = pairs.signature(places[open_], survivor[open_]).astype(np.float32)
        kind = np.where(exact, "exact", np.where(same_url, "url", np.where(direct, "near", "chained")))
        names, through = self._names(survivor, removed)
        kind[through], similarity[through] = "chained", np.nan

        columns = [
            pa.array(~removed, mask=~alive),
            names,
            pa.array(size),
            pa.array(similarity, mask=~removed | np.isnan(similarity)),
            pa.array(kind.astype(object), pa.string(), mask=~removed),
        ]
        counters = {
            "docs-in": count,
            "put_out-docs": int((~alive).sum()),
            "kept-docs": int((alive & ~removed).sum()),
            "compared_again-pairs": int(open_.sum()),
        }
        counters |= {f"{name}_duplicate-docs": int((removed & (kind == name)).sum()) for name in KINDS}
        counters |= self._by_source(
            sources, alive, removed, self._looked_at(places, survivor, removed & (kind != "url") & ~through, similarity)
        )
        return pa.RecordBatch.from_arrays(columns, schema=tables.DEDUP), counters

    def _documents(self, shard: int) -> tuple[np.ndarray, pa.Array]:
        batches = list(self.corpus.read(shard, {DOCUMENTS: ["source"]}, alive=self.alive))
        alive = [batch.column("alive").to_numpy(zero_copy_only=False) for batch in batches]
        sources = pa.concat_arrays([batch.column("source") for batch in batches] or [pa.array([], pa.string())])
        return np.concatenate([np.empty(0, bool), *alive]), sources.dictionary_encode()

    def _names(self, survivor: np.ndarray, removed: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        """Id of each removed document's survivor, string[n], and where an older one is a copy itself, bool[n].

        Such a one passes on its own survivor, whose text may lie in a corpus that is not at hand.
        """
        assert self._open is not None
        _, ids, olds = self._open
        through = np.zeros(len(removed), bool)
        if not removed.any():
            return pa.nulls(len(removed), pa.string()), through
        others = survivor[removed]
        names = ids.rows(others).column(0)
        older = address.shards(others) >= self.corpus.own_shards
        if older.any():
            kept = olds.rows(others[older]).column(0)
            names = pc.replace_with_mask(names, pa.array(older), pc.coalesce(kept, names.filter(pa.array(older))))
            through[np.flatnonzero(removed)[older]] = kept.is_valid().to_numpy(zero_copy_only=False)
        return names.take(pa.array(np.cumsum(removed) - 1, mask=~removed)), through

    def _looked_at(
        self, places: np.ndarray, survivor: np.ndarray, removed: np.ndarray, similarity: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which removals were checked by exact similarity with the survivor, and which are below: bool[n] twice.

        Without exact verification that is a sample of each shard, those with the smallest ids (which are hashes).
        """
        assert self._open is not None
        if self.verify == "exact":
            return removed, removed & (similarity < self.threshold)
        rows = np.flatnonzero(removed)
        ids = self._open[1].rows(places[rows]).column(0)
        rows = rows[pc.sort_indices(ids).to_numpy()[:SAMPLED]]
        checked, below = np.zeros(len(places), bool), np.zeros(len(places), bool)
        checked[rows] = True
        below[rows] = self._open[0].jaccard(places[rows], survivor[rows]) < self.threshold
        return checked, below

    def _by_source(
        self, sources: pa.Array, alive: np.ndarray, removed: np.ndarray, looked_at: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, int]:
        codes, names = sources.indices.to_numpy(), sources.dictionary.to_pylist()
        masks = {
            "docs": alive,
            "removed-docs": removed,
            "checked-docs": looked_at[0],
            "below_threshold-docs": looked_at[1],
        }
        return {
            f"source:{name}:{what}": int(total)
            for what, mask in masks.items()
            for name, total in zip(names, np.bincount(codes[mask], minlength=len(names)), strict=True)
        }


def _columns(evidence: pa.RecordBatch, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the shard, the other address and the value of `column`, where there is one."""
    said = evidence.filter(evidence.column(column).is_valid())
    rows = address.rows(said.column("address").to_numpy())
    return rows, said.column("other").to_numpy(), said.column(column).to_numpy()
