"""Five corpora of different nature for `order_quality.py`, each of about 2,000 real documents in known groups.

code: Python sources of the standard library and of the packages of this environment; group = package.
docs: pages of the manuals of eight programs out of Debian's `-doc` packages; group = program.
prose: books out of Debian packages, cut at paragraphs into pieces of about 4 KB; group = book (of the Bible: each one).
multilingual: manual pages in ten languages, their markup left in; group = language.
synthetic: vectors around topics, no text; group = topic, lengths log-normal.

Packages are fetched with `apt-get download` into a cache folder and unpacked there with `dpkg-deb`; nothing is
installed. Documents of 400 to 40,000 bytes, at most `CAP` a group, drawn by the hash of their names; exact copies and
documents with a cosine of .95 or more to an earlier one are left out, as they would be ahead of the order.
"""

import gzip
import hashlib
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ropewalk.kernels.grid import normalise
from ropewalk.kernels.lexical import frequencies
from ropewalk.transforms import utf8
from ropewalk.transforms.embed import LexicalEmbedder, write_frequencies
from ropewalk.transforms.ingest.html_pages import decode, plain_text

SMALLEST, LARGEST = 400, 40_000  # bytes of a document
DOCUMENTS, CAP, PIECE = 2000, 260, 4000
NEAR = 0.95
MANUALS = (
    "python3.11-doc", "git-doc", "postgresql-doc-15", "python-django-doc", "sqlite3-doc", "nodejs-doc", "erlang-doc",
    "apache2-doc",
)  # fmt: skip
LANGUAGES = ("de", "fr", "es", "it", "pl", "ja", "ru", "zh", "pt-br", "nl")
BOOKS = {
    "anarchism": "usr/share/doc/anarchism/html",
    "debian-handbook": "usr/share/doc/debian-handbook/html/en-US",
    "debian-policy": "usr/share/doc/debian-policy",
    "debian-reference-en": "usr/share",
    "rust-doc": "usr/share/doc/rust-doc/html/book",
    "jargon-text": "usr/share/doc/jargon-text",
    "fortunes": "usr/share/games/fortunes",
}


@dataclass(frozen=True)
class Corpus:
    """Documents without near-copies.

    Attributes:
        name: What it is called.
        vectors: Unit vectors on the grid, float32[n, d].
        sizes: Bytes of each document, int64[n].
        groups: Number of each document's group, int64[n].
        group_names: Names by number.
        left_out: Near-copies that were left out.
        documents: Each document's name; its hash decides the order they come in.
    """

    name: str
    vectors: np.ndarray
    sizes: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    left_out: int
    documents: list[str]


def package(name: str, cache: Path) -> Path:
    """Folder of an unpacked Debian package, fetched if it is not there."""
    folder = cache / "x" / name
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=cache, check=True, capture_output=True)
        [found] = cache.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", found, folder], check=True)
    return folder


def pages(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and plain texts of all HTML pages below a folder."""
    for path in sorted(folder.rglob("*.html")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 2_000_000:
            continue
        data = path.read_bytes()
        try:
            page: str | None = data.decode()
        except UnicodeDecodeError:
            page = decode(data)
        text = plain_text(page) if page else None
        if text:
            yield str(path.relative_to(folder)), text


def pieces(name: str, text: str) -> Iterator[tuple[str, str]]:
    """A text cut at empty lines into pieces of about `PIECE` bytes."""
    part, size, number = [], 0, 0
    for paragraph in re.split(r"\n\s*\n", text):
        part.append(paragraph)
        size += len(paragraph.encode()) + 2
        if size >= PIECE:
            yield f"{name}#{number}", "\n\n".join(part)
            part, size, number = [], 0, number + 1
    if part:
        yield f"{name}#{number}", "\n\n".join(part)


def bible(cache: Path) -> Iterator[tuple[str, str, str]]:
    """Books of the King James Version, as its own reader prints them."""
    program = package("bible-kjv", cache).resolve() / "usr/bin/bible"
    data = package("bible-kjv-text", cache) / "usr/lib"
    done = subprocess.run([program], cwd=data, input="gen1:1-rev22:21\nq\n", capture_output=True, text=True, check=True)
    book, chapters = "", dict[str, list[str]]()
    for line in done.stdout.splitlines():
        heading = re.fullmatch(r"([1-3]? ?[A-Z][A-Za-z ]+) (\d+)", line.strip())
        if heading:
            book = heading[1]
        elif line.startswith("  ") or line and book and not line.startswith("bible("):
            chapters.setdefault(book, []).append(re.sub(r"^ +\d+ ", "\n", line))
    for book, lines in chapters.items():
        # Verses are paragraphs here, or a book would be one piece.
        for name, text in pieces(book, "\n\n".join(" ".join(lines).split("\n"))):
            yield f"kjv: {book}", name, text


def code(_: Path) -> Iterator[tuple[str, str, str]]:
    """Group, name and text of Python sources."""
    paths = sysconfig.get_paths()
    for tree in (Path(paths["stdlib"]), Path(paths["purelib"])):
        for path in sorted(tree.rglob("*.py")):
            where = path.relative_to(tree)
            if "site-packages" in where.parts or path.stat().st_size > LARGEST:
                continue
            group = where.parts[0] if len(where.parts) > 1 else "stdlib modules"
            yield group, str(where), path.read_bytes().decode(errors="replace")


def docs(cache: Path) -> Iterator[tuple[str, str, str]]:
    """Group, name and text of manuals' pages."""
    for name in MANUALS:
        folder = package(name, cache) / "usr/share/doc"
        for page, text in pages(folder / "apache2-doc/manual/en" if name == "apache2-doc" else folder):
            yield name, page, text


def prose(cache: Path) -> Iterator[tuple[str, str, str]]:
    """Group, name and text of pieces of books."""
    for name, where in BOOKS.items():
        folder = package(name, cache) / where
        if name == "jargon-text":
            texts = [("jargon", gzip.decompress((folder / "jargon.txt.gz").read_bytes()).decode(errors="replace"))]
        elif name == "fortunes":
            files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink() and not p.suffix]
            texts = [(p.name, p.read_text(errors="replace").replace("\n%\n", "\n\n")) for p in files]
        else:
            texts = list(pages(folder))
        for title, text in texts:
            for piece, part in pieces(title, text):
                yield name, piece, part
    yield from bible(cache)


