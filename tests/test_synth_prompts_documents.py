import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.synth.prompts import documents
from ropewalk.synth.prompts.required_words import extract
from ropewalk.synth.recipe import Prompt, Reject, Reply, Unacceptable
from ropewalk.synth.scores.words import count_words

BODY = " ".join(
    f"Lighthouse keepers {word} along the coast." for word in "climb walk sing wait watch write".split() * 20
)
DOCUMENT = f"# Life in a Lighthouse\n\n{BODY}\n\n## Storms\n\nThe sea rises.\n"
TASK = "Write an article about the daily life of lighthouse keepers, from their duties to the storms they face."


class Model:
    """An `Ask` that gives these replies in turn, as far as `accept` refuses them."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked, self.faults = list(replies), [], []

    async def __call__(self, step, messages, *, accept, **about):
        self.asked.append((step, messages[0].content))
        for attempt, text in enumerate(self.replies):
            try:
                return accept(Reply(text, (), "stop", ("stop",), attempt, 1))
            except Unacceptable as fault:
                self.faults.append(fault)
        raise Reject(self.faults[-1].reason, self.faults[-1].detail, step=step)

    def guard(self, text, **about):
        return {}


def make(document: str, *replies: str, how: str = "model", id: str = "p", language: str = "en"):
    ask = Model(*replies)
    prompt = Prompt(id, document, kind="document")
    return asyncio.run(documents.to_task(prompt, ask, language=language, how=how)), ask


def test_the_model_is_shown_opening_and_headings_and_gives_the_task() -> None:
    (task, length), ask = make(DOCUMENT, f' "{TASK}"\n')
    assert task.startswith(TASK)
    assert extract(task) == length
    assert length.words == documents.ladder(count_words(DOCUMENT))
    step, prompt = ask.asked[0]
    assert step == "task"
    assert "Lighthouse keepers climb" in prompt
    assert "Storms" in prompt
    assert "The sea rises" not in prompt  # only the opening


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("Write it.", "words; a task has"),
        ("word " * 500, "words; a task has"),
        ("Write 800 words about lighthouse keepers.", "names a length"),
        (f"Write an article that begins: {BODY[:80]}", "quotes"),
    ],
)
def test_what_is_no_task_is_refused(reply: str, fault: str) -> None:
    (task, _), ask = make(DOCUMENT, reply, TASK)
    assert task.startswith(TASK)
    assert fault in ask.faults[0].detail
    with pytest.raises(Reject) as reject:
        make(DOCUMENT, reply)
    assert reject.value.step == "task"


def test_without_a_model_the_title_or_the_first_sentence_makes_the_task() -> None:
    (task, length), ask = make(DOCUMENT, how="template")
    assert "Life in a Lighthouse" in task
    assert extract(task) == length
    assert ask.asked == []
    (task, _), _ = make(BODY, how="template")
    assert "Lighthouse keepers climb along the coast." in task
    assert "walk" not in task
    (task, _), _ = make("灯塔看守人的生活\n====\n\n" + "灯塔在海边。" * 60, how="template", language="zh")
    assert "灯塔看守人的生活" in task
    assert extract(task) is not None


def test_a_title_that_names_a_length_is_not_used() -> None:
    (task, length), _ = make(f"# A Life in 500 Words\n\n{BODY}", how="template")
    assert extract(task) == length


def test_constraints_differ_between_documents_and_not_between_runs() -> None:
    tasks = {make(DOCUMENT, how="template", id=str(n))[0][0] for n in range(40)}
    assert len(tasks) >= 8
    assert make(DOCUMENT, how="template", id="7")[0] == make(DOCUMENT, how="template", id="7")[0]


def test_a_short_document_is_set_aside() -> None:
    with pytest.raises(Reject) as reject:
        make("Too short to be a task.", TASK)
    assert reject.value.filtered


@given(st.integers(1, 10**6))
def test_the_nearest_rung_in_proportion(words: int) -> None:
    nearest = min(documents.LADDER, key=lambda rung: max(rung / words, words / rung))
    rung = documents.ladder(words)
    assert max(rung / words, words / rung) == max(nearest / words, words / nearest)


def test_the_ladder_is_near_geometric() -> None:
    steps = [high / low for low, high in zip(documents.LADDER, documents.LADDER[1:], strict=False)]
    assert all(1.2 < step <= 1.5 for step in steps)
