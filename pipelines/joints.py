"""The joints of a sequence: how similar the documents are that follow one another."""

from collections.abc import Sequence

import numpy as np

Vector = np.ndarray
"""A unit vector on the grid of `kernels.grid`, float32[d]: products of two are exact."""


def joints(vectors: Sequence[Vector | None]) -> list[float | None]:
    """Cosine of each document with the one before it; none for the first, and where either has no vector."""
    found: list[float | None] = [None] * len(vectors)
    for place in range(1, len(vectors)):
        before, here = vectors[place - 1], vectors[place]
        if before is not None and here is not None:
            found[place] = float(before @ here)
    return found


def weakest(similarities: Sequence[float | None]) -> int | None:
    """Place of the lowest cosine, the first of equals; none where fewer than two are known: one is no choice."""
    known = [(similarity, place) for place, similarity in enumerate(similarities) if similarity is not None]
    return min(known)[1] if len(known) > 1 else None
