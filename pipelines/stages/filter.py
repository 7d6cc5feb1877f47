"""Stage `filter`: which documents take part in the later stages, and why the others do not."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas.filters import FilterConfig
from ropewalk.transforms.filters import FilterDocuments
from ropewalk.transforms.map_shards import MapShards

VERSION = 2
READS: Sequence[str] = ()


def extra_key(config: FilterConfig) -> dict[str, Any]:
    """What the settings stand for: the bounds of the rules, and the version of the language model."""
    key: dict[str, Any] = {"rules": [list(vars(rule).values()) for rule in config.chosen]}
    if config.languages is not None:
        key["resiliparse"] = importlib.metadata.version("resiliparse")
    return key


def jobs(context: Context) -> Jobs:
    """One pass over the lengths, and over the texts if rules or languages are asked for."""
    target = context.columns("filter")
    function = FilterDocuments(context.config, context.threads)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": function.reads}
        return pipeline | beam.Create(shards) | MapShards(context.corpus, read, None, function, target)

    yield Job("filter documents", target, build)
    return {}
