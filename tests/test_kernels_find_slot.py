import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.find_slot import find_slot, find_slot_reference

KEYS = st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), max_size=15)


@settings(deadline=None)
@given(KEYS)
def test_counts_are_those_of_a_dictionary(stream):
    """Full but for one slot: every collision there is. Small keys crowd, large ones have the top bit."""
    keys, counts = np.zeros(16, np.uint64), np.zeros(16, np.int64)
    expected: dict[int, int] = {}
    for key in stream:
        slot = find_slot(keys, counts, np.uint64(key))
        assert slot == find_slot_reference(keys, counts, key)
        keys[slot], counts[slot] = key, counts[slot] + 1
        expected[key] = expected.get(key, 0) + 1
    assert {int(k): int(c) for k, c in zip(keys, counts, strict=True) if c} == expected
