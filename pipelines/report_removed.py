"""What deduplication and its like took away, as the report tells it: by stage, kind and source.

Counts come from the columns; of what columns cannot say (by which rule a passage went, examples) the stage's facts are
shown. A copy whose similarity with the kept document is below the threshold came through others: the candidates for
false positives.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from ropewalk.pipelines import charts
from ropewalk.pipelines.report_histogram import Histogram
from ropewalk.schemas.manifest import StageManifest
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS

SIMILARITY_EDGES = np.round(np.linspace(0, 1, 51), 6)
SOURCES = 20
"""Sources shown; the largest losses come first."""
BENCHMARKS, EXAMPLES = 40, 3
KINDS = {"exact": "exact copy", "url": "same URL", "near": "near copy", "chained": "copy of a copy"}
COLUMNS: dict[str, tuple[str, ...]] = {
    "dedup": ("keep", "component_size", "similarity", "dup_kind"),
    "passages": ("enough_left", "repeated_bytes"),
    "decontaminate": ("clean", "contaminated_spans"),
    "semantic": ("semantic_keep", "semantic_similarity"),
}
"""What is read of each stage."""


@dataclass
class Removed:
    """What one pass over the columns found.

    Attributes:
        threshold: Smallest similarity of copies.
        survivors: Documents that each stage left, of those that the stages before it left.
        losses: Why the others went, by stage.
        sources: Counts of a stage by source, then by what is counted.
        above: Similarity of removed copies with the document that was kept, where it is a copy's.
        below: The same where it is below the threshold.
        semantic: Cosine of semantic duplicates with what they repeat.
    """

    threshold: float = 0.75
    survivors: Counter[str] = field(default_factory=Counter)
    losses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sources: dict[str, dict[str, Counter[str]]] = field(default_factory=lambda: defaultdict(dict))
    above: Histogram = field(default_factory=lambda: Histogram(SIMILARITY_EDGES))
    below: Histogram = field(default_factory=lambda: Histogram(SIMILARITY_EDGES))
    semantic: Histogram = field(default_factory=lambda: Histogram(SIMILARITY_EDGES))

    def add(self, batch: pa.RecordBatch, stages: Sequence[str]) -> None:
        """Counts documents.

        Args:
            batch: `source`, `num_bytes`, and the columns of `stages`.
            stages: Stages that put documents out, in the order of the walk.
        """
        alive = np.ones(batch.num_rows, bool)
        source = batch.column("source").dictionary_encode()
        names, codes = source.dictionary.to_pylist(), source.indices.to_numpy(zero_copy_only=False)
        for stage in stages:
            verdict = batch.column(ALIVE_COLUMNS[stage])
            kept = alive & pc.fill_null(verdict, False).to_numpy(zero_copy_only=False)
            gone, unknown = alive & ~kept, alive & verdict.is_null().to_numpy(zero_copy_only=False)
            reasons = _reasons(batch, stage)
            tally = self.losses[stage]
            for reason, where in reasons.items():
                tally[reason] += int((where & gone & ~unknown).sum())
            tally["not considered"] += int(unknown.sum())
            self.survivors[stage] += int(kept.sum())
            counted = {"docs": alive, "removed": gone & ~unknown}
            counted |= {reason: where & gone & ~unknown for reason, where in reasons.items()}
            self._by_source(stage, names, codes, counted | _counted(batch, stage, alive))
            alive = kept
        if "dedup" in stages:
            found = _values(batch, "similarity")
            is_below = found < np.float32(self.threshold)
            self.above.add(found[~is_below])
            self.below.add(found[is_below])
        if "semantic" in stages:
            self.semantic.add(_values(batch, "semantic_similarity"))

    def _by_source(self, stage: str, names: list[str], codes: np.ndarray, counted: Mapping[str, np.ndarray]) -> None:
        table = self.sources[stage]
        for what, values in counted.items():
            totals = np.bincount(codes, values, len(names)) if len(codes) else np.zeros(len(names))
            for name, total in zip(names, totals.tolist(), strict=True):
                table.setdefault(name, Counter())[what] += int(total)


def _reasons(batch: pa.RecordBatch, stage: str) -> dict[str, np.ndarray]:
    """Why documents that a stage puts out go: bool[n] by reason; each has one."""
    everything = np.ones(batch.num_rows, bool)
    if stage == "filter":
        reason = pc.fill_null(batch.column("filter_reason"), "no reason given").dictionary_encode()
        codes = reason.indices.to_numpy(zero_copy_only=False)
        return {name: codes == code for code, name in enumerate(reason.dictionary.to_pylist())}
    if stage == "dedup":
        kind = batch.column("dup_kind")
        found = {
            name: pc.fill_null(pc.equal(kind, code), False).to_numpy(zero_copy_only=False)
            for code, name in KINDS.items()
        }
        return found | {"copy": ~np.logical_or.reduce(list(found.values()))}
    names = {"passages": "too little left", "decontaminate": "contaminated", "semantic": "semantic duplicate"}
    return {names[stage]: everything}


def _counted(batch: pa.RecordBatch, stage: str, alive: np.ndarray) -> dict[str, np.ndarray]:
    """What else is counted by source."""
    if stage == "passages":
        cut = pc.fill_null(batch.column("repeated_bytes"), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        size = batch.column("num_bytes").to_numpy(zero_copy_only=False).astype(np.int64)
        return {"bytes": size * alive, "cut bytes": cut * alive, "cut docs": (cut > 0) & alive}
    if stage == "decontaminate":
        spans = pc.fill_null(pc.list_value_length(batch.column("contaminated_spans")), 0)
        return {"contaminated docs": (spans.to_numpy(zero_copy_only=False) > 0) & alive}
    return {}


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Values of a column that are there and are numbers: float32[m]."""
    found: np.ndarray = batch.column(name).drop_null().to_numpy(zero_copy_only=False)
    numbers: np.ndarray = found[~np.isnan(found)]
    return numbers


