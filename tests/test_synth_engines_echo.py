import asyncio
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import EngineDead, Message, Request, RequestError, Sampling
from ropewalk.synth.engines import echo, load
from ropewalk.synth.engines.echo import EchoEngine, EchoOptions


def request(text="Write.", *, row="r", step="write", **sampling):
    settings = {"max_tokens": 1000, "temperature": 0.0, "seed": 1} | sampling
    return Request(row, step, (Message("user", text),), Sampling(**settings))


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab .\n\t汉字，。é")))
def test_tokens_joined_are_the_text_and_a_cut_between_them_changes_none(text):
    tokens = echo.split(text)
    assert "".join(tokens) == text
    for at in range(len(tokens)):
        if not tokens[at].isspace():  # trailing whitespace is a token only at the end
            assert echo.split("".join(tokens[:at])) == tokens[:at]


@settings(deadline=None)
@given(st.integers(1, 60), st.sampled_from(["Write.", "写一篇关于长江的文章"]), st.booleans())
def test_continuing_goes_on_with_the_same_stream(size, text, token_ids):
    engine = EchoEngine(EchoOptions(tokens=90, token_ids=token_ids))

    async def run():
        whole = await engine.generate(request(text))
        parts, ids = "", ()
        while True:
            asked = dataclasses.replace(request(text, max_tokens=size), generated_ids=ids, generated_text=parts)
            part = await engine.generate(asked)
            parts, ids = parts + part.text, ids + part.token_ids
            if part.finish_reason == "stop":
                return whole, parts, ids
            assert part.finish_reason == "length" and part.usage.generated == size

    whole, parts, ids = asyncio.run(run())
    assert whole.finish_reason == "stop" and whole.text == parts and whole.token_ids == ids
    assert whole.usage.generated == engine.count_tokens(whole.text)


def test_replies_depend_on_conversation_and_on_the_seed_unless_greedy():
    async def text(**kwargs):
        return (await EchoEngine().generate(request(**kwargs))).text

    async def run():
        assert await text(seed=1) == await text(seed=2)
        assert await text(text="a") != await text(text="b")
        assert await text(seed=1, temperature=1.0) != await text(seed=2, temperature=1.0)
        assert await text(seed=1, temperature=1.0) == await text(seed=1, temperature=1.0)

    asyncio.run(run())


def test_limits_of_length_and_stop_strings():
    engine = EchoEngine(reply=lambda request: "one two three. four five six")

    async def run():
        cut = await engine.generate(request(max_tokens=2))
        assert (cut.text, cut.finish_reason, cut.usage.generated) == ("one two", "length", 2)
        stopped = await engine.generate(request(stop=("e. f", "six")))
        assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == ("one two thre", "stop", "e. f")
        assert stopped.usage.generated == 4  # the token that completes it was generated
        later = await engine.generate(request(stop=("o",), min_tokens=2))
        assert later.text == "one two three. f"
        whole = await engine.generate(request(max_tokens=6))
        assert (whole.finish_reason, whole.text) == ("stop", "one two three. four five six")

    asyncio.run(run())


def test_a_batch_decodes_in_step_and_the_rest_waits_inside():
    """By hand: steps of 1 s + 0.5 s a sequence; two slots; answers of 4, 8 and 4 tokens asked at once."""
    lengths = {"a": 4, "b": 8, "c": 4}
    engine = EchoEngine(
        EchoOptions(step_seconds=1.0, sequence_step_seconds=0.5),
        reply=lambda request: " ".join(["x"] * lengths[request.row]),
        max_sequences=2,
    )

    async def run():
        loop = asyncio.get_running_loop()
        ends = {}

        async def one(row):
            completion = await engine.generate(request(row=row))
            ends[row] = (loop.time(), completion.timing.queued)

        await asyncio.gather(*map(one, "abc"))
        return ends

    ends = virtual_time.run(run())
    assert ends["a"] == (pytest.approx(8), 0)  # 4 steps of 2 s
    assert ends["b"] == (pytest.approx(16), 0)  # 8 steps of 2 s: c joined as a left
    assert ends["c"] == (pytest.approx(16), pytest.approx(8))


