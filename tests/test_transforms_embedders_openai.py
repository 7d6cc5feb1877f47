"""`/v1/embeddings` on a small server of our own: batches, retries, refusals, and a key that is never shown."""

import http.server
import json
import threading

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.schemas.similarity import EmbedConfig
from ropewalk.transforms.embedders import load, openai
from ropewalk.transforms.embedders.encoder import EmbedderError

KEY = "sk-secret-of-the-test"


def vector(text):
    """Counts of eight letters: what the server makes of a text."""
    return [float(text.count(letter)) for letter in "abcdefgh"]


@pytest.fixture
def server(monkeypatch):
    """A server that answers as its `answers` say, the usual way when they are used up; `asked` are its requests."""
    waits = []
    monkeypatch.setattr(openai.time, "sleep", waits.append)
    monkeypatch.setenv("TEST_KEY", KEY)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((self.path, self.headers.get("Authorization"), body))
            status, headers, reply = made.answers.pop(0) if made.answers else (200, {}, None)
            if status == 0:
                self.close_connection = True
                return
            if reply is None:
                rows = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]
                reply = json.dumps({"data": rows[::-1], "model": body["model"]})
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(reply.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *args):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.answers, made.waits = [], [], waits
    made.url = f"http://127.0.0.1:{made.server_address[1]}/v1"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    openai._client.cache_clear()
    openai._dimensions.cache_clear()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def embedder(server, **settings):
    config = {"embedder": "openai", "url": server.url, "model": "letters", "api_key_env": "TEST_KEY"}
    return load.embedder(EmbedConfig.model_validate(config | settings))


def texts(*values):
    return pa.array(values, pa.large_string())


def test_windows_are_asked_for_in_batches(server):
    made = embedder(server, window=20, batch=3, overlap=0)
    assert made.dimensions == 8
    server.asked.clear()
    found = made.embed_windows(texts("ab" * 8, "", "a" * 60 + "b" * 5))
    assert [len(body["input"]) for _, _, body in server.asked] == [3, 2]
    path, authorization, body = server.asked[0]
    assert (path, authorization) == ("/v1/embeddings", f"Bearer {KEY}")
    assert body == {"model": "letters", "encoding_format": "float", "input": ["ab" * 8, "a" * 20, "a" * 20]}
    assert found.num_windows.tolist() == [1, 0, 4]
    assert np.abs(found.vectors[0, :2].astype(float) - np.sqrt(0.5)).max() < 2**-11 and not found.vectors[1].any()
    # Three windows of 20 characters, and one of 5 that counts 5 * 5 / 256.
    assert found.vectors[2, 0] == 1 and found.heads[2].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_what_passes_is_asked_again(server):
    server.answers = [
        (429, {"Retry-After": "7"}, "slow down"), (503, {"Retry-After": "soon"}, ""), (500, {}, "oops"), (0, {}, ""),
    ]  # fmt: skip
    assert embedder(server).embed(texts("aaa"))[0, 0] == 1
    assert server.waits == [7.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}, f"bad key {KEY}"), r"answered 401: bad key \$TEST_KEY. Put a key .* environment variable TEST_KEY"),
        ((404, {}, "no such model"), "answered 404: no such model. Check embed.url and embed.model"),
        ((400, {}, "too many tokens"), "too many tokens. If a text is too long for it, lower embed.window"),
        ((200, {}, "<html>"), "sent no 1 vectors but <html>: is embed.url the base"),
        ((200, {}, '{"data": []}'), "sent no 1 vectors"),
        ((200, {}, '{"data": [{"index": 0, "embedding": "AAAA"}]}'), "sent no 1 vectors"),
    ],
)
def test_refusals_end_the_run_and_name_the_remedy(server, answer, message):
    server.answers = [answer]
    with pytest.raises(EmbedderError, match=message) as caught:
        embedder(server).embed(texts("aaa"))
    assert KEY not in str(caught.value) and server.waits == [] and len(server.asked) == 1


def test_a_server_that_stays_away_is_named(server):
    server.answers = [(502, {}, "gone")] * openai.ATTEMPTS
    with pytest.raises(EmbedderError, match=r"did not answer 6 times: it answered 502: gone. Is it running\?"):
        embedder(server).embed(texts("aaa"))
    assert server.waits == [1, 2, 4, 8, 16]


def test_no_server_at_all(monkeypatch):
    monkeypatch.setattr(openai.time, "sleep", lambda seconds: None)
    openai._client.cache_clear()
    made = load.embedder(EmbedConfig(embedder="openai", url="http://127.0.0.1:9/v1", model="x"))
    with pytest.raises(EmbedderError, match="ConnectError"):
        made.embed(texts("aaa"))


def test_null_in_a_vector_is_not_finite(server):
    rows = [{"index": 0, "embedding": [None] * 8}, {"index": 1, "embedding": vector("a")}]
    made = embedder(server)
    assert made.dimensions == 8
    server.answers = [(200, {}, json.dumps({"data": rows}))]
    found = made.embed_windows(texts("zzz", "a"))
    assert found.not_finite.tolist() == [True, False] and not found.vectors[0].any() and found.vectors[1, 0] == 1


def test_urls_and_keys_that_cannot_be_used(server, monkeypatch):
    for url in ("ftp://127.0.0.1/v1", "http://user:word@127.0.0.1/v1"):
        openai._client.cache_clear()
        with pytest.raises(EmbedderError, match="embed.url must begin with http:// or https:// and hold no user"):
            load.embedder(EmbedConfig(embedder="openai", url=url, model="x")).embed(texts("a"))
    monkeypatch.setenv("TEST_KEY", "schlüssel")
    openai._client.cache_clear()
    with pytest.raises(EmbedderError, match="no HTTP header takes") as caught:
        embedder(server).embed(texts("a"))
    assert "schl" not in str(caught.value)
    monkeypatch.delenv("TEST_KEY")
    openai._client.cache_clear()
    assert embedder(server).embed(texts("a")).any() and server.asked[-1][1] is None


def test_the_key_is_not_part_of_the_fingerprint(server):
    assert embedder(server).encoder.fingerprint == embedder(server, api_key_env="OTHER").encoder.fingerprint
    assert embedder(server).encoder.fingerprint != embedder(server, model="other").encoder.fingerprint
