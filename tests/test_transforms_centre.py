import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.kernels import grid
from ropewalk.schemas import tables, testing
from ropewalk.transforms import centre, sampling, vectors
from ropewalk.transforms.centre import Centre, SampleLengths

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def biased(count, seed=0, width=64):
    """Lengths, and vectors that lean the more towards one direction the longer the document is."""
    random = np.random.default_rng(seed)
    lengths = np.exp(random.uniform(np.log(50), np.log(500_000), count)).astype(np.int64)
    matrix = random.normal(size=(count, width))
    matrix[:, 0] += np.log2(lengths)
    return lengths, grid.normalise(matrix).astype(np.float32)


def test_length_bias_is_the_correlation_with_the_mean_cosine():
    lengths, matrix = biased(300)
    cosines = matrix.astype(np.float64) @ matrix.T.astype(np.float64)
    means = (cosines.sum(axis=1) - np.diag(cosines)) / 299
    expected = np.corrcoef(np.log2(lengths), means)[0, 1]
    assert expected > 0.5 and abs(centre.length_bias(lengths, matrix) - expected) < 1e-4
    order = np.random.default_rng(1).permutation(300)
    assert centre.length_bias(lengths[order], matrix[order]) == centre.length_bias(lengths, matrix)


def test_length_bias_of_what_has_none():
    lengths, matrix = biased(20)
    assert centre.length_bias(lengths[:2], matrix[:2]) is None
    assert centre.length_bias(np.full(20, 7), matrix) is None
    assert centre.length_bias(lengths, np.repeat(matrix[:1], 20, axis=0)) is None


def test_centring_takes_the_bias_out():
    lengths, matrix = biased(4000)
    means = centre.means_of(lengths, matrix)
    other_lengths, other = biased(2000, seed=1)  # not those that the means come from
    moved = centre.centre(other, other_lengths, means)
    assert centre.length_bias(other_lengths, other) > 0.5
    assert abs(centre.length_bias(other_lengths, moved.astype(np.float32))) <= 0.1
    assert np.array_equal(moved.astype(np.float64) * grid.GRID, np.rint(moved.astype(np.float64) * grid.GRID))


def test_means_by_hand():
    lengths = np.array([4, 7, 8, 1000])
    assert centre.bins_of(np.array([0, 1, 2, 3, 4, 7, 8, 2**40])).tolist() == [0, 1, 2, 2, 3, 3, 4, 32]
    matrix = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 1]], np.float32)
    means = centre.means_of(lengths, matrix)
    whole = matrix.astype(np.float64).mean(axis=0)
    assert np.allclose(means[3], (matrix[:2].sum(axis=0) + centre.PRIOR * whole) / (2 + centre.PRIOR))
    assert np.allclose(means[20], whole)
    zero = centre.centre(np.array([[0, 0], [1, 0]], np.float32), np.array([5, 5]), means)
    assert not zero[0].any() and zero[1].any()
    assert np.array_equal(centre.means_of(np.zeros(0, np.int64), np.zeros((0, 2), np.float32)), np.zeros((33, 2)))


@pytest.mark.parametrize("pieces", [1, 3])
def test_transforms_on_any_sharding(tmp_path, pieces):
    documents = testing.documents(60, words=(1, 300))
    random = np.random.default_rng(0)
    matrix = grid.normalise(random.normal(size=(60, 16)))
    matrix[3] = 0
    present = np.ones(60, bool)
    present[7] = False
    column = vectors.from_matrix(matrix[present], present)
    batch = documents.append_column("vector", column).append_column("text_hash", documents.column("id"))
    schema = tables.embed_table(16, reusable="x", centred=True)
    url = str(tmp_path / "means.arrow")
    lengths, sample = centre.sample_of([SampleLengths()(batch)[0]])
    assert len(lengths) == 58  # neither the one that is null nor the one that is zero
    centre.write_means(url, centre.means_of(lengths, sample))
    assert np.array_equal(centre.read_means(url), centre.means_of(lengths, sample))
    whole, counters = Centre(url, schema)(batch)
    assert whole.schema == schema and counters == {"embedded-docs": 59, "zero_vector-docs": 1}
    assert whole.column("raw_vector").equals(column) and whole.column("vector").null_count == 1
    limit = sampling.limit(20, 60)
    rows = sorted(map(str, SampleLengths(limit)(batch)[0].to_pylist()))
    assert 5 < len(rows) < 40

    def check_sample(found):
        assert sorted(str(row) for part in found for row in part.to_pylist()) == rows

    def check_centred(found):
        expected = sorted(map(str, whole.to_pylist()))
        assert sorted(str(row) for part in found for row in part.to_pylist()) == expected

    batches = [batch.slice(start, 60 // pieces) for start in range(0, 60, 60 // pieces)]
    with TestPipeline(runner=RUNNER) as p:
        source = p | beam.Create(batches[::-1])
        assert_that(source | SampleLengths(limit), check_sample, label="sample")
        assert_that(source | Centre(url, schema), check_centred, label="centred")


def test_no_rows():
    empty = testing.documents(1).slice(0, 0).append_column("vector", pa.array([], pa.list_(pa.float16(), 4)))
    assert SampleLengths()(empty)[0].num_rows == 0
    assert centre.sample_of([])[1].shape[0] == 0
