"""Reads JSON replies of a model: fenced or raw, with a sentence before or after it if need be."""

import json
import re
from typing import Any

from ropewalk.synth.recipe import Unacceptable

_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL | re.IGNORECASE)


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object of a reply.

    Args:
        text: The reply. A fenced block is taken if there is one, else all from the first `{` to the last `}`. Line ends
            inside strings are forgiven.

    Raises:
        Unacceptable: `bad_json`: there is none, or it is not an object.
    """
    fenced = _FENCE.search(text)
    inner = fenced[1] if fenced else text
    start, stop = inner.find("{"), inner.rfind("}")
    if start < 0 or stop < start:
        raise Unacceptable("bad_json", "the reply has no JSON object")
    try:
        found = json.loads(inner[start : stop + 1], strict=False)
    except (ValueError, RecursionError) as error:
        raise Unacceptable("bad_json", f"the reply is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Unacceptable("bad_json", f"the reply is a {type(found).__name__}, not an object")
    return found


def whole_number(value: Any) -> int | None:
    """A JSON value as a whole number: `3`, `3.0` and `"3"`; none for anything else, booleans included."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,9}\s*", value):
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and value == int(value):
        return int(value)
    return None
