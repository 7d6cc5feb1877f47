"""The map of the corpus: a sample of documents on the two directions of largest variance, clusters with their words."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.pipelines.charts import Point, clip
from ropewalk.pipelines.cluster_words import SHOWN, phrase, words_of
from ropewalk.schemas import address
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.vectors import to_matrix

HEAD_CHARS = 2000
"""What of a document is read for the words of its cluster."""
LEGEND = 12
_WORD = re.compile(r"[^\W\d_]{3,24}")


def fetch(corpus: CorpusDir, addresses: np.ndarray, columns: Mapping[str, Sequence[str]]) -> Iterator[pa.RecordBatch]:
    """The rows at `addresses` (uint64[n]), shard by shard in the order of addresses; memory is one batch."""
    wanted = np.unique(addresses)
    for shard in np.unique(address.shards(wanted)).tolist():
        rows = address.rows(wanted[address.shards(wanted) == shard])
        start = 0
        for batch in corpus.read(shard, columns):
            here = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
            if len(here):
                yield batch.take(pa.array(here))
            start += batch.num_rows
            if start > rows[-1]:
                break


def random_pairs(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Cosines of neighbours in a seeded random order of unit vectors: float32[n, d] -> float32[n - 1]."""
    if len(vectors) < 2:
        return np.zeros(0, np.float32)
    order = np.random.default_rng(seed).permutation(len(vectors))
    found: np.ndarray = np.einsum("nd,nd->n", vectors[order[1:]], vectors[order[:-1]])
    return found


def project(vectors: np.ndarray, sampled: np.ndarray | None = None) -> tuple[np.ndarray, list[float]]:
    """Principal component analysis: float32[n, d] -> float64[n, 2] and the share of the variance on each axis.

    The singular vectors of the covariance (d x d, whatever n is) are the directions of largest variance. Each is turned
    so that its largest entry is positive: the sign of a singular vector means nothing.

    Args:
        vectors: All that are to be placed.
        sampled: The rows that choose the directions, bool[n]; default: all.
    """
    sample = vectors if sampled is None or not sampled.any() else vectors[sampled]
    middle = sample.mean(axis=0, dtype=np.float64)
    centred = sample.astype(np.float64) - middle
    _, variance, right = np.linalg.svd(centred.T @ centred, hermitian=True)
    if not variance.sum() or len(variance) < 2:
        return np.zeros((len(vectors), 2)), [0.0, 0.0]
    axes = right[:2] * np.sign(right[:2][np.arange(2), np.abs(right[:2]).argmax(axis=1)])[:, None]
    return (vectors.astype(np.float64) - middle) @ axes.T, (variance[:2] / variance.sum()).tolist()


@dataclass
class Group:
    """A cluster in the legend: its documents in the whole corpus, and its telling words."""

    cluster: int
    documents: int
    words: str


@dataclass
class Map:
    """The sampled documents, and those that stand apart.

    Attributes:
        points: One a document that has a vector.
        sampled: How many of them were drawn at random.
        variance: Share of the variance on each axis.
        groups: Clusters of the sample, by falling number of documents in the corpus.
        random: Cosines of neighbours in a random order of the sample.
    """

    points: list[Point] = field(default_factory=list)
    sampled: int = 0
    variance: list[float] = field(default_factory=lambda: [0.0, 0.0])
    groups: list[Group] = field(default_factory=list)
    random: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def names(self) -> dict[int, str]:
        """Telling words by cluster."""
        return {group.cluster: group.words for group in self.groups}


