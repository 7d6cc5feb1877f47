"""A small OpenAI-compatible server that answers from its input alone, and misbehaves as planned: for tests.

What it writes is a function of conversation and seed, so an answer can be checked, and one that is cut and continued
can be compared with the whole. Run it as a process, which prints its base URL, or as a thread:

    python -P -m ropewalk.synth.engines.fault_server --port 0 --faults plan.json
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from ropewalk.schemas import settings
from ropewalk.schemas.settings import Settings

FaultName = Literal[
    "429", "500", "503", "bad_types", "cut_stream", "empty_choices", "error_event", "hang", "reset", "slow",
    "truncated_json", "wrong_model", "wrong_type",
]  # fmt: skip
PROMPT_TOKEN = 1000
"""Ids from here on are bytes of a prompt, those below are words of answers."""
KNOWN = {
    "frequency_penalty", "logprobs", "max_tokens", "messages", "model", "prompt", "presence_penalty",
    "response_format", "seed", "stop", "stream", "stream_options", "temperature", "top_p",
}  # fmt: skip
"""Fields that the strict kind of server takes."""


class Fault(Settings):
    """One fault."""

    fault: FaultName
    retry_after: str | None = None
    """Header of a 429 or 503."""


class FaultPlan(Settings):
    """What the server is, and what it does wrong."""

    model: str = "words"
    """Model it serves."""
    kind: Literal["vllm", "strict"] = "vllm"
    """`vllm` tells token ids and continues; `strict` has only what OpenAI documents, and refuses other fields."""
    key: str | None = None
    """Key it wants; it quotes any other in its refusal."""
    at: dict[int, Fault] = Field(default_factory=dict)
    """Number of a generation request, from 1, to its fault."""
    share: float = Field(default=0.0, ge=0, le=1)
    """Share of the other requests that go wrong."""
    mix: tuple[Fault, ...] = ()
    """Faults they are drawn from."""
    seed: int = 0
    """Seed of the draw."""
    capacity: int | None = Field(default=None, ge=1)
    """Requests it works on at once; more get 429."""
    retry_after: str | None = None
    """Header of those."""
    words: tuple[int, int] = (8, 40)
    """Length of its answers, from and to."""
    word_seconds: float = Field(default=0.0, ge=0)
    """Time to write a word."""


def answer(conversation: str, seed: int | None, words: tuple[int, int] = (8, 40)) -> list[int]:
    """Tokens of the whole answer: word ids below `PROMPT_TOKEN`."""
    digest = hashlib.blake2b(f"{seed}\x1f{conversation}".encode(), digest_size=8).digest()
    draw = random.Random(int.from_bytes(digest, "big"))
    return [draw.randrange(PROMPT_TOKEN) for _ in range(draw.randint(*words))]


def text_of(tokens: Sequence[int]) -> str:
    """Text of answer tokens; each is a word with a space after it."""
    return "".join(f"w{token} " for token in tokens)


def conversation_of(messages: Sequence[dict[str, Any]]) -> str:
    """The text that an answer depends on."""
    return "".join(f"<{turn['role']}>{turn['content']}\n" for turn in messages)


class _Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[str, ...] = ()


class _Cut(Exception):
    """The connection ends here."""


class FaultServer:
    """The server; `running` serves from a thread.

    Attributes:
        plan: May be changed while it runs, by `model_copy`.
        counts: Requests by outcome: `generation` asked, `answered` in full, `busy` (429 by capacity), `cancelled` by
            the client, and each fault by its name.
        answered: Full answers by (conversation, seed): how often each was delivered.
        bodies: Bodies of the generation requests, in order.
        peak: Most generation requests worked on at once.
        url: Base URL, once it runs.
    """

    def __init__(self, plan: FaultPlan | None = None) -> None:
        self.plan = plan or FaultPlan()
        self.counts: Counter[str] = Counter()
        self.answered: Counter[tuple[str, int | None]] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.working = self.peak = 0
        self.url = ""

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultServer"]:
        """Serves on a free port until the block ends."""
        ready, loop = threading.Event(), asyncio.new_event_loop()

        async def main() -> None:
            async with self.serving(0):
                ready.set()
                await stop.wait()

        stop = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
        thread.start()
        if not ready.wait(30):
            raise TimeoutError("the fault server did not start")
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            loop.close()

    @contextlib.asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator["FaultServer"]:
        """Serves in this event loop; port 0 is any free one."""
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._connection(reader, writer)
            finally:
                tasks.discard(task)

        server = await asyncio.start_server(connected, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                await self._request(first.split()[1], headers, body, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, _Cut):
            pass
        finally:
            writer.close()

    async def _request(
        self,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        given = headers.get("authorization", "")
        if self.plan.key is not None and given != f"Bearer {self.plan.key}":
            _send(writer, _error(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}"))
        elif path in ("/v1/chat/completions", "/v1/completions"):
            data = json.loads(body)
            self.counts["generation"] += 1
            self.bodies.append(data)
            capacity = self.plan.capacity
            if capacity is not None and self.working >= capacity:
                self.counts["busy"] += 1
                _send(writer, _error(429, "too many requests", self.plan.retry_after))
                return
            self.working += 1
            self.peak = max(self.peak, self.working)
            try:
                await self._generate(self.counts["generation"], data, reader, writer)
            finally:
                self.working -= 1
        else:
            _send(writer, self._page(path, json.loads(body or b"{}")))

    def _page(self, path: str, data: dict[str, Any]) -> _Reply:
        vllm = self.plan.kind == "vllm"
        if path == "/v1/models":
            card = {"id": self.plan.model, "object": "model", "owned_by": "vllm" if vllm else "us"}
            return _json({"object": "list", "data": [card | ({"max_model_len": 4096} if vllm else {})]})
        if path == "/stats":
            return _json({"counts": dict(self.counts), "peak": self.peak})
        if vllm and path == "/version":
            return _json({"version": "0.32.0"})
        if vllm and path == "/tokenize":
            prompt = conversation_of(data["messages"]).encode()
            return _json({"tokens": [PROMPT_TOKEN + byte for byte in prompt], "max_model_len": 4096})
        if vllm and path == "/detokenize":
            return _json({"prompt": text_of(data["tokens"])})
        return _error(404, f"no page {path}")

    def _fault(self, number: int) -> Fault | None:
        if number in self.plan.at:
            return self.plan.at[number]
        draw = random.Random(f"{self.plan.seed} {number}")
        return draw.choice(self.plan.mix) if self.plan.mix and draw.random() < self.plan.share else None

    async def _generate(
        self, number: int, data: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fault = self._fault(number)
        name = fault.fault if fault else ""
        if fault:
            self.counts[name] += 1
        wrong = sorted(data.keys() - KNOWN) if self.plan.kind == "strict" else []
        if wrong:
            _send(writer, _error(400, f"Unrecognized request argument supplied: {wrong[0]}"))
        elif fault and name in ("429", "500", "503"):
            _send(writer, _error(int(name), f"planned {name}", fault.retry_after))
        elif name == "wrong_model" or data["model"] != self.plan.model:
            _send(writer, _error(404, f"The model `{data['model']}` does not exist"))
        elif name == "wrong_type":
            _send(writer, _Reply(200, b"<html><h1>Welcome to the gateway</h1></html>", ("Content-Type: text/html",)))
        elif name == "hang":
            while not reader.at_eof():
                await asyncio.sleep(0.01)
            self.counts["cancelled"] += 1
            raise _Cut
        elif name == "reset":
            _reset(writer)
        else:
            await self._answer(data, name, reader, writer)

    async def _answer(
        self, data: dict[str, Any], fault: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        conversation, begun, prompt_tokens = _read(data)
        tokens = answer(conversation, data.get("seed"), self.plan.words)[begun:]
        room = data.get("max_tokens", 16)
        finish = "length" if len(tokens) > room else "stop"
        tokens = tokens[:room]
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(tokens)}
        if not data.get("stream"):
            await asyncio.sleep(self.plan.word_seconds * len(tokens))
            whole = json.dumps(self._piece(data, tokens, finish, stream=False) | {"usage": usage}).encode()
            if fault == "truncated_json":
                whole = whole[: len(whole) // 2]
            _send(writer, _Reply(200, whole))
            self.answered[conversation, data.get("seed")] += fault != "truncated_json"
            return
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for index, token in enumerate(tokens):
            await asyncio.sleep(0.05 if fault == "slow" and index < 4 else self.plan.word_seconds)
            if reader.at_eof() or writer.is_closing():
                self.counts["cancelled"] += 1
                raise _Cut
            if index == len(tokens) // 2 and fault in ("cut_stream", "truncated_json"):
                if fault == "truncated_json":
                    _event(writer, '{"choices": [{"index": 0, "delta": {"cont')
                await writer.drain()
                raise _Cut
            if index == len(tokens) // 2 and fault in _BROKEN:
                _event(writer, json.dumps(_BROKEN[fault]))
                break
            last = index == len(tokens) - 1
            _event(writer, json.dumps(self._piece(data, [token], finish if last else None, stream=True)))
            await writer.drain()
        else:
            if (data.get("stream_options") or {}).get("include_usage"):
                _event(writer, json.dumps({"model": self.plan.model, "choices": [], "usage": usage}))
            self.answered[conversation, data.get("seed")] += 1
            self.counts["answered"] += 1
        _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")

    def _piece(self, data: dict[str, Any], tokens: list[int], finish: str | None, *, stream: bool) -> dict[str, Any]:
        text = text_of(tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        if "messages" in data:
            choice["delta" if stream else "message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if data.get("return_token_ids"):
            choice["token_ids"] = tokens
        if data.get("logprobs"):
            values = [-token / PROMPT_TOKEN for token in tokens]
            chat = {"content": [{"token": "", "logprob": value} for value in values]}
            choice["logprobs"] = chat if "messages" in data else {"token_logprobs": values}
        return {"model": self.plan.model, "choices": [choice]}


_BROKEN: dict[str, Any] = {
    "empty_choices": {"choices": []},
    "bad_types": {"choices": [{"index": 0, "delta": {"content": {"text": 7}}}]},
    "error_event": {"error": {"message": "the engine stumbled", "type": "InternalServerError", "code": 500}},
}
"""What comes in the middle of a stream in place of a piece; then the stream ends as if all were well."""


def _read(data: dict[str, Any]) -> tuple[str, int, int]:
    """Conversation, words of the answer that are there already, and tokens of the prompt."""
    if "prompt" in data:
        prompt = [token for token in data["prompt"] if token >= PROMPT_TOKEN]
        conversation = bytes(token - PROMPT_TOKEN for token in prompt).decode()
        return conversation, len(data["prompt"]) - len(prompt), len(data["prompt"])
    messages, begun = data["messages"], 0
    if messages and messages[-1]["role"] == "assistant":
        *messages, last = messages
        begun = len(last["content"].split())
    conversation = conversation_of(messages)
    return conversation, begun, len(conversation.encode()) + begun


def _json(data: dict[str, Any], status: int = 200, headers: tuple[str, ...] = ()) -> _Reply:
    return _Reply(status, json.dumps(data).encode(), headers)


def _error(status: int, message: str, retry_after: str | None = None) -> _Reply:
    headers = (f"Retry-After: {retry_after}",) if retry_after is not None else ()
    return _json({"error": {"message": message, "code": status}}, status, headers)


def _send(writer: asyncio.StreamWriter, reply: _Reply) -> None:
    lines = [f"HTTP/1.1 {reply.status} Planned", f"Content-Length: {len(reply.body)}", *reply.headers]
    if not any(line.startswith("Content-Type") for line in lines):
        lines.append("Content-Type: application/json")
    writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body)


def _event(writer: asyncio.StreamWriter, data: str) -> None:
    chunk = f"data: {data}\n\n".encode()
    writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    raise _Cut


async def _serve(port: int, plan: FaultPlan) -> None:
    async with FaultServer(plan).serving(port) as server:
        print(server.url, flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", help="YAML or JSON file: fields of FaultPlan")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.port, settings.load(FaultPlan, arguments.faults) if arguments.faults else FaultPlan()))
