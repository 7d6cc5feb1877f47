"""AgentWrite (LongWriter, arXiv 2408.07055): plan the paragraphs of a long text, then write them one after another.

What is better than the original (recipes-synth.md §1.5): plans are parsed, numbered without gaps and made to add up to
the length asked for; every paragraph has a budget of its own and is guarded, alone and as the end of the text so far; a
paragraph that will not come is replaced by the best that was refused for its length alone, or the row is a dead letter.
No error text ever becomes a row.
"""

import re
from collections.abc import Callable
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ropewalk.synth.engine import Message
from ropewalk.synth.guards.flags import strip_labels
from ropewalk.synth.recipe import Ask, PlannedStep, Prompt, Reject, Reply, Sample, Unacceptable
from ropewalk.synth.recipes import agentwrite_prompts as say
from ropewalk.synth.recipes.agentwrite_plan import check, parse, reconcile
from ropewalk.synth.recipes.writing import Task, Writing
from ropewalk.synth.scores.length import s_l
from ropewalk.synth.scores.words import count_words, tokens_of

TOKENS_PER_STEP = 60
"""Of a plan: a line of it."""
BOUNDS = (0.5, 2.0)
"""Words of a paragraph, as multiples of its step's."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)]*(?=\s|$)|[。！？…][”’』」）]*")

Written = tuple[str, dict[str, float]]
"""A paragraph, and the figures of the text up to its end."""


class Agentwrite(Writing):
    """Plan, then write; one paragraph a call."""

    version: ClassVar[int] = 1

    name: Literal["agentwrite"] = "agentwrite"
    """Name of the recipe."""
    plan: Literal["model", "outline"] = "model"
    """Who plans: the model; or a fixed outline of sections, each asked for with a short prompt and ended by a line end,
    for models too weak to plan or to stop (SmolLM2-135M)."""
    min_paragraph: int = Field(default=100, ge=1)
    """Least words of a step."""
    max_paragraph: int = Field(default=1500, ge=1)
    """Most words of a step."""
    max_steps: int = Field(default=50, ge=2, le=200)
    """Most steps of a plan."""
    tolerance: float = Field(default=0.3, gt=0, lt=1)
    """How far a plan's total may be off the length asked for; within, it is scaled to be right."""
    plan_attempts: int = Field(default=4, ge=1)
    """Plans asked for before the row gives up."""
    section_words: int = Field(default=150, ge=1)
    """Words of a section of an outline, where there are not too many of them."""
    context_words: int | None = Field(default=None, ge=0)
    """Show the writer only the last paragraphs of the text so far, of so many words together; 0: none; default: all."""
    room: float = Field(default=2.0, ge=1)
    """Ceiling of a paragraph, as a multiple of the tokens that its words are likely to need."""
    keep_best: bool = True
    """Where every try of a paragraph was refused, keep that one of those refused for their length alone that comes
    nearest, unless even that is below a third or above four times of it."""
    cut_sentences: bool = False
    """Keep a try that ran into its ceiling, cut after its last whole sentence; for weak models, which seldom end."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.max_paragraph < 2 * self.min_paragraph:
            raise ValueError("max_paragraph is less than twice min_paragraph: some lengths could not be planned")
        return self

    def expected_tokens(self, prompt: Prompt) -> int:
        """Likely generated tokens of the row."""
        text = super().expected_tokens(prompt)
        return text if self.plan == "outline" else text + TOKENS_PER_STEP * max(2, text // 600)

    async def __call__(self, prompt: Prompt, ask: Ask) -> Sample:
        """Makes one row."""
        task = await self.task(prompt, ask)
        least, most = 2 * self.min_paragraph, self.max_steps * self.max_paragraph
        if not least <= task.aim <= most:
            detail = f"{task.aim} words; a plan of 2 to {self.max_steps} steps has {least} to {most}"
            raise Reject("length_out_of_reach", detail, filtered=True)
        plan = self._outline(task) if self.plan == "outline" else await self._plan(task, ask)
        ask.note("plan", "planned", steps=[[step.point, step.words] for step in plan])
        paragraphs: list[str] = []
        metrics: dict[str, float] = {}
        for step in range(len(plan)):
            paragraph, metrics = await self._write(task, plan, paragraphs, step, ask)
            paragraphs.append(paragraph)
        return await self.finish(task, "\n\n".join(paragraphs), ask, metrics=metrics, plan=plan)

    async def _plan(self, task: Task, ask: Ask) -> tuple[PlannedStep, ...]:
        low = min(2 * self.min_paragraph, max(self.min_paragraph, task.aim // 5))
        high = max(low, min(self.max_paragraph * 2 // 3, task.aim // 2))
        prompt = say.plan_prompt(
            task.text, language=task.language, words=task.aim, low=low, high=high, steps=self.max_steps
        )

        def accept(reply: Reply) -> tuple[PlannedStep, ...]:
            return check(
                parse(reply.text),
                required=task.aim,
                min_words=self.min_paragraph,
                max_words=self.max_paragraph,
                max_steps=self.max_steps,
                tolerance=self.tolerance,
            )

        return await ask(
            "plan",
            [Message("user", prompt)],
            accept=accept,
            max_tokens=max(512, 2 * TOKENS_PER_STEP * self.max_steps),
            expected_tokens=TOKENS_PER_STEP * max(2, task.aim // (2 * low)),
            attempts=self.plan_attempts,
            widen=True,
        )

    def _outline(self, task: Task) -> tuple[PlannedStep, ...]:
        sections = min(max(2, round(task.aim / self.section_words)), say.MAX_SECTIONS, self.max_steps)
        sections = max(2, min(sections, task.aim // self.min_paragraph), -(-task.aim // self.max_paragraph))
        if sections > say.MAX_SECTIONS:
            most = say.MAX_SECTIONS * self.max_paragraph
            raise Reject("length_out_of_reach", f"{task.aim} words; an outline reaches {most}", filtered=True)
        roles = say.outline(task.text, language=task.language, sections=sections)
        wanted = [round(1000 * weight) for weight, _ in roles]
        words = reconcile(wanted, task.aim, min_words=self.min_paragraph, max_words=self.max_paragraph)
        return tuple(PlannedStep(point, count) for (_, point), count in zip(roles, words, strict=True))

    async def _write(
        self, task: Task, plan: tuple[PlannedStep, ...], paragraphs: list[str], step: int, ask: Ask
    ) -> Written:
        planned = plan[step]
        so_far = _last_words(paragraphs, self.context_words)
        if self.plan == "outline":
            prompt = say.section_prompt(task.text, planned, so_far, language=task.language)
        else:
            prompt = say.write_prompt(task.text, plan, so_far, step, language=task.language)
        asked = f"{task.text}\n{planned.point}"
        last = step == len(plan) - 1
        # The whole text so far at steps 2, 3, 5, 9, 17, … and the last: what that costs is linear in the text.
        before = paragraphs if last or step & (step - 1) == 0 else paragraphs[-1:]

        def clean(text: str) -> Written:
            """A paragraph that passes the guards, alone and at the end of the text so far."""
            text = strip_labels(text).strip()
            if not text:
                raise Unacceptable("empty", "nothing but labels")
            metrics = ask.guard(text, language=task.language, prompt=asked)
            if before:
                try:
                    whole = "\n\n".join([*before, text])
                    metrics = ask.guard(whole, language=task.language, prompt=task.text, whole=last)
                except Unacceptable as fault:  # what it would keep is no beginning of this paragraph
                    raise Unacceptable(
                        fault.reason, f"with what stands before: {fault.detail}", metrics=fault.metrics
                    ) from None
            return text, metrics

        def accept(reply: Reply) -> Written:
            text, metrics = clean(reply.text)
            words = count_words(text)
            least, most = (bound * planned.words for bound in BOUNDS)
            if not least <= words <= most:
                reason = "too_short" if words < least else "too_long"
                detail = f"{words} words for a step of {planned.words}"
                raise Unacceptable(reason, detail, metrics={"words": words, "planned-words": planned.words})
            return text, metrics

        name = f"write-{step + 1}"
        tokens = tokens_of(planned.words, task.language)
        try:
            return await ask(
                name,
                [Message("user", prompt)],
                accept=accept,
                max_tokens=max(64, round(self.room * tokens)),
                expected_tokens=tokens,
                widen=not self.cut_sentences,
                stop=("\n",) if self.plan == "outline" else (),
            )
        except Reject as fault:
            best = self._best(fault, clean, planned.words)
            if best is None:
                raise
            attempt, written = best
            ask.keep(name, attempt)
            ask.note(name, "kept the best of what was refused", reason=fault.reason, words=count_words(written[0]))
            return written

    def _best(self, fault: Reject, clean: Callable[[str], Written], words: int) -> tuple[int, Written] | None:
        """Of the tries that were refused, number and text of the one nearest to its length that is whole and clean."""
        found: list[tuple[float, int, Written]] = []
        if not fault.tries or fault.reason != fault.tries[-1].fault.reason:
            return None  # not refused but failed, or out of time: another run may do better
        for one in fault.tries:
            text = one.reply.text
            if one.reply.finish_reason == "length" and self.cut_sentences:
                text = _whole_sentences(strip_labels(text))
            elif not self.keep_best or one.fault.reason not in ("too_short", "too_long"):
                continue
            try:
                written = clean(text)
            except Unacceptable:
                continue
            score = s_l(words, count_words(written[0]))
            if score > 0:
                found.append((score, one.reply.attempt, written))
        return max(found, key=lambda entry: entry[0])[1:] if found else None


def _last_words(paragraphs: list[str], words: int | None) -> str:
    """The text so far; of it the last whole paragraphs with no more than so many words together, but one at least."""
    if words == 0:
        return ""
    first = len(paragraphs)
    total = 0
    while first and (words is None or first == len(paragraphs) or total + count_words(paragraphs[first - 1]) <= words):
        first -= 1
        total += count_words(paragraphs[first])
    return "\n\n".join(paragraphs[first:])


def _whole_sentences(text: str) -> str:
    """A text up to the end of its last whole sentence; empty if it has none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""
