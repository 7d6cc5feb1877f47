"""What a recipe sees: a prompt in, a way to ask the model, a sample out.

A recipe is an ordinary coroutine over one row. It owns prompts, parsing and acceptance; `ask` owns cache, retries,
segments, budgets and telemetry. A recipe never talks to an engine, looks at a clock, or draws a random number that
does not come from `seed_of`: run again over the same cache, it must make the same row. That is also how a row is
traced: its coroutine runs once more with an engine that only knows the cache.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ropewalk.synth.engine import Message

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """One row to be made: a row of `synthesis.PROMPTS`.

    Attributes:
        id: Stable id.
        prompt: The task, as a user would put it; for `kind` "document", the document it is to be made from.
        kind: `task`, or `document` (a recipe that takes tasks only rejects the latter).
        language: `en` or `zh`, if known.
        required_words: Length asked for, in words of `scores.words`, if known.
        len_lo: Least admissible words, if known.
        len_hi: Most admissible words, if known.
        source: Name of the input.
        source_ids: Documents it came from.
    """

    id: str
    prompt: str
    kind: str = "task"
    language: str | None = None
    required_words: int | None = None
    len_lo: int | None = None
    len_hi: int | None = None
    source: str = ""
    source_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """An answer as a recipe sees it: all its segments joined.

    Attributes:
        text: The text.
        token_ids: Its tokens, where the engine tells them.
        finish_reason: Of the last segment.
        finish_reasons: Of each segment.
        attempt: Which try this was.
        generated_tokens: Tokens generated for it.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    finish_reasons: tuple[str, ...]
    attempt: int
    generated_tokens: int


class Unacceptable(Exception):
    """Raised by an `accept` function: this reply will not do; `ask` resamples.

    Attributes:
        reason: Short code, `snake_case`: it ends up in the counts (`repetition`, `refusal`, `bad_plan`, …).
        detail: What exactly, for whoever reads the dead letters.
        keep: Clean beginning of the text that the next attempt may continue from; empty to start anew.
        metrics: Figures behind the decision.
    """

    def __init__(
        self, reason: str, detail: str = "", *, keep: str = "", metrics: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.keep, self.metrics = reason, detail, keep, dict(metrics or {})


@dataclass(frozen=True)
class Try:
    """One attempt that was not accepted."""

    reply: Reply
    fault: Unacceptable


class Reject(Exception):
    """This row makes no sample. Raised by recipes, and by `ask` when its attempts are used up.

    Attributes:
        reason: Short code, counted.
        detail: What exactly.
        filtered: True if the row was set aside on purpose (a selection rule), false for a dead letter.
        step: Step that failed; empty for the row as a whole.
        tries: What was generated and refused, so that a recipe may catch this and keep the best.
    """

    def __init__(
        self, reason: str, detail: str = "", *, filtered: bool = False, step: str = "", tries: Sequence[Try] = ()
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.filtered, self.step = reason, detail, filtered, step
        self.tries = tuple(tries)


@dataclass(frozen=True)
class PlannedStep:
    """One paragraph of a plan: its main point and its length in words."""

    point: str
    words: int


@dataclass(frozen=True)
class Sample:
    """What a recipe makes of a prompt: the content of an `sft` row. Provenance and usage are added by `ask`'s side.

    Attributes:
        messages: The conversation to train on, ending with the assistant's turn.
        output_words: Words of the assistant's text, `scores.words.count_words`.
        required_words: Length asked for; the score of length needs it.
        s_l: Length score, 0 to 100; none without a required length.
        s_q: Quality score, 0 to 100; none if nobody judged.
        len_lo: Least admissible words.
        len_hi: Most admissible words.
        language: `en` or `zh`.
        plan: The plan it was written along, if any.
        guard_metrics: `guards.metrics.measure` of the assistant's text.
    """

    messages: tuple[Message, ...]
    output_words: int
    language: str
    required_words: int | None = None
    s_l: float | None = None
    s_q: float | None = None
    len_lo: int | None = None
    len_hi: int | None = None
    plan: tuple[PlannedStep, ...] = ()
    guard_metrics: Mapping[str, float] = field(default_factory=dict)


class Ask(Protocol):
    """How a recipe asks the model. Implemented by `ask.RowAsk`."""

    async def __call__(
        self,
        step: str,
        messages: Sequence[Message],
        *,
        accept: Callable[[Reply], T],
        max_tokens: int,
        expected_tokens: int | None = None,
        attempts: int | None = None,
        widen: bool = False,
        temperature: float | None = None,
        json_schema: str | None = None,
        stop: Sequence[str] = (),
        prefix: str = "",
        judge: bool = False,
    ) -> T:
        """Asks until a reply is accepted.

        Args:
            step: Name of the step; unique within the row.
            messages: The conversation; what never changes first, what grows after it, the current task last, so that
                prefix caching finds most of it.
            accept: Turns a finished reply into the result, or raises `Unacceptable`. It sees only replies that ended
                by themselves: `length`, `repetition` and empty ones never get there.
            max_tokens: Ceiling of the whole answer; it may be generated in segments.
            expected_tokens: Likely length, for scheduling; default: `max_tokens`.
            attempts: Tries in all; default: the run's.
            widen: Let an answer that reaches the ceiling go on once, to twice of it.
            temperature: In place of the run's.
            json_schema: JSON schema the text must satisfy.
            stop: Strings that end the answer.
            prefix: Beginning of the answer, given: the reply holds it too.
            judge: Ask the run's judge (the engine itself where none is set).

        Raises:
            Reject: Attempts, tokens or time of the row are used up, or the request cannot succeed.
        """

    def keep(self, step: str, attempt: int) -> None:
        """Tells that a refused try was taken after all, in part or whole: the row's provenance then shows its requests.

        Args:
            step: The step whose `ask` was rejected.
            attempt: Which of its tries, `Try.reply.attempt`.
        """

    def guard(self, text: str, *, language: str, prompt: str = "", whole: bool = False) -> dict[str, float]:
        """Measures a text and refuses it if a guard fires; meant to be called inside `accept`.

        Args:
            text: A paragraph, or the whole output.
            language: `en` or `zh`.
            prompt: The task, to find echoes of it.
            whole: Whether this is the finished output: then its end is looked at too.

        Returns:
            The figures, see `synthesis.GUARD_METRICS`.

        Raises:
            Unacceptable: A guard fired; `keep` is the clean beginning, if there is one.
        """

    def note(self, step: str, decision: str, **facts: Any) -> None:
        """Leaves a line in the row's trace: what was decided and why."""


class Recipe(Protocol):
    """One way of making rows: a frozen pydantic model of its settings that can be called.

    Attributes:
        name: Name in YAML and in every row, `snake_case`; the module in `synth/recipes/` is called the same.
        version: Raised when the same replies give other rows.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def version(self) -> int:
        """See the class."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Its settings, defaults filled in: pydantic's."""

    def expected_tokens(self, prompt: Prompt) -> int:
        """Likely generated tokens of the whole row: rows that take longest start first."""

    async def __call__(self, prompt: Prompt, ask: Ask) -> Sample:
        """Makes one row.

        Raises:
            Reject: It cannot be made.
        """


def seed_of(*parts: str | int) -> int:
    """A seed below 2^31 from stable names: (run's seed, row id, step, attempt, segment), never a worker or a clock."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 33
