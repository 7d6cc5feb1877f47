"""Splits: the inputs cut into equal pieces of work, each of which becomes one shard of the row space.

Small files share a split, JSON Lines files that are larger than a split are cut in byte ranges (a range owns the lines
that start in it), packed files are never cut, nor are repositories. The result depends on the recipe and on what lies
in the inputs, not on the order in which either is listed. Mended records of the corpus folder are inputs, too.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from ropewalk.schemas.recipe import InputConfig, Recipe, source_name
from ropewalk.transforms.ingest.listing import File, list_input
from ropewalk.transforms.ingest.mended import mended_inputs

MENDED_SKIPPED = "mended (source not in the recipe)"
"""Why a file of mended records is not read, among the reasons of `Plan.skipped`."""
OPENING_COST = 4096
"""Bytes that every file weighs beyond its size: a split of tiny files should not hold a million of them."""


class Piece(BaseModel):
    """A file, or the range [start, stop) of its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: File
    start: int = 0
    stop: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes to be read."""
        return (self.file.size if self.stop is None else self.stop) - self.start


class Split(BaseModel):
    """Work that one worker does in one go. Small, and JSON-able so that it can travel as a plain string."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: InputConfig
    source: str
    pieces: tuple[Piece, ...]
    limit: int | None = None
    skipped: dict[str, int] = {}
    """Files that were found but not read, by ending or reason; on the first split of an input."""
    mended: bool = False
    """Whether these are dead letters put right, see `mended`."""


@dataclass(frozen=True)
class Plan:
    """All splits, and what they add up to.

    Attributes:
        splits: Position is the shard number.
        files: Files to be read.
        bytes: Bytes to be read, as they are stored.
        skipped: Files that were found but not read, by ending or reason.
        listing: What the result depends on: (source, path, size, time stamp or tag) of every file.
    """

    splits: tuple[Split, ...]
    files: int
    bytes: int
    skipped: dict[str, int]
    listing: list[list[str]] = field(repr=False)


def plan_splits(recipe: Recipe) -> Plan:
    """Lists the inputs of a recipe and cuts them into splits.

    Raises:
        InputError: If an input does not exist, matches nothing, or holds nothing readable.
    """
    found = []
    for entry in recipe.input:
        listed, skipped = list_input(entry, recipe.output)
        found.append((source_name(entry), entry, listed, skipped))
    mended, others = mended_inputs(recipe.output, {source for source, *_ in found})
    found += [(source_name(entry), entry, *list_input(entry)) for entry in mended]
    found.sort(key=lambda item: (item[0], item[1].path, item[1].model_dump_json()))
    if others:
        found[0][3][MENDED_SKIPPED] = others
    splits: list[Split] = []
    for source, entry, listed, skipped in found:
        groups = _cut(listed, recipe.ingest.shard_bytes) if recipe.ingest.limit is None else [_whole(listed)]
        for number, pieces in enumerate(groups):
            kept = skipped if number == 0 else {}
            splits.append(Split(
                input=entry, source=source, pieces=tuple(pieces), limit=recipe.ingest.limit, skipped=dict(kept),
                mended=entry in mended,
            ))  # fmt: skip
    every = [(source, file) for source, _, listed, _ in found for file in listed]
    return Plan(
        splits=tuple(splits),
        files=len(every),
        bytes=sum(file.size for _, file in every),
        skipped=dict(sorted(sum((Counter(skipped) for *_, skipped in found), Counter()).items())),
        listing=[[source, file.url, str(file.size), file.stamp] for source, file in every],
    )


def _whole(listed: Sequence[File]) -> list[Piece]:
    return [Piece(file=file) for file in listed]


def _cut(listed: Sequence[File], shard_bytes: int) -> Iterator[list[Piece]]:
    """Groups files up to `shard_bytes`; files of a repository stay together."""
    group: list[Piece] = []
    weight = 0
    for _, together in itertools.groupby(enumerate(listed), key=lambda item: item[1].repository or item[0]):
        unit = [file for _, file in together]
        size = sum(file.size for file in unit)
        cost = size + OPENING_COST * len(unit)
        if group and weight + cost > shard_bytes:
            yield group
            group, weight = [], 0
        if size > shard_bytes and unit[0].format == "jsonl" and unit[0].packing is None:
            parts = -(-size // shard_bytes)
            borders = [size * part // parts for part in range(parts + 1)]
            for start, stop in itertools.pairwise(borders):
                yield [Piece(file=unit[0], start=start, stop=None if stop == size else stop)]
            continue
        group += _whole(unit)
        weight += cost
    if group:
        yield group
