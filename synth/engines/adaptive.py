"""How many requests a server takes at once, found out by asking: additive increase, multiplicative decrease.

The limit falls by a share when the server says it has too much (429, 503), and grows by one each time a full window of
requests went well (AIMD: Chiu and Jain 1989, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance"). As in TCP, a burst of refusals is one event: only a request that was sent after the last decrease can cause
the next. Faults that may have other causes (500, a lost connection) count when several come in a row: taken one by one,
a server that loses 5 % at random would be held to a few requests. Time is the event loop's.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

DECREASE = 0.7
"""Share of the limit that remains after congestion; halving, as TCP does, leaves a quarter of the server idle."""
WINDOW_REQUESTS = 8
"""Least successes before the limit grows: one request in so many is risked to find more room."""
FAULTS_IN_ROW = 3
"""Faults without a success between them that are taken for congestion."""
BACKOFF_SECONDS = 1.0
"""First pause where the server names none; it doubles with each congestion that no success came between."""
BACKOFF_LIMIT_SECONDS = 60.0
BELIEVED = 3
"""Times in a row that a server may name a pause shorter than ours: one that says 0 for ever would be asked for ever."""
PAUSE_LIMIT_SECONDS = 300.0
"""Longest pause a server can order; hosted services name hours once a daily quota is used up."""


@dataclass(frozen=True)
class Slot:
    """A place among the requests in flight.

    Attributes:
        epoch: Decreases so far when it was taken.
    """

    epoch: int


class Adaptive:
    """Lets at most `limit` requests through at a time, oldest first; whoever made one tells how it went.

    Attributes:
        ceiling: Most that are ever let through.
        limit: Let through now, from 1 to the ceiling; it starts there, as most servers queue what they cannot work on.
        in_flight: Requests inside now.
        congestions: Decreases so far.
    """

    def __init__(self, ceiling: int) -> None:
        if ceiling < 1:
            raise ValueError(f"ceiling {ceiling}: at least one request must pass")
        self.ceiling, self.limit, self.in_flight, self.congestions = ceiling, ceiling, 0, 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resume: asyncio.TimerHandle | None = None
        self._successes = 0
        self._saturated = False
        self._strikes = 0
        self._faults = 0

    @property
    def waiting(self) -> int:
        """Requests that wait to be let in."""
        return sum(not place.done() for place in self._waiting)

    @asynccontextmanager
    async def slot(self, *, again: bool = False) -> AsyncIterator[Slot]:
        """Waits for a place, and holds it.

        Args:
            again: The request had a place before and was sent back: it goes first.
        """
        await self._enter(again)
        try:
            yield Slot(self.congestions)
        finally:
            self.in_flight -= 1
            self._admit()

    def succeeded(self, slot: Slot) -> None:
        """The server answered."""
        self._strikes = self._faults = 0
        if slot.epoch != self.congestions:
            return  # sent before the last decrease, it speaks for the limit of then
        self._successes += 1
        if self._successes >= max(self.limit, WINDOW_REQUESTS):
            # A limit that nobody reached tells nothing about what the server can take.
            if self._saturated and self.limit < self.ceiling:
                self.limit += 1
                self._admit()
            self._successes, self._saturated = 0, self.in_flight >= self.limit

    def congested(self, slot: Slot, pause: float | None = None) -> None:
        """The server had too much.

        Args:
            slot: The request's place.
            pause: Seconds in which nobody shall be let in; none: a growing pause of our own.
        """
        if slot.epoch == self.congestions:
            self.congestions += 1
            self._strikes += 1
            self.limit = max(1, min(int(min(self.limit, self.in_flight) * DECREASE), self.limit - 1))
            self._successes, self._saturated = 0, False
            ours = min(BACKOFF_SECONDS * 2.0 ** min(self._strikes - 1, 16), BACKOFF_LIMIT_SECONDS)
            if pause is None or self._strikes > BELIEVED:
                pause = max(ours, pause or 0.0)
        if pause:
            self._pause(pause)

    def failed(self, slot: Slot, pause: float | None = None) -> None:
        """The server stumbled over the request, or lost it; arguments as of `congested`."""
        self._faults += 1
        if self._faults >= FAULTS_IN_ROW:
            self._faults = 0
            self.congested(slot, pause)
        elif pause:
            self._pause(pause)

    def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, PAUSE_LIMIT_SECONDS)
        if self._resume is not None:
            if self._resume.when() >= until:
                return
            self._resume.cancel()
        self._resume = loop.call_at(until, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._admit()

    async def _enter(self, again: bool) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in and cancelled at once: the place goes to the next
                self.in_flight -= 1
                self._admit()
            else:
                with suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def _admit(self) -> None:
        while self._resume is None and self._waiting and self.in_flight < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)
        self._saturated = self._saturated or self.in_flight >= self.limit
