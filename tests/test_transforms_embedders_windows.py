"""Documents of any length, on an encoder whose vectors are known by hand."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.kernels import grid
from ropewalk.transforms.embedders.encoder import EmbedderError, equal_lengths
from ropewalk.transforms.embedders.windows import WindowEmbedder, reduce_vectors, signs, spans_of


@dataclass(frozen=True)
class Letters:
    """Counts letters: one piece a character, one number a letter of a-h; `!` makes NaN of a window."""

    limit: int = 10
    short: int = 4
    dimensions: int = 8
    name = "letters"
    fingerprint = "letters"

    def setup(self):
        pass

    def pieces(self, texts):
        return texts.to_pylist()

    def encode(self, windows):
        assert all(0 < len(window) <= self.limit for window in windows)
        rows = [[np.nan if "!" in w else w.count(c) for c in "abcdefgh"[: self.dimensions]] for w in windows]
        return np.array(rows, np.float32)


def texts(*values):
    return pa.array(values, pa.large_string())


def test_a_short_document_is_what_the_encoder_says():
    found = WindowEmbedder(Letters()).embed_windows(texts("aab", "", "abcdefghab", "zzz"))
    plain = Letters().encode(["aab", "abcdefghab"])
    assert np.array_equal(found.vectors[[0, 2]], grid.normalise(plain))
    assert np.array_equal(found.vectors, found.heads) and not found.vectors[[1, 3]].any()
    assert found.num_windows.tolist() == [1, 0, 1, 1] and not found.dispersion.any()


def test_long_documents_by_hand():
    # Windows of 10, steps of 9: [0, 10), [9, 19), and 2 characters, whose weight is 2 * 2 / 4.
    found = WindowEmbedder(Letters()).embed_windows(texts("a" * 10 + "b" * 9 + "c"))
    windows = np.array([[10, 0, 0], [1, 9, 0], [0, 1, 1]]) / np.array([[10], [np.sqrt(82)], [np.sqrt(2)]])
    mean = (np.array([10, 10, 1])[:, None] * windows).sum(axis=0) / 21
    assert found.num_windows.tolist() == [3]
    assert np.abs(found.vectors[0, :3] - mean / np.linalg.norm(mean)).max() <= 0.5 / grid.GRID + 1e-6
    assert abs(found.dispersion[0] - (1 - np.linalg.norm(mean))) < 1e-6
    assert found.heads[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


@given(st.integers(0, 3000), st.integers(1, 40), st.floats(0, 0.5), st.integers(1, 40))
def test_windows_cover_a_text(length, window, overlap, most):
    spans = spans_of(length, window, overlap, most)
    assert len(spans) <= most and all(0 <= a < b <= length and b - a <= window for a, b in spans)
    assert bool(spans) == (length > 0) and len(set(spans)) == len(spans)
    if not spans:
        return
    assert spans[0][0] == 0 and (most == 1 or spans[-1][1] == length)
    every = spans_of(length, window, overlap, 10**6)
    assert set(spans) <= set(every)
    assert {i for a, b in every for i in range(a, b)} == set(range(length))
    if len(every) > 1:  # the last one is not inside the one before
        assert every[-1][1] > every[-2][1] and every[-1][1] - every[-1][0] > int(window * overlap)
    steps = np.diff([a for a, _ in spans])
    assert len(steps) == 0 or steps.max() - steps.min() <= window


def test_windows_that_are_not_finite_are_left_out():
    found = WindowEmbedder(Letters()).embed_windows(texts("aaa", "b" * 10 + "!", "!", "c" * 30))
    assert found.not_finite.tolist() == [False, True, True, False]
    assert found.vectors[1].tolist() == [0, 1, 0, 0, 0, 0, 0, 0] and not found.vectors[2].any()
    assert np.isfinite(found.vectors).all() and np.isfinite(found.dispersion).all()


@pytest.mark.parametrize("how", ["project", "truncate"])
def test_longer_vectors_are_shortened(how):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 1024)).astype(np.float32)
    vectors[1] = vectors[0] + 0.3 * vectors[1]
    vectors[5, 3] = np.inf
    found = reduce_vectors(vectors, 512, how)
    assert found.shape == (40, 512)
    if how == "truncate":
        assert np.array_equal(found, vectors[:, :512])
        return
    assert np.isnan(found[5]).all() and np.isfinite(np.delete(found, 5, axis=0)).all()
    assert set(np.unique(signs(1024, 512))) == {-1, 1} and abs(signs(1024, 512).mean()) < 0.01
    assert hashlib.sha256(signs(1024, 512).astype(np.int8)).hexdigest()[:16] == "e321bda0753bd4e8"
    rows = np.delete(np.arange(40), 5)
    units = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in (vectors[rows], found[rows])]
    assert np.abs(units[0] @ units[0].T - units[1] @ units[1].T).max() < 4.5 / np.sqrt(512)
    parts = np.concatenate([reduce_vectors(vectors[i : i + 7], 512, how) for i in range(0, 40, 7)])
    assert np.array_equal(parts, found, equal_nan=True)


def test_dimensions_and_fingerprint_follow_the_settings():
    plain = WindowEmbedder(Letters())
    assert plain.dimensions == 8 and WindowEmbedder(Letters(dimensions=1024)).dimensions == 512
    others = [
        WindowEmbedder(Letters(), window=9), WindowEmbedder(Letters(), overlap=0.2),
        WindowEmbedder(Letters(), max_windows=2), WindowEmbedder(Letters(), wanted=4),
        WindowEmbedder(Letters(), reduce="truncate"), plain,
    ]  # fmt: skip
    assert len({embedder.fingerprint for embedder in others}) == 6
    assert WindowEmbedder(Letters(), wanted=4).embed(texts("abc")).shape == (1, 4)
    with pytest.raises(EmbedderError, match="takes at most 10: lower it"):
        WindowEmbedder(Letters(), window=11).embed(texts("a"))


def test_an_encoder_that_gives_other_vectors_is_refused():
    class Liar(Letters):
        def encode(self, windows):
            return np.zeros((len(windows), 5), np.float32)

    with pytest.raises(EmbedderError, match=r"letters gave vectors of shape \(1, 5\) for 1 windows, expected \(1, 8\)"):
        WindowEmbedder(Liar()).embed(texts("a"))


def test_batches_are_of_one_length_and_hold_all():
    random = np.random.default_rng(0)
    windows = ["x" * n for n in random.integers(1, 9, 100)]
    batches = list(equal_lengths(windows, 4))
    assert sorted(np.concatenate(batches)) == list(range(100))
    lengths = [{len(windows[i]) for i in batch} for batch in batches]
    assert all(len(found) == 1 for found in lengths) and max(map(len, batches)) <= 4
    assert sorted((max(found) for found in lengths), reverse=True) == [max(found) for found in lengths]
    assert list(equal_lengths([], 4)) == []
