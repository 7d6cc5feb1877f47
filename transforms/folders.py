"""Reading a folder of shards into a pipeline, and keying its rows for the next shuffle."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels.mix64 import bucket, mix64
from ropewalk.transforms import batches
from ropewalk.transforms.shards import ShardFolder


@dataclass
class ReadFolder(beam.PTransform):
    """All batches of a finished folder; put it at a pipeline's start.

    Attributes:
        folder: What to read.
    """

    folder: ShardFolder

    def expand(self, start: beam.Pipeline) -> beam.PCollection[pa.RecordBatch]:
        """Spreads the shards over workers and streams each."""
        return start | beam.Create(list(range(self.folder.num_shards))) | beam.ParDo(_Read(self.folder))


class _Read(beam.DoFn):
    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder

    def process(self, shard: int) -> Iterator[pa.RecordBatch]:
        yield from self.folder.read(shard)


@dataclass
class KeyByHash(beam.PTransform):
    """Batches in, `(partition, rows)` out, the partition a hash of one integer column.

    Attributes:
        column: Name of a uint64 column.
        partitions: Groups the values are spread over.
        pending: The partitions wanted in this pass.
    """

    column: str
    partitions: int
    pending: Sequence[int]

    def expand(self, rows: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Cuts each batch."""
        return rows | beam.ParDo(_Cut(self))


class _Cut(beam.DoFn):
    def __init__(self, transform: KeyByHash) -> None:
        self.column, self.partitions, self.pending = transform.column, transform.partitions, transform.pending

    def process(self, rows: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        yield from cut(rows, bucket(mix64(rows.column(self.column).to_numpy()), self.partitions), self.pending)


def cut(rows: pa.RecordBatch, keys: np.ndarray, pending: Sequence[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Slices of `rows` by key, int64[n], for the keys in `pending` only."""
    wanted = np.isin(keys, np.array(pending))
    yield from batches.split_by_key(rows.filter(pa.array(wanted)), keys[wanted])


class KeyPending(beam.DoFn):
    """Batches in, the slices out that a keying function makes of them, for the keys of this pass only.

    Args:
        keyed: From a batch to `(key, slice)`s.
        pending: The keys wanted.
    """

    def __init__(
        self, keyed: Callable[[pa.RecordBatch], Iterator[tuple[int, pa.RecordBatch]]], pending: Sequence[int]
    ) -> None:
        self.keyed, self.pending = keyed, frozenset(pending)

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Cuts a batch."""
        for key, part in self.keyed(batch):
            if key in self.pending:
                yield key, part
