import numpy as np
import pytest

from ropewalk.kernels import grid, kmeans


def points(topics, each, *, spread=0.3, seed=0, d=256):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(topics, d))
    raw = np.repeat(centres, each, axis=0) + spread * random.normal(size=(topics * each, d))
    return grid.normalise(raw).astype(np.float32), np.repeat(np.arange(topics), each)


def test_assignment_is_that_of_integers_for_any_batch_and_threads():
    import faiss

    vectors, _ = points(20, 30, spread=2.0)
    centroids = np.concatenate([vectors[::7], vectors[::11]])  # some twice: ties
    index, dots = kmeans.assign_reference(vectors, centroids)
    threads = faiss.omp_get_max_threads()
    try:
        for batch, count in ((1, 1), (13, 1), (100, 2), (600, 1), (600, 2)):
            faiss.omp_set_num_threads(count)
            parts = [kmeans.assign(vectors[i : i + batch], centroids) for i in range(0, len(vectors), batch)]
            assert np.array_equal(np.concatenate([part[0] for part in parts]), index)
            assert np.array_equal(np.concatenate([part[1] for part in parts]), dots)
    finally:
        faiss.omp_set_num_threads(threads)


def test_ties_go_to_the_lowest_centroid():
    vectors, _ = points(3, 1)
    index, _ = kmeans.assign(vectors, np.concatenate([vectors[[2, 1, 1]], vectors]))
    assert index.tolist() == [3, 1, 0]


@pytest.mark.parametrize("topics", [2, 10, 20])
def test_planted_topics_are_found(topics):
    vectors, truth = points(topics, 25)
    order = np.random.default_rng(1).permutation(len(vectors))
    own, planted = kmeans.assign(vectors, kmeans._means(vectors, truth, topics))
    assert np.array_equal(own, truth)
    quality = []
    for seed in range(5):
        # As many clusters as topics: one run may leave two topics together, as k-means does; not all five.
        index, dots = kmeans.assign(vectors, kmeans.train(vectors[order], topics, iterations=12, seed=seed))
        quality.append(dots.mean() / planted.mean())
        # Three times as many: no cluster mixes topics.
        index, dots = kmeans.assign(vectors, kmeans.train(vectors[order], 3 * topics, iterations=12, seed=seed))
        assert len(set(zip(truth.tolist(), index.tolist(), strict=True))) == len(set(index.tolist()))
        assert dots.mean() > planted.mean()
    assert min(quality) > 0.9 and max(quality) > 0.97


def test_rounds_never_lower_the_objective():
    vectors, _ = points(30, 20, spread=1.5)
    found = [kmeans.assign(vectors, kmeans.train(vectors, 12, iterations=n, seed=0))[1].sum() for n in (1, 2, 4, 8)]
    assert found[0] < found[-1]
    # Rounding to the grid may cost a little in a round; 0.1 % bounds it.
    assert all(later >= earlier * 0.999 for earlier, later in zip(found[:-1], found[1:], strict=True))


def test_means_are_the_exact_sums_in_any_order():
    vectors, _ = points(5, 40, spread=2.0)
    index = np.random.default_rng(0).integers(0, 7, len(vectors)).astype(np.uint32)
    order = np.random.default_rng(1).permutation(len(vectors))
    found = kmeans._means(vectors, index, 9)
    assert np.array_equal(found, kmeans._means(vectors[order], index[order], 9))
    for cluster in range(7):
        total = np.rint(vectors[index == cluster] * 2048).astype(np.int64).sum(axis=0)
        assert np.abs(found[cluster] - total / np.linalg.norm(total)).max() <= 0.5 / 2048 + 1e-7
    assert not found[7:].any()


@pytest.mark.parametrize(("rows", "k", "expected"), [(0, 1, 0), (0, 5, 0), (1, 1, 1), (1, 5, 1), (6, 1, 1), (6, 9, 6)])
def test_few_vectors(rows, k, expected):
    vectors, _ = points(max(rows, 1), 1)
    assert len(kmeans.train(vectors[:rows], k, iterations=5, seed=0)) == expected


def test_copies_make_one_centroid_each():
    vectors, _ = points(3, 1)
    repeated = np.repeat(vectors, [500, 2, 1], axis=0)  # the others lie beyond the rows looked at first
    centroids = kmeans.train(repeated, 8, iterations=5, seed=0)
    assert sorted(map(bytes, centroids)) == sorted(map(bytes, vectors))


def test_zero_vectors_are_a_cluster_like_any_other():
    vectors, _ = points(4, 10)
    vectors[::5] = 0
    index, dots = kmeans.assign(vectors, kmeans.train(vectors, 5, iterations=8, seed=0))
    assert np.isfinite(dots).all() and len(set(index[::5].tolist())) == 1


class Gpu:
    """A stand-in for faiss on a GPU: other ties, a record of calls, and, if `rounding`, products in half precision."""

    def __init__(self, monkeypatch, rounding=False):
        import faiss

        self.calls, self.rounding = 0, rounding
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "memory", raising=False)
        monkeypatch.setattr(faiss, "knn_gpu", self.knn, raising=False)
        kmeans._gpu.cache_clear()

    def knn(self, memory, vectors, centroids, count, *, metric):
        assert memory == "memory" and metric == 0  # inner product
        self.calls += 1
        scores = vectors @ centroids.T
        index = np.argsort(-scores[:, ::-1], axis=1, kind="stable")[:, :count]  # the last of equals first
        index = scores.shape[1] - 1 - index
        dots = np.take_along_axis(scores, index, axis=1)
        return dots.astype(np.float16).astype(np.float32) if self.rounding else dots, index


def test_a_gpu_gives_the_same(monkeypatch):
    vectors, _ = points(20, 30, spread=2.0)
    centroids = np.concatenate([vectors[::7], vectors[::11]])
    expected = kmeans.assign(vectors, centroids)
    trained = kmeans.train(vectors, 9, iterations=5, seed=0)
    gpu = Gpu(monkeypatch)
    assert all(np.array_equal(a, b) for a, b in zip(kmeans.assign(vectors, centroids), expected, strict=True))
    assert np.array_equal(kmeans.train(vectors, 9, iterations=5, seed=0), trained) and gpu.calls > 3
    assert kmeans.assign(vectors, centroids[:1])[0].tolist() == [0] * len(vectors)
    kmeans._gpu.cache_clear()


def test_a_gpu_that_rounds_is_refused(monkeypatch):
    vectors, _ = points(5, 4)
    Gpu(monkeypatch, rounding=True)
    with pytest.raises(RuntimeError, match="CUDA_VISIBLE_DEVICES"):
        kmeans.assign(vectors, vectors[:7])
    kmeans._gpu.cache_clear()
