"""Shingle sets of documents, made from their texts, whole or in part.

Of a text with more distinct shingles than `LARGEST_SET` holds only those below a limit are kept, see `kernels.jaccard`:
memory for a pair of books of 200 MB is that of a pair of 16 MB.
"""

import itertools
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ropewalk.kernels import jaccard, words
from ropewalk.transforms import utf8

LARGEST_SET = 1 << 22
"""Places for one set; a larger one is cut to half of it or less, at which similarities have an error below 0.0005."""


@dataclass(frozen=True)
class Shingling:
    """What a document is made of when documents are compared.

    Attributes:
        ngram: Words or characters in a shingle.
        normal: Normalisation, see `words.table`.
        nfc: Whether composed and decomposed characters count as the same.
    """

    ngram: int = 5
    normal: words.Normal = field(default_factory=words.Normal)
    nfc: bool = True


class Sets(NamedTuple):
    """Shingle sets of n documents.

    Attributes:
        values: The sets, one after the other, perhaps with room between them, uint64.
        starts: Where each begins, int64[n] or longer.
        sizes: Size of each, int64[n].
        limits: Limit of each, `jaccard.ALL` for a whole set, uint64[n].
    """

    values: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    limits: np.ndarray

    def similarity(self, left: np.ndarray, right: np.ndarray, threads: int) -> np.ndarray:
        """Jaccard similarity of pairs of sets, by index: int64[m] twice -> float64[m]."""
        result = np.empty(len(left), np.float64)

        def run(first: int, last: int) -> None:
            jaccard.jaccard(
                self.values, self.starts, self.sizes, self.limits, left, right, first, last, _salt(), result
            )  # fmt: skip

        cost = np.cumsum(self.sizes[left] + self.sizes[right], dtype=np.int64)
        utf8.spread(run, np.concatenate([[0], cost]), threads)
        return result


Part = tuple[pa.LargeStringArray, np.ndarray, np.ndarray]
"""Texts, rows of them (int64[m]), and the number of the set that each makes (int64[m])."""


def shingle_sets(parts: Iterable[Part], count: int, shingling: Shingling, threads: int) -> Sets:
    """Sets of documents where their texts lie, without a copy.

    Args:
        parts: Where they lie; every number from 0 to `count` once.
        count: How many sets to make.
        shingling: What the shingles are.
        threads: Threads for the kernel.
    """
    if shingling.nfc:
        parts = itertools.chain.from_iterable(_composed(*part) for part in parts)
    laid = [(utf8.buffers(texts), rows, at) for texts, rows, at in parts]
    size = np.zeros(count, np.int64)
    for (_, offsets), rows, at in laid:
        size[at] = offsets[rows + 1] - offsets[rows]
    room = words.most_tokens(size, shingling.normal)
    whole = room <= LARGEST_SET
    starts = np.concatenate([[0], np.cumsum(np.minimum(room, LARGEST_SET))]).astype(np.int64)
    values, sizes = np.empty(starts[-1], np.uint64), np.zeros(count, np.int64)
    limits = np.full(count, jaccard.ALL, np.uint64)
    classes = words.table(shingling.normal)

    def run(first: int, last: int) -> None:
        for (data, offsets), rows, at in laid[first:last]:
            jaccard.shingle_sets(
                data, offsets, rows, at, classes, shingling.ngram, starts, whole, _salt(), values, sizes, limits
            )  # fmt: skip

    cost = np.cumsum([int(size[at].sum()) for _, _, at in laid], dtype=np.int64)
    utf8.spread(run, np.concatenate([[0], cost]).astype(np.int64), threads)
    return Sets(values, starts, sizes, limits)


def _composed(texts: pa.LargeStringArray, rows: np.ndarray, at: np.ndarray) -> Iterator[Part]:
    """The same, those texts apart that are not in normal form C."""
    doubtful = utf8.maybe_decomposed(texts, rows)
    if doubtful.any():
        apart = utf8.composed(texts.take(pa.array(rows[doubtful])))
        yield apart, np.arange(len(apart)), at[doubtful]
        rows, at = rows[~doubtful], at[~doubtful]
    if len(rows):
        yield texts, rows, at


_SALT = secrets.randbits(64) | 1


def _salt() -> np.uint64:
    """Of the hash tables of this process; no result shows it."""
    return np.uint64(_SALT)
