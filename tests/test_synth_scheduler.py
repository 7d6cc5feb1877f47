import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.schemas.synth_recipe import LimitsConfig
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import Completion, EngineDead, EngineInfo, Message, Request, RequestError, Sampling, Usage
from ropewalk.synth.limits import Limits
from ropewalk.synth.recipe import Prompt
from ropewalk.synth.scheduler import Scheduler, Stopped, start_order


class Recorder:
    """An engine that answers after as many seconds as the step says, and watches how much is asked at once."""

    def __init__(self, capacity=4, max_tokens=None):
        self.info = EngineInfo("t", "t", max_sequences=capacity, max_tokens=max_tokens)
        self.running = {}
        self.began = []
        self.most = self.most_tokens = 0

    async def generate(self, request):
        self.began.append(request.row)
        self.running[id(request)] = request.sampling.extra.get("weight", 0)
        self.most = max(self.most, len(self.running))
        if len(self.running) > 1:
            self.most_tokens = max(self.most_tokens, sum(self.running.values()))
        try:
            if request.step == "dead":
                raise EngineDead("gone")
            if request.step == "bad":
                raise RequestError("server", "no", transient=True)
            await asyncio.sleep(float(request.step))
        finally:
            del self.running[id(request)]
        return Completion("x", (), "stop", Usage(1, 0, 1))


def request(row, seconds, weight=0):
    return Request(str(row), str(seconds), (Message("user", "x"),), Sampling(1, extra={"weight": weight}))


