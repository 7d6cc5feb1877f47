"""Deduplication against older corpora: their keys and sketches, kept as an index beside their columns.

    corpus/index/dedup/keys/     key, order, address of every banded document, sorted by key     24 bytes a band
    corpus/index/dedup/sketch/   id, order, exact hash, URL, signature: a row for each document
    corpus/index/dedup/index.json

Keys are spread over shards by equal ranges, so the whole index is one sorted list whatever the number of shards, and a
new corpus looks its own keys up in it: reading what it needs, not the years before. To a later corpus every document
of an older one is better than its own (highest bit of `order`), so the old copy stays and is named.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels.mix64 import bucket
from ropewalk.schemas import files
from ropewalk.schemas.manifest import canonical_json, fingerprint
from ropewalk.schemas.settings import RecipeError
from ropewalk.transforms.candidates import SLICES, StarEdges
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.sketch import sketch_schema

INDEX = "index/dedup"
OLD = np.uint64(1 << 63)
"""The bit of `order` that an older corpus' documents have."""
OLD_MEMBERS = 16
"""Documents of an older corpus taken from one bucket, the best ones; the rest is counted."""


def index_schema(num_perm: int) -> pa.Schema:
    """Schema of the sketches in an index."""
    return pa.schema([pa.field("id", pa.string()), *sketch_schema(num_perm)])


@dataclass(frozen=True)
class OlderIndex:
    """The index of one older corpus.

    Attributes:
        corpus: The older corpus.
        settings: What the signatures depend on, see `settings_of`.
        key: Fingerprint of the index.
        key_shards: Names of the shards of `keys`.
        first_shard: Number that its first document shard has among all.
    """

    corpus: CorpusDir
    settings: dict[str, Any]
    key: str
    key_shards: tuple[str, ...]
    first_shard: int = 0


def same_folder(one: str, other: str) -> bool:
    """Whether two URLs are the same folder."""
    return (
        os.path.realpath(one) == os.path.realpath(other)
        if files.is_local(one)
        else one.rstrip("/") == other.rstrip("/")
    )


def write_index_file(corpus: CorpusDir, settings: dict[str, Any], key: str, key_shards: Sequence[str]) -> None:
    """Writes `index.json`, which makes the index one."""
    laid = corpus.manifest()
    assert laid is not None
    kept = {"settings": settings, "key": key, "key_shards": list(key_shards), "documents": laid.content}
    data, url = canonical_json(kept), corpus.url
    files.write_bytes(files.join(url, INDEX, "index.json"), data.encode())


def index_key(url: str) -> str:
    """Fingerprint of an older corpus' index.

    Raises:
        RecipeError: If there is none, or it is that of other documents.
    """
    return fingerprint(_index_file(url))


def _index_file(url: str) -> dict[str, Any]:
    data = files.read_bytes(files.join(url, INDEX, "index.json"))
    laid = CorpusDir(url).manifest()
    if data is None or laid is None:
        raise RecipeError(
            f"dedup.against: {url} has no index ({INDEX}/index.json): run its recipe with `dedup: {{index: true}}`"
        )
    kept: dict[str, Any] = json.loads(data)
    stage = CorpusDir(url).stage_manifest("columns/dedup")
    if stage is None or fingerprint([stage.key, "index"]) != kept["key"]:
        raise RecipeError(f"dedup.against: the deduplication of {url} has not finished: run its recipe again")
    if kept["documents"] != laid.content:
        raise RecipeError(f"dedup.against: the index of {url} is that of an earlier ingest: run its recipe again")
    return kept


def open_older(urls: Sequence[str], settings: dict[str, Any], own: CorpusDir) -> list[OlderIndex]:
    """Opens the indexes of older corpora.

    Args:
        urls: Their folders.
        own: The new corpus; shards of the older ones are numbered on from its own.
        settings: Settings of the new corpus: signatures made otherwise cannot be compared.

    Raises:
        RecipeError: If one has no index, one made with other settings, is the new corpus, or comes twice.
    """
    found: list[OlderIndex] = []
    first_shard = own.own_shards
    for url in urls:
        if same_folder(url, own.url):
            raise RecipeError(f"dedup.against: {url} is the corpus itself: name older ones")
        if any(same_folder(url, index.corpus.url) for index in found):
            raise RecipeError(f"dedup.against: {url} is named twice")
        kept = _index_file(url)
        wrong = [name for name in settings if kept["settings"].get(name) != settings[name]]
        if wrong:
            said = ", ".join(
                f"{name} is {kept['settings'].get(name)!r} there, {settings[name]!r} here" for name in wrong
            )
            raise RecipeError(
                f"dedup.against: {url} was deduplicated with other settings ({said}), so signatures cannot be "
                f"compared: make them alike, or run one of the two again"
            )
        corpus = CorpusDir.open(url)
        found.append(OlderIndex(corpus, kept["settings"], kept["key"], tuple(kept["key_shards"]), first_shard))
        first_shard += len(corpus.file_names)
    return found


