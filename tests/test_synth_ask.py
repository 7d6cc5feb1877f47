import asyncio
import dataclasses

import pytest

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth import virtual_time
from ropewalk.synth.ask import Desk, RowAsk
from ropewalk.synth.engine import Completion, EngineInfo, Message, RequestError, Usage
from ropewalk.synth.recipe import Prompt, Reject, Unacceptable, seed_of
from ropewalk.synth.scheduler import Scheduler, Stopped
from ropewalk.synth.testing import MemoryCache, NoGuards, no_loop


class Scripted:
    """Answers with what the script says of (attempt, segment), in order of asking where it is a list."""

    def __init__(self, script, **info):
        self.script = script
        self.asked = []
        self.info = EngineInfo("scripted 1", "m", **{"max_sequences": 4, **info})

    async def generate(self, request):
        self.asked.append(request)
        answer = self.script(request) if callable(self.script) else self.script.pop(0)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            answer = reply(answer)
        return answer

    def count_tokens(self, text):
        return len(text.split())


def reply(text, finish="stop", tokens=None, ids=()):
    return Completion(text, ids, finish, Usage(10, 0, len(text.split()) if tokens is None else tokens), engine="e 1")


def make(script, *, judge=None, cache=None, guards=None, info=None, **settings):
    config = parse_synth_recipe({"output": "o", "prompts": "p", "engine": "echo", **settings})
    engine = Scripted(script, **(info or {}))
    writer = Scheduler(engine, engine.info)
    events = []
    judging = Scheduler(judge, judge.info) if judge else writer
    desk = Desk(config, cache or MemoryCache(), writer, judging, guards or NoGuards(), no_loop, events.append)
    return RowAsk(Prompt("row", "Write."), desk), engine, events


def call(ask, **kwargs):
    settings = {"accept": lambda r: r.text, "max_tokens": 100} | kwargs
    return ask("write", [Message("user", "Write.")], **settings)


def run(ask, **kwargs):
    return virtual_time.run(call(ask, **kwargs))


def rejected(ask, **kwargs):
    with pytest.raises(Reject) as caught:
        run(ask, **kwargs)
    return caught.value


def kinds(events):
    return [event.kind for event in events]


def refuse(reason="no", keep=""):
    def accept(reply):
        raise Unacceptable(reason, "x", keep=keep)

    return accept


def test_the_cache_answers_first_and_is_written_before_the_result_is_used():
    cache = MemoryCache()
    ask, engine, events = make(["hello"], cache=cache)
    assert run(ask, accept=lambda r: (r.text, len(cache.calls))) == ("hello", 1)
    assert kinds(events) == ["asked", "answered", "accepted"]
    again, engine, events = make([], cache=cache)
    assert run(again) == "hello" and not engine.asked
    assert kinds(events) == ["cached", "accepted"]
    assert again.account == ask.account


def test_what_the_cache_gives_back_is_what_is_used():
    class Rounding(MemoryCache):
        async def put(self, key, request, completion, model):
            return await super().put(key, request, dataclasses.replace(completion, text="as cached"), model)

    ask, _, _ = make(["as answered"], cache=Rounding())
    assert run(ask) == "as cached"


def test_seeds_attempts_and_steps():
    ask, engine, _ = make(["one", "two", "three"], seed=7)
    found = rejected(ask, accept=refuse())
    assert (found.reason, found.step, [t.reply.text for t in found.tries]) == ("no", "write", ["one", "two", "three"])
    assert [r.sampling.seed for r in engine.asked] == [seed_of(7, "row", "write", a, 0) for a in range(3)]
    assert [r.attempt for r in engine.asked] == [0, 1, 2]
    with pytest.raises(ValueError, match="'write' is asked twice.*write-3"):
        run(ask)


def test_attempts_are_tries_in_all():
    ask, engine, _ = make(["one"] * 9)
    rejected(ask, accept=refuse(), attempts=1)
    assert len(engine.asked) == 1


def test_sampling_comes_from_the_run_and_the_call():
    sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "extra": {"x": 1}}
    ask, engine, _ = make(["{}"], sampling=sampling)
    run(ask, stop=["END"], json_schema='{"type":"object"}', temperature=0.2)
    asked = engine.asked[0].sampling
    assert (asked.temperature, asked.top_p, asked.top_k, asked.min_p, asked.extra) == (0.2, 0.9, 5, 0.1, {"x": 1})
    assert (asked.stop, asked.json_schema, asked.repetition) == (("END",), '{"type":"object"}', None)


