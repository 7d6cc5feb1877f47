"""Arrow columns as JSON text: all columns of a batch that are not text, id or url become one object a row."""

import base64
import datetime
import decimal
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def json_objects(batch: pa.RecordBatch, names: Sequence[str]) -> tuple[pa.Array, dict[int, str]]:
    """One JSON object a row, of the named columns in the order of their names; a null leaves its name out.

    Strings, booleans and numbers are written by Arrow's compute functions, whole columns at a time; lists, structs,
    times and the like by `json.dumps`. NaN and infinities, which JSON does not have, are null; bytes become base64.

    Returns:
        large_string[n], null where nothing is left; and the rows with a value that is not UTF-8, with a sentence on
        each.
    """
    faults: dict[int, str] = {}
    members = []
    for name in sorted(names):
        values = _json_values(batch.column(name), name, faults)
        head = _large("," + json.dumps(name, ensure_ascii=False) + ":")
        member = pc.binary_join_element_wise(head, values, _large(""))  # null if the value is null
        members.append(pc.fill_null(member, _large("")))
    if not members:
        return pa.nulls(batch.num_rows, pa.large_string()), faults
    # Not `null_handling="skip"`: it drops rows whose values are all null (seen in pyarrow 25.0.1).
    inside = pc.binary_join_element_wise(*members, _large(""))
    left = pc.greater(pc.binary_length(inside), 0)
    # The first comma becomes the bracket.
    objects = pc.binary_join_element_wise(pc.binary_replace_slice(inside, 0, 1, "{"), _large("}"), _large(""))
    return pc.if_else(left, objects, _large(None)), faults


def _large(value: str | None) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())


def as_strings(column: pa.Array) -> pa.Array | None:
    """A column of text as large_string, whatever way Arrow keeps it; none if it is no text. UTF-8 is not checked."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return as_strings(column.dictionary_decode())
    if pa.types.is_string_view(type_) or pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return column.cast(pa.large_string())
    return None


def not_utf8(column: pa.Array) -> list[int]:
    """Rows of a large_string column that are not UTF-8; quick where there is none."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        octets = column.view(pa.large_binary()).to_pylist()
        return [row for row, value in enumerate(octets) if value is not None and not _decodes(value)]
    return []


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_values(column: pa.Array, name: str, faults: dict[int, str]) -> pa.Array:
    """Each value as JSON, large_string[n]; null where it is null."""
    type_ = column.type
    if pa.types.is_null(type_):
        return pa.nulls(len(column), pa.large_string())
    strings = as_strings(column)
    if strings is not None:
        bad = not_utf8(strings)
        if bad:
            faults.update((row, f"field {name!r} is not UTF-8") for row in bad)
            mask = np.zeros(len(strings), bool)
            mask[bad] = True
            strings = pc.if_else(pa.array(mask), _large(None), strings)
        return _quoted(strings)
    if pa.types.is_boolean(type_) or pa.types.is_integer(type_):
        return column.cast(pa.large_string())
    if pa.types.is_float32(type_) or pa.types.is_float64(type_):
        finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, type_))
        return finite.cast(pa.large_string())
    texts: list[str | None] = []
    for row, value in enumerate(column):
        try:
            plain = _scalar(value)
            texts.append(None if plain is None else json.dumps(plain, ensure_ascii=False, separators=(",", ":")))
        except UnicodeDecodeError:
            faults[row] = f"field {name!r} holds a string that is not UTF-8"
            texts.append(None)
    return pa.array(texts, pa.large_string())


def _quoted(strings: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(strings, "[\\x00-\\x1f]")).as_py():
        quoted = [None if text is None else json.dumps(text, ensure_ascii=False) for text in strings.to_pylist()]
        return pa.array(quoted, pa.large_string())
    for sign in ("\\", '"'):
        strings = pc.replace_substring(strings, sign, "\\" + sign)
    return pc.binary_join_element_wise(_large('"'), strings, _large('"'), _large(""))


def _scalar(value: pa.Scalar) -> Any:
    """A value as `_plain` gives it; what Python's types cannot hold is the text of the number Arrow keeps for it.

    Such are days and times beyond year 9999, and times in a zone that nobody knows.
    """
    try:
        return _plain(value.as_py())
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, LookupError):
        if pa.types.is_struct(value.type):
            fields = [(value.type[place].name, _scalar(value[place])) for place in range(value.type.num_fields)]
            return dict(fields) if len(dict(fields)) == len(fields) else [list(field) for field in fields]
        if pa.types.is_nested(value.type) and hasattr(value, "values"):
            return [_scalar(item) for item in value.values]
        inner = getattr(value, "value", None)
        return _scalar(inner) if isinstance(inner, pa.Scalar) else str(inner)


def _plain(value: Any) -> Any:
    """What `json.dumps` can write, for any value Arrow gives to Python."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.floating):
        return _plain(float(value))
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, decimal.Decimal) else repr(value)
