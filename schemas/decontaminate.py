"""Settings of the stage `decontaminate`: benchmarks, and what counts as having seen them."""

from typing import Literal

from pydantic import Field

from ropewalk.schemas.settings import Settings


class BenchmarkConfig(Settings):
    """A benchmark's items: a file, a folder, a dataset on disk, or a name of the list in `docs/decontamination.md`."""

    path: str
    """JSONL, JSON, Parquet or Arrow file, folder or glob; or the name of a known benchmark."""
    name: str | None = None
    """What the report calls it; default: derived from the path."""
    fields: tuple[str, ...] = ()
    """Fields that hold text a model must not have seen; none: every text field."""


class DecontaminateConfig(Settings):
    """Benchmark items in the documents."""

    benchmarks: tuple[BenchmarkConfig, ...] = Field(min_length=1)
    """What to look for."""
    rule: Literal["gpt3", "llama2", "palm", "datatrove"] = "gpt3"
    """What counts as contamination; see `docs/decontamination.md`."""
    action: Literal["drop", "mask", "flag"] = "drop"
    """`drop`: contaminated documents are out; `mask`: the matching spans are cut; `flag`: only told."""
