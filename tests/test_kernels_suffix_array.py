import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.longest_repeat import longest_repeat, longest_repeat_reference
from ropewalk.kernels.suffix_array import suffix_array, suffix_array_reference

texts = st.integers(1, 5).flatmap(lambda size: st.lists(st.integers(0, size - 1), max_size=60))
repetitive = st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=7), st.integers(1, 12), texts).map(
    lambda parts: parts[0] * parts[1] + parts[2]
)


def array(text):
    return np.array(text, np.int32)


def test_banana():
    assert suffix_array(array([1, 0, 2, 0, 2, 0]), 3).tolist() == [5, 3, 1, 0, 4, 2]


@settings(max_examples=500, deadline=None)
@given(texts | repetitive)
def test_against_sorting_the_suffixes(text):
    assert suffix_array(array(text), 5).tolist() == suffix_array_reference(text)


@pytest.mark.parametrize("length", [1, 2, 1000])
@pytest.mark.parametrize("shape", ["constant", "rising", "falling", "fibonacci", "random"])
def test_long_sequences_are_sorted(length, shape):
    size = max(2, length)
    a, b = [0], [0, 1]
    while len(b) < length:
        a, b = b, b + a
    text = {
        "constant": np.zeros(length),
        "rising": np.arange(length),
        "falling": np.arange(length)[::-1],
        "fibonacci": np.array(b[:length]),
        "random": np.random.default_rng(0).integers(0, 50, length) % size,
    }[shape].astype(np.int32)
    assert suffix_array(text, size).tolist() == suffix_array_reference(text.tolist())


def test_a_million_symbols_that_all_are_equal():
    text = np.zeros(1 << 20, np.int32)
    sa = suffix_array(text, 1)
    assert np.array_equal(sa, np.arange(1 << 20)[::-1])
    length, first, last = longest_repeat(text, sa)
    assert (length, first + length <= last) == (1 << 19, True)


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("a", 0), ("ab", 0), ("aa", 1), ("aaa", 1), ("aaaa", 2), ("abab", 2), ("ababa", 2), ("banana", 2),
     ("the cat. the dog. the cat", 7), ("xyxyxyxy", 4)],
)  # fmt: skip
def test_longest_repeat_by_hand(text, length):
    codes = array([ord(char) for char in text])
    found, first, last = longest_repeat(codes, suffix_array(codes, 128))
    assert found == length
    assert text[first : first + length] == text[last : last + length]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=28) | repetitive.map(lambda text: text[:28]))
def test_longest_repeat_against_all_pairs(text):
    codes = array(text)
    length, first, last = longest_repeat(codes, suffix_array(codes, 5))
    assert length == longest_repeat_reference(text)
    assert length == 0 or first + length <= last
    assert text[first : first + length] == text[last : last + length]
