"""The k best of several ranked lists of candidates for each of n queries.

    out[i] = the k candidates of query i with the largest (similarity, -rank, -address), best first

A query searches several cells and gets a list from each; a candidate lies in one cell only, so no list repeats what
another holds. One pass over the candidates: each is compared with the worst kept one and, if better, put in its place.
"""

import numpy as np
from numba import njit


def merge_top_k_reference(
    starts: np.ndarray, similarity: np.ndarray, rank: np.ndarray, address: np.ndarray, k: int
) -> np.ndarray:
    """The same by sorting the candidates of each query."""
    found = np.full((len(starts) - 1, k), -1, np.int64)
    for i, (start, stop) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        keys = [(-float(similarity[j]), int(rank[j]), int(address[j]), j) for j in range(start, stop)]
        best = [j for *_, j in sorted(keys)[:k]]
        found[i, : len(best)] = best
    return found


def merge_top_k(
    starts: np.ndarray, similarity: np.ndarray, rank: np.ndarray, address: np.ndarray, k: int
) -> np.ndarray:
    """Selects the best candidates of each query.

    Args:
        starts: Candidates of query i are [starts[i], starts[i + 1]): int64[n + 1].
        similarity: float32[c].
        rank: Of equally similar ones the lower comes first, uint64[c].
        address: And of these the lower, uint64[c].
        k: Candidates wanted.

    Returns:
        Candidates, best first, -1 where a query has fewer than k: int64[n, k].
    """
    found = np.full((len(starts) - 1, k), -1, np.int64)
    _merge_top_k(starts, similarity, rank, address, found)
    return found


@njit(cache=True, nogil=True)
def _merge_top_k(
    starts: np.ndarray, similarity: np.ndarray, rank: np.ndarray, address: np.ndarray, found: np.ndarray
) -> None:
    k = found.shape[1]
    for i in range(found.shape[0]):
        count = 0
        for j in range(starts[i], starts[i + 1]):
            at = count
            while at > 0:
                other = found[i, at - 1]
                if similarity[j] < similarity[other]:
                    break
                if similarity[j] == similarity[other]:
                    if rank[j] > rank[other] or (rank[j] == rank[other] and address[j] > address[other]):
                        break
                if at < k:
                    found[i, at] = other
                at -= 1
            if at < k:
                found[i, at] = j
                count = min(count + 1, k)
