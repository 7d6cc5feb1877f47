import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.synth.prompts import constraints
from ropewalk.synth.prompts.required_words import Kind, about, at_least, at_most, between, extract

MAKE = {Kind.ABOUT: about, Kind.AT_LEAST: at_least, Kind.AT_MOST: at_most, Kind.RANGE: lambda n: between(n, 2 * n)}

# What a reader understands, word by word, kept apart from the code that reads lengths.
MEANS = {
    Kind.ABOUT: r"about|around|roughly|approximately|左右|约|上下",
    Kind.RANGE: r"between .* and|\d to \d|\d-\d|到|至|\d-\d",
    Kind.AT_LEAST: r"at least|no shorter than|or more|minimum|至少|不少于|以上|不低于",
    Kind.AT_MOST: r"at most|no longer than|under|exceed|最多|不超过|以内|不得超过",
}


def test_every_language_has_several_forms_of_every_kind() -> None:
    assert set(constraints.FORMS) == {"en", "zh"}
    for forms in constraints.FORMS.values():
        assert set(forms) == set(Kind)
        assert all(len(set(sentences)) >= 3 for sentences in forms.values())


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("number", [100, 800, 2000, 12_000])
@pytest.mark.parametrize("numerals", ["digits", "words"])
def test_every_form_says_its_own_kind_and_is_read_back(language, kind, number, numerals) -> None:
    length = MAKE[kind](number)
    for form in range(len(constraints.FORMS[language][kind])):
        text = constraints.sentence(length, language=language, form=form, numerals=numerals)
        assert extract(text) == length, text
        assert re.search(MEANS[kind], text), text
        others = {k for k, words in MEANS.items() if k is not kind and re.search(words, text)} - {Kind.RANGE}
        assert not others, text


def test_chinese_numerals_are_used_if_asked() -> None:
    text = constraints.sentence(about(2500), language="zh", form=0, numerals="words")
    assert "两千五百" in text
    assert not re.search(r"\d", text)


@given(st.integers(50, 60_000), st.sampled_from(list(Kind)), st.integers(0, 100), st.sampled_from(["en", "zh"]))
def test_a_finished_text_keeps_the_length_it_is_given(words, kind, seed, language) -> None:
    length = constraints.fit(words, kind, seed=seed)
    assert length.kind is kind
    assert length.lo <= words <= length.hi
    if kind is Kind.AT_LEAST:
        assert words >= length.words
    if kind is Kind.AT_MOST:
        assert words <= length.words
    task = "请写一篇关于茶的文章" if language == "zh" else "Write about tea"
    assert extract(constraints.attach(task, length, language=language, seed=seed)) == length


def test_lengths_are_round_thousands_where_self_lengthen_has_them() -> None:
    fitted = [constraints.fit(words, Kind.AT_LEAST, seed=words) for words in range(2000, 8000)]
    assert all(length.words % 1000 == 0 for length in fitted)
    by_two = sum(length.words == length.lo and length.words % 2000 == 0 for length in fitted) / len(fitted)
    assert 0.5 < by_two < 0.7  # half of the 80 % and all of the 20 %


def test_kinds_are_drawn_in_their_shares() -> None:
    drawn = Counter(constraints.draw_kind(seed) for seed in range(20_000))
    assert sum(constraints.MIX.values()) == pytest.approx(1)
    for kind, share in constraints.MIX.items():
        assert drawn[kind] / 20_000 == pytest.approx(share, abs=0.015)


def test_attaching_is_repeatable_and_varied() -> None:
    texts = [constraints.attach("请写一篇关于茶的文章", about(2000), language="zh", seed=seed) for seed in range(60)]
    assert texts == [constraints.attach("请写一篇关于茶的文章", about(2000), language="zh", seed=s) for s in range(60)]
    assert len(set(texts)) == 2 * len(constraints.FORMS["zh"][Kind.ABOUT])


def test_a_task_that_names_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="names a length itself"):
        constraints.attach("Write 500 words about tea.", about(2000), language="en", seed=0)
    with pytest.raises(ValueError, match="too short"):
        constraints.fit(49, Kind.ABOUT)
