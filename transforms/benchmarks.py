"""Items of benchmarks: their texts, answers and names, from any file of records."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ropewalk.schemas import files
from ropewalk.schemas.benchmarks import BENCHMARKS
from ropewalk.schemas.decontaminate import BenchmarkConfig
from ropewalk.schemas.recipe import InputConfig, source_name
from ropewalk.transforms.ingest import formats
from ropewalk.transforms.ingest.listing import File, InputError, list_input
from ropewalk.transforms.ingest.streams import Stream, open_file

ROWS = 256
"""Rows of a table that are turned into objects at a time: a context can be a megabyte."""
_TOO_LONG = "a number of too many digits: put it in quotes"


class BenchmarkError(InputError):
    """A benchmark that cannot be read as the recipe says; the message names it and the remedy."""


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Attributes:
        name: What it calls itself, or its number in the benchmark.
        texts: Its texts but for the answers.
        answers: Its answers.
    """

    name: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A benchmark that has been found.

    Attributes:
        name: What the report calls it.
        files: Its files, in order.
        fields: Dotted names of the fields to read; none for all.
        answers: Those of the answers.
        id: That of the item's name.
    """

    name: str
    files: tuple[File, ...]
    fields: tuple[str, ...]
    answers: tuple[str, ...]
    id: str


def find_benchmark(config: BenchmarkConfig) -> Source:
    """Finds the files of a benchmark.

    Raises:
        BenchmarkError: If there are none that hold records, or it is known by name and cannot be reached.
    """
    by_path = BENCHMARKS.get(config.path.lower())
    known = BENCHMARKS.get((config.name or "").lower()) or by_path
    path = config.path
    if by_path is not None and not _exists(path):
        if by_path.url is None:
            raise BenchmarkError(
                f"benchmark {path!r}: no plain file to read; {by_path.how}, and set `path` to it and `name: {path}`"
            )
        path = by_path.url
    try:
        listed, _ = list_input(InputConfig(path=path))
    except InputError as error:
        if by_path is None:
            raise BenchmarkError(str(error).replace("input ", "benchmark ", 1)) from None
        raise _unreachable(config.path, path, error) from None
    except Exception as error:  # whatever a filesystem without its network raises
        if by_path is None:
            raise BenchmarkError(f"benchmark {path!r}: {type(error).__name__}: {error}; copy its files here") from None
        raise _unreachable(config.path, path, error) from None
    found = tuple(file for file in listed if file.format in formats.RECORDS.values())
    if not found:
        others = ", ".join(sorted({file.format for file in listed}))
        raise BenchmarkError(
            f"benchmark {path!r}: holds {others} only: items are read from JSONL, JSON, Parquet and Arrow files"
        )
    name = config.name or (config.path if by_path else source_name(InputConfig(path=path)))
    fields, answers = config.fields, config.answers
    if known is not None and not fields:
        fields, answers = known.fields, answers or known.answers
    return Source(name, found, fields, answers, known.id if known is not None and config.id == "id" else config.id)


def find_benchmarks(configs: Sequence[BenchmarkConfig]) -> list[Source]:
    """Finds all benchmarks of a recipe, see `find_benchmark`.

    Raises:
        BenchmarkError: Also if two go by the same name.
    """
    sources = [find_benchmark(config) for config in configs]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BenchmarkError(f"benchmarks: two are called {twice!r}: set `name` of one of them")
    return sources


def _exists(path: str) -> bool:
    fs, place = files.filesystem(path)
    return bool(fs.exists(place))


def _unreachable(name: str, url: str, error: Exception) -> BenchmarkError:
    return BenchmarkError(
        f"benchmark {name!r}: {url} cannot be read ({type(error).__name__}: {error}). Without the network, copy its "
        f"files here and set `path` to them and `name: {name}`"
    )


def fingerprint(source: Source) -> str:
    """Hash of the bytes of all files of a benchmark, 32 hex digits."""
    digest = xxhash.xxh3_128()
    for file in source.files:
        with open_file(file.url) as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
        digest.update(file.path.encode())
    return digest.hexdigest()


def read_items(source: Source) -> Iterator[Item]:
    """Reads a benchmark's items, file by file.

    Raises:
        BenchmarkError: If a file is damaged, there is no item, or no item has a field that was asked for.
    """
    wanted = {*source.fields, *source.answers}
    seen: set[str] = set()
    known: dict[str, None] = {}
    number = -1
    for file in source.files:
        for key, record in _records(file):
            number += 1
            values = {path: list(_strings(_at(record, path.split(".")))) for path in wanted}
            seen.update(path for path, found in values.items() if found)
            known.update(dict.fromkeys(list(record)[:100]))
            name = next((v for v in _at(record, source.id.split(".")) if isinstance(v, str | int)), key)
            if source.fields:
                texts = [text for path in source.fields for text in values[path]]
            else:
                texts = list(_strings([record], skip={*source.answers, source.id}))
            answers = [text for path in source.answers for text in values[path]]
            yield Item(_whole(str(number if name is None else name)), tuple(texts), tuple(answers))
    if number < 0:
        raise BenchmarkError(f"benchmark {source.name!r}: {source.files[0].url} and its like hold no items")
    missing = sorted(wanted - seen)
    if missing:
        raise BenchmarkError(
            f"benchmark {source.name!r}: no item has text in {', '.join(map(repr, missing))}; its fields are "
            f"{', '.join(known)}. Correct `fields` and `answers` (`a.b` is field b of the object, or objects, in a)"
        )


def _at(value: Any, path: list[str]) -> list[Any]:
    """The values at a dotted name; lists on the way are gone through."""
    if isinstance(value, list):
        return [found for inner in value for found in _at(inner, path)]
    if not path:
        return [] if value is None else [value]
    if isinstance(value, dict):
        dotted = ".".join(path)  # a name may hold a dot itself
        return _at(value[dotted], []) if dotted in value else _at(value.get(path[0]), path[1:])
    return []


def _strings(values: Iterable[Any], skip: Iterable[str] = (), at: str = "") -> Iterator[str]:
    """All strings in objects and lists, depth first; `skip` names fields to leave out."""
    for value in values:
        if isinstance(value, str):
            if value:
                yield _whole(value)
        elif isinstance(value, list):
            yield from _strings(value, skip, at)
        elif isinstance(value, dict):
            for name, inner in value.items():
                path = f"{at}.{name}" if at else str(name)
                if path not in skip:
                    yield from _strings([inner], skip, path)


def _whole(text: str) -> str:
    """A text without the half characters that JSON can hold."""
    return text.encode("utf-8", "replace").decode()


def _records(file: File) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Objects of a file, each with its key if the file has keys."""
    try:
        if file.format == "parquet":
            with open_file(file.url) as opened:
                for batch in pq.ParquetFile(pa.PythonFile(opened, "r")).iter_batches(ROWS):
                    yield from ((None, row) for row in batch.to_pylist())
        elif file.format == "arrow":
            for batch in _arrow_batches(file):
                for start in range(0, batch.num_rows, ROWS):
                    yield from ((None, row) for row in batch.slice(start, ROWS).to_pylist())
        else:
            yield from _json_records(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError) as error:
        raise BenchmarkError(f"benchmark file {file.url}: cannot be read: {error}; copy it again") from None