def test_transient_faults_are_repeated_with_growing_pauses_and_never_cached():
    fault = RequestError("server", "500", transient=True)
    cache = MemoryCache()
    ask, engine, events = make([fault, fault, fault, reply("", "abort"), "hello"], cache=cache)

    async def timed():
        result = await call(ask)
        return result, asyncio.get_running_loop().time()

    result, seconds = virtual_time.run(timed())
    assert result == "hello" and len(cache.calls) == 1
    assert 1 + 2 + 4 + 8 <= seconds <= 1.5 * (1 + 2 + 4 + 8)
    assert kinds(events) == ["asked", "retried"] * 4 + ["asked", "answered", "accepted"]
    assert len({id(e.request) for e in events if e.kind == "asked"}) == 1
    assert ask.account.requests == 1


def test_retry_after_is_respected():
    ask, _, _ = make([RequestError("rate_limit", "429", transient=True, retry_after=100.0), "hello"])

    async def timed():
        await call(ask)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(timed()) >= 100


def test_retries_run_out_and_permanent_faults_have_none():
    ask, engine, events = make([RequestError("server", "500", transient=True)] * 9, generation={"retries": 2})
    found = rejected(ask)
    assert (found.reason, found.step, found.tries, len(engine.asked)) == ("server", "write", (), 3)
    assert kinds(events)[-1] == "failed"
    ask, engine, _ = make([RequestError("bad_request", "400", transient=False)])
    assert rejected(ask).reason == "bad_request" and len(engine.asked) == 1


def test_a_fault_that_ends_the_run_does_not_blame_the_row():
    def script(request):
        scheduler.stop("errors: many")
        return RequestError("server", "500", transient=False)

    ask, _, _ = make(script)
    scheduler = ask.desk.writer
    with pytest.raises(Stopped, match="errors: many"):
        run(ask)
    assert ask.interruptions


def test_length_goes_on_segment_by_segment_to_the_ceiling():
    def script(request):
        return reply("x " * request.sampling.max_tokens, "length", request.sampling.max_tokens)

    ask, engine, events = make(script, generation={"segment_tokens": 16, "attempts": 1})
    found = rejected(ask, max_tokens=40)
    assert found.reason == "length" and found.tries[0].reply.finish_reasons == ("length",) * 3
    assert [r.sampling.max_tokens for r in engine.asked] == [16, 16, 8]
    assert [r.segment for r in engine.asked] == [0, 1, 2]
    assert [len(r.generated_text) for r in engine.asked] == [0, 32, 64]
    assert "accepted" not in kinds(events)
    ask, engine, _ = make(script, generation={"segment_tokens": 16, "attempts": 1})
    rejected(ask, max_tokens=40, widen=True)
    assert sum(r.sampling.max_tokens for r in engine.asked) == 80


def test_an_engine_that_cannot_continue_is_asked_for_all_of_it_and_then_for_twice():
    def script(request):
        n = request.sampling.max_tokens
        return reply("x " * n, "length", n) if n < 80 else reply("done")

    ask, engine, _ = make(script, info={"continues": False}, generation={"segment_tokens": 16})
    assert run(ask, max_tokens=40, widen=True) == "done"
    assert [(r.sampling.max_tokens, r.attempt, r.segment) for r in engine.asked] == [(40, 0, 0), (80, 1, 0)]
    ask, engine, _ = make(script, generation={"segment_tokens": 16})
    assert run(ask, max_tokens=40, widen=True, json_schema="{}") == "done"  # a grammar cannot be taken up again
    assert [r.sampling.max_tokens for r in engine.asked] == [40, 80]


def test_no_room_for_the_prompt():
    ask, engine, _ = make([reply("", "length", 0)])
    assert rejected(ask).reason == "prompt_too_long" and len(engine.asked) == 1


def test_repetition_is_asked_again_a_tenth_warmer_at_most_twice():
    ask, engine, events = make([reply("and so on", "repetition")] * 9, generation={"attempts": 8})
    found = rejected(ask)
    assert found.reason == "repetition"
    assert [r.sampling.temperature for r in engine.asked] == [1.0, 1.1, 1.1]
    ask, engine, _ = make([reply("and so on", "repetition"), "fine"])
    assert run(ask) == "fine"


