"""Readers of files that are one document: text, HTML, source code; and of repositories, whose files are joined."""

import functools
import posixpath
from collections.abc import Sequence

from ropewalk.transforms.ingest import html_pages
from ropewalk.transforms.ingest.chunks import Limits
from ropewalk.transforms.ingest.records import Raw
from ropewalk.transforms.ingest.rejects import Reject, unreadable
from ropewalk.transforms.ingest.splits import Piece
from ropewalk.transforms.ingest.streams import Stream, open_file

FORMATS = ("text", "html", "code")
"""Formats whose files are one document, or part of one."""

PATH_HEADER = "# {path}\n\n"
"""Stands before each file of a repository: a comment in many languages, a heading in Markdown."""
FILE_GAP = "\n\n"
"""Stands between two files of a repository."""


def read_files(pieces: Sequence[Piece], limits: Limits) -> Raw:
    """Reads files as one document each; a file's path below the input is its key and its `url`."""
    texts: list[str] = []
    paths: list[str | None] = []
    rejects: list[Reject] = []
    for piece in pieces:
        text = _text(piece, limits)
        if isinstance(text, Reject):
            rejects.append(text)
        else:
            texts.append(text)
            paths.append(piece.file.path)
    return Raw.of(texts, paths, paths, rejects=rejects)


def read_repository(pieces: Sequence[Piece], limits: Limits) -> Raw:
    """Joins the files of one repository in the order of their paths.

    ProLong's rule (arXiv 2410.02660): all files of a repository, deliberately not ordered by what imports what. A file
    that cannot be read is a dead letter of its own, and the others are still joined.
    """
    name = pieces[0].file.repository
    assert name is not None
    folder = posixpath.commonpath([posixpath.dirname(piece.file.url) or "." for piece in pieces])
    size = sum(piece.bytes for piece in pieces)
    if size > limits.max_record_bytes:
        return Raw.of(rejects=[Reject("oversized_record", f"{len(pieces)} files, {limits.oversized(size)}", folder)])
    parts: list[str] = []
    rejects: list[Reject] = []
    size = 0  # what is packed is smaller than what it holds
    for piece in pieces:
        text = _text(piece, limits)
        if isinstance(text, Reject):
            rejects.append(text)
            continue
        path = piece.file.path.removeprefix(f"{name}/")
        parts.append(PATH_HEADER.format(path=path) + text.rstrip("\n"))
        size += len(parts[-1].encode()) + len(FILE_GAP)
        if size > limits.max_record_bytes + len(FILE_GAP):
            detail = f"its {len(pieces)} files unpacked, at least {limits.oversized(size)}"
            return Raw.of(rejects=[*rejects, Reject("oversized_record", detail, folder)])
    if not parts:
        return Raw.of(rejects=rejects)
    return Raw.of([FILE_GAP.join(parts) + "\n"], [name], [name], rejects=rejects)


def _text(piece: Piece, limits: Limits) -> str | Reject:
    """The text of a whole file."""
    path = piece.file.url
    try:
        with open_file(path) as file:
            stream = Stream(file, piece.file.packing)
            data = stream.read(limits.max_record_bytes + 1)
    except OSError as error:
        return unreadable(path, error)
    refuse = functools.partial(Reject, path=path, line=1, byte_offset=0, payload=data[: limits.payload_limit])
    if len(data) > limits.max_record_bytes:
        return refuse("oversized_record", limits.oversized(max(len(data), piece.file.size)))
    if stream.damage is not None:
        return refuse(stream.damage.reason, stream.damage.detail)
    if not data:
        return Reject("empty_file", "no bytes: was the copy complete?", path)
    html = piece.file.format == "html"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        declared = html_pages.decode(data) if html else None
        if not declared:
            detail = f"{error.reason} at byte {error.start}; convert the file to UTF-8"
            return refuse("invalid_utf8", detail, line=data.count(b"\n", 0, error.start) + 1, byte_offset=error.start)
        text = declared
    if not html:
        return text
    plain = html_pages.plain_text(text)
    if plain is None:
        return refuse("html_too_deep", f"more than {html_pages.MAX_DEPTH} elements inside one another: is it a page?")
    return plain
