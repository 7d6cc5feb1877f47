"""Where segments of the request cache lie: a folder on this machine, or objects on any other filesystem.

`LocalStore` appends to one open segment and syncs it; `ObjectStore` puts one small object at a time, joins its own from
time to time, and keeps a copy of everything in a temporary file, so that answers are read without the network. Both
block; `RequestCache` calls what may take long from a thread.
"""

import collections
import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ropewalk.schemas import files
from ropewalk.synth import cache_segments
from ropewalk.synth.cache_index import Catalog
from ropewalk.synth.cache_segments import END, HEAD, Damaged

FETCHES = 16
"""Objects fetched at once."""
FETCH_BYTES = 8 << 20
"""Objects up to this size are fetched into memory, larger ones into a temporary file."""
GRACE_SECONDS = 3600
"""What cannot be locked counts as closed after this: an object since it was put, a file since it was written to."""


def load(url: str, name: str, size: int) -> pa.Buffer:
    """The bytes of a segment, memory-mapped unless it is a small object.

    Raises:
        FileNotFoundError: It is gone: a compaction has put its records elsewhere.
    """
    fs, path = files.filesystem(files.join(url, name))
    if files.is_local(url):
        if os.path.getsize(path) == 0:  # cannot be mapped
            return pa.py_buffer(b"")
        return pa.memory_map(path).read_buffer()
    if size <= FETCH_BYTES:
        return pa.py_buffer(fs.cat_file(path))
    with tempfile.NamedTemporaryFile(prefix="ropewalk-cache-") as copy:
        fs.get_file(path, copy.name)
        return pa.memory_map(copy.name).read_buffer()


def load_all(url: str, skip: Callable[[str], bool] = lambda name: False) -> Iterator[tuple[str, pa.Buffer]]:
    """All segments, in the order of their names; those that compactions put there meanwhile come last.

    Args:
        url: Folder of the cache.
        skip: Whether to leave one out; asked once, before it is read.
    """
    seen: set[str] = set()
    workers = 1 if files.is_local(url) else FETCHES
    with ThreadPoolExecutor(workers) as pool:
        gone = True
        while gone:
            gone = False
            ahead: collections.deque[tuple[str, Future[pa.Buffer]]] = collections.deque()
            listed = [item for item in cache_segments.sizes(url).items() if item[0] not in seen]
            seen.update(name for name, _ in listed)
            fresh = iter([item for item in listed if not skip(item[0])])
            while True:
                while len(ahead) < workers and (item := next(fresh, None)):
                    ahead.append((item[0], pool.submit(load, url, *item)))
                if not ahead:
                    break
                name, future = ahead.popleft()
                try:
                    data = future.result()
                except FileNotFoundError:
                    gone = True  # its records are in a segment that was not there when we listed
                    continue
                yield name, data


