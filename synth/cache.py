"""The request cache: every answer is on the disk before it is used, and no question is asked twice.

A cache is a folder of segments (`cache_segments`) that only ever grows; each writer appends to its own. Requests that
are answered while a commit is being synced share the next one, so a thousand at once cost a few syncs, and the event
loop never waits for a disk.
"""

import asyncio
import collections
import contextlib
import errno
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ropewalk.schemas import files
from ropewalk.synth import cache_segments
from ropewalk.synth.cache_index import Index
from ropewalk.synth.cache_segments import Damaged
from ropewalk.synth.cache_store import LocalStore, ObjectStore, Place, Store
from ropewalk.synth.engine import Completion, Request

COMMIT_BYTES = 8 << 20
"""A commit holds at most this, or one record; on object stores this much does not wait for the interval."""
RECENT_BYTES = 32 << 20
"""Record batches kept in memory after they were read."""


@dataclass(frozen=True)
class _Waiting:
    """A record on its way to the disk."""

    key: bytes
    record: pa.RecordBatch
    size: int
    done: "asyncio.Future[None]"


class RequestCache:
    """Completions by key, durable. Made by `open`; used from one event loop."""

    def __init__(self, url: str, store: Store) -> None:
        self._url = url
        self._store = store
        self._recent: collections.OrderedDict[Place, pa.RecordBatch] = collections.OrderedDict()
        self._recent_bytes = 0
        self._new: dict[bytes, tuple[Place, int]] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._queued_bytes = 0
        self._hurry: asyncio.Event | None = None
        self._committer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="request-cache")
        self._next_commit = 0.0
        self._last_created = 0
        self._closed = False
        self._load()

    @classmethod
    def open(cls, url: str, *, writer: str | None = None) -> "RequestCache":
        """Opens a cache and indexes what is there; nothing is written before the first `put`.

        Args:
            url: Folder: local path or any fsspec URL. It may be shared by any number of writers and readers. What
                others write after this is not seen.
            writer: Who writes, to be read in the names of the segments.

        Raises:
            ValueError: There is a segment of another version.
        """
        store = (LocalStore if files.is_local(url) else ObjectStore)(url, writer or "writer")
        return cls(url, store)

    def __len__(self) -> int:
        """Keys it knows."""
        return len(self._index) + sum(self._index.find(key) is None for key in self._new)

    def get(self, key: bytes) -> Completion | None:
        """The completion cached under a key, if there is one."""
        self._check_open()
        while True:
            found = self._new.get(key) or self._find(key)
            if found is None:
                return None
            place, row = found
            try:
                return cache_segments.decode_call(self._read(place), row)
            except (FileNotFoundError, Damaged):  # compacted meanwhile, or a bad disk
                self._new.pop(key, None)
                self._load()

    async def put(self, key: bytes, request: Request, completion: Completion, model: str) -> Completion:
        """Caches a completion; returns when it is durable.

        It is kept even if the caller is cancelled. If the key is cached already, that completion stays.

        Args:
            key: `cache_key` of the request.
            request: The request.
            completion: Its answer.
            model: Name of the model.

        Returns:
            The completion as `get` returns it from now on: log-probabilities and seconds rounded to float32, lone
            surrogates replaced by U+FFFD. A run that goes on with it makes the same rows as one that finds it cached.

        Raises:
            OSError: The disk is full, or failed. This completion is not cached; those acknowledged before are.
            ValueError: The completion does not fit `synthesis.CALLS`.
        """
        known = self.get(key)
        if known is not None:
            return known
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._enqueue(key, request, completion, model)
        await asyncio.shield(waiting.done)
        return cache_segments.decode_call(waiting.record, 0)

    async def close(self) -> None:
        """Writes what is still waiting and ends the segment; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._hurry is not None and self._committer is not None and not self._committer.done():
            self._hurry.set()
            await asyncio.wait([self._committer])
        if self._queue:  # an event loop that ended took the committer with it
            hurry = asyncio.Event()
            hurry.set()
            await self._commit_all(hurry)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the request cache {self._url} is closed")

    def _load(self) -> None:
        """Indexes what is there."""
        while True:
            names, catalog = self._store.load()

            def read(number: int, names: list[str] = names, batches: np.ndarray = catalog.batches) -> pa.RecordBatch:
                return self._read(_place(names, batches[number]))

            with contextlib.suppress(FileNotFoundError, Damaged):
                self._names, self._index = names, Index(catalog, catalog.winners(read))
                return

    def _find(self, key: bytes) -> tuple[Place, int] | None:
        """Record batch and row of a key."""
        found = self._index.find(key)
        return None if found is None else (_place(self._names, self._index.batches[found[0]]), found[1])

    def _read(self, place: Place) -> pa.RecordBatch:
        """A record batch, from memory if it was read lately."""
        batch = self._recent.pop(place, None)
        if batch is None:
            batch = self._store.read(place)
            self._recent_bytes += place.length
        self._recent[place] = batch
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            self._recent_bytes -= self._recent.popitem(last=False)[0].length
        return batch

    def _enqueue(self, key: bytes, request: Request, completion: Completion, model: str) -> _Waiting:
        """Puts a record in line for the next commit."""
        self._last_created = max(time.time_ns(), self._last_created + 1)
        record = cache_segments.encode_call(key, request, completion, model, self._last_created)
        waiting = _Waiting(key, record, record.nbytes, asyncio.get_running_loop().create_future())
        waiting.done.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
        self._waiting[key] = waiting
        self._queue.append(waiting)
        self._queued_bytes += waiting.size
        if self._committer is None or self._committer.done() or self._hurry is None:
            self._hurry = asyncio.Event()
            self._committer = asyncio.create_task(self._commit_all(self._hurry))
        if self._queued_bytes >= COMMIT_BYTES:
            self._hurry.set()
        return waiting

    async def _commit_all(self, hurry: asyncio.Event) -> None:
        """Commits until nobody waits."""
        while self._queue:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_commit - time.monotonic()):
                    await hurry.wait()
            self._next_commit = time.monotonic() + self._store.interval
            group = [self._queue.popleft()]
            size = group[0].size
            while self._queue and size + self._queue[0].size <= COMMIT_BYTES:
                group.append(self._queue.popleft())
                size += group[-1].size
            self._queued_bytes -= size
            if self._queued_bytes < COMMIT_BYTES and not self._closed:
                hurry.clear()
            await self._commit(group)

    async def _commit(self, group: list[_Waiting]) -> None:
        """Writes some records together and tells who waits for them."""
        fault: BaseException | None = None
        try:
            loop = asyncio.get_running_loop()
            self._new.update(await loop.run_in_executor(self._thread, self._append, [w.record for w in group]))
        except BaseException as caught:
            fault = caught
        for waiting in group:
            del self._waiting[waiting.key]
            if waiting.done.done() or waiting.done.get_loop().is_closed():  # nobody waits any more
                continue
            if fault is None:
                waiting.done.set_result(None)
            elif isinstance(fault, Exception):  # filesystems have errors of their own
                waiting.done.set_exception(self._explain(fault))
            else:
                waiting.done.cancel()
        if fault is not None and not isinstance(fault, Exception):
            raise fault

    def _append(self, records: list[pa.RecordBatch]) -> dict[bytes, tuple[Place, int]]:
        """Writes records durably; where each is. Runs in the thread."""
        batches = list(cache_segments.join(records))
        messages = [cache_segments.message(batch) for batch in batches]
        segment, offset = self._store.append([data for data, _ in messages])
        places = {}
        for batch, (data, xxh3) in zip(batches, messages, strict=True):
            place = Place(segment, offset, len(data), xxh3)
            places.update({key: (place, row) for row, key in enumerate(batch.column("key").to_pylist())})
            offset += len(data)
        return places

    def _explain(self, fault: Exception) -> OSError:
        """The fault with what to do about it; one for each who waits."""
        code, what = errno.EIO, f"{type(fault).__name__}: {fault}"
        if isinstance(fault, OSError) and fault.errno:
            code, what = fault.errno, fault.strerror or what
        explained = OSError(
            code,
            f"the request cache {self._url} cannot be written ({what}): make room or mend it, and run the same "
            "command again; what was answered before is kept",
        )
        explained.__cause__ = fault
        return explained


def _place(names: list[str], batch: np.void) -> Place:
    """Where a record batch of a catalog is."""
    return Place(names[batch["segment"]], int(batch["offset"]), int(batch["length"]), int(batch["xxh3"]))
