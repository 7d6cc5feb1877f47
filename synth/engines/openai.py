"""Any OpenAI-compatible server as an engine: `vllm serve`, SGLang, llama.cpp, hosted services.

Answers are streamed: a request that takes an hour shows at once that it is alive, no proxy cuts an idle connection, and
cancelling it closes the stream, on which vLLM stops generating. How many requests run at once is found out by
`adaptive.Adaptive`; overload (429, 503) is waited out in here, every other fault is the caller's.

Where the server tells token ids (vLLM), an answer is continued from them: its chat is rendered by `/tokenize`, and
prompt and tokens go to `/completions`, so that a segmented greedy answer is the unsegmented one. Elsewhere the
beginning is sent as the assistant's last message.
"""

import asyncio
import contextlib
import difflib
import math
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from ropewalk.schemas import settings
from ropewalk.schemas.settings import Settings
from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import Completion, EngineDead, EngineInfo, Request, RequestError, Timing
from ropewalk.synth.engines import openai_body
from ropewalk.synth.engines.adaptive import Adaptive
from ropewalk.synth.engines.openai_answer import Answer
from ropewalk.synth.engines.openai_body import Continuation
from ropewalk.synth.engines.openai_faults import Overloaded, bad_response
from ropewalk.synth.engines.openai_http import Http

MAX_SEQUENCES = 64
ANSWER_BYTES = 16 << 20
"""Most bytes of an answer, besides `TOKEN_BYTES` a requested token; more is no answer but a fault."""
TOKEN_BYTES = 4096
LINGER_SECONDS = 2.0
"""Wait for a finished stream to close, so that its connection can be used again."""
SETTLE_SECONDS = 60.0
"""Longest wait to learn where the last whole character of a cut answer ends."""
TAIL_TOKENS = 32
"""Tokens looked at to find the end of the last whole character."""
TEMPLATE_FIELDS = ("add_special_tokens", "chat_template", "chat_template_kwargs")
"""Fields of `extra` that change how a chat is rendered, and that `/tokenize` knows."""
TEMPLATE_FIELDS_OF_CHAT = frozenset({"documents", "reasoning_effort", "tools"})
"""Such that `/tokenize` does not know, or not in the same way: those answers are continued by their text."""


class OpenAIOptions(Settings):
    """`engine.options` of `openai`."""

    server: Literal["vllm", "sglang", "llama.cpp", "openai"] | None = None
    """Kind of server, where a gateway hides it; `openai` is any other. Default: found by asking."""
    continuation: Continuation | None = None
    """How it goes on after an answer's beginning; default: by the kind of server."""
    fields: dict[str, str | None] = Field(default_factory=dict)
    """Other names of request fields, or null to leave one out: `{max_tokens: max_completion_tokens, seed: null}`."""
    first_token_seconds: float = Field(default=600.0, gt=0)
    """Longest wait for the first token."""
    idle_seconds: float = Field(default=300.0, gt=0)
    """Longest silence after it."""
    tokens_per_second: float = Field(default=2.0, gt=0)
    """Slowest generation of one answer: it may take `first_token_seconds + max_tokens / tokens_per_second`."""
    overload_seconds: float = Field(default=1800.0, ge=0)
    """Longest time a request waits for an overloaded server before it fails."""


def from_config(config: EngineConfig) -> "OpenAIEngine":
    """The engine of a recipe.

    Raises:
        RecipeError: An option is unknown or wrong.
    """
    options = settings.parse(OpenAIOptions, config.options, name="engine.options")
    assert config.url is not None and config.model is not None, "EngineConfig asks for both"
    return OpenAIEngine(
        config.url, config.model, api_key_env=config.api_key_env, max_sequences=config.max_sequences, options=options
    )


