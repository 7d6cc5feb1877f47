import numpy as np
import pytest

from ropewalk.kernels import grid, kmeans
from ropewalk.kernels.prices import UNIT, balance, extend


def uneven(count=600, topics=6, *, seed=0):
    """Vectors of which half belong to one topic."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(topics, 64))
    topic = np.where(random.random(count) < 0.5, 0, random.integers(0, topics, count))
    return grid.normalise(centres[topic] + 0.7 * random.normal(size=(count, 64))).astype(np.float32), grid.normalise(
        centres
    ).astype(np.float32)


def assigned(vectors, centroids, price):
    """The rule, in integers."""
    scores = np.rint(vectors * 2048).astype(np.int64) @ np.rint(centroids * 2048).astype(np.int64).T
    return (scores - np.rint(price / UNIT).astype(np.int64)).argmax(axis=1)


def test_scores_less_prices_are_exact():
    vectors, centroids = uneven()
    price = (np.random.default_rng(1).integers(0, 2**22, 6) * UNIT).astype(np.float32)
    index, score = kmeans.assign(*extend(vectors, centroids, price))
    expected = assigned(vectors, centroids, price)
    assert np.array_equal(index, expected)
    dots = np.rint(vectors * 2048).astype(np.int64) * np.rint(centroids * 2048).astype(np.int64)[expected]
    assert np.array_equal(score.astype(np.float64), dots.sum(axis=1) / 2**22 - price[expected].astype(np.float64))


@pytest.mark.parametrize("slack", [1.1, 1.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_end_near_the_capacity(slack, seed):
    vectors, centroids = uneven(seed=seed)
    before = np.bincount(assigned(vectors, centroids, np.zeros(6)), minlength=6)
    price = balance(vectors, centroids, slack=slack, rounds=40)
    sizes = np.bincount(assigned(vectors, centroids, price), minlength=6)
    assert before.max() > 250 and sizes.max() <= 1.05 * slack * 100 and price.min() == 0 <= price.max() < 1
    assert np.array_equal(np.rint(price / UNIT) * UNIT, price)
    # Prices move the outer documents: what is lost is less than what any order of places would lose.
    scores = vectors @ centroids.T
    kept = scores[np.arange(600), assigned(vectors, centroids, price)].mean()
    assert scores.max(axis=1).mean() - kept < scores.max(axis=1).mean() - scores.mean()


def test_order_of_the_sample_changes_nothing():
    vectors, centroids = uneven()
    mixed = vectors[np.random.default_rng(2).permutation(600)]
    assert np.array_equal(
        balance(vectors, centroids, slack=1.2, rounds=7), balance(mixed, centroids, slack=1.2, rounds=7)
    )


def test_copies_stay_together_and_little_is_no_matter():
    vectors, centroids = uneven(count=3)
    copies = np.repeat(vectors[:1], 50, axis=0)
    price = balance(copies, centroids, slack=1.0, rounds=20)
    assert len(set(assigned(copies, centroids, price).tolist())) == 1
    assert balance(vectors[:0], centroids, slack=1.0, rounds=5).tolist() == [0] * 6
    assert balance(vectors, centroids[:1], slack=1.0, rounds=5).tolist() == [0]
