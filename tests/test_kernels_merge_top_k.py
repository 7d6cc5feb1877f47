import numpy as np
import pytest

from ropewalk.kernels.merge_top_k import merge_top_k, merge_top_k_reference


def test_by_hand():
    starts = np.array([0, 4, 4, 5])
    similarity = np.array([0.5, 0.9, 0.5, 0.5, 0.1], np.float32)
    rank = np.array([7, 1, 2**63 + 5, 7, 0], np.uint64)
    address = np.array([9, 0, 1, 8, 3], np.uint64)
    assert merge_top_k(starts, similarity, rank, address, 3).tolist() == [[1, 3, 0], [-1, -1, -1], [4, -1, -1]]


@pytest.mark.parametrize("k", [1, 2, 10])
@pytest.mark.parametrize("values", [2, 1000])
def test_kernel_is_the_reference(k, values):
    random = np.random.default_rng(k)
    lengths = random.integers(0, 25, 60)
    starts = np.r_[0, np.cumsum(lengths)]
    total = int(starts[-1])
    similarity = (random.integers(0, values, total) / values).astype(np.float32)
    rank, address = random.integers(0, 3, total).astype(np.uint64), random.permutation(total).astype(np.uint64)
    expected = merge_top_k_reference(starts, similarity, rank, address, k)
    assert np.array_equal(merge_top_k(starts, similarity, rank, address, k), expected)
    assert ((expected >= 0).sum(axis=1) == np.minimum(lengths, k)).all()
