"""Signatures to and from `datasketch`: the values are the same bits, so its indexes and files work with ours.

A signature of scheme `affine32` is `datasketch.MinHash.hashvalues`, if the same hashes were put in: ours are the low 32
bits of the 64-bit shingles of `kernels.shingles`. Texts sketched by datasketch with a hash function of its own are
comparable among themselves only.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from datasketch import MinHash


def to_datasketch(signatures: pa.FixedSizeListArray, seed: int) -> list[MinHash | None]:
    """Signatures as `datasketch.MinHash`, for `MinHashLSH` and whatever else takes one.

    Args:
        signatures: The column `signature` of sketches made with scheme `affine32`, fixed_size_list<uint32>[n].
        seed: The one they were made with.

    Returns:
        One for each row; none where the signature is null.
    """
    made: list[MinHash | None] = []
    permutations = None
    for row in range(len(signatures)):
        if not signatures[row].is_valid:
            made.append(None)
            continue
        values = signatures[row].values.to_numpy()
        sketch = MinHash(hashvalues=values, permutations=permutations, seed=seed % (1 << 32), scheme="affine32")
        permutations = sketch.permutations  # the same for all: drawn once
        made.append(sketch)
    return made


def from_datasketch(sketches: Sequence[MinHash]) -> pa.FixedSizeListArray:
    """The column `signature` of such sketches: fixed_size_list<uint32>[n].

    Raises:
        ValueError: There are none, one is of another scheme, or they differ in seed or length.
    """
    if not sketches:
        raise ValueError("no sketches, and so no number of values for the column: give one or more")
    for sketch in sketches:
        if sketch.scheme != "affine32":
            raise ValueError(f"scheme {sketch.scheme!r} is not ours: sketch with datasketch.MinHash(scheme='affine32')")
        if (sketch.seed, len(sketch)) != (sketches[0].seed, len(sketches[0])):
            raise ValueError(
                f"sketches of {len(sketches[0])} values and seed {sketches[0].seed} cannot be compared with those of "
                f"{len(sketch)} values and seed {sketch.seed}"
            )
    values = pa.array(np.concatenate([sketch.hashvalues for sketch in sketches]).astype(np.uint32))
    return pa.FixedSizeListArray.from_arrays(values, len(sketches[0]))
