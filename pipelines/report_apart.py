"""Which documents stand apart, found while their columns pass by.

far      the furthest from the centroid of their cluster
lonely   those whose best neighbour is the least similar, if stage `neighbours` has run
unlike   at distance 1 from their centroid: zero vectors, mostly

A zero vector has cosine 0 with every centroid, so its distance is exactly 1; a corpus may have many of these. They are
kept apart, so that they do not hide the others.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LISTED = 8
"""Documents of each kind that are kept."""
OF_MANY = 20
"""One document of so many is shown at most: among a few, none is far out."""

Ranked = list[tuple[float, str, int]]
"""Cosine, id and address of documents: the least similar first, ties by id, then by address."""


@dataclass
class Apart:
    """The documents that stand apart so far."""

    far: Ranked = field(default_factory=list)
    lonely: Ranked = field(default_factory=list)
    unlike: Ranked = field(default_factory=list)
    looked: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Looks at rows with `id`, `address` and, where these are known, `distance` and `neighbour_similarity`."""
        if "distance" in batch.schema.names:
            rows = batch.filter(batch.column("distance").is_valid())
            self.looked += rows.num_rows
            cosine = 1 - rows.column("distance").to_numpy().astype(np.float64)
            self.far = _lowest(self.far, rows, cosine, cosine != 0)
            self.unlike = _lowest(self.unlike, rows, cosine, cosine == 0)
        if "neighbour_similarity" in batch.schema.names:
            found = pc.fill_null(pc.list_value_length(batch.column("neighbour_similarity")), 0)
            rows = batch.filter(pc.greater(found, 0))
            cosine = pc.list_element(rows.column("neighbour_similarity"), 0).to_numpy(zero_copy_only=False)
            self.lonely = _lowest(self.lonely, rows, cosine.astype(np.float64), np.ones(rows.num_rows, bool))

    @property
    def reasons(self) -> dict[int, list[tuple[str, float]]]:
        """Why the documents are shown that are: kind and cosine, by address."""
        few, found = self.looked // OF_MANY, dict[int, list[tuple[str, float]]]()
        for kind, ranked in (("far", self.far[:few]), ("lonely", self.lonely[:few]), ("unlike", self.unlike)):
            for cosine, _, place in ranked:
                found.setdefault(place, []).append((kind, cosine))
        return found


def _lowest(best: Ranked, batch: pa.RecordBatch, cosine: np.ndarray, which: np.ndarray) -> Ranked:
    """The lowest of those kept so far and of the rows where `which` (bool[n]) is true."""
    chosen = which & (cosine <= best[-1][0]) if len(best) == LISTED else which
    if not chosen.any():
        return best
    if chosen.sum() > LISTED:
        chosen = chosen & (cosine <= np.partition(cosine[chosen], LISTED - 1)[LISTED - 1])
    rows = batch.select(["id", "address"]).filter(pa.array(chosen))
    found = zip(cosine[chosen].tolist(), rows["id"].to_pylist(), rows["address"].to_pylist(), strict=True)
    return sorted([*best, *found])[:LISTED]
