import asyncio
import json
import random

import pyarrow as pa
import pytest

from ropewalk.schemas import synthesis
from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import EngineDead, EngineInfo, Message
from ropewalk.synth.engines.echo import EchoEngine, EchoOptions
from ropewalk.synth.generation import Generation, Stopped
from ropewalk.synth.recipe import PlannedStep, Prompt, Reject, Sample, Unacceptable
from ropewalk.synth.testing import MemoryCache, NoGuards, no_loop

STEPS = 4


class Chain:
    """A recipe of some steps, each with the text so far; odd prompts as ordered in `faults`."""

    name, version = "chain", 3

    def __init__(self, faults=None):
        self.faults = faults or {}
        self.running = self.most = 0

    def expected_tokens(self, prompt):
        return 100 * (1 + int(prompt.id) % 7)

    async def __call__(self, prompt, ask):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if prompt.id in self.faults:
                raise self.faults[prompt.id]
            text = ""
            for step in range(1 + int(prompt.id) % STEPS):
                messages = [Message("user", prompt.prompt + text)]
                text += await ask(f"write-{step}", messages, accept=lambda r: r.text, max_tokens=400)
        finally:
            self.running -= 1
        conversation = (Message("user", prompt.prompt), Message("assistant", text))
        return Sample(conversation, output_words=5, language="en", guard_metrics={"words": 5.0})


def make(recipe=None, *, engine=None, cache=None, observer=None, **settings):
    config = parse_synth_recipe({"output": "o", "prompts": "p", "engine": "echo", **settings})
    engine = engine or EchoEngine(EchoOptions(step_seconds=0.01), max_sequences=8)
    cache = cache if cache is not None else MemoryCache()
    return Generation(recipe or Chain(), engine, cache, config, guards=NoGuards(), find_loop=no_loop, observer=observer)


async def collect(generation, prompts, *, slow=False):
    """All rows by id, and why the run stopped."""
    await generation.start()
    rows, reason = {}, None
    try:
        async for row in generation.run(prompts):
            assert row.prompt.id not in rows
            assert (row.sft is None) != (row.reject is None)
            rows[row.prompt.id] = row
            if slow:
                await asyncio.sleep(1)
    except Stopped as stopped:
        reason = stopped.reason
    await generation.close()
    return rows, reason


def prompts(n):
    return [Prompt(str(i), f"Write about {i}.", source="s", source_ids=("d",)) for i in range(n)]


FAULTY = EchoOptions(step_seconds=0.01, transient=0.05, permanent=0.05, repetition=0.2, empty=0.1)


def test_every_prompt_becomes_a_row_and_rows_depend_on_nothing_but_prompts_and_replies():
    """Order of prompts, slots, latencies, segments of the consumer's time: the same rows."""
    found = []
    for slots, step_seconds, shuffle, slow in [(1, 0.0, False, False), (8, 0.01, True, False), (64, 1.0, True, True)]:
        options = EchoOptions(**{**vars(FAULTY), "step_seconds": step_seconds})
        generation = make(engine=EchoEngine(options, max_sequences=slots))
        todo = random.Random(slots).sample(prompts(60), 60) if shuffle else prompts(60)
        rows, reason = virtual_time.run(collect(generation, todo, slow=slow))
        assert reason is None and len(rows) == 60
        found.append(rows)
    assert found[0] == found[1] == found[2]
    assert {row.reject["reason"] for row in found[0].values() if row.reject} >= {"bad_request"}
    assert sum(row.sft is not None for row in found[0].values()) > 20


def test_rows_fit_their_tables():
    rows, _ = virtual_time.run(collect(make(engine=EchoEngine(FAULTY)), prompts(40)))
    sft = [row.sft for row in rows.values() if row.sft]
    rejects = [row.reject for row in rows.values() if row.reject]
    assert sft and rejects
    for table, schema in ((sft, synthesis.SFT), (rejects, synthesis.SYNTH_REJECTS)):
        assert all(list(row) == schema.names for row in table)
        pa.Table.from_pylist(table, schema=schema).validate(full=True)


