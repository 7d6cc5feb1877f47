"""Counts of numbers by size, kept small: what the report draws."""

from collections import Counter

import numpy as np


class Histogram:
    """Counts between borders, with sum and extremes kept exactly.

    Args:
        edges: Ascending borders, [bins + 1]; a value equal to a border belongs to the bin above it, the last one below.
    """

    def __init__(self, edges: np.ndarray) -> None:
        self.edges = edges
        self.counts = np.zeros(len(edges) - 1, np.int64)
        self.count, self.sum = 0, 0.0
        self.below = 0

    def add(self, values: np.ndarray) -> None:
        """Counts values; those under the first border (empty documents) are only in `below`."""
        if not len(values):
            return
        self.count += len(values)
        self.sum += float(values.sum(dtype=np.float64))
        place = np.searchsorted(self.edges, values, side="right") - 1
        self.below += int((place < 0).sum())
        place = np.minimum(place[place >= 0], len(self.counts) - 1)
        self.counts += np.bincount(place, minlength=len(self.counts))

    @property
    def mean(self) -> float:
        """Mean of all values; 0 for none."""
        return self.sum / self.count if self.count else 0.0

    def median(self) -> float:
        """About the median: geometric interpolation inside its bin for positive borders, else arithmetic."""
        half = self.count / 2 - self.below
        if not self.count or half <= 0:
            return 0.0
        reached = np.cumsum(self.counts)
        bin_ = int(np.searchsorted(reached, half))
        inside = (half - (reached[bin_] - self.counts[bin_])) / self.counts[bin_]
        low, high = float(self.edges[bin_]), float(self.edges[bin_ + 1])
        return float(low * (high / low) ** inside) if self.edges[0] > 0 else low + (high - low) * inside


class SizeCounts:
    """Counts of small whole numbers in classes 1, 2, 3, 4, 5-8, 9-16, …: group sizes, documents a sequence."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = self.sum = self.largest = 0

    def add(self, sizes: np.ndarray) -> None:
        """Counts sizes (int[n])."""
        sizes = sizes.astype(np.int64)
        if not len(sizes):
            return
        classes = np.where(sizes <= 4, sizes, np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64) + 2)
        for one, amount in zip(*np.unique(classes, return_counts=True), strict=True):
            self._counts[int(one)] += int(amount)
        self.count += len(sizes)
        self.sum += int(sizes.sum())
        self.largest = max(self.largest, int(sizes.max()))

    def bars(self, smallest: int = 1) -> tuple[list[str], list[int]]:
        """Labels and counts of all classes from `smallest` to the largest present."""
        last = max((c for c in self._counts if c >= smallest), default=smallest - 1)
        classes = range(smallest, last + 1)
        labels = [str(c) if c <= 4 else f"{2 ** (c - 3) + 1}–{2 ** (c - 2)}" for c in classes]
        return labels, [self._counts[c] for c in classes]

    def __getitem__(self, size: int) -> int:
        return self._counts[size]
