import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import pool_windows


def pooled(windows, weights, borders):
    return pool_windows.pool(pool_windows.units(windows), np.array(weights), np.array(borders))


def test_by_hand():
    windows = np.array([[3, 4], [0, 2], [5, 0]], np.float32)  # units (.6, .8), (0, 1), (1, 0)
    vectors, dispersion = pooled(windows, [3, 1, 7], [0, 2, 2, 3])
    mean = np.array([3 * 0.6, 3 * 0.8 + 1]) / 4
    assert np.allclose(vectors, [mean / np.hypot(*mean), [0, 0], [1, 0]], atol=2e-6)
    assert np.allclose(dispersion, [1 - np.hypot(*mean), 0, 0], atol=2e-6)


@pytest.mark.parametrize("width", [1, 2, 384])
def test_agrees_with_the_reference(width):
    random = np.random.default_rng(width)
    windows = random.normal(size=(200, width)).astype(np.float32) * random.uniform(0.01, 100, (200, 1))
    windows[random.integers(0, 200, 9)] = 0
    weights = random.integers(0, 1 << 16, 200)
    borders = np.sort(np.r_[0, random.integers(0, 201, 50), 200])
    vectors, dispersion = pooled(windows.astype(np.float32), weights, borders)
    expected, spread = pool_windows.pool_reference(windows.astype(np.float32), weights, borders)
    clear = spread < 0.9  # the direction of a mean near zero is as uncertain as its rounding makes it
    assert np.abs(vectors - expected)[clear].max() < 1e-4
    assert np.abs(dispersion - spread)[expected.any(axis=1)].max() < 1e-5
    assert not dispersion[~expected.any(axis=1)].any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(1, 99)), max_size=8), st.randoms())
def test_the_order_of_windows_does_not_show(parts, random):
    shuffled = random.sample(parts, len(parts))
    found = []
    for rows in (parts, shuffled):
        windows = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2)
        found.append(pooled(windows, [row[2] for row in rows] or np.zeros(0, np.int64), [0, len(rows)]))
    assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])


def test_equal_windows_have_no_dispersion():
    random = np.random.default_rng(0)
    window = random.normal(size=384).astype(np.float32)
    vectors, dispersion = pooled(np.stack([window] * 5), [1, 2, 3, 4, 5], [0, 5])
    assert np.abs(vectors[0] - window / np.linalg.norm(window)).max() < 1e-6 and dispersion[0] < 1e-5
