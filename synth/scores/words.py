"""The one counter of words: prompts, plans, gates and scores all count like this (LongBench-Write, arXiv 2408.07055).

    words(text) = #{CJK ideographs U+4E00 to U+9FFF} + #{runs of ASCII letters that are whole words}

A whole word is bounded by what is neither letter, digit nor underscore in Unicode's sense. So digits do not count, nor
does `x86`, nor an English word that touches an ideograph (the benchmark's counter has it so, and figures must agree);
`don't` counts twice.
"""

import re
from typing import Literal

_IDEOGRAPH = re.compile("[\u4e00-\u9fff]")
_WORD = re.compile(r"\b[A-Za-z]+\b")

TOKENS_PER_WORD = {"en": 1.4, "zh": 1.6}
"""Tokens of one word of prose, on the generous side; small English vocabularies need 2 or more for an ideograph."""


def count_words(text: str) -> int:
    """Words of a text in any mix of English and Chinese."""
    return len(_IDEOGRAPH.findall(text)) + len(_WORD.findall(text))


def language_of(text: str) -> Literal["en", "zh"]:
    """`zh` if the text has as many ideographs as English words or more, and any; else `en`."""
    ideographs = len(_IDEOGRAPH.findall(text))
    return "zh" if ideographs and ideographs >= len(_WORD.findall(text)) else "en"


def tokens_of(words: float, language: str) -> int:
    """Tokens that so many words are likely to need, at least 1."""
    return max(1, round(words * TOKENS_PER_WORD.get(language, max(TOKENS_PER_WORD.values()))))
