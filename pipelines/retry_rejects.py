"""`ropewalk retry-rejects`: dead letters out to be mended, and mended records back in.

rejects/ingest  ->  rejects/mend.jsonl     one line a dead letter; a person or a program mends `record`
a mended file   ->  mended/                lines that are records now; the next run reads them with the inputs
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from rich.console import Console

from ropewalk.pipelines.terminal import shown
from ropewalk.schemas import files
from ropewalk.schemas.manifest import CorpusManifest, canonical_json
from ropewalk.schemas.recipe import InputConfig, Recipe, RecipeError, parse_recipe, source_name
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.ingest import formats, whole_files
from ropewalk.transforms.ingest.chunks import Chunk, Limits
from ropewalk.transforms.ingest.json_records import parse_chunk
from ropewalk.transforms.ingest.mended import Mended, answered, letter_key, read_mended, write_mended

MEND_FILE = "rejects/mend.jsonl"
FILE_BYTES = 64 << 20
"""Mended records of one file, about."""
SHOWN_FAULTS, SHOWN_CHARS = 20, 300


@dataclass(frozen=True)
class Letter:
    """A dead letter that nobody has answered.

    Attributes:
        key: What names it, see `mended.letter_key`.
        row: Its row of `tables.REJECTS`.
        record: The record as text, lossily decoded; none where there is none to mend, but a file.
        whole: Whether that is all of it.
    """

    key: str
    row: dict[str, Any]
    record: str | None
    whole: bool

    def line(self, record: object) -> bytes:
        """The letter as a line of the file to mend, with this record; half a surrogate pair as JSON escapes it."""
        about = {name: self.row[name] for name in ("reason", "detail", "path", "line", "byte_offset")}
        value = {"letter": self.key, "reject": about, "source": self.row["source"], "record": record}
        line = json.dumps(value | {"whole": self.whole}, ensure_ascii=False)
        return line.encode(errors="backslashreplace") + b"\n"


@dataclass
class Written:
    """What was written to be mended.

    Attributes:
        url: The file.
        letters: Dead letters in it.
        files: How many of them are about a file and not a record: mend the file.
        edited: How many lines were edited before, and kept as they are.
    """

    url: str
    letters: int = 0
    files: int = 0
    edited: int = 0


@dataclass
class Fed:
    """What came back.

    Attributes:
        records: Mended records that were taken.
        urls: The files they went to.
        unchanged: Lines whose record is as it was.
        answered: Lines whose dead letter had been answered before.
        corrected: Files of `mended/` that hold another record than lines do whose dead letter had been answered before,
            and how many of those lines; they are not taken.
        faults: Line number and what is wrong, for the lines that were not taken.
    """

    records: int = 0
    urls: list[str] = field(default_factory=list)
    unchanged: int = 0
    answered: int = 0
    corrected: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)

    @property
    def all_wrong(self) -> bool:
        """Whether there were lines, and every one is at fault."""
        return bool(self.faults or self.corrected) and not (self.records or self.unchanged or self.answered)


def letters(url: str) -> Iterator[Letter]:
    """The dead letters of a corpus that have not been answered, in their order.

    Raises:
        FileNotFoundError: If `url` is not a corpus.
        RecipeError: If there is no recipe in it.
    """
    done = answered(url)
    return (letter for letter in _every_letter(url) if letter.key not in done)


def _every_letter(url: str) -> Iterator[Letter]:
    manifest, recipe = _opened(url)
    limit = int(manifest.ingest.config.get("payload_limit", recipe.ingest.payload_limit))
    entries = _entries(recipe)
    folder = files.join(url, "rejects", "ingest")
    for name in files.names(folder):
        if not name.endswith(".arrow"):
            continue
        for batch in files.open_arrow(files.join(folder, name)):
            for number in range(batch.num_rows):
                row = batch.slice(number, 1).to_pylist()[0]
                record, whole = _record(row, entries.get(row["source"], []), limit)
                yield Letter(letter_key(row), row, record, whole)


def write_letters(url: str) -> Written:
    """Writes `rejects/mend.jsonl`: every open dead letter. Lines of an earlier one that were edited stay as they are.

    Raises:
        FileNotFoundError: If `url` is not a corpus.
        RecipeError: If an earlier file cannot be read, or there is no recipe.
    """
    written = Written(files.join(url, MEND_FILE))
    fs, path = files.filesystem(written.url)
    before: dict[str, int] = {}
    """Where the lines of an earlier file start: the records themselves may be large."""
    with contextlib.ExitStack() as stack:
        earlier = stack.enter_context(fs.open(path, "rb")) if fs.exists(path) else None
        start = 0
        for number, line in enumerate(earlier or (), 1):
            if line.strip():
                value = _parsed(line)
                if isinstance(value, str):
                    raise RecipeError(f"{written.url}, line {number}: {value}; mend the line, or remove the file")
                before[value["letter"]] = start
            start += len(line)
        sink = stack.enter_context(files.atomic(written.url))
        for letter in letters(url):
            record: object = letter.record
            if earlier is not None and letter.key in before:
                earlier.seek(before[letter.key])
                record = json.loads(earlier.readline())["record"]
            written.letters += 1
            written.files += letter.record is None
            written.edited += record != letter.record
            sink.write(letter.line(record))
    if not written.letters:
        files.remove(written.url)
    return written


def feed(url: str, mended: str) -> Fed:
    """Takes back a file as `write_letters` writes it: lines whose record is one now go to `mended/`.

    Args:
        url: The corpus folder.
        mended: The file.

    Raises:
        FileNotFoundError: If there is no such file, or `url` is not a corpus.
        RecipeError: If there is no recipe, or `mended` is a folder.
    """
    _, recipe = _opened(url)
    fs, path = files.filesystem(mended)
    if fs.isdir(path):
        raise RecipeError(
            f"--mended {mended}: this is a folder; give the mended file itself, as {files.join(url, MEND_FILE)} is one"
        )
    entries, done = _entries(recipe), _taken(url)
    limits = Limits(recipe.ingest.max_record_bytes, recipe.ingest.payload_limit)
    known = {letter.key: (letter.row["source"], _hash(letter.record)) for letter in _every_letter(url)}
    fed = Fed()
    waiting: dict[tuple[str, str, str, str], dict[str, bytes]] = {}
    new: dict[str, bytes] = {}
    size = 0
    for number, line in _lines(mended):
        value = _parsed(line)
        if isinstance(value, str):
            fed.faults.append((number, value))
            continue
        key, record = value["letter"], value["record"]
        same = key in known and _hash(record) == known[key][1]
        if key in done:
            file, taken = done[key]
            if same or xxhash.xxh3_128_digest(_one_line(record)) == taken:
                fed.answered += 1
            else:
                fed.corrected[file] = fed.corrected.get(file, 0) + 1
        elif key not in known:
            fed.faults.append((number, "no such dead letter: the input has changed since; run `retry-rejects` again"))
        elif same:
            fed.unchanged += 1
        elif key in new:
            if new[key] == _hash(record):
                fed.answered += 1
            else:
                fed.faults.append((number, "an earlier line of this file mends the same dead letter: keep one of them"))
        else:
            source = known[key][0]
            entry, data = _accepted(record, entries.get(source, []), limits)
            if entry is None:
                fed.faults.append((number, data.decode()))
                continue
            new[key] = _hash(record)
            waiting.setdefault((source, entry.text, entry.id, entry.url), {})[key] = data
            size += len(data)
            if size > FILE_BYTES:
                _flush(url, waiting, fed)
                size = 0
    _flush(url, waiting, fed)
    return fed


def _flush(url: str, waiting: dict[tuple[str, str, str, str], dict[str, bytes]], fed: Fed) -> None:
    for (source, text, id_, address), group in sorted(waiting.items()):
        about = Mended(source=source, text=text, id=id_, url=address, letters=tuple(group))
        fed.urls.append(write_mended(url, about, list(group.values())))
        fed.records += len(group)
    waiting.clear()


def show_written(written: Written, url: str, console: Console) -> None:
    """Says what is to be done now."""
    if not written.letters:
        console.print("There is no dead letter to mend.")
        return
    edited = f", {written.edited:,} of them edited before" if written.edited else ""
    console.print(f"{written.letters:,} dead letters{edited}: [bold]{shown(written.url)}[/]")
    if written.files:
        console.print(
            f"{written.files:,} of them are about whole files (`record` is null): mend the files, and run the recipe."
        )
    if written.files < written.letters:
        console.print("Mend each `record` (text of the record, or the record itself as JSON), then")
        console.print(f"[bold]ropewalk retry-rejects {shown(url)} --mended {shown(written.url)}[/]")
        console.print("Where `whole` is false the record is longer than what was kept: complete it.")


def show_fed(fed: Fed, console: Console) -> None:
    """Says what was taken, and what is wrong with the rest."""
    console.print(f"{fed.records:,} mended records taken" + "".join(f"\n  {shown(url)}" for url in fed.urls))
    if fed.answered:
        console.print(f"{fed.answered:,} lines had been taken before")
    if fed.unchanged:
        console.print(f"{fed.unchanged:,} lines are unchanged, and stay dead letters")
    if fed.corrected:
        count = sum(fed.corrected.values())
        console.print(f"{count:,} lines differ from the record that was taken before, and are not taken. To replace it")
        console.print("remove these files, and give the mended file again: its other records are taken again, too.")
        _print_files(fed.corrected, console)
    for number, fault in fed.faults[:SHOWN_FAULTS]:
        console.print(shown(f"line {number}: {fault[:SHOWN_CHARS]}"), highlight=False)
    if len(fed.faults) > SHOWN_FAULTS:
        console.print(f"and {len(fed.faults) - SHOWN_FAULTS:,} more lines with faults")


def show_state(url: str, console: Console) -> None:
    """Says after a run what of `mended/` should not be as it is: records of a lost source, or of a changed input.

    A mended record whose dead letter did not come back is in the corpus twice, with one id, if it was corrected in the
    original input as well; if its line has only moved, its dead letter is open again and may be mended again. Only the
    user can tell. With `ingest.limit` dead letters are cut off, and say nothing.
    """
    every = read_mended(url)
    if not every:
        return
    _, recipe = _opened(url)
    sources = _entries(recipe).keys()
    lost = {file: len(about.letters) for file, about in every.items() if about.source not in sources}
    if lost:
        console.print(f"{sum(lost.values()):,} mended records are not read: their source is not in the recipe.")
        _print_files(lost, console)
    if recipe.ingest.limit is not None:
        return
    there = {letter.key for letter in _every_letter(url)}
    counts = {file: sum(key not in there for key in about.letters) for file, about in every.items() if file not in lost}
    gone = {file: count for file, count in counts.items() if count}
    if gone:
        console.print(
            f"[bold]Careful:[/] {sum(gone.values()):,} mended records answer dead letters that did not come back: "
            "their input has changed. What was corrected there is in the corpus twice now. If so, remove these files, "
            "run the recipe again, and mend what `retry-rejects` then still finds."
        )
        _print_files(gone, console)


def _print_files(counts: dict[str, int], console: Console) -> None:
    for file, count in sorted(counts.items()):
        both = f"{file} and {os.path.basename(file).removesuffix('l')}"
        console.print(shown(f"  {both} ({count:,} records)"), highlight=False)


def is_current(url: str) -> bool:
    """Whether the row space of a corpus is what its recipe would lay now, mended records included."""
    from ropewalk.pipelines.stages.ingest import ingest_key, plan_splits

    manifest, recipe = _opened(url)
    try:
        return manifest.ingest.key == ingest_key(recipe, plan_splits(recipe))
    except RecipeError:  # an input is gone: who runs the recipe is told
        return False


def absolute(url: str) -> str:
    """The same place, wherever this process goes, and by which links it is named."""
    return os.path.realpath(files.filesystem(url)[1]) if files.is_local(url) else url.rstrip("/")


@contextlib.contextmanager
def recipe_folder(url: str) -> Iterator[None]:
    """Goes to the folder from which the relative paths of a corpus' recipe count, for the time being.

    Raises:
        RecipeError: If that folder is not there any more, and there are such paths.
    """
    data = files.read_bytes(files.join(url, "recipe.folder"))
    folder = os.fsdecode(data) if data else os.getcwd()  # older corpora do not say
    if not os.path.isdir(folder):
        paths = [entry.path for entry in recipe_of(url).input]
        relative = [p for p in paths if "://" not in p and not os.path.isabs(os.path.expanduser(p))]
        if relative:
            raise RecipeError(f"{url}: its input {relative[0]!r} lay in {folder}, which is not there any more: "
                              "`ropewalk run` the recipe where its inputs are now")  # fmt: skip
        folder = os.getcwd()
    with contextlib.chdir(folder):
        yield


def recipe_of(url: str) -> Recipe:
    """The recipe that a corpus was made by, to run it again.

    Raises:
        RecipeError: If there is none, or this version does not understand it.
    """
    data = files.read_bytes(files.join(url, "recipe.json"))
    if data is None:
        raise RecipeError(f"{url}: no recipe.json here: run its recipe once more with this version")
    recipe = parse_recipe(json.loads(data), name=files.join(url, "recipe.json"))
    return recipe if absolute(recipe.output) == absolute(url) else recipe.model_copy(update={"output": url})


def _opened(url: str) -> tuple[CorpusManifest, Recipe]:
    manifest = CorpusDir.open(url).manifest()
    assert manifest is not None
    return manifest, recipe_of(url)


def _entries(recipe: Recipe) -> dict[str, list[InputConfig]]:
    found: dict[str, list[InputConfig]] = {}
    for entry in recipe.input:
        found.setdefault(source_name(entry), []).append(entry)
    return found


def _record(row: dict[str, Any], entries: list[InputConfig], limit: int) -> tuple[str | None, bool]:
    """What is there to mend of a dead letter, and whether it is all there was."""
    kinds = [formats.recognise(row["path"], entry.format, whatever=True) for entry in entries]
    form = next((kind[0] for kind in kinds if kind), "jsonl")
    payload = row["payload"]
    if payload is None or form in whole_files.FORMATS:
        return None, False
    text = payload.decode("utf-8", "replace")
    if form in ("parquet", "arrow"):  # only the text of the row was kept
        return json.dumps({(entries or [InputConfig(path="x")])[0].text: text}, ensure_ascii=False), False
    return text, len(payload) < limit


def _lines(url: str) -> Iterator[tuple[int, bytes]]:
    fs, path = files.filesystem(url)
    with fs.open(path, "rb") as source:
        for number, line in enumerate(source, 1):
            if line.strip():
                yield number, line


def _parsed(line: bytes) -> dict[str, Any] | str:
    """A line of the mended file, or what is wrong with it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(value, dict) or not isinstance(value.get("letter"), str) or "record" not in value:
        return "not a line of `retry-rejects`: it must be an object with `letter` and `record`"
    return value


