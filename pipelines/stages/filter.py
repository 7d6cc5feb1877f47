"""Stage `filter`: which documents take part in the later stages, and why the others do not."""

from collections.abc import Sequence

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.transforms.length import FilterLength
from ropewalk.transforms.map_shards import MapShards

VERSION = 1
READS: Sequence[str] = ()


def jobs(context: Context) -> Jobs:
    """One pass over the lengths."""
    target = context.columns("filter")
    function = FilterLength(context.config.min_chars, context.config.max_chars)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["num_chars"]}
        return pipeline | beam.Create(shards) | MapShards(context.corpus, read, None, function, target)

    yield Job("filter by length", target, build)
    return {}
