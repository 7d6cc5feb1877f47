"""The HTTP engine against a real server that misbehaves, and against single answers over a fake transport."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import Completion, EngineDead, Message, Repetition, Request, RequestError, Sampling, Usage
from ropewalk.synth.engines import adaptive, fault_server, load
from ropewalk.synth.engines.fault_server import Fault, FaultPlan, FaultServer, text_of
from ropewalk.synth.engines.openai import OpenAIEngine, OpenAIOptions
from ropewalk.synth.engines.openai_answer import Events
from ropewalk.synth.engines.openai_faults import retry_after

KEY = "sk-very-secret-0123456789"


def request(text: str = "hello", max_tokens: int = 100, **fields) -> Request:
    names = set(Sampling.__dataclass_fields__)
    sampling = Sampling(max_tokens, seed=7, **{name: fields.pop(name) for name in names & fields.keys()})
    return Request("row", "step", (Message("user", text),), sampling, **fields)


def expected(asked: Request, words: tuple[int, int] = (8, 40)) -> list[int]:
    """Tokens the fault server answers a request with, in full."""
    turns = [{"role": turn.role, "content": turn.content} for turn in asked.messages]
    return fault_server.answer(fault_server.conversation_of(turns), asked.sampling.seed, words)


def run(
    where: FaultServer | str, use: Callable, *, max_sequences: int | None = None, model: str = "words", **options
) -> object:
    """Starts an engine on a server and hands it to a coroutine function."""
    url = where if isinstance(where, str) else where.url

    async def main() -> object:
        engine = OpenAIEngine(url, model, max_sequences=max_sequences, options=OpenAIOptions(**options))
        try:
            await engine.start()
            return await use(engine)
        finally:
            await engine.close()
            await engine.close()

    return asyncio.run(main())


def ask(where: FaultServer | str, asked: Request, **options) -> Completion:
    return run(where, lambda engine: engine.generate(asked), **options)


def test_an_answer_with_all_that_is_told_about_it():
    asked = request(logprobs=True)
    tokens = expected(asked)
    with FaultServer().running() as server:
        got = ask(server, asked)
    assert got.text == text_of(tokens)
    assert got.token_ids == tuple(tokens)
    assert got.logprobs == pytest.approx([-token / 1000 for token in tokens])
    assert (got.finish_reason, got.stop_reason, got.engine) == ("stop", None, "vllm 0.32.0")
    assert got.usage == Usage(prompt=len("<user>hello\n"), generated=len(tokens))
    assert 0 <= got.timing.queued <= got.timing.first_token <= got.timing.total


def test_a_server_that_does_not_stream_is_read_just_as_well():
    asked = request(logprobs=True)
    with FaultServer().running() as server:
        streamed, whole = ask(server, asked), ask(server, asked, fields={"stream": None, "stream_options": None})
        assert "stream" not in server.bodies[1]
    assert replace(whole, timing=streamed.timing) == streamed


def test_what_the_engine_says_about_itself():
    async def info(engine: OpenAIEngine):
        return engine._info

    with FaultServer().running() as server:
        told = run(server, info, max_sequences=5)
    assert (told.engine, told.model, told.max_sequences) == ("vllm 0.32.0", "words", 5)
    assert (told.context_length, told.token_ids, told.continues) == (4096, True, True)
    with FaultServer(FaultPlan(kind="strict")).running() as server:
        told = run(server, info)
        assert told.engine == f"openai {server.url.split('/')[2]}"
    assert (told.max_sequences, told.context_length, told.token_ids, told.continues) == (64, None, False, False)


def test_a_hosted_server_gets_no_field_it_does_not_know():
    asked = request(repetition=Repetition(), max_tokens=3)
    with FaultServer(FaultPlan(kind="strict")).running() as server:
        got = ask(server, asked)
        (body,) = server.bodies
    assert got.finish_reason == "length" and got.token_ids == ()
    assert got.text == text_of(expected(asked)[:3])
    assert body == {
        "model": "words", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "temperature": 1.0,
        "seed": 7, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_vllm_gets_every_value_so_that_its_generation_config_does_not_decide():
    asked = request(
        max_tokens=9000, min_tokens=2, stop=("END",), top_k=5, repetition=Repetition(64, 4, 3), logprobs=True,
        json_schema='{"type":"object"}', extra={"min_p": 0.25, "priority": 3},
    )  # fmt: skip
    with FaultServer().running() as server:
        ask(server, asked)
        (body,) = server.bodies
    assert body == {
        "model": "words", "messages": [{"role": "user", "content": "hello"}], "stream": True,
        "stream_options": {"include_usage": True}, "max_tokens": 4096, "temperature": 1.0, "top_p": 1.0, "top_k": 5,
        "min_p": 0.25, "repetition_penalty": 1.0, "seed": 7, "stop": ["END"], "min_tokens": 2, "logprobs": True,
        "repetition_detection": {"max_pattern_size": 64, "min_pattern_size": 4, "min_count": 3}, "priority": 3,
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}
        },
        "return_token_ids": True, "stream_interval": 16,
    }  # fmt: skip


def test_fields_can_be_renamed_and_left_out():
    with FaultServer().running() as server:
        ask(server, request(), server="openai", fields={"seed": None, "max_tokens": "max_completion_tokens"})
        (body,) = server.bodies
    assert "seed" not in body and "max_tokens" not in body
    assert body["max_completion_tokens"] == 100


@pytest.mark.parametrize("by", ["ids", "text", "prompt_ids", "prefix"])
def test_a_cut_answer_is_continued_to_the_whole(by):
    asked = request("a long one")
    whole = expected(asked)
    if by == "prompt_ids":
        prompt = tuple(fault_server.PROMPT_TOKEN + byte for byte in b"<user>a long one\n")
        asked = replace(asked, messages=(), prompt_ids=prompt)

    async def segments(engine: OpenAIEngine) -> list[Completion]:
        done: list[Completion] = []
        while not done or done[-1].finish_reason == "length":
            text, ids = "".join(c.text for c in done), sum((c.token_ids for c in done), ())
            part = replace(asked, sampling=replace(asked.sampling, max_tokens=5), segment=len(done))
            done.append(await engine.generate(replace(part, generated_text=text, generated_ids=ids)))
        return done

    plan = FaultPlan(kind="vllm" if by in ("ids", "prompt_ids") else "strict", words=(8, 40))
    options = {"text": {"continuation": "assistant"}, "prefix": {"continuation": "prefix"}}.get(by, {})
    with FaultServer(plan).running() as server:
        done = run(server, segments, **options)
        bodies = server.bodies
    assert len(done) == -(-len(whole) // 5) > 2
    assert "".join(c.text for c in done) == text_of(whole)
    if by in ("ids", "prompt_ids"):
        assert sum((c.token_ids for c in done), ()) == tuple(whole)
        assert bodies[1]["prompt"][-5:] == whole[:5]
    else:
        assert bodies[1]["messages"][-1]["content"] == text_of(whole[:5])
        assert bodies[1]["messages"][-1].get("prefix", False) is (by == "prefix")


def test_vllm_continues_text_with_its_own_flags():
    asked = request(max_tokens=5, generated_text=text_of(expected(request())[:3]))
    with FaultServer().running() as server:
        got = ask(server, asked)
        (body,) = server.bodies
    assert got.token_ids == tuple(expected(request())[3:8])
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (request(generated_text="begun"), "continuation"),
        (request(extra={"stream": False, "n": 2}), "sampling.extra sets n, stream"),
        (request(json_schema="{}", generated_text="{"), "JSON schema cannot be continued"),
        (replace(request(generated_text="x"), prompt_ids=(1, 2)), "generated_ids"),
    ],
)
def test_what_cannot_be_said_is_refused_without_asking(asked, told):
    with FaultServer(FaultPlan(kind="strict")).running() as server:
        with pytest.raises(RequestError, match=told) as fault:
            ask(server, asked)
        assert server.bodies == []
    assert (fault.value.reason, fault.value.transient) == ("bad_request", False)


@pytest.mark.parametrize(
    ("name", "reason", "transient"),
    [
        ("500", "server", True),
        ("error_event", "server", True),
        ("reset", "connection", True),
        ("cut_stream", "connection", True),
        ("truncated_json", "bad_response", True),
        ("empty_choices", "connection", True),
        ("bad_types", "bad_response", True),
        ("wrong_type", "bad_response", True),
        ("wrong_model", "bad_request", False),
        ("hang", "timeout", True),
    ],
)
def test_each_fault_has_its_name_and_the_next_request_goes_well(name, reason, transient):
    asked = request()

    async def twice(engine: OpenAIEngine) -> Completion:
        with pytest.raises(RequestError) as fault:
            await engine.generate(asked)
        assert (fault.value.reason, fault.value.transient) == (reason, transient), fault.value
        assert len(str(fault.value)) < 600
        return await engine.generate(asked)

    with FaultServer(FaultPlan(at={1: Fault(fault=name)})).running() as server:
        seconds = 0.2 if name == "hang" else 600.0
        got = run(server, twice, first_token_seconds=seconds, tokens_per_second=1e9 if name == "hang" else 2.0)
        assert server.counts[name] == 1
    assert got.text == text_of(expected(asked))


def test_slow_answers_are_waited_for():
    with FaultServer(FaultPlan(at={1: Fault(fault="slow")})).running() as server:
        got = ask(server, request(), first_token_seconds=60, idle_seconds=60)
    assert got.text == text_of(expected(request()))


@pytest.mark.parametrize(("name", "header"), [("429", "0"), ("503", "0.01"), ("429", None)])
def test_overload_is_waited_out_inside(name, header):
    faults = {1: Fault(fault=name, retry_after=header), 2: Fault(fault=name, retry_after=header)}

    async def one(engine: OpenAIEngine) -> tuple[Completion, dict[str, float]]:
        return await engine.generate(request()), engine.stats()

    with FaultServer(FaultPlan(at=faults if header else {1: Fault(fault=name)})).running() as server:
        got, stats = run(server, one)
    assert got.text == text_of(expected(request()))
    assert stats["retried-requests"] == (2 if header else 1)
    assert (stats["answered-requests"], stats["failed-requests"], stats["in_flight-requests"]) == (1, 0, 0)


@pytest.mark.parametrize(("status", "reason"), [("429", "rate_limit"), ("503", "server")])
def test_overload_that_lasts_too_long_is_the_callers(status, reason):
    with FaultServer(FaultPlan(at={1: Fault(fault=status, retry_after="7200")})).running() as server:
        with pytest.raises(RequestError) as fault:
            ask(server, request())
    assert (fault.value.reason, fault.value.transient, fault.value.retry_after) == (reason, True, 7200)


def test_300_requests_through_a_bad_network_are_answered_once_and_right(monkeypatch):
    names = ("429", "500", "503", "reset", "cut_stream", "truncated_json", "bad_types", "wrong_type", "error_event")
    mix = [Fault(fault=name, retry_after="0") for name in names]
    plan = FaultPlan(share=0.3, seed=3, mix=mix, words=(3, 6))
    asked = [request(f"question {number}") for number in range(300)]
    received: list[int] = []

    async def one(engine: OpenAIEngine, number: int) -> Completion:
        for _ in range(30):
            try:
                done = await engine.generate(asked[number])
            except RequestError as fault:
                assert fault.transient, fault
                continue
            received.append(number)
            return done
        raise AssertionError("never answered")

    async def everything(engine: OpenAIEngine) -> list[Completion]:
        monkeypatch.setattr(adaptive, "BACKOFF_SECONDS", 0.0)
        return await asyncio.gather(*(one(engine, number) for number in range(300)))

    with FaultServer(plan).running() as server:
        done = run(server, everything, max_sequences=32)
        counts, answered = server.counts, server.answered
    assert [completion.text for completion in done] == [text_of(expected(one, plan.words)) for one in asked]
    assert sorted(received) == list(range(300))
    assert len(answered) == 300 and set(answered.values()) == {1}
    assert all(counts[name] > 0 for name in names)


def test_a_request_beyond_the_servers_capacity_waits_until_there_is_room():
    async def two(engine: OpenAIEngine) -> Completion:
        held = asyncio.create_task(engine.generate(request("held")))
        while not server.working:
            await asyncio.sleep(0.01)
        waits = asyncio.create_task(engine.generate(request("waits")))
        while not server.counts["busy"]:
            await asyncio.sleep(0.01)
        held.cancel()
        return await waits

    with FaultServer(FaultPlan(at={1: Fault(fault="hang")}, capacity=1, retry_after="0.05")).running() as server:
        got = run(server, two)
        assert server.peak == 1
    assert got.text == text_of(expected(request("waits")))


def test_cancelling_closes_the_connection():
    async def cancel(engine: OpenAIEngine) -> None:
        task = asyncio.create_task(engine.generate(request()))
        while not server.working:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while server.working:
            await asyncio.sleep(0.01)
        assert engine.stats()["in_flight-requests"] == 0

    with FaultServer(FaultPlan(word_seconds=0.05, words=(400, 400))).running() as server:
        run(server, cancel)
    assert server.counts["cancelled"] == 1
    assert server.answered.total() == 0


def test_the_key_is_sent_and_never_shown(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)

    def engine(server: FaultServer) -> OpenAIEngine:
        return OpenAIEngine(server.url, "words", api_key_env="MY_KEY")

    async def start(engine: OpenAIEngine) -> None:
        try:
            await engine.start()
        finally:
            shown.append(f"{engine!r} {engine._http!r} {vars(engine._http)}")
            await engine.close()

    shown: list[str] = []
    with FaultServer(FaultPlan(key=KEY)).running() as server:
        good = engine(server)
        asyncio.run(start(good))
    with FaultServer(FaultPlan(key="another")).running() as server:
        with pytest.raises(EngineDead, match="MY_KEY") as fault:
            asyncio.run(start(engine(server)))
        assert "401" in str(fault.value)
    monkeypatch.setenv("MY_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(EngineDead, match="MY_KEY") as odd:
        asyncio.run(start(good))
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(FaultPlan(key=KEY)).running() as server:
        late = engine(server)

        async def revoked() -> None:
            await late.start()
            server.plan = FaultPlan(key="another")
            try:
                await late.generate(request())
            finally:
                await late.close()

        with pytest.raises(EngineDead, match="MY_KEY") as gone:
            asyncio.run(revoked())
    for text in (caplog.text, str(fault.value), str(odd.value), str(gone.value), *shown):
        assert KEY not in text


def test_a_password_in_the_url_is_refused(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(EngineDead, match=r"write http://localhost:1/v1, and put the key into \$OPENAI_API") as fault:
        asyncio.run(OpenAIEngine("http://me:word@localhost:1/v1", "words").start())
    assert "word@" not in caplog.text + str(fault.value)


def test_a_server_that_is_not_there():
    with FaultServer().running() as server:
        url = server.url
    with pytest.raises(EngineDead, match=r"Start the server, or set engine.url") as fault:
        asyncio.run(OpenAIEngine(url, "words").start())
    assert url in str(fault.value)


def test_a_model_that_is_not_served():
    with FaultServer(FaultPlan(model="org/real-model")).running() as server:
        with pytest.raises(EngineDead, match="does not serve 'org/real' but org/real-model"):
            asyncio.run(OpenAIEngine(server.url, "org/real").start())


def test_generating_before_the_start_says_so():
    with pytest.raises(EngineDead, match="call `start` first"):
        asyncio.run(OpenAIEngine("http://localhost:1/v1", "words").generate(request()))


def test_from_config():
    config = EngineConfig(name="openai", model="words", url="http://localhost:1/v1/", max_sequences=3)
    engine = load.load(config)
    assert isinstance(engine, OpenAIEngine) and engine.stats()["limit-requests"] == 3
    with pytest.raises(RecipeError, match="idle_seconds"):
        load.load(config.model_copy(update={"options": {"idle_second": 3}}))


# Single answers, over a fake transport


class _Slow(httpx.AsyncByteStream):
    def __init__(self, *pieces: bytes | float) -> None:
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                yield piece


def answered(response: Callable[[], httpx.Response], asked: Request | None = None, **options) -> Completion:
    """What the engine makes of one response, in virtual time."""

    async def main() -> Completion:
        def handle(http_request: httpx.Request) -> httpx.Response:
            if http_request.url.path == "/v1/models":
                return httpx.Response(404)
            return response()

        engine = OpenAIEngine(
            "http://host/v1", "words", transport=httpx.MockTransport(handle), options=OpenAIOptions(**options)
        )
        await engine.start()
        try:
            return await engine.generate(asked or request())
        finally:
            await engine.close()

    return virtual_time.run(main())


def events(*data: object, end: str = "data: [DONE]\n\n") -> Callable[[], httpx.Response]:
    text = "".join(f"data: {json.dumps(one)}\n\n" for one in data) + end
    return lambda: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text.encode())


def piece(text: str | None = None, finish: str | None = None, **delta) -> dict:
    return {"model": "words", "choices": [{"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}]}


def test_reasoning_is_no_part_of_the_text():
    got = answered(events(piece(reasoning_content="hm"), piece(reasoning="so"), piece("42", "stop")))
    assert (got.text, got.finish_reason) == ("42", "stop")
    cut = answered(events(piece(reasoning_content="hm", role="assistant"), piece(None, "length")))
    assert (cut.text, cut.token_ids, cut.finish_reason) == ("", (), "length")
    parts = answered(
        events(piece([{"type": "thinking", "thinking": []}, {"type": "text", "text": "7"}]), piece("", "stop"))
    )
    assert parts.text == "7"


@pytest.mark.parametrize(
    ("word", "finish", "stop_reason"),
    [
        ("stop", "stop", None),
        ("length", "length", None),
        ("model_length", "length", None),
        ("repetition", "repetition", None),
        ("content_filter", "content_filter", None),
        ("tool_calls", "error", "tool_calls"),
        ("brand_new", "error", "brand_new"),
    ],
)
def test_finish_reasons(word, finish, stop_reason):
    got = answered(events(piece("text"), piece("", word)))
    assert (got.text, got.finish_reason, got.stop_reason) == ("text", finish, stop_reason)


@pytest.mark.parametrize("word", ["abort", "error"])
def test_an_answer_the_server_gave_up_is_no_answer(word):
    with pytest.raises(RequestError, match=word) as fault:
        answered(events(piece("text"), piece("", word)))
    assert fault.value.transient


def test_stop_reason_refusal_and_stand_in_model():
    stopped = piece("text", "stop")
    stopped["choices"][0]["stop_reason"] = "END"
    assert answered(events(stopped)).stop_reason == "END"
    refused = answered(events(piece(refusal="I cannot"), piece(None, "stop")))
    assert (refused.text, refused.finish_reason, refused.stop_reason) == ("I cannot", "content_filter", "refusal")
    other = answered(events(piece("text", "stop") | {"model": "cheaper"}))
    assert other.engine == "openai host (cheaper)"


def test_usage_is_read_where_told_and_estimated_where_not():
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    assert answered(events(piece("abc", "stop"), {"choices": [], "usage": usage})).usage == Usage(9, 4, 3)
    deepseek = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 5}
    assert answered(events(piece("abc", "stop"), {"choices": [], "usage": deepseek})).usage == Usage(9, 5, 3)
    assert answered(events(piece("eight by", "stop"))).usage.generated == 2


def test_no_room_for_an_answer_means_the_prompt_is_too_long():
    usage = {"prompt_tokens": 9, "completion_tokens": 0}
    with pytest.raises(RequestError) as fault:
        answered(events(piece("", "length"), {"choices": [], "usage": usage}))
    assert (fault.value.reason, fault.value.transient) == ("prompt_too_long", False)


@pytest.mark.parametrize("works", [True, False])
def test_tokens_of_a_broken_last_character_are_dropped(works):
    """Ids are bytes here; `/detokenize` decodes them. Without it the answer is to be continued by its text."""
    tokens = [*"ab中".encode(), *"中".encode()[:2]]
    chunk = piece("ab中", "length")
    chunk["choices"][0] |= {"token_ids": tokens, "logprobs": {"content": [{"logprob": -1.0}] * len(tokens)}}
    answer = events(chunk, {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(tokens)}})

    def handle(http_request: httpx.Request) -> httpx.Response:
        if http_request.url.path == "/detokenize" and works:
            asked = json.loads(http_request.content)["tokens"]
            return httpx.Response(200, json={"prompt": bytes(asked).decode(errors="replace")})
        return answer() if http_request.url.path == "/v1/chat/completions" else httpx.Response(404)

    async def main() -> Completion:
        options = OpenAIOptions(server="vllm")
        engine = OpenAIEngine("http://host/v1", "words", transport=httpx.MockTransport(handle), options=options)
        await engine.start()
        return await engine.generate(request(logprobs=True))

    got = asyncio.run(main())
    assert got.token_ids == (tuple("ab中".encode()) if works else ())
    assert len(got.logprobs or ()) == len(got.token_ids)
    assert (got.text, got.finish_reason, got.usage.generated) == ("ab中", "length", 7)


@pytest.mark.parametrize("end", ["", "data: [DONE]\n\n", ": ping\n\n"])
def test_a_stream_that_ends_before_it_says_why_is_a_lost_connection(end):
    with pytest.raises(RequestError) as fault:
        answered(events(piece("half a sen"), end=end))
    assert (fault.value.reason, fault.value.transient) == ("connection", True)


def test_a_connection_lost_after_the_end_was_told_costs_nothing():
    async def broken():
        yield f"data: {json.dumps(piece('all of it', 'stop'))}\n\n".encode()
        raise httpx.ReadError("gone")

    headers = {"content-type": "text/event-stream"}
    assert answered(lambda: httpx.Response(200, headers=headers, content=broken())).text == "all of it"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, {"error": {"message": "This model's maximum context length is 8 tokens."}}, "prompt_too_long"),
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, "prompt_too_long"),
        (400, {"error": {"message": "request exceeds the available context size"}}, "prompt_too_long"),
        (413, {"message": "too big"}, "prompt_too_long"),
        (400, {"error": {"message": "no", "code": "content_policy_violation"}}, "content_filter"),
        (403, {"error": {"message": "your input was flagged"}}, "content_filter"),
        (400, {"error": "bad field"}, "bad_request"),
        (422, {"detail": [{"msg": "Extra inputs are not permitted"}]}, "bad_request"),
        (404, {"error": {"message": "no such model"}}, "bad_request"),
        (308, {}, "bad_request"),
        (501, {}, "bad_request"),
    ],
)
def test_refusals_that_last(status, body, reason):
    with pytest.raises(RequestError) as fault:
        answered(lambda: httpx.Response(status, json=body))
    assert (fault.value.reason, fault.value.transient) == (reason, False)
    assert str(status) in fault.value.detail


@pytest.mark.parametrize(("status", "reason"), [(408, "timeout"), (504, "timeout"), (502, "server"), (409, "server")])
def test_refusals_that_pass(status, reason):
    with pytest.raises(RequestError) as fault:
        answered(lambda: httpx.Response(status, text="<html>\n<h1>Bad  Gateway</h1>" + "x" * 10_000))
    assert (fault.value.reason, fault.value.transient) == (reason, True)
    assert "<html> <h1>Bad Gateway</h1>" in str(fault.value) and len(str(fault.value)) < 500


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, "Unauthorized"), (403, "no"), (402, "pay"), (429, {"error": {"code": "insufficient_quota"}})],
)
def test_refusals_that_end_the_run(status, body):
    with pytest.raises(EngineDead, match="OPENAI_API_KEY"):
        answered(lambda: httpx.Response(status, json=body))


@pytest.mark.parametrize(
    "body", [b"[]", b"7", b"null", b"{}", b'{"choices": [7]}', b'{"choices": {}}', b'{"choi', b"\xff\xfe", b"[" * 9999]
)
def test_wrong_json_is_a_bad_response_or_a_lost_connection(body):
    for kind in ("application/json", "text/event-stream"):
        content = body if kind == "application/json" else b"data: " + body + b"\n\n"
        with pytest.raises(RequestError) as fault:
            answered(lambda kind=kind, content=content: httpx.Response(
                200, headers={"content-type": kind}, content=content))  # fmt: skip
        assert fault.value.reason == ("connection" if body == b'{"choices": {}}' else "bad_response")
        assert fault.value.transient


def test_an_endless_answer_is_cut_off():
    async def endless():
        while True:
            yield b": keep going" * 100_000

    with pytest.raises(RequestError, match="sent more than") as fault:
        answered(lambda: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=endless()))
    assert fault.value.reason == "bad_response"


def test_time_limits_scale_with_the_tokens_asked_for():
    data = f"data: {json.dumps(piece('x'))}\n\n".encode()
    end = f"data: {json.dumps(piece('y', 'stop'))}\n\n".encode()
    headers = {"content-type": "text/event-stream"}

    def slow(*pieces: bytes | float) -> Callable[[], httpx.Response]:
        return lambda: httpx.Response(200, headers=headers, stream=_Slow(*pieces))

    options = {"first_token_seconds": 50.0, "idle_seconds": 30.0, "tokens_per_second": 2.0}
    steady = [part for _ in range(8) for part in (data, 15.0)]
    assert answered(slow(*steady, end), request(max_tokens=10_000), **options).text == "x" * 8 + "y"
    assert answered(slow(49.0, data, 29.0, end), request(max_tokens=100), **options).text == "xy"
    for pieces, tokens in (
        ((51.0, data, end), 10_000),  # no first token
        ((data, 31.0, end), 10_000),  # silence
        ((*steady, end), 10),  # 10 tokens may take 50 + 10 / 2 s
    ):
        with pytest.raises(RequestError) as fault:
            answered(slow(*pieces), request(max_tokens=tokens), **options)
        assert fault.value.reason == "timeout" and fault.value.transient


def test_events_are_found_however_the_stream_is_cut():
    stream = b': hi\r\n\r\ndata: {"a":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\n\n\n'
    stream += b"data: \xe4\xb8\xad\xe2\x80\xa8\x85\n\nda"
    whole = list(Events().feed(stream))
    assert whole == [b'{"a":1}', b"two\nlines", b"\xe4\xb8\xad\xe2\x80\xa8\x85"]
    for size in range(1, len(stream)):
        cut = Events()
        found = [data for start in range(0, len(stream), size) for data in cut.feed(stream[start : start + size])]
        assert found == whole


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 37.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:40:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers, now=784111740.0) == seconds  # 08:49:00 of the date above


def test_the_fault_server_runs_as_a_process(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"model": "m", "at": {"1": {"fault": "500"}}}))
    command = [sys.executable, "-P", "-m", "ropewalk.synth.engines.fault_server", "--port", "0", "--faults", str(plan)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        with pytest.raises(RequestError, match="planned 500"):
            ask(url, request(), model="m")
        assert ask(url, request(), model="m").text == text_of(expected(request()))
        process.terminate()
        assert process.wait(30) == 0
