"""The simplest stage: a batch function over every shard, its result written beside, row for row.

Reading, computing and writing a shard happen in one worker, so nothing is shuffled and memory is one batch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import apache_beam as beam
import pyarrow as pa

from ropewalk.transforms import batches, metrics
from ropewalk.transforms.ahead import ahead
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.shards import ShardFolder


class BatchFunction(Protocol):
    """A picklable function from a batch to a batch and counts of what it did.

    `setup` runs once in each worker, before the first call: the place to load models and compile kernels.
    """

    def setup(self) -> None:
        """Prepares the worker."""

    def __call__(self, batch: pa.RecordBatch, /) -> tuple[pa.RecordBatch, dict[str, int]]:
        """The result, and counters whose names end in their unit."""


@dataclass
class MapShards(beam.PTransform):
    """Shard numbers in, spread over the workers as `beam.Create` does it; finished ones out; writes `target`.

    Attributes:
        corpus: Where to read.
        columns: What to read, see `CorpusDir.read`.
        alive: Stages whose verdicts the function sees as column `alive`; none for no such column.
        function: What to compute.
        target: Where to write.
        aligned: Whether the result has one row for each row read, as columns must.
        cut: Stages whose spans are cut out of the text that the function sees.
        threads: Batches worked on at once; more than one only if the function bears it.
    """

    corpus: CorpusDir
    columns: Mapping[str, Sequence[str]]
    alive: Sequence[str] | None
    function: BatchFunction
    target: ShardFolder
    aligned: bool = True
    cut: Sequence[str] = ()
    threads: int = 1

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[int]:
        """Maps each shard."""
        return shards | beam.ParDo(_MapShard(self))


class _MapShard(beam.DoFn):
    def __init__(self, transform: MapShards) -> None:
        self.corpus, self.columns, self.alive = transform.corpus, transform.columns, transform.alive
        self.function, self.target, self.aligned = transform.function, transform.target, transform.aligned
        self.cut, self.threads = transform.cut, transform.threads

    def setup(self) -> None:
        self.function.setup()

    def process(self, shard: int) -> Iterator[int]:
        with self.target.writer(shard) as writer:
            read = self.corpus.read(shard, self.columns, alive=self.alive, cut=self.cut)
            for rows, result, counters, seconds in ahead(self._timed, read, self.threads):
                if self.aligned and result.num_rows != rows:
                    name = type(self.function).__name__
                    raise RuntimeError(f"{name} made {result.num_rows} rows of {rows}: columns would shift")
                writer.write(result)
                writer.count("docs-in", rows)
                for name, amount in counters.items():
                    writer.count(name, amount)
                    metrics.count(type(self.function), name, amount)
                metrics.count(type(self.function), "batch-msec", round(seconds * 1000))
        yield shard

    def _timed(self, batch: pa.RecordBatch) -> tuple[int, pa.RecordBatch, dict[str, int], float]:
        """Rows of a batch, what the function makes of it, and the seconds that took: counters are Beam's thread's."""
        start = time.perf_counter()
        result, counters = self.function(batch)
        return batch.num_rows, result, counters, time.perf_counter() - start


@dataclass
class ReadShards(beam.PTransform):
    """Shard numbers in, spread as `beam.Create` does it, batches out: how a shuffling stage reads what it needs.

    Attributes:
        corpus: Where to read.
        columns: What to read, see `CorpusDir.read`; each batch begins with the column `address`.
        alive: Only rows that all these stages keep are passed on.
    """

    corpus: CorpusDir
    columns: Mapping[str, Sequence[str]]
    alive: Sequence[str] = ()

    def expand(self, shards: beam.PCollection[int]) -> beam.PCollection[pa.RecordBatch]:
        """Streams each shard."""
        return shards | beam.ParDo(_ReadShard(self))


class _ReadShard(beam.DoFn):
    def __init__(self, transform: ReadShards) -> None:
        self.corpus, self.columns, self.alive = transform.corpus, transform.columns, transform.alive

    def process(self, shard: int) -> Iterator[pa.RecordBatch]:
        for batch in self.corpus.read(shard, self.columns, alive=self.alive):
            kept = batch.filter(batch.column("alive")).drop_columns("alive")
            if kept.num_rows:
                yield kept


@dataclass
class WriteGroups(beam.PTransform):
    """Groups keyed slices and writes one shard a group: the other half of a shuffling stage.

    Attributes:
        function: From a group's slices, joined in no particular order, to the rows to write and counters.
        target: Where to write; the key is the shard number. Keys without a slice get an empty shard.
        pending: The shard numbers of this pass; slices with other keys must not be sent.
        schema: Schema of the slices.
    """

    function: BatchFunction
    target: ShardFolder
    pending: Sequence[int]
    schema: pa.Schema

    def expand(self, slices: beam.PCollection[tuple[int, pa.RecordBatch]]) -> beam.PCollection[int]:
        """Groups and writes."""
        nothing = batches.concat([], self.schema)
        every = (
            slices.pipeline
            | "EveryShard" >> beam.Create(list(self.pending), reshuffle=False)  # what follows is a shuffle
            | beam.Map(_with_empty, nothing).with_output_types(tuple[int, pa.RecordBatch])
        )
        return (slices, every) | beam.Flatten() | beam.GroupByKey() | beam.ParDo(_WriteGroup(self))


def _with_empty(key: int, nothing: pa.RecordBatch) -> tuple[int, pa.RecordBatch]:
    return key, nothing


class _WriteGroup(beam.DoFn):
    def __init__(self, transform: WriteGroups) -> None:
        self.function, self.target, self.schema = transform.function, transform.target, transform.schema

    def setup(self) -> None:
        self.function.setup()

    def process(self, group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> Iterator[int]:
        key, slices = group
        joined = batches.concat(slices, self.schema)
        with self.target.writer(key) as writer:
            result, counters = self.function(joined)
            writer.write(result)
            for name, amount in counters.items():
                writer.count(name, amount)
                metrics.count(type(self.function), name, amount)
        yield key
