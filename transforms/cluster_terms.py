"""Names of clusters: the words that many of a cluster's documents have and few others.

    score(w, c) = p log(p / q)     p: share of the cluster's sampled documents with w, q: share of all sampled documents

Shares count documents, not occurrences: one document that repeats a word does not name its cluster. Of every cluster
only some documents are read, those with the smallest hashed ids, and of these only the head; clusters are compared with
those of their own group, `GROUP` at most. So neither the work in one place nor its memory grows with the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import files
from ropewalk.transforms import batches, sampling
from ropewalk.transforms.centroids import read_sizes
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir

TERMS = pa.schema(
    [
        pa.field("cluster", pa.uint32(), False),
        pa.field("documents", pa.uint64(), False, {"unit": "documents"}),
        pa.field("terms", pa.list_(pa.string()), False),
    ]
)
"""Every cluster by number: how many documents it has, and its telling words, the most telling first."""
WORDS = pa.schema(
    [
        pa.field("cluster", pa.uint32(), False),
        pa.field("hash", pa.uint64(), False),
        pa.field("words", pa.list_(pa.large_string()), False),
    ]
)
"""A sampled document: its cluster, its hashed id, the words of its head."""
FILE = "terms.arrow"
SAMPLE = 32
"""Documents of a cluster that are read for its name, about; all of a smaller cluster."""
SAMPLE_SEED = 0x7E
HEAD_CHARS = 2000
GROUP = 256
"""Clusters whose words are weighed together: at most some 16,000 documents."""
LETTERS = (3, 24)
"""Shortest and longest word."""


def words_of(text: pa.Array) -> pa.ListArray:
    """Runs of letters in the head of each text, in lower case: large_string[n] -> list<large_string>[n]."""
    heads = pc.utf8_lower(pc.utf8_slice_codeunits(text.cast(pa.large_string()), 0, HEAD_CHARS))
    words: pa.ListArray = pc.split_pattern_regex(heads, r"[^\p{L}\p{M}]+")
    return words


@dataclass
class SampleWords(beam.PTransform):
    """Shard numbers in, `(group of clusters, rows of WORDS)` out.

    Attributes:
        corpus: The corpus.
        clusters: Sizes of the clusters: the file that `Centroids.write` wrote.
        groups: Groups the clusters are dealt into.
        pending: The groups of this pass.
        cut: Stages whose spans are cut out of the text.
    """

    corpus: CorpusDir
    clusters: str
    groups: int
    pending: Sequence[int]
    cut: Sequence[str] = ()

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Spreads the shards over workers and reads the sampled rows of each."""
        return shards | beam.Reshuffle() | beam.ParDo(_SampleWords(self))


class _SampleWords(beam.DoFn):
    def __init__(self, transform: SampleWords) -> None:
        self.transform = transform

    def setup(self) -> None:
        sizes = read_sizes(self.transform.clusters)
        wanted = SAMPLE + 4 * int(SAMPLE**0.5)  # fewer than SAMPLE by chance are rare then
        self.limits = np.array([sampling.limit(wanted, int(size)) for size in sizes], np.uint64)

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        transform = self.transform
        columns = {DOCUMENTS: ["id", "text"], "cluster": ["cluster"]}
        for batch in transform.corpus.read(shard, columns, cut=transform.cut):
            rows = np.flatnonzero(batch.column("cluster").is_valid().to_numpy(zero_copy_only=False))
            cluster = batch.column("cluster").drop_null().to_numpy()
            hashes = sampling.hash_ids(batch.column("id"), seed=SAMPLE_SEED)[rows]
            group = cluster % np.uint32(transform.groups)
            chosen = np.isin(group, np.array(transform.pending)) & (hashes <= self.limits[cluster])
            words = words_of(batch.column("text").take(pa.array(rows[chosen])))
            part = pa.RecordBatch.from_arrays(
                [cluster[chosen], hashes[chosen], words.cast(WORDS.field(2).type)], schema=WORDS
            )
            yield from batches.split_by_key(part, group[chosen])


