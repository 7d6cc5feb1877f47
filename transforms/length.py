"""Length bounds: the first filter."""

from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import tables


def length_verdicts(num_chars: pa.Array, *, min_chars: int, max_chars: int | None) -> pa.RecordBatch:
    """Verdict on each document by its length.

    Args:
        num_chars: Length of each document in codepoints, uint32[n].
        min_chars: Shortest that passes.
        max_chars: Longest that passes; none for no limit.

    Returns:
        n rows of `tables.FILTER`.
    """
    short = pc.less(num_chars, min_chars)
    long = pc.greater(num_chars, max_chars) if max_chars is not None else pa.array([False] * len(num_chars))
    reason = pc.case_when(pc.make_struct(short, long), "too_short", "too_long")
    passed = pc.is_null(reason)
    return pa.RecordBatch.from_arrays([passed, reason], schema=tables.FILTER)


@dataclass
class FilterLength(beam.PTransform):
    """Batches of documents in, their `tables.FILTER` verdicts out, row for row.

    Attributes:
        min_chars: Shortest document that passes, in codepoints.
        max_chars: Longest document that passes; none for no limit.
    """

    min_chars: int = 0
    max_chars: int | None = None

    def setup(self) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verdicts and a counter for each reason."""
        verdicts = length_verdicts(batch.column("num_chars"), min_chars=self.min_chars, max_chars=self.max_chars)
        reasons = pc.value_counts(verdicts.column("filter_reason").drop_null())
        counters = {f"{row['values']}-docs": row["counts"] for row in reasons.to_pylist()}
        return verdicts, {"passed-docs": verdicts.column("passed").true_count} | counters

    def _verdicts(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._verdicts).with_output_types(pa.RecordBatch)
