"""What recipes that answer a writing task have in common: which task, how long, and what a finished text must pass.

The order is always the same: make the task (of a document, if that is what came), select, find the length asked for,
write (the recipe's own part), guard the whole, score, gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from ropewalk.schemas.settings import Settings
from ropewalk.synth.engine import Message
from ropewalk.synth.prompts import documents, required_words, selection
from ropewalk.synth.recipe import Ask, PlannedStep, Prompt, Reject, Reply, Sample, Try, Unacceptable
from ropewalk.synth.scores import quality
from ropewalk.synth.scores.length import s_l
from ropewalk.synth.scores.words import count_words, language_of, tokens_of

MAX_WORDS = 1_000_000
"""Longest text anybody may ask for: beyond, the number is no length."""


@dataclass(frozen=True)
class Task:
    """What is to be written.

    Attributes:
        text: The task; the user's turn of the row.
        language: `en` or `zh`.
        aim: Words to aim at.
        required: Words asked for, if anybody asked: the score of length compares with this.
        lo: Least admissible words, if known.
        hi: Most admissible words, if known.
    """

    text: str
    language: str
    aim: int
    required: int | None = None
    lo: int | None = None
    hi: int | None = None


class Writing(Settings):
    """Settings of every recipe that answers writing tasks."""

    documents: Literal["model", "template"] = "model"
    """How a document becomes a task: the model is asked for it, or a fixed sentence is filled (for weak models)."""
    selection: bool = False
    """Set tasks aside that are toxic, code, scraping, or need no long answer (the last asks the model)."""
    long_words: int = Field(default=1000, ge=1)
    """Words from which an answer counts as long, for `selection`."""
    require_length: bool = False
    """Set tasks aside that state no length."""
    ask_length: bool = False
    """Ask the model for a range of lengths where the task states none (LongWriter-Zero)."""
    default_words: int = Field(default=1500, ge=1)
    """Words to aim at where nothing says how long."""
    min_s_l: float | None = Field(default=None, ge=0, le=100)
    """Least length score of a row whose task states a length; Min-tuning keeps 80 and more."""
    judge: bool = False
    """Have the finished text judged in six dimensions: `s_q`."""
    min_s_q: float | None = Field(default=None, ge=0, le=100)
    """Least quality score of a row; needs `judge`."""

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if self.min_s_q is not None and not self.judge:
            raise ValueError("min_s_q needs a judge: set `judge: true`")
        return self

    def expected_tokens(self, prompt: Prompt) -> int:
        """Likely generated tokens of the row: 1.4 times the words asked for (recipes-synth.md §14.4), as tokens."""
        if prompt.kind == "document":
            words = documents.ladder(count_words(prompt.prompt))
        else:
            asked = prompt.required_words or required_words.extract(prompt.prompt)
            words = asked if isinstance(asked, int) else asked.words if asked else self.default_words
        return tokens_of(words, prompt.language or language_of(prompt.prompt))

    async def task(self, prompt: Prompt, ask: Ask) -> Task:
        """The task of a prompt, selected and with its length.

        Raises:
            Reject: It is set aside, or no task could be made of the document.
        """
        language = prompt.language or language_of(prompt.prompt)
        required: int | None
        lo: int | None
        hi: int | None
        if prompt.kind == "document":
            text, asked = await documents.to_task(prompt, ask, language=language, how=self.documents)
            required, lo, hi = asked.words, asked.lo, asked.hi
        else:
            text = prompt.prompt
            required, lo, hi = _length(prompt)
        if max(required or 0, lo or 0, hi or 0) > MAX_WORDS:
            raise Reject("length_out_of_reach", f"more than {MAX_WORDS:,} words are asked for", filtered=True)
        if self.selection:
            selection.check(text)
        if required is None and self.require_length:
            raise Reject("no_length", "the task states no length, and `require_length` is on", filtered=True)
        judged = None
        if self.selection:
            judged = await selection.check_needs_long(ask, text, language=language, words=self.long_words)
        if required is None and lo is None and self.ask_length:
            lo, hi = judged or await selection.length_range(ask, text, language=language)
        task = Task(text, language, _aim(required, lo, hi, self.default_words), required, lo, hi)
        ask.note("task", "length", required=required, lo=lo, hi=hi, aim=task.aim, language=language)
        return task

    async def finish(
        self, task: Task, text: str, ask: Ask, *, metrics: Mapping[str, float], plan: tuple[PlannedStep, ...] = ()
    ) -> Sample:
        """Scores a whole text that has passed the guards, and gates it.

        Raises:
            Reject: A score is below its gate.
        """
        words = count_words(text)
        length_score = None if task.required is None else s_l(task.required, words)
        if length_score is not None and self.min_s_l is not None and length_score < self.min_s_l:
            detail = f"{words} words for {task.required}: s_l {length_score:.1f} is below min_s_l {self.min_s_l:g}"
            raise refused("length_score", detail, text, metrics={"s_l": length_score, "words": words})
        judged = await quality.judge(ask, task.text, text, language=task.language) if self.judge else None
        if self.min_s_q is not None and (judged is None or judged < self.min_s_q):
            detail = f"s_q is {judged}, min_s_q is {self.min_s_q:g}"
            raise refused("quality_score", detail, text, metrics={} if judged is None else {"s_q": judged})
        return Sample(
            messages=(Message("user", task.text), Message("assistant", text)),
            output_words=words,
            language=task.language,
            required_words=task.required,
            s_l=length_score,
            s_q=judged,
            len_lo=task.lo,
            len_hi=task.hi,
            plan=plan,
            guard_metrics=metrics,
        )


def refused(
    reason: str, detail: str, text: str, *, step: str = "", metrics: Mapping[str, float] | None = None
) -> Reject:
    """A dead letter that shows the text it was about."""
    reply = Reply(text, (), "stop", (), 0, 0)
    return Reject(reason, detail, step=step, tries=(Try(reply, Unacceptable(reason, detail, metrics=metrics)),))


def _length(prompt: Prompt) -> tuple[int | None, int | None, int | None]:
    if prompt.required_words is not None:
        return prompt.required_words, prompt.len_lo, prompt.len_hi
    asked = required_words.extract(prompt.prompt)
    return (asked.words, asked.lo, asked.hi) if asked else (None, prompt.len_lo, prompt.len_hi)


def _aim(required: int | None, lo: int | None, hi: int | None, default: int) -> int:
    """A little inside of a bound, so that an honest miss still keeps it."""
    if required is None:
        return (lo + hi) // 2 if lo and hi else lo or hi or default
    if lo is not None and required <= lo:
        return min(round(1.1 * lo), hi or round(1.1 * lo))
    if hi is not None and required >= hi:
        return max(round(0.9 * hi), lo or 0)
    return required
