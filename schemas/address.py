"""Addresses: the place of a document in one immutable row space, as one 64-bit integer.

    address = shard << 32 | row

Verdicts, edges, neighbours and orders are addresses: 8 bytes a document. An address means something only together with
its corpus; what must survive a re-ingest is keyed by `id` instead.
"""

import numpy as np

ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1


def of_rows(shard: int, start: int, count: int) -> np.ndarray:
    """Addresses of rows [start, start + count) of a shard: uint64[count]."""
    return np.arange(start, start + count, dtype=np.uint64) | np.uint64(shard << ROW_BITS)


def shards(addresses: np.ndarray) -> np.ndarray:
    """Shard of each address: uint64[n] -> int64[n]."""
    return (addresses >> np.uint64(ROW_BITS)).astype(np.int64)


def rows(addresses: np.ndarray) -> np.ndarray:
    """Row of each address in its shard: uint64[n] -> int64[n]."""
    return (addresses & np.uint64(ROW_MASK)).astype(np.int64)
