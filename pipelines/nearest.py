"""The documents nearest to a vector, exactly: every vector of a corpus is looked at, shard by shard.

    out = the documents with the largest <q, v>, best first; equal ones by id, then by address

Vectors lie on the grid of `kernels.grid`, so each product is exact in float32, whatever batches the shards come in: the
result depends neither on the shards nor on the machine. Memory is one batch of vectors; ids are read only of rows that
are among the best so far.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ropewalk.schemas import address
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather
from ropewalk.transforms.vectors import to_matrix

Watch = Callable[[int], None]
"""Is told how many rows have been looked at, again and again."""


@dataclass(frozen=True)
class Near:
    """A document that was found.

    Attributes:
        address: Where it is.
        id: Its id.
        similarity: Its cosine with what was looked for.
    """

    address: int
    id: str
    similarity: float

    @property
    def order(self) -> tuple[float, str, int]:
        """Best first, ties by id, then by place."""
        return -self.similarity, self.id, self.address


def nearest(
    corpus: CorpusDir, query: np.ndarray, count: int, *, leave: int | None = None, watch: Watch = lambda rows: None
) -> tuple[list[Near], int]:
    """Scans the vectors of a corpus.

    Args:
        corpus: A corpus whose `embed` has run.
        query: A unit vector on the grid, float32[d].
        count: Documents wanted.
        leave: Address of the document the query is of: it is not looked at.
        watch: Is told of the progress.

    Returns:
        The nearest documents, fewer than `count` if there are no more; and how many have a vector.

    Raises:
        ValueError: If vectors of the corpus have another length than the query.
    """
    ids = Gather(corpus, DOCUMENTS, ["id"])
    best: list[Near] = []
    looked = rows = 0
    for shard in range(len(corpus.file_names)):
        for batch in corpus.read(shard, {"embed": ["vector"]}):
            rows += batch.num_rows
            watch(rows)
            present = batch.column("vector").is_valid().to_numpy(zero_copy_only=False)
            if leave is not None:
                present &= batch.column("address").to_numpy() != np.uint64(leave)
            column = batch.column("vector")
            vectors = to_matrix(column if present.all() else column.filter(pa.array(present)))
            if not len(vectors):
                continue
            looked += len(vectors)
            if vectors.shape[1] != len(query):
                raise ValueError(
                    f"shard {shard} has vectors of {vectors.shape[1]} values, the document's has {len(query)}: "
                    "columns/embed is of several runs, remove it and run the recipe again"
                )
            scores = np.vecdot(vectors, query)
            least = np.partition(scores, -count)[-count] if len(scores) > count else -np.inf
            least = max(least, best[-1].similarity) if len(best) == count else least
            chosen = scores >= least
            where = batch.column("address").to_numpy()[present][chosen]
            found = zip(where.tolist(), ids.rows(where).column("id").to_pylist(), scores[chosen].tolist(), strict=True)
            best = sorted(best + [Near(*one) for one in found], key=operator.attrgetter("order"))[:count]
    return best, looked


def vector_at(corpus: CorpusDir, places: list[tuple[int, int]]) -> tuple[int, np.ndarray] | None:
    """The first of several places (shard, row) that has a vector: its address, and the vector, float32[d]."""
    vectors = Gather(corpus, "embed", ["vector"])
    for shard, row in places:
        where = address.of_rows(shard, row, 1)
        column = vectors.rows(where).column("vector")
        if column.null_count == 0:
            return int(where[0]), to_matrix(column)[0]
    return None
