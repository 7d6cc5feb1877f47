import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.synth.prompts import constraints, numerals, required_words
from ropewalk.synth.prompts.required_words import Kind, about, at_least, at_most, between, extract

STATED = [
    ("Write an essay in 1,500 words about 1984.", about(1500)),
    ("Write a 2,000-word article on tea", about(2000)),
    ("a 1.5k-word story", about(1500)),
    ("10k words", about(10_000)),
    ("２０００ words", about(2000)),
    ("exactly 500 words", about(500)),
    ("two thousand five hundred words", about(2500)),
    ("one hundred and fifty words", about(150)),
    ("a thousand words", about(1000)),
    ("Explain it in 30 words", about(30)),
    ("Word count: 1500", about(1500)),
    ("Rewrite this in 300 words", about(300)),
    ("Write 800 Chinese characters on rain", about(800)),
    ("Summarize this 5000 word article in 300 words", about(300)),
    ("5 sections of 300 words, 1500 words in total", about(1500)),
    ("A 2000-word essay with an introduction of 200 words and a conclusion (200 words)", about(2000)),
    ("Write at least 1000 words", at_least(1000)),
    ("no fewer than 800 words", at_least(800)),
    ("It should not be less than 500 words.", at_least(500)),
    ("more than 800 words", at_least(800)),
    ("1000 words or more", at_least(1000)),
    ("1000+ words", at_least(1000)),
    ("minimum word count: 1000", at_least(1000)),
    ("Your essay must not exceed 600 words", at_most(600)),
    ("less than 500 words", at_most(500)),
    ("no more than 400 words", at_most(400)),
    ("within 300 words", at_most(300)),
    ("up to 700 words", at_most(700)),
    ("a word limit of 500", at_most(500)),
    ("500 words max", at_most(500)),
    ("limit your answer to 250 words", at_most(250)),
    ("between 1,000 and 1,500 words", between(1000, 1500)),
    ("1000 – 1500 words", between(1000, 1500)),
    ("2-3k words", between(2000, 3000)),
    ("two to three thousand words", between(2000, 3000)),
    ("Word count: 1500-2000 words", between(1500, 2000)),
    ("at least 1000 words but no more than 1500 words", between(1000, 1500)),
    ("写一篇2000字的文章", about(2000)),
    ("1984年的2000字作文", about(2000)),
    ("两万五千字", about(25_000)),
    ("1.5万字", about(15_000)),
    ("写一篇万字长文", about(10_000)),
    ("字数在3000字左右", about(3000)),
    ("控制在1000字左右", about(1000)),
    ("三千五百字上下", about(3500)),
    ("２０００字", about(2000)),
    ("总字数约5000字，分五章，每章1000字", about(5000)),
    ("写一篇不少于三千字的小说", at_least(3000)),
    ("至少2千字", at_least(2000)),
    ("5000字以上", at_least(5000)),
    ("字数要求3000字以上", at_least(3000)),
    ("不得少于1200字", at_least(1200)),
    ("上万字", at_least(10_000)),
    ("3000多字", at_least(3000)),
    ("每节不少于500字，全文不少于5000字", at_least(5000)),
    ("不超过800字", at_most(800)),
    ("控制在1000字以内", at_most(1000)),
    ("3000-5000字", between(3000, 5000)),
    ("三到五千字", between(3000, 5000)),
    ("两三千字", between(2000, 3000)),
    ("字数：2000-3000", between(2000, 3000)),
    ("不少于1000字，不超过1500字", between(1000, 1500)),
]

UNSTATED = [
    "",
    "Write about the year 1984.",
    "Write 5 paragraphs about the top 10 cities, with 3 characters and 20 lines",
    "Use 1,000 examples",
    "a few hundred words",
    "several thousand words",
    "300 words per section",
    "each section should be about 300 words",
    "Write 200-word paragraphs",
    "Explain my 500-word essay",
    "Translate these 200 words",
    "use these 10 words in a story",
    "the 1000 characters of the novel",
    "a speech at 150 words per minute",
    "Write 300 words. Then 400 words.",
    "in 1 500 words",
    "a word on this, in other words",
    "3个字母",
    "用四字成语",
    "几千字",
    "千字文的历史",
    "每段300字",
    "概括以上500字的内容",
    "文件大小为100字节",
    "2023年第3000期",
    "分5章，写3个人物",
]


@pytest.mark.parametrize(("task", "length"), STATED)
def test_reads_the_length_a_task_states(task: str, length: required_words.Length) -> None:
    assert extract(task) == length


@pytest.mark.parametrize("task", UNSTATED)
def test_takes_nothing_else_for_a_length(task: str) -> None:
    assert extract(task) is None


