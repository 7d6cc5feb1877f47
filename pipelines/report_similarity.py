"""What the similarity stages found, in figures: the facts that are in their manifests, and nothing that is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ropewalk.pipelines import charts
from ropewalk.pipelines.report_data import Stages
from ropewalk.pipelines.report_histogram import Histogram, SizeCounts
from ropewalk.pipelines.report_sequences import Layout


@dataclass(frozen=True)
class Fact:
    """A number or a word of a manifest.

    Attributes:
        name: Its key among the facts, or the counters.
        label: What it is, behind its value.
        kind: How it is written: `text`, `count`, `cosine` or `share`; `trouble`: a count that is shown if there is any.
    """

    name: str
    label: str
    kind: str = "count"


FACTS: dict[str, tuple[str, tuple[Fact, ...]]] = {
    "embed": ("Vectors", (
        Fact("embedder", "embedder", "text"), Fact("dimensions", "dimensions"),
        Fact("embedded-docs", "documents with a vector"), Fact("zero_vector-docs", "zero vectors"),
        Fact("reused_docs", "taken from an earlier run"), Fact("not_finite_docs", "not finite", "trouble"),
        Fact("windows_per_doc", "windows a document", "cosine"), Fact("windowed_docs", "documents of several windows"),
        Fact("mean_dispersion", "mean dispersion of their windows", "cosine"),
        Fact("length_bias", "correlation of length and mean cosine", "cosine"),
        Fact("length_bias_centred", "of it after centring", "cosine"),
    )),
    "cluster": ("Clusters", (
        Fact("clusters", "clusters"), Fact("largest", "documents in the largest"),
        Fact("smallest", "in the smallest that has any"), Fact("empty", "empty"),
        Fact("sharing", "share the middle of another", "trouble"),
        Fact("oversized", "larger than allowed", "trouble"), Fact("unsplittable", "could not be split", "trouble"),
    )),
    "neighbours": ("Neighbours", (
        Fact("mean_similarity", "mean cosine with them", "cosine"),
        Fact("recall_at_k", "of the true neighbours found", "share"),
        Fact("recall_sample", "documents compared with all for that"), Fact("links", "links"), Fact("edges", "edges"),
        Fact("alone", "documents without any"),
    )),
    "order": ("Order", (
        Fact("method", "method", "text"), Fact("mean_similarity", "mean cosine of neighbours in the order", "cosine"),
        Fact("window_similarity", "mean cosine inside a window", "cosine"),
        Fact("mean_similarity_random", "mean cosine of random pairs", "cosine"), Fact("jumps", "jumps"),
        Fact("segments_dissolved", "short segments dissolved"),
        Fact("near_duplicate_pairs", "neighbours that are near copies", "trouble"),
    )),
}  # fmt: skip
"""Title of each stage, and what of its facts and counters is shown if it is there."""


def facts(stages: Stages) -> list[dict[str, Any]]:
    """What the manifests say: title, and label, text and value of each fact, by stage."""
    found = []
    for stage, (title, wanted) in FACTS.items():
        if stage in stages.columns:
            known = stages.columns[stage].counters | stages.columns[stage].facts
            rows = [
                {"name": fact.name, "label": fact.label, "text": text, "value": known[fact.name]}
                for fact in wanted
                if (text := _text(known.get(fact.name), fact.kind)) is not None
            ]
            found.append({"stage": stage, "title": title, "rows": rows})
    return found


def _text(value: object, kind: str) -> str | None:
    """A fact as text; none if it is not there, or not what it should be."""
    if kind == "text":
        return charts.clip(value, 80) if isinstance(value, str) and value else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    if kind == "trouble" and not value:
        return None
    if kind == "share":  # never rounded up to all
        return "100 %" if value >= 1 else f"{min(100 * value, 99.9):.1f} %"
    text = f"{value:.3f}" if kind == "cosine" else f"{value:,.0f}"
    return text.replace("-", "\u2212")


def sizes(clusters: Mapping[int, int]) -> Markup | None:
    """How many documents the clusters have; none if there are none."""
    if not clusters:
        return None
    counts = SizeCounts()
    counts.add(np.fromiter(clusters.values(), np.int64, len(clusters)))
    labels, values = counts.bars()
    first = next(place for place, value in enumerate(values) if value)
    return charts.bars(labels[first:], values[first:], x_label="documents in the cluster", y_label="clusters", colour=2)


def windows(layouts: Sequence[Layout], baselines: Sequence[tuple[Histogram, str] | None]) -> list[dict[str, Any]]:
    """Mean similarity inside the sequences of each layout, beside that of chance; layouts without any are left out."""
    found = []
    for layout, baseline in zip(layouts, baselines, strict=True):
        if layout.similarity.count:
            mean, chance = layout.similarity.mean, baseline[0].mean if baseline else None
            found.append({
                "name": layout.name, "length": layout.length, "sequences": layout.similarity.count, "mean": mean,
                "random": chance, "beside": baseline[1] if baseline else "",
                "lift": None if chance is None else mean - chance,
            })  # fmt: skip
    return found
