"""The key of the request cache: 16 bytes that are equal exactly when two requests are the same question.

    key = BLAKE2b-128(canonical JSON of {version, model, revision, template, request})

The request enters field by field, whatever fields it has, down through sampling, messages and loop detection: a field
added later cannot be forgotten (and gives every request a new key). Field names and JSON's brackets keep neighbours
apart, so no two requests run together into the same bytes. What equal requests may differ in is levelled: the order of
a mapping, list or tuple, `1` or `1.0`. Lone surrogates are escaped by JSON, so any string has a key.

Not in it: which engine answers (`EngineInfo.engine`) and how large it is. The same weights behind another server, or
the same server after an update, go on with the same cache. What the other tools leave out is in it: model and
revision, sampling and its seed, the text generated so far (LongWriter keys on instruction and step alone, datatrove on
the payload before model and default parameters are merged in).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from ropewalk.synth.engine import EngineInfo, Request

VERSION = 1
"""Raised when the encoding below changes."""


def cache_key(info: EngineInfo, request: Request) -> bytes:
    """The key of a request to a model.

    Args:
        info: The model: of it count name, revision and template.
        request: The request, all of it.

    Returns:
        16 bytes.

    Raises:
        ValueError: `sampling.extra` (or another field) holds something that JSON cannot say.
    """
    value = {
        "version": VERSION,
        "model": info.model,
        "revision": info.revision,
        "template": info.template,
        "request": canonical(request, "request"),
    }
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).digest()


def canonical(value: Any, where: str) -> Any:
    """`value` as plain JSON data in which equal values look equal.

    Args:
        value: A dataclass, mapping, sequence, string, number, truth value or none.
        where: Its name, for the message of the error.

    Raises:
        ValueError: It is anything else, or a number that is not finite.
    """
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, tuple | list):
        if set(map(type, value)) <= {int}:  # token ids, by the hundred thousand
            return value
        return [canonical(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: canonical(getattr(value, name), f"{where}.{name}") for name in names}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        if number.is_integer():
            return int(number)
        if math.isfinite(number):
            return number
    elif isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: canonical(item, f"{where}.{name}") for name, item in value.items()}
    raise ValueError(
        f"{where} is {value!r}, a {type(value).__name__}: a request is cached under all it says, so it may hold "
        "mappings with names, lists, strings, finite numbers, true, false and null only"
    )
