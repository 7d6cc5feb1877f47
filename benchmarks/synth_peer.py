"""datatrove's InferenceRunner and Ropewalk over the same rows, against the same HTTP server: see `synth_scheduler.py`.

The server has 16 slots; a request takes one for 0.1 s a simulated token, 1.1 s a paragraph, as many tokens as its
prompt orders. The server keeps the time from its first request to its last answer and how long slots were taken, so
nobody's start-up counts. Clients run one after the other in processes of their own, with their request caches on disk.
"""

import asyncio
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Message
from ropewalk.synth.engines.load import load
from ropewalk.synth.generation import Generation
from ropewalk.synth.recipe import Ask, Prompt, Sample
from ropewalk.synth.testing import NoGuards, no_loop

SLOTS = 16
TOKEN_SECONDS = 0.1
HERE = Path(__file__).resolve().parent


class Server:
    """A chat completion server that waits instead of thinking."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(SLOTS)
        self.first = self.last = self.busy = 0.0
        self.requests = self.tokens = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, of one request or many."""
        try:
            while line := await reader.readline():
                headers = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                kind, answer = await self._answer(line.decode().split()[1], body)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}\r\n\r\n"
                writer.write(head.encode() + answer)
                await writer.drain()
                if headers.get("connection") == "close":
                    break
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes) -> tuple[str, bytes]:
        if not path.endswith("/chat/completions"):
            card = {"id": "fake", "object": "model", "owned_by": "fake", "max_model_len": 1 << 20}
            return "application/json", json.dumps({"object": "list", "data": [card]}).encode()
        asked = json.loads(body)
        now = time.perf_counter()
        self.first = self.first or now
        tokens = int(asked["messages"][-1]["content"].rsplit("tokens=", 1)[1])
        async with self.slots:
            taken = time.perf_counter()
            await asyncio.sleep(tokens * TOKEN_SECONDS)
            self.last = time.perf_counter()
            self.busy += self.last - taken
        self.requests += 1
        self.tokens += tokens
        usage = {"prompt_tokens": len(body) // 4, "completion_tokens": tokens, "total_tokens": tokens + len(body) // 4}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake"}
        if not asked.get("stream"):
            choice["message"] = {"role": "assistant", "content": " w" * tokens}
            return "application/json", json.dumps({**about, "choices": [choice], "usage": usage}).encode()
        choice["delta"] = {"role": "assistant", "content": " w" * tokens}
        chunks = [{**about, "choices": [choice]}, {**about, "choices": [], "usage": usage}]
        stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return "text/event-stream", stream.encode()


class Chain:
    """The rows' calls, as a recipe."""

    name, version = "chain", 1

    def __init__(self, rows: dict[str, list[int]]) -> None:
        self._rows = rows

    def expected_tokens(self, prompt: Prompt) -> int:
        """Steps of average length."""
        return 11 * len(self._rows[prompt.id])

    async def __call__(self, prompt: Prompt, ask: Ask) -> Sample:
        """Makes one row."""
        text = ""
        for step, tokens in enumerate(self._rows[prompt.id]):
            messages = [Message("user", f"{prompt.prompt} {text} tokens={tokens}")]
            text += await ask(f"step-{step}", messages, accept=lambda r: r.text, max_tokens=400, expected_tokens=11)
        return Sample((Message("assistant", text),), len(text), "en")


async def _ropewalk(rows: dict[str, list[int]], url: str, folder: str) -> None:
    """All rows with Ropewalk."""
    engine = {"name": "openai", "model": "fake", "url": f"{url}/v1", "max_sequences": SLOTS}
    config = parse_synth_recipe({"output": folder, "prompts": "p", "engine": engine})
    cache = RequestCache.open(config.cache_url)
    generation = Generation(Chain(rows), load(config.engine), cache, config, guards=NoGuards(), find_loop=no_loop)
    await generation.start()
    made = [row async for row in generation.run(Prompt(name, f"Task {name}") for name in rows)]
    assert len(made) == len(rows) and all(row.sft for row in made)
    await generation.close()
    await cache.close()


async def _measure(*command: str) -> dict[str, Any]:
    """Runs a client, which gets the URL of a fresh server as its last word; what the server saw."""
    fake = Server()
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, limit=1 << 24)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await asyncio.create_subprocess_exec(*command, url, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = await client.communicate()
        if client.returncode:
            raise SystemExit(f"{command} ended with {client.returncode}\n{output.decode()[-3000:]}")
    seconds = fake.last - fake.first
    share = fake.busy / (seconds * SLOTS)
    cpu = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    return {
        "requests": fake.requests,
        "seconds": round(seconds, 2),
        "busy-share": round(share, 4),
        "client_cpu-seconds": round(cpu, 1),
    }


def compare(peer: Path, python: str, rows: dict[str, list[int]]) -> dict[str, Any]:
    """Runs all clients, one after the other."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        todo = Path(scratch) / "rows.json"
        todo.write_text(json.dumps(rows))
        clients = {"ropewalk": (python, str(HERE / "synth_peer.py"), str(todo), f"{scratch}/ropewalk")}
        for documents in (SLOTS, 4 * SLOTS):
            name = f"datatrove, {documents} documents at once"
            script = str(HERE / "synth_peer_datatrove.py")
            clients[name] = (str(peer), script, str(todo), f"{scratch}/{documents}", str(SLOTS), str(documents))
        for name, command in clients.items():
            found[name] = asyncio.run(_measure(*command))
    version = "import importlib.metadata as m; print(m.version('datatrove'))"
    return {
        "what": f"real time against one HTTP server: {SLOTS} slots, {TOKEN_SECONDS:g} s a simulated token",
        "rows": len(rows),
        "datatrove": subprocess.run([peer, "-c", version], capture_output=True, text=True).stdout.strip(),
        "clients": found,
    }


if __name__ == "__main__":
    import sys

    asyncio.run(_ropewalk(json.loads(Path(sys.argv[1]).read_text()), sys.argv[3], sys.argv[2]))
