"""The HTTP engine against vLLM's own server with the tiny model.

Started as a module: the script `vllm serve` asks for metadata of a package `vllm`, which the CPU build does not have.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ropewalk.synth.engine import Completion, EngineDead, Message, Repetition, Request, RequestError, Sampling
from ropewalk.synth.engines.openai import OpenAIEngine

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

KEY = "sk-of-the-test"
CONTEXT = 2048
MANY = 32
"""Requests at once, twice what the server works on: some are left however fast the machine is."""
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


def request(text: str = "hello", max_tokens: int = 40, **fields) -> Request:
    names = set(Sampling.__dataclass_fields__)
    sampling = Sampling(max_tokens, **{name: fields.pop(name) for name in names & fields.keys()})
    return Request("row", "step", (Message("user", text),), sampling, **fields)


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server whose `generation_config.json` asks for greedy decoding."""
    folder = tmp_path_factory.mktemp("served")
    model = shutil.copytree(tiny_model, folder / "tiny")
    (model / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "top_k": 1, "eos_token_id": 2}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY, "--dtype", "float32", "--enforce-eager",
        "--kv-cache-memory-bytes", str(1 << 26), "--block-size", "32", "--max-model-len", str(CONTEXT),
        "--max-num-seqs", "16", "--enable-prompt-tokens-details",
        "--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        environment = os.environ | ENVIRONMENT
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        until = time.monotonic() + 600
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"vllm serve did not start:\n{(folder / 'log').read_text()[-4000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def use(server: str, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Runs a coroutine function with a started engine."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def use(what: Callable, *, key: str = KEY) -> object:
        monkeypatch.setenv("OPENAI_API_KEY", key)

        async def main() -> object:
            engine = OpenAIEngine(server, "tiny")
            try:
                await engine.start()
                return await what(engine)
            finally:
                await engine.close()

        return asyncio.run(main())

    return use


@pytest.fixture
def ask(use: Callable) -> Callable[..., list[Completion]]:
    """Answers of requests asked at once."""
    return lambda *asked: use(lambda engine: asyncio.gather(*map(engine.generate, asked)))


def refused(use: Callable, asked: Request) -> RequestError:
    with pytest.raises(RequestError) as fault:
        use(lambda engine: engine.generate(asked))
    return fault.value


def test_who_the_server_is(use):
    async def info(engine):
        return engine._info

    told = use(info)
    assert told.engine.startswith("vllm 0.32") and told.model == "tiny"
    assert (told.context_length, told.token_ids, told.continues) == (CONTEXT, True, True)
    with pytest.raises(EngineDead, match="OPENAI_API_KEY") as fault:
        use(info, key="sk-another")
    assert "sk-another" not in str(fault.value)


def test_what_an_answer_tells(ask):
    (got,) = ask(request(seed=1, logprobs=True, extra={"ignore_eos": True}))
    assert got.text and got.finish_reason == "length" and got.engine.startswith("vllm 0.32")
    assert 36 <= len(got.token_ids) <= 40 == got.usage.generated
    assert len(got.logprobs) == len(got.token_ids) and all(value <= 0 for value in got.logprobs)
    assert got.usage.prompt > 5
    assert 0 < got.timing.first_token <= got.timing.total


def test_seeds_repeat_and_the_servers_own_defaults_do_not_decide(ask):
    answers = ask(*(request(seed=seed, temperature=1.0) for seed in (1, 2, 1, 2)))
    assert answers[0].token_ids == answers[2].token_ids and answers[1].token_ids == answers[3].token_ids
    assert answers[0].token_ids != answers[1].token_ids, "its generation_config asks for top_k 1"


def segments(engine: OpenAIEngine, asked: Request, length: int) -> "asyncio.Future[list[Completion]]":
    async def go_on() -> list[Completion]:
        done: list[Completion] = []
        left = asked.sampling.max_tokens
        while left and (not done or done[-1].finish_reason == "length"):
            part = replace(
                asked, segment=len(done), sampling=replace(asked.sampling, max_tokens=min(length, left)),
                generated_text="".join(c.text for c in done), generated_ids=sum((c.token_ids for c in done), ()),
            )  # fmt: skip
            done.append(await engine.generate(part))
            assert done[-1].token_ids
            left -= len(done[-1].token_ids)
        return done

    return go_on()


@pytest.mark.parametrize("length", [7, 16])
def test_a_greedy_answer_in_segments_is_the_whole_one(use, length):
    words = list(range(300, 1000))  # no single bytes, which make no characters
    varied = {"temperature": 0.0, "repetition_penalty": 50.0, "extra": {"allowed_token_ids": words}}
    asked = request("tell me a story", max_tokens=60, **varied)

    async def both(engine):
        return await engine.generate(asked), await segments(engine, asked, length)

    whole, parts = use(both)
    assert len(parts) >= 60 // length
    assert len(set(whole.token_ids)) > 10, "else the test shows little"
    assert sum((part.token_ids for part in parts), ())[: len(whole.token_ids)] == whole.token_ids
    assert "".join(part.text for part in parts).startswith(whole.text)


