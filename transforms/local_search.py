"""Local search on the order of one cluster, piece by piece: near-duplicates apart, windows alike.

The order is taken in pieces of consecutive documents, each small enough for the matrix of its similarities; in an order
that has kin together already a piece lacks little that its documents could move to.
"""

from dataclasses import dataclass

import numpy as np

from ropewalk.kernels.path_search import path_search
from ropewalk.kernels.top_k import top_k
from ropewalk.kernels.window_search import UNIT, harmonic, window_search, window_value

PIECE = 2048
"""Documents searched at once: 32 MiB of similarities."""
ONE = 1 << 22
"""A cosine of 1 in the integer weights: the product of two points of the grid is a multiple of 1 / ONE."""


@dataclass(frozen=True)
class LocalSearch:
    """What is searched for.

    Attributes:
        window: Documents ahead over which similarity counts, the one d places ahead 1 / d; 1: only neighbours do.
        search: Passes over the documents; with a window of 1, kicks a document; 0: no search.
        neighbours: Nearest neighbours beside which a document may move.
        near_duplicate: Documents as similar as this, or more, count as if their cosine were -1.
    """

    window: int
    search: int
    neighbours: int
    near_duplicate: float

    def __call__(self, vectors: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Improves an order.

        Args:
            vectors: Unit vectors, float32[n, d].
            order: Rows in their order, int64[n].

        Returns:
            Rows in their new order, int64[n]; where neither a row nor the one before it is among the other's nearest,
            or they were not looked at together, bool[n]; and the similarity of every document to those ahead of it in
            its window (mean weighted by 1 / d), added up in millionths, before and after.
        """
        pull = harmonic(self.window)
        scale = ONE * UNIT * sum(1 / d for d in range(1, self.window + 1)) / 1_000_000
        counts = {"window-before-millionths": 0, "window-after-millionths": 0}
        parts, jumps = [], np.ones(len(order), bool)
        for first in range(0, len(order), PIECE):
            piece = order[first : first + PIECE]
            weights, near = self._matrix(vectors[piece])
            places = np.arange(len(piece))
            counts["window-before-millionths"] += round(window_value(places, weights, pull) / scale)
            if self.search and self.window == 1:
                places = path_search(places, weights, near, kicks=self.search * len(piece))
            elif self.search:
                places = window_search(places, weights, near, pull, passes=self.search)
            counts["window-after-millionths"] += round(window_value(places, weights, pull) / scale)
            a, b = places[1:], places[:-1]
            linked = ((near[a] == b[:, None]) | (near[b] == a[:, None])).any(axis=1)
            jumps[first + 1 : first + len(piece)] = ~linked
            parts.append(piece[places])
        return np.concatenate(parts) if parts else order, jumps, counts

    def _matrix(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Integer weights int32[n, n] and nearest rows int32[n, k]."""
        similarity = vectors @ vectors.T
        near, _ = top_k(similarity, np.arange(len(vectors)), self.neighbours, self.near_duplicate)
        weights = np.rint(similarity * np.float32(ONE)).astype(np.int32)
        weights[similarity >= np.float32(self.near_duplicate)] = -ONE
        return weights, near
