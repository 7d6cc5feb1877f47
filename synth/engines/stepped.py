"""Engines that run in this process and are driven step by step: vLLM's `LLMEngine` and OpenVINO's pipeline alike.

Both have the same shape: add a request at any time, call `step()`, get what has finished. `Stepper` is that shape;
`SteppedEngine` makes an `engine.Engine` of it. One thread owns the model and does nothing but step; the event loop
hands it requests through a queue and waits on futures, so neither ever waits for the other's work.

Text is always decoded from token ids here, for all steppers alike. A segment may end inside a character of several
bytes; such a tail is held back, and the segment that completes the character tells it: the texts of the segments,
joined, are the text of the joined tokens.
"""

import asyncio
import atexit
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ropewalk.synth.engine import (
    Completion,
    EngineDead,
    EngineInfo,
    FinishReason,
    Message,
    Request,
    RequestError,
    Sampling,
    Timing,
    Usage,
)

GUARD_EVERY = 256
"""Tokens of a request between two looks of the loop guard; its cost vanishes, and a loop wastes at most so many."""
STATS_EVERY = 1.0
"""Seconds between two readings of the stepper's figures."""
EXIT_SECONDS = 10.0
"""How long the end of the process waits for the model's thread to leave native code."""

CLOSED = "the engine was closed"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A request that has ended.

    Attributes:
        number: Its number, as given to `add`.
        token_ids: All tokens generated, those of a stop string and the end token included.
        finish_reason: Why it ended.
        stop_reason: The engine's own word for it; a stop string found in the text takes its place.
        cached: Tokens of the prompt found in the prefix cache.
        logprobs: Log-probability of each token, if asked for.
        queued: Seconds from `add` to the first work on it; 0 where unknown.
        first_token: Seconds from `add` to its first token; 0 where unknown.
        error: Why it failed; the rest is then without meaning.
    """

    number: int
    token_ids: Sequence[int] = ()
    finish_reason: FinishReason = "stop"
    stop_reason: str | None = None
    cached: int = 0
    logprobs: Sequence[float] | None = None
    queued: float = 0.0
    first_token: float = 0.0
    error: RequestError | None = None


class Stepper(Protocol):
    """A model in this process. Constructing one is cheap.

    `load`, `add`, `step`, `abort`, `unfinished`, `stats` and `unload` are called from one thread, always the same;
    `encode_chat`, `encode` and `decode` from the event loop's, at the same time as those. What `step` raises (and
    `add`, apart from `RequestError`) is the death of the engine.
    """

    def load(self) -> EngineInfo:
        """Loads the model.

        Raises:
            EngineDead: It cannot; the message names the remedy.
        """

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation as the chat template renders it, up to where the assistant's answer begins.

        Raises:
            RequestError: The template refuses it.
        """

    def encode(self, text: str) -> list[int]:
        """Tokens of a bare text, without any that begin or end a sequence."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, special ones left out; bytes that are no character (yet) become U+FFFD, or nothing.

        `decode(a + b)` begins with `decode(a)`, but for U+FFFD at the end of the latter.
        """

    def add(self, number: int, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Takes up a request; prompt and `max_tokens` together fit the context.

        Raises:
            RequestError: This request cannot be done; others are untouched.
        """

    def step(self) -> list[Finished]:
        """One step of all running requests; those that have ended in it, failed ones included."""

    def tokens(self, number: int) -> Sequence[int]:
        """What a running request has generated so far; empty if that is not told before its end."""

    def abort(self, number: int) -> None:
        """Ends a running request and frees its place; `step` does not report it any more."""

    def unfinished(self) -> bool:
        """Whether `step` has anything to do."""

    def stats(self) -> dict[str, float]:
        """Figures by name with unit, such as `kv_usage-share`."""

    def unload(self) -> None:
        """Frees the model's memory. Called once after `load`, also where `load` or `step` failed."""


FindLoop = Callable[[Sequence[int]], object | None]
"""Tells whether the tail of a token sequence is a loop: `guards.loops.find_loop`. None: it is not."""


class SteppedEngine:
    """A `Stepper` as an `engine.Engine`.

    A request longer than the context is refused (`prompt_too_long`); `max_tokens` is cut to what fits, and such an
    answer ends with `length`. Stop strings are looked for in each segment by itself, as all engines do.

    Args:
        stepper: The model.
        find_loop: Ends requests that have `sampling.repetition` set and go in circles; looked at every `GUARD_EVERY`
            tokens, so that when it ends them does not depend on the batch. None if the stepper does this itself.
    """

    def __init__(self, stepper: Stepper, *, find_loop: FindLoop | None = None) -> None:
        self._stepper, self._find_loop = stepper, find_loop
        self._worker: _Worker | None = None
        self._info: EngineInfo | None = None

    async def start(self) -> EngineInfo:
        """Loads the model in its thread; see `Engine.start`."""
        if self._worker is None:
            self._worker = _Worker(self._stepper, self._find_loop, asyncio.get_running_loop())
        self._info = await self._worker.start()
        return self._info

    async def generate(self, request: Request) -> Completion:
        """Answers one request; see `Engine.generate`."""
        worker, info = self._worker, self._info
        if worker is None or info is None:
            raise EngineDead("the engine is not running: start it first")
        before = list(request.generated_ids) or (
            self._stepper.encode(request.generated_text) if request.generated_text else []
        )
        prompt_ids = [*self._prompt_ids(request), *before]
        finished, job = await worker.answer(prompt_ids, fit(request.sampling, len(prompt_ids), info), before)
        if self._worker is not worker:
            raise EngineDead(CLOSED)
        text = new_text(self._stepper.decode, before, finished.token_ids, request.generated_text)
        stop = None
        if finished.finish_reason == "stop":
            text, stop = cut_at_stop(text, request.sampling.stop)
        else:
            text = text.rstrip("\ufffd")  # perhaps the beginning of a character: told by the segment that completes it
        waited = job.added - job.submitted
        return Completion(
            text=text,
            token_ids=tuple(finished.token_ids),
            finish_reason=finished.finish_reason,
            stop_reason=stop or finished.stop_reason,
            usage=Usage(len(prompt_ids), finished.cached, len(finished.token_ids)),
            timing=Timing(
                queued=waited + finished.queued,
                first_token=waited + finished.first_token if finished.first_token else 0.0,
                total=time.perf_counter() - job.submitted,
            ),
            logprobs=None if finished.logprobs is None else tuple(finished.logprobs),
            engine=info.engine,
        )

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; only after `start`."""
        return len(self._stepper.encode(text))

    def stats(self) -> dict[str, float]:
        """The stepper's figures, at most about `STATS_EVERY` old while it works."""
        return dict(self._worker.stats) if self._worker else {}

    async def close(self) -> None:
        """Ends the thread and frees the model; whoever still waits for an answer gets `EngineDead`."""
        worker, self._worker, self._info = self._worker, None, None
        if worker is not None:
            await worker.close()

    def _prompt_ids(self, request: Request) -> Sequence[int]:
        if request.prompt_ids:
            return request.prompt_ids
        if not request.messages:
            raise RequestError("bad_request", "neither messages nor prompt_ids: give one of them", transient=False)
        return self._stepper.encode_chat(request.messages)


def fit(sampling: Sampling, prompt_tokens: int, info: EngineInfo) -> Sampling:
    """Sampling whose `max_tokens` fits beside the prompt into context and KV cache.

    Raises:
        RequestError: Nothing fits beside it.
    """
    rooms = [room for room in (info.context_length, info.max_tokens) if room is not None]
    if not rooms:
        return sampling
    left = min(rooms) - prompt_tokens
    if left < 1:
        detail = f"{prompt_tokens} tokens, the model takes {min(rooms)} of prompt and answer: shorten the prompt"
        raise RequestError("prompt_too_long", detail, transient=False)
    if sampling.max_tokens <= left:
        return sampling
    return replace(sampling, max_tokens=left, min_tokens=min(sampling.min_tokens, left))


def new_text(decode: Callable[[Sequence[int]], str], before: Sequence[int], new: Sequence[int], told: str = "") -> str:
    """What `new` adds to the text of `before`.

    Args:
        decode: See `Stepper.decode`.
        before: Tokens of the answer so far.
        new: Tokens after them.
        told: The text of `before` as it was told, where that is known: without a character that was not complete.
    """
    if not before:
        return decode(new)
    whole = decode([*before, *new])
    beginnings = (told, decode(before).rstrip("\ufffd"))
    for beginning in beginnings:
        if beginning and whole.startswith(beginning):
            return whole[len(beginning) :]
    return decode(new) if any(beginnings) else whole


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """Text up to the first stop string in it, and that string; of two at the same place, the longer."""
    found = [(text.index(stop), -len(stop), stop) for stop in stops if stop and stop in text]
    if not found:
        return text, None
    place, _, stop = min(found)
    return text[:place], stop


@dataclass(eq=False)
class _Job:
    """A request on its way through the thread."""

    number: int
    prompt_ids: Sequence[int]
    sampling: Sampling
    before: Sequence[int]
    future: asyncio.Future[Finished]
    submitted: float
    added: float = 0.0
    looked: int = 0
    cancelled: bool = False


class _Worker:
    """The thread that owns the model, and the event loop's side of it.

    Every future lives in the event loop and is settled there; the thread only posts callbacks. `_pending` belongs to
    the event loop, `_running` to the thread: no lock is needed. When the thread ends, for whatever reason, its last
    callback fails all that is pending, and nothing can be added after it: each request is answered exactly once.
    """

    def __init__(self, stepper: Stepper, find_loop: FindLoop | None, loop: asyncio.AbstractEventLoop) -> None:
        self._stepper, self._find_loop, self._loop = stepper, find_loop, loop
        self.stats: dict[str, float] = {}
        self._stats_read = 0.0
        self._loaded: asyncio.Future[EngineInfo] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._numbers = itertools.count()
        self._pending: dict[int, _Job] = {}
        self._running: dict[int, _Job] = {}
        self._death: BaseException | None = None
        self._commands: queue.SimpleQueue[_Job | int | None] = queue.SimpleQueue()
        """A job to add, the number of one to abort, or None: the end."""
        # A daemon, so that Ctrl-C is never held up; yet a daemon that is killed inside C++ takes the process down
        # with it, so the end of the process asks it to leave first.
        self._thread = threading.Thread(target=self._run, name="ropewalk-engine", daemon=True)
        atexit.register(self._leave)
        self._thread.start()

    # In the event loop.

    async def start(self) -> EngineInfo:
        """Waits until the model is loaded."""
        self._check()
        # Several may wait for one load; the cancellation of one of them must not reach the others.
        return await asyncio.shield(self._loaded)

    async def answer(
        self, prompt_ids: Sequence[int], sampling: Sampling, before: Sequence[int]
    ) -> tuple[Finished, _Job]:
        """Hands a request to the thread and waits for it; cancelling the wait aborts it there."""
        future: asyncio.Future[Finished] = self._loop.create_future()
        job = _Job(next(self._numbers), prompt_ids, sampling, before, future, time.perf_counter())
        self._check()
        self._pending[job.number] = job
        self._commands.put(job)
        try:
            finished = await job.future
        except asyncio.CancelledError:
            job.cancelled = True
            self._commands.put(job.number)
            raise
        finally:
            del self._pending[job.number]
        if finished.error is not None:
            raise finished.error
        return finished, job

    async def close(self) -> None:
        """Ends the thread after its current step."""
        self._commands.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()  # It has nothing left to do.

    def _check(self) -> None:
        if self._death is not None:
            raise EngineDead(str(self._death)) from self._death

    def _settle(self, job: _Job, finished: Finished) -> None:
        if not job.future.done():
            job.future.set_result(finished)

    def _is_loaded(self, info: EngineInfo) -> None:
        self._loaded.set_result(info)

    def _is_over(self, death: BaseException) -> None:
        self._death = death
        if not self._loaded.done():
            self._loaded.set_exception(EngineDead(str(death)))
            self._loaded.exception()  # Nobody may be waiting any more: not worth a warning.
        for job in self._pending.values():
            if not job.future.done():
                job.future.set_exception(EngineDead(str(death)))
        self._ended.set_result(None)

    # In the thread.

    def _tell(self, callback: Callable[..., None], *values: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *values)
        except RuntimeError:  # The loop is closed: nobody waits.
            pass

    def _run(self) -> None:
        death: BaseException = EngineDead(CLOSED)
        try:
            info = self._stepper.load()
            self._tell(self._is_loaded, info)
            while self._take():
                self._step()
        except EngineDead as error:
            death = error
        except BaseException as error:
            death = EngineDead(f"{type(error).__name__}: {error}")
            death.__cause__ = error
        self._running.clear()
        try:
            self._stepper.unload()
        except Exception:
            _LOG.warning("the model did not unload", exc_info=True)
        atexit.unregister(self._leave)
        self._tell(self._is_over, death)

    def _take(self) -> bool:
        """Carries out what has been asked for, waiting for it while there is nothing to step; false: the end."""
        while not self._commands.empty() or not (self._running or self._stepper.unfinished()):
            command = self._commands.get()
            if command is None:
                return False
            if isinstance(command, _Job):
                self._add(command)
            elif self._running.pop(command, None) is not None:
                self._stepper.abort(command)
        return True

    def _add(self, job: _Job) -> None:
        if job.cancelled:
            return
        job.added = time.perf_counter()
        try:
            self._stepper.add(job.number, job.prompt_ids, job.sampling)
        except RequestError as error:
            self._tell(self._settle, job, Finished(job.number, error=error))
        else:
            self._running[job.number] = job

    def _step(self) -> None:
        for finished in self._stepper.step():
            job = self._running.pop(finished.number, None)
            if job is not None:
                self._tell(self._settle, job, finished)
        if self._find_loop is not None:
            self._break_loops(self._find_loop)
        idle = not self._stepper.unfinished()
        if idle and self._running:
            raise EngineDead(f"the engine lost {len(self._running)} requests")
        now = time.perf_counter()
        if idle or now - self._stats_read >= STATS_EVERY:
            self.stats, self._stats_read = self._stepper.stats(), now

    def _break_loops(self, find_loop: FindLoop) -> None:
        for job in list(self._running.values()):
            if job.sampling.repetition is None:
                continue
            new = self._stepper.tokens(job.number)
            if len(new) // GUARD_EVERY <= job.looked:
                continue
            job.looked = len(new) // GUARD_EVERY
            loop = find_loop([*job.before, *new])
            if loop is not None:
                new = tuple(new)
                self._stepper.abort(job.number)
                del self._running[job.number]
                self._tell(self._settle, job, Finished(job.number, new, "repetition", str(loop)))

    # At the end of the process.

    def _leave(self) -> None:
        self._commands.put(None)
        self._thread.join(EXIT_SECONDS)
