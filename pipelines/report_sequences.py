"""Numbers of the packed layouts, and a few real sequences with the borders of their documents."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.pipelines.joints import joints, weakest
from ropewalk.pipelines.report_data import COSINE_EDGES
from ropewalk.pipelines.report_histogram import Histogram, SizeCounts
from ropewalk.pipelines.report_map import fetch
from ropewalk.schemas import files
from ropewalk.schemas.manifest import StageManifest
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.vectors import to_matrix

EXAMPLES = 4
SEGMENTS = 16
"""Segments of an example that are shown with their text; the strip above them shows all."""
HEAD, TAIL = 260, 120
_COLUMNS = ["num_tokens", "seq_lengths", "doc_ids", "doc_starts", "similarity"]


@dataclass
class Segment:
    """A document, or a part of one, inside a shown sequence.

    Attributes:
        tokens: Its length.
        doc_id: The document.
        doc_start: Where it starts inside the document, in tokens.
        doc_tokens: Length of the whole document in tokens; 0 if it is not known.
        source: Its source.
        url: Its address.
        head: How it begins.
        tail: How it ends, if it is longer than what is shown.
        omitted: Characters between the two.
        similarity: Cosine with the segment before it.
        weakest: Whether no other joint of those that are known is weaker.
        cluster: Cluster of the document, if it has one.
    """

    tokens: int
    doc_id: str
    doc_start: int
    doc_tokens: int = 0
    source: str = ""
    url: str = ""
    head: str | None = None
    tail: str = ""
    omitted: int = 0
    similarity: float | None = None
    weakest: bool = False
    cluster: int | None = None

    @property
    def part(self) -> bool:
        """Whether it is not the whole document: its text is then found by proportion, not by token."""
        return self.doc_tokens > 0 and (self.doc_start > 0 or self.tokens < self.doc_tokens)


@dataclass
class Example:
    """A shown sequence; `segments` are the first ones, `lengths` all."""

    place: str
    why: str
    tokens: int
    lengths: list[int]
    similarity: float | None
    segments: list[Segment]

    @property
    def joints(self) -> list[float]:
        """Cosines of the shown neighbours, where they are known."""
        return [segment.similarity for segment in self.segments if segment.similarity is not None]


@dataclass
class Layout:
    """One layout of training sequences.

    Attributes:
        name: Its folder.
        length: Tokens a sequence can hold.
        documents: Segments that begin a document: each packed document once.
        full: Sequences filled to 99 % or more.
    """

    name: str
    length: int
    manifest: StageManifest
    sequences: int = 0
    tokens: int = 0
    segments: int = 0
    documents: int = 0
    full: int = 0
    sizes: SizeCounts = field(default_factory=SizeCounts)
    similarity: Histogram = field(default_factory=lambda: Histogram(COSINE_EDGES))
    examples: list[Example] = field(default_factory=list)

    @property
    def fill(self) -> float:
        """Share of the token places that hold a token."""
        return self.tokens / (self.sequences * self.length) if self.sequences else 0.0

    @property
    def full_share(self) -> float:
        """Share of the sequences that are full."""
        return self.full / self.sequences if self.sequences else 0.0


def collect_layout(corpus: CorpusDir, name: str, manifest: StageManifest, *, examples: int = EXAMPLES) -> Layout:
    """One pass over a layout without its tokens; sequences to show are drawn by a hash of their place."""
    length = int(manifest.config.get("length", 0)) or 1
    found = Layout(name, length, manifest)
    drawn: list[tuple[int, int, dict[str, Any]]] = []
    most: tuple[int, int, dict[str, Any]] | None = None
    for number, batch in _batches(corpus, name, manifest):
        tokens = batch.column("num_tokens").to_numpy().astype(np.int64)
        sizes = batch.column("seq_lengths").value_lengths().to_numpy()
        similarity = batch.column("similarity").drop_null().to_numpy()
        found.sequences += batch.num_rows
        found.tokens += int(tokens.sum())
        found.segments += int(sizes.sum())
        found.documents += int((batch.column("doc_starts").flatten().to_numpy() == 0).sum())
        found.full += int((tokens >= 0.99 * length).sum())
        found.sizes.add(sizes)
        found.similarity.add(similarity.astype(np.float64))
        places = number + np.arange(batch.num_rows, dtype=np.uint64)
        hashes = _mix(places)
        for row in np.argsort(hashes, kind="stable")[: max(examples, 0)].tolist():
            if len(drawn) < examples or int(hashes[row]) < drawn[-1][0]:
                drawn.append((int(hashes[row]), int(places[row]), batch.slice(row, 1).to_pylist()[0]))
                drawn = sorted(drawn, key=lambda one: one[:2])[:examples]
        if batch.num_rows and (most is None or int(sizes.max()) > most[0]):
            row = int(sizes.argmax())
            most = (int(sizes[row]), int(places[row]), batch.slice(row, 1).to_pylist()[0])
    chosen = [(place, "drawn at random", row) for _, place, row in drawn]
    if most is not None and examples and most[1] not in [place for place, _, _ in chosen]:
        chosen.append((most[1], "the one with the most documents", most[2]))
    first = list(itertools.accumulate((shard.rows for shard in manifest.shards), initial=0))
    found.examples = [
        example_of(f"sequence {first[place >> 32] + (place & 0xFFFFFFFF):,}", why, row) for place, why, row in chosen
    ]
    return found


def wanted_ids(layouts: Sequence[Layout]) -> list[str]:
    """Ids of the documents in the shown sequences."""
    return [s.doc_id for layout in layouts for example in layout.examples for s in example.segments]


def fill_texts(
    corpus: CorpusDir, examples: Sequence[Example], addresses: Mapping[str, int], present: Collection[str]
) -> None:
    """Gives the shown segments their texts, clusters and similarities; `present` are the finished stages."""
    read: dict[str, Sequence[str]] = {"documents": ["text", "source", "url"]}
    columns = {"tokenize": "num_tokens", "embed": "vector", "cluster": "cluster"}
    read |= {stage: [name] for stage, name in columns.items() if stage in present}
    segments: dict[int, list[Segment]] = {}
    for example in examples:
        for segment in example.segments:
            if segment.doc_id in addresses:
                segments.setdefault(addresses[segment.doc_id], []).append(segment)
    vectors: dict[str, np.ndarray] = {}
    for batch in fetch(corpus, np.array(list(segments), np.uint64), read):
        for i, place in enumerate(batch.column("address").to_pylist()):
            text = batch.column("text")[i].as_py()
            for segment in segments[place]:
                segment.source = batch.column("source")[i].as_py()
                segment.url = batch.column("url")[i].as_py() or ""
                segment.doc_tokens = batch.column("num_tokens")[i].as_py() if "tokenize" in read else 0
                segment.cluster = batch.column("cluster")[i].as_py() if "cluster" in read else None
                _cut(segment, text)
            if "embed" in read and batch.column("vector")[i].is_valid:
                vectors[segments[place][0].doc_id] = to_matrix(batch.column("vector").slice(i, 1))[0]
    for example in examples:
        found = joints([vectors.get(segment.doc_id) for segment in example.segments])
        lowest = weakest(found)
        for nth, (segment, similarity) in enumerate(zip(example.segments, found, strict=True)):
            segment.similarity, segment.weakest = similarity, nth == lowest


def _cut(segment: Segment, text: str) -> None:
    """Head and tail of the segment's text; of a part of a document, by proportion of tokens to characters."""
    if segment.part:
        scale = len(text) / segment.doc_tokens
        text = text[round(segment.doc_start * scale) : round((segment.doc_start + segment.tokens) * scale)]
    text = text.replace("\r\n", "\n")
    segment.omitted = max(0, len(text) - HEAD - TAIL)
    if segment.omitted:
        segment.head, segment.tail = text[:HEAD], text[-TAIL:]
    else:
        segment.head = text


def example_of(place: str, why: str, row: dict[str, Any], *, segments: int = SEGMENTS) -> Example:
    """A sequence to show, of its row of `tables.SEQUENCES`, with the first so many segments."""
    lengths = row["seq_lengths"]
    parts = zip(lengths[:segments], row["doc_ids"], row["doc_starts"], strict=False)
    shown = [Segment(tokens, doc_id, start) for tokens, doc_id, start in parts]
    return Example(place, why, row["num_tokens"], lengths, row["similarity"], shown)


def _batches(corpus: CorpusDir, name: str, manifest: StageManifest) -> Iterator[tuple[np.uint64, pa.RecordBatch]]:
    for number, shard in enumerate(manifest.shards):
        row = 0
        for batch in files.open_arrow(files.join(corpus.url, "sequences", name, shard.file)):
            yield np.uint64(number << 32 | row), batch.select(_COLUMNS)
            row += batch.num_rows


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele et al. 2014), uint64[n] -> uint64[n]: a seeded draw without a seed's state."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return found
