import numpy as np
import pytest

from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synthesis import GUARD_METRICS
from ropewalk.synth.guards import check, table
from ropewalk.synth.guards.check import Guards
from ropewalk.synth.guards.metrics import measure
from ropewalk.synth.recipe import Unacceptable

DRAW = np.random.default_rng(11)
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "or", "is")]
HANZI = [chr(code) for code in range(0x4E00, 0x4E00 + 900)]


def sentence(words=12):
    chosen = ["".join(DRAW.choice(SYLLABLES, int(DRAW.integers(1, 4)))) for _ in range(words)]
    return " ".join(chosen).capitalize() + "."


def paragraph(sentences=7):
    return " ".join(sentence() for _ in range(sentences))


CLEAN = "\n\n".join(paragraph() for _ in range(10))
ZH = "\n\n".join("".join("".join(DRAW.choice(HANZI, 14)) + "。" for _ in range(12)) for _ in range(8))
GUARDS = Guards()


def refusal(text, language="en", **options):
    with pytest.raises(Unacceptable) as caught:
        GUARDS.check(text, language=language, **options)
    return caught.value


@pytest.mark.parametrize(("text", "language"), [(CLEAN, "en"), (ZH, "zh"), ("A short one.", "en"), ("", "en")])
def test_clean_texts_are_measured(text, language):
    figures = GUARDS.check(text, language=language, prompt="Write something.", whole=True)
    assert tuple(figures) == GUARD_METRICS
    assert figures == measure(text, language)


@pytest.mark.parametrize(
    "loop",
    [
        "\n\n".join([paragraph()] * 6),
        (sentence() + " ") * 30,
        "very " * 400,
        "\n".join([sentence(8)] * 40),
        "\n\n".join(f"{i}. {text}" for text in [paragraph()] for i in range(8)),
    ],
    ids=["paragraph", "sentence", "word", "line", "numbered paragraph"],
)
def test_what_stands_before_a_loop_is_kept(loop):
    fault = refusal(f"{CLEAN}\n\n{loop}")
    assert fault.reason == "repetition"
    assert set(fault.metrics) == set(GUARD_METRICS)
    # The first copy of a looping paragraph may be kept: it repeats nothing yet.
    assert fault.keep.startswith(CLEAN)
    assert len(fault.keep) <= len(CLEAN) + 2 + len(loop.split("\n\n")[0]) and not fault.keep.endswith("\n")
    GUARDS.check(fault.keep, language="en")


def test_a_loop_in_the_middle_and_in_a_single_paragraph():
    half = CLEAN[: CLEAN.index("\n\n", len(CLEAN) // 2)]
    text = f"{half}\n\n{(sentence(6) + ' ') * 30}\n\n{CLEAN[len(half) + 2 :]}"
    assert refusal(text).keep == half
    assert refusal("very " * 400).keep == ""
    assert refusal(CLEAN.replace("\n\n", " ") + " very" * 400).keep == ""


def test_a_loop_too_small_for_the_whole_is_seen_in_its_paragraph():
    long = "\n\n".join(paragraph() for _ in range(60))
    head, tail = sentence(6).rstrip("."), sentence(6).lower()
    weak = " ".join(f"{head} {sentence(1)[:-1].lower()} {tail}" for _ in range(12))
    text = f"{long}\n\n{weak}\n\n{paragraph()}"
    fault = refusal(text)
    assert "paragraph at" in fault.detail
    assert fault.keep == long


def test_lines_are_the_paragraphs_of_text_without_blank_lines():
    assert refusal(CLEAN.replace("\n\n", "\n") + "\n" + "\n".join([sentence()] * 40)).keep.startswith(
        CLEAN.replace("\n\n", "\n")
    )


@pytest.mark.parametrize(
    ("text", "reason", "keep"),
    [
        (f"I'm sorry, but I can't do that.\n\n{CLEAN}", "refusal", ""),
        (f"{CLEAN}\n\nTo be continued...", "truncation", CLEAN),
        (f"{CLEAN}\n\nParagraph 12: {paragraph()}", "meta_label", CLEAN),
        (f"{CLEAN}\n\n{sentence()} And (then", "unclosed", CLEAN),
        (f"{CLEAN}\n\nabc\u200bdef {paragraph()}", "hidden_characters", CLEAN),
        (f"{CLEAN}\n\n{sentence(20).rstrip('.')}", "no_end", CLEAN),
    ],
)
def test_flags_keep_the_paragraphs_before_them(text, reason, keep):
    fault = refusal(text, whole=True)
    assert (fault.reason, fault.keep) == (reason, keep)


def test_a_text_that_changes_its_language():
    fault = refusal(f"{CLEAN}\n\n{ZH}")
    assert fault.reason == "language_drift"
    assert fault.keep.startswith(CLEAN[:1000])
    GUARDS.check(fault.keep, language="en")


def test_whole_and_step_differ_in_the_end_only():
    text = CLEAN + "\n\n" + sentence(20).rstrip(".")
    GUARDS.check(text, language="en")
    assert refusal(text, whole=True).reason == "no_end"


def test_echo_needs_the_prompt():
    prompt = sentence(40)
    GUARDS.check(f"{prompt}\n\n{CLEAN}", language="en")
    fault = refusal(f"{prompt}\n\n{CLEAN}", prompt=prompt)
    assert (fault.reason, fault.keep) == ("instruction_echo", "")


def test_oversize_is_refused_unread(monkeypatch):
    monkeypatch.setattr(check, "measure", lambda *_: pytest.fail("read"))
    with pytest.raises(Unacceptable, match="4194305 characters") as caught:
        GUARDS.check("a" * (check.MAX_CHARS + 1), language="en")
    assert (caught.value.reason, caught.value.keep) == ("oversize", "")


def test_thresholds_by_name():
    text = f"{CLEAN}\n\nTo be continued..."
    Guards({"truncation": 1}).check(text, language="en")
    Guards({"truncation": float("inf")}).check(text, language="en")
    with pytest.raises(Unacceptable) as caught:
        Guards({"compression_ratio": 1}).check(CLEAN, language="en")
    assert caught.value.reason == "repetition" and "compression_ratio" in caught.value.detail
    with pytest.raises(Unacceptable):
        Guards({"min_distinct_4": 1}).check(CLEAN + " " + CLEAN[:200], language="en")


def test_one_repeat_of_ten_words_is_refused_where_asked_for():
    ten = sentence(10)
    text = f"{CLEAN}\n\n{ten} {paragraph()} {ten}"
    GUARDS.check(text, language="en")
    with pytest.raises(Unacceptable, match="duplicate_10gram"):
        Guards({"duplicate_10gram_char_share": 0}).check(text, language="en")


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"compresion_ratio": 3}, "did you mean 'compression_ratio'"),
        ({"xyz": 3}, "known: compression_ratio"),
        ({"loop": float("nan")}, "no limit"),
        ({"loop": -1}, "no limit"),
    ],
)
def test_wrong_thresholds(thresholds, message):
    with pytest.raises(RecipeError, match=message):
        Guards(thresholds)


def test_the_table_names_every_figure_once():
    names = [guard.name for guard in table.GUARDS]
    assert len(set(names)) == len(names)
    assert set(GUARD_METRICS) - set(names) == {"words"}
    assert all(guard.limit("zh") == guard.zh and guard.limit("en") == guard.en for guard in table.GUARDS)


def test_exempt_texts():
    guard = next(guard for guard in table.GUARDS if guard.name == "top_2gram_char_share")
    assert not guard.refuses(0.9, 49, "en") and guard.refuses(0.9, 50, "en") and not guard.refuses(0.2, 50, "en")
