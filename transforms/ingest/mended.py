"""Mended records: dead letters that were put right, and are read with the inputs from then on.

    corpus/mended/<source>-<hash>.jsonl   the records, a line each
    corpus/mended/<source>-<hash>.json    what input they belong to, and which dead letters they answer; written last

The hash is that of the content, so what is fed in twice is there once. The record in the original input is rejected
again by every later run, and counts as such; the mended one counts as a record of its own. To take mended records back
remove their two files. Those of a source that the recipe no longer has are not read, and counted as skipped.

A record that is corrected in the original input as well is there twice, with one id: ingest cannot know it before it
has read both. The command line says so after each run (`retry_rejects.show_state`), and which files to remove.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import xxhash
from pydantic import BaseModel, ConfigDict

from ropewalk.schemas import files
from ropewalk.schemas.manifest import canonical_json, fingerprint
from ropewalk.schemas.recipe import InputConfig

FOLDER = "mended"
_ENDING = ".json"


class Mended(BaseModel):
    """One file of mended records.

    Attributes:
        source: Name of the source they belong to.
        text: Field that holds the document.
        id: Field that holds a key.
        url: Field that holds the address.
        letters: Keys of the dead letters they answer, see `letter_key`; one a line of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    text: str
    id: str
    url: str
    letters: tuple[str, ...]


def letter_key(row: Mapping[str, Any]) -> str:
    """What names a dead letter (a row of `tables.REJECTS`): its place, its fault and its bytes."""
    payload = xxhash.xxh3_128_hexdigest(row["payload"] or b"")
    return fingerprint([row["source"], row["path"], row["line"], row["byte_offset"], row["reason"], payload])


def read_mended(output: str) -> dict[str, Mended]:
    """All files of mended records of a corpus folder, by URL."""
    folder = files.join(output, FOLDER)
    found = {}
    for name in files.names(folder):
        if name.endswith(_ENDING):
            about = Mended.model_validate(json.loads(files.read_bytes(files.join(folder, name)) or b"{}"))
            found[files.join(folder, f"{name.removesuffix(_ENDING)}.jsonl")] = about
    return found


def mended_inputs(output: str, sources: Collection[str]) -> tuple[list[InputConfig], int]:
    """An input for each file of mended records of these sources, and how many files belong to others."""
    every = read_mended(output)
    found = [
        InputConfig(path=url, source=about.source, format="jsonl", text=about.text, id=about.id, url=about.url)
        for url, about in every.items()
        if about.source in sources
    ]
    return found, len(every) - len(found)


def answered(output: str) -> set[str]:
    """Keys of the dead letters that have been answered."""
    return {letter for about in read_mended(output).values() for letter in about.letters}


def write_mended(output: str, about: Mended, records: Sequence[bytes]) -> str:
    """Writes a file of mended records, one line each; returns its URL."""
    data = b"".join(record + b"\n" for record in records)
    description = canonical_json(about.model_dump(mode="json")).encode()
    name = re.sub(r"[^\w.-]+", "-", about.source, flags=re.ASCII)[:40] or "source"
    url = files.join(output, FOLDER, f"{name}-{xxhash.xxh3_128_hexdigest(description + data)}")
    files.write_bytes(f"{url}.jsonl", data)
    files.write_bytes(f"{url}{_ENDING}", description)
    return f"{url}.jsonl"
