"""Single rows of a corpus folder, found by id or number: what `inspect` and `explain` look at."""

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import files
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir

Place = tuple[int, int]
"""Shard, and row in it."""


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
    wanted, found = pa.array(sorted(set(ids)), pa.string()), {}
    for shard in range(len(corpus.file_names)):
        row = 0
        for batch in files.open_arrow(files.join(corpus.folder(DOCUMENTS), corpus.file_names[shard])):
            for hit in pc.indices_nonzero(pc.is_in(batch.column("id"), wanted)).to_pylist():
                found[batch.column("id")[hit].as_py()] = (shard, row + hit)
            row += batch.num_rows
        if len(found) == len(wanted):
            break
    return found


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
