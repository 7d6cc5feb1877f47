import itertools
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.kernels import minhash, one_permutation, shingles, sketch, words
from ropewalk.kernels.words import Normal
from ropewalk.schemas import testing
from ropewalk.transforms.sketch import MinHash

TEXTS = [
    "Rope, rope & 12 cafés — ROPE 34 cafe\u0301 東京ไทย!",
    "rope rope 0 cafes rope 0 cafe 東京ไทย",
    "",
    "a",
    "\0" * 50,
    "!?",
    "no " * 5000,
    " ".join(f"w{i * i % 977}" for i in range(6000)),
    "🙂‍🙂 שלום עולם " * 40,
    "x" * 50_000,
]


def reference(text, hasher):
    """Exact hash and signature of one text in plain Python."""
    text = unicodedata.normalize("NFC", text) if hasher.nfc else text
    tokens = [words.hash_reference(token) for token in words.words_reference(text, hasher.normal)]
    made = shingles.shingles_reference(tokens, hasher.ngram)
    exact = sketch.exact_hash_reference(text, hasher.normal)
    if not made:
        return (*exact, None)
    if hasher.scheme == "one_permutation":
        return (*exact, one_permutation.one_permutation_reference(made, hasher.num_perm, hasher.seed))
    low = (np.array(made, np.uint64) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    a_b = minhash.permutations(hasher.num_perm, hasher.seed)
    return (*exact, minhash.minhash_reference(low, np.array([0, len(low)]), *a_b)[0].tolist())


def sketches(batch):
    return list(zip(*(batch.column(n).to_pylist() for n in ("exact_high", "exact_low", "signature")), strict=True))


@pytest.mark.parametrize("scheme", ["affine32", "one_permutation"])
@pytest.mark.parametrize(
    ("normal", "nfc"),
    [(Normal(), True), (Normal(digits=True, accents=True), False), (Normal("character", punctuation=False), True)],
)
def test_sketches_of_any_rule_and_scheme(scheme, normal, nfc):
    hasher = MinHash(num_perm=16, seed=3, scheme=scheme, normal=normal, nfc=nfc)
    batch = testing.of_texts(TEXTS)
    found, counters = hasher(batch)
    assert sketches(found) == [reference(text, hasher) for text in TEXTS]
    assert counters["sketched-bytes"] == sum(len(text.encode()) for text in TEXTS)
    for threads, shards in ((3, [batch]), (1, [batch.slice(7), batch.slice(2, 5), batch.slice(0, 2)])):
        hasher.threads = threads
        parts = pa.Table.from_batches([hasher(part)[0] for part in shards])
        assert sorted(map(str, sketches(parts))) == sorted(map(str, sketches(found)))


def test_the_same_text_under_normalisation():
    batch = testing.of_texts(["Café 12, X", "cafe\u0301 12 x", "cafe 99; x", "CAFE 0 X"])

    def equal(normal, nfc):
        keys = sketches(MinHash(ngram=1, num_perm=4, normal=normal, nfc=nfc)(batch)[0])
        return {(i, j) for i, j in itertools.combinations(range(4), 2) if keys[i] == keys[j]}

    assert equal(Normal(), True) == {(0, 1)} and equal(Normal(), False) == set()
    assert equal(Normal(digits=True), True) == {(0, 1), (2, 3)}
    assert equal(Normal(digits=True, accents=True), False) == set(itertools.combinations(range(4), 2))
    assert equal(Normal(accents=True), False) == {(0, 1)}
    assert equal(Normal(case=False), True) == equal(Normal(punctuation=False), True) == set()


def flood(count):
    """Words whose hashes share their top bits, so that tables keyed by those bits fill one place."""
    names = (f"f{i}" for i in itertools.count())
    return list(itertools.islice((n for n in names if words.hash_reference(n) >> 56 == 0), count))


@pytest.mark.parametrize("scheme", ["affine32", "one_permutation"])
def test_hostile_texts(scheme):
    size = 20_000_000
    texts = ["a" * size, "\0" * (size // 10), "a " * (size // 10), "東" * (size // 10), "a\u0301\u0316" * (size // 10)]
    texts += ["é", "1", "", " ".join(flood(200)) * 100, "\u0301\u0316" * (size // 10)]
    found, counters = MinHash(num_perm=16, scheme=scheme)(testing.of_texts(texts))
    assert found.num_rows == len(texts) == counters["sketched-docs"]
    rows = sketches(found)
    signatures = [row[2] for row in rows]
    assert [s is None for s in signatures] == [False, True] + [False] * 5 + [True] + [False] * 2
    short = sketches(MinHash(num_perm=16, scheme=scheme)(testing.of_texts(["a a a a a a", "東東東東東東"]))[0])
    assert signatures[2] == short[0][2] and signatures[3] == short[1][2]  # one shingle, however often
    assert len({row[:2] for row in rows}) == len(rows)
