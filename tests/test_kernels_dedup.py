import datasketch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import bands, jaccard, minhash, shingles, sketch, words

SETTINGS = settings(max_examples=100, deadline=None)
UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.sampled_from("abcdefg .,é東ไ\n"), max_size=60)


def laid(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0] + [len(e) for e in encoded]).astype(np.int64)
    return np.frombuffer(b"".join(encoded) + b"\0", np.uint8), offsets


def sketched(texts, *, ngram=5, num_perm=16, seed=1, wanted=None):
    data, offsets = laid(texts)
    a, b = minhash.permutations(num_perm, seed)
    exact, num_words = np.zeros((len(texts), 2), np.uint64), np.zeros(len(texts), np.int64)
    signatures = np.full((len(texts), num_perm), minhash.EMPTY, np.uint32)
    wanted = np.ones(len(texts), bool) if wanted is None else wanted
    sketch.sketch(
        data, offsets, wanted, 0, len(texts), words.table(), ngram, a, b, seed, exact, num_words, signatures
    )  # fmt: skip
    return exact, num_words, signatures


def shingles_of(text: str, ngram: int) -> list[int]:
    return shingles.shingles_reference([words.hash_reference(t) for t in words.words_reference(text)], ngram)


@SETTINGS
@given(st.lists(st.lists(UINT64, max_size=12), max_size=4), st.integers(1, 6))
def test_shingles_are_those_of_the_reference(texts, ngram):
    borders = np.cumsum([0] + [len(t) for t in texts]).astype(np.int64)
    found, starts = shingles.shingles(np.array([w for t in texts for w in t], np.uint64), borders, ngram)
    expected = [shingles.shingles_reference(t, ngram) for t in texts]
    assert [found[i:j].tolist() for i, j in zip(starts[:-1], starts[1:], strict=True)] == expected
    assert [len(e) for e in expected] == [max(len(t) - ngram + 1, 1) if t else 0 for t in texts]


def test_shingles_tell_order_and_length_apart():
    seen = {tuple(t): shingles.shingles_reference(t, 3)[0] for t in ([1], [1, 1], [1, 2], [2, 1], [1, 2, 3], [3, 2, 1])}
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize(("num_perm", "seed"), [(112, 1), (128, 1), (260, 42), (5, 0)])
def test_signature_is_datasketchs_bit_for_bit(num_perm, seed):
    values = np.random.default_rng(num_perm).integers(0, 2**32, 700, dtype=np.uint32)
    borders = np.array([0, 0, 1, 3, 200, 700])
    oracle = []
    for first, stop in zip(borders[:-1], borders[1:], strict=True):
        m = datasketch.MinHash(num_perm=num_perm, seed=seed, hashfunc=lambda v: v, scheme="affine32")
        m.update_batch(values[first:stop].tolist())
        oracle.append(m.hashvalues)
    found = minhash.minhash(values, borders, *minhash.permutations(num_perm, seed))
    assert found.dtype == np.uint32 and np.array_equal(found, np.stack(oracle))
    assert np.array_equal(found, minhash.minhash_reference(values, borders, *minhash.permutations(num_perm, seed)))


def test_signature_of_a_text_is_datasketchs_bit_for_bit():
    text = "The quick brown fox jumps over the lazy dog, 東京 and back again " * 3
    m = datasketch.MinHash(num_perm=112, seed=1, hashfunc=lambda v: v & 0xFFFFFFFF, scheme="affine32")
    m.update_batch(shingles_of(text, 5))
    assert np.array_equal(sketched([text], num_perm=112)[2][0], m.hashvalues)


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 5000])
def test_long_sets_are_sketched_in_blocks(size):
    values = np.random.default_rng(size).integers(0, 2**64, size, dtype=np.uint64)
    a, b = minhash.permutations(6, 3)
    borders = np.array([0, size])
    assert np.array_equal(minhash.minhash(values, borders, a, b), minhash.minhash_reference(values, borders, a, b))


