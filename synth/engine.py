"""What a model is asked and what it answers: the one protocol all engines speak.

A request is self-contained: who asks (row, step, attempt, segment), what (messages or token ids, and what has been
generated so far), and how (sampling). An engine answers each on its own; a fault of one request is a `RequestError`
and touches no other. Only the death of the engine itself is an `EngineDead`.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ropewalk.schemas.manifest import fingerprint

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "repetition", "content_filter", "abort", "error"]
"""`stop`: the model ended, or a stop string came; `length`: max_tokens or the context is used up; `repetition`: the
engine's loop detection ended it; `content_filter`: the server refused; `abort`: cancelled; `error`: anything else."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Repetition:
    """Ends a generation whose tail is `min_count` copies of one pattern; vLLM's `RepetitionDetectionParams`.

    Attributes:
        max_pattern: Longest pattern looked for, in tokens.
        min_pattern: Shortest, in tokens.
        min_count: Copies in a row.
    """

    max_pattern: int = 256
    min_pattern: int = 8
    min_count: int = 4


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Names are vLLM's; every field is part of the cache key.

    Attributes:
        max_tokens: Most tokens to generate, at least 1.
        min_tokens: Tokens before an end is allowed.
        temperature: 0 is greedy.
        top_p: Nucleus share.
        top_k: Candidates; 0 for all.
        min_p: Least probability relative to the best token.
        repetition_penalty: 1 for none.
        seed: Seed of this request; none leaves it to the engine (never used by `ask`).
        stop: Strings that end the text; not part of it.
        repetition: Loop detection, or none (tables, code, verifiable traces).
        json_schema: JSON schema the text must satisfy, as canonical JSON; none for free text.
        logprobs: Return the log-probability of each generated token.
        extra: The engine's own parameters, passed through unchanged (JSON values).
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition: Repetition | None = None
    json_schema: str | None = None
    logprobs: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One question to the engine.

    Attributes:
        row: Id of the row that asks.
        step: Name of the step inside the row's recipe (`plan`, `write-3`); unique within the row.
        attempt: 0 for the first try; resampling raises it.
        segment: 0, 1, … of a generation that is cut in segments.
        messages: The conversation; the engine renders it with the model's chat template. Empty with `prompt_ids`.
        prompt_ids: The prompt as token ids, in place of messages; engines that only speak text refuse it.
        generated_ids: Tokens of the answer so far, where the engine told them: it goes on after them. They win over
            `generated_text`, which says the same as text, for servers that continue from an assistant prefix.
        generated_text: Text of the answer so far; with empty `generated_ids` the engine tokenizes it itself.
        sampling: How to draw; `sampling.max_tokens` counts the new tokens of this request only.
    """

    row: str
    step: str
    messages: tuple[Message, ...]
    sampling: Sampling
    attempt: int = 0
    segment: int = 0
    prompt_ids: tuple[int, ...] = ()
    generated_ids: tuple[int, ...] = ()
    generated_text: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of one request: of its prompt (what was generated before included), of those cached, and generated."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0


@dataclass(frozen=True)
class Timing:
    """Seconds of one request: waiting inside the engine, to the first token, and in all; 0 where unknown."""

    queued: float = 0.0
    first_token: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Completion:
    """The answer to one request.

    Attributes:
        text: New text, without the stop string.
        token_ids: New tokens; empty if the server does not tell them.
        finish_reason: Why it ended.
        stop_reason: The stop string, or the engine's own word for it.
        usage: Tokens.
        timing: Seconds.
        logprobs: Log-probability of each new token, if asked for.
        engine: Engine and version that answered, such as `vllm 0.32.0`.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    stop_reason: str | None = None
    timing: Timing = Timing()
    logprobs: tuple[float, ...] | None = None
    engine: str = ""


class RequestError(Exception):
    """This request failed; others are untouched.

    Attributes:
        reason: Short code: `timeout`, `connection`, `rate_limit`, `server`, `bad_request`, `prompt_too_long`, …
        transient: Whether the same request may succeed later.
        retry_after: Seconds the server asked to wait, if it did.
    """

    def __init__(self, reason: str, detail: str, *, transient: bool, retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.transient, self.retry_after = reason, detail, transient, retry_after


class EngineDead(Exception):
    """The engine itself is gone; no request can succeed. The run ends; what is cached is kept."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is; known once it has started.

    Attributes:
        engine: Its kind and version, such as `vllm 0.32.0`. Not part of the cache key.
        model: Model as the user named it. Part of the cache key, as are the next two.
        revision: Commit on the Hub, or hash of the weights where they are a file, with `revision_with`; empty if the
            server hides it.
        template: Fingerprint of chat template and tokenizer; empty if the server applies its own.
        max_sequences: Requests it works on at once.
        max_tokens: Tokens its KV cache holds; none if unknown.
        context_length: Most tokens of prompt and answer together; none if unknown.
        token_ids: Whether completions carry token ids and requests may.
        continues: Whether it goes on after `generated_ids` or `generated_text`.
    """

    engine: str
    model: str
    revision: str = ""
    template: str = ""
    max_sequences: int = 64
    max_tokens: int | None = None
    context_length: int | None = None
    token_ids: bool = True
    continues: bool = True


def revision_with(revision: str, options: Mapping[str, Any], changing: Collection[str]) -> str:
    """The revision of a model that is run with other weights or numbers than its own: part of the cache key.

    Args:
        revision: Of the model itself.
        options: The engine's options as the user set them.
        changing: Names of those that change answers, such as a quantization; the others (memory, threads) do not.
    """
    changed = {name: value for name, value in options.items() if name in changing}
    if not changed:
        return revision
    told = json.dumps(changed, sort_keys=True, default=_name)
    return f"{revision}+{fingerprint(told)[:16]}"


def _name(value: object) -> str:
    """What stands for a class or function among options, such as a logits processor: where it is defined."""
    named = value if isinstance(value, type) or callable(value) else type(value)
    return f"{named.__module__}:{getattr(named, '__qualname__', type(named).__qualname__)}"


class Engine(Protocol):
    """Anything that answers requests. Constructing one is cheap and touches nothing; `start` loads or connects.

    All methods are called from one event loop.
    """

    async def start(self) -> EngineInfo:
        """Loads the model or asks the server who it is.

        Raises:
            EngineDead: It cannot start; the message names the remedy.
        """

    async def generate(self, request: Request) -> Completion:
        """Answers one request; many run at once. Cancelling the task frees its place in the batch.

        Raises:
            RequestError: This request failed.
            EngineDead: The engine is gone.
        """

    def count_tokens(self, text: str) -> int:
        """Tokens of a text: exact where the tokenizer is at hand, else an estimate. Cheap enough for every request."""

    def stats(self) -> dict[str, float]:
        """Figures of the engine's own (`preemptions-requests`, `kv_usage-share`, …), by name with unit; may be none."""

    async def close(self) -> None:
        """Ends it and frees its memory; safe to call twice."""
