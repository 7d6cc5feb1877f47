import json

import pytest

from ropewalk.schemas.synth_recipe import PriceConfig, parse_synth_recipe
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import Completion, Message, Usage
from ropewalk.synth.engines.echo import EchoEngine, EchoOptions
from ropewalk.synth.events import Event
from ropewalk.synth.generation import Generation
from ropewalk.synth.recipe import Prompt, Reject, Sample, Unacceptable
from ropewalk.synth.telemetry import Telemetry
from ropewalk.synth.testing import MemoryCache, NoGuards, no_loop


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def answer(generated, prompt=0, cached=0):
    return Completion("x" * 10, (), "stop", Usage(prompt, cached, generated))


def row(telemetry, name, *, expected=100, answers=(), end="done", reason=""):
    telemetry.observe(Event("started", name, facts={"expected-tokens": expected}))
    for generated in answers:
        telemetry.observe(Event("asked", name, "w"))
        telemetry.observe(Event("answered", name, "w", completion=answer(generated)))
        telemetry.observe(Event("accepted", name, "w", text="x"))
    if end:
        telemetry.observe(Event(end, name, reason=reason))


def test_projection_by_hand():
    """1,000 rows, 200 expected tokens each on average; the 10 that are done took half of what was expected."""
    clock = Clock()
    telemetry = Telemetry(PriceConfig(completion=1e6), clock=clock)  # a token costs 1
    telemetry.total_rows = 1000
    telemetry.expect(100, 20_000)
    for number in range(9):
        row(telemetry, str(number), expected=400, answers=[200])
    assert telemetry.snapshot()["projected_cost-money"] is None  # not a hundredth yet
    row(telemetry, "9", expected=400, answers=[200])
    row(telemetry, "under way", expected=400, answers=[150], end=None)
    clock.now += 30
    figures = telemetry.snapshot()
    assert figures["cost-money"] == 2150
    # 200,000 expected in all, 4,000 of them done; half a token for each; 150 of the rest are spent already
    assert figures["projected_cost-money"] == pytest.approx(2150 + 196_000 / 2 - 150)
    assert figures["recent-tokens_per_second"] == pytest.approx(2150 / 30)
    assert figures["eta-seconds"] == pytest.approx((196_000 / 2 - 150) / (2150 / 30))
    assert figures["running-rows"] == 1


def test_recent_speed_forgets():
    clock = Clock()
    telemetry = Telemetry(PriceConfig(), clock=clock)
    row(telemetry, "a", answers=[600])
    clock.now += 59
    assert telemetry.snapshot()["recent-tokens_per_second"] == pytest.approx(600 / 59)
    clock.now += 2
    row(telemetry, "b", answers=[60])
    assert telemetry.snapshot()["recent-tokens_per_second"] == pytest.approx(1.0)
    assert telemetry.snapshot()["generated-tokens_per_second"] == pytest.approx(660 / 61)


def test_wasted_tokens_by_hand():
    telemetry = Telemetry(PriceConfig())
    telemetry.observe(Event("started", "a"))
    telemetry.observe(Event("answered", "a", "w", completion=answer(100)))
    telemetry.observe(Event("refused", "a", "w", reason="loop", text="x" * 50, facts={"kept-chars": 40}))
    assert telemetry.snapshot()["wasted-tokens"] == 20  # four fifths are built upon
    telemetry.observe(Event("answered", "a", "w", completion=answer(70)))
    telemetry.observe(Event("accepted", "a", "w", text="x"))
    assert telemetry.snapshot()["wasted-tokens"] == 20
    telemetry.observe(Event("rejected", "a", reason="too_short"))
    assert telemetry.snapshot()["wasted-tokens"] == 170  # in the end all of it was in vain


class Picky:
    name, version = "picky", 1

    def expected_tokens(self, prompt):
        return 200

    async def __call__(self, prompt, ask):
        number = int(prompt.id)

        def accept(reply):
            if number % 3 == 0 and reply.attempt == 0:
                raise Unacceptable("dull")
            return reply.text

        text = await ask("write", [Message("user", prompt.prompt)], accept=accept, max_tokens=400)
        if number % 5 == 0:
            raise Reject("too_short", filtered=True)
        return Sample((Message("assistant", text),), 1, "en")


def run(cache, clock=None):
    config = parse_synth_recipe(
        {"output": "o", "prompts": "p", "engine": "echo", "limits": {"price": {"completion": 2.0}}}
    )
    engine = EchoEngine(EchoOptions(step_seconds=0.01, transient=0.2), max_sequences=4)
    events = []
    generation = Generation(
        Picky(), engine, cache, config, guards=NoGuards(), find_loop=no_loop, observer=events.append
    )

    async def collect():
        await generation.start()
        generation.telemetry.total_rows = 60
        return [row async for row in generation.run([Prompt(str(i), f"Write {i}.") for i in range(60)])]

    rows = virtual_time.run(collect())
    return rows, generation.telemetry.snapshot(), events, engine


def test_a_run_adds_up():
    cache = MemoryCache()
    rows, figures, events, engine = run(cache)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["started-rows"] == 60 == figures["done-rows"] + figures["rejected-rows"]
    assert figures["rejected_by_reason-rows"] == {"too_short": 12}
    assert figures["refused_by_reason-replies"] == {"dull": 20}
    assert figures["asked-requests"] == engine.num_asked
    assert figures["asked-requests"] == figures["answered-requests"] + figures["retried-requests"]
    assert figures["failures_by_reason-requests"] == {"server": figures["retried-requests"]}
    assert figures["answered-requests"] == 80 == len(cache.calls)
    generated = sum(c.usage.generated for c in cache.calls.values())
    assert figures["generated-tokens"] == generated
    assert figures["cost-money"] == pytest.approx(generated * 2e-6) == figures["projected_cost-money"]
    made = {row.prompt.id for row in rows if row.sft}
    accepted = {e.row: e.facts["generated-tokens"] for e in events if e.kind == "accepted"}
    assert figures["wasted-tokens"] == generated - sum(accepted[name] for name in made)
    assert figures["eta-seconds"] == 0
    again, figures, _, engine = run(cache)
    assert {r.prompt.id: r for r in again} == {r.prompt.id: r for r in rows} and not engine.asked
    assert (figures["cached-requests"], figures["replayed-tokens"]) == (80, generated)
    assert figures["generated-tokens"] == figures["wasted-tokens"] == figures["cost-money"] == 0
    assert figures["projected_cost-money"] is None


def test_nothing_yet():
    figures = Telemetry(PriceConfig()).snapshot()
    assert figures["busy-share"] == figures["recent-tokens_per_second"] == 0 and figures["eta-seconds"] is None
