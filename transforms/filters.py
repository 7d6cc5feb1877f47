"""The stage `filter` on a batch: every filter is asked about every document, the first one that refuses is the reason.

    length      too_short, too_long
    language    other_language, uncertain_language
    quality     the rules of `schemas.filters.RULES`

Counters: `passed-docs`, and of each reason `<reason>-docs`, documents that it was the first to refuse, so that these
and `passed-docs` add up to all; and `<reason>-hits`, all documents that it refuses.
"""

from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import tables
from ropewalk.schemas.filters import FilterConfig
from ropewalk.transforms import quality
from ropewalk.transforms.language import identify, language_refusals
from ropewalk.transforms.length import length_refusals


@dataclass
class FilterDocuments(beam.PTransform):
    """Batches of documents in, their `tables.FILTER` verdicts out, row for row.

    Attributes:
        config: The stage's settings.
        threads: Threads for the kernels.
    """

    config: FilterConfig
    threads: int = 1

    @property
    def reads(self) -> list[str]:
        """Columns of `documents` that the settings ask for."""
        text = self.config.chosen or self.config.languages is not None
        return ["num_chars", "text"] if text else ["num_chars"]

    def setup(self) -> None:
        """Compiles the kernels, or loads them."""
        rules = self.config.chosen
        if rules:
            quality.count(pa.array([""], pa.large_string()), quality.groups_of(rules))

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """Verdicts, and what was refused."""
        config, rules, count = self.config, self.config.chosen, batch.num_rows
        refusals = length_refusals(
            batch.column("num_chars").to_numpy(), min_chars=config.min_chars, max_chars=config.max_chars
        )
        language, score = pa.nulls(count, pa.string()), pa.nulls(count, pa.float32())
        if config.languages is not None:
            language, score = identify(batch.column("text"))
            refusals |= language_refusals(
                language, score, languages=config.languages, min_score=config.language_min_score
            )
        if rules:
            counts = quality.count(batch.column("text"), quality.groups_of(rules), self.threads)
            refusals |= quality.refusals(rules, counts, language if config.languages is not None else None)
        return _verdicts(refusals, language, score, count)

    def _map(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self(batch)[0]

    def expand(self, documents: beam.PCollection[pa.RecordBatch]) -> beam.PCollection[pa.RecordBatch]:
        """Maps each batch."""
        return documents | beam.Map(self._map).with_output_types(pa.RecordBatch)


def _verdicts(
    refusals: dict[str, np.ndarray], language: pa.Array, score: pa.Array, count: int
) -> tuple[pa.RecordBatch, dict[str, int]]:
    first = np.full(count, -1, np.int32)
    hits = {}
    for place, (name, refused) in enumerate(refusals.items()):
        first[(first < 0) & refused] = place
        hits[name] = int(refused.sum())
    firsts = np.bincount(first[first >= 0], minlength=len(refusals)).tolist()
    counters = {"passed-docs": int((first < 0).sum())}
    for name, docs in zip(refusals, firsts, strict=True):
        counters |= {f"{name}-docs": docs} if docs else {}
        counters |= {f"{name}-hits": hits[name]} if hits[name] else {}
    names = pa.array(list(refusals), pa.string())
    reason = pc.take(names, pa.array(first, pa.int32(), mask=first < 0))
    return pa.RecordBatch.from_arrays([pa.array(first < 0), reason, language, score], schema=tables.FILTER), counters
