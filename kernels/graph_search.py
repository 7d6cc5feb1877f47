"""Nearest rows along a graph: HNSW (Malkov and Yashunin 2018, arXiv 1603.09320) by faiss, for very many members.

What the graph leads to depends on the order in which rows were put into it. So they come in their given order, by one
thread, and faiss' own seeds are fixed; the scores of what was found are exact on the grid (`grid.py`), and equal ones
are put in order here. Not every neighbour is found: `blocked_search` finds all, and is faster below some ten thousand
members.
"""

import numpy as np

LINKS = 32
"""Links of a row in the graph's lowest layer: twice as many."""
BUILD_WIDTH = 80
SEARCH_WIDTH = 64
"""Candidates kept while the graph is built, and searched (at least twice the neighbours wanted)."""


def search(questions: np.ndarray, members: np.ndarray, own: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Near members of each question by inner product, ties to the lower row; see `blocked_search.search`."""
    import faiss

    found = np.full((len(questions), count), -1, np.int32)
    score = np.zeros((len(questions), count), np.float32)
    if not len(members) or not len(questions):
        return found, score
    threads = faiss.omp_get_max_threads()
    index = faiss.IndexHNSWFlat(members.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_WIDTH
    index.hnsw.efSearch = max(SEARCH_WIDTH, 2 * (count + 1))
    try:
        faiss.omp_set_num_threads(1)
        index.add(np.ascontiguousarray(members))
    finally:
        faiss.omp_set_num_threads(threads)
    dots, rows = index.search(np.ascontiguousarray(questions), min(count + 1, len(members)))
    dots = np.where((rows < 0) | (rows == own[:, None]), -np.inf, dots)
    order = np.lexsort((rows, -dots), axis=1)[:, :count]
    dots, rows = np.take_along_axis(dots, order, axis=1), np.take_along_axis(rows, order, axis=1)
    good = np.isfinite(dots)
    found[:, : rows.shape[1]][good] = rows[good]
    score[:, : rows.shape[1]][good] = dots[good]
    return found, score
