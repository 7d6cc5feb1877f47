"""Vector columns as matrices, and back."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def from_matrix(matrix: np.ndarray, present: np.ndarray) -> pa.FixedSizeListArray:
    """A vector column of n rows, null where `present` (bool[n]) is false.

    Args:
        matrix: Vectors of the present rows in order, float16[sum(present), d].
        present: Which rows have a vector.
    """
    full = matrix
    if len(matrix) < len(present):
        full = np.zeros((len(present), matrix.shape[1]), np.float16)
        full[present] = matrix
    flat = pa.array(np.ascontiguousarray(full, np.float16).reshape(-1))
    mask = None if present.all() else pa.array(~present)
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1], mask=mask)


def to_lists(matrix: np.ndarray) -> pa.ListArray:
    """Vectors as `tables.VECTOR`: float[n, d] -> list<float16>[n]."""
    rows, width = matrix.shape
    flat = pa.array(np.ascontiguousarray(matrix, np.float16).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * width), flat)


def to_matrix(column: pa.Array) -> np.ndarray:
    """A column of lists of floats as a matrix: list[n] -> float32[n, d].

    Raises:
        ValueError: If a vector is null or their lengths differ.
    """
    if column.null_count:
        raise ValueError(f"{column.null_count} of {len(column)} vectors are null")
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if len(lengths) and lengths.min() != lengths.max():
        raise ValueError(f"vectors have from {lengths.min()} to {lengths.max()} values: all must have the same")
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else len(values) // max(len(column), 1)
    return values.reshape(len(column), width)  # type: ignore[no-any-return]
