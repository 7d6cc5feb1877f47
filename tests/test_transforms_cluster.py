import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.kernels import grid, kmeans
from ropewalk.schemas import tables, testing
from ropewalk.transforms import cluster, sampling, vectors
from ropewalk.transforms.centroids import CENTROIDS, Centroids
from ropewalk.transforms.cluster import SAMPLE, AssignClusters, SampleVectors

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def rows(count, *, topics=6, seed=0, missing=()):
    """Ids and vectors around some topics; those of rows in `missing` null."""
    random = np.random.default_rng(seed)
    raw = random.normal(size=(topics, 256))[random.integers(0, topics, count)] + 0.4 * random.normal(size=(count, 256))
    present = ~np.isin(np.arange(count), missing)
    column = vectors.from_matrix(grid.normalise(raw[present]), present)
    return pa.RecordBatch.from_arrays(
        [testing.documents(count, words=(1, 2)).column("id"), column], names=["id", "vector"]
    )


@pytest.mark.parametrize(
    ("documents", "size", "expected"),
    [(0, 1000, 1), (1, 1000, 1), (1499, 1000, 1), (1500, 1000, 2), (10, 1, 10), (7, 3, 2), (2500, 1000, 3)],
)
def test_number_of_clusters(documents, size, expected):
    assert cluster.count_clusters(documents, size) == expected


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_the_sample_is_the_same_for_any_sharding(pieces):
    batch = rows(420, missing=(3, 5))
    batch = batch.take(pa.array(np.random.default_rng(pieces).permutation(420)))
    parts = [batch.slice(start, 420 // pieces) for start in range(0, 420, 420 // pieces)]

    def check(found):
        assert all(part.schema == SAMPLE for part in found)
        sample = cluster.sample_matrix(found, 100)
        hashes = sampling.hash_ids(rows(420).column("id"), seed=cluster.SAMPLE_SEED)
        alive = np.setdiff1d(np.arange(420), [3, 5])
        smallest = alive[np.argsort(hashes[alive])[:100]]
        column = rows(420, missing=(3, 5)).column("vector")
        assert np.array_equal(sample, vectors.to_matrix(column.take(pa.array(smallest))))

    with TestPipeline(runner=RUNNER) as p:
        assert_that(p | beam.Create(parts) | SampleVectors(sampling.limit(200, 420)), check)


def test_copies_with_one_id_are_sampled_in_one_order():
    matrix = grid.normalise(np.random.default_rng(0).normal(size=(6, 256)))
    hashes = np.array([5, 3, 5, 9, 3, 5], np.uint64)

    def sample(order):
        column = vectors.from_matrix(matrix[order], np.ones(6, bool))
        return cluster.sample_matrix([pa.RecordBatch.from_arrays([pa.array(hashes[order]), column], schema=SAMPLE)], 4)

    first = sample(np.arange(6))
    assert len(first) == 4
    assert all(np.array_equal(first, sample(np.random.default_rng(seed).permutation(6))) for seed in range(5))


def test_assignment_is_that_of_integers():
    batch = rows(300, missing=(0, 7, 299))
    centroids = vectors.to_matrix(rows(11, seed=3).column("vector"))
    found = cluster.assign_clusters(batch, Centroids.of(centroids))
    assert found.schema == tables.CLUSTER
    found.validate(full=True)
    assert [i for i, value in enumerate(found.column("cluster").to_pylist()) if value is None] == [0, 7, 299]
    index, dots = kmeans.assign_reference(vectors.to_matrix(batch.column("vector").drop_null()), centroids)
    assert found.column("cluster").drop_null().to_pylist() == index.tolist()
    distances = found.column("distance").drop_null().to_numpy()
    assert np.array_equal(distances, np.maximum(np.float32(1) - dots.astype(np.float32), 0)) and distances.min() >= 0


def test_no_documents_and_no_centroids():
    nothing = rows(4, missing=range(4))
    found = cluster.assign_clusters(nothing, Centroids.of(np.zeros((0, 256), np.float32)))
    assert found.column("cluster").null_count == found.column("distance").null_count == 4
    assert cluster.assign_clusters(nothing.slice(0, 0), Centroids.of(np.zeros((0, 256), np.float32))).num_rows == 0


def test_centroids_survive_their_file(tmp_path):
    centroids = vectors.to_matrix(rows(5).column("vector"))
    url = str(tmp_path / "centroids.arrow")
    Centroids.of(centroids).write(url, np.arange(5), {"round": "2"})
    found, notes = cluster.read_centroids(url)
    assert np.array_equal(found, centroids) and notes == {"round": "2", "coarse": "0"}
    Centroids.of(centroids[:0]).write(url, np.arange(0), {})
    assert len(cluster.read_centroids(url)[0]) == 0


@pytest.mark.parametrize("beside", ["file", "side input"])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_transform_on_any_sharding(tmp_path, pieces, beside):
    batch = rows(210, missing=(1, 2))
    centroids = vectors.to_matrix(rows(9, seed=5).column("vector"))
    known = Centroids.of(centroids).rows(np.zeros(9, np.int64))
    url = str(tmp_path / "centroids.arrow")
    Centroids.of(centroids).write(url, np.zeros(9, np.int64), {})
    expected = sorted(map(str, cluster.assign_clusters(batch, Centroids.of(centroids)).to_pylist()))
    parts = [batch.slice(start, 210 // pieces) for start in range(0, 210, 210 // pieces)]

    def check(found):
        assert sorted(str(row) for part in found for row in part.to_pylist()) == expected

    with TestPipeline(runner=RUNNER) as p:
        source = p | beam.Create(parts[::-1])
        if beside == "file":
            assigned = source | AssignClusters(url)
        else:
            # In two parts and out of order, as a side input may come.
            side = p | "Centroids" >> beam.Create([known.slice(4), known.slice(0, 4)])
            assigned = source | AssignClusters(side)
        assert_that(assigned, check)
    assert known.schema == CENTROIDS
