"""A document of a corpus turned into a writing task (backtranslation of instructions), with a length like its own.

The model is shown how the document opens and what its headings are, and asked for the request that somebody may have
written to get such a text. Weak models cannot do that: for them a fixed sentence is filled with the document's title.
"""

import bisect
import re
from typing import Literal

from ropewalk.synth.engine import Message
from ropewalk.synth.prompts import constraints, required_words
from ropewalk.synth.prompts.required_words import Kind, Length, about, at_least, at_most, between
from ropewalk.synth.recipe import Ask, Prompt, Reject, Reply, Unacceptable, seed_of
from ropewalk.synth.scores.words import count_words

# fmt: off
LADDER = (100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000, 16_000, 24_000, 32_000)
# fmt: on
"""Lengths asked for, in words: near-geometric, so that each length of a document has a round one close by."""

MIN_TASK, MAX_TASK = 4, 499
"""Words of a task: more than 3 and fewer than 500 (Self-Lengthen)."""

OPENING_WORDS, MAX_HEADINGS = 300, 30
MAX_TOKENS = 600

_HEADING = re.compile(r"^#{1,6}\s+(\S.{0,198})$|^(\S.{0,98})\n[=-]{3,}$", re.MULTILINE)
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|[。！？])", re.DOTALL)

_PROMPTS = {
    "en": """Below are the opening and the headings of a text. Write the request that somebody would have sent to a \
writer to get a text like this one.

<opening>
{opening}
</opening>

<headings>
{headings}
</headings>

The request stands alone: it names the kind of text, its subject and what it should deal with, without pointing to the \
text above and without quoting it. It names no length. Reply with the request only, in one to four sentences.""",
    "zh": """下面是一篇文章的开头和各级标题。请写出：如果有人想得到这样一篇文章，他会向作者提出怎样的写作要求。

<opening>
{opening}
</opening>

<headings>
{headings}
</headings>

这个要求应当独立成立：说明文体、主题和应当写到的内容，不提及上文，不引用原句，也不规定字数。只回复这个要求，一到四句话。""",
}
_TEMPLATES = {
    "en": (
        "Write an article titled “{title}”. Explain its subject to a general reader.",
        "Write an article that starts from this thought: “{title}” Develop it for a general reader.",
    ),
    "zh": (
        "请以“{title}”为题写一篇文章，向普通读者讲清楚这个主题。",
        "请从下面这个想法出发写一篇文章，并为普通读者展开：“{title}”",
    ),
}


async def to_task(prompt: Prompt, ask: Ask, *, language: str, how: Literal["model", "template"]) -> tuple[str, Length]:
    """A writing task made of a document, and the length it asks for.

    Raises:
        Reject: The document is too short (filtered), or the model gave no task.
    """
    document = prompt.prompt.strip()
    words = count_words(document)
    if words < LADDER[0]:
        raise Reject("document_too_short", f"{words} words; a task needs {LADDER[0]}", filtered=True)
    seed = seed_of("length", prompt.id)
    length = _length(ladder(words), constraints.draw_kind(seed))
    task = template(document, language) if how == "template" else await _ask(document, ask, language)
    try:
        return constraints.attach(task, length, language=_known(language), seed=seed), length
    except ValueError as error:
        raise Reject("bad_task", str(error), step="task") from None


def ladder(words: int) -> int:
    """The rung nearest to so many words, in proportion."""
    at = bisect.bisect_left(LADDER, words)
    if at in (0, len(LADDER)):
        return LADDER[min(at, len(LADDER) - 1)]
    low, high = LADDER[at - 1], LADDER[at]
    return low if words * words < low * high else high


def template(document: str, language: str) -> str:
    """A task without a model: of the document's first heading, else of its first sentence."""
    by_title, by_thought = _TEMPLATES[_known(language)]
    heading = _HEADING.search(document)
    if heading and 2 <= len(title := (heading[1] or heading[2]).strip(" #*_")) and not _states_length(title):
        return by_title.format(title=title)
    body = _HEADING.sub("", document).strip() or document
    sentence = _SENTENCE.match(body)
    thought = " ".join((sentence.group() if sentence else body.split("\n", 1)[0]).split())
    return by_thought.format(title=thought if len(thought) <= 300 else thought[:299].rstrip() + "…")


async def _ask(document: str, ask: Ask, language: str) -> str:
    opening = _opening(document)
    headings = [(match[1] or match[2]).strip() for match in _HEADING.finditer(document)][:MAX_HEADINGS]

    def accept(reply: Reply) -> str:
        task = re.sub(r"\s*\n\s*", " ", reply.text.strip().strip('"“”')).strip()
        words = count_words(task)
        if not MIN_TASK <= words <= MAX_TASK:
            raise Unacceptable(
                "bad_task", f"{words} words; a task has {MIN_TASK} to {MAX_TASK}", metrics={"words": words}
            )
        if _states_length(task):
            raise Unacceptable("bad_task", "it names a length; that is added afterwards")
        if _copies(task, opening):
            raise Unacceptable("bad_task", "it quotes the document")
        ask.guard(task, language=language)
        return task

    shown = "\n".join(headings) or ("(none)" if _known(language) == "en" else "（无）")
    message = Message("user", _PROMPTS[_known(language)].format(opening=opening, headings=shown))
    return await ask("task", [message], accept=accept, max_tokens=MAX_TOKENS, expected_tokens=80)


def _length(words: int, kind: Kind) -> Length:
    """A constraint of this kind around a rung; the rung is what the document's own length supports."""
    if kind is Kind.RANGE:
        return between(words * 4 // 5, words * 6 // 5)
    return {Kind.ABOUT: about, Kind.AT_LEAST: at_least, Kind.AT_MOST: at_most}[kind](words)


def _opening(document: str) -> str:
    end = 0
    for paragraph in re.finditer(r"[^\n]+", document):
        end = paragraph.end()
        if count_words(document[:end]) >= OPENING_WORDS:
            break
    return document[: min(end, 12 * OPENING_WORDS)]


def _copies(task: str, opening: str, *, characters: int = 60) -> bool:
    """Whether the task has a run of so many characters in common with the opening."""
    return any(task[at : at + characters] in opening for at in range(len(task) - characters + 1))


def _states_length(task: str) -> bool:
    return required_words.extract(task) is not None


def _known(language: str) -> str:
    return language if language in _PROMPTS else "en"
