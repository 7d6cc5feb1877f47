"""`RowAsk`: how the recipe of one row asks. Cache, retries, segments, attempts, budgets and events are here.

Nothing a recipe sees depends on time, slots or the order of completion: replies are functions of the request, requests
of the replies before them, and a reply is cached durably before it is used. Two exceptions, both dead letters that a
later run may mend: a request that kept failing, and a row past its deadline. The deadline is looked at only when a
request has to go to the engine; what the cache answers never asks the clock, so a row that was finished once is
finished the same way at any speed. Budgets of tokens count cached and fresh tokens alike.

What a finish reason leads to (recipes never see those but `stop`):

    stop             accepted or refused by the recipe; empty text is refused
    length           continued segment by segment to the ceiling (`widen`: once to twice of it), then refused;
                     without a single token: the prompt is too long, the row is rejected
    repetition       refused, asked again a tenth warmer, at most twice
    content_filter   the row is rejected
    abort, error     the request has failed: repeated, never cached
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ropewalk.schemas.synth_recipe import SynthRecipe
from ropewalk.synth import rollout
from ropewalk.synth.cache_key import cache_key
from ropewalk.synth.engine import Completion, Message, Repetition, Request, RequestError, Sampling, Usage
from ropewalk.synth.events import Event, Kind, Observer
from ropewalk.synth.recipe import Prompt, Reject, Reply, Try, Unacceptable, seed_of
from ropewalk.synth.scheduler import Scheduler, Stopped

T = TypeVar("T")

MAX_REPETITIONS = 2
"""Times a step is asked again because its answer ended as `repetition`."""
WARMER = 0.1
"""Added to the temperature where the same temperature would repeat itself."""
BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 60.0
"""First pause before a request is repeated; it doubles each time, up to the second."""


class Cache(Protocol):
    """What is needed of `cache.RequestCache`."""

    def get(self, key: bytes) -> Completion | None:
        """The answer, if it is there."""

    async def put(self, key: bytes, request: Request, completion: Completion, model: str) -> Completion:
        """Returns the completion as `get` will, once it is durable."""


class Guarding(Protocol):
    """What is needed of `guards.check.Guards`."""

    def check(self, text: str, *, language: str, prompt: str = "", whole: bool = False) -> dict[str, float]:
        """Figures, or `Unacceptable`."""


@dataclasses.dataclass(frozen=True)
class Desk:
    """What all rows of a run share.

    Attributes:
        config: The run.
        cache: Its requests.
        writer: The engine that writes.
        judge: The engine that judges; may be the same.
        guards: Checks of texts.
        find_loop: Looks for a loop at the end of a segment; none: nobody looks.
        observer: Is told of everything.
    """

    config: SynthRecipe
    cache: Cache
    writer: Scheduler
    judge: Scheduler
    guards: Guarding
    find_loop: rollout.FindLoop | None
    observer: Observer


@dataclasses.dataclass
class Account:
    """What a row has used so far; the same whether the cache or the engine answered.

    Attributes:
        requests: Requests answered.
        prompt_tokens: Tokens they read.
        generated_tokens: Tokens they generated.
        accepted: Finish reasons of the segments behind each accepted reply, by step, in the order steps were asked.
        engines: Who wrote what was accepted.
    """

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    accepted: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    engines: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class _Question:
    """One `ask`, as its attempts see it."""

    step: str
    messages: tuple[Message, ...]
    speaker: Scheduler
    judge: bool
    max_tokens: int
    expected_tokens: int
    temperature: float
    json_schema: str | None
    stop: tuple[str, ...]
    prefix: str
    widen: bool

    @property
    def continues(self) -> bool:
        """Whether an answer may be continued: a grammar would begin anew at the seam."""
        return self.speaker.info.continues and self.json_schema is None


class RowAsk:
    """Implements `recipe.Ask` for one row.

    Args:
        prompt: The row.
        desk: What all rows share.
        order: Its number in the order rows started: its requests go before those of later rows.
    """

    def __init__(self, prompt: Prompt, desk: Desk, order: int = 0) -> None:
        self.prompt, self.desk, self.order = prompt, desk, order
        self.account = Account()
        self.interruptions: list[Stopped] = []
        """Why the run left this row unfinished, if it did; its forks write here too."""
        self._deadline: float | None = None
        self._steps: set[str] = set()
        self._refused: dict[tuple[str, int], tuple[tuple[str, ...], set[str]]] = {}
        self._on_miss: Callable[[], Awaitable[None]] | None = None
        self._place = contextlib.ExitStack()

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
        """See `recipe.Ask`."""
        self._claim(step)
        question = _Question(
            step=step,
            messages=tuple(messages),
            speaker=self.desk.judge if judge else self.desk.writer,
            judge=judge,
            max_tokens=max_tokens,
            expected_tokens=expected_tokens or max_tokens,
            temperature=self.desk.config.sampling.temperature if temperature is None else temperature,
            json_schema=json_schema,
            stop=tuple(stop),
            prefix=prefix,
            widen=widen,
        )
        tries: list[Try] = []
        try:
            if prefix and not question.continues:
                raise Reject("cannot_continue", "the engine does not continue an answer that is begun for it")
            return await self._attempts(question, accept, attempts or self.desk.config.generation.attempts, tries)
        except Reject as reject:
            reject.step, reject.tries = reject.step or step, reject.tries or tuple(tries)
            raise
        except Stopped as stopped:
            self.interruptions.append(stopped)
            raise

    def guard(self, text: str, *, language: str, prompt: str = "", whole: bool = False) -> dict[str, float]:
        """See `recipe.Ask`."""
        return self.desk.guards.check(text, language=language, prompt=prompt, whole=whole)

    def note(self, step: str, decision: str, **facts: Any) -> None:
        """See `recipe.Ask`."""
        self.tell("note", step, reason=decision, facts=facts)

    def tell(self, kind: Kind, step: str = "", **about: Any) -> None:
        """Tells the observer of an event of this row."""
        self.desk.observer(Event(kind, self.prompt.id, step, **about))

    def keep(self, step: str, attempt: int) -> None:
        """See `recipe.Ask`."""
        reasons, engines = self._refused[step, attempt]
        self.account.accepted[step] = reasons
        self.account.engines |= engines

    def begin(self) -> None:
        """Keeps a place at the writer until the first request comes, so that not too many rows start at once."""
        self._place.enter_context(self.desk.writer.hold())

    def end(self) -> None:
        """The row asks no more: its places are free."""
        self._place.close()
        self.desk.writer.leave(self.order)
        self.desk.judge.leave(self.order)

    def fork(self, *, on_miss: Callable[[], Awaitable[None]] | None = None, desk: Desk | None = None) -> "RowAsk":
        """The same row once more, to ask steps of its own beside it; see `short_m_at_k`.

        Args:
            on_miss: Awaited before a request that the cache cannot answer.
            desk: In place of this row's.
        """
        twin = RowAsk(self.prompt, desk or self.desk, self.order)
        twin._place, twin._deadline, twin._on_miss = self._place, self._deadline, on_miss or self._on_miss
        twin._steps, twin.interruptions = set(self._steps), self.interruptions
        twin.account.generated_tokens = self.account.generated_tokens
        return twin

    def join(self, twin: "RowAsk", before: int) -> None:
        """Takes over what a twin was answered.

        Args:
            twin: A fork of this row.
            before: Tokens this row had generated when it was forked.
        """
        for step in twin.account.accepted:
            self._claim(step)
        mine, other = self.account, twin.account
        mine.requests += other.requests
        mine.prompt_tokens += other.prompt_tokens
        mine.generated_tokens += other.generated_tokens - before
        mine.accepted |= other.accepted
        mine.engines |= other.engines

    def _claim(self, step: str) -> None:
        """Takes the name of a step; concurrent steps count in the order they were asked."""
        if step in self._steps:
            raise ValueError(f"step {step!r} is asked twice in row {self.prompt.id}: name each ask, such as write-3")
        self._steps.add(step)
        self.account.accepted[step] = ()

    async def _attempts(self, question: _Question, accept: Callable[[Reply], T], limit: int, tries: list[Try]) -> T:
        """Asks until a reply is accepted; what is refused ends up in `tries`."""
        begin, ceiling, repetitions = question.prefix, question.max_tokens, 0
        for attempt in range(limit):
            # A greedy answer would only come again.
            warmer = WARMER * (attempt if question.temperature == 0 else min(repetitions, 1))
            engines: set[str] = set()
            reply = await self._answer(question, attempt, begin, ceiling, question.temperature + warmer, engines)
            try:
                _require_end(reply, begin if len(begin) == len(question.prefix) else "")
                result = accept(reply)
            except Unacceptable as fault:
                tries.append(Try(reply, fault))
                self._refused[question.step, attempt] = (reply.finish_reasons, engines)
                facts = {**fault.metrics, "kept-chars": len(fault.keep), "generated-tokens": reply.generated_tokens}
                about = {"attempt": attempt, "reason": fault.reason, "detail": fault.detail, "text": reply.text}
                self.tell("refused", question.step, **about, facts=facts)
                if reply.finish_reason == "content_filter":
                    break
                repetitions += reply.finish_reason == "repetition"
                if repetitions > MAX_REPETITIONS:
                    break
                if reply.finish_reason == "length" and question.widen and not question.continues:
                    ceiling = 2 * question.max_tokens
                keep = fault.keep if question.continues and fault.keep.startswith(question.prefix) else ""
                begin = keep or question.prefix
                continue
            self.account.accepted[question.step] = reply.finish_reasons
            if not question.judge:
                self.account.engines |= engines
            facts = {"generated-tokens": reply.generated_tokens}
            self.tell("accepted", question.step, attempt=attempt, text=reply.text, facts=facts)
            return result
        last = tries[-1].fault
        raise Reject(last.reason, last.detail or f"{len(tries)} attempts were refused")

    async def _answer(
        self, question: _Question, attempt: int, begin: str, ceiling: int, temperature: float, engines: set[str]
    ) -> Reply:
        """One attempt: a whole answer, in as many segments as it takes."""
        kept = begin[len(question.prefix) :]
        if kept:  # the ceiling is that of the whole answer; no engine is asked, or a replay would ask for other tokens
            ceiling = max(16, ceiling - len(kept.encode("utf-8", "replace")) // 4)
        continues = question.continues
        segment_tokens = self.desk.config.generation.segment_tokens if continues else ceiling

        async def ask_segment(segment: int, wanted: int, ids: tuple[int, ...], text: str) -> Completion:
            request = Request(
                row=self.prompt.id,
                step=question.step,
                messages=question.messages,
                sampling=self._sampling(question, attempt, segment, wanted, temperature),
                attempt=attempt,
                segment=segment,
                generated_ids=ids if question.speaker.info.token_ids else (),
                generated_text=text,
            )
            # What is left of the likely length; an answer beyond it has at least an eighth of a segment to go.
            left = question.expected_tokens - segment * segment_tokens
            completion = await self._complete(question.speaker, request, min(wanted, max(left, wanted // 8, 1)))
            engines.add(completion.engine)
            return completion

        def on_continue(rolled: rollout.Rolled, to: int) -> None:
            facts = {"generated-tokens": rolled.num_tokens, "ceiling-tokens": to}
            self.tell("continued", question.step, attempt=attempt, segment=len(rolled.finish_reasons), facts=facts)

        rolled = await rollout.roll_out(
            ask_segment,
            ceilings=(ceiling, 2 * ceiling) if question.widen and continues else (ceiling,),
            segment_tokens=segment_tokens,
            stop=question.stop,
            prefix=begin,
            find_loop=self.desk.find_loop if question.json_schema is None else None,
            on_continue=on_continue,
        )
        if rolled.starved:
            raise Reject("prompt_too_long", "the engine ended for lack of room before the first token")
        reasons = rolled.finish_reasons
        text = without_reasoning(rolled.text)
        ids = rolled.token_ids if len(text) == len(rolled.text) else ()
        return Reply(text, ids, reasons[-1], reasons, attempt, rolled.num_tokens)

    def _sampling(
        self, question: _Question, attempt: int, segment: int, max_tokens: int, temperature: float
    ) -> Sampling:
        sampling = self.desk.config.sampling
        same_engine = question.speaker is self.desk.writer
        return Sampling(
            max_tokens=max_tokens,
            temperature=round(min(temperature, 2.0), 6),
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            seed=seed_of(self.desk.config.seed, self.prompt.id, question.step, attempt, segment),
            stop=question.stop,
            repetition=Repetition() if question.json_schema is None else None,
            json_schema=question.json_schema,
            extra=sampling.extra if same_engine else {},  # they are the writer's own parameters
        )

    async def _complete(self, speaker: Scheduler, request: Request, expected_tokens: int) -> Completion:
        """One request: from the cache, else from the engine and then into the cache."""
        budget = self.desk.config.generation.row_tokens
        if self.account.generated_tokens >= budget:
            used = self.account.generated_tokens
            raise Reject("row_tokens", f"{used:,} tokens generated for this row, generation.row_tokens is {budget:,}")
        about: dict[str, Any] = {"attempt": request.attempt, "segment": request.segment, "request": request}
        key = cache_key(speaker.info, request)
        completion = self._look_up(speaker, key)
        if completion is not None:
            await asyncio.sleep(0)  # thousands of cached replies in a row must not hold up the others
            self.tell("cached", request.step, **about, completion=completion)
        else:
            if self._on_miss is not None:
                await self._on_miss()
            completion = await self._ask_engine(speaker, request, expected_tokens, about)
            completion = await self._store(speaker, key, request, completion)
            self.tell("answered", request.step, **about, completion=completion)
        self.account.requests += 1
        self.account.prompt_tokens += completion.usage.prompt
        self.account.generated_tokens += completion.usage.generated
        return completion

    async def _ask_engine(
        self, speaker: Scheduler, request: Request, expected_tokens: int, about: Mapping[str, Any]
    ) -> Completion:
        """Asks until the engine answers, within the deadline of the row."""
        generation = self.desk.config.generation
        if generation.row_seconds is not None and self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + generation.row_seconds
        prompt_tokens = sum(speaker.engine.count_tokens(message.content) for message in request.messages)
        prompt_tokens += len(request.prompt_ids) + len(request.generated_ids)
        if not request.generated_ids and request.generated_text:
            prompt_tokens += speaker.engine.count_tokens(request.generated_text)
        try:
            async with asyncio.timeout_at(self._deadline) as deadline:
                for retry in range(generation.retries + 1):
                    self._place.close()
                    try:
                        return await speaker.submit(
                            request,
                            order=self.order,
                            prompt_tokens=prompt_tokens,
                            expected_tokens=expected_tokens,
                            on_admit=lambda: self.tell("asked", request.step, **about),
                        )
                    except RequestError as error:
                        if error.reason == "prompt_too_long" and request.segment:
                            # It was not too long for the segment before: the answer has filled the context.
                            return Completion("", (), "length", Usage(), stop_reason="context")
                        last = not error.transient or retry == generation.retries
                        kind: Kind = "failed" if last else "retried"
                        self.tell(kind, request.step, **about, reason=error.reason, detail=error.detail)
                        if speaker.stopped is not None:  # the run is over: this row is not to blame
                            raise Stopped(speaker.stopped) from error
                        if last:
                            raise Reject(error.reason, error.detail) from error
                        await speaker.pause(max(_backoff(request, retry), error.retry_after or 0.0))
        except TimeoutError:
            if not deadline.expired():
                raise
            self.tell("failed", request.step, **about, reason="deadline")
            raise Reject(
                "deadline", f"the row took longer than generation.row_seconds, {generation.row_seconds} s"
            ) from None
        raise AssertionError("unreachable")

    def _look_up(self, speaker: Scheduler, key: bytes) -> Completion | None:
        try:
            return self.desk.cache.get(key)
        except OSError as error:
            raise self._cache_failed(speaker, error) from error

    async def _store(self, speaker: Scheduler, key: bytes, request: Request, completion: Completion) -> Completion:
        """Makes a reply durable. It was paid for: a cancellation waits until it is."""
        put = asyncio.ensure_future(self.desk.cache.put(key, request, completion, speaker.info.model))
        try:
            return await asyncio.shield(put)
        except asyncio.CancelledError:
            await asyncio.wait([put])
            raise
        except OSError as error:
            raise self._cache_failed(speaker, error) from error

    def _cache_failed(self, speaker: Scheduler, error: Exception) -> Stopped:
        """Without its cache a run cannot be resumed: it ends."""
        reason = f"cache: {type(error).__name__}: {error}"
        speaker.stop(reason)
        return Stopped(reason)


def without_reasoning(text: str) -> str:
    """An answer without the thoughts before it, which some models write into the text itself.

    A template may have begun them in the prompt: then only their end stands in the text. Thoughts that never end leave
    nothing.
    """
    if not text.lstrip().startswith("<think>") and "</think>" not in text:
        return text
    return text.partition("</think>")[2].lstrip()


def _require_end(reply: Reply, given: str) -> None:
    """Refuses what did not end by itself, and what says nothing."""
    if reply.finish_reason == "length":
        raise Unacceptable("length", f"no end after {reply.generated_tokens:,} tokens")
    if reply.finish_reason != "stop":
        raise Unacceptable(reply.finish_reason, f"the engine ended it after {reply.generated_tokens:,} tokens")
    if not reply.text[len(given) :].strip():
        raise Unacceptable("empty", "the answer says nothing")


def _backoff(request: Request, retry: int) -> float:
    """Seconds to wait: doubling, and spread by up to a half, so that requests that failed together part."""
    spread = seed_of(request.row, request.step, request.segment, retry) / 2**32
    return min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0**retry) * (1 + spread)
