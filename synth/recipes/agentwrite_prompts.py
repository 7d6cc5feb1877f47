"""What AgentWrite says to the model, in English and Chinese, in our own words.

A write prompt is one user turn: the task and the plan, which never change; the text so far, which grows at its end; the
current step, last. So whatever was sent for step k is, up to the end of the text so far, a prefix of step k + 1's.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from ropewalk.synth.recipe import PlannedStep

T = TypeVar("T")

_PLAN = {
    "en": """You plan long texts for a writer. Break the writing task below into steps; the writer turns each step \
into exactly one paragraph, in order, and the paragraphs together are the finished text.

Writing task:
{task}

Give one line per step, in exactly this form:

Paragraph 1 - Main Point: [what this paragraph says, in detail] - Word Count: [number] words
Paragraph 2 - Main Point: [what this paragraph says, in detail] - Word Count: [number] words

Together the steps cover the whole task, each has a point of its own, and none is too small: every paragraph has \
between {low} and {high} words. The word counts add up to about {words} words. There are at most {steps} steps. Write \
these lines and nothing else: no introduction, no comment, no total.""",
    "zh": """你负责为作者规划长文。请把下面的写作任务拆成若干步骤；\
作者会按顺序把每个步骤写成恰好一个段落，各段合起来就是完成的文章。

写作任务：
{task}

每个步骤写一行，格式必须完全如下：

段落1 - 要点：[这一段具体写什么] - 字数：[数字]字
段落2 - 要点：[这一段具体写什么] - 字数：[数字]字

各步骤合起来要完成整个任务，各有自己的要点，也不要拆得太细：每段{low}到{high}字。各段字数相加约为{words}字。步骤最多{steps}个。\
只写这些行，不要写开场白、说明或合计。""",
}

_HEAD = {
    "en": """A long text is being written, one paragraph at a time, along a plan.

Writing task:
{task}

Plan:
{plan}

Text so far:
""",
    "zh": """一篇长文正在按照提纲逐段写作。

写作任务：
{task}

提纲：
{plan}

已写的正文：
""",
}
_NOTHING = {"en": "(nothing yet)", "zh": "（还没有）"}
_STEP = {
    "en": """

Your step now:
{line}

Write this one paragraph, about {words} words long. Go on where the text so far ends, in its tone, and do not say \
again what it says already. A short subtitle is allowed where the paragraph opens a new topic. {end} Reply with the \
text of the paragraph alone, without its number, its plan or its word count.""",
    "zh": """

现在的步骤：
{line}

