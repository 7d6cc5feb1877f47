"""HTML pages: which character set they are in, how deep they nest, and the text that is left without their tags."""

import codecs
import re

MAX_DEPTH = 1000
"""Elements inside one another in a page that is read; resiliparse needs time in the square of it."""
IMPLIED = 4
"""Elements one tag can open at most: a cell of a table brings `tbody` and `tr` with it."""
PASSES = 16
"""Times that pairs of tags are taken out; a page that nests its elements deeper is looked at by the parser."""

_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_NO_CHARSET = ("idna", "punycode", "undefined", "utf-16", "utf-32")
"""Codecs that no page can be in whose `<meta>` tag reads as ASCII."""
_OPEN = re.compile(r"<[a-z]", re.IGNORECASE)
_VOID = re.compile(r"<(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr)\b[^<>\"']*+", re.IGNORECASE)
# A tag with nothing but text up to its own end. No quote may hold a bracket, or `<div a="></div>">` would pass for one.
_PAIR = re.compile(
    r"<([a-z][^\s<>/\"'=]*+)(?:[^<>\"']++|\"[^\"<>]*+\"|'[^'<>]*+')*+>[^<]*+</\1\s*>", re.IGNORECASE
)  # fmt: skip


def decode(data: bytes) -> str | None:
    """A page that is not UTF-8, by the character set it declares; none if that is no help."""
    declared = _CHARSET.search(data[:4096])
    if declared is None:
        return None
    try:
        codec = codecs.lookup(declared[1].decode())
        # Python has more than character sets under such names: `hex`, `rot13`, `unicode_escape`.
        if not codec._is_text_encoding or codec.name.startswith(_NO_CHARSET) or codec.name.endswith("escape"):
            return None
        text = data.decode(codec.name)
        text.encode()  # some give halves of surrogate pairs
    except (LookupError, UnicodeError):
        return None
    return text


def plain_text(page: str) -> str | None:
    """The main text of a page, paragraphs kept apart; none if it nests deeper than `MAX_DEPTH`."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(page)
    if not _surely_flat(page) and _is_deep(tree):
        return None
    return str(extract_plain_text(tree, preserve_formatting=True, main_content=True))


def _surely_flat(page: str) -> bool:
    """Whether a page cannot be too deep: few tags are left without those that end at once, over and over.

    Errs on the side of doubt, and is quicker than a walk through the tree, which is a Python call for each element.
    """
    page = _VOID.sub("", page)
    for _ in range(PASSES):
        if sum(1 for _ in _OPEN.finditer(page)) * IMPLIED <= MAX_DEPTH:
            return True
        page, count = _PAIR.subn("", page)
        if not count:
            return False
    return False


class _Deep(Exception):
    """Ends the walk."""


def _is_deep(tree: object) -> bool:
    from resiliparse.parse.html import traverse_dom

    def look(context: object) -> None:
        if context.depth > MAX_DEPTH:  # type: ignore[attr-defined]
            raise _Deep

    body = tree.body  # type: ignore[attr-defined]
    try:
        if body is not None:
            traverse_dom(body, look, elements_only=True)
    except _Deep:
        return True
    return False