def multilingual(cache: Path) -> Iterator[tuple[str, str, str]]:
    """Group, name and text of manual pages."""
    for language in LANGUAGES:
        folder = package(f"manpages-{language}", cache) / "usr/share/man"
        for path in sorted(folder.rglob("*.gz")):
            if not path.is_symlink():
                text = gzip.decompress(path.read_bytes()).decode(errors="replace")
                yield language, str(path.relative_to(folder)), text


REAL = {"code": code, "docs": docs, "prose": prose, "multilingual": multilingual}


def draw(found: Iterator[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The documents of a corpus: by the hash of group and name, at most `CAP` a group, exact copies once."""
    fitting, seen = [], set()
    for group, name, text in found:
        if SMALLEST <= len(text.encode()) <= LARGEST:
            fitting.append((hashlib.sha256(f"{group}/{name}".encode()).digest(), group, name, text))
    counts: dict[str, int] = {}
    chosen = []
    for _, group, name, text in sorted(fitting):
        digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
        if digest in seen or counts.get(group, 0) == CAP or len(chosen) == DOCUMENTS:
            continue
        seen.add(digest)
        counts[group] = counts.get(group, 0) + 1
        chosen.append((group, name, text))
    return chosen


def embed(texts: list[str], cache: Path) -> np.ndarray:
    """Lexical vectors with frequencies counted on these texts: float32[n, 256]."""
    column = pa.array(texts, pa.large_string())
    url = str(cache / "frequencies.arrow")
    write_frequencies(url, frequencies(*utf8.buffers(column)), len(texts))
    return LexicalEmbedder(url).embed(column).astype(np.float32)


def keep_apart(vectors: np.ndarray) -> np.ndarray:
    """Rows without those that have a cosine of `NEAR` or more to an earlier kept one, int64[k]."""
    kept: list[int] = []
    for row in range(len(vectors)):
        if not kept or float((vectors[kept] @ vectors[row]).max()) < NEAR:
            kept.append(row)
    return np.array(kept)


def synthetic() -> Corpus:
    """2,000 vectors around 40 topics of Zipf's sizes, each topic somewhat near another, as in a corpus with themes."""
    random = np.random.default_rng(11)
    themes = random.standard_normal((8, 256))
    topics = themes[np.arange(40) % 8] + 1.2 * random.standard_normal((40, 256))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    share = 1 / np.arange(1, 41)
    groups = random.choice(40, DOCUMENTS, p=share / share.sum())
    vectors = normalise(topics[groups] + 0.06 * random.standard_normal((DOCUMENTS, 256))).astype(np.float32)
    sizes = np.exp(random.normal(np.log(6000), 1, DOCUMENTS)).clip(SMALLEST, LARGEST).astype(np.int64)
    names = [f"topic {i}" for i in range(40)]
    return Corpus("synthetic", vectors, sizes, groups, names, 0, [str(i) for i in range(DOCUMENTS)])


def load(name: str, cache: Path) -> Corpus:
    """A corpus by its name, kept in the cache once it is made."""
    if name == "synthetic":
        return synthetic()
    stored = cache / f"{name}.npz"
    if not stored.exists():
        chosen = draw(REAL[name](cache))
        vectors = embed([text for _, _, text in chosen], cache)
        kept = keep_apart(vectors)
        names = sorted({group for group, _, _ in chosen})
        np.savez(
            stored, vectors=vectors[kept].astype(np.float16), left_out=len(chosen) - len(kept), group_names=names,
            sizes=[len(chosen[i][2].encode()) for i in kept], groups=[names.index(chosen[i][0]) for i in kept],
            documents=[chosen[i][1] for i in kept],
        )  # fmt: skip
    with np.load(stored) as found:
        return Corpus(
            name, found["vectors"].astype(np.float32), found["sizes"], found["groups"], found["group_names"].tolist(),
            int(found["left_out"]), found["documents"].tolist(),
        )  # fmt: skip
