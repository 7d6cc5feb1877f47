"""The rules: which items of benchmarks one document holds, and where.

    matches    n-grams of the index in the document, those in too many documents left out, words compared letter by
               letter; or, with `skips`, the longer matches that grow from them
    share      of each text of an item, what matches: its words, or its n-grams
    verdict    items with a text whose share is reached
    spans      matches of those, joined where they touch. A passage that several items of a benchmark share is named
               after the one of which the document holds most

Matches are looked at some at a time, twice where n-grams are the matches: a document can hold as many as words.

What each rule's paper says, and how it is read here: docs/decontamination.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ropewalk.kernels.ngram_matches import ngram_matches
from ropewalk.kernels.skip_matches import skip_matches
from ropewalk.kernels.text_grams import same_text
from ropewalk.kernels.word_borders import word_borders
from ropewalk.kernels.words import word_hashes
from ropewalk.schemas.decontaminate import DecontaminateConfig
from ropewalk.transforms.benchmark_index import BenchmarkIndex

MAX_SEEDS = 1 << 22
"""Most pairs of a place in the document and one in an item that matches with skips begin from."""
BUDGET = 1 << 28
"""Most words compared for one document after them. Only texts of endless repetition come near."""


@dataclass(frozen=True)
class Finding:
    """What one document holds.

    Attributes:
        spans: (first byte, byte behind, item) of each passage, ascending.
        items: Items that are contaminated, ascending: int64.
        touched: Items of which at least `clean_below` is there, but less than `share`: int64.
        complete: False if the search was cut short: see `MAX_SEEDS`.
    """

    spans: list[tuple[int, int, int]]
    items: np.ndarray
    touched: np.ndarray
    complete: bool = True


@dataclass(frozen=True)
class _Cover:
    """What of the items' texts matches.

    Attributes:
        texts: The texts with a match, int64[k], ascending.
        covered: Their words, or n-grams, that match: int64[k].
        total: All they have: int64[k].
    """

    texts: np.ndarray
    covered: np.ndarray
    total: np.ndarray

    def reaching(self, share: float) -> np.ndarray:
        """Which of the texts reach a share, bool[k]."""
        reached: np.ndarray = self.covered / self.total >= share
        return reached


def find(text: np.ndarray, index: BenchmarkIndex, ignored: np.ndarray, config: DecontaminateConfig) -> Finding:
    """Judges one document.

    Args:
        text: Its UTF-8, uint8.
        index: The benchmarks.
        ignored: N-grams that do not count, bool[g].
        config: The rule.
    """
    if config.skips is None:
        return _by_ngrams(text, index, ignored, config)
    return _with_skips(text, index, ignored, config)


def _matches(
    text: np.ndarray, index: BenchmarkIndex, ignored: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Those of `ngram_matches` that count, some at a time."""
    data, offsets = index.texts
    for words, borders, grams in ngram_matches(text, 0, len(text), index.grams, np.unique(index.ngrams)):
        real = ~ignored[grams]
        # A hash of n words cannot pass for one of m: all words of both are compared.
        real[real] = same_text(text, borders[real], data, offsets, index.places[index.starts[grams[real]]])
        if real.any():
            yield words[real], borders[real], grams[real]


def _by_ngrams(text: np.ndarray, index: BenchmarkIndex, ignored: np.ndarray, config: DecontaminateConfig) -> Finding:
    parts = [np.unique(grams) for _, _, grams in _matches(text, index, ignored)]
    if not parts:
        return Finding([], np.empty(0, np.int64), np.empty(0, np.int64))
    distinct = np.unique(np.concatenate(parts))
    where, owner = _expand(index.starts[distinct], index.starts[distinct + 1])
    texts, first = index.places[where, 0].astype(np.int64), index.places[where, 1].astype(np.int64)
    if config.share_of == "words" and config.share > 0:
        cover = _cover_words(texts, first, _lengths(texts, index), index)
    else:
        names, covered = _count(texts, len(index.word_starts) - 1)
        cover = _Cover(names, covered, np.diff(index.word_starts)[names] - _lengths(names, index) + 1)
    items, touched, chosen = _verdict(cover, index, config)

    # The text each n-gram is named after, for each benchmark: the first of those the document holds most of. Places of
    # an n-gram are in the order of texts, and so of benchmarks: each group is a run.
    row = np.searchsorted(cover.texts, texts)
    wanted = chosen[row]
    row, owner = row[wanted], owner[wanted]
    benchmark = index.benchmark_of[index.item_of[cover.texts]][row]
    runs = np.flatnonzero(_changes(owner) | _changes(benchmark))
    size = len(cover.texts)
    best = np.maximum.reduceat(cover.covered[row] * size + size - 1 - row, runs) if len(runs) else runs
    owner, item = owner[runs], index.item_of[cover.texts[size - 1 - best % size]]

    joined = [np.empty((5, 0), np.int64)]
    for words, borders, grams in _matches(text, index, ignored) if len(item) else ():
        gram_of = np.searchsorted(distinct, grams)
        begins = np.searchsorted(owner, gram_of, side="left")
        which, match = _expand(begins, np.searchsorted(owner, gram_of, side="right"))
        first, behind = words[match, 0], words[match].sum(axis=1)
        joined.append(_join(first, behind, borders[match, 0], borders[match, 1], item[which]))
    return Finding(_spans(_join(*np.concatenate(joined, axis=1))), items, touched)


