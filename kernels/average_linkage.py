"""Average linkage by nearest-neighbour chains: which two clusters are joined, one merge after the other.

    s(A, B) = sum of x . y over x in A, y in B / (|A| |B|)
    follow the chain c1, c2 = the cluster most similar to c1, ... until two are each other's most similar: merge them

Average linkage is reducible, so any two clusters that are each other's nearest may be merged at once, and the chains
(Benzecri 1982; Murtagh 1983) give the tree that always merging the most similar pair gives: O(m^2) time, where that
takes O(m^3). Sums of dot products on the grid (`kernels.grid`) are integers below 2^53 in float64: exact, as is every
decision. Ties are decided for the cluster that is on the chain already, then for the lower number.
"""

import numpy as np
from numba import njit


def average_linkage_reference(sums: np.ndarray, counts: np.ndarray) -> list[tuple[int, int]]:
    """The merges by always taking the most similar pair, ties to the lower numbers: the same tree without ties."""
    table, sizes = sums.astype(np.float64).copy(), counts.astype(np.float64).copy()
    alive, merges = list(range(len(sizes))), []
    while len(alive) > 1:
        pairs = [(table[a, b] / (sizes[a] * sizes[b]), -a, -b) for a in alive for b in alive if a < b]
        _, a, b = max(pairs)
        a, b = -a, -b
        merges.append((a, b))
        table[a] += table[b]
        table[:, a] += table[:, b]
        sizes[a] += sizes[b]
        alive.remove(b)
    return merges


def average_linkage(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Joins m clusters into one.

    Args:
        sums: Sums of the dot products between two clusters, float64[m, m]; overwritten. The diagonal is not read.
        counts: Members of each cluster, int64[m].

    Returns:
        int64[m - 1, 2]: the two clusters of each merge, children before parents; the lower number goes on as both.
    """
    merges = np.empty((max(len(counts) - 1, 0), 2), np.int64)
    _average_linkage(sums, counts.astype(np.float64), merges)
    return merges


@njit(cache=True, nogil=True)
def _average_linkage(sums: np.ndarray, counts: np.ndarray, merges: np.ndarray) -> None:
    clusters = len(counts)
    alive = np.arange(clusters)
    place = np.arange(clusters)  # of each cluster in `alive`
    left = clusters
    chain = np.empty(clusters, np.int64)
    length = 0
    for merge in range(clusters - 1):
        if length == 0:
            chain[0] = alive[0]
            length = 1
        while True:
            here = chain[length - 1]
            before = chain[length - 2] if length > 1 else np.int64(-1)
            row = sums[here]
            nearest = before
            largest = row[before] / (counts[here] * counts[before]) if length > 1 else 0.0
            for i in range(left):
                other = alive[i]
                if other == here or other == before:
                    continue
                similarity = row[other] / (counts[here] * counts[other])
                if (
                    nearest < 0
                    or similarity > largest
                    or (similarity == largest and nearest != before and other < nearest)
                ):
                    nearest = other
                    largest = similarity
            if nearest == before:
                break
            chain[length] = nearest
            length += 1
        length -= 2
        low, high = min(here, before), max(here, before)
        merges[merge, 0] = low
        merges[merge, 1] = high
        last = alive[left - 1]
        alive[place[high]] = last
        place[last] = place[high]
        left -= 1
        for i in range(left):
            other = alive[i]
            sums[low, other] += sums[high, other]
            sums[other, low] = sums[low, other]
        counts[low] += counts[high]