def _arrow_batches(file: File) -> Iterator[pa.RecordBatch]:
    with open_file(file.url) as opened:
        source = pa.PythonFile(opened, "r")
        if opened.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            opened.seek(0)
            yield from pa.ipc.open_stream(source)


def _json_records(file: File) -> Iterator[tuple[str | None, dict[str, Any]]]:
    with open_file(file.url) as opened:
        stream = Stream(opened, file.packing)
        data = b"".join(iter(lambda: stream.read(1 << 20), b""))
    if stream.damage is not None:
        raise BenchmarkError(f"benchmark file {file.url}: {stream.damage}")
    text = data.decode("utf-8-sig")
    if file.format == "json":
        try:
            yield from _objects(json.loads(text), file.url)
            return
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # else JSON lines under the name of JSON
                raise BenchmarkError(f"benchmark file {file.url}, line {error.lineno}: not JSON: {error.msg}") from None
        except ValueError as error:
            raise BenchmarkError(f"benchmark file {file.url}: {_TOO_LONG}: {error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise BenchmarkError(f"benchmark file {file.url}, line {number}: not JSON: {error.msg}") from None
        except ValueError as error:
            raise BenchmarkError(f"benchmark file {file.url}, line {number}: {_TOO_LONG}: {error}") from None
        if not isinstance(value, dict):
            raise BenchmarkError(
                f"benchmark file {file.url}, line {number}: an item is an object, got {type(value).__name__}"
            )
        yield None, value


def _objects(value: Any, url: str) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Items of a JSON file: a list, the one list in an object, objects by name, or one object."""
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
        if len(lists) == 1:
            value = lists[0]
        elif value and all(isinstance(inner, dict) for inner in value.values()):
            yield from value.items()
            return
        else:
            value = [value]
    if not isinstance(value, list) or not all(isinstance(inner, dict) for inner in value):
        raise BenchmarkError(f"benchmark file {url}: not a list of objects: put one object a line, or in a list")
    yield from ((None, inner) for inner in value)
