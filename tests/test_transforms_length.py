import apache_beam as beam
import datasets
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.schemas import tables, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms.length import FilterLength, length_verdicts


@pytest.mark.parametrize(
    ("length", "reason"), [(9, "too_short"), (10, None), (20, None), (21, "too_long"), (0, "too_short")]
)
def test_bounds_are_inclusive(length, reason):
    verdicts = length_verdicts(pa.array([length], pa.uint32()), min_chars=10, max_chars=20)
    assert verdicts.to_pylist() == [{"passed": reason is None, "filter_reason": reason}]


def test_transform_maps_batches():
    batch = testing.documents(5)

    def check(found):
        assert [b.num_rows for b in found] == [5] and found[0].schema == tables.FILTER

    with TestPipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as p:
        assert_that(p | beam.Create([batch]) | FilterLength(min_chars=1), check)


def test_stage_writes_aligned_columns(lay, run_stage, tmp_path):
    shards = testing.documents(250, words=(1, 30)), testing.documents(30, seed=1, words=(1, 30))
    corpus = lay(*shards)
    recipe = parse_recipe({"output": corpus.url, "input": "x", "filter": {"min_chars": 60}})
    manifest = run_stage(corpus, recipe, "filter")
    joined = datasets.concatenate_datasets(
        [datasets.load_from_disk(corpus.folder("documents")), datasets.load_from_disk(corpus.folder("filter"))], axis=1
    )
    assert len(joined) == 280
    assert all(row["passed"] == (row["num_chars"] >= 60) for row in joined)
    assert manifest.counters["passed-docs"] + manifest.counters["too_short-docs"] == manifest.counters["docs-in"] == 280
