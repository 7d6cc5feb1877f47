"""All n-grams of many texts, and where each stands: what an index of n-grams is made of.

    text t, its words w_0 …  ->  (gram of w_i … w_{i+n-1},  t,  i,  first byte,  byte behind)      for every i

`kernels.ngram_matches` says what a gram is and looks for it in other texts; n may differ from text to text.

Shapes: grams uint64[g]; places uint32[g, 4]. 24 bytes a word.
"""

import numpy as np
from numba import njit

from ropewalk.kernels.ngram_matches import grams_reference, roll
from ropewalk.kernels.word_borders import same_words, scan_borders, word_borders_reference
from ropewalk.kernels.words import table, words_reference


def text_grams_reference(texts: list[str], ngrams: list[int]) -> list[tuple[int, int, int, int, int]]:
    """(gram, text, first word, first byte, byte behind the last word) of every n-gram of every text."""
    found = []
    for t, (text, n) in enumerate(zip(texts, ngrams, strict=True)):
        borders = word_borders_reference(text)
        for i, gram in enumerate(grams_reference(words_reference(text), n)):
            found.append((gram, t, i, borders[i][0], borders[i + n - 1][1]))
    return found


def text_grams(
    data: np.ndarray, offsets: np.ndarray, words: np.ndarray, word_starts: np.ndarray, ngrams: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams of t texts, text by text, in their order.

    Args:
        data: UTF-8 of the texts, uint8.
        offsets: Where each text begins and the last one ends, int64[t + 1].
        words: Word hashes of all texts, uint64.
        word_starts: Where each text's words begin and the last one's end, int64[t + 1].
        ngrams: Words of an n-gram, for each text: int64[t].

    Returns:
        The grams, uint64[g], and of each its text, first word, first byte and the byte behind it, from the beginning
        of the text: uint32[g, 4].
    """
    counts = np.maximum(np.diff(word_starts) - ngrams + 1, 0)
    grams, places = np.empty(int(counts.sum()), np.uint64), np.empty((int(counts.sum()), 4), np.uint32)
    longest = int(np.diff(word_starts).max(initial=0))
    _text_grams(data, offsets, words, word_starts, ngrams, table(), longest, grams, places)
    return grams, places


@njit(cache=True, nogil=True)
def _text_grams(
    data: np.ndarray, offsets: np.ndarray, words: np.ndarray, word_starts: np.ndarray, ngrams: np.ndarray,
    classes: np.ndarray, longest: int, grams: np.ndarray, places: np.ndarray,
) -> None:  # fmt: skip
    starts, stops = np.empty(longest, np.int64), np.empty(longest, np.int64)
    found = 0
    for t in range(len(ngrams)):
        some = roll(words, word_starts[t], word_starts[t + 1], ngrams[t], grams[found:])
        if some == 0:
            continue
        scan_borders(data, offsets[t], offsets[t + 1], classes, starts, stops)
        for i in range(some):
            places[found, 0], places[found, 1] = t, i
            places[found, 2], places[found, 3] = starts[i] - offsets[t], stops[i + ngrams[t] - 1] - offsets[t]
            found += 1


def same_text(
    data: np.ndarray, borders: np.ndarray, other: np.ndarray, offsets: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Whether passages of one text have the words of n-grams of others: what their hashes only make likely.

    Args:
        data: UTF-8 of the one, uint8.
        borders: First byte of each passage and the byte behind it: int64[m, 2].
        other: UTF-8 of the others, uint8.
        offsets: Where each of them begins and the last one ends, int64[t + 1].
        places: The n-gram each passage is compared with, see `text_grams`: uint32[m, 4].

    Returns:
        bool[m].
    """
    out = np.empty(len(borders), np.bool_)
    _same_text(data, borders, other, offsets, places, table(), out)
    return out


@njit(cache=True, nogil=True)
def _same_text(
    data: np.ndarray, borders: np.ndarray, other: np.ndarray, offsets: np.ndarray, places: np.ndarray,
    classes: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    for i in range(len(borders)):
        start = offsets[np.int64(places[i, 0])]
        first, last = start + np.int64(places[i, 2]), start + np.int64(places[i, 3])
        out[i] = same_words(data, borders[i, 0], borders[i, 1], other, first, last, classes)
