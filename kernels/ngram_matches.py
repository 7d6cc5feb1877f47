"""Where a text holds n-grams of an index: one pass over its bytes, at little more than the price of reading words.

    gram(w_0 … w_{n-1}) = w_0 B^(n-1) + w_1 B^(n-2) + … + w_{n-1}     mod 2^64, w the hashes of `kernels.words`

    words  ->  the gram of every n words, rolled  ->  filter  ->  place in the index            (for several n at once)

It is the shingle of `kernels.shingles` before its last step, which mixes what sums of hashes do not need mixed. Only
whole n-grams count: a text of fewer than n words has none. The text is read in pieces of some thousand words that stay
in the cache; a piece keeps the last n - 1 words of the one before. Nothing is kept of a text without matches, and of
one with many so many at a time.

A hash says that words are equal, it does not prove it: compare with `word_borders.same_words` before telling anybody.
"""

from collections.abc import Iterator

import numpy as np
from numba import njit

from ropewalk.kernels.ngram_index import NgramIndex, pass_filter, place
from ropewalk.kernels.shingles import power
from ropewalk.kernels.word_borders import scan_borders
from ropewalk.kernels.words import hash_reference, scan_words, table, words_reference

_BASE = 0xD6E8FEB86659FD93  # of kernels.shingles
_MASK = (1 << 64) - 1
_PIECE = 2048
"""Words read at a time."""
MOST = 1 << 18
"""Matches that are held at a time, or those of one piece."""


def grams_reference(words: list[str], ngram: int) -> list[int]:
    """The gram of every n words of a list."""
    found = []
    for i in range(len(words) - ngram + 1):
        h = 0
        for word in words[i : i + ngram]:
            h = (h * _BASE + hash_reference(word)) & _MASK
        found.append(h)
    return found


def ngram_matches_reference(text: str, grams: list[int], ngrams: list[int]) -> list[tuple[int, int, int]]:
    """(first word, number of words, place in `grams`) of every match in a text, in no particular order."""
    words = words_reference(text)
    return [
        (i, n, grams.index(gram)) for n in ngrams for i, gram in enumerate(grams_reference(words, n)) if gram in grams
    ]


@njit(cache=True, nogil=True)
def roll(words: np.ndarray, start: int, stop: int, ngram: int, out: np.ndarray) -> int:
    """Grams of words[start:stop] into `out`, uint64; returns their number, which may be 0."""
    if stop - start < ngram:
        return 0
    h, leaving = np.uint64(0), power(ngram)
    for i in range(start, start + ngram - 1):
        h = h * np.uint64(_BASE) + words[i]
    left = np.uint64(0)  # the word in front of the window
    for i in range(start + ngram - 1, stop):
        h = h * np.uint64(_BASE) + (words[i] - leaving * left)
        first = i - ngram + 1
        out[first - start] = h
        left = words[first]
    return stop - start - ngram + 1


def count_matches(
    data: np.ndarray, offsets: np.ndarray, wanted: np.ndarray, index: NgramIndex, ngrams: np.ndarray, out: np.ndarray,
    first: int, last: int,
) -> None:  # fmt: skip
    """Counts the matches of texts [first, last).

    Args:
        data: UTF-8 of the texts, uint8.
        offsets: Where each text begins and the last one ends, int64[n + 1].
        wanted: Texts to look at; others have 0: bool[n].
        index: The n-grams.
        ngrams: Their lengths in words, ascending, int64.
        out: Receives the numbers, int64[n].
        first: First text.
        last: Behind the last text.
    """
    _count(data, offsets, wanted, table(), *index, ngrams, out, first, last)


