"""Vectors that were made before: when documents come or go, only new texts are embedded.

The files of vectors say for themselves what they hold: the embedder's fingerprint is in their schema, a hash of the
embedded text in every row. So when a new row space, or verdicts that have changed, make the columns of `embed` stale,
its files are set aside, in `_earlier/` of the stage's folder, whole shards of an unfinished run among them. The next
run finds each text's vector by its hash, wherever its document has moved, and the folder goes when the stage is done.

Finding is a shuffle of 24 bytes a document, in passes under the memory budget; vectors do not travel: the worker that
writes a shard reads those it needs where they lie.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import xxhash

from ropewalk.kernels.mix64 import bucket
from ropewalk.kernels.xxh64 import from_hex
from ropewalk.schemas import address, files
from ropewalk.transforms import batches
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.map_shards import WriteGroups
from ropewalk.transforms.shards import EARLIER, ShardFolder
from ropewalk.transforms.tokenize import alive_rows

MATCHES = pa.schema([pa.field("row", pa.uint32(), False), pa.field("place", pa.uint64(), False)])
"""A document of the shard, and where its vector lies: file << 32 | row, as an address."""
PAIRS = pa.schema(
    [
        pa.field("high", pa.uint64(), False),
        pa.field("low", pa.uint64(), False),
        pa.field("address", pa.uint64(), False),
        pa.field("earlier", pa.bool_(), False),
    ]
)
"""Hash of a text, and where it is: a document's address, or the place of an earlier vector."""
PAIR_BYTES = 64
"""Bytes a pair takes in its shuffle, its copies included."""
GROUP_PAIRS = 1 << 20
RAW = "_work/raw"
"""Below the stage's folder: the vectors before they are centred."""


def text_hashes(texts: pa.Array) -> np.ndarray:
    """XXH3-128 of each text, hex: large_string[n] without nulls -> object[n]."""
    return np.array([xxhash.xxh3_128_hexdigest(text.as_buffer()) for text in texts], object)


def set_aside(folder: str, keep: Collection[str] = ()) -> None:
    """Moves whole files of reusable vectors from a stage's folder into its `_earlier`.

    The folder is then no finished stage any more. It may be cut short anywhere: the manifest goes first, a file is at
    its old or its new place, and another call does what is left.

    Args:
        folder: URL of the stage's folder.
        keep: URLs of files that are not stale.
    """
    files.remove(files.join(folder, "stage.json"))
    for name in ("state.json", "dataset_info.json"):
        files.remove(files.join(folder, name))
    fs, _ = files.filesystem(folder)
    number = max((int(name.partition(".")[0]) for name in names(folder)), default=-1) + 1
    for place in (folder, files.join(folder, RAW)):
        for name in files.names(place):
            url = files.join(place, name)
            if url in keep or not name.endswith(".arrow") or not _fingerprint(url):
                continue
            fs.makedirs(files.filesystem(files.join(folder, EARLIER))[1], exist_ok=True)
            fs.mv(files.filesystem(url)[1], files.filesystem(files.join(folder, EARLIER, f"{number:06d}.arrow"))[1])
            number += 1


def names(folder: str) -> list[str]:
    """Names of the files that were set aside in a stage's folder."""
    return [name for name in files.names(files.join(folder, EARLIER)) if name.endswith(".arrow")]


def _fingerprint(url: str) -> str | None:
    """What made the vectors of a file; none if it holds none that can be used again."""
    try:
        metadata = files.open_arrow(url).schema.metadata or {}
    except (pa.ArrowInvalid, OSError):
        return None
    return metadata.get(b"embedder", b"").decode() or None


