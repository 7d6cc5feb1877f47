"""N-gram index, matches, borders and skip matches against plain Python."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.kernels import ngram_index, ngram_matches, skip_matches, text_grams, word_borders
from ropewalk.kernels.words import table, word_hashes, words_reference

ALPHABET = "aAbé  .,\n'0٣東京กİßa\u0301𝔸𠀀😀\u200f\x00"
TEXTS = st.text(st.sampled_from(ALPHABET), max_size=40)
SPOKEN = st.lists(st.sampled_from("a b c A 東".split()), max_size=40).map(" ".join)


def octets(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    raw = [text.encode() for text in texts]
    return np.frombuffer(b"".join(raw) or b"\0", np.uint8), np.cumsum([0, *map(len, raw)]).astype(np.int64)


@settings(deadline=None)
@given(st.one_of(TEXTS, st.text(max_size=40)))
def test_borders_of_words(text):
    data = np.frombuffer(text.encode(), np.uint8)
    starts, stops = word_borders.word_borders(data)
    spans = list(zip(starts.tolist(), stops.tolist(), strict=True))
    assert spans == word_borders.word_borders_reference(text)
    # They are the words that kernels.words hashes, one by one.
    words = [text.encode()[a:b].decode() for a, b in spans]
    assert [w for word in words for w in words_reference(word)] == words_reference(text)
    assert word_hashes(*octets(words))[0].tolist() == word_hashes(*octets([text]))[0].tolist()


@settings(deadline=None)
@given(TEXTS, TEXTS)
@example("東a", "東 A.")
@example("a東", "a, 東")
@example("ab", "a b")
@example("a", "")
def test_same_words(a, b):
    x, y = (np.frombuffer(text.encode() or b" ", np.uint8) for text in (a, b))
    found = word_borders.same_words(x, 0, len(x), y, 0, len(y), table())
    assert found == word_borders.same_words_reference(a, b)


def test_same_words_of_one_text_in_other_spelling():
    a, b = "Don't panic: 東京 Ends", "DON'T... Panic 東 京\u3000ends!"
    x, y = (np.frombuffer(text.encode(), np.uint8) for text in (a, b))
    assert word_borders.same_words(x, 0, len(x), y, 0, len(y), table())
    assert not word_borders.same_words(x, 0, len(x) - 1, y, 0, len(y), table())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 70_000])
def test_index_finds_what_it_holds(count):
    random = np.random.default_rng(count)
    grams = np.unique(random.integers(0, 2**64 - 1, count, dtype=np.uint64))
    if count > 2:
        grams = np.unique(np.concatenate([grams, np.array([0, 2**64 - 1, 2**63], np.uint64)]))
    index = ngram_index.build(grams)
    others = random.integers(0, 2**64 - 1, 50_000, dtype=np.uint64)
    asked = np.concatenate([grams, others])
    passed = np.empty(len(asked), np.int64)
    some = ngram_index.pass_filter(asked, 0, len(asked), index.filter_words, passed)
    assert set(range(len(grams))) <= set(passed[:some].tolist())
    assert some - len(grams) < 0.03 * len(others)
    for at in [*range(0, len(grams), 97), len(grams) - 1] if count else []:
        assert ngram_index.place(grams, index.buckets, grams[at]) == at
    held = grams.tolist()
    for gram in others[:100]:
        assert ngram_index.place(grams, index.buckets, gram) == ngram_index.place_reference(held[:2000], int(gram))


def matches(text, index, ngrams, data=None, start=0):
    data = np.frombuffer(text.encode() or b"\0", np.uint8) if data is None else data
    stop = start + len(text.encode())
    counts = np.full(1, -1, np.int64)
    offsets = np.array([start, stop], np.int64)
    ngram_matches.count_matches(data, offsets, np.ones(1, bool), index, ngrams, counts, 0, 1)
    parts = [*ngram_matches.ngram_matches(data, start, stop, index, ngrams)]
    nothing = np.empty((0, 2), np.int64), np.empty((0, 2), np.int64), np.empty(0, np.int64)
    words, borders, places = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    assert len(places) == counts[0]
    assert ngram_matches.matching_grams(data, start, stop, index, ngrams).tolist() == sorted(set(places.tolist()))
    spans = [data[a:b].tobytes().decode() for a, b in borders.tolist()]
    return [(*word, place) for word, place in zip(words.tolist(), places.tolist(), strict=True)], spans


@settings(deadline=None)
@given(st.lists(SPOKEN, max_size=4), SPOKEN, st.sets(st.integers(1, 5), min_size=1))
def test_matches_in_small_vocabularies(items, text, lengths):
    ngrams = np.array(sorted(lengths), np.int64)
    grams = sorted(
        {g for item in items for n in lengths for g in ngram_matches.grams_reference(words_reference(item), n)}
    )
    index = ngram_index.build(np.array(grams, np.uint64))
    found, spans = matches(text, index, ngrams)
    assert sorted(found) == sorted(ngram_matches.ngram_matches_reference(text, grams, sorted(lengths)))
    words = words_reference(text)
    assert [words_reference(span) for span in spans] == [words[i : i + n] for i, n, _ in found]


@pytest.mark.parametrize("ngrams", [[1], [13], [8, 13], [64]])
def test_matches_across_pieces_and_inside_a_buffer(ngrams):
    random = np.random.default_rng(1)
    words = [f"w{i}" for i in random.integers(0, 500, 3 * ngram_matches._PIECE)]
    some = [0, 2030, 2040, 2047, 2048, 4090, len(words) - 64]
    grams = sorted({ngram_matches.grams_reference(words[i : i + n], n)[0] for i in some for n in ngrams})
    index = ngram_index.build(np.array(grams, np.uint64))
    text = " ".join(words)
    data = np.frombuffer(f"東w1 {text} w1".encode(), np.uint8)
    found, spans = matches(text, index, np.array(ngrams), data, len("東w1 ".encode()))
    expected = [
        (i, n, grams.index(gram))
        for n in ngrams
        for i, gram in enumerate(ngram_matches.grams_reference(words, n))
        if gram in grams
    ]
    assert sorted(found) == sorted(expected) and len(found) >= len(some) * len(ngrams)
    assert spans == [" ".join(words[i : i + n]) for i, n, _ in found]


def test_matches_come_so_many_at_a_time(monkeypatch):
    index = ngram_index.build(np.array(ngram_matches.grams_reference(["a"] * 3, 3), np.uint64))
    data = np.frombuffer(b"a " * 20_000, np.uint8)
    monkeypatch.setattr(ngram_matches, "MOST", 5000)
    parts = [*ngram_matches.ngram_matches(data, 0, len(data), index, np.array([3]))]
    assert len(parts) > 3 and max(len(places) for _, _, places in parts) <= 5000
    assert np.concatenate([words[:, 0] for words, _, _ in parts]).tolist() == list(range(19_998))


def test_unwanted_texts_and_ranges_are_left_alone():
    data, offsets = octets(["a b c", "a b c", "a b", "a b c"])
    index = ngram_index.build(np.array(ngram_matches.grams_reference(["a", "b", "c"], 3), np.uint64))
    counts = np.full(4, -1, np.int64)
    wanted = np.array([True, False, True, True])
    ngram_matches.count_matches(data, offsets, wanted, index, np.array([3]), counts, 0, 3)
    assert counts.tolist() == [1, 0, 0, -1]


@settings(deadline=None)
@given(st.lists(st.tuples(SPOKEN, st.integers(1, 4)), max_size=5))
def test_grams_of_texts(parts):
    texts, lengths = [text for text, _ in parts], [n for _, n in parts]
    data, offsets = octets(texts)
    words, starts = word_hashes(data, offsets)
    grams, places = text_grams.text_grams(data, offsets, words, starts, np.array(lengths, np.int64))
    found = [(gram, *place) for gram, place in zip(grams.tolist(), places.tolist(), strict=True)]
    assert found == text_grams.text_grams_reference(texts, lengths)


def test_same_text_tells_equal_hashes_from_equal_words():
    items, text = ["One two, three four", "two three"], "zero ONE two three"
    data, offsets = octets(items)
    own = np.frombuffer(text.encode(), np.uint8)
    places = np.array([[0, 0, 0, 14], [0, 0, 0, 14], [1, 0, 0, 9]], np.uint32)
    borders = np.array([[5, 18], [0, 12], [9, 18]])
    assert text_grams.same_text(own, borders, data, offsets, places).tolist() == [True, False, True]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=30),
    st.lists(st.lists(st.integers(0, 2), max_size=25), min_size=1, max_size=3),
    st.integers(1, 4), st.integers(0, 3),
)  # fmt: skip
def test_matches_with_skips(document, items, ngram, skips):
    hashes = np.array(document, np.uint64)
    flat = np.array([word for item in items for word in item], np.uint64)
    starts = np.cumsum([0, *map(len, items)]).astype(np.int64)
    seeds = [
        (i, t, j)
        for i in range(len(document) - ngram + 1)
        for t, item in enumerate(items)
        for j in range(len(item) - ngram + 1)
        if document[i : i + ngram] == item[j : j + ngram]
    ]
    found, enough = skip_matches.skip_matches(
        hashes, np.array(seeds, np.int64).reshape(-1, 3), flat, starts, ngram, skips, 1 << 20
    )
    assert enough

    def covered(matches):
        pairs = [((("document", i + k)), ("item", t, j + k)) for i, t, j, length in matches for k in range(length)]
        return {place for pair in pairs for place in pair}, {(i + n, t, j + n) for i, t, j, n in matches}

    every = [
        (i, t, j, length)
        for t, item in enumerate(items)
        for i, j, length in skip_matches.skip_matches_reference(document, item, ngram, skips)
    ]
    assert set(map(tuple, found.tolist())) <= set(every)
    assert covered(found.tolist()) == covered(every)


def test_skips_end_with_a_word_that_agrees():
    item = list(range(100, 120))
    document = [*item[:10], 1, item[11], 2, *item[13:16], 3, 4, 5, item[19]]
    assert [m[2] for m in skip_matches.skip_matches_reference(document, item, 10, 4)] == [16]
    assert [m[2] for m in skip_matches.skip_matches_reference(document, item, 10, 5)] == [20]
    assert skip_matches.skip_matches_reference(item[:10], item, 10, 4) == []  # not longer than the seed
    assert skip_matches.skip_matches_reference([*item[:10], 1, 1], item, 10, 4) == []


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=25),
    st.lists(st.lists(st.integers(0, 2), max_size=20), min_size=1, max_size=3),
    st.integers(1, 3), st.integers(0, 2), st.sets(st.integers(0, 60)),
)  # fmt: skip
def test_only_given_seeds_are_followed_and_all_of_them(document, items, ngram, skips, ignored):
    seeds = [
        (i, t, j)
        for i in range(len(document) - ngram + 1)
        for t, item in enumerate(items)
        for j in range(len(item) - ngram + 1)
        if document[i : i + ngram] == item[j : j + ngram]
    ]
    seeds = [seed for number, seed in enumerate(seeds) if number not in ignored]
    flat = np.array([word for item in items for word in item], np.uint64)
    starts = np.cumsum([0, *map(len, items)]).astype(np.int64)
    given_ = np.array(seeds, np.int64).reshape(-1, 3)[::-1]  # in any order
    hashes = np.array(document, np.uint64)
    found, _ = skip_matches.skip_matches(hashes, given_, flat, starts, ngram, skips, 1 << 20)
    every = {
        (i, t, j, length)
        for t, item in enumerate(items)
        for i, j, length in skip_matches.skip_matches_reference(document, item, ngram, skips)
        if (i, t, j) in seeds
    }
    assert set(map(tuple, found.tolist())) <= every
    covered = [{(i + k, t, j + k) for i, t, j, length in rows for k in range(length)} for rows in (found, every)]
    assert covered[0] == covered[1]


def test_endless_repetition_is_cut_short():
    document, item = np.zeros(1000, np.uint64), np.zeros(500, np.uint64)
    seeds = np.array([(i, 0, 0) for i in range(900)], np.int64)
    found, enough = skip_matches.skip_matches(document, seeds, item, np.array([0, 500]), 10, 4, 10_000)
    assert not enough and 0 < len(found) < 30
