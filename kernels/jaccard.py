"""Exact Jaccard similarity of shingle sets: |A and B| / |A or B|, by looking one set up in a hash table of the other.

Shingles are 64-bit hashes: two different ones of two texts of a million words are taken for one with probability 10^-7.
A set may be too large to be held whole; then only the shingles below a limit are, the largest ALL / 2^k for which half
of the room suffices: the similarity is that of the two sets below the smaller limit, unbiased, with a standard error of
at most 0.5 / sqrt(shingles).

Tables are open-addressed; a key's slot is the top bits of key * salt, with an odd salt that is drawn anew in every
process, so that nobody can write a text whose shingles collide. The salt never shows in a result.
"""

from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels import shingles, words

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Limit of a text whose set is whole."""
PIECE = 2048
"""Words scanned at a time."""


def jaccard_reference(a: set[int], b: set[int]) -> float:
    """Similarity of two sets; of two empty ones: 0, as nothing is shared."""
    return len(a & b) / len(a | b) if a or b else 0.0


@njit(cache=True, nogil=True, inline="always")
def _slot(key: np.uint64, salt: np.uint64, bits: int) -> Any:
    return np.int64((key * salt) >> np.uint64(64 - bits))


@njit(cache=True, nogil=True)
def _bits_for(count: int) -> int:
    """Bits of a table that is at most a quarter full: the first look nearly always decides."""
    bits = 3
    while (1 << bits) < 4 * count:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def distinct(values: np.ndarray, count: int, table: np.ndarray, salt: np.uint64) -> int:
    """Moves the first of each value of `values[:count]` to the front, in their order; returns how many there are.

    Args:
        values: uint64[count or more], changed; none is 0.
        count: How many there are.
        table: Scratch space, uint64[2^k], at least 8 and 4 * count.
        salt: Odd.
    """
    bits = _bits_for(count)
    mask = (1 << bits) - 1
    table[: mask + 1] = 0
    kept = 0
    for i in range(count):
        value = values[i]
        slot = _slot(value, salt, bits)
        while table[slot] != 0 and table[slot] != value:
            slot = (slot + 1) & mask
        values[kept] = value
        kept += 1 if table[slot] == 0 else 0
        table[slot] = value
    return kept


@njit(cache=True, nogil=True)
def _fit(values: np.ndarray, count: int, table: np.ndarray, salt: np.uint64, most: int, limit: np.uint64) -> Any:
    """Values without repeats, and the limit halved until at most `most` of them are left below it; count and limit."""
    count = distinct(values, count, table, salt)
    while count > most:
        limit = np.uint64(limit >> np.uint64(1))
        kept = 0
        for i in range(count):
            values[kept] = values[i]
            kept += 1 if values[i] <= limit else 0
        count = kept
    return count, limit


@njit(cache=True, nogil=True)
def shingle_sets(
    data: np.ndarray, offsets: np.ndarray, rows: np.ndarray, at: np.ndarray, classes: np.ndarray, ngram: int,
    starts: np.ndarray, whole: np.ndarray, salt: np.uint64, out: np.ndarray, sizes: np.ndarray, limits: np.ndarray,
) -> None:  # fmt: skip
    """Shingle sets of some texts, in the order in which shingles occur first.

    Args:
        data: UTF-8 of all texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].
        rows: The texts wanted, int64[m].
        at: Number of the set that each makes, int64[m].
        classes: `words.table()`.
        ngram: Words in a shingle, at most `PIECE`.
        starts: Where each set goes in `out` and the next one begins, int64[sets + 1].
        whole: Whether there is room between them for all shingles of the text, bool[sets].
        salt: Odd.
        out: Receives the sets, uint64.
        sizes: Receives the size of each set, int64[sets].
        limits: Receives the largest shingle that could be kept of each, `ALL` where all were, uint64[sets].
    """
    carry = ngram - 1
    piece = np.empty(carry + PIECE, np.uint64)
    runs = np.empty(carry + PIECE, np.uint64)
    most = 0
    for place in at:
        most = max(most, starts[place + 1] - starts[place])
    table = np.empty(1 << _bits_for(most), np.uint64)
    for i in range(len(rows)):
        place = at[i]
        begin, stop = offsets[rows[i]], offsets[rows[i] + 1]
        base = starts[place]
        room = starts[place + 1] - base
        held, found, limit = 0, 0, ALL
        while begin < stop:
            count, begin = words.scan_words(data, begin, stop, classes, piece[held : held + PIECE])
            held += count
            if count:  # a piece of fewer than n words is a whole text: PIECE exceeds n
                made = shingles.shingle(piece, held, ngram, runs)
                for j in range(made):
                    if runs[j] <= limit:
                        out[base + found] = max(runs[j], np.uint64(1))  # 0 stands for an empty slot
                        found += 1
                        if found == room and not whole[place]:
                            found, limit = _fit(out[base:], found, table, salt, room // 2, limit)
            if held > carry:
                for j in range(carry):
                    piece[j] = piece[held - carry + j]
                held = carry
        if whole[place]:
            found = distinct(out[base:], found, table, salt)
        else:
            found, limit = _fit(out[base:], found, table, salt, room // 2, limit)
        sizes[place], limits[place] = found, limit


@njit(cache=True, nogil=True)
def jaccard(
    sets: np.ndarray, starts: np.ndarray, sizes: np.ndarray, limits: np.ndarray, left: np.ndarray, right: np.ndarray,
    first: int, last: int, salt: np.uint64, out: np.ndarray,
) -> None:  # fmt: skip
    """Similarity of pairs [first, last) of sets; quickest where equal right ones are neighbours.

    Args:
        sets: Sets without repeats, uint64.
        starts: Where each set begins, int64[n] or longer.
        sizes: Size of each set, int64[n].
        limits: Limit of each set, uint64[n].
        left: Index of each pair's one set, int64[pairs].
        right: Index of its other set, int64[pairs].
        first: First pair.
        last: End of the pairs.
        salt: Odd.
        out: Receives the similarities, float64[pairs].
    """
    room = 0
    for pair in range(first, last):
        room = max(room, sizes[right[pair]])
    table = np.empty(1 << _bits_for(room), np.uint64)
    built, below = -1, ALL  # the set in the table, and the limit it was put there under
    bits, mask, inside = 3, 7, 0
    for pair in range(first, last):
        a, b = left[pair], right[pair]
        limit = min(limits[a], limits[b])
        if built != b or below != limit:
            built, below = b, limit
            bits, inside = _bits_for(sizes[b]), 0
            mask = (1 << bits) - 1
            table[: mask + 1] = 0
            for i in range(starts[b], starts[b] + sizes[b]):
                if sets[i] <= limit:
                    slot = _slot(sets[i], salt, bits)
                    while table[slot] != 0:
                        slot = (slot + 1) & mask
                    table[slot] = sets[i]
                    inside += 1
        shared, total = 0, inside
        for i in range(starts[a], starts[a] + sizes[a]):
            value = sets[i]
            if value <= limit:
                total += 1
                slot = _slot(value, salt, bits)
                while table[slot] != 0 and table[slot] != value:
                    slot = (slot + 1) & mask
                shared += 1 if table[slot] == value else 0
        out[pair] = shared / (total - shared) if total else 0.0
