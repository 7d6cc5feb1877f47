"""The words of clusters, as stage `cluster` left them beside its columns (`terms.arrow`)."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import files
from ropewalk.transforms.corpus_dir import CorpusDir

FILE = "terms.arrow"
SHOWN = 5
"""Words that name a cluster."""


def words_of(corpus: CorpusDir, clusters: Collection[int]) -> dict[int, list[str]]:
    """The telling words of clusters, best first; empty if they were never found, or for a cluster without any."""
    if FILE not in files.names(corpus.folder("cluster")):
        return {}
    wanted = pa.array(sorted(set(clusters)), pa.uint32())
    found: dict[int, list[str]] = {}
    for batch in files.open_arrow(files.join(corpus.folder("cluster"), FILE)):
        rows = batch.select(["cluster", "terms"]).filter(pc.is_in(batch.column("cluster"), wanted))
        for row in rows.to_pylist():
            found[row["cluster"]] = list(row["terms"] or ())
    return found


def phrase(words: Collection[str]) -> str:
    """The first words, as one text."""
    return ", ".join(list(words)[:SHOWN])
