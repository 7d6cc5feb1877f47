"""HTTP to an OpenAI-compatible server: one connection pool, faults named, the key kept to its header."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ropewalk.synth.engine import EngineDead, RequestError
from ropewalk.synth.engines import openai_faults
from ropewalk.synth.engines.openai_answer import Events, StreamError
from ropewalk.synth.engines.openai_faults import Overloaded, bad_response, excerpt

CONNECT_SECONDS = 10.0
LOOKUP_SECONDS = 60.0
"""Longest wait for what is asked at the start."""
LOOKUP_BYTES = 16 << 20
REFUSAL_BYTES = 64 << 10


class Http:
    """A connection to one server.

    Args:
        url: Base URL of the API, such as `http://localhost:8000/v1`.
        key_name: Environment variable of the key; no key is sent if it is empty.
        places: Connections at once.
        transport: `httpx.AsyncBaseTransport` in place of the network, for tests.

    Attributes:
        url: Base URL, without a slash at the end.
        root: The server's own URL: the same without `/v1`.
        where: Base URL for messages: without user, password and query.
    """

    def __init__(self, url: str, key_name: str, places: int, transport: Any = None) -> None:
        self.url = url.rstrip("/")
        self.root = self.url.removesuffix("/v1")
        self.where = _public(self.url)
        self._key_name, self._places, self._transport = key_name, places, transport
        self._client: Any = None

    def open(self) -> None:
        """Makes the connection pool; touches nothing yet.

        Raises:
            EngineDead: The key cannot be sent.
        """
        import httpx

        if urlsplit(self.url).username is not None:  # it would be in every log line of httpx
            raise EngineDead(f"engine.url holds a user: write {self.where}, and put the key into ${self._key_name}")
        key = os.environ.get(self._key_name, "").strip()
        if not (key.isascii() and key.isprintable()):  # httpx would quote it in its complaint
            raise EngineDead(f"the key in ${self._key_name} holds characters that no HTTP header takes: set it anew")
        headers = {"Accept-Encoding": "identity", "User-Agent": "ropewalk"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # the others scale with the request: the engine's
            limits=httpx.Limits(max_connections=self._places, max_keepalive_connections=self._places),
            verify=self.url.startswith("https:"),  # reading the certificates takes longer than a short test
            trust_env=urlsplit(self.url).hostname not in ("localhost", "127.0.0.1", "::1"),  # no proxy to ourselves
            transport=self._transport,
        )

    async def close(self) -> None:
        """Closes all connections; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def look_up(self, url: str) -> Any:
        """The JSON at a URL; none where there is no such page, or no JSON.

        Raises:
            EngineDead: The server refuses us.
            RequestError: It does not answer.
        """
        async with self.faults(), asyncio.timeout(LOOKUP_SECONDS), self._pool.stream("GET", url) as response:
            body = await _head(response, LOOKUP_BYTES)
            if response.status_code in (404, 405, 501):
                return None
            if response.status_code != 200:
                fault = self._refusal(response.status_code, body, response.headers)
                raise RequestError("server", str(fault), transient=True) if isinstance(fault, Overloaded) else fault
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None

    async def ask(self, url: str, body: dict[str, Any]) -> Any:
        """Posts JSON and reads JSON; the caller sets the time limit and enters `faults`.

        Raises:
            Overloaded, RequestError, EngineDead: It was refused.
        """
        async with self._pool.stream("POST", url, json=body) as response:
            told = await _head(response, LOOKUP_BYTES)
            if response.status_code != 200:
                raise self._refusal(response.status_code, told, response.headers)
        try:
            return json.loads(told)
        except (ValueError, RecursionError):
            raise self._unclear(told) from None

    async def stream(
        self, path: str, body: dict[str, Any], room: int, take: Callable[[bytes], None], arrived: Callable[[], None]
    ) -> None:
        """Posts JSON and hands on what comes; the caller sets the time limit and enters `faults`.

        Args:
            path: Below the base URL.
            body: Of the request.
            room: Most bytes of the answer.
            take: Gets the data of each event of a stream, or the whole answer of a server that does not stream.
            arrived: Called after each piece.

        Raises:
            Overloaded, RequestError, EngineDead: It was refused, or is no answer.
        """
        async with self._pool.stream("POST", self.url + path, json=body) as response:
            if response.status_code != 200:
                body_head = await _head(response, REFUSAL_BYTES)
                raise self._refusal(response.status_code, body_head, response.headers)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in ("text/event-stream", "application/json"):
                raise self._unclear(await _head(response, REFUSAL_BYTES), f" of type {kind or 'unknown'}")
            events, whole, size = Events(), bytearray(), 0
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > room:
                    raise bad_response(f"{self.where} sent more than {room} bytes")
                if kind == "application/json":
                    whole += chunk
                    continue
                for data in events.feed(chunk):
                    self._hand(take, data)
                arrived()
            if kind == "application/json":
                self._hand(take, bytes(whole))

    @contextlib.asynccontextmanager
    async def faults(self) -> AsyncIterator[None]:
        """Turns what the network does into `RequestError`."""
        import httpx

        try:
            yield
        except TimeoutError:
            raise RequestError("timeout", f"{self.where} was silent for too long", transient=True) from None
        except httpx.TimeoutException as fault:
            raise RequestError("timeout", f"{self.where}: {type(fault).__name__}", transient=True) from None
        except httpx.DecodingError as fault:
            raise bad_response(self._clean(f"{self.where}: {fault}")) from None
        except httpx.TransportError as fault:
            detail = self._clean(f"{self.where}: {type(fault).__name__} {fault}".rstrip())
            raise RequestError("connection", detail, transient=True) from None

    @property
    def _pool(self) -> Any:
        if self._client is None:
            raise EngineDead("the engine is not started, or closed: call `start` first")
        return self._client

    def _hand(self, take: Callable[[bytes], None], data: bytes) -> None:
        try:
            take(data)
        except StreamError as fault:
            raise self._refusal(fault.status, fault.body.encode(), {}) from None
        except RequestError as fault:
            detail = self._clean(f"{self.where}: {fault.detail}")
            raise RequestError(fault.reason, detail, transient=fault.transient) from None

    def _refusal(self, status: int, body: bytes, headers: Any) -> Exception:
        text = body.decode(errors="replace")
        return openai_faults.refusal(
            status, text, headers, where=self.where, key_name=self._key_name, clean=self._clean
        )

    def _unclear(self, body: bytes, kind: str = "") -> RequestError:
        text = excerpt(self._clean(body.decode(errors="replace")))
        return bad_response(f"{self.where} sent no answer but a page{kind}: {text}")

    def _clean(self, text: str) -> str:
        """Takes the key out of what a server said: some quote it when they refuse it."""
        key = self._client.headers.get("authorization", "").removeprefix("Bearer ") if self._client else ""
        return text.replace(key, f"${self._key_name}") if key else text


async def _head(response: Any, limit: int) -> bytes:
    """The first bytes of a body."""
    head = bytearray()
    async for chunk in response.aiter_bytes():
        head += chunk
        if len(head) >= limit:
            break
    return bytes(head[:limit])


def _public(url: str) -> str:
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{parts.hostname or ''}{port}", parts.path, "", ""))
