"""Where a key stands in an open-addressed hash table of counts, or where it belongs.

    slot = key mod size, key + 1 mod size, ...  until the key or an empty slot

The size is a power of two, keys are hashes already, and a slot is empty while its count is 0; at least one must be.

Shapes: `keys` uint64[size], `counts` any integer[size].
"""

from typing import Any

import numpy as np
from numba import njit


def find_slot_reference(keys: np.ndarray, counts: np.ndarray, key: int) -> int:
    """The same in plain Python."""
    for step in range(len(keys)):
        slot = (int(key) + step) % len(keys)
        if counts[slot] == 0 or int(keys[slot]) == int(key):
            return slot
    raise ValueError("the table is full")


@njit(cache=True, nogil=True, inline="always")
def find_slot(keys: np.ndarray, counts: np.ndarray, key: np.uint64) -> Any:
    """Slot of `key`, or the empty one where it belongs."""
    mask = np.int64(len(keys) - 1)
    slot = np.int64(key & np.uint64(mask))
    while counts[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot
