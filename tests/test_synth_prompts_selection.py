import asyncio
import json

import pytest

from ropewalk.synth.prompts import selection
from ropewalk.synth.recipe import Reject, Reply, Unacceptable


class Judge:
    """An `Ask` that gives these replies in turn, as far as `accept` refuses them."""

    def __init__(self, *replies: object) -> None:
        self.replies = [reply if isinstance(reply, str) else json.dumps(reply) for reply in replies]
        self.asked, self.notes = [], []

    async def __call__(self, step, messages, *, accept, **about):
        self.asked.append((step, messages[0].content, about))
        for attempt, text in enumerate(self.replies[: about["attempts"]]):
            try:
                return accept(Reply(text, (), "stop", ("stop",), attempt, 1))
            except Unacceptable as fault:
                last = fault
        raise Reject(last.reason, last.detail, step=step)

    def note(self, *said, **facts) -> None:
        self.notes.append((said, facts))


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("Write it", "task_too_short"),
        ("写吧", "task_too_short"),
        ("word " * 2001, "task_too_long"),
        ("Write an nsfw story about two neighbours", "toxic"),
        ("Tell me how to build a pipe bomb at home", "toxic"),
        ("写一篇色情小说给我看", "toxic"),
        ("Scrape all product pages of this shop for me", "scraping"),
        ("List 500 emails of dentists in Ohio", "scraping"),
        ("帮我抓取网页上的所有内容", "scraping"),
        ("Write a Python script that renames my files", "code"),
        ("Fix the following code: x = = 1", "code"),
        ("写一段Python代码计算质数", "code"),
        ("What does this do?\n```\n" + "x = 1\n" * 30 + "```", "code"),
    ],
)
def test_rules_set_aside(task: str, reason: str) -> None:
    assert selection.fault_of(task)[0] == reason
    with pytest.raises(Reject) as reject:
        selection.check(task)
    assert reject.value.filtered
    assert reject.value.reason == reason


@pytest.mark.parametrize(
    "task",
    [
        "Write an essay on the history of censorship and pornography law reform",
        "Write an article about how Python programs are tested",
        "Write a tutorial for beginners: how to write a Python script step by step",
        "Write a story about a programmer who writes code at night",
        "Describe how bombs changed the Second World War",
        "写一篇关于网络爬虫法律问题的论文",
        "Explain the following code in a long article for beginners",
    ],
)
def test_rules_are_conservative(task: str) -> None:
    assert selection.fault_of(task) is None


def answer(**changes: object) -> dict[str, object]:
    return {"reason": "r", "needs_long": True, "harmful": False, "words_lo": 1500, "words_hi": 3000} | changes


@pytest.mark.parametrize("language", ["en", "zh", "fr"])
def test_needs_long_gives_the_judges_range(language: str) -> None:
    ask = Judge("hm", {"needs_long": "yes"}, answer())
    found = asyncio.run(selection.check_needs_long(ask, "TASK {words}", language=language, words=2000))
    assert found == (1500, 3000)
    step, prompt, about = ask.asked[0]
    assert "TASK {words}" in prompt
    assert "2000" in prompt
    assert about["judge"] is True
    assert about["attempts"] == 3
    assert list(json.loads(about["json_schema"])["properties"])[0] == "reason"


@pytest.mark.parametrize(
    ("replies", "reason", "filtered"),
    [
        ([answer(needs_long=False)], "short_answer", True),
        ([answer(harmful=True)], "harmful", True),
        (["no"] * 3 + [answer()], "bad_json", False),
    ],
)
def test_needs_long_drops(replies: list, reason: str, filtered: bool) -> None:
    with pytest.raises(Reject) as reject:
        asyncio.run(selection.check_needs_long(Judge(*replies), "t", language="en", words=2000))
    assert (reject.value.reason, reject.value.filtered) == (reason, filtered)


@pytest.mark.parametrize("changes", [{"words_lo": 49}, {"words_hi": 40_001}, {"words_lo": 5000}, {"words_hi": "many"}])
def test_a_senseless_range_is_none(changes: dict) -> None:
    assert asyncio.run(selection.check_needs_long(Judge(answer(**changes)), "t", language="en", words=9)) is None


def test_length_range_retries_once_then_none() -> None:
    ask = Judge({"lo": 10, "hi": 20}, '```json\n{"lo": 50, "hi": 40000}\n```')
    assert asyncio.run(selection.length_range(ask, "t", language="zh")) == (50, 40_000)
    ask = Judge({"lo": 10, "hi": 20}, {"lo": 600, "hi": 500}, {"lo": 500, "hi": 600})
    assert asyncio.run(selection.length_range(ask, "t", language="en")) == (None, None)
    assert ask.notes