def _seeds(text: np.ndarray, index: BenchmarkIndex, ignored: np.ndarray) -> tuple[np.ndarray, bool]:
    """What `skip_matches` begins from, by first word, and whether these are all: int64[s, 3]."""
    seeds = [np.empty((0, 3), np.int64)]
    room = MAX_SEEDS
    for words, _, grams in _matches(text, index, ignored):  # n-grams of one length: by first word
        sizes = np.cumsum(index.starts[grams + 1] - index.starts[grams])
        enough = int(np.searchsorted(sizes, room, side="right"))
        where, match = _expand(index.starts[grams[:enough]], index.starts[grams[:enough] + 1])
        seeds.append(np.column_stack([words[match, 0], index.places[where, :2].astype(np.int64)]))
        room -= len(where)
        if enough < len(grams):
            return np.concatenate(seeds), False
    return np.concatenate(seeds), True


def _with_skips(text: np.ndarray, index: BenchmarkIndex, ignored: np.ndarray, config: DecontaminateConfig) -> Finding:
    assert config.skips is not None and config.ngram is not None
    seeds, enough = _seeds(text, index, ignored)
    if not len(seeds):
        return Finding([], np.empty(0, np.int64), np.empty(0, np.int64), complete=enough)
    own, _ = word_hashes(text, np.array([0, len(text)], np.int64))
    found, in_budget = skip_matches(own, seeds, index.words, index.word_starts, config.ngram, config.skips, BUDGET)
    cover = _cover_words(found[:, 1], found[:, 2], found[:, 3], index)
    items, touched, chosen = _verdict(cover, index, config)

    row = np.searchsorted(cover.texts, found[:, 1])
    found, row = found[chosen[row]], row[chosen[row]]
    starts, stops = word_borders(text)
    item = index.item_of[found[:, 1]]
    benchmark = index.benchmark_of[item]
    # Of each benchmark, the longest match at each place; what lies inside one that was told is not told again.
    order = np.lexsort((item, -cover.covered[row], -found[:, 3], found[:, 0], benchmark))
    found, item, benchmark = found[order], item[order], benchmark[order]
    behind = found[:, 0] + found[:, 3]
    told = np.ones(len(found), bool)
    for name in np.unique(benchmark):
        here = np.flatnonzero(benchmark == name)
        furthest = np.maximum.accumulate(behind[here])
        told[here[1:]] = behind[here[1:]] > furthest[:-1]
    first, last = found[told, 0], behind[told]
    spans = _spans(_join(first, last, starts[first], stops[last - 1], item[told]))
    return Finding(spans, items, touched, complete=in_budget and enough)


def _expand(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of the ranges [begin, end), and the range of each: int64[m] twice."""
    sizes = ends - begins
    owner = np.repeat(np.arange(len(sizes)), sizes)
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.repeat(begins, sizes) + inside, owner


def _lengths(texts: np.ndarray, index: BenchmarkIndex) -> np.ndarray:
    """Words of an n-gram of each text."""
    lengths: np.ndarray = index.ngrams[index.benchmark_of[index.item_of[texts]]]
    return lengths


def _count(numbers: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The different numbers below `size`, ascending, and how often each occurs; quicker than sorting many."""
    if len(numbers) * 16 < size:
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers, minlength=size)
    names = np.flatnonzero(counts)
    return names, counts[names]


def _cover_words(texts: np.ndarray, first: np.ndarray, length: np.ndarray, index: BenchmarkIndex) -> _Cover:
    """Words of the texts in matches, given by text, first word in it and number of words; overlaps count once."""
    order = np.lexsort((first, texts))
    texts, first, length = texts[order], first[order], length[order]
    names, rows = np.unique(texts, return_inverse=True)
    # A word belongs to the first match that reaches it: the texts are laid one behind the other for a running maximum.
    begin = index.word_starts[texts] + first
    behind = begin + length
    new = behind - np.maximum(begin, _before(np.maximum.accumulate(behind)))
    covered = np.bincount(rows, np.maximum(new, 0), minlength=len(names)).astype(np.int64)
    return _Cover(names, covered, np.diff(index.word_starts)[names])


def _before(values: np.ndarray) -> np.ndarray:
    """The value in front of each; 0 in front of the first."""
    return np.concatenate([values[:0], [0], values[:-1]])[: len(values)]


def _changes(values: np.ndarray) -> np.ndarray:
    """Whether each value differs from the one in front of it: bool, true for the first."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]


def _verdict(
    cover: _Cover, index: BenchmarkIndex, config: DecontaminateConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contaminated items, touched ones, and which of the texts are contaminated: int64, int64, bool[k]."""
    chosen = cover.reaching(config.share)
    items = np.unique(index.item_of[cover.texts[chosen]])
    if config.clean_below is None:
        return items, items[:0], chosen
    near = cover.reaching(config.clean_below)
    return items, np.setdiff1d(index.item_of[cover.texts[near]], items), chosen


def _join(first: np.ndarray, behind: np.ndarray, start: np.ndarray, stop: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Joins matches of one item where their words overlap or touch: the same five columns again, int64[5, runs]."""
    order = np.lexsort((behind, first, item))
    first, behind, start, stop, item = (column[order] for column in (first, behind, start, stop, item))
    # Items are laid one behind the other, so that the furthest word reached says nothing across them.
    step = int(behind.max(initial=0)) + 1
    rank = np.cumsum(_changes(item))
    furthest = np.maximum.accumulate(rank * step + behind)
    runs = np.flatnonzero(rank * step + first > _before(furthest))
    if not len(runs):
        return np.empty((5, 0), np.int64)
    ends = np.maximum.reduceat(behind, runs), np.maximum.reduceat(stop, runs)
    return np.stack([first[runs], ends[0], start[runs], ends[1], item[runs]])


def _spans(joined: np.ndarray) -> list[tuple[int, int, int]]:
    """Bytes and item of what `_join` has joined, ascending."""
    return sorted(zip(*joined[2:].tolist(), strict=True))