def collect_map(
    corpus: CorpusDir,
    addresses: np.ndarray,
    clusters: Mapping[int, int] | None,
    *,
    apart: Sequence[int] = (),
    seed: int = 0,
) -> Map:
    """Reads vectors and the first words of the sampled documents.

    Args:
        corpus: The corpus; stage embed has run.
        addresses: The sampled documents, uint64[n].
        clusters: Documents by cluster; none if they are not clustered.
        apart: Documents that are shown besides, and marked.
        seed: Seed of the random order.
    """
    read: dict[str, Sequence[str]] = {"documents": ["text", "source", "url"], "embed": ["vector"]}
    if clusters is not None:
        read["cluster"] = ["cluster", "distance"]
    vectors: list[np.ndarray] = []
    where: list[int] = []
    members: list[int] = []
    distances: list[float | None] = []
    titles: list[str] = []
    words: list[set[str]] = []
    for batch in fetch(corpus, np.concatenate([addresses, np.array(apart, np.uint64)]), read):
        batch = batch.filter(pc.is_valid(batch.column("vector")))
        vectors.append(to_matrix(batch.column("vector")))
        where += batch.column("address").to_pylist()
        heads = pc.utf8_slice_codeunits(batch.column("text"), 0, HEAD_CHARS).to_pylist()
        places = pc.coalesce(batch.column("url"), batch.column("source")).to_pylist()
        titles += [f"{_tail(place)}: {clip(head, 64)}" for place, head in zip(places, heads, strict=True)]
        words += [{word.lower() for word in _WORD.findall(head)} for head in heads]
        if clusters is None:
            members, distances = members + [0] * len(heads), distances + [None] * len(heads)
        else:
            members += [-1 if cluster is None else cluster for cluster in batch["cluster"].to_pylist()]
            distances += batch["distance"].to_pylist()
    if not sum(map(len, vectors)):
        return Map()
    matrix = np.concatenate([part for part in vectors if len(part)])
    drawn = np.isin(np.array(where, np.uint64), addresses)
    # Address order is reading order; shuffling it would only move the marks that lie on top of each other.
    places_2d, variance = project(matrix, drawn)
    groups = [] if clusters is None else _groups(members, words, clusters, words_of(corpus, set(members) - {-1}))
    found = Map([], int(drawn.sum()), variance, groups, random_pairs(matrix[drawn], seed))
    names, rings = found.names, set(apart)
    found.points = [
        Point(float(x), float(y), group, _about(title, group, names, distance), ringed=place in rings)
        for (x, y), group, title, distance, place in zip(places_2d, members, titles, distances, where, strict=True)
    ]
    return found


def _about(title: str, cluster: int, names: Mapping[int, str], distance: float | None) -> str:
    """What is shown over a point."""
    if distance is None:
        return title
    words = names.get(cluster, "")
    called = f"cluster {cluster}{': ' if words else ''}{clip(words, 48)}"
    return f"{title} [{called}; cosine {1 - distance:.2f} with its centroid]"


def _tail(place: str) -> str:
    """The telling end of an address, at most 48 characters."""
    return clip(place if len(place) <= 48 else "…" + place[-47:], 48)


def _groups(
    members: list[int], words: list[set[str]], clusters: Mapping[int, int], terms: Mapping[int, Sequence[str]]
) -> list[Group]:
    sampled = Counter(members)
    ordered = sorted(sampled, key=lambda c: (-clusters.get(c, 0), -sampled[c], c))
    if terms:
        return [Group(c, clusters.get(c, 0), phrase(terms.get(c, ()))) for c in ordered]
    everywhere = Counter(word for found in words for word in found)
    inside: dict[int, Counter[str]] = {cluster: Counter() for cluster in ordered[:LEGEND]}
    for cluster, found in zip(members, words, strict=True):
        if cluster in inside:
            inside[cluster].update(found)
    return [
        Group(c, clusters.get(c, 0), ", ".join(_terms(inside.get(c, Counter()), sampled[c], everywhere, len(words))))
        for c in ordered
    ]


def _terms(inside: Counter[str], size: int, everywhere: Counter[str], total: int, count: int = SHOWN) -> list[str]:
    """Words frequent in a cluster and rare outside it: share inside times log of how many times the share overall.

    Shares count documents, not occurrences: one document that repeats a word does not name its cluster.
    """
    scores = {
        word: (n / size) * float(np.log((n / size) / (everywhere[word] / total)))
        for word, n in inside.items()
        if n >= min(2, size)
    }
    best = sorted((w for w in scores if scores[w] > 0), key=lambda w: (-scores[w], w))[:count]
    return best or sorted(inside, key=lambda w: (-inside[w], w))[:count]