def test_a_sample_row():
    recipe = Chain()
    plain = recipe.__class__.__call__

    class Planned(Chain):
        async def __call__(self, prompt, ask):
            sample = await plain(self, prompt, ask)
            return Sample(sample.messages, 5, "en", plan=(PlannedStep("a", 3),), s_l=50.0)

    generation = make(Planned(), license="cc0", seed=9, generation={"segment_tokens": 100})
    rows, _ = virtual_time.run(collect(generation, prompts(4)))
    row = rows["3"].sft
    text = row["messages"][-1]["content"]
    tokens = EchoEngine().count_tokens(text)
    assert row["output_tokens"] == tokens and row["loss_weight"] == pytest.approx(1 / tokens)
    assert row["finish_reasons"].count("stop") == 4 and row["finish_reasons"].count("length") > 0
    assert row["n_segments"] == len(row["finish_reasons"]) == row["n_attempts"]
    assert row["completion_tokens"] == sum(c.usage.generated for c in generation._cache.calls.values()) - sum(
        rows[i].sft["completion_tokens"] for i in "012"
    )
    assert (row["recipe"], row["recipe_version"], row["seed"], row["license"]) == ("chain", 3, 9, "cc0")
    assert (row["model"], row["model_revision"], row["engine"]) == ("echo", "1", "echo 1")
    assert row["plan"] == [{"point": "a", "words": 3}] and row["s_l"] == 50.0
    assert json.loads(row["sampling"])["temperature"] == 1.0


