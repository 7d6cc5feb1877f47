import asyncio
import random

import pytest

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth import virtual_time
from ropewalk.synth.ask import Desk, RowAsk
from ropewalk.synth.engine import Message, RequestError
from ropewalk.synth.engines.echo import EchoEngine, EchoOptions
from ropewalk.synth.recipe import Prompt, Reject, Unacceptable
from ropewalk.synth.scheduler import Scheduler, Stopped
from ropewalk.synth.short_m_at_k import short_m_at_k
from ropewalk.synth.testing import MemoryCache, NoGuards, no_loop


def make(lengths, cache, *, slots=16, order=None, options=None, **settings):
    """An engine whose sample i is `lengths[i]` tokens long (an error: raised), and takes `order[i]` seconds a token."""

    def answer(request):
        length = lengths[int(request.step.split("-")[1])]
        if isinstance(length, Exception):
            raise length
        return " ".join(["x"] * length)

    engine = EchoEngine(options or EchoOptions(step_seconds=1.0), reply=answer, max_sequences=slots)
    info = asyncio.run(engine.start())
    config = parse_synth_recipe({"output": "o", "prompts": "p", "engine": "echo", **settings})
    scheduler = Scheduler(engine, info)
    events = []
    desk = Desk(config, cache, scheduler, scheduler, NoGuards(), no_loop, events.append)
    return RowAsk(Prompt("row", "Think."), desk), engine, events


async def draw(ask, index):
    def accept(reply):
        if reply.text.count("x") == 13:
            raise Unacceptable("unlucky")
        return reply.text.count("x")

    return await ask(f"think-{index}", [Message("user", "Think.")], accept=accept, max_tokens=1000, attempts=1)


def run(ask, *, k, m):
    return virtual_time.run(short_m_at_k(ask, draw, k=k, m=m))


def test_the_rest_is_cancelled_when_m_have_finished():
    cache = MemoryCache()
    ask, engine, _ = make([50, 10, 90, 20, 70], cache)

    async def timed():
        found = await short_m_at_k(ask, draw, k=5, m=2)
        return found, asyncio.get_running_loop().time()

    found, seconds = virtual_time.run(timed())
    assert [(d.index, d.value, d.generated_tokens) for d in found] == [(1, 10, 10), (3, 20, 20)]
    assert seconds == pytest.approx(20) and len(engine.asked) == 5 and len(cache.calls) == 2
    assert ask.desk.writer.in_flight == 0
    assert (ask.account.requests, ask.account.generated_tokens) == (2, 30)
    assert ask.account.accepted == {"think-1": ("stop",), "think-3": ("stop",)}


def test_over_the_same_cache_the_choice_and_the_account_are_the_same_and_nothing_is_asked():
    for seed in range(20):
        rng = random.Random(seed)
        lengths = [rng.choice([5, 8, 8, 13, 30, 40]) for _ in range(8)]
        cache = MemoryCache()
        ask, _, _ = make(lengths, cache, slots=rng.randint(1, 8), generation={"segment_tokens": 16})
        found = run(ask, k=8, m=3)
        again, engine, events = make(lengths, cache)
        again, engine, events = make(lengths, cache, generation={"segment_tokens": 16})
        assert run(again, k=8, m=3) == found and not engine.asked
        assert again.account == ask.account
        # Oracle: the shortest of what the cache holds whole.
        whole = {
            int(r.step.split("-")[1]) for key, r in cache.requests.items() if cache.calls[key].finish_reason == "stop"
        }
        fine = sorted((lengths[i], i) for i in whole if lengths[i] != 13)
        assert [(d.value, d.index) for d in found] == fine[:3]
        assert {e.kind for e in events} <= {"cached", "continued", "accepted", "refused"}


def test_a_sample_that_finishes_while_it_is_cancelled_counts():
    class Slow(MemoryCache):
        async def put(self, key, request, completion, model):
            await asyncio.sleep(3)
            return await super().put(key, request, completion, model)

    cache = Slow()
    ask, _, _ = make([12, 10], cache)  # sample 0 is on its way into the cache when sample 1 is there
    found = run(ask, k=2, m=1)
    assert len(cache.calls) == 2 and [d.index for d in found] == [1]
    assert ask.account.generated_tokens == 22
    again, engine, _ = make([12, 10], cache)
    assert run(again, k=2, m=1) == found and again.account == ask.account


def test_what_a_crash_left_behind_is_used_first():
    cache = MemoryCache()
    ask, _, _ = make([40, 10], cache)
    virtual_time.run(draw(ask, 0))
    ask, engine, _ = make([40, 10], cache)
    assert [d.index for d in run(ask, k=2, m=1)] == [0] and not engine.asked


def test_ties_go_to_the_lower_number():
    cache = MemoryCache()
    ask, _, _ = make([7, 7, 7], cache)
    assert [d.index for d in run(ask, k=3, m=2)] == [0, 1]


def test_rejected_samples_do_not_count():
    ask, _, _ = make([13, 50, RequestError("bad_request", "no", transient=False)], MemoryCache())
    assert [d.index for d in run(ask, k=3, m=2)] == [1]
    ask, _, _ = make([13, 13], MemoryCache())
    with pytest.raises(Reject, match="unlucky") as caught:
        run(ask, k=2, m=1)
    assert caught.value.step == "think-0" and ask.account.generated_tokens == 26


def test_the_end_of_the_run_goes_through():
    ask, _, _ = make([5, 50], MemoryCache(), options=EchoOptions(step_seconds=1.0, die_at=2))
    with pytest.raises(Stopped, match="engine_dead"):
        run(ask, k=2, m=2)
    assert ask.interruptions and ask.desk.writer.in_flight == 0


def test_bounds():
    ask, _, _ = make([1], MemoryCache())
    with pytest.raises(ValueError, match="m=2, k=1"):
        run(ask, k=1, m=2)
