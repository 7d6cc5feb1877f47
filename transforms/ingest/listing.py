"""What lies in an input: files of accepted formats, sorted, and a count of those that are left alone."""

import fnmatch
import itertools
import json
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict

from ropewalk.schemas import files
from ropewalk.schemas.recipe import InputConfig, RecipeError
from ropewalk.transforms.ingest import formats

STAMPS = ("mtime", "ETag", "etag", "LastModified", "last_modified", "updated", "blob_id", "created")
"""What filesystems call the thing that changes when a file does, in order of trust."""
DATASET_FILES = ("state.json", "dataset_info.json")
"""What `Dataset.save_to_disk` writes beside the Arrow files."""
HUB_FILES = ("readme.md", "dataset_infos.json", "license", "license.md", "license.txt")
"""What a dataset repository on the Hub holds beside its data."""


class InputError(RecipeError):
    """An input that cannot be read; the message names it and the remedy."""


class File(BaseModel):
    """A file to read.

    Attributes:
        url: Where to open it.
        path: Its place below the input, `/` between folders: stable when the input is moved.
        format: See `formats.recognise`.
        packing: `gzip`, `zstd` or none.
        size: Bytes, as stored.
        stamp: Changes when the file does.
        repository: Repository it belongs to, where files are joined.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    path: str
    format: str
    packing: str | None
    size: int
    stamp: str
    repository: str | None = None


@dataclass(frozen=True)
class _Entry:
    """A file as the filesystem lists it: path on the filesystem, place below the root it was found under."""

    path: str
    below: str
    size: int
    stamp: str


def list_input(entry: InputConfig, output: str | None = None) -> tuple[list[File], dict[str, int]]:
    """Lists one input.

    Args:
        entry: Where it lies, and what of it is wanted.
        output: The corpus folder, which is not read again when it lies in the input.

    Returns:
        The files to read, sorted by path (repositories together), and the number of other files by ending, or by why
        they are left alone.

    Raises:
        InputError: If the path does not exist, matches nothing, or holds nothing readable.
    """
    named = f"input {entry.path!r}"
    try:
        fs, path = files.filesystem(entry.path)
    except (ValueError, ImportError) as error:
        raise InputError(f"{named}: {error}; install the filesystem's package, or copy the files here") from None
    fs.invalidate_cache()
    base, roots, explicit = _roots(fs, path, named)
    own = _own_output(fs, roots[0] if explicit else base, output)
    skipped: Counter[str] = Counter()
    found: list[File] = []
    for root in roots:
        below = root[len(base) :].strip("/")
        why = _why_not(fs, root, below, own)
        if why is not None:
            skipped[why] += 1
        elif _is_folder(fs, root):
            found += _in_folder(fs, root, below, entry, skipped, named, own)
        else:
            found += _choose(fs, [_entry(fs.info(root), below)], entry, skipped, explicit=explicit)
    if not found:
        seen = ", ".join(f"{name} ({count})" for name, count in sorted(skipped.items())) or "no files at all"
        raise InputError(
            f"{named}: nothing here that `format: {entry.format}` can read; found {seen}. "
            f"Set `format` to what the files are, or point `path` at the folder that holds them"
        )
    found.sort(key=lambda file: (file.repository or "", file.path, file.url))
    return found, dict(sorted(skipped.items()))


def _roots(fs: fsspec.AbstractFileSystem, path: str, named: str) -> tuple[str, list[str], bool]:
    """What the path of an input stands for: (where places are counted from, files and folders, named one by one?)."""
    if fs.exists(path):
        root = path.rstrip("/") or path
        return (root if _is_folder(fs, root) else posixpath.dirname(root)), [root], True
    if any(sign in path for sign in "*?["):
        matches: list[str] = []
        folder: str | None = None
        for match, info in sorted(fs.glob(path, detail=True).items()):
            if folder is not None and f"{match}/".startswith(folder):
                continue  # the folder that was matched before holds it
            matches.append(str(match).rstrip("/"))
            folder = f"{matches[-1]}/" if info["type"] == "directory" else None
        if not matches:
            raise InputError(f"{named}: the pattern matches nothing. Check it with `ls`; `**` crosses folders")
        plain = itertools.takewhile(lambda part: not any(sign in part for sign in "*?["), path.split("/"))
        return "/".join(plain), matches, False
    parent = posixpath.dirname(path.rstrip("/"))
    hint = "" if fs.exists(parent) else f"; its folder {parent!r} does not exist either"
    raise InputError(f"{named}: no such file or folder{hint}. Correct `path`, or give an absolute one")


def _in_folder(
    fs: fsspec.AbstractFileSystem, root: str, prefix: str, entry: InputConfig, skipped: Counter[str], named: str,
    own: str | None,
) -> Iterator[File]:  # fmt: skip
    every = sorted(_walk(fs, root, prefix, skipped, entry.exclude, own), key=lambda item: item.below)
    by_folder: dict[str, dict[str, _Entry]] = {}
    for item in every:
        by_folder.setdefault(posixpath.dirname(item.path), {})[_base(item.path)] = item
    datasets = {folder for folder, names in by_folder.items() if set(DATASET_FILES) <= names.keys()}
    wanted: list[_Entry] = []
    for folder in sorted(datasets):
        wanted += _dataset_files(fs, by_folder[folder], skipped, named, is_input=folder == root)
    on_hub = "hf" in _protocols(fs)
    for item in every:
        folder, name = posixpath.dirname(item.path), _base(item.path)
        if folder in datasets or name == "dataset_dict.json":
            continue
        hidden = any(part.startswith(".") for part in item.below.split("/"))
        if hidden or (on_hub and name.lower() in HUB_FILES):
            skipped["hidden" if hidden else "card"] += 1
        else:
            wanted.append(item)
    chosen = list(_choose(fs, wanted, entry, skipped, explicit=False))
    if entry.unit == "file":
        return iter(chosen)
    # A folder that a glob matched is one repository. `.git` itself is skipped as hidden, but says so of a root, too.
    single = bool(prefix) or fs.exists(f"{root}/.git") or any("/" not in file.path for file in chosen)
    return (
        file.model_copy(update={"repository": prefix or _base(root) if single else file.path.split("/")[0]})
        for file in chosen
    )


def _walk(
    fs: fsspec.AbstractFileSystem, root: str, prefix: str, skipped: Counter[str], exclude: Sequence[str],
    own: str | None,
) -> Iterator[_Entry]:  # fmt: skip
    """Every file below a folder. Links to folders are not followed, so that a circle of links ends."""
    if isinstance(fs, LocalFileSystem):
        yield from _walk_local(root, prefix, skipped, exclude, own)
        return
    for path, info in fs.find(root, detail=True).items():
        below = posixpath.join(prefix, str(path)[len(root) :].lstrip("/"))
        if _excluded(below, exclude):
            continue
        why = _why_not(fs, str(path), below, own)
        if why is None:
            yield _entry(info, below)
        else:
            skipped[why] += 1


def _walk_local(
    root: str, prefix: str, skipped: Counter[str], exclude: Sequence[str], own: str | None
) -> Iterator[_Entry]:
    """What may be opened without surprise: regular files, links to such below the same root.

    A text or source file that links elsewhere could be anybody's file. Tables of records are often links into a store
    (the Hub's cache, DVC), and are read.
    """
    real_root = os.path.realpath(root)

    def unreadable(error: OSError) -> None:
        skipped["unreadable"] += 1

    for folder, folders, names in os.walk(root, onerror=unreadable):
        inside = posixpath.relpath(folder, root)
        folders[:] = [name for name in folders if not any(fnmatch.fnmatchcase(name, p) for p in exclude)]
        if own is not None:
            kept = [n for n in folders if posixpath.normpath(posixpath.join(real_root, inside, n)) != own]
            skipped["own output"] += len(folders) - len(kept)
            folders[:] = kept
        for name in folders:
            path = posixpath.join(folder, name)
            if os.path.islink(path) and not _is_below(os.path.realpath(path), real_root):
                skipped["link outside"] += 1
        for name in names:
            path = posixpath.join(folder, name)
            below = posixpath.normpath(posixpath.join(prefix, inside, name))
            if _excluded(below, exclude):
                continue
            try:
                status = os.stat(path)
                target = os.path.realpath(path) if os.path.islink(path) else None
            except OSError:
                skipped["unreadable"] += 1
                continue
            if target is not None and not _is_below(target, real_root) and not _is_table(name):
                skipped["link outside"] += 1
            elif target is not None and own is not None and _is_below(target, own):
                skipped["own output"] += 1
            elif not stat.S_ISREG(status.st_mode):
                skipped["not a file"] += 1
            elif not _is_utf8(below):
                skipped["name not UTF-8"] += 1
            else:
                yield _Entry(path, below, status.st_size, str(status.st_mtime_ns))
    skipped += Counter()  # drops what was counted zero times


def _own_output(fs: fsspec.AbstractFileSystem, place: str, output: str | None) -> str | None:
    """Path of the corpus folder if it is on the filesystem of an input; none if the input was named inside it."""
    if output is None:
        return None
    try:
        other, path = files.filesystem(output)
    except (ValueError, ImportError):  # to be told by who opens it
        return None
    if type(other) is not type(fs):
        return None
    if isinstance(fs, LocalFileSystem):
        path, place = os.path.realpath(path), os.path.realpath(place)
    path, place = path.rstrip("/"), place.rstrip("/")
    return None if place != path and _is_below(place, path) else path


def _why_not(fs: fsspec.AbstractFileSystem, path: str, below: str, own: str | None) -> str | None:
    """Why a file or folder is left alone, if it is."""
    local = isinstance(fs, LocalFileSystem)
    if own is not None and _is_below(os.path.realpath(path) if local else path, own):
        return "own output"
    if not _is_utf8(below):
        return "name not UTF-8"
    if local:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return "unreadable"
        return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "not a file"
    return None


def _is_table(name: str) -> bool:
    found = formats.recognise(name, "auto")
    return found is not None and found[0] in formats.RECORDS.values()


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _is_utf8(name: str) -> bool:
    """Whether a name can be written down: Linux allows any bytes in one."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _excluded(below: str, exclude: Sequence[str]) -> bool:
    """Whether a pattern matches the place or the name of a file below the input, or of a folder it is in."""
    parts = below.split("/")
    places = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude for name in (*parts, *places))


