"""What is sent to an OpenAI-compatible server: the common fields, and what each kind of server adds to them.

Hosted servers refuse fields they do not know, so only what differs from the default is sent. vLLM, SGLang and llama.cpp
read other defaults from the model's `generation_config.json` or bring their own: they are told every value, so that
what the recipe says is what is sampled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ropewalk.synth.engine import Request, RequestError

Continuation = Literal["vllm", "prefix", "assistant", "none"]
"""How a server goes on after an answer's beginning: `vllm`: `continue_final_message`; `prefix`: `prefix: true` in the
assistant's message (DeepSeek, Mistral); `assistant`: it continues whenever the last message is the assistant's."""

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values that leave the model's distribution alone."""
RESERVED = frozenset({"messages", "model", "n", "prompt", "stream", "stream_options"})
"""Fields that `extra` cannot set: the answer could not be read."""
STREAM_INTERVAL = 16
"""Tokens per event of a stream, where the server can: one event a token costs us more time than the model."""


@dataclass(frozen=True)
class Dialect:
    """What one kind of server understands.

    Attributes:
        name: Its kind.
        continuation: How it goes on after an answer's beginning.
        token_ids: Whether it tells token ids, renders a chat to them (`/tokenize`) and takes them as a prompt.
        repetition: Whether it ends loops itself.
        explicit: Whether it is told neutral values too.
        names: Our name of a field to its own; none: never sent.
        all_tokens: Its `top_k` for "all".
    """

    name: str
    continuation: Continuation = "none"
    token_ids: bool = False
    repetition: bool = False
    explicit: bool = False
    names: Mapping[str, str | None] = field(default_factory=dict)
    all_tokens: int = 0


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("vllm", "vllm", token_ids=True, repetition=True, explicit=True),
        Dialect("sglang", "vllm", explicit=True, all_tokens=-1),
        Dialect("llama.cpp", "assistant", explicit=True, names={"repetition_penalty": "repeat_penalty"}),
        Dialect("openai"),
    )
}
_OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}


def kind_of(owner: str) -> str:
    """Kind of server by `owned_by` of a model's card."""
    return _OWNERS.get(owner, "openai")


def dialect_of(kind: str, version: str) -> Dialect:
    """What a kind of server understands in this version; an unknown version is taken for a new one."""
    dialect = DIALECTS[kind]
    if dialect.name == "vllm":
        numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
        if numbers and numbers < (0, 10, 2):
            dialect = replace(dialect, token_ids=False)  # return_token_ids came with 0.10.2
        if numbers and numbers < (0, 17):
            dialect = replace(dialect, repetition=False)  # repetition_detection came with 0.17
    return dialect


def build(
    request: Request, model: str, dialect: Dialect, context_length: int | None, prompt_ids: tuple[int, ...] = ()
) -> tuple[str, dict[str, Any]]:
    """Path below the base URL, and body.

    Args:
        request: The request.
        model: Name of the model on the server.
        dialect: What the server understands.
        context_length: Tokens it takes, where known.
        prompt_ids: The whole prompt as tokens, beginning of the answer included; empty to send the messages.

    Raises:
        RequestError: The request cannot be said in this dialect.
    """
    sampling = request.sampling
    if taken := sorted(RESERVED & sampling.extra.keys()):
        raise _cannot(f"sampling.extra sets {', '.join(taken)}, which the engine sets itself: remove it")
    if sampling.json_schema is not None and (request.generated_ids or request.generated_text):
        raise _cannot("an answer bound to a JSON schema cannot be continued: raise max_tokens so that it fits")
    values: dict[str, Any] = {"model": model}
    if prompt_ids:
        path = "/completions"
        values["prompt"] = list(prompt_ids)
    else:
        path = "/chat/completions"
        values["messages"] = _messages(request, dialect)
        if request.generated_text and dialect.continuation == "vllm":
            values |= {"continue_final_message": True, "add_generation_prompt": False}
    values |= {"stream": True, "stream_options": {"include_usage": True}}
    values["max_tokens"] = min(sampling.max_tokens, context_length or sampling.max_tokens)
    values |= _drawing(request, dialect)
    if sampling.logprobs:
        values["logprobs"] = 1 if prompt_ids else True
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": json.loads(sampling.json_schema), "strict": True}
        values["response_format"] = {"type": "json_schema", "json_schema": schema}
    if dialect.token_ids:
        values |= {"return_token_ids": True, "stream_interval": STREAM_INTERVAL}
    body = {}
    for name, value in values.items():
        theirs = dialect.names.get(name, name)
        if theirs is not None:
            body[theirs] = value
    return path, body | dict(sampling.extra)


def _cannot(detail: str) -> RequestError:
    return RequestError("bad_request", detail, transient=False)


def _messages(request: Request, dialect: Dialect) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    if request.generated_text:
        if dialect.continuation == "none":
            raise _cannot(
                "this server is not known to continue an answer: set engine.options.continuation to vllm, prefix or "
                "assistant if it does, else raise generation.segment_tokens to the longest answer"
            )
        begun: dict[str, Any] = {"role": "assistant", "content": request.generated_text}
        messages.append(begun | {"prefix": True} if dialect.continuation == "prefix" else begun)
    return messages


def _drawing(request: Request, dialect: Dialect) -> dict[str, Any]:
    sampling = request.sampling
    values: dict[str, Any] = {name: getattr(sampling, name) for name in NEUTRAL}
    if not dialect.explicit:
        values = {name: value for name, value in values.items() if value != NEUTRAL[name] or name == "temperature"}
    elif not values["top_k"]:
        values["top_k"] = dialect.all_tokens
    if sampling.seed is not None:
        values["seed"] = sampling.seed
    if sampling.stop:
        values["stop"] = list(sampling.stop)
    if sampling.min_tokens:
        values["min_tokens"] = sampling.min_tokens
    if sampling.repetition is not None and dialect.repetition:
        values["repetition_detection"] = {
            "max_pattern_size": sampling.repetition.max_pattern,
            "min_pattern_size": sampling.repetition.min_pattern,
            "min_count": sampling.repetition.min_count,
        }
    return values
