"""What `datasets` calls the columns of a table in its `dataset_info.json`, without importing it.

    string                        {"dtype": "string", "_type": "Value"}
    list<float>                   {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    fixed_size_list<float>[64]    the same with "length": 64
    large_list<uint64>            "_type": "LargeList"
    struct<a: int8>               {"a": {"dtype": "int8", "_type": "Value"}}

As `datasets.Features.from_arrow_schema(schema).to_dict()` of datasets 4 and 5 has it; the import alone takes a third of
a second, of every command. Types that no table of ours has are left to `datasets` itself.
"""

from typing import Any

import pyarrow as pa

_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""Where `datasets` has another name than Arrow."""


def features(schema: pa.Schema) -> dict[str, Any]:
    """The features of a schema, by column; metadata does not count."""
    return {field.name: _feature(field.type) for field in schema}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return features(list(kind))
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List" if pa.types.is_list(kind) else "LargeList"}
    if (
        pa.types.is_primitive(kind)
        and not pa.types.is_temporal(kind)
        or str(kind) in ("string", "large_string", "null")
    ):
        return {"dtype": _NAMES.get(str(kind), str(kind)), "_type": "Value"}
    from datasets import Features

    found: dict[str, Any] = Features.from_arrow_schema(pa.schema([("one", kind)])).to_dict()["one"]
    return found
