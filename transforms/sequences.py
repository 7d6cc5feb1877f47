"""Packing, second half: from a plan to rows of `tables.SEQUENCES`. Here the tokens move, once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.copy_spans import copy_spans
from ropewalk.kernels.mix64 import bucket
from ropewalk.schemas import address
from ropewalk.schemas.tables import SEQUENCES
from ropewalk.transforms import batches, metrics
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.pack import PLAN
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import to_matrix

BATCH_TOKENS = 4 << 20
"""Tokens of the sequences written at once (16 MiB)."""
MILLIONTHS = 1_000_000


def window_similarity(vectors: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine over the pairs of documents in each sequence, (|sum v|^2 - sum |v|^2) / (n (n - 1)).

    Exact on vectors of the grid of `tables.EMBED`: sums of multiples of 2^-11 need no rounding in float64.

    Args:
        vectors: Unit vector of each segment's document, float32[s, d]; documents of a sequence are distinct.
        starts: First segment of each sequence, int64[q].

    Returns:
        float32[q], and whether there is a pair at all, bool[q].
    """
    counts = np.diff(np.r_[starts, len(vectors)])
    if len(starts) == 0:
        return np.empty(0, np.float32), np.empty(0, bool)
    wide = vectors.astype(np.float64)
    total = np.add.reduceat(wide, starts, axis=0)
    own = np.add.reduceat(np.einsum("ij,ij->i", wide, wide), starts)
    pairs = counts * (counts - 1)
    return ((np.einsum("ij,ij->i", total, total) - own) / np.maximum(pairs, 1)).astype(np.float32), pairs > 0