def test_pages_count_only_if_asked() -> None:
    assert extract("Write a 10-page report") is None
    assert extract("Write a 10-page report", pages=True) == about(3000)
    assert extract("写一份五页的报告", pages=True) == about(1500)
    assert extract("Write a 10-page report of 2,000 words", pages=True) == about(2000)


@pytest.mark.parametrize("number", [1, 49, 100, 999, 1001, 12_345])
def test_intervals_of_longen(number: int) -> None:
    length = about(number)
    assert length.lo - 1 < 0.8 * number <= length.lo
    assert length.hi <= 1.2 * number < length.hi + 1
    assert (at_least(number).lo, at_most(number).hi) == (number, number)
    assert at_least(number).hi <= 1.5 * number < at_least(number).hi + 1
    assert at_most(number).lo - 1 < 0.5 * number <= at_most(number).lo
    assert between(number, 3 * number).words == 2 * number


SURROUNDINGS = st.sampled_from(
    [
        ("", ""),
        ("Write an essay about 1984, the year. ", " Divide it in 5 chapters with 3 characters."),
        ("Tell me of the top 10 battles between 1914 and 1918. ", " Think of page 7, too."),
        ("请写一篇关于1984年的文章，分五章，介绍三个人物。", "第2章要有10个例子。"),
    ]
)


def lengths() -> st.SearchStrategy[required_words.Length]:
    number = st.one_of(st.integers(50, 50_000), st.integers(1, 500).map(lambda n: 100 * n))
    single = st.builds(lambda make, n: make(n), st.sampled_from([about, at_least, at_most]), number)
    return single | st.builds(lambda n, more: between(n, n + more), number, number)


@given(lengths(), st.sampled_from(["en", "zh"]), st.integers(0, 20), st.booleans(), SURROUNDINGS)
def test_reads_back_every_sentence_that_asks_for_a_length(length, language, form, words, around) -> None:
    asked = constraints.sentence(length, language=language, form=form, numerals="words" if words else "digits")
    assert extract(around[0] + asked + around[1]) == length


@given(st.text(max_size=200) | st.text(st.sampled_from("0123456789,. kw-千万百字words 至少mostleast两"), max_size=60))
def test_any_text_has_a_sound_length_or_none(text: str) -> None:
    for length in (extract(text), extract(text, pages=True)):
        assert length is None or 0 < length.lo <= length.words <= length.hi
        assert length is None or length.kind in Kind


def test_long_hostile_tasks_come_to_an_end() -> None:
    # With a backtracking pattern of quadratic time this would run into pytest's timeout.
    draw = random.Random(3)
    pieces = ["one hundred", "1,000", "-", "at least", "字", "两千", "between"]
    assert extract(" ".join(draw.choice(pieces) for _ in range(20_000))) is None
    assert extract("9" * 100_000) is None
    assert extract("one " * 30_000) is None
    assert extract("one " * 30_000 + "Write two thousand words.") == about(2000)


@given(st.integers(1, 10**8 - 1))
def test_chinese_numerals_are_read_as_they_are_written(number: int) -> None:
    assert numerals.read_chinese(numerals.in_chinese(number)) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("十", 10),
        ("十二", 12),
        ("二十", 20),
        ("一百一十", 110),
        ("三百零五", 305),
        ("三百二", 320),
        ("一千零五十", 1050),
        ("一万零五百", 10_500),
        ("两万五", 25_000),
        ("两万零五", 20_005),
        ("二〇〇〇", 2000),
        ("三百二十万", 3_200_000),
        ("3千", 3000),
        ("1.5万", 15_000),
        ("2,500", 2500),
        ("二二千", None),
        ("百千", None),
    ],
)
def test_chinese_numerals_by_hand(text: str, number: int | None) -> None:
    assert numerals.read_chinese(text) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [(200, "二百"), (2000, "两千"), (2500, "两千五百"), (20_000, "两万"), (220_000, "二十二万"), (15, "十五")],
)
def test_chinese_numerals_as_people_write_them(number: int, text: str) -> None:
    assert numerals.in_chinese(number) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("a thousand", 1000),
        ("twenty-five hundred", 2500),
        ("three thousand two hundred and forty-two", 3242),
        ("a hundred thousand", 100_000),
        ("1.5k", 1500),
        ("2 thousand", 2000),
        ("12,000", 12_000),
        ("1.25", None),
        ("two three", None),
        ("hundred thousand hundred thousand", None),
    ],
)
def test_english_numbers(text: str, number: int | None) -> None:
    assert numerals.read_english(text) == number


@given(st.text())
def test_folding_keeps_places(text: str) -> None:
    assert len(numerals.fold(text)) == len(text)
