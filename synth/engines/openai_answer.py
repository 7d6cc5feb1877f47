"""Reads answers of OpenAI-compatible servers, streamed or whole, chat or completion, into one `Completion`.

What an answer holds is not trusted: a wrong type is a `bad_response`, and a stream that ends before it says why is a
lost connection, never a short text.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from ropewalk.synth.engine import Completion, FinishReason, RequestError, Timing, Usage
from ropewalk.synth.engines.openai_faults import bad_response, excerpt

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "repetition": "repetition",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}
"""The servers' words for ours; any other is `error`, with the word itself as stop reason."""
LOST = frozenset({"abort", "cancelled", "error", "insufficient_system_resource"})
"""The server gave up on its own account: nobody asked it to, so the request may go again."""


class Events:
    """Splits a stream of server-sent events (WHATWG HTML §9.2) into the data of each."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Data of the events that are complete with this chunk; comments and other fields are dropped."""
        end = chunk.rfind(b"\n")
        if end < 0:
            self._pieces.append(chunk)
            return
        self._pieces.append(chunk[:end])
        lines = b"".join(self._pieces).split(b"\n")
        self._pieces = [chunk[end + 1 :]]
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data


class StreamError(Exception):
    """The server reported an error inside a stream.

    Attributes:
        status: Its code, if it is an HTTP status; else 500.
        body: The event, as text.
    """

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status, self.body = status, body


class Answer:
    """What has come of one answer so far.

    Attributes:
        started: Whether any token has come.
        done: Whether the stream said that nothing more comes.
        finish: Why it ended, in the server's word; none while it goes on.
        model: Model that answered, in the server's word.
        token_ids: Tokens so far, where the server tells them.
    """

    def __init__(self) -> None:
        self.started = self.done = False
        self.finish: str | None = None
        self.model = ""
        self.token_ids: list[int] = []
        self._stop_reason: str | None = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: list[float] = []
        self._reasoned = False
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> None:
        """Takes a whole answer or the data of one event.

        Raises:
            RequestError: It is not an answer.
            StreamError: It is an error.
        """
        if self.done or data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise bad_response(f"not JSON: {excerpt(data.decode(errors='replace'))}") from None
        try:
            self._take(event)
        except (TypeError, KeyError, IndexError, AttributeError, OverflowError):
            raise bad_response(f"not a completion: {excerpt(data.decode(errors='replace'))}") from None

    def keep(self, tokens: int) -> None:
        """Forgets all tokens but the first."""
        del self.token_ids[tokens:], self._logprobs[tokens:]

    def end(self) -> None:
        """Called when nothing more comes.

        Raises:
            RequestError: The answer broke off, or the server gave it up.
        """
        if self.finish is None:
            raise RequestError("connection", "the answer broke off before its end", transient=True)
        if self.finish in LOST:
            raise RequestError("server", f"the server gave up: finish_reason {self.finish}", transient=True)

    def completion(self, *, logprobs: bool, timing: Timing, engine: str, estimate: Callable[[str], int]) -> Completion:
        """The finished answer.

        Args:
            logprobs: Whether they were asked for.
            timing: Seconds.
            engine: Engine and version.
            estimate: Tokens of a text, for servers that do not count.

        Raises:
            RequestError: The prompt left no room for it.
        """
        assert self.finish is not None, "call `end` first"
        text = "".join(self._text)
        finish = FINISH.get(self.finish, "error")
        stop_reason = self.finish if finish == "error" else self._stop_reason
        if self._refusal and not text:
            text, finish, stop_reason = "".join(self._refusal), "content_filter", "refusal"
        usage = self._usage or Usage(generated=estimate(text))
        if finish == "length" and not usage.generated and not text and not self._reasoned:
            raise RequestError("prompt_too_long", "the prompt leaves no room for an answer", transient=False)
        return Completion(
            text=text,
            # Tokens of an answer that was thought out first hold the thoughts too: they are not those of its text.
            token_ids=() if self._reasoned else tuple(self.token_ids),
            finish_reason=finish,
            usage=usage,
            stop_reason=stop_reason,
            timing=timing,
            logprobs=tuple(self._logprobs) if logprobs and self._logprobs else None,
            engine=engine,
        )

    def _take(self, event: Any) -> None:
        if event.get("error"):
            code = event["error"].get("code") if isinstance(event["error"], dict) else None
            status = int(code) if isinstance(code, int | str) and str(code).isdecimal() else 500
            raise StreamError(status if 400 <= status < 600 else 500, json.dumps(event))
        self.model = _text(event.get("model")) or self.model
        if event.get("usage"):
            self._usage = _usage(event["usage"])
        for choice in event["choices"]:
            if choice.get("index", 0) == 0:
                self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        message = choice.get("delta") or choice.get("message") or {}
        self._content(message.get("content"))
        self._content(choice.get("text"))
        self._think(message.get("reasoning") or message.get("reasoning_content"))
        if refusal := _text(message.get("refusal")):
            self._refusal.append(refusal)
        for token in choice.get("token_ids") or ():
            if not isinstance(token, int):
                raise TypeError("token_ids")
            self.token_ids.append(token)
            self.started = True
        found = choice.get("logprobs") or {}
        self._logprobs += [float(token["logprob"]) for token in found.get("content") or ()]
        self._logprobs += [float(value) for value in found.get("token_logprobs") or ()]
        if reason := _text(choice.get("finish_reason")):
            self.finish = reason
            stop = choice.get("stop_reason", choice.get("matched_stop"))
            self._stop_reason = None if stop is None else str(stop)

    def _content(self, content: Any) -> None:
        if isinstance(content, list):  # parts, as Mistral sends them
            for part in content:
                if part["type"] == "text":
                    self._content(part["text"])
                else:
                    self._think(part["type"])
        elif text := _text(content):
            self._text.append(text)
            self.started = True

    def _think(self, thought: Any) -> None:
        if _text(thought):
            self._reasoned = self.started = True


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError("text expected")
    return value or ""


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0  # the latter: DeepSeek
    counts = (usage.get("prompt_tokens") or 0, cached, usage.get("completion_tokens") or 0)
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise TypeError("usage")
    return Usage(*counts)