def test_a_cancelled_request_leaves_the_batch():
    engine = EchoEngine(EchoOptions(step_seconds=1.0), reply=lambda request: "x " * 100, max_sequences=1)

    async def run():
        first = asyncio.create_task(engine.generate(request()))
        await asyncio.sleep(5)
        second = asyncio.create_task(engine.generate(request()))
        first.cancel()
        await asyncio.wait([first])
        return (await second).timing.total

    assert virtual_time.run(run()) == pytest.approx(101)


def test_the_prefix_cache_reads_a_known_beginning_once():
    engine = EchoEngine(EchoOptions(prompt_token_seconds=1.0), max_sequences=4)

    async def run():
        long = "word " * 2000
        first = await engine.generate(request(long))
        again = await engine.generate(request(long + "and more"))
        other = await engine.generate(request("x" + long))
        return [c.usage.cached / c.usage.prompt for c in (first, again, other)], first.timing.total

    shares, seconds = virtual_time.run(run())
    assert shares[0] == 0 and shares[1] > 0.9 and shares[2] == 0
    assert seconds == pytest.approx(2001, abs=2)


def test_faults_hit_their_share_and_are_the_same_each_time():
    options = EchoOptions(transient=0.2, permanent=0.1, repetition=0.1, refusal=0.1, empty=0.1)

    async def outcomes(engine, tries):
        found = []
        for number in range(1000):
            for _ in range(tries):
                try:
                    completion = await engine.generate(request(row=str(number)))
                    found.append((completion.finish_reason, completion.text[:10]))
                    break
                except RequestError as error:
                    kind = "transient" if error.transient else "permanent"
            else:
                found.append((kind, ""))
        return found

    async def run():
        return await outcomes(EchoEngine(options), 1), await outcomes(EchoEngine(options), 2)

    once, twice = asyncio.run(run())
    shares = {"transient": 0.2, "permanent": 0.1, "repetition": 0.1}
    for kind, share in shares.items():
        assert sum(o[0] == kind for o in once) / 1000 == pytest.approx(share, abs=0.04)
    assert sum(o == ("stop", "") for o in once) / 1000 == pytest.approx(0.1, abs=0.04)
    assert sum(o[1] == "I'm sorry," for o in once) / 1000 == pytest.approx(0.1, abs=0.04)
    for first, second in zip(once, twice, strict=True):
        assert first == second or (first[0] == "transient" and second[0] == "stop")


def test_death_script_and_log(tmp_path):
    log = tmp_path / "asked.jsonl"
    engine = EchoEngine(EchoOptions(die_at=3, script={"plan": "a plan", "plan-b": "another"}, log=str(log)))

    async def run():
        assert (await engine.generate(request(step="plan-2"))).text == "a plan"
        assert (await engine.generate(request(step="plan-b1"))).text == "another"
        for _ in range(2):
            with pytest.raises(EngineDead):
                await engine.generate(request())

    asyncio.run(run())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [["r", "plan-2", 0, 0], ["r", "plan-b1", 0, 0], ["r", "write", 0, 0], ["r", "write", 0, 0]]


def test_from_settings():
    options = {"tokens": 10, "token_ids": False}
    engine = load.load(EngineConfig(name="echo", model="m", max_sequences=3, options=options))
    info = asyncio.run(engine.start())
    assert (info.model, info.max_sequences, info.token_ids) == ("m", 3, False)
    with pytest.raises(ValueError, match="no option 'tokns'.*tokens"):
        load.load(EngineConfig(name="echo", options={"tokns": 10}))


def test_reading_a_prompt_holds_up_the_batch_and_what_is_old_is_read_again():
    """By hand: 1 s a step, 1 s a prompt token; b's 1,000 tokens are read while a is decoded."""
    options = EchoOptions(step_seconds=1.0, prompt_token_seconds=1.0, max_tokens=1500)
    engine = EchoEngine(options, reply=lambda request: " x" * 100, max_sequences=4)

    async def run():
        loop = asyncio.get_running_loop()
        a = asyncio.create_task(engine.generate(request("a", row="a")))
        await asyncio.sleep(50)
        b = await engine.generate(request(" b" * 1000, row="b"))
        assert (await a).timing.total == pytest.approx(1 + 100 + 1000)
        assert loop.time() == pytest.approx(50 + 1000 + 100) and b.timing.first_token == pytest.approx(1000)
        known = [(await engine.generate(request(c * 1000))).usage.cached > 700 for c in (" b", " c", " b")]
        assert known == [True, False, False]

    virtual_time.run(run())