请写这一个段落，约{words}字。紧接已写的正文，保持同样的语气，不要重复已经写过的内容。如果这一段开始了新的话题，可以加一个简短的小标题。\
{end}只回复这一段的正文，不要写段落编号、提纲或字数。""",
}
_GOES_ON = {
    "en": "The text goes on after it, so do not sum up and do not say goodbye to the reader.",
    "zh": "后面还有内容，不要总结，不要收尾。",
}
_ENDS = {"en": "It is the last one: let the text come to its end.", "zh": "这是最后一段，请让全文自然结束。"}

_SECTION = {
    "en": "{task} Write only one paragraph of it, of about {words} words, on {point}{so_far}",
    "zh": "{task}只写其中的一个段落，约{words}字：{point}{so_far}",
}
_SO_FAR = {"en": "\n\nIt follows this paragraph:\n{text}", "zh": "\n\n它接在这一段之后：\n{text}"}

# fmt: off
_EXPOSITION = {
    "en": (
        (1.0, "the opening, which says what the subject is and why it matters."),
        (1.2, "the background: where the subject comes from and how it began."),
        (1.3, "how it works: its main parts and what each of them does."),
        (1.2, "a concrete example from everyday life."),
        (1.1, "its benefits, and who gains from them."),
        (1.1, "its difficulties and limits."),
        (1.0, "what people often get wrong about it."),
        (1.1, "practical advice for somebody who begins with it."),
        (1.0, "how it differs from one place or time to another."),
        (1.0, "the people behind it and what they do."),
        (1.0, "what may become of it in the years to come."),
        (0.9, "the ending, which draws the main thought together."),
    ),
    "zh": (
        (1.0, "开头，说明主题是什么，为什么重要。"),
        (1.2, "背景：它从哪里来，怎样开始。"),
        (1.3, "它怎样运作：主要的组成部分和各自的作用。"),
        (1.2, "一个日常生活中的具体例子。"),
        (1.1, "它的好处，以及谁从中受益。"),
        (1.1, "它的困难和局限。"),
        (1.0, "人们对它常见的误解。"),
        (1.1, "给初学者的实用建议。"),
        (1.0, "它在不同地方、不同时代有什么不同。"),
        (1.0, "与它有关的人，以及他们做的事。"),
        (1.0, "它今后可能的发展。"),
        (0.9, "结尾，归纳全文的主要思想。"),
    ),
}
_NARRATIVE = {
    "en": (
        (1.0, "the opening scene: the place, the time and the main character."),
        (1.0, "what the main character wants, and an ordinary day."),
        (1.1, "the event that changes everything."),
        (1.1, "a second character comes in, and the two talk."),
        (1.2, "the first attempt, and how it fails."),
        (1.0, "a quiet moment, with a memory from long ago."),
        (1.1, "a discovery that changes the plan."),
        (1.1, "the danger grows."),
        (1.0, "a choice between two hard things."),
        (1.3, "the great turning point."),
        (1.0, "what it has changed for everybody."),
        (0.9, "the last scene."),
    ),
    "zh": (
        (1.0, "开场：地点、时间和主人公。"),
        (1.0, "主人公想要什么，以及平常的一天。"),
        (1.1, "改变一切的事件。"),
        (1.1, "第二个人物出现，两人交谈。"),
        (1.2, "第一次尝试，以及它怎样失败。"),
        (1.0, "安静的一刻，想起很久以前的事。"),
        (1.1, "一个改变计划的发现。"),
        (1.1, "危险越来越近。"),
        (1.0, "两难之间的选择。"),
        (1.3, "最大的转折。"),
        (1.0, "它给每个人带来的变化。"),
        (0.9, "最后一幕。"),
    ),
}
# fmt: on
_PRIORITY = (0, 11, 2, 1, 3, 5, 4, 9, 7, 6, 10, 8)
"""Which sections an outline of few has: opening and ending always, then by weight; they stand in the list's order."""

MAX_SECTIONS = len(_PRIORITY)
_FICTION = re.compile(
    r"\b(?:story|stories|tale|novel|novella|fiction|fairy|fable)\b|小说|故事|童话|寓言", re.IGNORECASE
)


def plan_prompt(task: str, *, language: str, words: int, low: int, high: int, steps: int) -> str:
    """Asks for a plan of so many words, in paragraphs of `low` to `high` words."""
    return _in(_PLAN, language).format(task=task, words=words, low=low, high=high, steps=steps)


def write_prompt(task: str, plan: Sequence[PlannedStep], so_far: str, step: int, *, language: str) -> str:
    """Asks for the paragraph of a step (from 0), after the text so far."""
    lines = [plan_line(number, one, language) for number, one in enumerate(plan)]
    head = _in(_HEAD, language).format(task=task, plan="\n".join(lines))
    end = _in(_ENDS if step == len(plan) - 1 else _GOES_ON, language)
    return (
        head
        + (so_far or _in(_NOTHING, language))
        + _in(_STEP, language).format(line=lines[step], words=plan[step].words, end=end)
    )


def section_prompt(task: str, step: PlannedStep, so_far: str, *, language: str) -> str:
    """Asks a weak model for one section: no plan, no rules it could repeat, only the end of the text so far."""
    shown = _in(_SO_FAR, language).format(text=so_far) if so_far else ""
    return _in(_SECTION, language).format(task=task, point=step.point, words=step.words, so_far=shown)


def plan_line(number: int, step: PlannedStep, language: str) -> str:
    """The line of a step (from 0), as the plan prompt wants it."""
    if language == "zh":
        return f"段落{number + 1} - 要点：{step.point} - 字数：{step.words}字"
    return f"Paragraph {number + 1} - Main Point: {step.point} - Word Count: {step.words} words"


def outline(task: str, *, language: str, sections: int) -> list[tuple[float, str]]:
    """An outline without a model: (weight, point) of so many sections, 2 to `MAX_SECTIONS`."""
    roles = _in(_NARRATIVE if _FICTION.search(task) else _EXPOSITION, language)
    return [roles[place] for place in sorted(_PRIORITY[:sections])]


def _in(texts: dict[str, T], language: str) -> T:
    return texts["zh" if language == "zh" else "en"]
