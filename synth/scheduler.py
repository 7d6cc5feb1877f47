"""Who goes to the engine next, and when another row may start.

Requests are admitted in the order their rows started, bounded by sequences and by tokens (prompt and expected answer:
the KV cache). A row that is under way so goes before rows that started later: its prefix is still cached, and nobody
starves, since only finitely many rows are ahead of anyone. The request at the head waits until it fits and nobody
passes it; with nothing in flight it always fits.

A new row may start whenever the engine has room and nobody waits. So the batch is full as long as there are rows, and
there are never many more coroutines than sequences, whatever the number of prompts.

A row that has just been answered keeps its place for a fiftieth of the time the answer took, so that its next request
finds it: without that, a later row would take it while the answer is being cached, rows would take turns, and the
cache of prefixes would have to hold them all.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ropewalk.synth.engine import Completion, Engine, EngineDead, EngineInfo, Request, RequestError
from ropewalk.synth.limits import Limits
from ropewalk.synth.recipe import Prompt

_KEEP_SHARE = 0.02  # of the time an answer took: what a row that asks no more may leave idle
_HEAD = 256  # characters of a prompt that make rows of one group


class Stopped(Exception):
    """The run ends before its last row: a limit, the breaker, a drain, or the death of the engine. Nothing is lost.

    Attributes:
        reason: Short code, with the particulars after a colon.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Scheduler:
    """Admits the requests of many rows to one engine.

    Args:
        engine: The engine, started.
        info: What `start` said.
        limits: What the run may cost; none: anything.
        max_sequences: Requests in flight at most; default: the engine's own.
        on_change: Called when another row might start, and when it stops.
    """

    def __init__(
        self,
        engine: Engine,
        info: EngineInfo,
        *,
        limits: Limits | None = None,
        max_sequences: int | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self.info = engine, info
        self.capacity = min(max_sequences or info.max_sequences, info.max_sequences)
        self.stopped: str | None = None
        """Why nothing is admitted any more."""
        self.in_flight = 0
        self.tokens_in_flight = 0
        self._limits = limits
        if limits is not None:
            limits.listeners.append(self._pump)
        self._on_change = on_change
        self._heap: list[tuple[int, int, int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._waiting = 0
        self._held = 0
        self._kept: dict[int, tuple[int, int, asyncio.TimerHandle]] = {}  # row's order, tokens, end; by arrival
        self._paused: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # of the first request
        self._busy = self._at = self._began = 0.0

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet."""
        return self._waiting

    @property
    def has_room(self) -> bool:
        """Whether one more row would find a free place now."""
        taken = self.in_flight + self._held + len(self._kept)
        return self.stopped is None and not self._waiting and taken < self.capacity

    @property
    def is_overloaded(self) -> bool:
        """Whether more wait than it can take at once: no row that may come here should start."""
        return self._waiting > self.capacity

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps a place for a request that is about to come: of a row that has just started, or after a pause."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._pump()

    async def pause(self, seconds: float) -> None:
        """Waits before a request is repeated. It keeps its place: a server that is down must not make all rows start.

        Raises:
            Stopped: The run ended meanwhile.
        """
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._paused.add(stopped)
        try:
            with self.hold():
                await asyncio.wait([stopped], timeout=seconds)
        finally:
            self._paused.discard(stopped)
        if self.stopped is not None:
            raise Stopped(self.stopped)

    async def submit(
        self,
        request: Request,
        *,
        order: int,
        prompt_tokens: int,
        expected_tokens: int,
        on_admit: Callable[[], None] = lambda: None,
    ) -> Completion:
        """Asks the engine as soon as it is this request's turn. Cancelling gives its place to the next.

        Args:
            request: The request.
            order: Number of its row, in the order rows started.
            prompt_tokens: Tokens of its prompt, what was generated before included.
            expected_tokens: Tokens it will likely generate.
            on_admit: Called when the engine is asked.

        Raises:
            Stopped: The run ended before it was this request's turn, or the engine died.
            RequestError: The engine could not answer.
        """
        if self.stopped is not None:
            raise Stopped(self.stopped)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._began = self._at = loop.time()
        self._give_up(next((number for number, (kept, *_) in self._kept.items() if kept == order), None))
        turn: asyncio.Future[None] = loop.create_future()
        arrival = next(self._arrivals)
        heapq.heappush(self._heap, (order, arrival, prompt_tokens, expected_tokens, turn))
        self._waiting += 1
        self._pump()
        try:
            await turn
        except BaseException:  # a cancellation may come in the moment after it was admitted
            if turn.cancelled() or turn.exception() is not None:
                self._waiting -= 1
                self._pump()
            else:
                self._release(prompt_tokens, expected_tokens, None)
            raise
        completion = None
        began = loop.time()
        try:
            on_admit()
            completion = await self.engine.generate(request)
            if completion.finish_reason in ("abort", "error"):
                detail = f"the engine ended the request: {completion.stop_reason or 'no reason given'}"
                raise RequestError(completion.finish_reason, detail, transient=True)
            self._record(None)
            self._keep(arrival, order, completion.usage.prompt + completion.usage.generated, loop.time() - began)
            return completion
        except RequestError as error:
            self._record(error)
            raise
        except EngineDead as error:
            self.stop(f"engine_dead: {error}")
            raise Stopped(f"engine_dead: {error}") from error
        finally:
            self._release(prompt_tokens, expected_tokens, completion)

    def leave(self, order: int) -> None:
        """The row of this number asks no more: its place is free at once."""
        for number in [number for number, (kept, *_) in self._kept.items() if kept == order]:
            self._give_up(number)
        self._pump()

    def stop(self, reason: str) -> None:
        """Admits nothing from now on: who waits gets `Stopped`; what is in flight goes on. The first reason stays."""
        if self.stopped is None:
            self.stopped = reason
            for number in list(self._kept):
                self._give_up(number)
            for *_, turn in self._heap:
                if not turn.done():
                    turn.set_exception(Stopped(reason))
            self._heap.clear()
            for pause in self._paused:
                if not pause.done():
                    pause.set_result(None)
            self._on_change()

    def busy_seconds(self) -> tuple[float, float]:
        """Slot seconds used and slot seconds there were, since the first request."""
        self._count_time()
        return self._busy, (self._at - self._began) * self.capacity

    def _pump(self) -> None:
        """Admits from the head of the queue what fits."""
        if self._limits is not None and self._limits.exhausted is not None:
            self.stop(self._limits.exhausted)
        while self._heap and self.in_flight < self.capacity:
            order, _, prompt_tokens, expected_tokens, turn = self._heap[0]
            if turn.done():  # cancelled
                heapq.heappop(self._heap)
                continue
            weight = prompt_tokens + expected_tokens
            kept = [tokens for row, tokens, _ in self._kept.values() if row < order]  # earlier rows go first
            taken = self.tokens_in_flight + sum(kept)
            if self.in_flight + len(kept) >= self.capacity:
                break
            if (
                self.info.max_tokens is not None
                and self.in_flight + len(kept)
                and taken + weight > self.info.max_tokens
            ):
                break
            if self._limits is not None and not self._limits.admit(prompt_tokens, expected_tokens):
                break
            heapq.heappop(self._heap)
            self._count_time()
            self._waiting -= 1
            self.in_flight += 1
            self.tokens_in_flight += weight
            turn.set_result(None)
        if self.has_room:
            self._on_change()

    def _release(self, prompt_tokens: int, expected_tokens: int, completion: Completion | None) -> None:
        self._count_time()
        self.in_flight -= 1
        self.tokens_in_flight -= prompt_tokens + expected_tokens
        if self._limits is not None:
            self._limits.settle(prompt_tokens, expected_tokens, completion)  # pumps
        else:
            self._pump()

    def _keep(self, number: int, order: int, tokens: int, seconds: float) -> None:
        if self._loop is not None and self.stopped is None:
            timer = self._loop.call_later(_KEEP_SHARE * seconds, self._expire, number)
            self._kept[number] = (order, tokens, timer)

    def _expire(self, number: int) -> None:
        self._give_up(number)
        self._pump()

    def _give_up(self, number: int | None) -> None:
        if number in self._kept:
            self._kept.pop(number)[2].cancel()

    def _record(self, error: RequestError | None) -> None:
        if self._limits is not None:
            self._limits.record(error)

    def _count_time(self) -> None:
        if self._loop is not None:
            now = self._loop.time()
            self._busy += self.in_flight * (now - self._at)
            self._at = now


def start_order(
    prompts: Iterable[Prompt], expected_tokens: Callable[[Prompt], int], window_rows: int
) -> Iterator[list[tuple[Prompt, int]]]:
    """The order in which rows start: within each window the longest first, rows of a common prefix side by side.

    Rows belong together if they were made from the same documents, or else begin with the same words. Groups come in
    the order of their longest row, rows of a group by length; what is equally long goes by id. A window is started
    to its end before the next is read, so memory is bounded and each row starts within a window of its place.

    Yields:
        Windows of at most `window_rows` (prompt, expected tokens).
    """
    rows = iter(prompts)
    while window := [(prompt, expected_tokens(prompt)) for prompt in itertools.islice(rows, window_rows)]:
        longest: dict[tuple[str, ...], tuple[int, str]] = {}
        for prompt, expected in window:
            key = _group(prompt)
            longest[key] = min(longest.get(key, (0, "\U0010ffff")), (-expected, prompt.id))
        window.sort(key=lambda row: (*longest[_group(row[0])], -row[1], row[0].id))
        yield window


def _group(prompt: Prompt) -> tuple[str, ...]:
    return ("documents", *prompt.source_ids) if prompt.source_ids else ("head", prompt.prompt[:_HEAD])
