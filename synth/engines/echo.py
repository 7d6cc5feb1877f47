"""A simulated engine for tests and benchmarks: real interface, invented text, latencies and faults as ordered.

A reply is a stream of tokens that depends on the conversation alone (and on the seed, unless greedy). A request gets
the stretch of it that begins after what has been generated so far, so an answer cut into segments is the same answer.
Tokens are words with the whitespace before them, and single Chinese characters; the text is the tokens joined.

Sequences are decoded in step, as real batches are: a step of n sequences takes `step_seconds + n *
sequence_step_seconds`, and gives each of them one token. Under `virtual_time.run` this takes no real time.
"""

import asyncio
import dataclasses
import functools
import hashlib
import heapq
import itertools
import json
import math
import os
import re
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import Completion, EngineDead, EngineInfo, FinishReason, Request, RequestError, Timing, Usage
from ropewalk.synth.recipe import seed_of

_CJK = "\u3000-\u303f\u3400-\u9fff\uff00-\uffef"
_TOKEN = re.compile(rf"\s*[{_CJK}]|\s*[^\s{_CJK}]+|\s+")
_SYLLABLES = [c + v for c in ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st") for v in "aeiou"]
_WORDS = ["the", "of", "and", "to", "a", "in", "that", "with", "be", "have"] * 20 + [
    a + b + c for a in _SYLLABLES for b in _SYLLABLES[::7] for c in ("", "n", "ra")
]
_HANZI = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
    "十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平形"
)
_BLOCK = 512  # characters of a block of the simulated prefix cache
_REFUSAL = "I'm sorry, but I can't help with that request."


@dataclasses.dataclass(frozen=True)
class EchoOptions:
    """How it behaves; the `options` of an engine named `echo`.

    Attributes:
        tokens: Mean length of a reply; lengths lie between half of it and one and a half.
        script: Fixed replies by the beginning of the step's name (`{"plan": "…"}`); the longest beginning wins.
        max_tokens: Tokens its KV cache holds; none: unbounded.
        token_ids: Whether it tells and takes token ids, or speaks text only.
        continues: Whether it continues an answer.
        request_seconds: Latency of any request, outside the batch.
        prompt_token_seconds: Reading one token of the prompt that the prefix cache (of `max_tokens`) does not hold.
        step_seconds: A decoding step of the whole batch.
        sequence_step_seconds: What each sequence in the batch adds to it.
        transient: Share of requests that fail at their first asking and succeed at the next.
        permanent: Share of requests that always fail.
        repetition: Share of requests that end as `repetition`.
        refusal: Share of requests that are answered with a refusal.
        empty: Share of requests that are answered with nothing.
        die_at: Number of the request, from 1, at which the engine dies.
        log: File that gets a JSON line for each request asked, before it is answered.
    """

    tokens: int = 200
    script: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_tokens: int | None = None
    token_ids: bool = True
    continues: bool = True
    request_seconds: float = 0.0
    prompt_token_seconds: float = 0.0
    step_seconds: float = 0.0
    sequence_step_seconds: float = 0.0
    transient: float = 0.0
    permanent: float = 0.0
    repetition: float = 0.0
    refusal: float = 0.0
    empty: float = 0.0
    die_at: int | None = None
    log: str | None = None