def matching_grams(data: np.ndarray, start: int, stop: int, index: NgramIndex, ngrams: np.ndarray) -> np.ndarray:
    """Places in the index of the n-grams of a text, ascending and apart: int64."""
    found = [np.unique(places) for _, _, places in ngram_matches(data, start, stop, index, ngrams)]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def ngram_matches(
    data: np.ndarray, start: int, stop: int, index: NgramIndex, ngrams: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The matches of the text in bytes [start, stop) of `data`, see `count_matches`, some at a time.

    Yields:
        First word and number of words of each: int64[count, 2]; its bytes in `data`: int64[count, 2]; its n-gram's
        place in the index: int64[count]. By the piece they end in, then by number of words, then by first word.
    """
    keep = ngrams[-1] - 1
    size = max(MOST, len(ngrams) * (keep + _PIECE))
    words, borders = np.empty((size, 2), np.int64), np.empty((size, 2), np.int64)
    places, buffers = np.empty(size, np.int64), _buffers(ngrams[-1])
    starts, stops = np.empty(keep + _PIECE, np.int64), np.empty(keep + _PIECE, np.int64)
    at, kept, before = start, 0, 0
    while at < stop:
        found, at, kept, before = _matches(
            data, at, stop, table(), *index, ngrams, *buffers, starts, stops, kept, before, words, borders, places
        )
        if found:
            yield words[:found].copy(), borders[:found].copy(), places[:found].copy()


@njit(cache=True, nogil=True)
def _count(
    data: np.ndarray, offsets: np.ndarray, wanted: np.ndarray, classes: np.ndarray, grams: np.ndarray,
    filter_words: np.ndarray, buckets: np.ndarray, ngrams: np.ndarray, out: np.ndarray, first: int, last: int,
) -> None:  # fmt: skip
    words, rolled, passed = _buffers(ngrams[-1])
    for i in range(first, last):
        out[i] = 0
        if wanted[i]:
            out[i] = _grams(
                data, offsets[i], offsets[i + 1], classes, grams, filter_words, buckets, ngrams, words, rolled, passed,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _buffers(longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = longest - 1 + _PIECE
    return np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int64)


@njit(cache=True, nogil=True)
def _grams(
    data: np.ndarray, start: int, stop: int, classes: np.ndarray, grams: np.ndarray, filter_words: np.ndarray,
    buckets: np.ndarray, ngrams: np.ndarray, words: np.ndarray, rolled: np.ndarray, passed: np.ndarray,
) -> int:  # fmt: skip
    """Number of matches of a text."""
    at, kept, found = start, 0, 0
    keep = ngrams[-1] - 1
    while at < stop:
        new, at = scan_words(data, at, stop, classes, words[kept : kept + _PIECE])
        count = kept + new
        for ngram in ngrams:
            some = roll(words, max(kept - ngram + 1, 0), count, ngram, rolled)
            for k in range(pass_filter(rolled, 0, some, filter_words, passed)):
                found += place(grams, buckets, rolled[passed[k]]) >= 0
        kept = _carry(words, count, keep)
    return found


@njit(cache=True, nogil=True)
def _carry(words: np.ndarray, count: int, keep: int) -> int:
    """Moves the last `keep` words to the front; returns how many there are."""
    kept = min(count, keep)
    for j in range(kept):
        words[j] = words[count - kept + j]
    return kept


@njit(cache=True, nogil=True)
def _matches(
    data: np.ndarray, at: int, stop: int, classes: np.ndarray, grams: np.ndarray, filter_words: np.ndarray,
    buckets: np.ndarray, ngrams: np.ndarray, hashes: np.ndarray, rolled: np.ndarray, passed: np.ndarray,
    starts: np.ndarray, stops: np.ndarray, kept: int, before: int, words: np.ndarray, borders: np.ndarray,
    places: np.ndarray,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Matches as long as those of another piece fit: their number, and where to go on.

    `kept` words stand at the front of `hashes`, `starts`, `stops`, and `before` words of the text in front of those.
    """
    keep = ngrams[-1] - 1
    most, found = len(ngrams) * (keep + _PIECE), 0
    while at < stop and found + most <= len(places):
        piece = at
        new, at = scan_words(data, piece, stop, classes, hashes[kept : kept + _PIECE])
        scan_borders(data, piece, at, classes, starts[kept:], stops[kept:])
        count = kept + new
        for ngram in ngrams:
            first = max(kept - ngram + 1, 0)
            some = roll(hashes, first, count, ngram, rolled)
            for k in range(pass_filter(rolled, 0, some, filter_words, passed)):
                where = place(grams, buckets, rolled[passed[k]])
                if where < 0:
                    continue
                i = first + passed[k]
                words[found, 0], words[found, 1] = before + i, ngram
                borders[found, 0], borders[found, 1] = starts[i], stops[i + ngram - 1]
                places[found] = where
                found += 1
        kept = _carry(hashes, count, keep)
        _carry(starts, count, keep)
        _carry(stops, count, keep)
        before += count - kept
    return found, at, kept, before
