"""Verification where texts cannot be mapped.

Each shard is read once, front to back, and what its candidates are compared by travels to the groups that compare them,
8 bytes a shingle.

    edges --> (shard of an end, [end, group]) --> what the end is compared by, by group --.
      '------------------------> (group, [a, b]) -------------------------------------------+--> verified edges
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.mix64 import bucket, mix64
from ropewalk.kernels.stars import unique_pairs
from ropewalk.schemas import address
from ropewalk.transforms import batches
from ropewalk.transforms.corpus_dir import DOCUMENTS
from ropewalk.transforms.folders import ReadFolder, cut
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.shingle_sets import Sets, shingle_sets
from ropewalk.transforms.similarity import VerifyEdges, same_rows, signature_similarity

REQUESTS = pa.schema([("address", pa.uint64()), ("group", pa.uint64())])
"""A document, and the group that wants to compare it."""


def sent_schema(num_perm: int) -> pa.Schema:
    """Schema of what a group gets: its edges, and what their ends are compared by."""
    return pa.schema(
        [
            ("address", pa.uint64()),
            ("other", pa.uint64()),  # null: not an edge
            ("exact_high", pa.uint64()),
            ("exact_low", pa.uint64()),
            ("url", pa.uint64()),
            ("signature", pa.list_(pa.uint32(), num_perm) if num_perm else pa.null()),
            ("limit", pa.uint64()),
            ("shingles", pa.large_list(pa.uint64())),
        ]
    )


@dataclass
class SendSets(beam.PTransform):
    """`(group, rows of sent_schema)` for each wanted group; put it at a pipeline's start.

    Attributes:
        edges: Candidate pairs.
        verifier: What will be looked at, and where texts and sketches are.
        num_perm: Values in a signature.
        groups: Groups the pairs are spread over, by their better end.
        pending: The groups wanted.
    """

    edges: ShardFolder
    verifier: VerifyEdges
    num_perm: int
    groups: int
    pending: Sequence[int]

    def expand(self, start: beam.Pipeline) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Asks, reads, sends."""
        edges = start | ReadFolder(self.edges)
        sets = edges | beam.ParDo(_Ask(self)) | beam.GroupByKey() | beam.ParDo(_Answer(self))
        return (edges | beam.ParDo(_SendEdges(self)), sets) | beam.Flatten()


def _groups_of(b: np.ndarray, groups: int) -> np.ndarray:
    return bucket(mix64(b), groups)


