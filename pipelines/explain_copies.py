"""Copies of a document, found again: its group, the true similarity, what they share, and why one was kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from ropewalk.kernels.shared_passages import Passage, shared_passages
from ropewalk.pipelines import rows
from ropewalk.pipelines.stages.dedup import shingling
from ropewalk.schemas.dedup import DedupConfig
from ropewalk.schemas.manifest import StageManifest
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.shingle_sets import shingle_sets
from ropewalk.transforms.sketch import MAX_LENGTH, order_keys, qualities

COMPARED_BYTES = 1 << 20
"""What is looked at of each text for shared passages."""
LEAST_BYTES = 24
"""Shorter passages are chance."""


@dataclass(frozen=True)
class Copy:
    """One document of a group.

    Attributes:
        corpus: Where it is.
        place: Shard and row.
        row: Its columns of `tables.DOCUMENTS` but the text, and those of `tables.DEDUP` where the stage has run.
    """

    corpus: CorpusDir
    place: rows.Place
    row: dict[str, Any]

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    def text(self) -> str:
        """Its text."""
        return str(rows.fetch(self.corpus, DOCUMENTS, self.place)["text"])


def settings_of(manifest: StageManifest) -> DedupConfig:
    """The settings that a finished dedup ran with.

    Raises:
        RecipeError: If this version does not know them.
    """
    try:
        return DedupConfig.model_validate(manifest.config)
    except ValidationError as error:
        raise RecipeError(
            f"columns/dedup: made by another version of Ropewalk, run the recipe again: {error}"
        ) from None


def group(corpus: CorpusDir, survivor: str, *, most: int) -> list[Copy]:
    """The first documents of a group of copies of which `survivor` (an id) was kept; it comes first, if it is there."""
    columns = {
        DOCUMENTS: ["id", "source", "url", "num_bytes", "metadata"],
        "dedup": ["keep", "dup_of", "similarity", "dup_kind"],
    }
    best: list[Copy] = []
    others: list[Copy] = []
    for shard in range(len(corpus.file_names)):
        start = 0
        for batch in corpus.read(shard, columns):
            is_best = pc.and_(pc.equal(batch.column("id"), survivor), pc.fill_null(batch.column("keep"), False))
            is_copy = pc.fill_null(pc.equal(batch.column("dup_of"), survivor), False)
            for hit in pc.indices_nonzero(pc.or_(is_best, is_copy)).to_pylist():
                row = dict(batch.slice(hit, 1).drop_columns("address").to_pylist()[0])
                (best if row["keep"] else others).append(Copy(corpus, (shard, start + hit), row))
            start += batch.num_rows
            if best and len(others) >= most:
                return (best + others)[:most]
    return (best + others)[:most]


def find_older(id: str, against: Sequence[str]) -> Copy | None:
    """A document of one of the older corpora that the stage compared with; none if none of them has it."""
    for url in against:
        try:
            corpus = CorpusDir.open(url)
        except FileNotFoundError:
            continue
        place = rows.places(corpus, {id}).get(id)
        if place is not None:
            row = rows.fetch(corpus, DOCUMENTS, place)
            del row["text"]
            return Copy(corpus, place, row)
    return None


def similarities(this: Copy, others: Sequence[Copy], settings: DedupConfig) -> list[float]:
    """True Jaccard similarity of one document with others, wherever they are, under the stage's settings."""
    texts = pa.array([copy.text() for copy in (this, *others)], pa.large_string())
    every = np.arange(len(texts))
    sets = shingle_sets([(texts, every, every)], len(texts), shingling(settings), 1)
    return [float(value) for value in sets.similarity(every[1:], np.zeros(len(others), np.int64), 1)]


@dataclass(frozen=True)
class Shared:
    """Passages that two texts share.

    Attributes:
        passages: Longest first.
        cut: Whether a text was too long to be looked at whole.
    """

    passages: list[Passage]
    cut: bool


def shared(a: str, b: str, *, most: int) -> Shared:
    """The longest passages of two texts, in bytes of their UTF-8; the first `COMPARED_BYTES` of each are looked at."""
    data = [np.frombuffer(text.encode(), np.uint8) for text in (a, b)]
    heads = [part[:COMPARED_BYTES] for part in data]
    found = shared_passages(*heads, least=LEAST_BYTES, most=most)
    return Shared(found, any(len(part) > COMPARED_BYTES for part in data))


@dataclass(frozen=True)
class Criterion:
    """One step of the order of survivors: what it compares, the two values, and whether it decides."""

    name: str
    kept: Any
    gone: Any
    decides: bool


def survivor_order(kept: Copy, gone: Copy, settings: DedupConfig, priorities: dict[str, int]) -> list[Criterion]:
    """Why of two copies one was kept: quality, length, priority of the source, id; the first that differs decides."""
    both = (kept, gone)
    steps: list[tuple[str, list[Any], list[Any]]] = []
    if settings.quality:
        found = qualities(pa.array([copy.row["metadata"] for copy in both], pa.string()), settings.quality)
        # As the stage compares them: to about three digits.
        keys = order_keys(pa.array(["0" * 32] * 2), np.zeros(2, int), np.zeros(2, int), found)
        steps.append((f"higher quality ({settings.quality})", found.tolist(), keys.tolist()))
    sizes = [copy.row["num_bytes"] for copy in both]
    steps.append(("longer text (bytes, up to 16 MiB)", sizes, [min(size, MAX_LENGTH) for size in sizes]))
    places = [priorities.get(copy.row["source"], 0) for copy in both]
    steps.append(("higher priority of the source", places, places))
    ids = [copy.id for copy in both]
    steps.append(("smaller id", ids, ids))
    rows_ = [copy.place for copy in both]
    steps.append(("earlier in the corpus (shard, row)", rows_, rows_))
    result, open_ = [], True
    for name, (left, right), compared in steps:
        decides = open_ and compared[0] != compared[1]
        open_ = open_ and not decides
        result.append(Criterion(name, left, right, decides))
    return result
