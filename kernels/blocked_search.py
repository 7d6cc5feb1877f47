"""Nearest rows by inner product, exactly: a matrix product in blocks, the k best of each row taken at once.

    out[i] = the k members j != own[i] with the largest (<q_i, m_j>, -j), best first

A library search (faiss) would be the same product, but which of several equal scores it returns is left to its heap. On
vectors of the grid every product is exact in float32, so that the result depends neither on block size nor on threads.
Work: q m d multiplications and one reading of q m scores, from the cache where a block fits it.
"""

import numpy as np

from ropewalk.kernels.top_k import top_k

BLOCK_BYTES = 16 << 20
"""Scores computed at once."""
LEAST_ROWS = 64


def search(
    questions: np.ndarray, members: np.ndarray, own: np.ndarray, count: int, *, block_bytes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest members of each question by inner product, ties to the lower row.

    Args:
        questions: float32[q, d].
        members: float32[m, d].
        own: The member that is the question itself, -1 for none: int64[q].
        count: Members wanted, k.
        block_bytes: Size of a block of scores, default `BLOCK_BYTES`; no part of the result.

    Returns:
        Members int32[q, k], -1 for none, and their scores float32[q, k], 0 there.
    """
    found = np.empty((len(questions), count), np.int32)
    score = np.empty((len(questions), count), np.float32)
    block = max(LEAST_ROWS, (block_bytes or BLOCK_BYTES) // (4 * max(len(members), 1)))
    for start in range(0, len(questions), block):
        part = slice(start, start + block)
        found[part], score[part] = top_k(questions[part] @ members.T, own[part], count)
    return found, score
