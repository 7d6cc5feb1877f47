"""Verdicts of the loop detector on constructed loops and on text that only looks like one."""

import array
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.synth.guards.loops import Loop, find_loop, find_text_loop

DRAW = np.random.default_rng(7)
WORDS = [f"{a}{b}{c}" for a in "bdfklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lk", "")]


def sentence(words=12):
    return " ".join(DRAW.choice(WORDS, words)) + "."


PROSE = "\n\n".join(" ".join(sentence() for _ in range(8)) for _ in range(12))
BLOCK = "\n".join(sentence(8) for _ in range(92)) + "\n"
CHORUS = "\n".join(sentence(6) for _ in range(4))
LOOPS = {
    "one word": "very " * 300,
    "one sign": "! " * 300,
    "sentence": sentence() * 25,
    "line": (sentence(9) + "\n") * 30,
    "numbered line": "".join(f"{i}. the same words once more, and not one of them new\n" for i in range(1, 40)),
    "paragraph": (" ".join(sentence() for _ in range(8)) + "\n\n") * 4,
    "block of 92 lines, 3 copies": BLOCK * 3,
    "block of 92 lines, 32 copies": BLOCK * 32,
    "zh sentence": "他走进房间，看见桌上放着一封信。" * 30,
    "zh one word": "哈" * 300,
}
NO_LOOPS = {
    "prose": PROSE,
    "block of 92 lines, 2 copies": BLOCK * 2,
    "refrain": "\n\n".join(f"{' '.join(sentence(6) for _ in range(4))}\n\n{CHORUS}" for _ in range(10)),
    "refrain twice at the end": PROSE + f"\n\n{CHORUS}" * 2,
    "table": "".join(
        f"| {i} | {DRAW.choice(WORDS)} {DRAW.choice(WORDS)} | {DRAW.integers(9999)} | yes |\n" for i in range(80)
    ),
    "records": "".join(
        f'{{"id": {i}, "name": "{DRAW.choice(WORDS)}", "type": "user", "on": true}}\n' for i in range(80)
    ),
    "numbered list": "".join(f"{i}. {sentence(7)}\n" for i in range(1, 60)),
    "list of the same shape": "".join(f"{i}. The capital of {a} is {a}-{i}.\n" for i, a in enumerate(WORDS)),
    "countdown": "".join(f"{99 - i} - {i} = {99 - 2 * i}, so {99 - 2 * i} is left; next {i + 1}.\n" for i in range(60)),
    "bottles": "".join(
        f"{i} bottles of beer on the wall, {i} bottles of beer. Take one down, {i - 1} bottles are left.\n"
        for i in range(99, 1, -1)
    ),
    "code": "".join(
        f"def test_{a}():\n    value = build_{a}({i})\n    assert value.{b} == {i * 7}\n\n"
        for i, (a, b) in enumerate(zip(WORDS, WORDS[9:], strict=False))
    ),
    "rule of dashes": PROSE + "\n\n" + "- " * 120,
    "dotted leader": PROSE + "\nChapter one " + "." * 200,
    "ellipses": PROSE + "\n" + "… " * 60,
    "table rule": "| a | b |\n" + "|---" * 40 + "|",
    "zh prose": "春天来了，山上的雪渐渐化了，河里的水涨起来。老人坐在门口，望着远处的路，想起许多年前的事。" + PROSE,
    "zh list": "".join(
        f"{i}、{''.join(DRAW.choice(list('天地人山水火木金土日月星风云雨'), 9))}。\n" for i in range(80)
    ),
}


@pytest.mark.parametrize("kind", LOOPS)
def test_loops_are_found_behind_prose(kind):
    loop = find_text_loop(f"{PROSE}\n\n{LOOPS[kind]}")
    assert loop is not None
    assert abs(loop.start - len(PROSE)) < 30  # "numbered line": the first number is no copy of the others
    assert loop.copies >= 3


@pytest.mark.parametrize("kind", NO_LOOPS)
def test_what_is_no_loop(kind):
    text = NO_LOOPS[kind]
    ends = [match.end() for match in re.finditer(r"\s", text)][-400::7]
    assert [end for end in [*ends, len(text)] if find_text_loop(text[:end])] == []


def test_a_long_block_fires_with_its_third_copy_and_not_before():
    draw = np.random.default_rng(0)
    before, block = draw.integers(0, 50_000, 4000), draw.integers(0, 50_000, 1100)
    tokens = np.concatenate([before, np.tile(block, 32)])
    fires = [n for n in range(256, len(tokens) + 1, 256) if find_loop(tokens[:n])]
    assert fires == list(range(-(-(4000 + 3300) // 256) * 256, len(tokens) + 1, 256))
    assert find_loop(tokens) == Loop(start=4000, period=1100, copies=32)


@pytest.mark.parametrize(
    "make", [list, tuple, lambda tokens: array.array("q", tokens), np.array, lambda t: np.array(t, np.uint32)]
)
def test_any_sequence_of_numbers_will_do(make):
    tokens = [*range(100), *([7, 8, 9] * 100)]
    assert find_loop(make(tokens)) == Loop(start=100, period=3, copies=100)
    assert find_loop(make(tokens[:-50])) is None


def test_the_start_of_a_loop_longer_than_what_is_read():
    tokens = [*range(1000), *([1, 2, 3, 4, 5] * 4000)]
    assert find_loop(tokens, max_period=50) == Loop(start=1000, period=5, copies=4000)
    assert find_loop(np.tile(np.arange(60), 30), max_period=50) is None


def test_wrong_and_empty_input():
    assert find_loop([]) is None
    assert find_text_loop("") is None
    with pytest.raises(ValueError, match="at least 2"):
        find_loop([1], min_copies=1)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(0, 500), st.integers(0, 10_000))
def test_every_period_is_found_once_it_is_long_enough(period, before, seed):
    draw = np.random.default_rng(seed)
    block = draw.integers(0, 1_000_000, period)
    copies = max(3, -(-256 // period))
    tokens = np.concatenate([draw.integers(1_000_000, 2_000_000, before), np.tile(block, copies)])
    assert find_loop(tokens) == Loop(start=before, period=period, copies=copies)