def test_a_loop_at_a_seam_is_a_repetition():
    ask, engine, _ = make(lambda r: reply("x " * 16, "length", 16, ids=(1,) * 16), generation={"segment_tokens": 16})
    ask.desk = dataclasses.replace(ask.desk, find_loop=lambda tokens: len(tokens) >= 32 or None)
    assert rejected(ask).reason == "repetition"
    assert [r.segment for r in engine.asked] == [0, 1] * 3


def test_content_filter_and_empty():
    ask, engine, _ = make([reply("no", "content_filter")] * 3)
    found = rejected(ask)
    assert (found.reason, len(engine.asked), found.tries[0].reply.finish_reason) == (
        "content_filter",
        1,
        "content_filter",
    )
    ask, engine, events = make([" \n", "hello"])
    assert run(ask) == "hello"
    assert [e.reason for e in events if e.kind == "refused"] == ["empty"]


def test_a_greedy_step_grows_warmer_since_it_would_only_repeat_itself():
    ask, engine, _ = make(["one"] * 3)
    rejected(ask, accept=refuse(), temperature=0.0)
    assert [r.sampling.temperature for r in engine.asked] == [0.0, 0.1, 0.2]


def test_the_clean_beginning_is_continued():
    def accept(reply):
        if "bad" in reply.text:
            raise Unacceptable("loop", keep=reply.text[: reply.text.index(" bad")])
        return reply.text

    ask, engine, _ = make(["one two bad bad", " three"])
    assert run(ask, accept=accept) == "one two three"
    assert [(r.generated_text, r.attempt, r.sampling.max_tokens) for r in engine.asked] == [
        ("", 0, 100),
        ("one two", 1, 99),  # four bytes a token
    ]
    ask, engine, _ = make(["one two bad bad", " three"], info={"continues": False})
    assert run(ask, accept=accept) == " three"
    assert [r.generated_text for r in engine.asked] == ["", ""]


def test_a_given_beginning():
    ask, engine, _ = make(["", " two"])
    assert run(ask, prefix="one") == "one two"  # adding nothing is empty
    assert [r.generated_text for r in engine.asked] == ["one", "one"]
    ask, _, _ = make([], info={"continues": False})
    assert rejected(ask, prefix="one").reason == "cannot_continue"


def test_token_ids_are_sent_only_to_engines_that_take_them():
    def script(request):
        done = request.segment == 1
        return reply("x " * 16, "stop" if done else "length", 16, ids=tuple(range(16)))

    for takes in (True, False):
        ask, engine, _ = make(script, info={"token_ids": takes}, generation={"segment_tokens": 16})
        run(ask)
        assert [len(r.generated_ids) for r in engine.asked] == [0, 16 if takes else 0]


def test_budget_of_the_row_counts_cached_tokens_too():
    cache = MemoryCache()
    for asked in (2, 0):
        ask, engine, _ = make(["x " * 20] * 3, cache=cache, generation={"row_tokens": 30})
        found = rejected(ask, accept=refuse())
        assert (found.reason, len(engine.asked), len(found.tries)) == ("row_tokens", asked, 2)


def test_the_deadline_is_looked_at_only_when_the_engine_is_asked():
    class Slow(Scripted):
        async def generate(self, request):
            await asyncio.sleep(10)
            return await super().generate(request)

    async def three(ask):
        texts = []
        for number in range(3):
            texts.append(await ask(f"w{number}", [Message("user", "x")], accept=lambda r: r.text, max_tokens=9))
        return texts

    def make_slow(cache, seconds):
        ask, _, events = make([], cache=cache, generation={"row_seconds": seconds})
        engine = Slow(lambda request: request.step)
        scheduler = Scheduler(engine, engine.info)
        ask.desk = dataclasses.replace(ask.desk, writer=scheduler, judge=scheduler)
        return ask, engine, events

    cache = MemoryCache()
    ask, engine, _ = make_slow(cache, 25.0)
    with pytest.raises(Reject) as caught:
        virtual_time.run(three(ask))
    assert (caught.value.reason, caught.value.step, len(engine.asked)) == ("deadline", "w2", 2)
    assert ask.desk.writer.in_flight == 0
    ask, engine, _ = make_slow(cache, 25.0)
    assert virtual_time.run(three(ask)) == ["w0", "w1", "w2"] and len(engine.asked) == 1
    ask, engine, _ = make_slow(cache, 1e-9)
    assert virtual_time.run(three(ask)) == ["w0", "w1", "w2"] and not engine.asked


