"""Tensors of a safetensors file, memory-mapped.

Format: 8 bytes with the length of a JSON header, little-endian; the header, name -> {dtype, shape, data_offsets}; then
the data. (https://huggingface.co/docs/safetensors)
"""

import json
import math
from pathlib import Path

import numpy as np

_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file by name, read-only.

    Raises:
        ValueError: Not a safetensors file, or one with a kind of number that NumPy has not.
    """
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int(data[:8].view("<u8")[0]) if len(data) >= 8 else 0
    if not 8 < start <= len(data):
        raise ValueError(f"{path}: not a safetensors file")
    header = json.loads(data[8:start].tobytes())
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: tensor {name} has dtype {entry['dtype']}; known: {', '.join(_DTYPES)}")
        first, last = (start + offset for offset in entry["data_offsets"])
        values = data[first:last].view(_DTYPES[entry["dtype"]])
        if len(values) != math.prod(entry["shape"]):
            raise ValueError(f"{path}: tensor {name} has {len(values)} values, its shape is {entry['shape']}")
        found[name] = values.reshape(entry["shape"])
    return found