class SequenceBuilder:
    """Gathers what a plan names from a corpus.

    Args:
        corpus: The corpus.
        loss: `token` or `document`, see `PackConfig.loss`.
        embedded: Whether there are vectors to compare the documents of a sequence by.
    """

    def __init__(self, corpus: CorpusDir, loss: str, embedded: bool) -> None:
        self.loss = loss
        self.tokens = Gather(corpus, "tokenize", ["input_ids"])
        self.ids = Gather(corpus, "documents", ["id"])
        self.vectors = Gather(corpus, "embed", ["vector"]) if embedded else None

    def build(self, plan: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Makes the sequences of a plan, a bounded number of tokens at a time.

        Args:
            plan: `PLAN` rows of whole sequences, in any order.

        Yields:
            Rows of `SEQUENCES`, sequences ascending by their number.
        """
        number = plan.column("sequence").to_numpy()
        order = np.lexsort((plan.column("nth").to_numpy(), number))
        if len(order) == 0:
            return
        number = number[order]
        starts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
        where, start, length = (plan.column(name).to_numpy()[order] for name in ("address", "start", "length"))
        cost = length.astype(np.int64) + SEGMENT_TOKENS
        before = np.cumsum(cost)[starts] - cost[starts]
        chunk = before // BATCH_TOKENS
        first = np.flatnonzero(np.r_[True, chunk[1:] != chunk[:-1]])
        borders = np.r_[starts, len(order)]
        for a, b in zip(first.tolist(), np.r_[first[1:], len(starts)].tolist(), strict=True):
            rows = slice(borders[a], borders[b])
            yield self._rows(where[rows], start[rows].astype(np.int64), length[rows].astype(np.int64),
                             starts[a:b] - borders[a])  # fmt: skip

    def _rows(self, where: np.ndarray, start: np.ndarray, length: np.ndarray, first: np.ndarray) -> pa.RecordBatch:
        segments = np.r_[first, len(where)].astype(np.int32)
        stops = np.cumsum(length)
        tokens = np.r_[0, stops][segments].astype(np.int32)
        counts = np.diff(segments)
        # cu_seqlens has one value more than segments in each sequence: a 0, then running sums inside the sequence.
        running = np.empty(len(where) + len(first), np.int32)
        zero = segments[:-1] + np.arange(len(first))
        running[zero] = 0
        running[np.delete(np.arange(len(running)), zero)] = stops - np.repeat(tokens[:-1], counts)
        weights = np.ones(len(where), np.float32) if self.loss == "token" else (1 / length).astype(np.float32)

        def lists(values: pa.Array | np.ndarray, offsets: np.ndarray = segments) -> pa.Array:
            return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))

        similarity: pa.Array = pa.nulls(len(first), pa.float32())
        if self.vectors is not None:
            mean, paired = window_similarity(to_matrix(self.vectors.rows(where).column(0)), first)
            similarity = pa.array(mean, mask=~paired)
        columns = [
            lists(self._tokens(where, start, length, stops - length), tokens),
            np.diff(tokens).astype(np.uint32),
            lists(length.astype(np.uint32)),
            lists(running, np.r_[zero, len(running)].astype(np.int32)),
            lists(self.ids.rows(where).column(0)),
            lists(start.astype(np.uint32)),
            lists(weights),
            similarity,
        ]
        return pa.RecordBatch.from_arrays([pa.array(c) for c in columns], schema=SEQUENCES)

    def _tokens(self, where: np.ndarray, start: np.ndarray, length: np.ndarray, to: np.ndarray) -> np.ndarray:
        out = np.empty(int(length.sum()), np.uint32)
        order = np.argsort(where, kind="stable")
        shards = address.shards(where[order])
        for shard in np.unique(shards).tolist():
            mine = order[slice(*np.searchsorted(shards, [shard, shard + 1]))]
            parts, firsts = self.tokens.batches(shard)
            rows = address.rows(where[mine])
            holder = np.searchsorted(firsts, rows, side="right") - 1
            for index in np.unique(holder).tolist():
                here = holder == index
                chosen, row = mine[here], rows[here] - firsts[index]
                column = parts[index].column(0)
                offsets = column.offsets.to_numpy()
                begin = offsets[row].astype(np.int64) + start[chosen]
                if np.any(begin + length[chosen] > offsets[row + 1]):
                    raise RuntimeError(
                        f"shard {shard}: a document has fewer tokens than its num_tokens: rerun tokenize"
                    )
                copy_spans(column.values.to_numpy(), begin, length[chosen], out, to[chosen])
        return out


@dataclass
class WriteSequences(beam.PTransform):
    """Plan slices keyed by output shard in, finished shard numbers out; writes `target`.

    Attributes:
        corpus: Where documents, tokens and vectors are.
        target: Where to write `SEQUENCES`.
        pending: The shard numbers of this pass.
        loss: See `PackConfig.loss`.
        embedded: Whether documents have vectors.
    """

    corpus: CorpusDir
    target: ShardFolder
    pending: Sequence[int]
    loss: str
    embedded: bool

    def expand(self, slices: beam.PCollection[tuple[int, pa.RecordBatch]]) -> beam.PCollection[int]:
        """Groups the plan by shard and writes each shard's sequences."""
        nothing = [(shard, batches.concat([], PLAN)) for shard in self.pending]
        create = beam.Create(nothing, reshuffle=False).with_output_types(tuple[int, pa.RecordBatch])
        every = slices.pipeline | "EveryShard" >> create
        return (slices, every) | beam.Flatten() | beam.GroupByKey() | beam.ParDo(_WriteSequences(self))


class _WriteSequences(beam.DoFn):
    def __init__(self, transform: WriteSequences) -> None:
        self.corpus, self.target = transform.corpus, transform.target
        self.loss, self.embedded = transform.loss, transform.embedded

    def setup(self) -> None:
        self.builder = SequenceBuilder(self.corpus, self.loss, self.embedded)

    def process(self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> Iterator[int]:
        key, slices = group
        with self.target.writer(key) as writer:
            for rows in self.builder.build(batches.concat(slices, PLAN)):
                writer.write(rows)
                similarity = rows.column("similarity").drop_null().to_numpy().astype(np.float64)
                counters = {
                    "sequences": rows.num_rows,
                    "segments": len(rows.column("doc_ids").values),
                    "tokens-out": int(rows.column("num_tokens").to_numpy().sum(dtype=np.int64)),
                    "compared-sequences": len(similarity),
                    "similarity-millionths": int(np.rint(similarity * MILLIONTHS).astype(np.int64).sum()),
                }
                for name, amount in counters.items():
                    writer.count(name, amount)
                    metrics.count(WriteSequences, name, amount)
        yield key


class SendPlan(beam.DoFn):
    """From the number of a shard of a plan to its slices by output shard: equal ranges of the sequences' numbers.

    Args:
        plan: Where the plan is.
        num_shards: Output shards.
        pending: Those of this pass.
    """

    def __init__(self, plan: ShardFolder, num_shards: int, pending: Sequence[int]) -> None:
        self.plan, self.num_shards, self.pending = plan, num_shards, np.array(sorted(pending))

    def process(self, number: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Reads and cuts one shard of the plan."""
        for batch in self.plan.read(number):
            shard = bucket(batch.column("sequence").to_numpy(), self.num_shards)
            wanted = np.isin(shard, self.pending)
            yield from batches.split_by_key(batch.filter(pa.array(wanted)), shard[wanted])


SEGMENT_TOKENS = 128
"""What a segment weighs beside its tokens: its id, its vector and its entries in the lists."""
