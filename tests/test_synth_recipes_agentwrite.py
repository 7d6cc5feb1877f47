import asyncio
import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth.engine import Completion, Request, RequestError
from ropewalk.synth.engines.echo import EchoEngine
from ropewalk.synth.events import Event
from ropewalk.synth.generation import Generation, Row
from ropewalk.synth.recipe import Prompt
from ropewalk.synth.recipes.load import load
from ropewalk.synth.scores.length import s_l
from ropewalk.synth.scores.words import count_words

TASK = "Write an article of about 600 words about the tea trade."
PLAN = """Here is the plan:
Paragraph 1 - Main Point: Where tea comes from - Word Count: 200 words
Paragraph 2 - Main Point: How it crossed the sea - Word Count: 200 words
Paragraph 3 - Main Point: What it costs today - Word Count: 200 words"""
ZH_TASK = "请写一篇关于茶叶贸易的文章，约六百字。"
ZH_PLAN = "段落１　－　要点：茶从哪里来　－　字数：３００字\n段落２　－　要点：茶怎样过海　－　字数：３００字"


def prose(words: int, seed: object) -> str:
    """Clean text of exactly so many words: sentences of random words, different for every seed."""
    draw = random.Random(repr(seed))
    syllables = [consonant + vowel for consonant in "bdfgklmnprstv" for vowel in "aeiou"]
    drawn = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(words)]
    sentences = [drawn[at : at + 11] for at in range(0, words, 11)]
    return " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)


def hanzi(words: int, seed: object) -> str:
    draw = random.Random(repr(seed))
    text = "".join(chr(draw.randint(0x4E00, 0x9F00)) for _ in range(words))
    return "。".join(text[at : at + 17] for at in range(0, words, 17)) + "。"