def _accepted(record: object, entries: list[InputConfig], limits: Limits) -> tuple[InputConfig | None, bytes]:
    """The input that takes a record, and its bytes on one line; or none, and why the last one refused it."""
    data = _one_line(record)
    why = "its source is no longer in the recipe" if not entries else "the record is empty"
    for entry in entries if data else ():
        codes = np.frombuffer(data, np.uint8)
        chunk = Chunk(codes, np.array([0]), np.array([len(data)]), 0, lambda: 0)
        raw = parse_chunk(chunk, entry, "", limits)
        if len(raw.text):
            return entry, data
        why = f"{raw.rejects[0].reason}: {raw.rejects[0].detail}" if raw.rejects else "the record is empty"
    return None, why.encode(errors="backslashreplace")


def _one_line(record: object) -> bytes:
    """A record, text or JSON, as a line of JSON Lines without its end."""
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)
    # Between tokens a line end is a space; inside a string JSON allows none.
    return text.replace("\r", " ").replace("\n", " ").strip().encode(errors="surrogatepass")


def _hash(record: object) -> bytes:
    """Stands for a record as it was given: there may be very many, and large ones."""
    return xxhash.xxh3_128_digest(canonical_json(record).encode(errors="surrogatepass"))


def _taken(url: str) -> dict[str, tuple[str, bytes]]:
    """Of each dead letter that was answered: the file of the record that answers it, and a hash of its line."""
    found: dict[str, tuple[str, bytes]] = {}
    for file, about in read_mended(url).items():
        found |= {key: (file, b"") for key in about.letters}  # someone may have shortened the file
        for key, (_, line) in zip(about.letters, _lines(file), strict=False):
            found[key] = (file, xxhash.xxh3_128_digest(line.removesuffix(b"\n")))
    return found
