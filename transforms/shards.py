"""Shard folders: `data-00003-of-00064.arrow` files that `datasets.load_from_disk` opens.

A shard is written by one worker, under a temporary name, hashed on the way; then comes its record in `_shards/`, with
the key of the work that made it. A rerun skips every shard whose record carries the same key. `finish` turns a
folder whose shards are all there into a dataset.
"""

import json
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

import pyarrow as pa
import xxhash

from ropewalk.schemas import files
from ropewalk.schemas.conform import conform
from ropewalk.schemas.features import features
from ropewalk.schemas.manifest import Shard, canonical_json

HEARTBEAT_SECONDS = 0.5
BATCH_ROWS = 4096
BATCH_BYTES = 16 << 20
"""Small batches are joined up to about this size: readers pay per batch, not per row."""


EARLIER = "_earlier"
"""Below a stage's folder: files of an earlier result that the next run may use."""


def shard_name(shard: int, num_shards: int) -> str:
    """File name of a shard."""
    return f"data-{shard:05d}-of-{num_shards:05d}.arrow"


@dataclass(frozen=True)
class ShardFolder:
    """A folder of `num_shards` Arrow files of one schema.

    Attributes:
        url: The folder.
        schema: Schema of every shard.
        num_shards: How many shards it has when it is complete.
        key: Fingerprint of the work: a shard record with another key is stale.
    """

    url: str
    schema: pa.Schema
    num_shards: int
    key: str

    def path(self, shard: int) -> str:
        """URL of a shard's file."""
        return files.join(self.url, shard_name(shard, self.num_shards))

    def writer(self, shard: int) -> "ShardWriter":
        """Context manager that writes one shard."""
        return ShardWriter(self, shard)

    def done(self) -> dict[int, Shard]:
        """The finished shards of this key, by number."""
        present = files.sizes(self.url)
        found = {}
        for name in files.names(files.join(self.url, "_shards")):
            if not name.endswith(".json"):
                continue
            record = json.loads(files.read_bytes(files.join(self.url, "_shards", name)) or b"{}")
            if record.pop("key", None) == self.key and present.get(record["file"]) == record["bytes"]:
                found[int(name.removesuffix(".json"))] = Shard.model_validate(record)
        return found

    def progress(self) -> tuple[int, int]:
        """Rows and bytes written so far, unfinished shards included; read from the folder, so any runner will do."""
        rows = size = 0
        for name in files.names(files.join(self.url, "_shards")):
            if files.TEMPORARY in name:
                continue
            record = json.loads(files.read_bytes(files.join(self.url, "_shards", name)) or b"{}")
            if record.get("key") == self.key:
                rows, size = rows + record["rows"], size + record["bytes"]
        return rows, size

    def read(self, shard: int) -> Iterator[pa.RecordBatch]:
        """Batches of a finished shard, those with rows."""
        yield from (batch for batch in files.open_arrow(self.path(shard)) if batch.num_rows)

    def clear_unfinished(self) -> None:
        """Removes what a killed process left: temporary files, heartbeats, shards without a record of this key."""
        keep = {shard.file for shard in self.done().values()}
        for name in files.names(self.url):
            stray = name.startswith("data-") and name.endswith(".arrow") and name not in keep
            if stray or files.TEMPORARY in name:
                files.remove(files.join(self.url, name))
        for name in files.names(files.join(self.url, "_shards")):
            number, _, ending = name.partition(".")
            if ending != "json" or shard_name(int(number), self.num_shards) not in keep:
                files.remove(files.join(self.url, "_shards", name))

    def finish(self) -> list[Shard]:
        """Writes the files that make the folder a Hugging Face dataset; returns the shards in order.

        Raises:
            RuntimeError: If a shard is missing.
        """
        done = self.done()
        missing = [n for n in range(self.num_shards) if n not in done]
        if missing:
            raise RuntimeError(f"{self.url}: shards {missing[:8]} of {self.num_shards} were not written")
        shards = [done[n] for n in range(self.num_shards)]
        write_dataset_files(self.url, self.schema, shards, self.key)
        return shards


