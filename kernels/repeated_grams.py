"""How much of a text its repeated n-grams are, for all n from 2 to 10 at once: the repetition rules of Gopher.

    top(n)  characters of the most frequent n-gram, its tokens joined by a space, times its count; the first of equals.
            Occurrences may overlap; an n-gram that occurs once is the most frequent one where none occurs twice
    dup(n)  characters of tokens in n-grams that occurred before: read left to right; an n-gram noted before counts, and
            reading goes on behind its n tokens; a new one is noted, and reading goes on one token further

Rae et al., "Scaling Language Models: Methods, Analysis & Insights from Training Gopher" (arXiv 2112.11446), table A1.
The text does not say how n-grams overlap; this is how datatrove counts them (`kernels.ngram_repeats` does the same for
one n).

An n-gram that occurs twice is made of two (n-1)-grams that do. So only 2-grams are all looked up; then level by level
the list of repeated ones shrinks, each n-gram named by the pair of names of its two halves (Karp, Miller, Rosenberg
1972): no n-gram is hashed, and in prose the list is near empty from n = 5 on.

    tokens   a b c a b d      2-grams  ab bc ca ab bd      repeated: ab at 0, ab at 3

Shapes: hashes uint64[tokens], different for different tokens; lengths int32[tokens]; top int64[11], dup int64[11], by
n. Scratch of 50 to 60 bytes a token.
"""

from collections import Counter
from typing import Any

import numpy as np
from numba import njit

from ropewalk.kernels.shingles import mix

MAX_N = 10
_ODD = 0xD6E8FEB86659FD93
_NAME = (1 << 21) - 1


def top_reference(tokens: list[str], n: int) -> int:
    """`top` in plain Python."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]  # the first of equals, as Counter keeps the order of insertion
    return len(" ".join(gram)) * count


def dup_reference(tokens: list[str], n: int) -> int:
    """`dup` in plain Python."""
    seen: set[tuple[str, ...]] = set()
    chars = at = 0
    while at <= len(tokens) - n:
        gram = tuple(tokens[at : at + n])
        if gram in seen:
            chars += len("".join(gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return chars


@njit(cache=True, nogil=True)
def _slots(grams: int) -> int:
    size = 16
    while size <= grams + grams // 4:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def scratch(tokens: int) -> Any:
    """Arrays for texts of at most so many tokens, 2^20 at most: the hash table, and ten numbers a token."""
    return np.empty(_slots(tokens), np.uint64), np.empty((9, tokens), np.int32)


@njit(cache=True, nogil=True, inline="always")
def _name(table: np.ndarray, mask: np.uint64, key: np.uint64, new: int) -> Any:
    """Name of a key in the table; `new` if it had none.

    A slot holds the key's upper 43 bits and its name + 1, or 0; the key's lower bits say where it belongs.
    """
    slot = key & mask
    upper = key & ~np.uint64(_NAME)
    while table[slot] != np.uint64(0):
        if table[slot] & ~np.uint64(_NAME) == upper:
            return np.int64(table[slot] & np.uint64(_NAME)) - 1
        slot = (slot + np.uint64(1)) & mask
    table[slot] = upper | np.uint64(new + 1)
    return new


@njit(cache=True, nogil=True)
def repeated_grams(
    hashes: np.ndarray, lengths: np.ndarray, count: int, arrays: Any, top: np.ndarray, dup: np.ndarray
) -> None:
    """Adds to `top` and `dup`, by n, the characters of a text's repeated n-grams.

    Args:
        hashes: Hash of each token.
        lengths: Codepoints of each token.
        count: Number of tokens, at most 2^20.
        arrays: `scratch` for as many.
        top: Added to at 2, 3, 4.
        dup: Added to at 5 … 10.
    """
    table, numbers = arrays
    places, names, firsts, follower, followed = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    counts, before, noted = numbers[5], numbers[6], numbers[7]
    # The list of n-grams that may repeat, ascending: `places` and `names`. Of a name: how often it occurs (`counts`;
    # `before`: of the level before), where first, and the (n+1)-gram that its first follower makes of it.
    grams, kinds_before = count - 1, 0
    for n in range(2, MAX_N + 1):
        if grams <= 0:
            if n < 5:
                top[n] += _top(lengths, count, firsts, counts, 0, n)
            continue
        size = _slots(grams)
        table[:size] = np.uint64(0)
        mask = np.uint64(size - 1)
        follower[:kinds_before] = np.int32(-1)
        kinds = kept = at = chars = 0
        for k in range(grams):
            i = np.uint64(k)
            if n == 2:
                place = np.int64(k)
                name = _name(table, mask, hashes[i] * np.uint64(_ODD) + hashes[i + np.uint64(1)], kinds)
            else:
                place = np.int64(places[i])
                if k + 1 == grams:
                    continue
                a, b = names[i], names[i + np.uint64(1)]
                if places[i + np.uint64(1)] != place + 1 or before[np.uint64(a)] < 2 or before[np.uint64(b)] < 2:
                    continue  # a part of it occurs once only, and so does it
                if follower[np.uint64(a)] == b:
                    name = np.int64(followed[np.uint64(a)])
                else:
                    name = _name(table, mask, mix(np.uint64(a) << np.uint64(32) | np.uint64(b)), kinds)
                    if follower[np.uint64(a)] < 0:
                        follower[np.uint64(a)], followed[np.uint64(a)] = b, np.int32(name)
            key = np.uint64(name)
            if name == kinds:
                kinds += 1
                counts[key], firsts[key], noted[key] = 0, np.int32(place), 0
            counts[key] += np.int32(1)
            if place >= at:
                if noted[key]:
                    for token in range(place, place + n):
                        chars += lengths[np.uint64(token)]
                    at = int(place + n)
                else:
                    noted[key] = 1
            places[np.uint64(kept)], names[np.uint64(kept)] = np.int32(place), np.int32(name)
            kept += 1
        if n < 5:
            top[n] += _top(lengths, count, firsts, counts, kinds, n)
        else:
            dup[n] += chars
        grams, kinds_before = kept, kinds
        counts, before = before, counts


@njit(cache=True, nogil=True)
def _top(lengths: np.ndarray, count: int, firsts: np.ndarray, counts: np.ndarray, kinds: int, n: int) -> int:
    """Names are in the order of first occurrence, so the first of equals has the least."""
    if count < n:
        return 0
    place, most = 0, 1
    for name in range(kinds):
        if counts[name] > most:
            place, most = firsts[name], counts[name]
    chars = n - 1
    for token in range(place, place + n):
        chars += lengths[token]
    return chars * most
