"""Against plain Python, and against what Gopher's rules are by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import ngram_repeats
from ropewalk.kernels.shingles import shingles

words = st.lists(st.integers(0, 3), max_size=60)


def grams_of(numbers, n):
    if len(numbers) < n:
        return np.empty(0, np.uint64)
    return shingles(np.array(numbers, np.uint64), np.array([0, len(numbers)], np.int64), n)[0]


@settings(max_examples=300, deadline=None)
@given(words, st.integers(1, 6), st.randoms(use_true_random=False))
def test_against_the_references(numbers, n, random):
    grams = grams_of(numbers, n)
    lengths = [random.randint(1, 9) for _ in numbers]
    # The oracle works on the n-grams themselves, not on their hashes.
    real = [tuple(numbers[i : i + n]) for i in range(len(numbers) - n + 1)]
    assert ngram_repeats.kinds(grams) == len(set(real))
    at, count = ngram_repeats.top(grams)
    assert (at, count) == ngram_repeats.top_reference(real)
    got = ngram_repeats.duplicate_chars(grams, np.array(lengths, np.int32), n)
    assert got == ngram_repeats.duplicate_chars_reference(real, lengths, n)


@pytest.mark.parametrize(
    ("numbers", "n", "chars"),
    [
        ([0, 1, 2, 0, 1, 2], 3, 3),  # the second copy
        ([0, 1, 0, 1, 0, 1], 2, 4),  # 01 noted, 10 noted, 01 counts and jumps, 01 counts
        ([0] * 10, 5, 5),  # noted at 0, counted at 1 to 5; too few are left behind
        ([0, 1, 2, 3], 5, 0),
    ],
)
def test_duplicates_by_hand(numbers, n, chars):
    assert ngram_repeats.duplicate_chars(grams_of(numbers, n), np.ones(len(numbers), np.int32), n) == chars


def test_top_is_the_first_of_equals():
    assert ngram_repeats.top(grams_of([5, 6, 5, 6], 1)) == (0, 2)
    assert ngram_repeats.top(grams_of([], 2)) == (0, 0)