@dataclass(frozen=True)
class JoinedCorpus(CorpusDir):
    """A corpus and the older ones behind it in one space of addresses: shard numbers go on from one to the next.

    Attributes:
        older: The older ones.
        sketches: Table of the own sketches; theirs are in their indexes.
    """

    older: tuple[OlderIndex, ...] = ()
    sketches: str = ""

    def shard_url(self, table: str, shard: int) -> str:
        """URL of one shard of a table, whoever has it."""
        for index in self.older:
            own = shard - index.first_shard
            if 0 <= own < len(index.corpus.file_names):
                folder = files.join(index.corpus.url, INDEX, "sketch")
                name = index.corpus.file_names[own]
                return files.join(folder, name) if table == self.sketches else index.corpus.shard_url(table, own)
        return super().shard_url(table, shard)


@dataclass
class SortSlices:
    """Batch function: all rows of some keys in, sorted by key, better documents first; as an index has them."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, slices: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Sorted rows."""
        key, order, address = (slices.column(name).to_numpy() for name in SLICES.names)
        place = np.lexsort((address, ~order, key))
        columns = [key[place], order[place] | OLD, address[place]]
        return pa.RecordBatch.from_arrays([pa.array(c) for c in columns], schema=SLICES), {"indexed-keys": len(key)}


@dataclass
class IndexSketches:
    """Batch function: ids and sketches in, rows of an index' sketches out."""

    num_perm: int

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The same rows, marked as old."""
        schema = index_schema(self.num_perm)
        columns = {name: batch.column(name) for name in schema.names}
        columns["order"] = pa.array(columns["order"].to_numpy() | OLD)
        return pa.RecordBatch.from_pydict(columns, schema=schema), {}


@dataclass
class EdgesToOlder:
    """Batch function: all rows of some buckets in, their edges out, those to documents of older corpora among them.

    Attributes:
        older: Indexes to look the keys up in; none for none.
        kept_in: The corpus and the older ones behind it, if only documents that stayed there count; none: all do.
    """

    older: Sequence[OlderIndex] = ()
    kept_in: JoinedCorpus | None = None
    _keys: list["_Keys"] = field(default_factory=list, init=False, repr=False)

    def setup(self) -> None:
        """Opens the indexes."""
        self._keys = [_Keys(index) for index in self.older]

    def __call__(self, slices: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Edges, and what the buckets looked like."""
        star = StarEdges()
        if not self.older:
            return star(slices)
        wanted = np.unique(slices.column("key").to_numpy())
        found = [keys.rows(wanted) for keys in self._keys]
        olds = [batch for batch, _ in found]
        edges, counters = star(pa.concat_batches([slices, *olds]))
        first = np.uint64(min(index.first_shard for index in self.older) << 32)
        a, b = edges.column("a").to_numpy(), edges.column("b").to_numpy()
        wanted_edges = a < first  # the older ones are better: an edge between two of them has an old `a`
        if self.kept_in is not None:
            old = wanted_edges & (b >= first)
            kept = Gather(self.kept_in, "dedup", ["keep"]).rows(b[old]).column(0)
            wanted_edges[old] = pc.fill_null(kept, False).to_numpy(zero_copy_only=False)
        edges = edges.filter(pa.array(wanted_edges))
        return edges, counters | {
            "candidate-pairs": edges.num_rows,
            "older-keys": sum(batch.num_rows for batch in olds),
            "older_left_out-keys": sum(left for _, left in found),
        }


class _Keys:
    """The sorted keys of one index."""

    def __init__(self, index: OlderIndex) -> None:
        self.index = index
        self._open: dict[int, pa.RecordBatch] = {}

    def rows(self, wanted: np.ndarray) -> tuple[pa.RecordBatch, int]:
        """Rows of `SLICES` for the keys wanted (uint64[n], ascending), some of each, and how many were left out."""
        parts, left = [pa.RecordBatch.from_arrays([pa.array([], pa.uint64())] * 3, schema=SLICES)], 0
        place = bucket(wanted, len(self.index.key_shards))
        for shard in np.unique(place).tolist():
            for batch in self._batches(shard):
                keys = batch.column("key").to_numpy()
                mine = wanted[np.searchsorted(wanted, keys[0]) : np.searchsorted(wanted, keys[-1], side="right")]
                start = np.searchsorted(keys, mine)
                stop = np.searchsorted(keys, mine, side="right")
                count = np.minimum(stop - start, OLD_MEMBERS)
                left += int((stop - start - count).sum())
                total = np.cumsum(count)
                rows = np.arange(total[-1] if len(total) else 0) + np.repeat(start - total + count, count)
                if len(rows):
                    parts.append(batch.take(pa.array(rows)))
        joined = pa.concat_batches(parts)
        moved = joined.column("address").to_numpy() + np.uint64(self.index.first_shard << 32)
        return joined.set_column(2, SLICES.field(2), pa.array(moved)), left

    def _batches(self, shard: int) -> Iterator[pa.RecordBatch]:
        """Batches of a shard; a key may go on from one to the next."""
        url = files.join(self.index.corpus.url, INDEX, "keys", self.index.key_shards[shard])
        yield from (batch for batch in files.open_arrow(url) if batch.num_rows)
