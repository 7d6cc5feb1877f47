"""Text columns as kernels take them: one buffer of bytes and its borders, composed; kernels spread over threads."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.kernels import nfc

PIECES_PER_THREAD = 4
"""More pieces than threads even out texts that are slower than others."""


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and borders of a column without nulls, no copy: uint8[any], int64[n + 1]; text i is `[i]` to `[i + 1]`.

    Both are read-only, also where the column's memory is not: numba compiles every kernel anew for arrays that are not.
    """
    _, borders, data = texts.buffers()
    if len(texts) == 0 or data is None:
        found, offsets = np.zeros(1, np.uint8), np.zeros(len(texts) + 1, np.int64)
    else:
        offsets = np.frombuffer(borders, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        found = np.frombuffer(data, np.uint8)
    found.flags.writeable = offsets.flags.writeable = False
    return found, offsets


def composed(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """The texts in Unicode's normal form C; the same array where all are in it already, as a quick check tells.

    A text with a run of more than `nfc.MOST_MARKS` combining marks is left as it is: no text has one, and normalising
    it would take time that grows with the square of the run. (Arrow's own `utf8_normalize` decomposes whatever the
    form, up to pyarrow 25: apache/arrow#51225.)
    """
    data, offsets = buffers(texts)
    doubtful = maybe_decomposed(texts, np.arange(len(texts)))
    rows = np.flatnonzero(doubtful)
    if len(rows) == 0:
        return texts
    normal, borders = bytearray(), np.zeros(len(rows) + 1, np.int64)
    for i, row in enumerate(rows):
        nfc.composed(data[offsets[row] : offsets[row + 1]], normal)
        borders[i + 1] = len(normal)
    buffered = [pa.py_buffer(borders), pa.py_buffer(normal)]
    replacements = pa.LargeStringArray.from_buffers(len(rows), *buffered)
    return pc.replace_with_mask(texts, pa.array(doubtful), replacements)


def maybe_decomposed(texts: pa.LargeStringArray, rows: np.ndarray) -> np.ndarray:
    """Which of some texts (int64[m]) may not be in normal form C, as a quick check tells: bool[m]."""
    data, offsets = buffers(texts)
    answers = np.empty(len(rows), np.uint8)
    nfc.check(data, offsets, rows, nfc.table(), answers)
    doubtful: np.ndarray = answers == 1
    return doubtful


def spread(run: Callable[[int, int], None], offsets: np.ndarray, threads: int) -> None:
    """Calls `run(first, last)` for ranges of texts that cover all and have about equal bytes, on `threads` threads.

    Args:
        run: A kernel that releases the GIL and writes only the rows of its own range.
        offsets: Borders of the texts, int64[n + 1].
        threads: Threads to use; the result must not depend on it.
    """
    count = len(offsets) - 1
    if threads <= 1 or count <= 1:
        run(0, count)
        return
    goals = np.linspace(int(offsets[0]), int(offsets[-1]), threads * PIECES_PER_THREAD + 1)[1:-1]
    cuts = np.unique(np.concatenate([[0], np.searchsorted(offsets, goals), [count]])).tolist()
    list(_pool(threads).map(run, cuts[:-1], cuts[1:]))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The process' threads for kernels, the same for every caller: so many kernels run, however many ask."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads
