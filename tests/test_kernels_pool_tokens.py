import numpy as np
import pytest

from ropewalk.kernels import pool_tokens


def test_by_hand():
    table = np.array([[3, 0], [0, 4], [-3, -4]], np.int16)
    found = pool_tokens.pool(np.array([0, 1, 0, 1, 2], np.uint32), np.array([0, 2, 2, 5]), table)
    assert np.allclose(found, [[0.6, 0.8], [0, 0], [0, 0]])


@pytest.mark.parametrize("lengths", [[], [0], [1, 0, 65535, 65536, 65537, 200_000]])
def test_agrees_with_the_reference(lengths):
    random = np.random.default_rng(0)
    table = random.integers(-32768, 32768, (300, 9)).astype(np.int16)
    table[0] = 32767
    ids = random.integers(0, 300, sum(lengths)).astype(np.uint32)
    ids[-150_000:] = 0  # the sums a 32-bit number holds only just
    offsets = np.cumsum([0, *lengths])
    found = pool_tokens.pool(ids, offsets, table)
    assert found.shape == (len(lengths), 9)
    assert np.allclose(found, pool_tokens.pool_reference(ids, offsets, table), atol=1e-6)