class _SendEdges(beam.DoFn):
    def __init__(self, transform: SendSets) -> None:
        self.groups, self.pending, self.schema = transform.groups, transform.pending, sent_schema(transform.num_perm)

    def process(self, edges: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        nulls = [pa.nulls(edges.num_rows, field.type) for field in list(self.schema)[2:]]
        rows = pa.RecordBatch.from_arrays([edges.column("a"), edges.column("b"), *nulls], schema=self.schema)
        yield from cut(rows, _groups_of(edges.column("b").to_numpy(), self.groups), self.pending)


class _Ask(beam.DoFn):
    def __init__(self, transform: SendSets) -> None:
        self.groups, self.pending = transform.groups, np.array(transform.pending)

    def process(self, edges: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        a, b = edges.column("a").to_numpy(), edges.column("b").to_numpy()
        group = _groups_of(b, self.groups)
        wanted = np.isin(group, self.pending)
        ends = np.concatenate([a[wanted], b[wanted]])
        asked = np.unique(np.stack([ends, np.tile(group[wanted], 2).astype(np.uint64)]), axis=1)
        rows = pa.RecordBatch.from_arrays([pa.array(column) for column in asked], schema=REQUESTS)
        yield from batches.split_by_key(rows, address.shards(asked[0]))


class _Answer(beam.DoFn):
    def __init__(self, transform: SendSets) -> None:
        self.verifier, self.schema = transform.verifier, sent_schema(transform.num_perm)

    def process(
        self, asked: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        shard, requests = asked[0], batches.concat(asked[1], REQUESTS)
        where, group = unique_pairs(requests.column("address").to_numpy(), requests.column("group").to_numpy())
        by_place = np.argsort(where, kind="stable")
        where, group = where[by_place], group[by_place]
        verifier = self.verifier
        read = {verifier.sketches: ["exact_high", "exact_low", "url"]}
        whole, by_signature = verifier.near and verifier.verify == "exact", verifier.verify == "signature"
        read[verifier.sketches] += ["signature"] * by_signature
        read |= {DOCUMENTS: ["text"]} if whole else {}
        for batch in verifier.corpus.read(shard, read):
            places = batch.column("address").to_numpy()
            mine = slice(np.searchsorted(where, places[0]), np.searchsorted(where, places[-1], side="right"))
            rows = np.unique(where[mine]) - places[0]
            if not len(rows):
                continue
            answers = self._rows(batch, rows.astype(np.int64), whole)
            answers = answers.take(pa.array(np.searchsorted(rows, where[mine] - places[0])))
            yield from batches.split_by_key(answers, group[mine].astype(np.int64))

    def _rows(self, batch: pa.RecordBatch, rows: np.ndarray, whole: bool) -> pa.RecordBatch:
        taken = batch.drop_columns("text") if whole else batch
        taken = taken.take(pa.array(rows))
        columns = {name: taken.column(name) for name in taken.schema.names}
        if whole:
            verifier = self.verifier
            part = (batch.column("text"), rows, np.arange(len(rows)))
            sets = shingle_sets([part], len(rows), verifier.shingling, verifier.threads)
            kept = [sets.values[start : start + size] for start, size in zip(sets.starts, sets.sizes, strict=False)]
            offsets = np.concatenate([[0], np.cumsum(sets.sizes)])
            columns["shingles"] = pa.LargeListArray.from_arrays(offsets, np.concatenate(kept))
            columns["limit"] = pa.array(sets.limits)
        every = [columns.get(field.name, pa.nulls(len(rows), field.type)) for field in self.schema]
        return pa.RecordBatch.from_arrays(every, schema=self.schema)


@dataclass
class VerifySent:
    """Batch function: rows of `sent_schema` of a group in, verified edges out; the same as `VerifyEdges`.

    Attributes:
        verifier: What to look at.
    """

    verifier: VerifyEdges

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, sent: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verified edges, each once, sorted by b, then a."""
        is_edge = sent.column("other").is_valid()
        edges, documents = sent.filter(is_edge), sent.filter(pa.compute.invert(is_edge))
        a, b = unique_pairs(edges.column("address").to_numpy(), edges.column("other").to_numpy())
        return self.verifier.judge(a, b, _Sent(documents, self.verifier.threads))


class _Sent:
    """A `Comparison` of documents that were sent."""

    def __init__(self, documents: pa.RecordBatch, threads: int) -> None:
        places, first = np.unique(documents.column("address").to_numpy(), return_index=True)
        self.places, self.documents, self.threads = places, documents.take(pa.array(first)), threads

    def _ends(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.searchsorted(self.places, a), np.searchsorted(self.places, b)

    def _same(self, names: list[str], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        table = self.documents.select(names)
        left, right = (table.take(pa.array(end)) for end in self._ends(a, b))
        return same_rows(left, right)

    def exact(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._same(["exact_high", "exact_low"], a, b)

    def same_url(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._same(["url"], a, b)

    def signature(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right = (self.documents.column("signature").take(pa.array(end)) for end in self._ends(a, b))
        return signature_similarity(left, right)

    def jaccard(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        lists = self.documents.column("shingles")
        offsets = lists.offsets.to_numpy()
        limits = self.documents.column("limit").to_numpy()
        sets = Sets(lists.values.to_numpy(), offsets[:-1], np.diff(offsets), limits)
        left, right = self._ends(a, b)
        order = np.lexsort((left, right))  # pairs with the same better end in a row
        result = np.empty(len(a))
        result[order] = sets.similarity(left[order], right[order], self.threads)
        return result
