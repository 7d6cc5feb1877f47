"""Files as streams of unpacked bytes that survive a damaged end: what came before it is still read."""

import zlib
from collections.abc import Iterator
from typing import IO, Any

import zstandard
from fsspec.implementations.local import LocalFileSystem

from ropewalk.schemas import files

GZIP_STEP = 256 << 10
"""Packed bytes unpacked at a time."""
ZSTD_STEP = 4 << 10
"""Smaller, because zstd has no bound on what one call returns: 4 KB of it can hold 128 MB of one repeated byte."""
BLOCK = 1 << 20
"""Unpacked bytes handed on at a time by gzip."""
LARGEST_WINDOW = 1 << 31
"""Files packed with `zstd --long=31` are read as well."""


class Damaged(Exception):
    """A file cannot be unpacked further: reason code and detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def open_file(url: str) -> IO[bytes]:
    """Opens a file of any filesystem for reading."""
    fs, path = files.filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return open(path, "rb", buffering=0)
    opened: IO[bytes] = fs.open(path, "rb")
    return opened


class Stream:
    """Unpacked bytes of a file.

    Attributes:
        damage: Set once the end has come too early.
    """

    def __init__(self, file: IO[bytes], packing: str | None) -> None:
        self.damage: Damaged | None = None
        self._blocks = {None: _plain, "gzip": _gunzip, "zstd": _unzstd}[packing](file)
        self._rest: bytes | memoryview = b""
        self._whole = file if packing is None else None

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        if self._whole is not None and not len(self._rest):
            block = self._whole.read(size)
            if len(block) == size:  # as nearly always: nothing to join
                return block
            self._rest = memoryview(block)
        parts: list[bytes | memoryview] = []
        missing = size
        while missing:
            if not len(self._rest):
                try:
                    self._rest = memoryview(next(self._blocks))
                except StopIteration:
                    break
                except Damaged as damage:
                    self.damage = damage
                    break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, which `read` will return again."""
        head = self.read(size)
        self._rest = head + bytes(self._rest)
        return head


def _plain(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    """All members of a gzip file; zeros behind a member are padding."""
    members, packed = 0, b""
    while True:
        packed = (packed or file.read(GZIP_STEP)).lstrip(b"\0" if members else b"")
        if not packed:
            packed = file.read(GZIP_STEP)
            if not packed:
                return
            continue
        member: Any = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            try:
                block = member.decompress(packed, BLOCK)
            except zlib.error as error:
                raise Damaged(
                    "damaged_file", f"gzip: {error}; unpack it with `gzip -t` to see how far it goes"
                ) from None
            if block:
                yield block
            packed = member.unconsumed_tail
            if not member.eof and not packed and len(block) < BLOCK:
                packed = file.read(GZIP_STEP)
                if not packed:
                    raise Damaged("truncated_file", "gzip data end inside a member: copy the file again")
        packed = member.unused_data
        members += 1


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    """All frames of a zstd file."""
    packed = b""
    while packed := packed or file.read(ZSTD_STEP):
        frame: Any = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
        while not frame.eof:
            try:
                block = frame.decompress(packed)
            except zstandard.ZstdError as error:
                raise Damaged("damaged_file", f"zstd: {error}; `zstd -t` shows how far it goes") from None
            if block:
                yield block
            if not frame.eof:
                packed = file.read(ZSTD_STEP)
                if not packed:
                    raise Damaged("truncated_file", "zstd data end inside a frame: copy the file again")
        packed = frame.unused_data