@pytest.mark.parametrize("shared", [0.2, 0.5, 0.9])
def test_estimate_is_unbiased(shared):
    # The estimate's standard deviation over 128 permutations is sqrt(J (1 - J) / 128); its mean over 2,000 pairs has a
    # 45th of that. Five of those, and a spread within 15 % of the law's.
    random = np.random.default_rng(7)
    pairs, size, num_perm = 2000, 100, 128
    common = round(2 * size * shared / (1 + shared))
    similarity = common / (2 * size - common)
    values = random.integers(0, 2**32, (pairs, 2 * size - common), dtype=np.uint32)
    sets = np.concatenate([values[:, :size], values[:, size - common :]], axis=1).reshape(-1)
    signatures = minhash.minhash(sets, np.arange(0, len(sets) + 1, size), *minhash.permutations(num_perm, 1))
    estimate = (signatures[0::2] == signatures[1::2]).mean(axis=1)
    sigma = np.sqrt(similarity * (1 - similarity) / num_perm)
    assert abs(estimate.mean() - similarity) < 5 * sigma / np.sqrt(pairs)
    assert abs(estimate.std() / sigma - 1) < 0.15


@SETTINGS
@given(st.lists(TEXT, max_size=4), st.integers(1, 5))
def test_sketch_is_the_kernels_one_after_the_other(texts, ngram):
    exact, num_words, signatures = sketched(texts, ngram=ngram)
    a, b = minhash.permutations(16, 1)
    for i, text in enumerate(texts):
        made = shingles_of(text, ngram)
        low = np.array([s & 0xFFFFFFFF for s in made], np.uint32)
        assert tuple(exact[i].tolist()) == sketch.exact_hash_reference(text)
        assert num_words[i] == len(words.words_reference(text))
        assert np.array_equal(signatures[i], minhash.minhash_reference(low, np.array([0, len(low)]), a, b)[0])


@pytest.mark.parametrize("count", [sketch.BLOCK + d for d in (-1, 0, 1, 3, 4, 5)] + [2 * sketch.BLOCK + 1])
@pytest.mark.parametrize("ending", ["", " ...", "."])
def test_texts_around_the_block_size(count, ending):
    text = " ".join(f"w{i * 7919 % 1009}" for i in range(count)) + ending
    exact, num_words, signatures = sketched([text])
    low = np.array([s & 0xFFFFFFFF for s in shingles_of(text, 5)], np.uint32)
    expected = minhash.minhash_reference(low, np.array([0, len(low)]), *minhash.permutations(16, 1))
    assert num_words[0] == count and np.array_equal(signatures, expected)
    assert tuple(exact[0].tolist()) == sketch.exact_hash_reference(text)


def test_exact_hash_looks_through_case_and_punctuation_only():
    texts = ["Hello, World 1", "hello world... 1", "hello world 2", "world hello 1", "!!!", "???", "!!!", ""]
    exact, num_words, signatures = sketched(texts)
    keys = [tuple(row) for row in exact.tolist()]
    assert keys[0] == keys[1] and keys[4] == keys[6] and len(set(keys)) == 6
    assert num_words.tolist() == [3, 3, 3, 3, 0, 0, 0, 0] and (signatures[4:] == minhash.EMPTY).all()


def test_unwanted_texts_are_left_alone():
    exact, num_words, signatures = sketched(["some words", "more words"], wanted=np.array([False, True]))
    assert not exact[0].any() and num_words.tolist() == [0, 2] and (signatures[0] == minhash.EMPTY).all()


@SETTINGS
@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 4), st.data())
def test_band_keys_are_those_of_the_reference(count, number, rows, data):
    values = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=count * number * rows, max_size=999))
    signatures = np.array(values[: count * number * rows], np.uint32).reshape(count, number * rows)
    found = bands.band_keys(signatures, number, rows)
    assert np.array_equal(found, bands.band_keys_reference(signatures, number, rows))


def test_equal_bands_at_different_places_have_different_keys():
    assert len(set(bands.band_keys(np.full((1, 12), 7, np.uint32), 4, 3)[0].tolist())) == 4
    with pytest.raises(ValueError, match="need 12 values, got 11"):
        bands.band_keys(np.zeros((1, 11), np.uint32), 4, 3)


@pytest.mark.parametrize(
    ("number", "rows", "middle", "curve"),
    [
        (14, 8, 0.719, [0.053, 0.211, 0.565, 0.772, 0.924, 0.988]),
        (20, 13, 0.794, [0.002, 0.026, 0.177, 0.382, 0.677, 0.924]),
        (9, 13, 0.844, [0.001, 0.012, 0.084, 0.195, 0.399, 0.686]),
    ],
)
def test_s_curve_has_the_published_values(number, rows, middle, curve):
    assert bands.midpoint(number, rows) == pytest.approx(middle, abs=6e-4)
    found = [bands.match_probability(s, number, rows) for s in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85)]
    assert found == pytest.approx(curve, abs=6e-4)


