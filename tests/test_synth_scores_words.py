import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.synth.scores.words import count_words, language_of, tokens_of


def reference(text: str) -> int:
    """The benchmark's counter, one character at a time."""
    ideographs = sum(0x4E00 <= ord(character) <= 0x9FFF for character in text)
    runs = re.split(r"[^\w]", text)  # whole words: letters, digits and underscores of any script
    english = sum(bool(run) and all(c.isascii() and c.isalpha() for c in run) for run in runs)
    return ideographs + english


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("One two, three.", 3),
        ("don't", 2),
        ("well-known", 2),
        ("in 1984, 2 000 times", 2),
        ("x86 and co2", 1),
        ("snake_case", 0),
        ("你好，世界！", 4),
        ("使用 Python 编程", 5),
        ("使用Python编程", 4),
        ("〇々㐀", 0),
        ("café", 0),
        ("12345 ６７８", 0),
    ],
)
def test_counts_words_as_the_benchmark_does(text: str, words: int) -> None:
    assert count_words(text) == words


@given(st.text(st.sampled_from("ab Z_0９é中文.-'\n\u4dff\u9fff\ua000")))
def test_agrees_with_a_counter_of_single_characters(text: str) -> None:
    assert count_words(text) == reference(text)


@given(st.lists(st.text(st.sampled_from("ab 中文.0"))))
def test_paragraphs_add_up(paragraphs: list[str]) -> None:
    assert count_words("\n\n".join(paragraphs)) == sum(map(count_words, paragraphs))


def test_language_is_that_of_most_words() -> None:
    assert language_of("Write about tea") == "en"
    assert language_of("写一篇关于 tea 的文章") == "zh"
    assert language_of("Explain what 茶 means to me") == "en"
    assert language_of("") == language_of("123") == "en"


def test_tokens_grow_with_words_and_are_at_least_one() -> None:
    assert tokens_of(0, "en") == 1
    assert tokens_of(1000, "en") >= 1300
    assert tokens_of(1000, "xx") >= max(tokens_of(1000, "en"), tokens_of(1000, "zh"))