def _entry(info: dict[str, Any], below: str) -> _Entry:
    stamp = next((str(info[name]) for name in STAMPS if info.get(name) is not None), "")
    return _Entry(str(info["name"]), below, int(info["size"] or 0), stamp)


def _dataset_files(
    fs: fsspec.AbstractFileSystem, names: dict[str, _Entry], skipped: Counter[str], named: str, *, is_input: bool
) -> list[_Entry]:
    """The Arrow files of a `save_to_disk` folder, as its `state.json` lists them.

    A list that is damaged or names files that are not there is an error if the folder is what the user named. Anywhere
    below, it is counted, and every Arrow file of the folder is read by itself: one folder does not stop a thousand.
    """
    place = posixpath.dirname(names["state.json"].path)
    remedy = "save the dataset again with `dataset.save_to_disk(…)`"
    try:
        state = json.loads(fs.cat_file(names["state.json"].path))
        listed = [posixpath.basename(item["filename"]) for item in state["_data_files"]]
        missing = [name for name in listed if name not in names]
        fault = f"names files that are not there: {', '.join(missing)}" if missing else None
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        state, fault = {}, f"cannot be read ({error!r})"
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(
            f"{named}: {place} has an indices mapping (it was saved after select, shuffle or filter), so its Arrow "
            f"files do not hold the dataset's rows: call `dataset.flatten_indices()` and {remedy}"
        )
    if fault is not None:
        if is_input:
            raise InputError(f"{named}: {place}/state.json {fault}; {remedy}")
        skipped["damaged state.json"] += 1
        listed = [name for name in names if formats.ending(name) == ".arrow"]
    for name in names:
        if name not in listed and name not in DATASET_FILES:
            skipped[formats.ending(name)] += 1
    return [names[name] for name in listed]


def _choose(
    fs: fsspec.AbstractFileSystem, entries: Iterable[_Entry], config: InputConfig, skipped: Counter[str], *,
    explicit: bool,
) -> Iterator[File]:  # fmt: skip
    for item in entries:
        joined = config.unit == "repository" and config.format == "auto"
        known = formats.recognise(item.path, "code" if joined else config.format, whatever=explicit and not joined)
        if known is None:
            skipped[formats.ending(item.path)] += 1
            continue
        local = isinstance(fs, LocalFileSystem)
        url = item.path if local else str(fs.unstrip_protocol(item.path))
        yield File(url=url, path=item.below, format=known[0], packing=known[1], size=item.size, stamp=item.stamp)


def _is_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    # Not `isdir`: over HTTP it looks for links in the file.
    return bool(fs.info(path)["type"] == "directory")


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _base(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))