def is_open(url: str, name: str) -> bool:
    """Whether a writer may still be at a segment."""
    if not files.is_local(url):
        return not is_old(name)
    path = files.filesystem(files.join(url, name))[1]
    try:
        with open(path, "rb") as segment:
            fcntl.flock(segment, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:  # a filesystem without locks
        return time.time() - os.path.getmtime(path) < GRACE_SECONDS


def is_old(name: str) -> bool:
    """Whether a segment was begun more than `GRACE_SECONDS` ago."""
    return time.time() - cache_segments.created_ns(name) / 1e9 > GRACE_SECONDS


@contextlib.contextmanager
def new_segment(url: str, writer: str) -> Iterator[tuple[str, IO[bytes]]]:
    """A segment's name and where to write it; it is there, whole and durable, when the block ends, or not at all."""
    name = cache_segments.new_name(writer)
    with files.atomic(files.join(url, name)) as sink:
        yield name, sink
        sink.flush()
        if files.is_local(url):
            os.fsync(sink.fileno())
    if files.is_local(url):
        _sync_folder(files.filesystem(url)[1])


class Place(NamedTuple):
    """A record batch: where it is, and its hash."""

    segment: str
    offset: int
    length: int
    xxh3: int


class Store(Protocol):
    """Reads and appends record batches."""

    interval: float
    """Least seconds from the beginning of one append to that of the next."""

    def load(self) -> tuple[list[str], Catalog]:
        """Looks at all there is: the names of the segments, and what is in them."""

    def read(self, place: Place) -> pa.RecordBatch:
        """Reads a record batch.

        Raises:
            FileNotFoundError: A compaction has put it elsewhere: `load` again.
            Damaged: It is not what was written; `load` leaves it out from now on.
        """

    def append(self, messages: Sequence[bytes]) -> tuple[str, int]:
        """Writes record batches durably; segment and offset of the first.

        Raises:
            OSError: They could not be written; what was appended before is untouched.
        """

    def close(self) -> None:
        """Ends the segment that is being written."""


class LocalStore:
    """A folder on this machine: one segment a writer, locked while it is open, synced after every append."""

    interval = 0.0

    def __init__(self, url: str, writer: str) -> None:
        self._url, self._writer = url, writer
        self._folder = files.filesystem(url)[1]
        self._damaged: set[tuple[str, int]] = set()
        self._file: int | None = None
        self._name, self._size = "", 0

    def load(self) -> tuple[list[str], Catalog]:
        """See `Store`."""
        names, scans = [], []
        for name, data in load_all(self._url):
            found = cache_segments.scan(data, name)
            sound = [(name, int(offset)) not in self._damaged for offset in found.batches["offset"]]
            names.append(name)
            scans.append(found.only(np.array(sound, bool)))
        return names, Catalog.of(scans)

    def read(self, place: Place) -> pa.RecordBatch:
        """See `Store`."""
        # Not mapped: a disk that fails is then an OSError and not the end of the process.
        with open(os.path.join(self._folder, place.segment), "rb") as segment:
            data = os.pread(segment.fileno(), place.length, place.offset)
        try:
            return cache_segments.read_message(pa.py_buffer(data), place.xxh3)
        except Damaged:
            self._damaged.add((place.segment, place.offset))
            raise

    def append(self, messages: Sequence[bytes]) -> tuple[str, int]:
        """See `Store`."""
        if self._file is None:
            self._begin()
        assert self._file is not None
        start = self._size
        try:
            for data in messages:
                self._write(data)
            os.fdatasync(self._file)
        except BaseException:
            self._abandon(start)
            if start == len(HEAD):  # nothing is in it
                with contextlib.suppress(OSError):
                    os.remove(os.path.join(self._folder, self._name))
            raise
        return self._name, start

    def close(self) -> None:
        """See `Store`."""
        if self._file is not None:
            good = self._size
            try:
                self._write(END)
                os.fdatasync(self._file)
                self._abandon(self._size)
            except OSError:  # a stream without its end is as good
                self._abandon(good)

    def _begin(self) -> None:
        """Creates the segment: it is locked before it has its name, so that no compaction takes it for a dead one."""
        os.makedirs(self._folder, exist_ok=True)
        name = cache_segments.new_name(self._writer)
        path = os.path.join(self._folder, name)
        self._file = os.open(path + files.TEMPORARY, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._size = 0
        try:
            with contextlib.suppress(OSError):  # no locks here: compaction goes by age
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(HEAD)
            os.fsync(self._file)
            os.rename(path + files.TEMPORARY, path)
            _sync_folder(self._folder)
        except BaseException:
            self._abandon(0)
            for left in (path + files.TEMPORARY, path):
                with contextlib.suppress(OSError):
                    os.remove(left)
            raise
        self._name = name

    def _write(self, data: bytes) -> None:
        """Appends at `_size`, all of it."""
        assert self._file is not None
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._file, rest, self._size)
            self._size += done
            rest = rest[done:]

    def _abandon(self, size: int) -> None:
        """Closes the segment at `size`; the next append begins another.

        After a failed sync nobody knows which pages are on the disk, so nothing may be added behind them.
        """
        file, self._file = self._file, None
        assert file is not None
        with contextlib.suppress(OSError):
            if size < os.fstat(file).st_size:
                os.ftruncate(file, size)
                os.fdatasync(file)
        with contextlib.suppress(OSError):
            os.close(file)


class ObjectStore:
    """Objects on any fsspec filesystem: each append is one, and `FOLD` of them are joined into one.

    Objects are only ever put whole under new names, never changed, so this holds wherever a put that returned is there
    to stay. The price of few objects is time: a `put` waits up to `interval` seconds for its commit, unless 8 MiB are
    waiting. For it a writer leaves no more than one object every two seconds, and once they are joined one for every
    two minutes or 32 MiB.
    """

    interval = 2.0
    FOLD = 64
    FOLD_BYTES = 32 << 20

    def __init__(self, url: str, writer: str) -> None:
        self._url, self._writer = url, writer
        self._fs, self._folder = files.filesystem(url)
        self._spool = tempfile.TemporaryFile(prefix="ropewalk-cache-")
        self._own: list[tuple[str, bytes]] = []

    def load(self) -> tuple[list[str], Catalog]:
        """See `Store`."""
        names, scans = [], []
        for name, data in load_all(self._url):
            start = self._spool.seek(0, os.SEEK_END)
            self._spool.write(data)
            found = cache_segments.verify(cache_segments.scan(data, name), data)
            found.batches["offset"] += start
            names.append(name)
            scans.append(found)
        self._spool.flush()
        return names, Catalog.of(scans)

    def read(self, place: Place) -> pa.RecordBatch:
        """See `Store`."""
        data = os.pread(self._spool.fileno(), place.length, place.offset)
        return cache_segments.read_message(pa.py_buffer(data), place.xxh3)

    def append(self, messages: Sequence[bytes]) -> tuple[str, int]:
        """See `Store`."""
        data = b"".join(messages)
        name = cache_segments.new_name(self._writer)
        start = self._spool.seek(0, os.SEEK_END)
        self._spool.write(data)
        self._spool.flush()
        self._put(name, data)
        self._own.append((name, data))
        if len(self._own) >= self.FOLD or sum(len(data) for _, data in self._own) >= self.FOLD_BYTES:
            self._fold()
        return name, start

    def close(self) -> None:
        """See `Store`."""
        self._fold()
        self._spool.close()

    def _put(self, name: str, data: bytes) -> None:
        """Puts one finished segment."""
        self._fs.makedirs(self._folder, exist_ok=True)
        self._fs.pipe_file(files.join(self._folder, name), HEAD + data + END)

    def _fold(self) -> None:
        """Joins the objects of this writer; if that fails, they stay as they are and compaction joins them."""
        own, self._own = self._own, []
        if len(own) > 1:
            with contextlib.suppress(Exception):  # filesystems have errors of their own
                self._put(cache_segments.new_name(self._writer), b"".join(data for _, data in own))
                for name, _ in own:
                    files.remove(files.join(self._url, name))


def _sync_folder(folder: str) -> None:
    """Makes new names in a folder, and its own name, durable."""
    for path in (folder, os.path.dirname(folder)):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
