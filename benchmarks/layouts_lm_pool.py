"""The documents of `layouts_lm.py`: text that this machine has, of five kinds, in groups (package, tool, folder)."""

import collections
import gzip
import hashlib
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

SMALLEST = 200  # bytes of a document

PYTHON = (".py", ".md", ".rst", ".txt")
PERL = (".pm", ".pl", ".pod", ".t")


def sources(extra: Path | None) -> dict[str, list[tuple[Path, tuple[str, ...] | None]]]:
    """Folders of each source, and the endings that count (none: any text)."""
    paths = sysconfig.get_paths()
    python: list[tuple[Path, tuple[str, ...] | None]] = [
        (Path(paths["stdlib"]), PYTHON),
        (Path(paths["purelib"]), PYTHON),
    ]
    if extra:
        python.append((extra, PYTHON))
    return {
        "python": python,
        "include": [(Path("/usr/include"), None)],
        "man": [(Path("/usr/share/man"), None)],
        "doc": [(Path("/usr/share/doc"), None)],
        "perl": [(Path("/usr/share/perl"), PERL), (Path("/usr/lib/x86_64-linux-gnu/perl"), PERL)],
    }


def group_of(source: str, parts: Sequence[str]) -> str | None:
    """What a file belongs to, by its path below the source's folder; none: not wanted."""
    if source == "man":
        if not re.fullmatch(r"man\d", parts[0]):
            return None
        return re.split(r"[-_.:]", parts[-1])[0]
    if source == "perl":
        parts = parts[1:]
        if not parts or parts[0] == "unicore":
            return None
    if source == "python" and (parts[0].endswith(".dist-info") or "site-packages" in parts):
        return None
    return parts[0].removesuffix(".py").removesuffix(".h")


def unit(text: str) -> float:
    """A number in [0, 1) from a string."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def pool(extra: Path | None, group_bytes: int, largest: int) -> Iterator[dict[str, str]]:
    """The documents, in the order of their hashed keys; exact repeats left to `dedup`."""
    found: dict[str, tuple[str, str, Path]] = {}
    for source, folders in sources(extra).items():
        for root, endings in folders:
            for path in root.rglob("*"):
                parts = path.relative_to(root).parts
                if endings and path.suffix not in endings or path.is_symlink() or not path.is_file():
                    continue
                group = group_of(source, parts)
                if group is not None:
                    found.setdefault(f"{source}/{'/'.join(parts)}", (source, f"{source}/{group}", path))
    taken: collections.Counter[str] = collections.Counter()
    for key in sorted(found, key=unit):
        source, group, path = found[key]
        data = path.read_bytes()
        try:
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        except (UnicodeDecodeError, OSError, EOFError):
            continue
        size = len(text.encode())
        if SMALLEST <= size <= largest and taken[group] + size <= group_bytes:
            taken[group] += size
            yield {"id": key, "text": text, "group": group, "kind": source}