def test_the_judge_is_another_engine_with_its_own_cache_keys():
    judge = Scripted(["4"])
    judge.info = dataclasses.replace(judge.info, model="judge")
    ask, engine, _ = make(["text"], judge=judge, sampling={"extra": {"x": 1}})

    async def both():
        return await call(ask), await ask(
            "judge", [Message("user", "Write.")], accept=lambda r: r.text, max_tokens=5, judge=True
        )

    assert virtual_time.run(both()) == ("text", "4")
    assert judge.asked[0].sampling.extra == {} and engine.asked[0].sampling.extra == {"x": 1}
    assert len(ask.desk.cache.calls) == 2


def test_a_reply_on_its_way_into_the_cache_gets_there_though_the_row_is_cancelled():
    class SlowCache(MemoryCache):
        async def put(self, key, request, completion, model):
            await asyncio.sleep(5)
            return await super().put(key, request, completion, model)

    cache = SlowCache()
    ask, _, _ = make(["hello"], cache=cache)

    async def cancel():
        task = asyncio.ensure_future(call(ask))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), len(cache.calls)

    assert virtual_time.run(cancel()) == (True, 1)


def test_a_cache_that_fails_ends_the_run():
    class Full(MemoryCache):
        async def put(self, key, request, completion, model):
            raise OSError(28, "No space left on device")

    ask, _, _ = make(["hello"], cache=Full())
    with pytest.raises(Stopped, match="cache: .*No space left"):
        run(ask)
    assert ask.desk.writer.stopped is not None


def test_concurrent_steps_are_accounted_in_the_order_they_were_asked():
    class Uneven(Scripted):
        async def generate(self, request):
            await asyncio.sleep(9 - int(request.step))
            return await super().generate(request)

    ask, _, _ = make([])
    engine = Uneven(lambda request: request.step)
    scheduler = Scheduler(engine, engine.info)
    ask.desk = dataclasses.replace(ask.desk, writer=scheduler)

    async def all_at_once():
        await asyncio.gather(
            *(ask(str(n), [Message("user", "x")], accept=lambda r: r.text, max_tokens=9) for n in range(4))
        )
        return list(ask.account.accepted)

    assert virtual_time.run(all_at_once()) == ["0", "1", "2", "3"]


def test_guards_and_notes():
    class Strict(NoGuards):
        def check(self, text, *, language, prompt="", whole=False):
            raise Unacceptable("refusal", f"{text}/{language}/{prompt}/{whole}", metrics={"words": 1.0})

    ask, _, events = make(["hello"] * 3, guards=Strict())
    found = rejected(ask, accept=lambda r: ask.guard(r.text, language="en", prompt="p", whole=True))
    assert (found.reason, found.detail) == ("refusal", "hello/en/p/True")
    assert events[2].facts["words"] == 1.0
    ask.note("plan", "reconciled", words=3)
    assert (events[-1].kind, events[-1].reason, events[-1].facts) == ("note", "reconciled", {"words": 3})


def test_an_answer_that_fills_the_context_ends_as_length_and_that_is_remembered():
    """The prompt was not too long: it had room for the first segment."""

    def script(request):
        if request.segment:
            return RequestError("prompt_too_long", "no room", transient=False)
        return reply("w " * 10, "length")

    cache = MemoryCache()
    for asked in (4, 0):
        ask, engine, _ = make(script, cache=cache, generation={"segment_tokens": 16, "attempts": 2})
        assert rejected(ask).reason == "length"
        assert len(engine.asked) == asked


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("<think>\nHow long?\n</think>\n\nThe tea is green.", "The tea is green."),
        ("How long? Short.</think>The tea is green.", "The tea is green."),
        ("The tea is green.", "The tea is green."),
    ],
)
def test_thoughts_are_no_part_of_the_answer(answer, text):
    ask, _, _ = make([reply(answer, ids=(1, 2, 3))])
    replies = []
    assert run(ask, accept=lambda r: replies.append(r) or r.text) == text
    assert replies[0].token_ids == ((1, 2, 3) if answer == text else ())


def test_thoughts_without_an_end_are_no_answer():
    ask, _, _ = make(["<think> and so on"] * 3)
    assert rejected(ask).reason == "empty"


def test_a_refused_try_that_is_kept_shows_in_the_provenance():
    ask, _, _ = make([reply("a", "stop"), reply("b", "stop")], generation={"attempts": 2})
    reject = rejected(ask, accept=refuse())
    assert ask.account.accepted == {"write": ()}
    ask.keep("write", reject.tries[1].reply.attempt)
    assert ask.account.accepted == {"write": ("stop",)} and ask.account.engines == {"e 1"}
