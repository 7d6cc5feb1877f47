import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ropewalk.synth.scores.composite import (
    advantages,
    choose,
    composite,
    duplicated_paragraphs,
    format_reward,
    lexical_vectors,
)

GROUPS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-1e3, 1e3, width=16)
)


def test_by_hand() -> None:
    # Length: mean 0.5, distances .5 0 -.5. Writing: mean 20, distances -10 40 -30.
    found = advantages([[1.0, 0.5, 0.0], [10.0, 60.0, -10.0]])
    assert found == pytest.approx(np.array([[1, 0, -1], [-0.25, 1, -0.75]]))
    figures = composite([[1.0, 0.5, 0.0], [10.0, 60.0, -10.0]])
    assert figures == pytest.approx([(1 + 0.375) / 2, (1 + 0.5) / 2, (1 - 0.875) / 2])
    assert choose(figures) == (1, 2)


def test_repetition_cannot_be_paid_for() -> None:
    rewards = [[1.0, 0.0, 0.2], [5.0, 1.0, 1.1]]
    assert choose(composite(rewards)) == (0, 1)
    assert choose(composite(rewards, veto=[0, 1, 1])) == (2, 0)


@given(GROUPS)
def test_equals_the_z_score_over_its_largest_size(rewards: np.ndarray) -> None:
    for row, found in zip(rewards, advantages(rewards), strict=True):
        if np.ptp(row) < 1e-6:
            assert np.allclose(found, 0) or np.abs(found).max() <= 1
            continue
        z = (row - row.mean()) / row.std()
        assert found == pytest.approx(z / np.abs(z).max(), abs=1e-9)


@given(GROUPS, st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_of_a_scorer_does_not_matter(rewards: np.ndarray, factor: float, shift: float) -> None:
    spread = np.ptp(rewards, axis=1)
    if ((spread > 0) & (spread < 1e-2)).any():
        return
    changed = rewards.copy()
    changed[0] = rewards[0] * factor + shift
    assert composite(changed) == pytest.approx(composite(rewards), abs=1e-6)


def test_equal_candidates_have_no_preference() -> None:
    assert choose(composite([[0.1, 0.1, 0.1], [0.3, 0.3, 0.3]])) is None
    assert choose([0.5]) is None
    assert choose([0.5, 0.7, 0.7, 0.5]) == (1, 0)


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [[]], [[1.0, float("nan")]]])
def test_refuses_what_is_no_group(rewards: list) -> None:
    with pytest.raises(ValueError, match="rewards are finite"):
        advantages(rewards)
    with pytest.raises(ValueError, match="veto"):
        composite([[1.0, 2.0]], veto=[1.0])
    with pytest.raises(ValueError, match="veto"):
        composite([[1.0, 2.0]], veto=[1.0, 2.0])


def words(start: int, count: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join(letters[n // 26 % 26] + letters[n % 26] + "x" for n in range(start, start + count))


def test_lexical_vectors_are_cosines() -> None:
    rows = lexical_vectors(["a b c d", "a b", "", "你好"])
    assert rows @ rows.T == pytest.approx(
        np.array([[1, 2 / np.sqrt(8), 0, 0], [2 / np.sqrt(8), 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    )


def test_duplicated_paragraphs_are_counted_once_each() -> None:
    one, two = words(0, 50), words(100, 50)
    assert duplicated_paragraphs(f"{one}\n\n{two}") == 0
    assert duplicated_paragraphs(f"{one}\n\n{two}\n\n{one} zz") == pytest.approx(1 / 3)
    assert duplicated_paragraphs(f"{one}\n\n{one}\n\n{one}\n\n{two}") == pytest.approx(2 / 4)
    short = words(0, 40)
    assert duplicated_paragraphs(f"{short}\n\n{short}") == 0


def test_an_embedder_decides_instead() -> None:
    text = f"{words(0, 50)}\n\n{words(100, 50)}"
    assert duplicated_paragraphs(text, vectors=lambda texts: [[1.0, 0.0]] * len(texts)) == 0.5


def test_format_needs_one_thought_and_one_answer() -> None:
    answer = f"{words(0, 50)}\n\n{words(0, 50)}\n\n{words(100, 50)}\n\n{words(200, 50)}"
    assert format_reward(f"<think>so</think>\n<answer>{answer}</answer>", thought=True) == pytest.approx(0.75)
    assert format_reward(answer) == pytest.approx(0.75)
    for bad in (
        answer,
        f"<think>so</think>{answer}",
        f"<think>a</think><think>b</think><answer>{answer}</answer>",
        f"<think>a</think><answer>{answer}</answer><answer>b</answer>",
        f"<answer>{answer}</answer><think>a</think>",
        "<think>a</think><answer> </answer>",
    ):
        assert format_reward(bad, thought=True) == 0
