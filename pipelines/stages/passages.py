"""Stage `passages`: repeated paragraphs, lines and runs of bytes, all copies but the first cut out of the text.

For each rule that is set, in this order, each of them looking at what the ones before have left:

    hash     documents -> units (or anchors) by hash            no shuffle
    find     units     -> places of all but the first copies    40 bytes a unit; 44 in n / 4 bytes of text
    cut      places    -> spans of each document                8 to 17 bytes a place, by shard

and at the end the spans of all rules become the columns. The text itself stays: later stages read it without the spans.

The first copy is that in the document with the smallest id, then the one that comes first in it. What a rule calls a
copy of a unit stands whole in what the rule leaves (cuts of substrings are only ever made smaller by `snap`). A second
pass may find more: units that became neighbours by a cut, and bytes that were kept for the sake of a first window that
had a part of them.
"""

import math
from collections.abc import Callable, Sequence

import apache_beam as beam
import pyarrow as pa

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms import passages, passages_substrings
from ropewalk.transforms.corpus_dir import DOCUMENTS
from ropewalk.transforms.folders import KeyByHash, ReadFolder
from ropewalk.transforms.map_shards import BatchFunction, MapShards, WriteGroups
from ropewalk.transforms.passages_spans import JoinSpans, ReadByShard, SpanSubstrings, SpanUnits, span_schema
from ropewalk.transforms.shards import ShardFolder

VERSION = 1
READS: Sequence[str] = ("filter", "dedup")

RULES = {"paragraph": "paragraphs", "line": "lines", "substring": "substrings"}
"""Rules by name, with their settings, in the order they cut."""
GROUP_BYTES = 64 << 20
"""Bytes of units in one group of a shuffle."""
COPIES = 4
"""How often a unit is in memory at the worst moment: as the runner holds it, decoded, joined, and sorted."""


def jobs(context: Context) -> Jobs:
    """Hash, find and cut for each rule, then the columns."""
    config = context.config
    rules = [rule for rule, setting in RULES.items() if getattr(config, setting) is not None]
    facts: dict[str, int] = {}
    earlier: dict[str, list[str]] = {}
    for rule in rules:
        least = getattr(config, RULES[rule])
        names = [name for columns in earlier.values() for name in columns]
        hasher, finder, cutter, schemas, size = _functions(context, rule, least, earlier, names)

        units = context.work(f"{rule}-units", schemas[0], context.num_shards)
        read = {DOCUMENTS: ["id", "text"], **earlier}
        yield Job(f"hash {rule}s", units, _map(context, read, hasher, units, aligned=False))
        facts |= _counters(units, "docs-in")

        size *= units.progress()[0]
        found = context.work(f"{rule}-repeats", schemas[1], max(1, math.ceil(size / GROUP_BYTES)))

        def find(
            pipeline: beam.Pipeline, shards: Sequence[int], units: ShardFolder = units, found: ShardFolder = found,
            finder: BatchFunction = finder,
        ) -> object:  # fmt: skip
            slices = pipeline | ReadFolder(units) | KeyByHash("high", found.num_shards, shards)
            return slices | WriteGroups(finder, found, shards, units.schema)

        yield Job(f"find repeated {rule}s", found, find, COPIES * size // found.num_shards)
        largest = max((value for part in found.done().values() for name, value in part.counters.items()
                       if name.startswith("most_copies")), default=0)  # fmt: skip
        facts |= _counters(found, "most_copies") | {f"most_copies_of_a_{rule}": largest}

        spans = context.work(f"{rule}-spans", span_schema(rule), context.num_shards)

        def cut(
            pipeline: beam.Pipeline, shards: Sequence[int], found: ShardFolder = found, spans: ShardFolder = spans,
            cutter: BatchFunction = cutter,
        ) -> object:  # fmt: skip
            return pipeline | ReadByShard(found, shards) | WriteGroups(cutter, spans, shards, found.schema)

        yield Job(f"cut {rule}s", spans, cut, COPIES * found.progress()[1] // context.num_shards)
        facts |= _counters(spans)
        earlier[f"passages/_work/{rule}-spans"] = span_schema(rule).names

    target = context.columns("passages")
    read = {DOCUMENTS: ["text", "num_chars"], **earlier}
    yield Job("write passages", target, _map(context, read, JoinSpans(rules, config.min_left), target))
    return facts


Functions = tuple[BatchFunction, BatchFunction, BatchFunction, tuple[pa.Schema, pa.Schema], int]


def _functions(context: Context, rule: str, least: int, earlier: dict[str, list[str]], names: list[str]) -> Functions:
    """What hashes, finds and cuts for a rule, the schemas of the first two, and bytes of a unit in the shuffle."""
    corpus, threads = context.corpus, context.threads
    if rule == "substring":
        return (
            passages_substrings.FindAnchors(least, names, threads),
            passages_substrings.JudgeAnchors(corpus, least),
            SpanSubstrings(corpus, context.alive, least, context.config.snap, dict(earlier)),
            (passages_substrings.ANCHORS, passages_substrings.WINDOWS),
            passages_substrings.ANCHOR_BYTES,
        )
    return (
        passages.HashUnits(rule, least, names, threads),
        passages.KeepFirst(rule),
        SpanUnits(corpus, rule),
        (passages.UNITS, passages.REPEATS),
        passages.UNIT_BYTES,
    )


def _map(
    context: Context, read: dict[str, list[str]], function: BatchFunction, target: ShardFolder, aligned: bool = True
) -> Callable[[beam.Pipeline, Sequence[int]], object]:
    """Wires a function over every shard."""

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        mapped = MapShards(context.corpus, read, context.alive, function, target, aligned)
        return pipeline | beam.Create(shards) | mapped

    return build


def _counters(folder: ShardFolder, *without: str) -> dict[str, int]:
    """Counters of all shards but those that begin so."""
    total = add_counters([shard.counters for shard in folder.done().values()])
    return {name: value for name, value in total.items() if not name.startswith(without)}
