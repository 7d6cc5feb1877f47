"""Vector columns: Arrow's fixed-size lists of float16 as matrices, and back, without copying twice."""

import numpy as np
import pyarrow as pa


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


def to_matrix(column: pa.FixedSizeListArray) -> np.ndarray:
    """Float32 matrix of a vector column, exact: float32[n, d]. What a null row holds is undefined: filter first."""
    width = column.type.list_size
    flat = column.values.slice(column.offset * width, len(column) * width)
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), width)  # type: ignore[no-any-return]
