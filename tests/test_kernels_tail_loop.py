import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.near_loop import near_loop
from ropewalk.kernels.tail_loop import tail_loop, tail_loop_reference

tails = st.tuples(
    st.lists(st.integers(0, 2), max_size=15), st.lists(st.integers(0, 2), min_size=1, max_size=9), st.integers(0, 6),
    st.integers(0, 8),
).map(lambda parts: parts[0] + parts[1] * parts[2] + parts[1][: parts[3]])  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(tails, st.integers(2, 4), st.integers(0, 12), st.integers(1, 20))
def test_against_comparing_every_token(tokens, copies, least, longest):
    got = tail_loop(np.array(tokens, np.int64), copies, least, longest)
    assert got == tail_loop_reference(tokens, copies, least, longest)


@pytest.mark.parametrize(
    ("tokens", "found"),
    [("xyzababab", (2, 6)), ("xyzabababa", (2, 7)), ("xaaaa", (1, 4)), ("abcabcabx", (0, 0)), ("", (0, 0))],
)
def test_by_hand(tokens, found):
    assert tail_loop(np.array([ord(c) for c in tokens], np.int64), 3, 4, 100) == found


def counted(copies, width=20, changes=1, seed=0):
    """Copies of one block in each of which `changes` tokens are new, spread over it, with other tokens before."""
    draw = np.random.default_rng(seed)
    block = draw.integers(1000, 2000, width)
    out = [draw.integers(0, 1000, 50)]
    for copy in range(copies):
        block = block.copy()
        block[np.arange(changes) * width // changes] = 10_000 + changes * copy + np.arange(changes)
        out.append(block)
    return np.concatenate(out)


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_one_changed_place_a_copy_is_a_loop_wherever_the_text_is_cut(cut):
    tokens = counted(40)[: -cut or None]
    period, span = near_loop(tokens, 8, 256, 1000, 0.1)
    assert period == 20
    assert len(tokens) - 50 - 20 <= span <= len(tokens) - 50 + 1  # the first copy may fall short by its changed token


def test_a_counter_that_grows_by_a_token():
    draw = np.random.default_rng(1)
    block = draw.integers(1000, 2000, 20).tolist()
    tokens = []
    for number in range(1, 40):
        tokens += [*map(int, str(number)), *block]
    period, span = near_loop(np.array(tokens), 8, 256, 1000, 0.1)
    assert period == 22 and span > 22 * 8


@pytest.mark.parametrize(("changes", "width"), [(2, 20), (3, 40), (5, 12)])
def test_records_that_differ_in_several_places_are_no_loop(changes, width):
    assert near_loop(counted(60, width, changes), 8, 256, 1000, 0.1) == (0, 0)


def test_too_few_copies_or_tokens():
    assert near_loop(counted(7, 60), 8, 256, 1000, 0.1) == (0, 0)
    assert near_loop(counted(12, 20), 8, 256, 1000, 0.1) == (0, 0)
    assert near_loop(np.random.default_rng(0).integers(0, 50, 5000), 8, 256, 1000, 0.1) == (0, 0)