class Memory:
    """A cache that forgets."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Completion] = {}

    def get(self, key: bytes) -> Completion | None:
        return self.kept.get(key)

    async def put(self, key: bytes, request: Request, completion: Completion, model: str) -> Completion:
        self.kept[key] = completion
        return completion


class Made:
    def __init__(self, row: Row, asked: list[Request], events: list[Event]) -> None:
        self.row, self.asked, self.events = row, asked, events
        self.sft: Any = row.sft
        self.reject: Any = row.reject

    def refused(self, step: str) -> list[str]:
        return [event.reason for event in self.events if event.kind == "refused" and event.step == step]

    def prompts(self) -> dict[str, str]:
        return {request.step: request.messages[0].content for request in self.asked}


def make(
    reply: Callable[[Request], str],
    *,
    task: str = TASK,
    required: int | None = None,
    kind: str = "task",
    attempts: int = 3,
    **settings: Any,
) -> Made:
    """Makes one row with scripted replies, through the whole machinery."""
    recipe = {"name": "agentwrite"} | settings
    config = parse_synth_recipe(
        {"output": "nowhere", "prompts": "none", "recipe": recipe, "generation": {"attempts": attempts}}
    )
    engine, events = EchoEngine(reply=reply), []

    async def run() -> Row:
        generation = Generation(load(recipe), engine, Memory(), config, observer=events.append)
        await generation.start()
        rows = [row async for row in generation.run([Prompt("p", task, kind=kind, required_words=required)])]
        await generation.close()
        return rows[0]

    return Made(asyncio.run(run()), list(engine.asked), events)


def writer(request: Request) -> str:
    """A model that plans and writes as it is told."""
    if request.step == "plan":
        return PLAN
    words = int(re.findall(r"about (\d+) words(?: long|, on)", request.messages[0].content)[-1])
    return prose(words, (request.step, request.attempt))


def test_plans_then_writes_each_paragraph() -> None:
    made = make(writer)
    assert [request.step for request in made.asked] == ["plan", "write-1", "write-2", "write-3"]
    user, assistant = made.sft["messages"]
    assert user == {"role": "user", "content": TASK}
    assert assistant["role"] == "assistant"
    paragraphs = assistant["content"].split("\n\n")
    assert paragraphs == [prose(200, (f"write-{n}", 0)) for n in (1, 2, 3)]
    assert [step["words"] for step in made.sft["plan"]] == [200, 200, 200]
    assert made.sft["plan"][0]["point"] == "Where tea comes from"
    assert made.sft["required_words"] == made.sft["output_words"] == 600
    assert made.sft["s_l"] == 100
    assert (made.sft["len_lo"], made.sft["len_hi"]) == (480, 720)
    assert made.sft["s_q"] is None
    assert made.sft["guard_metrics"]["words"] == 600


def test_what_never_changes_comes_first_and_the_step_last() -> None:
    prompts = make(writer).prompts()
    steps = [prompts[f"write-{n}"] for n in (1, 2, 3)]
    assert all(TASK in prompt for prompt in prompts.values())
    for before, after in zip(steps, steps[1:], strict=False):
        common = os.path.commonprefix([before, after])
        assert TASK in common
        assert "Word Count: 200 words\n\nText so far:" in common  # all of the plan
    written = [prose(200, (f"write-{n}", 0)) for n in (1, 2)]
    assert os.path.commonprefix(steps[1:]).strip().endswith(written[0])  # and all of the text so far
    assert "\n\n".join(written) in steps[2]
    for number, prompt in enumerate(steps, 1):
        assert prompt.rfind(f"Paragraph {number} - Main Point") > prompt.rfind("Text so far")
        assert "sum up" in prompt if number < 3 else "come to its end" in prompt


def test_plans_that_are_off_are_scaled() -> None:
    made = make(writer, task="Write 750 words about the tea trade.")
    assert sum(step["words"] for step in made.sft["plan"]) == 750
    assert made.sft["s_l"] == 100
    assert "Word Count: 250 words" in made.prompts()["write-2"]


@pytest.mark.parametrize(
    "bad",
    [
        "I would love to help you with that!",
        PLAN.replace("Paragraph 3", "Paragraph 2"),
        PLAN.replace("Paragraph 3", "Paragraph 4"),
        PLAN.replace("200 words", "900 words"),
        PLAN.replace(": 200 words", ""),
        PLAN.split("\nParagraph 2")[0],
        "\n".join(f"Paragraph {n} - Main Point: point {n} - Word Count: 100 words" for n in range(1, 52)),
    ],
)
def test_a_bad_plan_is_asked_again_and_three_times_at_most(bad: str) -> None:
    made = make(lambda request: bad if request.step == "plan" and request.attempt < 3 else writer(request))
    assert made.refused("plan") == ["bad_plan"] * 3
    assert made.sft["output_words"] == 600
    made = make(lambda request: bad if request.step == "plan" else writer(request))
    assert (made.reject["kind"], made.reject["step"], made.reject["reason"]) == ("dead_letter", "plan", "bad_plan")
    assert len(made.asked) == 4
    assert made.sft is None


def test_chinese_rows() -> None:
    def reply(request: Request) -> str:
        return ZH_PLAN if request.step == "plan" else hanzi(300, request.step)

    made = make(reply, task=ZH_TASK)
    assert made.sft["language"] == "zh"
    assert made.sft["s_l"] == 100
    assert [step["point"] for step in made.sft["plan"]] == ["茶从哪里来", "茶怎样过海"]
    assert all("写" in prompt and "Paragraph" not in prompt for prompt in made.prompts().values())


def test_labels_around_a_paragraph_are_taken_off() -> None:
    def reply(request: Request) -> str:
        text = writer(request)
        return text if request.step == "plan" else f"**Paragraph 1**\n\n{text}\n\n[Word Count: 200 words]"

    made = make(reply)
    assert made.sft["messages"][1]["content"] == make(writer).sft["messages"][1]["content"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("I'm sorry, but I can't help with that request.", "refusal"),
        ("As an AI language model, I have no taste for tea. " + prose(200, 1), "refusal"),
        ("Paragraph 2 - Main Point: How it crossed the sea - Word Count: 200 words", "empty"),
        (prose(20, 2) + "\n\n" + "\n".join(["It was a cold and windy day on the sea of tea."] * 25), "repetition"),
        (prose(150, 3) + "\n\n(to be continued in the next part)", "truncation"),
        (prose(150, 4) + "\n\nWord Count: 150 words\n\nSo it was.", "meta_label"),
    ],
)
def test_a_paragraph_that_will_not_do_is_written_again_or_ends_the_row(bad: str, reason: str) -> None:
    made = make(lambda request: bad if request.step == "write-2" and request.attempt < 2 else writer(request))
    refused = made.refused("write-2")
    assert refused[0] == reason
    # A clean beginning may stay; what follows it may not.
    worst = bad.split("\n\n")[-1 if reason != "meta_label" else 1]
    assert worst not in made.sft["messages"][1]["content"]
    made = make(lambda request: bad if request.step == "write-2" else writer(request))
    assert (made.reject["kind"], made.reject["step"]) == ("dead_letter", "write-2")
    assert made.reject["reason"] in made.refused("write-2")
    assert made.reject["text"]


def test_a_paragraph_that_was_written_before_is_refused() -> None:
    first = prose(200, "same")
    made = make(lambda request: first if request.step in ("write-1", "write-2") else writer(request))
    assert made.reject["step"] == "write-2"
    assert made.reject["reason"] == "repetition"
    assert "with what stands before" in made.reject["detail"]


def test_the_nearest_length_is_kept_if_none_is_right() -> None:
    lengths = [40, 90, 60]

    def reply(request: Request) -> str:
        return prose(lengths[request.attempt], request.attempt) if request.step == "write-2" else writer(request)

    made = make(reply)
    assert made.refused("write-2") == ["too_short"] * 3
    assert made.sft["output_words"] == 490
    assert made.sft["s_l"] == pytest.approx(s_l(600, 490), abs=1e-3)
    assert make(reply, keep_best=False).reject["reason"] == "too_short"
    lengths = [40, 66, 60]  # all of them below a third
    assert make(reply).reject["reason"] == "too_short"


def test_nothing_is_kept_of_a_step_that_failed_for_other_reasons() -> None:
    def reply(request: Request) -> str:
        if request.step == "write-2" and request.attempt == 1:
            raise RequestError("server", "gone", transient=False)
        return prose(90, 1) if request.step == "write-2" else writer(request)

    made = make(reply)
    assert made.refused("write-2") == ["too_short"]
    assert made.reject["reason"] == "server"


def test_only_clean_tries_are_kept() -> None:
    sorry = "I'm sorry, but I can't write that. "
    tries = [sorry + prose(92, 1), prose(80, 2), prose(60, 3)]
    made = make(lambda request: tries[request.attempt] if request.step == "write-2" else writer(request))
    assert prose(80, 2) in made.sft["messages"][1]["content"]
    assert "sorry" not in made.sft["messages"][1]["content"]


def test_a_paragraph_without_end_is_cut_after_a_sentence_only_if_asked() -> None:
    def reply(request: Request) -> str:
        return prose(5000, request.attempt) if request.step == "write-2" else writer(request)

    assert make(reply).reject["reason"] == "length"
    made = make(reply, cut_sentences=True)
    paragraph = made.sft["messages"][1]["content"].split("\n\n")[1]
    assert paragraph.endswith(".")
    assert prose(5000, 0).startswith(paragraph) or prose(5000, 1).startswith(paragraph)
    assert 200 < count_words(paragraph) <= 560


def test_lengths_out_of_reach_are_set_aside_before_anything_is_asked() -> None:
    for words in (150, 80_000):
        made = make(writer, required=words)
        assert (made.reject["kind"], made.reject["reason"]) == ("filtered", "length_out_of_reach")
        assert made.asked == []


def test_the_rows_length_wins_over_the_tasks_and_a_default_is_no_requirement() -> None:
    assert make(writer, required=610).sft["required_words"] == 610
    made = make(writer, task="Write about the tea trade.", default_words=600)
    assert made.sft["required_words"] is None
    assert made.sft["s_l"] is None
    made = make(writer, task="Write about the tea trade.", require_length=True)
    assert (made.reject["kind"], made.reject["reason"]) == ("filtered", "no_length")


def test_bounds_are_aimed_at_from_inside() -> None:
    made = make(writer, task="Write at least 600 words about the tea trade.")
    assert sum(step["words"] for step in made.sft["plan"]) == 660
    made = make(writer, task="Write at most 600 words about the tea trade.")
    assert sum(step["words"] for step in made.sft["plan"]) == 540


def test_gates() -> None:
    def short(request: Request) -> str:
        return prose(110, request.step) if request.step.startswith("write") else writer(request)

    assert make(short, min_s_l=50).sft["s_l"] == pytest.approx(s_l(600, 330), abs=1e-3)
    made = make(short, min_s_l=80)
    assert (made.reject["kind"], made.reject["reason"]) == ("dead_letter", "length_score")
    assert made.reject["text"].startswith(prose(110, "write-1")[:50])


def test_judge_and_its_gate() -> None:
    marks = '{"Analysis": "so", "Relevance": 4, "Accuracy": 4, "Coherence": 4, "Clarity": 4, "Breadth and Depth": 4, '

    def judged(request: Request) -> str:
        return marks + '"Reading Experience": 1}' if request.step == "judge" else writer(request)

    assert make(judged, judge=True).sft["s_q"] == pytest.approx(62.5)
    assert make(judged, judge=True, min_s_q=70).reject["reason"] == "quality_score"
    made = make(lambda request: "5/5" if request.step == "judge" else writer(request), judge=True)
    assert made.sft["s_q"] is None
    assert sum(request.step == "judge" for request in made.asked) == 5


def test_selection_asks_before_anything_is_written() -> None:
    def reply(request: Request) -> str:
        no = '{"reason": "a line will do", "needs_long": false, "harmful": false, "words_lo": 5, "words_hi": 9}'
        return no if request.step == "needs-long" else writer(request)

    made = make(reply, selection=True)
    assert (made.reject["kind"], made.reject["reason"]) == ("filtered", "short_answer")
    assert len(made.asked) == 1
    made = make(writer, task="Write a Python script that sorts tea.", selection=True)
    assert (made.reject["reason"], made.asked) == ("code", [])


def test_a_range_of_lengths_is_asked_for_where_none_is_stated() -> None:
    def reply(request: Request) -> str:
        return '{"lo": 500, "hi": 700}' if request.step == "length-range" else writer(request)

    made = make(reply, task="Write about the tea trade.", ask_length=True)
    assert (made.sft["len_lo"], made.sft["len_hi"], made.sft["required_words"]) == (500, 700, None)
    assert made.sft["output_words"] == 600


def test_documents_become_tasks_first() -> None:
    document = "# The Tea Trade\n\n" + prose(600, "document")
    asked = "Write an article that tells how tea is traded over the seas."

    def reply(request: Request) -> str:
        return asked if request.step == "task" else writer(request)

    made = make(reply, task=document, kind="document", plan="outline", section_words=300)
    task = made.sft["messages"][0]["content"]
    assert task.startswith(asked)
    assert document[:60] not in task
    assert made.sft["required_words"] in (600, 500, 700)
    made = make(writer, task=document, kind="document", documents="template", plan="outline")
    assert "The Tea Trade" in made.sft["messages"][0]["content"]
    assert {request.step for request in made.asked} == {f"write-{n + 1}" for n in range(len(made.sft["plan"]))}


@pytest.mark.parametrize(("words", "sections"), [(300, 2), (600, 4), (1500, 10), (6000, 12)])
def test_outlines_need_no_plan_of_the_model(words: int, sections: int) -> None:
    def reply(request: Request) -> str:
        return writer(request) + "\nAnd so on."

    made = make(reply, task=f"Write {words} words about the tea trade.", plan="outline")
    assert len(made.sft["plan"]) == len(made.asked) == sections
    assert sum(step["words"] for step in made.sft["plan"]) == made.sft["output_words"] == words
    points = [step["point"] for step in made.sft["plan"]]
    assert points[0].startswith("the opening")
    assert points[-1].startswith("the ending")
    assert len(set(points)) == sections
    story = make(reply, task=f"Write a story of {words} words about the tea trade.", plan="outline")
    assert "scene" in story.sft["plan"][0]["point"]


def test_little_context_shows_the_end_of_the_text_only() -> None:
    made = make(writer, context_words=250)
    assert prose(200, ("write-1", 0)) not in made.prompts()["write-3"]
    assert prose(200, ("write-2", 0)) in made.prompts()["write-3"]
    made = make(writer, context_words=0)
    assert prose(200, ("write-2", 0)) not in made.prompts()["write-3"]


def test_nothing_we_say_ends_up_in_a_row() -> None:
    made = make(lambda request: PLAN if request.step == "plan" else request.messages[0].content)
    assert made.sft is None
    assert made.reject["step"] == "write-1"


def test_the_same_replies_make_the_same_row() -> None:
    assert make(writer).sft == make(writer).sft
