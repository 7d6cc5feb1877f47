import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import grid


def integers(vectors):
    return np.rint(vectors.astype(np.float64) * grid.GRID).astype(np.int64)


@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.sampled_from([1, 2, 3, 17, 64, 255, 256, 1000, 1024]),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
)
@settings(max_examples=40, deadline=None)
def test_products_are_exact_in_float32(seed, d, spread):
    random = np.random.default_rng(seed)
    raw = random.normal(size=(24, d)) * np.exp(spread * random.normal(size=d))
    vectors = grid.normalise(raw)
    assert vectors.dtype == np.float16
    exact = integers(vectors) @ integers(vectors).T
    wide = vectors.astype(np.float32)
    assert np.array_equal((wide @ wide.T).astype(np.float64) * grid.GRID**2, exact)
    # Any order of additions: forwards, backwards, and pairwise in float32.
    forwards = np.zeros((24, 24), np.float32)
    for j in random.permutation(d):
        forwards += np.outer(wide[:, j], wide[:, j])
    assert np.array_equal(forwards.astype(np.float64) * grid.GRID**2, exact)


@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 600))
@settings(max_examples=40, deadline=None)
def test_snapping_moves_each_coordinate_by_at_most_half_a_step(seed, d):
    raw = np.random.default_rng(seed).normal(size=(5, d))
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    snapped = grid.normalise(raw).astype(np.float64)
    assert np.abs(snapped - unit).max() <= 0.5 / grid.GRID + 1e-7
    assert np.linalg.norm(snapped * grid.GRID, axis=1).max() <= grid.GRID + np.sqrt(d) / 2 + 1e-3


def test_float16_holds_every_grid_point():
    points = np.arange(-grid.GRID, grid.GRID + 1) / grid.GRID
    assert np.array_equal(grid.snap(points).astype(np.float64), points)


def test_a_finer_grid_would_not_be_exact():
    """The bound is tight: with multiples of 2^-12 a float32 sum can round."""
    raw = np.random.default_rng(0).normal(size=(100, 256))
    finer = np.rint(4096 * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int64)
    squares = (finer**2).sum(axis=1)
    assert (squares.astype(np.float32) != squares).any()


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_zero_stays_zero_and_rows_do_not_touch(rows):
    raw = np.random.default_rng(0).normal(size=(rows, 256))
    raw[0] = 0
    whole = grid.normalise(raw)
    assert not whole[0].any()
    assert np.array_equal(whole, np.concatenate([grid.normalise(row[None]) for row in raw]))
