import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.grid import normalise
from ropewalk.kernels.semantic_duplicates import semantic_duplicates, semantic_duplicates_reference


def at_angles(*angles):
    return normalise(np.array([[math.cos(angle), math.sin(angle)] for angle in angles]))


def test_gold_of_the_two_rules():
    """recipes-corpus §6.2: unit vectors at angles 0, t, 2t with cos t = 0.96 (pairs .96, .96, .8432), epsilon 0.05."""
    angle = math.acos(0.96)
    vectors = at_angles(0, angle, 2 * angle)
    other, cosine = semantic_duplicates(vectors, 0.05, survivors=False)
    assert other.tolist() == [-1, 0, 1] and cosine == pytest.approx([0, 0.96, 0.96], abs=1e-3)
    other, cosine = semantic_duplicates(vectors, 0.05, survivors=True)
    assert other.tolist() == [-1, 0, -1] and cosine == pytest.approx([0, 0.96, 0], abs=1e-3)


def clouds(random, count, *, topics, noise, width=16):
    centres = random.standard_normal((topics, width))
    return normalise(centres[random.integers(0, topics, count)] + noise * random.standard_normal((count, width)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
    noise=st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    epsilon=st.sampled_from([1e-6, 0.02, 0.1, 0.5, 0.999]),
    survivors=st.booleans(),
    block=st.integers(1, 50),
)
def test_blocks_do_what_pairs_do(seed, count, noise, epsilon, survivors, block):
    random = np.random.default_rng(seed)
    vectors = clouds(random, count, topics=4, noise=noise)
    vectors[random.random(count) < 0.1] = 0
    expected = semantic_duplicates_reference(vectors, epsilon, survivors=survivors)
    found = semantic_duplicates(vectors, epsilon, survivors=survivors, block=block)
    assert found[0].tolist() == expected[0].tolist() and found[1].tolist() == expected[1].tolist()
    if survivors:  # no survivor is near another one, and whoever goes is near one
        kept = np.flatnonzero(found[0] < 0)
        assert set(found[0][found[0] >= 0]) <= set(kept)
        again, _ = semantic_duplicates(vectors[kept], epsilon, survivors=True)
        assert (again < 0).all()


def test_block_sizes_change_nothing_at_full_width():
    random = np.random.default_rng(3)
    vectors = clouds(random, 3000, topics=300, noise=0.2, width=256)
    whole = semantic_duplicates(vectors, 0.05, survivors=True, block=4096)
    parts = semantic_duplicates(vectors, 0.05, survivors=True, block=97)
    assert 1000 < (whole[0] >= 0).sum() < 2990
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, parts, strict=True))


def test_equal_vectors_have_cosine_one_however_small_epsilon_is():
    vector = normalise(np.random.default_rng(0).standard_normal((1, 256)))
    assert (vector.astype(np.float64) ** 2).sum() != 1  # on the grid the length is only about 1
    other, cosine = semantic_duplicates(np.repeat(vector, 5, axis=0), 1e-12, survivors=True, block=2)
    assert other.tolist() == [-1, 0, 0, 0, 0] and cosine.tolist() == [0, 1, 1, 1, 1]


def test_vectors_without_a_direction_are_like_no_other():
    other, cosine = semantic_duplicates(np.zeros((4, 8), np.float16), 0.9, survivors=False)
    assert other.tolist() == [-1] * 4 and cosine.tolist() == [0.0] * 4
