"""Which documents are furthest from the centroid of their cluster, found while their columns pass by.

A zero vector has cosine 0 with every centroid, so its distance is exactly 1; a corpus may have many of these. They are
kept apart, so that they do not hide the others.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

LISTED = 8
"""Documents of each kind that are kept."""
OF_MANY = 20
"""One document of so many is shown at most: among a few, none is far out."""


@dataclass
class Furthest:
    """Keeps the rows with the largest distances, and the first of those at distance 1; ties by id, then by address."""

    far: list[tuple[float, str, int]] = field(default_factory=list)
    unlike: list[tuple[float, str, int]] = field(default_factory=list)
    looked: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Looks at rows with `id`, `address` and `distance`; nulls are passed over."""
        batch = batch.select(["id", "address", "distance"]).filter(batch.column("distance").is_valid())
        self.looked += batch.num_rows
        distance = batch.column("distance").to_numpy()
        self.far = self._best(self.far, batch, distance, distance != 1)
        self.unlike = self._best(self.unlike, batch, distance, distance == 1)

    def _best(
        self, best: list[tuple[float, str, int]], batch: pa.RecordBatch, distance: np.ndarray, which: np.ndarray
    ) -> list[tuple[float, str, int]]:
        chosen = which & (distance >= -best[-1][0]) if len(best) == LISTED else which
        if not chosen.any():
            return best
        if chosen.sum() > LISTED:
            chosen &= distance >= np.partition(distance[chosen], -LISTED)[-LISTED]
        rows = batch.filter(pa.array(chosen))
        found = zip((-distance[chosen]).tolist(), rows["id"].to_pylist(), rows["address"].to_pylist(), strict=True)
        return sorted([*best, *found])[:LISTED]

    @property
    def addresses(self) -> list[int]:
        """Where the documents are that are shown."""
        few = self.far[: self.looked // OF_MANY]
        return [place for _, _, place in [*few, *self.unlike]]