@dataclass
class EarlierVectors:
    """Vectors that were set aside, and which documents of the corpus they belong to.

    Attributes:
        corpus: The corpus.
        files: Names of the files in `_earlier`, all by one embedder.
        matches: Rows of `MATCHES` for each shard of the corpus.
    """

    corpus: CorpusDir
    files: tuple[str, ...]
    matches: ShardFolder
    _shard: tuple[int, np.ndarray, np.ndarray] | None = field(default=None, init=False, repr=False, compare=False)
    _gather: Any = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, corpus: CorpusDir, folder: str, fingerprint: str, matches: ShardFolder) -> "EarlierVectors | None":
        """Those that an embedder of this fingerprint made; none if there is not one."""
        found = tuple(
            name for name in names(folder) if _fingerprint(files.join(folder, EARLIER, name)) == fingerprint
        )  # fmt: skip
        return cls(corpus, found, matches) if found else None

    @property
    def place(self) -> CorpusDir:
        """The files as if they were shards of a corpus: `Gather` reads them then."""
        return CorpusDir(self.corpus.url, self.files)

    def find(self, addresses: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Which of some documents of one shard (uint64[n], ascending) have an earlier vector, and those rows.

        Returns:
            bool[n]; and by column the values of those that have.
        """
        if len(addresses) == 0:
            return np.zeros(0, bool), {}
        rows, places = self._matches(int(address.shards(addresses[:1])[0]))
        wanted = address.rows(addresses)
        at = np.minimum(np.searchsorted(rows, wanted), max(len(rows) - 1, 0))
        known = rows[at] == wanted if len(rows) else np.zeros(len(wanted), bool)
        if not known.any():
            return known, {}
        if self._gather is None:
            columns = [name for name in self._columns() if name != "raw_vector"]
            self._gather = _Earlier(self.place, f"embed/{EARLIER}", columns)
        found = self._gather.rows(places[at[known]])
        values = {name: _values(found.column(name)) for name in found.schema.names}
        same = values.pop("text_hash") == hashes[known]
        if not same.all():
            raise RuntimeError(f"{self.matches.url}: matches of other documents; remove the folder and run again")
        return known, values

    def _columns(self) -> list[str]:
        return list(files.open_arrow(self.place.shard_url(f"embed/{EARLIER}", 0)).schema.names)

    def _matches(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        if self._shard is None or self._shard[0] != shard:
            found = batches.concat(self.matches.read(shard), MATCHES)
            self._shard = shard, found.column("row").to_numpy(), found.column("place").to_numpy()
        return self._shard[1], self._shard[2]


class _Earlier(Gather):
    """Rows of files that were set aside: of a centred file, the vectors as they were before."""

    def _reader(self, shard: int) -> Any:
        for batch in super()._reader(shard):
            if "raw_vector" in batch.schema.names:
                batch = batch.drop_columns("vector")
                batch = batch.rename_columns(["vector" if n == "raw_vector" else n for n in batch.schema.names])
            yield batch


def _values(column: pa.Array) -> np.ndarray:
    """A column as an array: matrices for lists."""
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)  # type: ignore[no-any-return]
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


@dataclass
class FindEarlier(beam.PTransform):
    """Shard numbers in; writes `earlier.matches`: for each document the place of an earlier vector of its text.

    Attributes:
        earlier: Where the vectors are, and where to write.
        alive: Stages whose verdicts put documents out.
        cut: Stages whose spans are cut out of the text.
        pending: The shards of this pass.
        partitions: Groups the hashes are spread over.
    """

    earlier: EarlierVectors
    alive: Sequence[str]
    cut: Sequence[str]
    pending: Sequence[int]
    partitions: int

    def expand(self, start: beam.Pipeline) -> beam.PCollection[int]:
        """Joins by hash, then sends the matches to their shards."""
        old = start | "Earlier" >> beam.Create(list(range(len(self.earlier.files)))) | beam.ParDo(_HashedFiles(self))
        new = start | "Shards" >> beam.Create(list(self.pending)) | beam.ParDo(_HashedTexts(self))
        matches = (old, new) | beam.Flatten() | beam.GroupByKey() | beam.ParDo(_Join())
        return matches | WriteGroups(_ByRow(), self.earlier.matches, self.pending, MATCHES)


class _HashedFiles(beam.DoFn):
    def __init__(self, transform: FindEarlier) -> None:
        self.earlier, self.partitions = transform.earlier, transform.partitions

    def process(self, number: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        row = 0
        for batch in files.open_arrow(self.earlier.place.shard_url(f"embed/{EARLIER}", number)):
            places = address.of_rows(number, row, batch.num_rows)
            row += batch.num_rows
            present = batch.column("text_hash").is_valid()
            hashes = batch.column("text_hash").filter(present)
            yield from _pairs(hashes, places[present.to_numpy(zero_copy_only=False)], True, self.partitions)


class _HashedTexts(beam.DoFn):
    def __init__(self, transform: FindEarlier) -> None:
        self.corpus, self.partitions = transform.earlier.corpus, transform.partitions
        self.alive, self.cut = transform.alive, transform.cut

    def process(self, shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in self.corpus.read(shard, {"documents": ["text"]}, alive=self.alive, cut=self.cut):
            alive = alive_rows(batch)
            hashes = pa.array(text_hashes(batch.column("text").filter(pa.array(alive))), pa.string())
            yield from _pairs(hashes, batch.column("address").to_numpy()[alive], False, self.partitions)


def _pairs(
    hashes: pa.Array, places: np.ndarray, earlier: bool, partitions: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    high, low = from_hex(hashes)
    rows = pa.RecordBatch.from_arrays([high, low, places, np.full(len(places), earlier)], schema=PAIRS)
    yield from batches.split_by_key(rows, bucket(np.asarray(low, np.uint64), partitions))


class _Join(beam.DoFn):
    def process(
        self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        pairs = batches.concat(group[1], PAIRS)
        high, low, places, earlier = (pairs.column(i).to_numpy(zero_copy_only=False) for i in range(4))
        # Of equal hashes the earlier vectors come first, the lowest place before the others.
        order = np.lexsort((places, ~earlier, low, high))
        high, low, places, earlier = high[order], low[order], places[order], earlier[order]
        fresh = np.flatnonzero(np.r_[True, (high[1:] != high[:-1]) | (low[1:] != low[:-1])]) if len(high) else order
        first = np.repeat(fresh, np.diff([*fresh.tolist(), len(high)]))
        matched = ~earlier & earlier[first]
        addresses = places[matched]
        rows = [pa.array(address.rows(addresses).astype(np.uint32)), pa.array(places[first][matched])]
        found = pa.RecordBatch.from_arrays(rows, schema=MATCHES)
        yield from batches.split_by_key(found, address.shards(addresses))


class _ByRow:
    """Matches of a shard in the order of its rows."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The rows sorted, and how many."""
        return batch.take(pa.array(np.argsort(batch.column("row").to_numpy()))), {"matched-docs": batch.num_rows}
