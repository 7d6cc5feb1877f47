import asyncio
import json

import pytest

from ropewalk.synth.recipe import Reject, Reply, Unacceptable
from ropewalk.synth.scores import quality

FULL = {"Relevance": 5, "Accuracy": 4, "Coherence": 4, "Clarity": 5, "Breadth and Depth": 3, "Reading Experience": 3}


class Judge:
    """An `Ask` that gives these replies in turn, as far as `accept` refuses them."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked, self.notes = list(replies), [], []

    async def __call__(self, step, messages, *, accept, **about):
        self.asked.append((step, messages, about))
        for attempt, text in enumerate(self.replies[: about["attempts"]]):
            try:
                return accept(Reply(text, (), "stop", ("stop",), attempt, 1))
            except Unacceptable as fault:
                last = fault
        raise Reject(last.reason, last.detail)

    def note(self, *said, **facts) -> None:
        self.notes.append((said, facts))


def test_s_q_by_hand() -> None:
    assert quality.s_q([FULL]) == pytest.approx((100 + 75 + 75 + 100 + 50 + 50) / 6)
    assert quality.s_q([dict.fromkeys(FULL, 1)]) == 0
    assert quality.s_q([dict.fromkeys(FULL, 5)]) == 100
    assert quality.s_q([dict.fromkeys(FULL, 5), dict.fromkeys(FULL, 2)]) == 62.5


def test_a_missing_mark_is_no_score_or_the_originals_three() -> None:
    partial = {name: 5 for name in FULL if name != "Clarity"}
    assert quality.s_q([partial]) is None
    assert quality.s_q([FULL, partial]) is None
    assert quality.s_q([partial], missing=3) == pytest.approx((5 * 100 + 50) / 6)
    assert quality.s_q([]) is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"Analysis": "good", **FULL}),
        "Here you are:\n```json\n" + json.dumps({"Analysis": "a { b", **FULL}, indent=1) + "\n```\nDone.",
        json.dumps({"Analysis": "x", **FULL}).replace(" and Depth", " & Depth").replace(": 5", ': "5"'),
        '{"Analysis": "two\nlines", ' + json.dumps(FULL)[1:],
        json.dumps({"analysis": "x", **{name.lower(): float(mark) for name, mark in FULL.items()}}),
    ],
)
def test_reads_marks_fenced_raw_and_untidy(text: str) -> None:
    assert quality.parse(text) == FULL


@pytest.mark.parametrize("mark", [0, 6, 3.5, "good", True, None, [3]])
def test_what_is_no_mark_is_missing(mark: object) -> None:
    assert "Clarity" not in quality.parse(json.dumps({**FULL, "Clarity": mark}))


@pytest.mark.parametrize("text", ["", "five stars", "[1, 2]", '{"Relevance": 5', "}{", "[" * 50 + "{" * 100_000 + "}"])
def test_no_object_is_refused(text: str) -> None:
    with pytest.raises(Unacceptable) as fault:
        quality.parse(text)
    assert fault.value.reason == "bad_json"


def test_schema_has_the_analysis_first_and_all_dimensions() -> None:
    schema = json.loads(quality.SCHEMA)
    assert list(schema["properties"]) == ["Analysis", *quality.DIMENSIONS]
    assert schema["required"] == list(schema["properties"])


@pytest.mark.parametrize("language", ["en", "zh", "fr"])
def test_judge_asks_the_judge_and_scores(language: str) -> None:
    ask = Judge("no idea", json.dumps({"Analysis": "", **FULL}))
    score = asyncio.run(quality.judge(ask, "TASK {0}", "TEXT {task}", language=language))
    assert score == quality.s_q([FULL])
    step, messages, about = ask.asked[0]
    assert step == "judge"
    assert about["judge"] is True
    assert about["temperature"] == 0.5
    assert about["json_schema"] == quality.SCHEMA
    assert "TASK {0}" in messages[0].content
    assert "TEXT {task}" in messages[0].content
    assert all(name in messages[0].content for name in quality.DIMENSIONS)


def test_judge_that_never_gives_all_marks_gives_none() -> None:
    ask = Judge(*[json.dumps({**FULL, "Clarity": 9})] * 9)
    assert asyncio.run(quality.judge(ask, "t", "x", language="en")) is None
    assert ask.notes[0][1]["reason"] == "bad_judgement"


def test_excerpts_are_beginning_middle_and_end() -> None:
    paragraphs = [f"p{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]} " + "word " * 99 for n in range(60)]
    text = "\n\n".join(paragraphs)
    shown = quality.excerpt(text, words=1500)
    assert shown.startswith(paragraphs[0].strip())
    assert shown.endswith(paragraphs[-1].strip())
    assert paragraphs[30] in shown
    assert paragraphs[12] not in shown
    assert 1000 <= quality.count_words(shown) <= 1500
    assert quality.excerpt(text, words=6000) == text
    assert quality.count_words(quality.excerpt("word " * 9000, words=1500)) <= 1503
