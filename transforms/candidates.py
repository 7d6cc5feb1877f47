"""Candidate pairs by banded LSH: documents that agree on a whole band of their signatures, or on all their words.

Each band is a 64-bit key; a shuffle brings equal keys together, 24 bytes a band and document. The pairs of a bucket are
those of `kernels.stars`: all of them in a small one, two a member in a large one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from ropewalk.kernels import bands as kernel
from ropewalk.kernels.mix64 import bucket
from ropewalk.kernels.stars import star_edges
from ropewalk.transforms import batches, metrics
from ropewalk.transforms.folders import cut

SLICES = pa.schema([("key", pa.uint64()), ("order", pa.uint64()), ("address", pa.uint64())])
"""What the shuffle carries."""
EDGES = pa.schema([("a", pa.uint64()), ("b", pa.uint64())])
"""Pairs of addresses; b is the better document, by `order`, then by smaller address."""

SLICE_BYTES = 24


def band_slices(sketches: pa.RecordBatch, *, bands: int, rows: int) -> pa.RecordBatch:
    """The shuffle's rows for a batch of sketches: one for the exact hash, one for the URL, one for each band.

    Args:
        sketches: `address` and the columns of `sketch.sketch_schema`; rows whose exact hash is null are left out, and
            rows without a signature have no bands.
        bands: Number of bands; 0: exact hashes only.
        rows: Signature values in a band.

    Returns:
        Rows of `SLICES`.
    """
    sketches = sketches.filter(sketches.column("exact_high").is_valid())
    address, order = sketches.column("address").to_numpy(), sketches.column("order").to_numpy()
    # The exact hash is one more band, and the URL another: half of the one and all of the other are as good as any key.
    keys, which = [sketches.column("exact_low").to_numpy()], [np.arange(len(address))]
    urls = sketches.column("url")
    keys.append(urls.drop_null().to_numpy())
    which.append(np.flatnonzero(urls.is_valid().to_numpy(zero_copy_only=False)))
    if bands:
        signature = sketches.column("signature")
        banded = np.flatnonzero(signature.is_valid().to_numpy(zero_copy_only=False))
        values = signature.flatten().to_numpy().reshape(len(banded), bands * rows)
        keys.append(kernel.band_keys(np.ascontiguousarray(values), bands, rows).T.reshape(-1))
        which.append(np.tile(banded, bands))
    index = np.concatenate(which)
    return pa.RecordBatch.from_arrays([np.concatenate(keys), order[index], address[index]], schema=SLICES)


@dataclass
class BandSlices(beam.PTransform):
    """Sketches in, `(key's partition, rows of SLICES)` out.

    Attributes:
        bands: Number of bands; 0: exact hashes only.
        rows: Signature values in a band.
        partitions: Groups the keys are spread over.
        pending: The partitions wanted in this pass; none: all.
    """

    bands: int
    rows: int
    partitions: int = 1
    pending: Sequence[int] | None = None

    def expand(self, sketches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[tuple[int, pa.RecordBatch]]:
        """Cuts each batch."""
        return sketches | beam.ParDo(_CutBands(self))


class _CutBands(beam.DoFn):
    def __init__(self, transform: BandSlices) -> None:
        self.bands, self.rows, self.partitions = transform.bands, transform.rows, transform.partitions
        self.pending = range(transform.partitions) if transform.pending is None else transform.pending

    def process(self, sketches: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        slices = band_slices(sketches, bands=self.bands, rows=self.rows)
        yield from cut(slices, bucket(slices.column("key").to_numpy(), self.partitions), self.pending)


@dataclass
class StarEdges:
    """Batch function: all rows of some buckets in, their candidate edges out, each once, sorted."""

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, slices: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Edges, and what the buckets looked like."""
        columns = [slices.column(name).to_numpy() for name in SLICES.names]
        a, b, (shared, hot, largest) = star_edges(*columns)
        edges = pa.RecordBatch.from_arrays([a, b], schema=EDGES)
        return edges, {
            "banded-keys": slices.num_rows,
            "shared-buckets": shared,
            "hot-buckets": hot,
            "largest_bucket-docs": largest,
            "candidate-pairs": edges.num_rows,
        }


@dataclass
class CandidateEdges(beam.PTransform):
    """Sketches with addresses in, batches of `EDGES` out; a pair may come once from each partition.

    Attributes:
        bands: Number of bands; 0: exact hashes only.
        rows: Signature values in a band.
        partitions: Groups of the shuffle.
    """

    bands: int
    rows: int
    partitions: int = 1

    def expand(self, sketches: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Cuts, groups and ties."""
        return (
            sketches
            | BandSlices(self.bands, self.rows, self.partitions)
            | beam.GroupByKey()
            | beam.Map(_edges).with_output_types(pa.RecordBatch)
        )


def _edges(group: tuple[int, beam.typehints.Iterable[pa.RecordBatch]]) -> pa.RecordBatch:
    edges, counters = StarEdges()(batches.concat(group[1], SLICES))
    metrics.count(CandidateEdges, "candidate-pairs", counters["candidate-pairs"])
    return edges