def submit(scheduler, row, seconds, *, order=0, prompt_tokens=1, expected_tokens=1):
    weight = prompt_tokens + expected_tokens
    return asyncio.ensure_future(
        scheduler.submit(
            request(row, seconds, weight), order=order, prompt_tokens=prompt_tokens, expected_tokens=expected_tokens
        )
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50), st.integers(0, 100)), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(10, 120),
)
def test_all_are_answered_within_sequences_and_tokens(jobs, capacity, max_tokens):
    """Some of them are heavier than the whole budget, some are cancelled while they wait or run."""
    engine = Recorder(capacity, max_tokens)

    async def run():
        scheduler = Scheduler(engine, engine.info)
        cancelled = set()
        tasks = []
        for number, (seconds, weight, order) in enumerate(jobs):
            tasks.append(submit(scheduler, number, seconds, order=order, prompt_tokens=3, expected_tokens=weight))
            if number % 7 == 3:
                await asyncio.sleep(0.5)
                cancelled.add(number - 1)
                tasks[number - 1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(done):
            assert isinstance(result, Completion) or (
                number in cancelled and isinstance(result, asyncio.CancelledError)
            )
        assert (scheduler.in_flight, scheduler.tokens_in_flight, scheduler.waiting) == (0, 0, 0)
        for order in range(101):
            scheduler.leave(order)
        assert scheduler.has_room

    virtual_time.run(run())
    assert engine.most <= capacity
    assert engine.most_tokens <= max_tokens


def test_rows_that_started_earlier_go_first_and_nobody_passes_the_head():
    engine = Recorder(capacity=2, max_tokens=100)

    async def run():
        scheduler = Scheduler(engine, engine.info)
        tasks = [submit(scheduler, "first", 10, order=0, expected_tokens=50)]
        tasks += [submit(scheduler, "late-small", 1, order=9)]  # there is room: it goes at once
        tasks += [submit(scheduler, "late-2", 1, order=8, expected_tokens=10)]
        tasks += [submit(scheduler, "heavy", 1, order=3, expected_tokens=80)]
        tasks += [submit(scheduler, "late-3", 1, order=5, expected_tokens=1)]
        await asyncio.gather(*tasks)

    virtual_time.run(run())
    # The heavy one waits for `first`; what would fit beside it waits behind it, in the order of the rows.
    assert engine.began == ["first", "late-small", "heavy", "late-3", "late-2"]


def test_there_is_room_until_somebody_waits():
    engine = Recorder(capacity=2)

    async def run():
        rooms = []
        scheduler = Scheduler(engine, engine.info, on_change=lambda: rooms.append(asyncio.get_running_loop().time()))
        assert scheduler.has_room
        with scheduler.hold():
            a = submit(scheduler, "a", 5)
            await asyncio.sleep(0)
            assert not scheduler.has_room  # the held place counts
        assert scheduler.has_room
        b, c = submit(scheduler, "b", 1), submit(scheduler, "c", 1)
        await asyncio.sleep(0)
        assert not scheduler.has_room and scheduler.waiting == 1
        rooms.clear()
        await asyncio.gather(a, b, c)
        assert rooms[0] == pytest.approx(2.02)  # b ends at 1, c takes its place, ends at 2 and keeps it a while
        used, there = scheduler.busy_seconds()
        assert (used, there) == (pytest.approx(7), pytest.approx(10))

    virtual_time.run(run())


def test_an_answered_row_keeps_its_place_for_its_next_request_but_not_for_long():
    engine = Recorder(capacity=1)

    async def run():
        scheduler = Scheduler(engine, engine.info)
        loop = asyncio.get_running_loop()

        async def row(order, steps, pause):
            for _ in range(steps):
                await submit(scheduler, order, 10, order=order)
                await asyncio.sleep(pause)
            scheduler.leave(order)

        await asyncio.gather(row(1, 3, 0.1), row(2, 2, 0.1))
        assert engine.began == ["1", "1", "1", "2", "2"] and loop.time() == pytest.approx(50.5)
        engine.began.clear()
        await asyncio.gather(row(3, 2, 0.5), row(4, 2, 0.5))  # a fiftieth of 10 s is 0.2 s
        assert engine.began == ["3", "4", "3", "4"]
        engine.began.clear()
        await asyncio.gather(row(6, 2, 0.1), row(7, 1, 0.1), row(5, 2, 0.1))
        assert engine.began == ["6", "5", "5", "6", "7"]  # an earlier row does not wait for a later one

    virtual_time.run(run())


def test_a_request_that_is_repeated_keeps_its_place_while_it_pauses():
    engine = Recorder(capacity=1)

    async def run():
        scheduler = Scheduler(engine, engine.info)
        pause = asyncio.ensure_future(scheduler.pause(30))
        await asyncio.sleep(1)
        assert not scheduler.has_room
        scheduler.stop("enough")
        with pytest.raises(Stopped):
            await pause
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    virtual_time.run(run())


def test_stopping_lets_finish_what_is_in_flight():
    engine = Recorder(capacity=1)

    async def run():
        scheduler = Scheduler(engine, engine.info)
        a, b = submit(scheduler, "a", 5), submit(scheduler, "b", 5)
        await asyncio.sleep(1)
        scheduler.stop("interrupted")
        scheduler.stop("later")
        with pytest.raises(Stopped, match="interrupted"):
            await b
        with pytest.raises(Stopped, match="interrupted"):
            await submit(scheduler, "c", 1)
        assert isinstance(await a, Completion)
        assert scheduler.waiting == 0 and not scheduler.has_room

    virtual_time.run(run())


def test_a_dead_engine_stops_everybody():
    engine = Recorder(capacity=1)

    async def run():
        scheduler = Scheduler(engine, engine.info)
        results = await asyncio.gather(
            submit(scheduler, "a", "dead"), submit(scheduler, "b", 1), return_exceptions=True
        )
        assert [str(r) for r in results] == ["engine_dead: gone"] * 2
        assert all(isinstance(r, Stopped) for r in results)

    virtual_time.run(run())


def test_near_a_limit_fewer_run_at_once_and_then_none():
    engine = Recorder(capacity=10)

    async def run():
        limits = Limits(LimitsConfig(tokens=5))
        scheduler = Scheduler(engine, engine.info, limits=limits)
        results = await asyncio.gather(
            *(submit(scheduler, n, 1, expected_tokens=2) for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(r, Completion) for r in results) == 5
        assert {str(r) for r in results if isinstance(r, Stopped)} == {"tokens: 5 generated, limits.tokens is 5"}
        assert limits.tokens == 5

    virtual_time.run(run())
    assert engine.most == 2


def test_a_limit_shared_by_two_engines_lets_the_other_go_on():
    writer, judge = Recorder(capacity=4), Recorder(capacity=4)

    async def run():
        limits = Limits(LimitsConfig(tokens=12))
        one, two = Scheduler(writer, writer.info, limits=limits), Scheduler(judge, judge.info, limits=limits)
        # The second does not fit beside the first, and only the other engine's end can make room for it.
        results = await asyncio.gather(submit(one, "a", 1, expected_tokens=10), submit(two, "b", 1, expected_tokens=10))
        assert all(isinstance(r, Completion) for r in results)
        assert asyncio.get_running_loop().time() == pytest.approx(2)

    virtual_time.run(run())


def test_the_breaker_stops_admission():
    engine = Recorder(capacity=1)

    async def run():
        scheduler = Scheduler(engine, engine.info, limits=Limits(LimitsConfig(error_window=10, error_share=0.5)))
        results = []
        for number in range(30):
            step = "bad" if number >= 10 else 1
            results += await asyncio.gather(submit(scheduler, number, step), return_exceptions=True)
        assert sum(isinstance(r, RequestError) for r in results) == 5
        assert sum(isinstance(r, Stopped) and r.reason.startswith("errors: 5 of") for r in results) == 15

    virtual_time.run(run())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.booleans()), max_size=60),
    st.integers(1, 20),
)
def test_start_order(rows, window_rows):
    prompts = [
        Prompt(f"{number:02}", "head" * 100 + f"{head}" if grouped else f"{head}", source_ids=(f"d{head}",) * grouped)
        for number, (head, _, grouped) in enumerate(rows)
    ]
    expected = {prompt.id: row[1] for prompt, row in zip(prompts, rows, strict=True)}
    windows = list(start_order(iter(prompts), lambda p: expected[p.id], window_rows))
    assert [len(w) for w in windows] == [
        min(window_rows, len(prompts) - start) for start in range(0, len(prompts), window_rows)
    ]
    for number, window in enumerate(windows):
        part = prompts[number * window_rows : (number + 1) * window_rows]
        assert sorted(p.id for p, _ in window) == [p.id for p in part]
        groups: list[tuple[object, list[int]]] = []
        for prompt, tokens in window:
            key = prompt.source_ids or prompt.prompt
            if not groups or groups[-1][0] != key:
                groups.append((key, []))
            groups[-1][1].append(tokens)
        assert len({key for key, _ in groups}) == len(groups)  # side by side
        assert all(lengths == sorted(lengths, reverse=True) for _, lengths in groups)
        longest = [lengths[0] for _, lengths in groups]
        assert longest == sorted(longest, reverse=True)


def test_start_order_does_not_depend_on_input_order_within_a_window():
    prompts = [Prompt(str(n), "x" if n % 2 else f"y{n % 3}") for n in range(50)]
    shuffled = random.Random(0).sample(prompts, 50)

    def order(rows):
        return [p.id for window in start_order(rows, lambda p: 1, 100) for p, _ in window]

    assert order(prompts) == order(shuffled)


def test_start_order_reads_no_further_than_its_window():
    read = []

    def prompts():
        for number in range(100):
            read.append(number)
            yield Prompt(str(number), "x")

    next(start_order(prompts(), lambda p: 1, 10))
    assert len(read) == 10
