"""A server with OpenAI's `/v1/embeddings`: vLLM, llama.cpp, text-embeddings-inference, Ollama, OpenAI.

The server's tokenizer is unknown, so windows are counted in characters. What is overloaded or unreachable is asked
again, for as long as it says or twice as long each time; a refusal ends the run. The server may batch as it likes, so
that a window's vector may depend on its company in the last bits.
"""

import functools
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from ropewalk.transforms.embedders.encoder import EmbedderError, Pieces

BATCH = 64
WINDOW = 1200
"""Characters: some 256 to 400 tokens of most languages, within the 512 of most encoders."""
ATTEMPTS = 6
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
TIMEOUT_SECONDS = 300.0
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 522, 524, 529})
EXCERPT_CHARS = 300


@dataclass(frozen=True)
class OpenAI:
    """An `encoder.Encoder`.

    Attributes:
        url: Base URL, such as `http://localhost:8000/v1`.
        model: The server's name for its model.
        api_key_env: Environment variable of the key; no key is sent if it is empty.
        window: Characters of a window.
        batch: Windows in a request.
    """

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    window: int = WINDOW
    batch: int = BATCH
    name = "openai"

    @property
    def limit(self) -> int:
        """The window."""
        return self.window

    @property
    def short(self) -> int:
        """Four characters for each of 64 tokens."""
        return 256

    @property
    def dimensions(self) -> int:
        """Found out by asking for one vector."""
        return _dimensions(self)

    @property
    def fingerprint(self) -> str:
        """Hash of the server and the model's name: the server does not tell more."""
        return hashlib.sha256(f"openai 1 {self.url} {self.model}".encode()).hexdigest()

    def setup(self) -> None:
        """Nothing to load."""

    def pieces(self, texts: pa.Array) -> list[Pieces]:
        """The texts themselves."""
        return list(texts.to_pylist())

    def encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        """See `Encoder.encode`."""
        parts = [self._ask(windows[i : i + self.batch]) for i in range(0, len(windows), self.batch)]
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise EmbedderError(f"embedder openai at {self.url} gave vectors of {sorted(widths)} numbers")
        return np.concatenate(parts)

    def _ask(self, windows: Sequence[str]) -> np.ndarray:
        import httpx

        body = {"model": self.model, "input": list(windows), "encoding_format": "float"}
        told = ""
        for attempt in range(ATTEMPTS):
            wait = min(WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
            try:
                answer = _client(self.url, self.api_key_env).post("embeddings", json=body)
            except httpx.TransportError as fault:
                told = f"{type(fault).__name__} {fault}".rstrip()
            else:
                if answer.status_code == 200:
                    return self._vectors(answer, len(windows))
                told = f"it answered {answer.status_code}: {self._clean(answer.text)}"
                if answer.status_code not in AGAIN:
                    raise EmbedderError(f"embedder openai at {self.url}: {told}. {self._remedy(answer.status_code)}")
                wait = _retry_after(answer.headers.get("retry-after", ""), wait)
            if attempt + 1 < ATTEMPTS:
                time.sleep(wait)
        raise EmbedderError(f"embedder openai at {self.url} did not answer {ATTEMPTS} times: {told}. Is it running?")

    def _vectors(self, answer: Any, count: int) -> np.ndarray:
        try:
            rows = sorted(answer.json()["data"], key=lambda row: row["index"])
            # JSON has no NaN, so servers that come to one write null.
            found = np.array([[np.nan if x is None else x for x in row["embedding"]] for row in rows], np.float32)
        except (ValueError, KeyError, TypeError):
            found = np.zeros(0, np.float32)
        if found.ndim != 2 or len(found) != count:
            raise EmbedderError(
                f"embedder openai at {self.url} sent no {count} vectors but {self._clean(answer.text)}: is embed.url "
                f"the base of an OpenAI-compatible API?"
            )
        return found

    def _remedy(self, status: int) -> str:
        if status in (401, 403):
            return f"Put a key that it accepts into the environment variable {self.api_key_env}"
        if status == 404:
            return "Check embed.url and embed.model"
        if status in (400, 413, 422):
            return "If a text is too long for it, lower embed.window"
        return "Check embed.url"

    def _clean(self, text: str) -> str:
        """The beginning of what a server said, the key taken out: some quote it when they refuse it."""
        key = os.environ.get(self.api_key_env, "").strip()
        line = " ".join(text[: 4 * EXCERPT_CHARS].split())[:EXCERPT_CHARS]
        return line.replace(key, f"${self.api_key_env}") if key else line


def _retry_after(value: str, otherwise: float) -> float:
    try:
        return min(max(float(value), 0.0), LONGEST_WAIT_SECONDS)
    except ValueError:
        return otherwise


@functools.lru_cache(maxsize=1)
def _dimensions(encoder: OpenAI) -> int:
    return int(encoder.encode(["rope"]).shape[1])


@functools.lru_cache(maxsize=1)
def _client(url: str, api_key_env: str) -> Any:
    import httpx

    parts = urlsplit(url)
    if parts.username is not None or parts.scheme not in ("http", "https"):
        raise EmbedderError(f"embed.url must begin with http:// or https:// and hold no user: use ${api_key_env}")
    key = os.environ.get(api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EmbedderError(f"the key in ${api_key_env} holds characters that no HTTP header takes: set it anew")
    return httpx.Client(
        base_url=url.rstrip("/") + "/",
        headers={"User-Agent": "ropewalk"} | ({"Authorization": f"Bearer {key}"} if key else {}),
        timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=10.0),
        verify=parts.scheme == "https",
        trust_env=parts.hostname not in ("localhost", "127.0.0.1", "::1"),  # no proxy to ourselves
    )
