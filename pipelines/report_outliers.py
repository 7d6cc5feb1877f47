"""The documents that stand apart, read for the report: why each does, and how it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.pipelines.brief import Brief, briefs
from ropewalk.pipelines.cluster_words import phrase, words_of
from ropewalk.pipelines.report_data import Stages
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.gather import Gather

KINDS = {"far": "cosine with its centroid", "unlike": "cosine with its centroid", "lonely": "best neighbour at cosine"}
ZERO = "zero vector: no words to go by"


@dataclass
class Outlier:
    """A document that stands apart.

    Attributes:
        document: What is known of it.
        why: What is odd about it.
        words: Telling words of its cluster.
    """

    document: Brief
    why: str
    words: str


def outliers(
    corpus: CorpusDir, stages: Stages, reasons: Mapping[int, Sequence[tuple[str, float]]], spare: Mapping[int, str]
) -> list[Outlier]:
    """Reads the documents to show.

    Args:
        corpus: The corpus.
        stages: The stages that count.
        reasons: Why each stands apart, by address: see `report_apart.Apart`.
        spare: Words of clusters, for a corpus whose clusters have no names of their own.
    """
    if not reasons:
        return []
    vectors = Gather(corpus, "embed", ["vector"]).rows(np.array(list(reasons), np.uint64)).column(0)
    documents = briefs(corpus, stages, list(reasons))
    names = words_of(corpus, {one.cluster for one in documents if one.cluster is not None})
    found = []
    for one, vector in zip(documents, vectors, strict=True):
        is_zero = vector.is_valid and not pc.any(pc.not_equal(vector.values.cast(pa.float32()), 0)).as_py()
        why = "; ".join(f"{KINDS[kind]} {cosine:.3f}" for kind, cosine in reasons[one.address])
        words = ""
        if one.cluster is not None and not is_zero:
            words = phrase(names[one.cluster]) if one.cluster in names else spare.get(one.cluster, "")
        found.append(Outlier(one, ZERO if is_zero else why.replace("-", "\u2212"), words))
    return found
