"""Text columns as kernels take them: one buffer of bytes and its borders; and kernels spread over threads by bytes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

PIECES_PER_THREAD = 4
"""More pieces than threads even out texts that are slower than others."""


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and borders of a column without nulls, no copy: uint8[any], int64[n + 1]; text i is `[i]` to `[i + 1]`."""
    _, borders, data = texts.buffers()
    if len(texts) == 0 or data is None:
        return np.zeros(1, np.uint8), np.zeros(len(texts) + 1, np.int64)
    offsets = np.frombuffer(borders, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8), offsets


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
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, cuts[:-1], cuts[1:]))
