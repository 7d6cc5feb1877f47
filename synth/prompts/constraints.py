"""Sentences that ask for a length, and lengths that a finished text keeps (Self-Lengthen, arXiv 2410.23933, §length).

A form is looked up by its kind's name, never by a number, and what was written is read back before it is returned: a
sentence that says something else than it should (in the original, Chinese bounds said the opposite) cannot be made.
"""

import random
from collections.abc import Callable
from typing import Literal

from ropewalk.synth.prompts import required_words
from ropewalk.synth.prompts.numerals import in_chinese
from ropewalk.synth.prompts.required_words import Kind, Length, about, at_least, at_most, between
from ropewalk.synth.recipe import seed_of

FORMS: dict[str, dict[Kind, tuple[str, ...]]] = {
    "en": {
        Kind.ABOUT: (
            "Write about {n} words.",
            "Aim for roughly {n} words.",
            "It should be approximately {n} words long.",
            "Please write around {n} words in total.",
            "Length: about {n} words.",
        ),
        Kind.RANGE: (
            "Write between {lo} and {hi} words.",
            "It should be {lo} to {hi} words long.",
            "Length: {lo}-{hi} words.",
            "Please keep it between {lo} and {hi} words.",
        ),
        Kind.AT_LEAST: (
            "Write at least {n} words.",
            "It should be no shorter than {n} words.",
            "Please write {n} words or more.",
            "Use a minimum of {n} words.",
        ),
        Kind.AT_MOST: (
            "Write at most {n} words.",
            "It should be no longer than {n} words.",
            "Please keep it under {n} words.",
            "Do not exceed {n} words.",
        ),
    },
    "zh": {
        Kind.ABOUT: ("请写{n}字左右。", "篇幅约{n}字。", "字数大约{n}字。", "全文{n}字上下。"),
        Kind.RANGE: ("请写{lo}到{hi}字。", "字数在{lo}至{hi}字之间。", "全文应有{lo}到{hi}字。"),
        Kind.AT_LEAST: ("请写至少{n}字。", "字数不少于{n}字。", "全文{n}字以上。", "篇幅不低于{n}字。"),
        Kind.AT_MOST: ("请写最多{n}字。", "字数不超过{n}字。", "全文控制在{n}字以内。", "篇幅不得超过{n}字。"),
    },
}
"""Sentences by language and kind."""

MIX: dict[Kind, float] = {Kind.ABOUT: 0.4, Kind.RANGE: 0.25, Kind.AT_LEAST: 0.25, Kind.AT_MOST: 0.1}
"""How often each kind is drawn; Self-Lengthen's shares, with names in place of indices."""


def sentence(length: Length, *, language: str, form: int, numerals: Literal["digits", "words"] = "digits") -> str:
    """A sentence that asks for a length.

    Args:
        length: The length.
        language: `en` or `zh`.
        form: Which of the forms; any number, taken modulo their count.
        numerals: `words` writes 两千 in Chinese; English always has digits.
    """
    forms = FORMS[language][length.kind]
    show: Callable[[int], str] = in_chinese if language == "zh" and numerals == "words" else str
    if language == "en":
        show = "{:,}".format
    text = forms[form % len(forms)].format(n=show(length.words), lo=show(length.lo), hi=show(length.hi))
    if required_words.extract(text) != length:
        raise ValueError(f"{text!r} does not read as {length}; make it of about, between, at_least or at_most, >= 50")
    return text


def attach(task: str, length: Length, *, language: str, seed: int) -> str:
    """A task with a sentence that asks for a length after it, read back from the whole.

    Args:
        task: A task that states no length.
        length: The length.
        language: `en` or `zh`.
        seed: Chooses form and numerals.

    Raises:
        ValueError: The task states a length already, so that the whole says something else.
    """
    draw = random.Random(seed)  # noqa: S311 - a choice of words, not a secret
    numerals: Literal["digits", "words"] = "words" if language == "zh" and draw.random() < 0.5 else "digits"
    asked = sentence(length, language=language, form=draw.randrange(1 << 16), numerals=numerals)
    task = task.rstrip()
    ended = task.endswith((".", "!", "?", "。", "！", "？", '"', "”", ":", "："))
    joined = f"{task}{'' if ended else '。'}{asked}" if language == "zh" else f"{task}{'' if ended else '.'} {asked}"
    if required_words.extract(task) is not None or required_words.extract(joined) != length:
        raise ValueError(
            f"with {asked!r} the task does not ask for {length.kind} {length.words}: it names a length itself"
        )
    return joined


def draw_kind(seed: int) -> Kind:
    """A kind of constraint, drawn with the shares of `MIX`."""
    return random.Random(seed).choices(list(MIX), weights=list(MIX.values()))[0]  # noqa: S311


def fit(words: int, kind: Kind, *, seed: int = 0) -> Length:
    """A round length of this kind that a text of so many words keeps, by construction.

    The step is that of Self-Lengthen where it can be (1,000 words, one time in five 2,000), and finer where the text
    would be outside: 1,000, 500, 100, 50, 10, 1.

    Args:
        words: Words of the finished text, at least 50.
        kind: Kind of constraint.
        seed: Chooses the step.
    """
    if words < 50:
        raise ValueError(f"a text of {words} words is too short for a constraint; 50 is the least")
    first = 2000 if seed_of("step", seed) % 5 == 0 else 1000
    for step in (first, 1000, 500, 100, 50, 10, 1):
        length = _round(words, kind, step)
        if length.words >= 50 and length.lo >= 10 and length.lo <= words <= length.hi:
            return length
    raise AssertionError(f"a step of 1 keeps {words} words")


def _round(words: int, kind: Kind, step: int) -> Length:
    down = words // step * step
    match kind:
        case Kind.ABOUT:
            return about((words + step // 2) // step * step)
        case Kind.RANGE:
            return between(down, down + step)
        case Kind.AT_LEAST:
            return at_least(down)
        case Kind.AT_MOST:
            return at_most(-(-words // step) * step)
