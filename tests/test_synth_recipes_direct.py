import asyncio

import pytest

from ropewalk.synth.engine import Message
from ropewalk.synth.recipe import Prompt, Reject, Reply, Unacceptable
from ropewalk.synth.recipes.load import load
from ropewalk.synth.scores.length import s_l


class Scripted:
    """An `Ask` that gives these replies in turn, as far as `accept` refuses them; its guard refuses the word bad."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked, self.guarded = list(replies), [], []

    async def __call__(self, step, messages, *, accept, **about):
        self.asked.append((step, tuple(messages), about))
        for attempt, text in enumerate(self.replies):
            try:
                return accept(Reply(text, (), "stop", ("stop",), attempt, 1))
            except Unacceptable as fault:
                last = fault
        raise Reject(last.reason, last.detail, step=step)

    def guard(self, text, **about):
        self.guarded.append((text, about))
        if "bad" in text:
            raise Unacceptable("repetition")
        return {"words": 1.0}

    def note(self, *said, **facts) -> None:
        pass


def make(prompt: Prompt, *replies: str, **settings):
    ask = Scripted(*replies)
    return asyncio.run(load({"name": "direct"} | settings)(prompt, ask)), ask


def test_the_task_is_the_prompt_and_the_answer_is_the_row() -> None:
    prompt = Prompt("p", "Write 100 words about tea.\n")
    sample, ask = make(prompt, "bad", "\n " + "tea " * 90)
    text = "tea " * 89 + "tea"
    assert sample.messages == (Message("user", prompt.prompt), Message("assistant", text))
    assert sample.s_l == s_l(100, 90)
    assert (sample.required_words, sample.output_words, sample.language) == (100, 90, "en")
    assert sample.guard_metrics == {"words": 1.0}
    (step, messages, about) = ask.asked[0]
    assert messages == (Message("user", prompt.prompt),)
    assert about["max_tokens"] >= 200
    assert ask.guarded[-1] == (text, {"language": "en", "prompt": prompt.prompt, "whole": True})


def test_without_a_length_there_is_no_length_score_and_room_for_the_default() -> None:
    sample, ask = make(Prompt("p", "Write about tea."), "tea", default_words=5000)
    assert sample.s_l is None
    assert ask.asked[0][2]["max_tokens"] >= 10_000


def test_gate_and_refusals() -> None:
    with pytest.raises(Reject) as reject:
        make(Prompt("p", "Write 100 words about tea."), "tea", min_s_l=80)
    assert reject.value.reason == "length_score"
    assert reject.value.tries[0].reply.text == "tea"
    with pytest.raises(Reject) as reject:
        make(Prompt("p", "Write 100 words about tea."), "bad", "bad")
    assert (reject.value.step, reject.value.reason) == ("write", "repetition")


def test_settings_of_the_row_win() -> None:
    prompt = Prompt("p", "Write 100 words.", required_words=200, len_lo=150, len_hi=250, language="zh")
    sample, _ = make(prompt, "茶" * 200)
    assert (sample.required_words, sample.len_lo, sample.len_hi) == (200, 150, 250)
    assert (sample.s_l, sample.language) == (100, "zh")
