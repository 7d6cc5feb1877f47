"""The words of clusters, read from where stage `cluster` left them (`transforms.cluster_terms`), without its Beam."""

import itertools
from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import files
from ropewalk.transforms.corpus_dir import CorpusDir

FILE = "terms.arrow"
SHOWN = 5
"""Words that a cluster is called by."""


def words_of(corpus: CorpusDir, clusters: Collection[int]) -> dict[int, list[str]]:
    """The telling words of clusters, best first; empty where they were not looked for."""
    if not clusters or FILE not in files.names(corpus.folder("cluster")):
        return {}
    wanted = pa.array(sorted(set(clusters)), pa.uint32())
    found: dict[int, list[str]] = {}
    for batch in files.open_arrow(files.join(corpus.folder("cluster"), FILE)):
        for row in batch.select(["cluster", "terms"]).filter(pc.is_in(batch.column("cluster"), wanted)).to_pylist():
            found[row["cluster"]] = row["terms"] or []
    return found


def phrase(words: Iterable[str]) -> str:
    """The first words of a cluster, as one text."""
    return ", ".join(itertools.islice(words, SHOWN))
