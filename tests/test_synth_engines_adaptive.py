"""The limiter against simulated servers, on a clock that jumps from event to event."""

import asyncio
from collections.abc import Coroutine

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.synth import virtual_time
from ropewalk.synth.engines.adaptive import (
    BACKOFF_LIMIT_SECONDS,
    DECREASE,
    FAULTS_IN_ROW,
    PAUSE_LIMIT_SECONDS,
    WINDOW_REQUESTS,
    Adaptive,
)


def simulate(coroutine: Coroutine):
    """Runs it in virtual time; a lost wake-up ends in a `TimeoutError`."""
    return virtual_time.run(asyncio.wait_for(coroutine, 1e7))


class Server:
    """Works on `capacity` requests of a second each; refuses any more at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.working, self.peak, self.refused, self.served = capacity, 0, 0, 0, 0

    async def __call__(self, seconds: float = 1.0) -> bool:
        if self.working >= self.capacity:
            self.refused += 1
            return False
        self.working += 1
        self.peak = max(self.peak, self.working)
        await asyncio.sleep(seconds)
        self.working -= 1
        self.served += 1
        return True


async def ask(limiter: Adaptive, server: Server, *, pause: float | None = None, seconds: float = 1.0) -> int:
    """One request, sent until it is served; how often it was sent."""
    sent = 0
    while True:
        async with limiter.slot(again=sent > 0) as slot:
            sent += 1
            if await server(seconds):
                limiter.succeeded(slot)
                return sent
            limiter.congested(slot, pause)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 64), st.integers(0, 3))
def test_all_requests_are_served_and_the_limit_settles_at_the_servers_capacity(capacity, ceiling, pause):
    limiter, server = Adaptive(ceiling), Server(capacity)
    limits = []

    async def one(number: int) -> None:
        await ask(limiter, server, pause=pause or None, seconds=1 + number % 7 / 10)
        limits.append(limiter.limit)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(400)))

    simulate(main())
    assert server.served == 400
    assert limiter.in_flight == limiter.waiting == 0
    settled = limits[len(limits) // 2 :]
    if ceiling <= capacity:
        assert server.refused == 0 and set(limits) == {ceiling}
    else:
        assert max(settled) <= capacity + 1, "one above, where it probes"
        assert min(settled) >= min(capacity, ceiling) * 0.6 - 1
        falling = ceiling / (1 - DECREASE)  # requests refused while the limit falls from the ceiling
        assert server.refused <= falling + 400 / WINDOW_REQUESTS


def test_it_follows_a_server_that_grows_and_shrinks():
    limiter, server = Adaptive(50), Server(4)
    seen = {}

    async def main() -> None:
        for capacity in (4, 30, 8):
            server.capacity = capacity
            server.peak = 0
            await asyncio.gather(*(ask(limiter, server) for _ in range(900)))
            seen[capacity] = (limiter.limit, server.peak)

    simulate(main())
    assert seen[4][0] <= 5 and seen[8][0] <= 9
    assert seen[30][1] == 30, "after the limit is raised the whole server is used"


def test_a_burst_of_refusals_is_one_event_and_an_old_request_cannot_cause_the_next():
    async def main() -> None:
        limiter = Adaptive(10)
        slots = [limiter.slot() for _ in range(10)]
        held = [await slot.__aenter__() for slot in slots]
        for slot in held:
            limiter.congested(slot)
        assert (limiter.limit, limiter.congestions) == (7, 1)
        for slot in slots:
            await slot.__aexit__(None, None, None)
        async with limiter.slot() as new:
            limiter.congested(new)
        assert limiter.congestions == 2

    simulate(main())


def test_the_limit_never_leaves_its_bounds():
    async def main() -> None:
        limiter = Adaptive(3)
        for _ in range(20):
            async with limiter.slot() as slot:
                limiter.congested(slot, 0)
                assert limiter.limit >= 1
        for _ in range(100):
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(ask(limiter, Server(1000)))
        assert limiter.limit == 3

    simulate(main())


def test_a_limit_nobody_reaches_does_not_grow():
    async def main() -> None:
        limiter, server = Adaptive(64), Server(1000)
        async with limiter.slot() as slot:
            limiter.congested(slot, 0)
        limiter.limit = 8
        for _ in range(200):
            await asyncio.gather(*(ask(limiter, server) for _ in range(4)))
        assert limiter.limit == 8

    simulate(main())


def test_nobody_is_let_in_during_a_pause_and_the_longest_one_counts():
    async def main() -> list[float]:
        loop, limiter, entered = asyncio.get_running_loop(), Adaptive(4), []

        async def later() -> None:
            async with limiter.slot():
                entered.append(loop.time())

        async with limiter.slot() as slot:
            limiter.congested(slot, 30.0)
            limiter.congested(slot, 50.0)
            limiter.congested(slot, 10.0)
        await asyncio.gather(*(later() for _ in range(6)))
        return entered

    entered = simulate(main())
    assert len(entered) == 6
    assert min(entered) == pytest.approx(50.0)


def test_without_a_named_pause_it_waits_longer_and_longer_until_something_succeeds():
    async def main() -> list[float]:
        loop, limiter, gaps = asyncio.get_running_loop(), Adaptive(4), []
        for _ in range(10):
            before = loop.time()
            async with limiter.slot() as slot:
                gaps.append(loop.time() - before)
                limiter.congested(slot)
        async with limiter.slot() as slot:
            limiter.succeeded(slot)
            limiter.congested(slot)
        before = loop.time()
        async with limiter.slot():
            gaps.append(loop.time() - before)
        return gaps

    gaps = simulate(main())
    assert gaps[:8] == pytest.approx([0, 1, 2, 4, 8, 16, 32, 60])
    assert max(gaps) == pytest.approx(BACKOFF_LIMIT_SECONDS)
    assert gaps[-1] == pytest.approx(1.0)


def test_a_server_that_always_says_now_is_not_asked_without_end():
    async def main() -> int:
        limiter, asked = Adaptive(4), 0
        while asyncio.get_running_loop().time() < 3600:
            async with limiter.slot() as slot:
                asked += 1
                limiter.congested(slot, 0.0)
        return asked

    assert simulate(main()) < 100


def test_scattered_faults_cost_nothing_and_a_row_of_them_is_congestion():
    async def main() -> list[int]:
        limiter, limits = Adaptive(50), []
        for faults in (1, 2, 1, FAULTS_IN_ROW):
            for _ in range(faults):
                async with limiter.slot() as slot:
                    limiter.failed(slot)
            limits.append(limiter.congestions)
            async with limiter.slot() as slot:
                limiter.succeeded(slot)
        return limits

    assert simulate(main()) == [0, 0, 0, 1]


def test_a_server_cannot_order_a_pause_of_hours():
    async def main() -> float:
        limiter = Adaptive(2)
        async with limiter.slot() as slot:
            limiter.failed(slot, 86400)
        async with limiter.slot():
            return asyncio.get_running_loop().time()

    assert simulate(main()) == pytest.approx(PAUSE_LIMIT_SECONDS)


def test_first_come_first_served_but_those_sent_back_go_first():
    async def main() -> list[str]:
        limiter, order = Adaptive(1), []

        async def enter(name: str, again: bool = False) -> None:
            async with limiter.slot(again=again):
                order.append(name)
                await asyncio.sleep(1)

        first = asyncio.create_task(enter("first"))
        await asyncio.sleep(0)
        rest = [asyncio.create_task(enter(name)) for name in "abc"]
        await asyncio.sleep(0)
        rest.append(asyncio.create_task(enter("back", again=True)))
        await asyncio.gather(first, *rest)
        return order

    assert simulate(main()) == ["first", "back", "a", "b", "c"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 6), st.floats(0, 4)), min_size=1, max_size=40), st.integers(1, 4))
def test_cancelled_requests_leave_no_place_behind(plan, ceiling):
    limiter = Adaptive(ceiling)

    async def main() -> None:
        async def one(seconds: float) -> None:
            async with limiter.slot() as slot:
                assert limiter.in_flight <= ceiling
                await asyncio.sleep(seconds)
                limiter.succeeded(slot)

        tasks = [asyncio.create_task(one(seconds)) for _, seconds in plan]
        loop = asyncio.get_running_loop()
        for task, (when, _) in zip(tasks, plan, strict=True):
            loop.call_at(round(when), task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limiter.in_flight == limiter.waiting == 0
        await asyncio.gather(*(one(1) for _ in range(2 * ceiling)))  # all places are there again

    simulate(main())


def test_a_ceiling_below_one_is_refused():
    with pytest.raises(ValueError, match="ceiling 0"):
        Adaptive(0)
