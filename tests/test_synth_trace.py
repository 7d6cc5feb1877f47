import dataclasses

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import EngineInfo, Message
from ropewalk.synth.engines.echo import EchoEngine
from ropewalk.synth.generation import Generation
from ropewalk.synth.recipe import Prompt, Sample, Unacceptable
from ropewalk.synth.testing import MemoryCache, NoGuards, no_loop
from ropewalk.synth.trace import trace

CONFIG = parse_synth_recipe({"output": "o", "prompts": "p", "engine": "echo", "generation": {"segment_tokens": 50}})


class TwoSteps:
    name, version = "two", 1

    def expected_tokens(self, prompt):
        return 1

    async def __call__(self, prompt, ask):
        def accept(reply):
            if reply.attempt == 0:
                raise Unacceptable("dull", "first tries are", metrics={"words": 1.0})
            return reply.text

        plan = await ask("plan", [Message("user", prompt.prompt)], accept=accept, max_tokens=400)
        ask.note("plan", "taken", words=3)
        text = await ask("write", [Message("user", plan)], accept=lambda r: r.text, max_tokens=400, judge=True)
        return Sample((Message("assistant", text),), 1, "en")


class Judge(EchoEngine):
    async def start(self):
        return dataclasses.replace(await super().start(), model="judge")


def made(cache):
    """The events of a row as it is made, and what its engines say they are."""
    events = []

    async def run():
        generation = Generation(
            TwoSteps(),
            EchoEngine(),
            cache,
            CONFIG,
            judge=Judge(),
            observer=events.append,
            guards=NoGuards(),
            find_loop=no_loop,
        )
        info = await generation.start()
        row = await generation.make(Prompt("1", "Plan."))
        assert row.sft is not None
        return info

    return events, virtual_time.run(run())


def retrace(cache, info, judge):
    return virtual_time.run(
        trace(Prompt("1", "Plan."), TwoSteps(), cache, info, CONFIG, judge=judge, guards=NoGuards(), find_loop=no_loop)
    )


def test_a_trace_is_what_happened_with_every_prompt_and_reply():
    cache = MemoryCache()
    events, info = made(cache)
    judge = dataclasses.replace(info, model="judge")
    known = dict(cache.calls)
    found = retrace(cache, info, judge)
    as_cached = [
        dataclasses.replace(e, kind="cached") if e.kind == "answered" else e for e in events if e.kind != "asked"
    ]
    assert found == as_cached and cache.calls == known
    kinds = [e.kind for e in found]
    assert kinds[0] == "started" and kinds[-1] == "done"
    assert {"cached", "continued", "refused", "note", "accepted"} <= set(kinds)
    replies = [e for e in found if e.kind == "cached"]
    assert all(e.request.messages and e.completion.text for e in replies)
    assert replies[0].request.messages == (Message("user", "Plan."),)
    refused = next(e for e in found if e.kind == "refused")
    assert (refused.reason, refused.detail) == ("dull", "first tries are")
    assert refused.text == "".join(e.completion.text for e in replies if (e.step, e.attempt) == ("plan", 0))


def test_a_row_that_was_never_finished_ends_where_the_cache_ends():
    cache = MemoryCache()
    _, info = made(cache)
    judge = EngineInfo("x", "another judge")
    found = retrace(cache, info, judge)
    assert (found[-1].kind, found[-1].reason, found[-1].step) == ("rejected", "not_cached", "write")
    assert found[-2].kind == "failed" and found[-2].request.messages[0].content
    assert retrace(MemoryCache(), info, judge)[-1].step == "plan"
