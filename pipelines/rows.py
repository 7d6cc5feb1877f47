"""Single rows of a corpus folder, found by id or number: what `inspect` and `explain` look at."""

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import files
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir

Place = tuple[int, int]
"""Shard, and row in it."""
SUGGESTIONS = 8
"""Ids that an error names."""
ALIKE = 4096
"""Documents of one id, or of one beginning of an id, that are looked at."""


def folders(corpus: CorpusDir, group: str) -> list[str]:
    """Folders of a group (`columns`, `sequences`, `rejects`), as paths below the corpus."""
    return [f"{group}/{name}" for name in files.names(files.join(corpus.url, group))]


def fetch(corpus: CorpusDir, table: str, place: Place) -> dict[str, Any]:
    """One row of a table, by column.

    Raises:
        RuntimeError: If the shard ends before it.
    """
    shard, row = place
    for batch in files.open_arrow(files.join(corpus.folder(table), corpus.file_names[shard])):
        if row < batch.num_rows:
            return dict(batch.slice(row, 1).to_pylist()[0])
        row -= batch.num_rows
    raise RuntimeError(f"{table}: shard {shard} has fewer rows than its manifest says")


def places(corpus: CorpusDir, ids: Collection[str]) -> dict[str, Place]:
    """Where documents are, by id; those that are not there are left out."""
    wanted, found = set(ids), dict[str, Place]()
    for id_, place in _scan(corpus, wanted):
        found[id_] = place
        if len(found) == len(wanted):
            break
    return found


def every_place(corpus: CorpusDir, ids: Collection[str]) -> dict[str, list[Place]]:
    """All places of documents, by id: copies of a text without a key share theirs."""
    found: dict[str, list[Place]] = {}
    for id_, place in _scan(corpus, ids):
        found.setdefault(id_, []).append(place)
    return found


def _scan(corpus: CorpusDir, ids: Collection[str]) -> Iterator[tuple[str, Place]]:
    wanted = pa.array(sorted(set(ids)), pa.string())
    for shard in range(len(corpus.file_names)):
        row = 0
        for batch in files.open_arrow(files.join(corpus.folder(DOCUMENTS), corpus.file_names[shard])):
            for hit in pc.indices_nonzero(pc.is_in(batch.column("id"), wanted)).to_pylist():
                yield batch.column("id")[hit].as_py(), (shard, row + hit)
            row += batch.num_rows


def named(corpus: CorpusDir, id: str) -> tuple[str, list[Place]]:
    """The documents meant by an id, or by the beginning of one: the whole id, and their places.

    Raises:
        RecipeError: If there is no such document, or if several ids begin so.
    """
    every = starting(corpus, id, most=ALIKE) if id else []
    names = sorted({name for name, _ in every})
    if id in names or len(names) == 1:
        name = id if id in names else names[0]
        return name, [place for other, place in every if other == name]
    if names:
        more = f" and {len(names) - SUGGESTIONS:,} more" if len(names) > SUGGESTIONS else ""
        raise RecipeError(f"{id}: several ids begin so: {', '.join(names[:SUGGESTIONS])}{more}; give more of it")
    near = ""
    for length in range(min(len(id), 16) - 1, 2, -1):
        close = sorted({name for name, _ in starting(corpus, id[:length], most=SUGGESTIONS)})
        if close:
            near = f"; some begin alike: {', '.join(close)}"
            break
    raise RecipeError(
        f"{id or 'an empty id'}: no such document in {corpus.url}{near}; ids are 32 hex digits, of which a "
        "unique beginning will do (the source's own key is in `metadata`); `ropewalk inspect DIR --row 0` shows one"
    )


def starting(corpus: CorpusDir, prefix: str, *, most: int) -> list[tuple[str, Place]]:
    """The first documents whose id starts with `prefix`: id and place."""
    found: list[tuple[str, Place]] = []
    for shard in range(len(corpus.file_names)):
        row = 0
        for batch in files.open_arrow(files.join(corpus.folder(DOCUMENTS), corpus.file_names[shard])):
            for hit in pc.indices_nonzero(pc.starts_with(batch.column("id"), prefix)).to_pylist():
                found.append((batch.column("id")[hit].as_py(), (shard, row + hit)))
                if len(found) == most:
                    return found
            row += batch.num_rows
    return found
