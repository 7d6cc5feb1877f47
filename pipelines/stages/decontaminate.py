"""Stage `decontaminate`: benchmark items in the documents, and what is done about them.

    index       benchmarks -> sorted n-grams, memory-mapped by workers              before the first job
    search      documents  -> n-grams of the index in each document                 no shuffle
    judge       found      -> which items a document holds, where; what is cut      text by address
    write       judged     -> the columns, row for row                              no shuffle

Documents are read as they were ingested: what `passages` cuts is searched as well, so a match across a cut is found,
and spans of both stages are bytes of the same text.
"""

from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files
from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms import benchmarks
from ropewalk.transforms.benchmark_index import build_index
from ropewalk.transforms.decontaminate import (
    FOUND,
    GRAMS,
    JUDGED,
    JudgeDocuments,
    SearchGrams,
    WriteContamination,
    common_grams,
    report_facts,
    write_grams,
)
from ropewalk.transforms.map_shards import MapShards

VERSION = 1
READS: Sequence[str] = ("filter", "dedup", "passages")

EXAMPLES = 5
EXAMPLE_CHARACTERS = 200


def extra_key(config: Any) -> dict[str, Any]:
    """What the result depends on besides the settings: the benchmarks' content, and what a known one's name brings."""
    return {
        source.name: {
            "content": benchmarks.fingerprint(source),
            "fields": list(source.fields),
            "answers": list(source.answers),
            "id": source.id,
        }
        for source in benchmarks.find_benchmarks(config.benchmarks)
    }


def jobs(context: Context) -> Jobs:
    """Index, search, judge, write."""
    corpus, config, alive = context.corpus, context.config, context.alive
    sources = benchmarks.find_benchmarks(config.benchmarks)
    index = build_index(files.join(context.folder, "_work", f"index-{context.key[:16]}"), sources, config)

    found = context.work("found", FOUND, context.num_shards)
    search = SearchGrams(index, context.threads)

    def find(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["text"]}
        return pipeline | beam.Create(shards) | MapShards(corpus, read, alive, search, found, aligned=False)

    yield Job("search benchmarks", found, find)

    common = common_grams(found, len(index.grams.grams), config.max_documents)
    ignored = context.work("ignored", GRAMS, 1)
    write_grams(ignored, common)
    judged = context.work("judged", JUDGED, context.num_shards)
    judge = JudgeDocuments(corpus, index, config, ignored)

    def decide(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"decontaminate/_work/found": FOUND.names}
        return pipeline | beam.Create(shards) | MapShards(corpus, read, None, judge, judged, aligned=False)

    yield Job("judge documents", judged, decide)

    target = context.columns("decontaminate")
    writer = WriteContamination(judged, config.action, index.names)

    def write(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["num_bytes"]}
        return pipeline | beam.Create(shards) | MapShards(corpus, read, alive, writer, target)

    yield Job("write verdicts", target, write)
    counters = add_counters([shard.counters for folder in (found, judged) for shard in folder.done().values()])
    del counters["docs-in"]
    return {
        "action": config.action,
        **counters,
        "common-ngrams": len(common),
        "benchmarks": report_facts(
            judged, index, corpus, examples=EXAMPLES, characters=EXAMPLE_CHARACTERS
        ),
    }  # fmt: skip
