"""A sample of documents that depends on their ids alone: not on shards, workers or the order of rows."""

import numpy as np
import pyarrow as pa

from ropewalk.kernels.xxh64 import xxh64


def hash_ids(ids: pa.Array, *, seed: int) -> np.ndarray:
    """A fresh hash of each id, so that samples with different seeds are unrelated: string[n] -> uint64[n]."""
    ids = ids.cast(pa.large_string())
    _, borders, data = ids.buffers()
    if len(ids) == 0 or data is None:
        return np.empty(len(ids), np.uint64)
    offsets = np.frombuffer(borders, np.int64, ids.offset + len(ids) + 1)[ids.offset :]
    return xxh64(np.frombuffer(data, np.uint8), offsets, seed)


def limit(wanted: int, available: int) -> int:
    """Largest hash to accept, so that about `wanted` of `available` documents are; 2^64 - 1 accepts all."""
    if wanted >= available:
        return 2**64 - 1
    return (wanted << 64) // max(available, 1)