def sections(found: Removed, stages: Mapping[str, StageManifest]) -> dict[str, Any]:
    """What the template shows of `dedup`, `passages`, `decontaminate` and `semantic`; none of one that has not run."""
    makers = {"dedup": _dedup, "passages": _passages, "decontaminate": _decontaminate, "semantic": _semantic}
    return {stage: make(found, stages[stage]) if stage in stages else None for stage, make in makers.items()}


def _dedup(found: Removed, manifest: StageManifest) -> dict[str, Any]:
    losses = found.losses["dedup"]
    estimates = manifest.facts.get("sources") or {}
    rows = [
        (name, counts, _share(estimates.get(name), "false_positives"))
        for name, counts in _largest(found.sources["dedup"], "removed")
    ]
    return {
        "kinds": {name: losses[name] for name in [*KINDS.values(), "copy"] if losses[name]},
        "rows": rows, "more": len(found.sources["dedup"]) - len(rows), "threshold": found.threshold,
        "estimated": any(row[2] is not None for row in rows), "below": found.below.count,
        "removed": sum(losses.values()) - losses["not considered"],
        "histogram": _similarities(found.above, found.below, "similarity with the document that was kept"),
    }  # fmt: skip


def _passages(found: Removed, manifest: StageManifest) -> dict[str, Any]:
    """Bytes cut, by rule and source; rules may overlap, so theirs may be more than all."""
    rows = _largest(found.sources["passages"], "cut bytes")
    total: Counter[str] = Counter()
    for counts in found.sources["passages"].values():
        total.update(counts)
    rules = [
        {"name": rule, "bytes": count, "spans": manifest.counters.get(f"{rule}-spans", 0)}
        for rule in ("paragraph", "line", "substring")
        if (count := manifest.counters.get(f"{rule}-bytes")) is not None
    ]
    return {"rows": rows, "more": len(found.sources["passages"]) - len(rows), "total": total, "rules": rules}


def _decontaminate(found: Removed, manifest: StageManifest) -> dict[str, Any]:
    facts = manifest.facts.get("benchmarks")
    benchmarks = []
    for name, entry in sorted((facts if isinstance(facts, dict) else {}).items()):
        examples = [example for example in entry.get("examples", ()) if isinstance(example, dict)][:EXAMPLES]
        benchmarks.append({"name": name, "examples": examples} | {
            key: int(entry.get(key, 0)) for key in ("items", "hit-items", "touched-items", "docs")
        })  # fmt: skip
    total: Counter[str] = Counter()
    for counts in found.sources["decontaminate"].values():
        total.update(counts)
    rows = _largest(found.sources["decontaminate"], "contaminated docs")
    return {
        "benchmarks": benchmarks[:BENCHMARKS], "more_benchmarks": max(0, len(benchmarks) - BENCHMARKS),
        "rows": rows, "more": len(found.sources["decontaminate"]) - len(rows), "total": total,
        "action": str(manifest.config.get("action", "drop")), "rule": str(manifest.config.get("rule", "")),
    }  # fmt: skip


def _semantic(found: Removed, manifest: StageManifest) -> dict[str, Any]:
    rows = _largest(found.sources["semantic"], "removed")
    sizes = manifest.facts.get("cluster_sizes") or {}
    return {
        "rows": rows, "more": len(found.sources["semantic"]) - len(rows), "sizes": list(sizes.items()),
        "removed": found.losses["semantic"]["semantic duplicate"],
        "epsilon": float(manifest.config.get("epsilon", 0.05)), "rule": str(manifest.config.get("rule", "survivor")),
        "histogram": _similarities(found.semantic, Histogram(SIMILARITY_EDGES), "cosine with what it repeats"),
    }  # fmt: skip


def _largest(sources: Mapping[str, Counter[str]], by: str) -> list[tuple[str, Counter[str]]]:
    return sorted(sources.items(), key=lambda item: (-item[1][by], item[0]))[:SOURCES]


def _share(entry: object, name: str) -> float | None:
    value = entry.get(name) if isinstance(entry, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _similarities(above: Histogram, below: Histogram, label: str) -> Markup | None:
    if not above.count and not below.count:
        return None
    series = [charts.Series("at the threshold and above", above.counts.tolist(), 0)]
    if below.count:
        series.append(charts.Series("below the threshold", below.counts.tolist(), 1))
    edges = SIMILARITY_EDGES.tolist()
    return charts.histogram(edges, series, x_label=label, y_label="removed documents", unit="similarity")
