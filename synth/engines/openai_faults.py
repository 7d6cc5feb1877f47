"""What a refusal of an OpenAI-compatible server means: for this request, for all requests, or for the run."""

import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ropewalk.synth.engine import EngineDead, RequestError

EXCERPT_CHARS = 300
OVERLOAD = frozenset({429, 503, 529})
TIMEOUTS = frozenset({408, 504, 522, 524})
AGAIN = frozenset({409, 425})
"""4xx that pass: a conflict, and 'too early'."""

# Wordings of OpenAI, vLLM, SGLang, llama.cpp, Anthropic and their gateways.
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum.{0,20}(input|prompt|context)|(prompt|input)\b.{0,40}\btoo (long|large)"
    r"|reduce the length|too many (input )?tokens|longer than the model",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content.?(policy|filter|management|moderation)|moderation|flagged|data_inspection_failed|safety (system|polic)",
    re.IGNORECASE,
)
_NO_MONEY = re.compile(r"insufficient.?(quota|balance|credit|funds)|billing|exceeded your current quota", re.IGNORECASE)


class Overloaded(Exception):
    """The server has too much to do, and told so before any work: the request shall wait and go again.

    Attributes:
        detail: What it said.
        status: Its HTTP status.
        retry_after: Seconds it asked to wait, if it did.
    """

    def __init__(self, detail: str, status: int, retry_after: float | None) -> None:
        super().__init__(detail)
        self.detail, self.status, self.retry_after = detail, status, retry_after


def excerpt(text: str) -> str:
    """The beginning of a text on one line, for a message."""
    line = " ".join(text[: 4 * EXCERPT_CHARS].split())
    return line if len(line) <= EXCERPT_CHARS else line[:EXCERPT_CHARS] + "…"


def bad_response(detail: str) -> RequestError:
    """An answer that cannot be understood; the next one may be."""
    return RequestError("bad_response", detail, transient=True)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait by the headers `retry-after-ms` and `retry-after` (seconds or an HTTP date), if they make sense.

    Args:
        headers: Of the answer; names in lower case.
        now: Unix time; default: the clock's.
    """
    seconds = None
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        seconds = milliseconds / 1000
    elif value := headers.get("retry-after", "").strip():
        seconds = _number(value)
        if seconds is None:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
            except (ValueError, TypeError, OverflowError):
                return None
    return None if seconds is None else max(0.0, seconds)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def said(body: str) -> tuple[str, str]:
    """What an error body says and its code, from the shapes in use: `error.message`, `error`, `detail`, `message`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return excerpt(body), ""
    error: Any = data
    if isinstance(data, dict):
        error = next((data[name] for name in ("error", "detail", "message") if data.get(name)), data)
    if isinstance(error, dict):
        code = " ".join(str(error[name]) for name in ("code", "type") if error.get(name))
        message = error.get("message")
        return excerpt(message if isinstance(message, str) else json.dumps(error)), code
    return excerpt(error if isinstance(error, str) else json.dumps(error)), ""


def refusal(
    status: int, body: str, headers: Mapping[str, str], *, where: str, key_name: str, clean: Callable[[str], str]
) -> Exception:
    """The exception for an answer that is not 200.

    Args:
        status: HTTP status, or the code of an error inside a stream.
        body: Beginning of the body.
        headers: Of the answer; names in lower case.
        where: The server, for messages.
        key_name: Environment variable of the key, for messages.
        clean: Takes the key out of what the server said.

    Returns:
        `Overloaded`, `RequestError` or `EngineDead`.
    """
    message, code = said(body)
    message, code = clean(message), clean(code)
    told = f"{where} answered {status}" + (f": {message}" if message else "")
    says = f"{code} {message}"
    if status == 402 or (status == 429 and _NO_MONEY.search(says)):
        return EngineDead(f"{told}. The account behind ${key_name} has no credit left: top it up, then run again")
    if status in OVERLOAD:
        return Overloaded(told, status, retry_after(headers))
    if status in (400, 403, 422, 451) and _FILTERED.search(says):
        return RequestError("content_filter", told, transient=False)
    if status in (401, 403, 407):
        return EngineDead(f"{told}. Put a key that this server accepts into the environment variable {key_name}")
    if status in TIMEOUTS:
        return RequestError("timeout", told, transient=True)
    if status in AGAIN or (status >= 500 and status not in (501, 505)):
        return RequestError("server", told, transient=True, retry_after=retry_after(headers))
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(says)):
        return RequestError("prompt_too_long", told, transient=False)
    if 300 <= status < 400:
        told += f" and sends us to {clean(excerpt(headers.get('location', '')))}: set `url` to where the API is"
    return RequestError("bad_request", told, transient=False)
