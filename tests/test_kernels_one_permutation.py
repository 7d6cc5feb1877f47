import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import minhash, one_permutation

UINT64 = st.integers(0, 2**64 - 1)
PAIRS = 2000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(UINT64, max_size=40), max_size=4), st.sampled_from([1, 2, 7, 64]), st.integers(0, 2**32 - 1))
def test_signature_is_that_of_the_reference(sets, size, seed):
    borders = np.cumsum([0] + [len(s) for s in sets]).astype(np.int64)
    found = one_permutation.one_permutation(np.array(sum(sets, []), np.uint64), borders, size, seed)
    assert found.tolist() == [one_permutation.one_permutation_reference(s, size, seed) for s in sets]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.sampled_from([3, 112, 500]), st.data())
def test_parts_of_a_text_in_any_order_give_the_same_signature(count, size, data):
    values = np.random.default_rng(count).integers(0, 2**64, count, dtype=np.uint64)
    whole = one_permutation.one_permutation(values, np.array([0, count]), size, 5)[0]
    cuts = sorted({0, count, *data.draw(st.lists(st.integers(0, count), max_size=6))})
    parts = data.draw(st.permutations(list(zip(cuts[:-1], cuts[1:], strict=True))))
    signature, bins = np.zeros(size, np.uint32), np.full(size, one_permutation.NONE, np.uint64)
    for first, last in parts:
        one_permutation.throw(values[first:last], last - first, 5, bins)
    one_permutation.densify(bins, 5, signature)
    assert np.array_equal(signature, whole)


def both_schemes(sets, borders, size):
    yield "one permutation", one_permutation.one_permutation(sets, borders, size, 1)
    yield "affine32", minhash.minhash(sets, borders, *minhash.permutations(size, 1))


@pytest.mark.parametrize("size", [112, 260])
@pytest.mark.parametrize("count", [5, 40, 200, 2000])
@pytest.mark.parametrize("shared", [0.2, 0.5, 0.8])
def test_estimate_is_unbiased_and_as_sharp_as_the_law(size, count, shared):
    """RMSE at most 1.1 sqrt(J (1 - J) / k); the mean within five of its own standard errors."""
    random = np.random.default_rng(count)
    common = max(1, round(2 * count * shared / (1 + shared)))
    similarity = common / (2 * count - common)
    pairs = PAIRS
    values = random.integers(0, 2**64, (pairs, 2 * count - common), dtype=np.uint64)
    sets = np.concatenate([values[:, :count], values[:, count - common :]], axis=1).reshape(-1)
    borders = np.arange(0, len(sets) + 1, count)
    law = np.sqrt(similarity * (1 - similarity) / size)
    for scheme, signatures in both_schemes(sets, borders, size):
        error = (signatures[0::2] == signatures[1::2]).mean(axis=1) - similarity
        assert abs(error.mean()) < 5 * law / np.sqrt(pairs), scheme
        assert np.sqrt((error**2).mean()) < 1.1 * law, scheme


def test_seeds_choose_different_permutations_and_no_shingles_are_like_nothing():
    values = np.arange(300, dtype=np.uint64)
    one, other = (one_permutation.one_permutation(values, np.array([0, 300, 300]), 64, seed) for seed in (1, 2))
    assert (one[0] != other[0]).all() and (one[1] == minhash.EMPTY).all()
    assert (one_permutation.one_permutation(values[:1], np.array([0, 1]), 200, 0) != minhash.EMPTY).all()