class ShardWriter:
    """Writes one shard, counts what went in, and leaves its record when the block ends without an error."""

    def __init__(self, folder: ShardFolder, shard: int) -> None:
        self.folder, self.shard = folder, shard
        self.rows = 0
        self.counters: dict[str, int] = {}
        self._empty = True
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._hash = xxhash.xxh3_128()
        self._beat = time.monotonic()

    def __enter__(self) -> Self:
        self._file = files.atomic(self.folder.path(self.shard))
        self._sink = _HashingSink(self._file.__enter__(), self._hash)
        self._stream = pa.ipc.new_stream(pa.PythonFile(self._sink, "w"), self.folder.schema)
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends a batch of the folder's schema.

        Raises:
            SchemaMismatch: If it has other columns.
        """
        batch = conform(batch, self.folder.schema, table=self.folder.url)
        self.rows += batch.num_rows
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self._flush()
        if time.monotonic() - self._beat > HEARTBEAT_SECONDS:
            self._leave("progress")
            self._beat = time.monotonic()

    def _flush(self) -> None:
        waiting, self._waiting, self._waiting_rows, self._waiting_bytes = self._waiting, [], 0, 0
        if len(waiting) > 1:
            waiting = [pa.concat_batches(waiting)]
        for batch in waiting:
            if batch.num_rows:
                self._stream.write_batch(batch)
                self._empty = False

    def count(self, name: str, amount: int) -> None:
        """Adds to a counter of the shard's record; the name ends in its unit."""
        self.counters[name] = self.counters.get(name, 0) + int(amount)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            if self._empty:  # `datasets` cannot read an Arrow stream without a batch
                schema = self.folder.schema
                nothing = [pa.array([], field.type) for field in schema]
                self._stream.write_batch(pa.RecordBatch.from_arrays(nothing, schema=schema))
            self._stream.close()
        self._file.__exit__(kind, error, trace)
        if kind is None:
            self._leave("json")
            files.remove(files.join(self.folder.url, "_shards", f"{self.shard:05d}.progress"))

    def _leave(self, ending: str) -> None:
        record = Shard(
            file=shard_name(self.shard, self.folder.num_shards),
            rows=self.rows,
            bytes=self._sink.size,
            hash=self._hash.hexdigest(),
            counters=dict(sorted(self.counters.items())),
        )
        data = canonical_json(record.model_dump() | {"key": self.folder.key}).encode()
        files.write_bytes(files.join(self.folder.url, "_shards", f"{self.shard:05d}.{ending}"), data)


class _HashingSink:
    """A binary sink that hashes and counts what passes; just enough of a file for Arrow."""

    def __init__(self, sink: IO[bytes], digest: "xxhash.xxh3_128") -> None:
        self._sink, self._digest = sink, digest
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._sink.write(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._sink.flush()

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        self.closed = True


def write_dataset_files(url: str, schema: pa.Schema, shards: list[Shard], key: str) -> None:
    """Writes `dataset_info.json` and `state.json`, as `Dataset.save_to_disk` lays them out."""
    info = {"features": features(schema)}
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file} for shard in shards],
        "_fingerprint": key[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    files.write_bytes(files.join(url, "dataset_info.json"), json.dumps(info, indent=2).encode())
    files.write_bytes(files.join(url, "state.json"), json.dumps(state, indent=2).encode())


def discard(folder: str) -> None:
    """Removes a stage's folder, its manifest first: half a folder must not pass for a finished one."""
    files.remove(files.join(folder, "stage.json"))
    files.remove(folder)


def sweep(folder: str) -> None:
    """Removes what a finished stage no longer needs; a run that was killed just here left it behind."""
    for name in {"_work", "_shards", EARLIER} & set(files.names(folder)):
        files.remove(files.join(folder, name))
