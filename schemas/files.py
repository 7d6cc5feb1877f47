"""Files on any fsspec filesystem: whole or absent, and memory-mapped where the filesystem is local."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from typing import IO, Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

TEMPORARY = ".tmp-"
"""Mark of a file that is still being written; left behind only by a killed process."""


def join(url: str, *parts: str) -> str:
    """`url/part/part` for local paths and URLs alike."""
    return "/".join([url.rstrip("/") if url != "/" else "", *parts])


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of `url`, and the path on it."""
    fs, path = fsspec.core.url_to_fs(url)
    return fs, str(path)


def is_local(url: str) -> bool:
    """Whether `url` is on this machine's disks."""
    return isinstance(filesystem(url)[0], LocalFileSystem)


@contextlib.contextmanager
def atomic(url: str) -> Iterator[IO[bytes]]:
    """Opens `url` for writing under a temporary name; it appears whole when the block ends, or not at all."""
    fs, path = filesystem(url)
    temporary = f"{path}{TEMPORARY}{uuid.uuid4().hex[:8]}"
    local = isinstance(fs, LocalFileSystem)
    fs.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(temporary, "wb") if local else fs.open(temporary, "wb") as sink:
            yield sink
        if local:
            os.replace(temporary, path)
        else:
            fs.mv(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.rm(temporary)
        raise


def write_bytes(url: str, data: bytes) -> None:
    """Writes a small file atomically."""
    with atomic(url) as sink:
        sink.write(data)


def read_bytes(url: str) -> bytes | None:
    """The whole of a small file; none if it does not exist."""
    fs, path = filesystem(url)
    try:
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        return None


def names(url: str) -> list[str]:
    """Sorted names in a folder; empty if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    try:
        return sorted(os.path.basename(str(p).rstrip("/")) for p in fs.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove(url: str) -> None:
    """Removes a file or folder and all below it, if it exists."""
    fs, path = filesystem(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def sizes(url: str) -> dict[str, int]:
    """Size in bytes of each file in a folder; empty if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    try:
        return {os.path.basename(str(entry["name"])): int(entry["size"] or 0) for entry in fs.ls(path, detail=True)}
    except (FileNotFoundError, NotADirectoryError):
        return {}


@contextlib.contextmanager
def lock(url: str) -> Iterator[None]:
    """Holds a local folder for one writer; the system lets go when the process ends, however it ends.

    Raises:
        BlockingIOError: If another process holds it.
    """
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):  # object stores have no locks
        yield
        return
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, ".lock"), "ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{url}: another run is writing this corpus; wait for it, or end it") from None
        yield


def open_arrow(url: str) -> pa.RecordBatchReader:
    """Opens an Arrow stream: memory-mapped on a local disk, read as it comes elsewhere."""
    fs, path = filesystem(url)
    source: Any = pa.memory_map(path) if isinstance(fs, LocalFileSystem) else fs.open(path, "rb")
    return pa.ipc.open_stream(source)
