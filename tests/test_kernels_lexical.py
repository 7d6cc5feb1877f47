import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.kernels import lexical, words
from ropewalk.transforms import utf8

TEXTS = [
    "The walk is a thousand feet long; the hemp is spun, the yarn is tarred, the strands are laid.",
    "",
    "... --- !!!",
    "rope",
    "Seil und Tau: über Größe, Ärger, naïve façade. " * 40,
    "東京 の 天気 は 晴れ 東京",
    " ".join(f"word{i % 20000}" for i in range(40000)),  # more distinct words than its table begins with
]


def weights(seed=0):
    return np.random.default_rng(seed).uniform(0.5, 12, lexical.BUCKETS).astype(np.float32)


def test_vectors_are_those_of_the_reference():
    idf = weights()
    found = lexical.project(*utf8.buffers(pa.array(TEXTS, pa.large_string())), idf)
    expected = np.array([lexical.project_reference(text, idf) for text in TEXTS])
    # A weight is rounded by at most half of 1 / SCALE.
    assert np.abs(found - expected).max() < 1e-4
    assert np.array_equal(np.linalg.norm(found, axis=1).round(5), [1, 0, 0, 1, 1, 1, 1])


@given(text=st.text(max_size=300), seed=st.integers(0, 3))
@example("a a a b", 0)
@settings(max_examples=60, deadline=None)
def test_any_text_matches_the_reference(text, seed):
    idf = weights(seed)
    found = lexical.project(*utf8.buffers(pa.array([text], pa.large_string())), idf)[0]
    expected = lexical.project_reference(text, idf)
    length = np.linalg.norm(expected)
    # Words of opposite sign may all but cancel; then only rounding is left of the vector.
    assert length == 0 or np.abs(found - expected).max() < 2e-3


def test_frequencies_count_documents_not_words():
    texts = ["rope rope rope", "Rope hemp", "hemp", "", "tar"]
    found = lexical.frequencies(*utf8.buffers(pa.array(texts, pa.large_string())))
    expected = np.zeros(lexical.BUCKETS, np.int64)
    for text in texts:
        for word in set(words.words_reference(text)):
            expected[words.hash_reference(word) >> (64 - lexical.BUCKET_BITS)] += 1
    assert np.array_equal(found, expected) and found.max() == 2 and found.sum() == 5


def test_rare_words_weigh_more_and_all_weigh_something():
    idf = lexical.idf(np.array([0, 1, 10, 1000]), 1000)
    assert idf[0] == idf[1] > idf[2] > idf[3] > 0.5
    assert np.isfinite(lexical.idf(np.zeros(4, np.int64), 0)).all()


@pytest.mark.parametrize("shared", [0, 100, 300])
def test_cosines_survive_the_projection(shared):
    """Pairs of documents of 400 different words, `shared` of them in common; each pair has words of its own."""
    pairs = 400
    texts = []
    for pair in range(pairs):
        for first in (0, 400 - shared):
            texts.append(" ".join(f"w{pair}x{i}" for i in range(first, first + 400)))
    found = lexical.project(*utf8.buffers(pa.array(texts, pa.large_string())), np.ones(lexical.BUCKETS, np.float32))
    error = np.einsum("nd,nd->n", found[::2], found[1::2]) - shared / 400
    sigma = 1 / np.sqrt(lexical.DIMENSIONS)
    assert error.std() < 1.1 * sigma
    assert abs(error.mean()) < 4 * sigma / np.sqrt(pairs)
