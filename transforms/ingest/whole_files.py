"""Readers of files that are one document: text, HTML, source code; and of repositories, whose files are joined."""

import functools
import posixpath
import re
from collections.abc import Sequence

from ropewalk.transforms.ingest.chunks import Limits
from ropewalk.transforms.ingest.records import Raw
from ropewalk.transforms.ingest.rejects import Reject
from ropewalk.transforms.ingest.splits import Piece
from ropewalk.transforms.ingest.streams import Stream, open_file

FORMATS = ("text", "html", "code")
"""Formats whose files are one document, or part of one."""

PATH_HEADER = "# {path}\n\n"
"""Stands before each file of a repository: a comment in many languages, a heading in Markdown."""
FILE_GAP = "\n\n"
"""Stands between two files of a repository."""
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)


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
    for piece in pieces:
        text = _text(piece, limits)
        if isinstance(text, Reject):
            rejects.append(text)
        else:
            path = piece.file.path.removeprefix(f"{name}/")
            parts.append(PATH_HEADER.format(path=path) + text.rstrip("\n"))
    if not parts:
        return Raw.of(rejects=rejects)
    return Raw.of([FILE_GAP.join(parts) + "\n"], [name], [name], rejects=rejects)


def _text(piece: Piece, limits: Limits) -> str | Reject:
    """The text of a whole file."""
    path = piece.file.url
    with open_file(path) as file:
        stream = Stream(file, piece.file.packing)
        data = stream.read(limits.max_record_bytes + 1)
    refuse = functools.partial(Reject, path=path, line=1, byte_offset=0, payload=data[: limits.payload_limit])
    if len(data) > limits.max_record_bytes:
        return refuse("oversized_record", limits.oversized(max(len(data), piece.file.size)))
    if stream.damage is not None:
        return refuse(stream.damage.reason, stream.damage.detail)
    if not data:
        return Reject("empty_file", "no bytes: was the copy complete?", path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        declared = _CHARSET.search(data[:4096]) if piece.file.format == "html" else None
        try:
            text = data.decode(declared[1].decode()) if declared else ""
        except (LookupError, UnicodeDecodeError):
            text = ""
        if not text:
            line = data.count(b"\n", 0, error.start) + 1
            detail = f"{error.reason} at byte {error.start}; convert the file to UTF-8"
            return Reject("invalid_utf8", detail, path, line, error.start, data[: limits.payload_limit])
    if piece.file.format == "html":
        from resiliparse.extract.html2text import extract_plain_text

        text = str(extract_plain_text(text, preserve_formatting=True, main_content=True))
    return text