SALT = np.uint64(0x9E3779B97F4A7C15)


@SETTINGS
@given(st.lists(st.one_of(UINT64, st.integers(2**63, 2**63 + 3)).filter(bool), max_size=80), UINT64)
def test_distinct_keeps_the_first_of_each_whatever_the_salt(values, salt):
    array = np.array(values, np.uint64)
    kept = jaccard.distinct(array, len(array), np.full(512, 7, np.uint64), np.uint64(salt | 1))
    assert array[:kept].tolist() == list(dict.fromkeys(values))


def sets_of(texts, rows, ngram, room):
    """Sets of some texts, each with so many places, and their limits."""
    data, offsets = laid(texts)
    most = (np.diff(offsets)[rows] + 1) // 2
    starts = np.concatenate([[0], np.cumsum(np.minimum(most, room))]).astype(np.int64)
    sets, sizes = np.empty(starts[-1], np.uint64), np.zeros(len(rows), np.int64)
    limits = np.zeros(len(rows), np.uint64)
    jaccard.shingle_sets(
        data, offsets, np.array(rows, np.int64), np.arange(len(rows)), words.table(), ngram, starts, most <= room, SALT,
        sets, sizes, limits,
    )  # fmt: skip
    return sets, starts, sizes, limits


def fitting(shingles: set[int], room: int, whole: bool) -> int:
    """The largest limit ALL / 2^k below which at most half of the room is needed."""
    limit = 2**64 - 1
    while not whole and sum(s <= limit for s in shingles) > room // 2:
        limit >>= 1
    return limit


@SETTINGS
@given(st.lists(TEXT, min_size=2, max_size=5), st.integers(1, 4), st.sampled_from([2, 4, 6, 1000]), st.data())
def test_jaccard_is_that_of_the_sets(texts, ngram, room, data):
    count = len(texts)
    sets, starts, sizes, limits = sets_of(texts, list(range(count)), ngram, room)
    expected = [set(shingles_of(text, ngram)) for text in texts]
    for i, text in enumerate(texts):
        assert limits[i] == fitting(expected[i], room, (len(text.encode()) + 1) // 2 <= room)
        assert set(sets[starts[i] : starts[i] + sizes[i]].tolist()) == {s for s in expected[i] if s <= limits[i]}
        assert sizes[i] == sum(s <= limits[i] for s in expected[i])
    left, right = np.divmod(np.array(data.draw(st.permutations(range(count * count)))), count)
    found = np.empty(count * count)
    jaccard.jaccard(sets, starts, sizes, limits, left, right, 0, len(left), SALT, found)
    below = [min(limits[x], limits[y]) for x, y in zip(left, right, strict=True)]
    assert found.tolist() == [
        jaccard.jaccard_reference({s for s in expected[x] if s <= m}, {s for s in expected[y] if s <= m})
        for x, y, m in zip(left, right, below, strict=True)
    ]


def test_sets_of_long_texts_do_not_depend_on_where_repeats_stand():
    random = np.random.default_rng(0)
    content = " ".join(f"w{i}" for i in random.integers(0, 3000, 20_000))
    run = "x " * 60_000
    truth = set(shingles_of(content, 5))
    texts = [f"{run}{content}", f"{content} {run}", content, f"{run}y", run]
    sets, starts, sizes, limits = sets_of(texts, [1, 0, 2, 3, 4], 5, 8000)
    assert limits[0] == limits[1] and limits[3] == limits[4] == 2**64 - 1 and sizes[3:].tolist() == [2, 1]
    left, right = np.array([0, 0, 3]), np.array([1, 2, 4])
    found = np.empty(3)
    jaccard.jaccard(sets, starts, sizes, limits, left, right, 0, 3, SALT, found)
    assert found[0] > 0.99 and found[1] > 0.99 and found[2] == 0.5
    for place in (0, 1, 2):
        kept = sets[starts[place] : starts[place] + sizes[place]].tolist()
        assert 2000 - 100 < len(kept) <= 4000 and len(set(kept) - truth) < 12
