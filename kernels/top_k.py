"""The k largest values of each row of a score matrix, ties to the lower column.

    out[i] = the k columns j != own[i] with the largest (scores[i, j], -j) below a bound, best first

Library searches leave the order of equal scores, and which of them make the cut, to their heap; copies of one text have
equal scores, so here both are fixed. One pass over the matrix: 4 n bytes read a row, a column is compared with the
worst kept one only.
"""

import numpy as np
from numba import njit


def top_k_reference(
    scores: np.ndarray, own: np.ndarray, k: int, below: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """The same by sorting whole rows."""
    rows, columns = scores.shape
    found = np.full((rows, k), -1, np.int32)
    best = np.zeros((rows, k), np.float32)
    for i in range(rows):
        ranked = [j for j in np.argsort(-scores[i], kind="stable") if j != own[i] and scores[i, j] < below][:k]
        found[i, : len(ranked)] = ranked
        best[i, : len(ranked)] = scores[i, ranked]
    return found, best


def top_k(scores: np.ndarray, own: np.ndarray, k: int, below: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
    """Selects the best columns of each row.

    Args:
        scores: float32[b, n].
        own: Column to leave out in each row (the document itself), int64[b]; -1 for none.
        k: Columns wanted.
        below: Columns with this score or a larger one are left out too.

    Returns:
        Columns int32[b, k], -1 where a row has fewer than k, and their scores float32[b, k], 0 there.
    """
    found = np.full((len(scores), k), -1, np.int32)
    best = np.zeros((len(scores), k), np.float32)
    if k:
        _top_k(np.ascontiguousarray(scores, np.float32), own.astype(np.int64), np.float32(below), found, best)
    return found, best


@njit(cache=True, nogil=True)
def _top_k(scores: np.ndarray, own: np.ndarray, below: np.float32, found: np.ndarray, best: np.ndarray) -> None:
    k = found.shape[1]
    for i in range(scores.shape[0]):
        count = 0
        for j in range(scores.shape[1]):
            score = scores[i, j]
            # Columns ascend, so an equal score never pushes an earlier one out.
            if (count == k and not score > best[i, k - 1]) or j == own[i] or not score < below:
                continue
            if count < k:
                count += 1
            at = count - 1
            while at > 0 and score > best[i, at - 1]:
                best[i, at] = best[i, at - 1]
                found[i, at] = found[i, at - 1]
                at -= 1
            best[i, at] = score
            found[i, at] = j