class OpenAIEngine:
    """An engine behind HTTP; see the module.

    Args:
        url: Base URL, such as `http://localhost:8000/v1`.
        model: The server's name of the model.
        api_key_env: Environment variable of the key; none is sent if it is empty.
        max_sequences: Requests in flight at most; 64 unless given.
        options: The rest.
        transport: `httpx.AsyncBaseTransport` in place of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        max_sequences: int | None = None,
        options: OpenAIOptions | None = None,
        transport: Any = None,
    ) -> None:
        self.model, self.options = model, options or OpenAIOptions()
        self._limiter = Adaptive(max_sequences or MAX_SEQUENCES)
        self._http = Http(url, api_key_env, self._limiter.ceiling + 8, transport)
        self._dialect = openai_body.DIALECTS["openai"]
        self._info = EngineInfo("openai", model)
        self._counts = {"answered-requests": 0, "retried-requests": 0, "failed-requests": 0}

    async def start(self) -> EngineInfo:
        """Asks the server who it is and what it serves; see `Engine.start`."""
        await self._http.close()
        self._limiter = Adaptive(self._limiter.ceiling)  # a pause of the last run would wait on that run's loop
        self._http.open()
        try:
            card = await self._card()
            kind = self.options.server or openai_body.kind_of(str(card.get("owned_by", "")))
            version = await self._version() if kind == "vllm" else ""
        except BaseException:
            await self._http.close()
            raise
        dialect = openai_body.dialect_of(kind, version)
        self._dialect = replace(
            dialect,
            names={**dialect.names, **self.options.fields},
            continuation=self.options.continuation or dialect.continuation,
        )
        lengths = [card.get(name) for name in ("max_model_len", "context_length", "context_window")]
        known_as = version if kind != "openai" else urlsplit(self._http.where).netloc
        self._info = EngineInfo(
            engine=f"{kind} {known_as}".strip(),
            model=self.model,
            max_sequences=self._limiter.ceiling,
            context_length=next((length for length in lengths if type(length) is int and length > 0), None),
            token_ids=dialect.token_ids,
            continues=self._dialect.continuation != "none",
        )
        return self._info

    async def generate(self, request: Request) -> Completion:
        """Answers one request; see `Engine.generate`."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        give_up: float | None = None
        while True:
            async with self._limiter.slot(again=give_up is not None) as slot:
                sent = loop.time()
                try:
                    answer, first_token = await self._exchange(request)
                except Overloaded as fault:
                    pause = fault.retry_after
                    self._limiter.congested(slot, pause)
                    if give_up is None:
                        give_up = loop.time() + self.options.overload_seconds
                    if loop.time() + (pause or 0.0) >= give_up:
                        self._counts["failed-requests"] += 1
                        reason = "rate_limit" if fault.status == 429 else "server"
                        raise RequestError(reason, fault.detail, transient=True, retry_after=pause) from None
                    self._counts["retried-requests"] += 1
                    continue
                except RequestError as fault:
                    self._counts["failed-requests"] += 1
                    if fault.reason in ("connection", "server", "timeout"):
                        self._limiter.failed(slot, fault.retry_after)
                    raise
                self._limiter.succeeded(slot)
            self._counts["answered-requests"] += 1
            return self._completion(request, answer, Timing(sent - asked, first_token - asked, loop.time() - asked))

    def count_tokens(self, text: str) -> int:
        """An estimate: a token for every 4 bytes of UTF-8, near enough for English, Chinese and code."""
        return math.ceil(len(text.encode("utf-8", "surrogatepass")) / 4)

    def stats(self) -> dict[str, float]:
        """Requests in flight, waiting, let in at most, sent again, answered and failed; decreases of the limit."""
        limiter = self._limiter
        return {
            "in_flight-requests": limiter.in_flight,
            "waiting-requests": limiter.waiting,
            "limit-requests": limiter.limit,
            "congestions-events": limiter.congestions,
            **self._counts,
        }

    async def close(self) -> None:
        """Closes the connections; safe to call twice."""
        await self._http.close()

    async def _card(self) -> dict[str, Any]:
        """The model's entry in `/models`; empty where the server lists none.

        Raises:
            EngineDead: The server is not there, refuses us, or does not serve the model.
        """
        where = self._http.where
        try:
            listed = await self._http.look_up(f"{self._http.url}/models")
        except RequestError as fault:
            raise EngineDead(f"{fault}. Start the server, or set engine.url to where it is (now {where})") from None
        cards = listed.get("data") if isinstance(listed, dict) else None
        cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        by_name: dict[str, dict[str, Any]] = {str(card.get("id")).removeprefix("models/"): card for card in cards}
        if not cards or self.model.removeprefix("models/") in by_name:  # the prefix: Google
            return by_name.get(self.model.removeprefix("models/"), {})
        if openai_body.kind_of(str(cards[0].get("owned_by", ""))) == "llama.cpp":  # one model, answering to any name
            return dict(cards[0])
        near = difflib.get_close_matches(self.model, by_name, 10, 0.0)
        more = f" and {len(by_name) - len(near)} more" if len(by_name) > len(near) else ""
        raise EngineDead(f"{where} does not serve {self.model!r} but {', '.join(near)}{more}: set engine.model to one")

    async def _version(self) -> str:
        with contextlib.suppress(RequestError, EngineDead):
            told = await self._http.look_up(f"{self._http.root}/version")
            if isinstance(told, dict) and isinstance(told.get("version"), str):
                return str(told["version"])
        return ""

    async def _exchange(self, request: Request) -> tuple[Answer, float]:
        """Sends one request and reads its answer to the end; also the time of its first token."""
        loop = asyncio.get_running_loop()
        options, answer, first_token = self.options, Answer(), 0.0
        max_tokens = request.sampling.max_tokens
        last = loop.time() + options.first_token_seconds + max_tokens / options.tokens_per_second
        streamed = self._dialect.names.get("stream", "stream") is not None

        def arrived() -> None:
            nonlocal first_token
            if answer.done:
                deadline.reschedule(min(last, loop.time() + LINGER_SECONDS))
            elif answer.started:
                first_token = first_token or loop.time()
                deadline.reschedule(min(last, loop.time() + options.idle_seconds))

        try:
            first = loop.time() + options.first_token_seconds if streamed else last
            async with self._http.faults(), asyncio.timeout_at(first) as deadline:
                path, body = await self._body(request)
                await self._http.stream(path, body, ANSWER_BYTES + TOKEN_BYTES * max_tokens, answer.feed, arrived)
        except RequestError as fault:
            # With the end told, only the count of tokens is lost.
            if fault.reason not in ("connection", "timeout") or answer.finish is None:
                raise
        answer.end()
        if answer.finish == "length" and answer.token_ids:
            try:
                async with self._http.faults(), asyncio.timeout(SETTLE_SECONDS):
                    await self._end_with_a_character(answer)
            except (RequestError, Overloaded):
                answer.keep(0)  # it is continued by its text
        return answer, first_token or loop.time()

    async def _body(self, request: Request) -> tuple[str, dict[str, Any]]:
        prompt_ids: tuple[int, ...] = ()
        if request.prompt_ids:
            if request.generated_text and not request.generated_ids:
                detail = "an answer to prompt_ids is continued from generated_ids, not from its text"
                raise RequestError("bad_request", detail, transient=False)
            prompt_ids = request.prompt_ids + request.generated_ids
        elif request.generated_ids and self._dialect.token_ids:
            if not (request.generated_text and TEMPLATE_FIELDS_OF_CHAT & request.sampling.extra.keys()):
                prompt_ids = await self._rendered(request) + request.generated_ids
        return openai_body.build(request, self.model, self._dialect, self._info.context_length, prompt_ids)

    async def _rendered(self, request: Request) -> tuple[int, ...]:
        """The chat as the server's template and tokenizer put it, up to where the answer begins."""
        extra = request.sampling.extra
        body = {
            "model": self.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
            "add_generation_prompt": True,
            **{name: extra[name] for name in TEMPLATE_FIELDS if name in extra},
        }
        told = await self._http.ask(f"{self._http.root}/tokenize", body)
        tokens = told.get("tokens") if isinstance(told, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise bad_response(f"{self._http.where}: /tokenize told no tokens")
        return tuple(tokens)

    async def _end_with_a_character(self, answer: Answer) -> None:
        """Drops last tokens that hold only the beginning of a character: they are not in the text either.

        Continued in the middle of a character, vLLM 0.32 answers with the text of the whole prompt: its detokenizer is
        primed with the prompt, and holds back all that a broken character ends.
        """
        whole = len(answer.token_ids)
        for kept in range(whole, max(whole - TAIL_TOKENS // 2, 0), -1):
            tail = {"model": self.model, "tokens": answer.token_ids[max(kept - TAIL_TOKENS, 0) : kept]}
            told = await self._http.ask(f"{self._http.root}/detokenize", tail)
            text = told.get("prompt") if isinstance(told, dict) else None
            if not isinstance(text, str):
                raise bad_response(f"{self._http.where}: /detokenize told no text")
            if not text.endswith("\ufffd"):
                return answer.keep(kept)
        answer.keep(0)  # no characters at all: it is continued by its text

    def _completion(self, request: Request, answer: Answer, timing: Timing) -> Completion:
        engine = self._info.engine
        if answer.model and answer.model != self.model:
            engine += f" ({answer.model})"  # an alias, or a stand-in the server chose
        return answer.completion(
            logprobs=request.sampling.logprobs, timing=timing, engine=engine, estimate=self.count_tokens
        )