@dataclass
class NameClusters:
    """Batch function: rows of `WORDS` of a group of whole clusters in, in any order, rows of `TERMS` out.

    Attributes:
        clusters: Sizes of the clusters: the file that `Centroids.write` wrote.
        count: Words that name a cluster, at most.
    """

    clusters: str
    count: int
    _sizes: np.ndarray | None = field(default=None, init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Reads the sizes."""
        if self._sizes is None:
            self._sizes = read_sizes(self.clusters)

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The clusters of the group that have documents, ascending."""
        self.setup()
        assert self._sizes is not None
        kept = first_rows(batch)
        found = telling_words(kept.column("cluster").to_numpy(), kept.column("words"), self.count)
        clusters = np.array(sorted(found), np.uint32)
        terms = pa.array([found[cluster] for cluster in clusters.tolist()], TERMS.field("terms").type)
        columns = [pa.array(clusters), pa.array(self._sizes[clusters]), terms]
        counters = {"named-clusters": len(clusters), "read-docs": kept.num_rows}
        return pa.RecordBatch.from_arrays(columns, schema=TERMS), counters


def first_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The `SAMPLE` rows of each cluster with the smallest hashes; of copies with one id all or none."""
    cluster, hashes = batch.column("cluster").to_numpy(), batch.column("hash").to_numpy()
    order = np.lexsort((hashes, cluster))
    starts = np.searchsorted(cluster[order], cluster[order])
    last = np.minimum(starts + SAMPLE, np.searchsorted(cluster[order], cluster[order], side="right")) - 1
    # Rows as small as the last one that fits: which of several copies came first is left to the shards.
    return batch.take(pa.array(order[hashes[order] <= hashes[order][last]]))


def telling_words(clusters: np.ndarray, words: pa.ListArray, count: int) -> dict[int, list[str]]:
    """The words that tell each cluster from the others.

    Args:
        clusters: Cluster of each document, uint32[n].
        words: Words of each document, repetitions allowed: list<string>[n].
        count: Words a cluster gets, at most.

    Returns:
        Words by cluster, best first; ties in the order of the alphabet. If no word is more frequent in a cluster than
        elsewhere (there is only one cluster), its most frequent ones.
    """
    document = words.value_parent_indices() if hasattr(words, "value_parent_indices") else pc.list_parent_indices(words)
    table = pa.table({"document": document, "word": words.flatten()})
    length = pc.utf8_length(table["word"])
    table = table.filter(pc.and_(pc.greater_equal(length, LETTERS[0]), pc.less_equal(length, LETTERS[1])))
    table = table.group_by(["document", "word"], use_threads=False).aggregate([])
    table = table.append_column("cluster", pa.array(clusters).take(table["document"].combine_chunks()))
    inside = table.group_by(["cluster", "word"], use_threads=False).aggregate([([], "count_all")])
    everywhere = table.group_by("word", use_threads=False).aggregate([([], "count_all")])
    place = pc.index_in(inside["word"], everywhere["word"]).to_numpy()
    cluster, here = inside["cluster"].to_numpy(), inside["count_all"].to_numpy()
    numbers, sizes = np.unique(clusters, return_counts=True)
    size = sizes[np.searchsorted(numbers, cluster)]
    p, q = here / size, everywhere["count_all"].to_numpy()[place] / len(clusters)
    score = np.rint(1e6 * p * np.log(p / q)).astype(np.int64)  # whole millionths: the last bit of a logarithm is free
    score[(here < np.minimum(2, size)) | (score < 0)] = 0
    best = np.zeros(int(numbers.max(initial=0)) + 1, np.int64)
    np.maximum.at(best, cluster, score)
    sort = pa.table({"cluster": cluster, "score": np.where(best[cluster] > 0, score, here), "word": inside["word"]})
    keys = [("cluster", "ascending"), ("score", "descending"), ("word", "ascending")]
    order = pc.sort_indices(sort, sort_keys=keys).to_numpy()
    score, cluster = sort["score"].to_numpy()[order], cluster[order]
    chosen = (score > 0) & (np.arange(len(order)) - np.searchsorted(cluster, cluster) < count)
    found: dict[int, list[str]] = {int(number): [] for number in numbers}
    for number, word in zip(
        cluster[chosen].tolist(), inside["word"].take(pa.array(order[chosen])).to_pylist(), strict=True
    ):
        found[number].append(word)
    return found


def write_terms(url: str, named: Iterator[pa.RecordBatch], sizes: np.ndarray) -> None:
    """Writes the table of all clusters: the `named` ones (rows of `TERMS`) with their words, the empty ones without."""
    rows = batches.concat(named, TERMS)
    place = np.full(len(sizes), -1, np.int64)
    place[rows.column("cluster").to_numpy()] = np.arange(rows.num_rows)
    terms = (
        rows.column("terms").take(pa.array(place, mask=place < 0)).fill_null(pa.scalar([], TERMS.field("terms").type))
    )
    columns = [pa.array(np.arange(len(sizes), dtype=np.uint32)), pa.array(sizes.astype(np.uint64)), terms]
    with files.atomic(url) as sink, pa.ipc.new_stream(sink, TERMS) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=TERMS))


def read_terms(corpus: CorpusDir) -> dict[int, list[str]]:
    """Words that name each cluster, by its number, the most telling first; empty for an empty cluster.

    No entry at all if the corpus is not clustered, or its clusters were not named (`cluster.terms: 0`). The file itself
    (`columns/cluster/terms.arrow`, rows of `TERMS`) says as well how many documents each has.
    """
    url = files.join(corpus.folder("cluster"), FILE)
    if FILE not in files.names(corpus.folder("cluster")):
        return {}
    return {
        cluster: terms
        for batch in files.open_arrow(url)
        for cluster, terms in zip(batch["cluster"].to_pylist(), batch["terms"].to_pylist(), strict=True)
    }