class EchoEngine:
    """See the module.

    Args:
        options: How it behaves.
        reply: The whole answer to a request, in place of invented text; what it raises is raised.
        model: Name of the model it claims to be.
        max_sequences: Requests it works on at once; more wait inside.
    """

    def __init__(
        self,
        options: EchoOptions | None = None,
        *,
        reply: Callable[[Request], str] | None = None,
        model: str = "echo",
        max_sequences: int = 64,
    ) -> None:
        self.options = options or EchoOptions()
        self._reply = reply
        self._model, self._max_sequences = model, max_sequences
        self._batch = _Batch(max_sequences, self.options.step_seconds, self.options.sequence_step_seconds)
        self._prefixes = _PrefixCache(self.options.max_tokens)
        self._failed: set[tuple[str, str, int, int]] = set()
        self._dead = False
        self.asked: deque[Request] = deque(maxlen=100_000)
        """The requests asked, latest last."""
        self.num_asked = 0

    async def start(self) -> EngineInfo:
        """Says what it claims to be."""
        return EngineInfo(
            engine="echo 1",
            model=self._model,
            revision="1",
            template="1",
            max_sequences=self._max_sequences,
            max_tokens=self.options.max_tokens,
            token_ids=self.options.token_ids,
            continues=self.options.continues,
        )

    async def generate(self, request: Request) -> Completion:
        """Answers as ordered; see `EchoOptions`."""
        self.num_asked += 1
        self.asked.append(request)
        self._write_log(request)
        if self.num_asked == self.options.die_at:
            self._dead = True
        if self._dead:
            raise EngineDead("echo was told to die")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(self.options.request_seconds)
        whole, ending = self._whole(request)
        start = len(request.generated_ids) or len(split(request.generated_text))
        tokens, text, finish, stop = _stretch(whole[start:], request, ending)
        prompt, cached = self._prompt_usage(request)
        queued, first = await self._batch.decode(len(tokens), (prompt - cached) * self.options.prompt_token_seconds)
        if self._dead:
            raise EngineDead("echo was told to die")
        return Completion(
            text=text,
            token_ids=tuple(map(token_id, tokens)) if self.options.token_ids else (),
            finish_reason=finish,
            usage=Usage(prompt, cached, len(tokens)),
            stop_reason=stop,
            timing=Timing(queued, first, loop.time() - began),
            logprobs=(0.0,) * len(tokens) if request.sampling.logprobs else None,
            engine="echo 1",
        )

    def count_tokens(self, text: str) -> int:
        """Exact for its own text."""
        return _count_tokens(text)

    def stats(self) -> dict[str, float]:
        """What the simulated batch looks like."""
        return {"running-requests": float(self._batch.running), "busy-seconds": self._batch.busy_seconds}

    async def close(self) -> None:
        """Nothing to free."""

    def _whole(self, request: Request) -> tuple[list[str], FinishReason]:
        """All tokens of the answer, those generated so far included, and why it ends."""
        who = (request.row, request.step, request.attempt, request.segment)
        draw = seed_of("fault", *who) / 2**31
        shares = self.options
        if draw < (edge := shares.transient):
            if who not in self._failed:
                self._failed.add(who)
                raise RequestError("server", "echo was told to fail once", transient=True)
        elif draw < (edge := edge + shares.permanent):
            raise RequestError("bad_request", "echo was told to fail", transient=False)
        elif draw < (edge := edge + shares.repetition):
            return split("and so on" + " and so on" * 20), "repetition"
        elif draw < (edge := edge + shares.refusal):
            return split(_REFUSAL), "stop"
        elif draw < edge + shares.empty:
            return [], "stop"
        if self._reply is not None:
            return split(self._reply(request)), "stop"
        names = [name for name in shares.script if request.step.startswith(name)]
        if names:
            return split(shares.script[max(names, key=len)]), "stop"
        return self._invent(request), "stop"

    def _invent(self, request: Request) -> list[str]:
        """Seeded words, or Chinese characters if the last message is mostly Chinese."""
        asked = "\x1e".join(f"{m.role}\x1f{m.content}" for m in request.messages) + repr(request.prompt_ids)
        mean = self.options.tokens
        length = max(1, mean // 2 + seed_of(asked, request.attempt) % (mean + 1), request.sampling.min_tokens)
        greedy = request.sampling.temperature == 0
        key = seed_of(asked, 0 if greedy else request.sampling.seed or 0)
        draws = _mix(np.arange(length, dtype=np.uint64) + (np.uint64(key) << np.uint64(32)))
        last = request.messages[-1].content if request.messages else ""
        chinese = 2 * len(re.findall(rf"[{_CJK}]", last)) > len(last)
        return _chinese(draws) if chinese else _english(draws)

    def _prompt_usage(self, request: Request) -> tuple[int, int]:
        """Tokens of the prompt, and those of them the simulated prefix cache holds."""
        parts = [*(message.content for message in request.messages), request.generated_text]
        tokens = sum(map(self.count_tokens, parts)) + len(request.prompt_ids)
        return tokens, self._prefixes.admit("\x1f".join(parts), tokens)

    def _write_log(self, request: Request) -> None:
        if self.options.log is None:
            return
        line = json.dumps([request.row, request.step, request.attempt, request.segment]) + "\n"
        handle = os.open(self.options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, line.encode())  # one write: lines of several processes do not mix
        finally:
            os.close(handle)


def split(text: str) -> list[str]:
    """The tokens of a text; joined they are the text."""
    return _TOKEN.findall(text)


@functools.lru_cache(maxsize=256)  # the same prompt is counted for the schedule and for the answer
def _count_tokens(text: str) -> int:
    return len(split(text))


def token_id(token: str) -> int:
    """A stable id, below 2^20."""
    return zlib.crc32(token.encode()) & 0xFFFFF


def from_config(config: EngineConfig) -> EchoEngine:
    """The engine of these settings.

    Raises:
        ValueError: An option that `EchoOptions` does not have.
    """
    known = {field.name for field in dataclasses.fields(EchoOptions)}
    if unknown := sorted(set(config.options) - known):
        raise ValueError(f"engine echo has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    options: dict[str, Any] = dict(config.options)
    return EchoEngine(EchoOptions(**options), model=config.model or "echo", max_sequences=config.max_sequences or 64)


def _stretch(
    rest: list[str], request: Request, ending: FinishReason
) -> tuple[list[str], str, FinishReason, str | None]:
    """What one request gets of the rest of the answer: tokens, text, why it ends, stop string."""
    sampling = request.sampling
    tokens = rest[: sampling.max_tokens]
    text = "".join(tokens)
    allowed = len("".join(tokens[: sampling.min_tokens]))
    found = [(at + len(stop), at, stop) for stop in sampling.stop if (at := text.find(stop, allowed)) >= 0]
    if found:  # the one that is complete first, as in an engine that looks after each token
        _, at, stop = min(found)
        ends = itertools.accumulate(map(len, tokens))
        num_tokens = 1 + next(i for i, end in enumerate(ends) if end >= at + len(stop))
        return tokens[:num_tokens], text[:at], "stop", stop
    if len(rest) > sampling.max_tokens:
        return tokens, text, "length", None
    return tokens, text, ending, "repetition_detected" if ending == "repetition" else None


def _english(draws: np.ndarray) -> list[str]:
    """Words in sentences of about 12 and paragraphs of about 90."""
    words = [_WORDS[i] for i in (draws % np.uint64(len(_WORDS))).tolist()]
    ends = ((draws >> np.uint64(40)) % np.uint64(12) == 0).tolist()
    breaks = ((draws >> np.uint64(48)) % np.uint64(8) == 0).tolist()
    tokens, before, opens = [], "", True
    for word, last, paragraph in zip(words, ends, breaks, strict=True):
        tokens.append(before + (word.capitalize() if opens else word) + ("." if last else ""))
        before, opens = ("\n\n" if last and paragraph else " "), last
    return tokens


def _chinese(draws: np.ndarray) -> list[str]:
    """Characters in sentences of about 16."""
    characters = [_HANZI[i] for i in (draws % np.uint64(len(_HANZI))).tolist()]
    ends = ((draws >> np.uint64(40)) % np.uint64(16) == 0).tolist()
    return ["。" if end and at else c for at, (c, end) in enumerate(zip(characters, ends, strict=True))]


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer: uint64 counters to uint64 noise."""
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ values >> np.uint64(shift)) * np.uint64(multiplier)
    mixed: np.ndarray = values ^ values >> np.uint64(31)
    return mixed


class _PrefixCache:
    """Blocks of prompts seen lately: how much of a prompt need not be read again. The oldest make room."""

    def __init__(self, max_tokens: int | None) -> None:
        self._max_tokens = math.inf if max_tokens is None else max_tokens
        self._tokens = 0.0
        self._blocks: OrderedDict[bytes, float] = OrderedDict()

    def admit(self, text: str, tokens: int) -> int:
        """Of the tokens of a text, those that are known; all of them are, afterwards."""
        digest, known, hit = b"", 0, True
        share = tokens * _BLOCK / max(1, len(text))  # tokens of a block
        for start in range(0, len(text) - _BLOCK + 1, _BLOCK):
            block = text[start : start + _BLOCK].encode("utf-8", "replace")
            digest = hashlib.blake2b(block, key=digest, digest_size=16).digest()
            hit = hit and digest in self._blocks
            known += hit
            self._tokens += share - self._blocks.pop(digest, 0.0)
            self._blocks[digest] = share
        while self._tokens > self._max_tokens:
            self._tokens -= self._blocks.popitem(last=False)[1]
        return int(known * share)


class _Batch:
    """Sequences decoded in step. `_steps` counts steps since the beginning; a sequence ends at a step of its own.

    While a prompt is read nobody is decoded: both take the same processor.
    """

    def __init__(self, slots: int, step_seconds: float, sequence_step_seconds: float) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._base, self._each = step_seconds, sequence_step_seconds
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._steps = self._at = self._read_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.running = 0
        self.busy_seconds = 0.0  # of all slots together

    async def decode(self, tokens: int, prefill_seconds: float) -> tuple[float, float]:
        """Takes a slot for as long as it takes; seconds waited for it, and until the first token."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._slots:
            taken = loop.time()
            try:
                if prefill_seconds:
                    self._advance(loop)
                    self._read_until = max(self._read_until, taken) + prefill_seconds
                    self._plan(loop)
                    await asyncio.sleep(self._read_until - taken)
                first = loop.time() - asked
                if not tokens or not (self._base or self._each):
                    await asyncio.sleep(0)
                else:
                    await self._decode(tokens, loop)
            finally:
                self.busy_seconds += loop.time() - taken
        return taken - asked, first

    async def _decode(self, tokens: int, loop: asyncio.AbstractEventLoop) -> None:
        self._advance(loop)
        self.running += 1
        ended: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._ends, (self._steps + tokens, next(self._number), ended))
        self._plan(loop)
        try:
            await ended
        finally:
            self._advance(loop)
            self.running -= 1
            ended.cancel()  # of a cancelled request; harmless else
            self._plan(loop)

    def _seconds(self) -> float:
        return self._base + self._each * self.running

    def _advance(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if self.running:
            self._steps += (now - min(now, max(self._at, self._read_until))) / self._seconds()
        self._at = now

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sets the timer to the next end."""
        if self._timer is not None:
            self._timer.cancel()
        while self._ends and self._ends[0][2].done():
            heapq.heappop(self._ends)
        if self._ends:
            wait = max(0.0, self._read_until - self._at) + (self._ends[0][0] - self._steps) * self._seconds()
            self._timer = loop.call_later(max(0.0, wait), self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._advance(loop)
        self._steps = max(self._steps, self._ends[0][0])  # it is due now, whatever rounding says
        while self._ends and self._ends[0][0] <= self._steps:
            ended = heapq.heappop(self._ends)[2]
            if not ended.done():
                ended.set_result(None)
        self._plan(loop)