def test_rejects_keep_reason_kind_and_what_was_refused():
    long = "汉" * 3000

    class Refusing(Chain):
        async def __call__(self, prompt, ask):
            if prompt.id in self.faults:
                return await super().__call__(prompt, ask)

            def accept(reply):
                raise Unacceptable("dull", "very", metrics={"words": 2.0})

            return await ask("write", [Message("user", "x")], accept=accept, max_tokens=9999)

    faults = {
        "1": Reject("too_short", "40 words", filtered=True),
        "2": ZeroDivisionError("oops"),
        "3": Unacceptable("join", "seam"),
        "4": ExceptionGroup("g", [ValueError("x"), Reject("inner", step="s")]),
    }
    generation = make(Refusing(faults), engine=EchoEngine(reply=lambda request: long))
    rows, reason = virtual_time.run(collect(generation, prompts(5)))
    found = {i: row.reject for i, row in rows.items()}
    assert reason is None
    assert (found["1"]["kind"], found["1"]["reason"], found["1"]["detail"]) == ("filtered", "too_short", "40 words")
    assert (found["2"]["kind"], found["2"]["reason"]) == ("dead_letter", "recipe_error")
    assert "ZeroDivisionError: oops (test_synth_generation.py:" in found["2"]["detail"]
    assert found["3"]["reason"] == "join" and found["4"]["reason"] == "inner"
    dull = found["0"]
    assert (dull["reason"], dull["step"], dull["attempt"], dull["finish_reason"]) == ("dull", "write", 2, "stop")
    assert dull["text"] == "汉" * (4096 // 3)  # whole characters within 4,096 bytes
    assert json.loads(dull["metrics"]) == {"words": 2.0}
    assert dull["completion_tokens"] == 3 * 3000 and dull["prompt"] == "Write about 0."


def test_a_bad_sample_is_a_fault_of_the_recipe():
    class Empty(Chain):
        async def __call__(self, prompt, ask):
            return Sample((), 0, "en")

    rows, _ = virtual_time.run(collect(make(Empty()), prompts(1)))
    assert rows["0"].reject["reason"] == "recipe_error"


def test_no_more_rows_run_than_are_useful_and_prompts_are_read_by_windows():
    recipe, read = Chain(), []

    def stream():
        for prompt in prompts(400):
            read.append((recipe.running, prompt.id))
            yield prompt

    generation = make(recipe, generation={"window_rows": 50})
    rows, _ = virtual_time.run(collect(generation, stream()))
    assert len(rows) == 400
    assert recipe.most <= 3 * 8
    assert generation.telemetry.snapshot()["busy-share"] > 0.95


def test_drain_finishes_what_is_in_flight_and_the_next_run_asks_only_the_rest():
    cache = MemoryCache()
    whole, _ = virtual_time.run(collect(make(engine=EchoEngine(FAULTY, max_sequences=4)), prompts(40)))

    async def interrupted():
        engine = EchoEngine(FAULTY, max_sequences=4)
        generation = make(engine=engine, cache=cache)
        asyncio.get_running_loop().call_later(8.0, generation.drain)
        rows, reason = await collect(generation, prompts(40))
        events = generation.telemetry.snapshot()
        assert (
            events["asked-requests"]
            == events["answered-requests"] + events["retried-requests"] + (events["failed-requests"])
        )
        return rows, reason

    rows, reason = virtual_time.run(interrupted())
    assert reason == "interrupted" and 0 < len(rows) < 40
    known = len(cache.calls)
    engine = EchoEngine(FAULTY, max_sequences=4)
    again, reason = virtual_time.run(collect(make(engine=engine, cache=cache), prompts(40)))
    assert reason is None and again == whole
    assert rows.items() <= again.items()
    keys = {(r.row, r.step, r.attempt, r.segment) for r in list(cache.requests.values())[:known]}
    assert not keys & {(r.row, r.step, r.attempt, r.segment) for r in engine.asked}


def test_an_engine_that_dies_ends_the_run_after_what_was_finished():
    cache = MemoryCache()
    engine = EchoEngine(EchoOptions(step_seconds=0.01, die_at=60), max_sequences=4)
    rows, reason = virtual_time.run(collect(make(engine=engine, cache=cache), prompts(40)))
    assert reason == "engine_dead: echo was told to die" and 0 < len(rows) < 40
    assert all(row.sft for row in rows.values())
    again, reason = virtual_time.run(collect(make(cache=cache), prompts(40)))
    assert reason is None and len(again) == 40 and rows.items() <= again.items()


def test_an_engine_that_hangs_after_its_death_is_given_a_while():
    class Hanging(EchoEngine):
        async def generate(self, request):
            if request.row == "27":  # one of the four that start first
                raise EngineDead("gone")
            await asyncio.sleep(10**9)

    async def timed():
        rows, reason = await collect(make(engine=Hanging(max_sequences=4)), prompts(40))
        return rows, reason, asyncio.get_running_loop().time()

    rows, reason, seconds = virtual_time.run(timed())
    assert (rows, reason) == ({}, "engine_dead: gone") and seconds < 120


def test_an_engine_that_cannot_start():
    class Broken(EchoEngine):
        async def start(self):
            raise EngineDead("no model at /x: give a path")

    with pytest.raises(Stopped, match="engine_dead: no model at /x"):
        virtual_time.run(make(engine=Broken()).start())


def test_a_budget_stops_the_run():
    generation = make(limits={"tokens": 5000})
    rows, reason = virtual_time.run(collect(generation, prompts(100)))
    assert reason.startswith("tokens: ") and 0 < len(rows) < 100
    assert 5000 <= generation.limits.tokens < 5000 + 8 * 300


def test_a_server_that_is_down_trips_the_breaker_and_rejects_nobody():
    engine = EchoEngine(EchoOptions(permanent=0.0, transient=1.0), max_sequences=8)
    engine._failed = type("Never", (), {"__contains__": lambda s, x: False, "add": lambda s, x: None})()
    recipe = Chain()
    generation = make(recipe, engine=engine, limits={"error_window": 20})
    rows, reason = virtual_time.run(collect(generation, prompts(200)))
    assert reason.startswith("errors: 20 of the last 20 requests failed") and rows == {}
    assert recipe.most <= 8  # who pauses keeps its place


def test_a_recipe_that_swallows_the_end_of_the_run_makes_no_row():
    class Swallowing(Chain):
        async def __call__(self, prompt, ask):
            try:
                return await super().__call__(prompt, ask)
            except Exception:
                return Sample((Message("assistant", "half"),), 1, "en")

    engine = EchoEngine(EchoOptions(step_seconds=0.01, die_at=30), max_sequences=4)
    rows, reason = virtual_time.run(collect(make(Swallowing(), engine=engine), prompts(40)))
    assert reason.startswith("engine_dead") and all(r.sft["messages"][-1]["content"] != "half" for r in rows.values())


def test_make_is_for_callers_with_a_schedule_of_their_own():
    async def run():
        generation = make()
        await generation.start()
        return await asyncio.gather(*map(generation.make, prompts(30)))

    rows = virtual_time.run(run())
    whole, _ = virtual_time.run(collect(make(), prompts(30)))
    assert {row.prompt.id: row for row in rows} == whole


def test_leaving_early_cancels_everything():
    async def run():
        recipe = Chain()
        generation = make(recipe)
        await generation.start()
        rows = generation.run(prompts(100))
        async for _ in rows:
            break
        await rows.aclose()
        return recipe.running, generation._desk.writer.in_flight, len(asyncio.all_tasks())

    assert virtual_time.run(run()) == (0, 0, 1)


def test_not_started():
    with pytest.raises(RuntimeError, match="start"):
        virtual_time.run(make().make(prompts(1)[0]))


def test_a_busy_judge_holds_up_new_rows():
    class Judged(Chain):
        async def __call__(self, prompt, ask):
            sample = await super().__call__(prompt, ask)
            await ask("judge", [Message("user", "?")], accept=lambda r: r.text, max_tokens=400, judge=True)
            return sample

    class Judge(EchoEngine):
        async def start(self):
            return EngineInfo("judge 1", "judge", max_sequences=2)

    recipe = Judged()
    config = parse_synth_recipe({"output": "o", "prompts": "p", "engine": "echo"})
    generation = Generation(
        recipe,
        EchoEngine(EchoOptions(step_seconds=0.001), max_sequences=8),
        MemoryCache(),
        config,
        judge=Judge(EchoOptions(step_seconds=1.0), max_sequences=2),
        guards=NoGuards(),
        find_loop=no_loop,
    )
    rows, reason = virtual_time.run(collect(generation, prompts(100)))
    assert reason is None and len(rows) == 100 and recipe.most < 24
    assert all(row.sft["engine"] == "echo 1" for row in rows.values())


@pytest.mark.parametrize("token_ids", [True, False])
def test_long_answers_go_on_over_seams_with_the_real_loop_detector(token_ids):
    """Engines that only speak text too: what is looked at is then the text."""
    options = EchoOptions(step_seconds=0.01, tokens=700, token_ids=token_ids)
    whole, cut = (
        Generation(
            Chain(),
            EchoEngine(options, max_sequences=8),
            MemoryCache(),
            parse_synth_recipe(
                {"output": "o", "prompts": "p", "engine": "echo", "sampling": {"temperature": 0}} | settings
            ),
            guards=NoGuards(),
        )
        for settings in ({}, {"generation": {"segment_tokens": 130}})
    )
    found = []
    for generation in (whole, cut):
        rows, reason = virtual_time.run(collect(generation, prompts(6)))
        assert reason is None
        found.append({id: row.sft and row.sft["messages"] or row.reject["reason"] for id, row in rows.items()})
    assert found[0] == found[1]
    assert "recipe_error" not in found[0].values()


def test_two_rows_of_one_id_at_once_are_both_made():
    """Beam tries a bundle again while its rows are still under way."""

    async def twice():
        generation = make()
        await generation.start()
        made = await asyncio.gather(generation.make(prompts(4)[3]), generation.make(prompts(4)[3]))
        await generation.close()
        return made

    first, second = virtual_time.run(twice())
    assert first.sft is not None and first == second


def test_faults_of_the_requests_themselves_do_not_trip_the_breaker():
    """They are not cached: a resumed run meets all of them, and little else."""
    generation = make(
        engine=EchoEngine(EchoOptions(step_seconds=0.01, permanent=0.9), max_sequences=8),
        limits={"error_window": 10, "error_share": 0.5},
    )
    rows, reason = virtual_time.run(collect(generation, prompts(60)))
    assert reason is None and len(rows) == 60
