import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.synth.scores.length import interval_score, length_reward, s_l


@pytest.mark.parametrize(
    ("actual", "score"),
    [(0, 0), (334, 0.30), (400, 25), (500, 50), (800, 87.5), (1000, 100), (1500, 83.33), (2000, 66.67), (4000, 0)],
)
def test_s_l_of_the_published_vectors(actual: int, score: float) -> None:
    assert s_l(1000, actual) == pytest.approx(score, abs=0.005)


@given(st.integers(1, 10**5), st.integers(0, 10**6))
def test_s_l_is_a_score_that_is_full_at_the_length_only(required: int, actual: int) -> None:
    score = s_l(required, actual)
    assert 0 <= score <= 100
    assert (score == 100) == (actual == required)
    if actual >= 4 * required or 3 * actual <= required:
        assert score == pytest.approx(0, abs=1e-9)
    else:
        assert score > 0
        towards = actual + (1 if actual < required else -1 if actual > required else 0)
        assert s_l(required, towards) >= score


@pytest.mark.parametrize(
    ("actual", "score"),
    [(1800, 0.5), (4500, 0.5), (1200, 0), (5400, 0), (2400, 1), (3000, 1), (3600, 1), (0, 0), (10**6, 0)],
)
def test_interval_score_of_the_published_vectors(actual: int, score: float) -> None:
    assert interval_score(2400, 3600, actual) == pytest.approx(score)


def test_interval_without_a_lower_bound() -> None:
    assert interval_score(0, 500, 0) == 1
    assert interval_score(0, 500, 625) == 0.5


@pytest.mark.parametrize(
    ("actual", "reward"),
    [(0, 0), (500, 0.5), (1000, 1), (2000, 1), (2500, 0.75), (3000, 0.5), (4000, 0), (9000, 0)],
)
def test_length_reward_is_linear_to_nothing_and_to_the_cap(actual: int, reward: float) -> None:
    assert length_reward(1000, 2000, 4000, actual) == pytest.approx(reward)


def test_length_reward_at_the_cap() -> None:
    assert length_reward(1000, 2000, 2000, 2000) == 1
    assert length_reward(1000, 2000, 2000, 2001) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: s_l(0, 5),
        lambda: s_l(5, -1),
        lambda: interval_score(5, 4, 1),
        lambda: interval_score(0, 0, 1),
        lambda: length_reward(1, 5, 4, 1),
    ],
)
def test_refuses_what_is_no_length(call) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        call()
