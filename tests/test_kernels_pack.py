"""Kernels of packing: best-fit, concatenation, copying of spans."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.best_fit import best_fit, best_fit_reference
from ropewalk.kernels.concat_split import concat_split, concat_split_reference
from ropewalk.kernels.copy_spans import copy_spans, copy_spans_reference


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(1, 16), max_size=60), st.integers(1, 8))
def test_best_fit_is_the_reference(lengths, open_bins):
    lengths = np.array(lengths, np.uint32)
    bins = best_fit(lengths, 16, open_bins)
    np.testing.assert_array_equal(bins, best_fit_reference(lengths, 16, open_bins))
    if len(bins):
        assert set(bins.tolist()) == set(range(bins.max() + 1))
        assert np.bincount(bins, weights=lengths).max() <= 16


def test_one_open_bin_is_next_fit():
    assert best_fit(np.array([3, 3, 2, 4, 1]), 5, 1).tolist() == [0, 1, 1, 2, 2]


def test_ten_open_bins_choose_the_tightest():
    assert best_fit(np.array([5, 6, 4, 3]), 10, 10).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("lengths", [[0, 3], [3, 17]])
def test_pieces_must_fit(lengths):
    with pytest.raises(ValueError, match="16"):
        best_fit(np.array(lengths), 16, 2)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 16))
def test_concat_split_is_the_reference(num_tokens, length):
    num_tokens = np.array(num_tokens, np.uint32)
    for mine, theirs in zip(concat_split(num_tokens, length), concat_split_reference(num_tokens, length), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20))
def test_copy_spans_is_the_reference(spans):
    values = np.arange(40, dtype=np.uint32)
    start, length = np.array(spans, np.int64).reshape(-1, 2).T
    to = np.cumsum(length) - length
    mine, theirs = np.zeros((2, int(length.sum())), np.uint32)
    copy_spans(values, start, length, mine, to)
    copy_spans_reference(values, start, length, theirs, to)
    np.testing.assert_array_equal(mine, theirs)


def test_copy_spans_refuses_to_leave_the_array():
    values, out = np.zeros(4, np.uint32), np.zeros(9, np.uint32)
    for start, length, to in [(3, 2, 0), (-1, 1, 0), (0, 4, 6), (0, -1, 0)]:
        with pytest.raises(IndexError):
            copy_spans(values, np.array([start]), np.array([length]), out, np.array([to]))
