"""Manifests: what is in a corpus folder, what made it, and the proof that the counts add up.

`corpus.json` describes the row space, `columns/<stage>/stage.json` a stage's columns. Both are written last, so that a
folder without its manifest is unfinished by definition. Everything but `run` is reproducible byte for byte.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(value: Any) -> str:
    """128-bit BLAKE2b of the canonical JSON of `value`, 32 hex digits."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=16).hexdigest()


class Shard(BaseModel):
    """One finished shard file: enough to check it and to skip it on a second run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    rows: int
    bytes: int
    hash: str = Field(description="xxh3_128 of the file's bytes, hex")
    counters: dict[str, int] = Field(default_factory=dict)


class Run(BaseModel):
    """How the stage ran: never part of a hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finished: str = Field(description="UTC time, ISO 8601")
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int = Field(description="largest resident size of all processes together")
    bytes_read: int
    bytes_written: int
    workers: int
    runner: str
    jobs: dict[str, float] = Field(default_factory=dict, description="seconds of each Beam job")
    versions: dict[str, str] = Field(default_factory=dict)


class StageManifest(BaseModel):
    """`stage.json`: one stage's outcome.

    Attributes:
        key: Fingerprint of everything the result depends on; an equal key makes a rerun a no-op.
        reads: Key of every stage whose columns were read (and the content hash of the documents).
        counters: Sums over the shards; names end in their unit (`docs`, `bytes`, `tokens`, …).
        facts: Small results of the stage as a whole (number of clusters, tokenizer, …).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    config: dict[str, Any]
    reads: dict[str, str]
    rows: int
    counters: dict[str, int]
    facts: dict[str, Any] = Field(default_factory=dict)
    shards: list[Shard]
    run: Run


class CorpusManifest(BaseModel):
    """`corpus.json`: the row space every column is aligned with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ropewalk: str = Field(description="version of the code that laid it")
    rows: int
    bytes: int
    content: str = Field(description="fingerprint of the shards' hashes, in order")
    sources: dict[str, int] = Field(description="documents by source")
    ingest: StageManifest

    @property
    def shards(self) -> list[Shard]:
        """The document shards, in order: position is the shard number of an address."""
        return self.ingest.shards


def add_counters(parts: list[dict[str, int]]) -> dict[str, int]:
    """Sums counters by name, sorted by name."""
    total: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return dict(sorted(total.items()))