def test_an_answer_cut_inside_a_character_ends_before_it(use):
    character = "中"  # three tokens of a byte each, as the tokenizer has seen none
    asked = request(max_tokens=8, temperature=0.0, extra={"structured_outputs": {"regex": f"({character}){{40}}"}})

    async def go_on(engine):
        cut = await engine.generate(asked)
        rest = request(
            max_tokens=6, temperature=0.0, generated_text=cut.text, generated_ids=cut.token_ids,
            extra={"structured_outputs": {"regex": f"({character}){{40}}"}},
        )  # fmt: skip
        return cut, await engine.generate(rest)

    cut, rest = use(go_on)
    assert cut.text == 2 * character and len(cut.token_ids) == 6 and cut.usage.generated == 8
    assert rest.text == 2 * character and len(rest.token_ids) == 6


def test_text_is_continued_as_the_assistants_last_message(use):
    begun = request(temperature=0.0, max_tokens=5)

    async def rendered(engine):
        plain = await engine.generate(begun)
        more = await engine.generate(replace(begun, generated_text=plain.text))
        return plain, more

    plain, more = use(rendered)
    assert more.text
    assert more.usage.prompt > plain.usage.prompt


def test_prompts_of_token_ids(ask):
    by_ids = replace(request(temperature=0.0, max_tokens=9), messages=(), prompt_ids=(5, 6, 7, 8))
    whole, again = ask(by_ids, by_ids)
    (rest,) = ask(replace(by_ids, generated_ids=whole.token_ids[:4], sampling=replace(by_ids.sampling, max_tokens=5)))
    assert whole == replace(again, timing=whole.timing, usage=whole.usage)
    assert whole.usage.prompt == 4 and rest.usage.prompt == 8
    assert whole.token_ids[:4] + rest.token_ids == whole.token_ids


def test_json_that_fits_a_schema(ask):
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
        "required": ["yes", "kind"],
        "additionalProperties": False,
    }
    (got,) = ask(request(json_schema=json.dumps(schema), temperature=0.0, max_tokens=200))
    told = json.loads(got.text)
    assert got.finish_reason == "stop" and isinstance(told["yes"], bool) and told["kind"] in ("a", "b")


def test_stop_strings_and_loops(ask):
    digits = {"structured_outputs": {"regex": "12345(67){50}"}, "ignore_eos": True}
    stopped, looped = ask(
        request(stop=("45",), temperature=0.0, extra=digits),
        request(repetition=Repetition(8, 1, 6), temperature=0.0, max_tokens=90, extra=digits),
    )
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == ("123", "stop", "45")
    assert looped.finish_reason == "repetition" and looped.usage.generated < 90
    assert looped.text.startswith("1234567")


def test_what_does_not_fit(use, ask):
    too_long = refused(use, request("hello " * CONTEXT))
    assert (too_long.reason, too_long.transient) == ("prompt_too_long", False)
    wrong = refused(use, request(extra={"temperature": 9}))
    assert (wrong.reason, wrong.transient) == ("bad_request", False)
    (clipped,) = ask(request(max_tokens=10 * CONTEXT, temperature=0.0, extra={"stop_token_ids": list(range(3, 500))}))
    assert clipped.finish_reason == "stop", "more tokens than the context holds are asked for, not refused"


def test_cancelling_frees_the_place(use, server):
    def running() -> float:
        told = httpx.get(f"{server.removesuffix('/v1')}/metrics", trust_env=False).text
        lines = [line for line in told.splitlines() if line.startswith("vllm:num_requests_running")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def generated() -> float:
        told = httpx.get(f"{server.removesuffix('/v1')}/metrics", trust_env=False).text
        lines = [line for line in told.splitlines() if line.startswith("vllm:generation_tokens_total")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    async def cancel(engine):
        asked = request(max_tokens=CONTEXT - 64, extra={"ignore_eos": True}, seed=1)
        tasks = [asyncio.create_task(engine.generate(asked)) for _ in range(MANY)]
        while not await asyncio.to_thread(running):
            assert not all(task.done() for task in tasks)
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        ended = dict(zip(tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True))
        assert left and all(isinstance(ended[task], asyncio.CancelledError) for task in left)
        while await asyncio.to_thread(running):
            await asyncio.sleep(0.05)

    before = generated()
    use(cancel)
    assert generated() - before < MANY * (CONTEXT - 64)
