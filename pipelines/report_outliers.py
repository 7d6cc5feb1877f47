"""Documents that stand apart: those furthest from the centroid of their cluster, and those whose vector is zero."""

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


def outliers(corpus: CorpusDir, stages: Stages, addresses: Sequence[int], spare: Mapping[int, str]) -> list[Outlier]:
    """Reads the documents to show, in the order they were found in.

    Args:
        corpus: The corpus.
        stages: The stages that count.
        addresses: The documents.
        spare: Words of clusters, for a corpus whose clusters have no names of their own.
    """
    if not addresses:
        return []
    vectors = Gather(corpus, "embed", ["vector"]).rows(np.array(addresses, np.uint64)).column(0)
    documents = briefs(corpus, stages, addresses)
    names = words_of(corpus, {one.cluster for one in documents if one.cluster is not None})
    found = []
    for one, vector in zip(documents, vectors, strict=True):
        is_zero = vector.is_valid and not pc.any(pc.not_equal(vector.values.cast(pa.float32()), 0)).as_py()
        cosine = 1 - (one.distance or 0.0)
        why = "zero vector: no words to go by" if is_zero else f"cosine with its centroid {cosine:.3f}"
        words = ""
        if one.cluster is not None and not is_zero:
            words = phrase(names[one.cluster]) if one.cluster in names else spare.get(one.cluster, "")
        found.append(Outlier(one, why.replace("-", "\u2212"), words))
    return found
