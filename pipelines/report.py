"""`report.html`: one self-contained page about a corpus.

It loads nothing: no script, no font, no picture, and a content security policy that forbids them. Documents are hostile
until shown otherwise, so every value that reaches the page passes `charts.visible` (nothing hides) and Jinja's escaping
(nothing runs).
"""

import importlib.metadata
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup

from ropewalk.pipelines import charts, report_data, report_map, report_removed, report_similarity
from ropewalk.pipelines.cluster_words import phrase, words_of
from ropewalk.pipelines.report_data import Documents, Rejects, Stages
from ropewalk.pipelines.report_histogram import Histogram
from ropewalk.pipelines.report_map import Map, collect_map
from ropewalk.pipelines.report_outliers import Outlier, outliers
from ropewalk.pipelines.report_sequences import Layout, collect_layout, fill_texts, wanted_ids
from ropewalk.schemas import files
from ropewalk.schemas.manifest import CorpusManifest, StageManifest
from ropewalk.schemas.tables import COLUMNS
from ropewalk.transforms.corpus_dir import CorpusDir

REASONS = 12
"""Reasons shown at a step of the funnel; the others are summed."""
SOURCES = 20
LAYOUTS = 6
"""Layouts shown with examples: bounds the page."""
LEVELS = {
    "filter": ("passed", "Passed the filters"),
    "dedup": ("kept", "Kept after deduplication"),
    "passages": ("enough", "Enough left without repeated passages"),
    "decontaminate": ("clean", "Kept after decontamination"),
    "semantic": ("distinct", "Kept after semantic deduplication"),
}
"""Key and label of what each stage that puts documents out leaves."""
CLAIMS = {
    "filter": ("passed-docs", "passed documents"),
    "dedup": ("kept-docs", "kept documents"),
    "semantic": ("kept-docs", "kept documents"),
}
"""Counters of stages that must agree with their columns."""
NEUTRAL = charts.COLOURS
"""The grey colour class: the background against which something is compared."""


def write_report(url: str, *, recipe: dict[str, Any] | None = None) -> str:
    """Writes `report.html` into a corpus folder, whole or not at all.

    Args:
        url: The corpus folder.
        recipe: The recipe it was made with, to tell stages that are switched off from those that have not run;
            default: the folder's own `recipe.json`, if it has one.

    Returns:
        URL of the report.

    Raises:
        FileNotFoundError: If `url` is no corpus folder.
    """
    target = files.join(url, "report.html")
    files.write_bytes(target, render(url, recipe=recipe).encode("utf-8", "replace"))
    return target


def render(url: str, *, recipe: dict[str, Any] | None = None) -> str:
    """The page as a string."""
    corpus = CorpusDir.open(url)
    manifest = corpus.manifest()
    assert manifest is not None
    recipe = recipe if recipe is not None else report_data.own_recipe(url)
    stages = report_data.find_stages(corpus, manifest, recipe)
    layouts = [
        collect_layout(corpus, name, found, examples=4 if i < LAYOUTS else 0)
        for i, (name, found) in enumerate(sorted(stages.layouts.items(), key=_layout_order))
    ]
    documents = report_data.collect(corpus, stages, wanted=wanted_ids(layouts))
    examples = [example for layout in layouts for example in layout.examples]
    fill_texts(corpus, examples, documents.addresses, stages.columns)
    clusters = documents.clusters if "cluster" in stages.columns else None
    sampled, apart = Map(), list[Outlier]()
    if "embed" in stages.columns and documents.sample is not None:
        addresses, reasons = documents.sample.column("address").to_numpy(), documents.apart.reasons
        sampled = collect_map(corpus, addresses, clusters, apart=list(reasons))
        apart = outliers(corpus, stages, reasons, sampled.names)
    held = {segment.cluster for example in examples for segment in example.segments if segment.cluster is not None}
    words = sampled.names | {cluster: phrase(terms) for cluster, terms in words_of(corpus, held).items()}
    rejects = report_data.collect_rejects(corpus)
    page = _Page(url, manifest, stages, documents, layouts, sampled, apart, words, rejects, recipe)
    return _template().render(page.fields())


def _layout_order(item: tuple[str, StageManifest]) -> tuple[int, int, str]:
    """The layout that the key figures speak of comes first: in_context, the shortest."""
    kinds = ("in_context", "concat", "random")
    kind = item[1].config.get("layout")
    return kinds.index(kind) if kind in kinds else len(kinds), int(item[1].config.get("length", 0)), item[0]


def _template() -> jinja2.Template:
    def finalize(value: object) -> object:
        return charts.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        autoescape=True, finalize=finalize, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": lambda value: f"{value:,.0f}", "compact": charts.compact, "percent": _percent, "clip": charts.clip,
        "bytes": _bytes, "seconds": _seconds, "cosine": lambda value: f"{value:.3f}".replace("-", "\u2212"),
    }  # fmt: skip
    source = importlib.resources.files("ropewalk.pipelines").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


@dataclass
class Level:
    """A level of the funnel, and what is lost on the way to the next one.

    Attributes:
        key: Short name.
        label: What is counted.
        count: How many.
        losses: Reason and count of each loss.
        after: What is left, as the next level counts it; none at the end.
    """

    key: str
    label: str
    count: int
    losses: list[tuple[str, int]] = field(default_factory=list)
    after: int | None = None

    @property
    def adds_up(self) -> bool:
        """Whether what goes in is what goes on plus what is lost."""
        return self.after is None or self.count == self.after + sum(count for _, count in self.losses)


@dataclass
class _Page:
    """All that is known, and the fields of the template made of it."""

    url: str
    manifest: CorpusManifest
    stages: Stages
    documents: Documents
    layouts: list[Layout]
    sampled: Map
    apart: list[Outlier]
    words: Mapping[int, str]
    rejects: Rejects
    recipe: dict[str, Any] | None

    def _finished(self) -> list[StageManifest]:
        return [self.manifest.ingest, *self.stages.columns.values(), *self.stages.layouts.values()]

    def fields(self) -> dict[str, Any]:
        levels = self.funnel()
        return {
            "name": charts.clip(self.url.rstrip("/").rsplit("/", 1)[-1] or self.url, 80),
            "url": self.url,
            "finished": max(stage.run.finished for stage in self._finished()),
            "version": importlib.metadata.version("ropewalk"),
            "manifest": self.manifest,
            "documents": self.documents,
            "present": set(self.stages.columns),
            "absent": {stage: self._absent(stage) for stage in [*COLUMNS, "pack"]},
            "sentence": self.sentence(levels),
            "figures": self.figures(),
            "warnings": self.stages.warnings + self.checks(levels),
            "levels": levels,
            "widest": max((level.count for level in levels), default=0),
            "skipped": _cut(self.skipped()),
            "rejects": self.rejects,
            "sources": sorted(self.documents.sources.items(), key=lambda item: (-item[1][0], item[0])),
            "max_sources": SOURCES,
            "lengths": self.lengths(),
            "components": self.components(),
            "removed": report_removed.sections(self.documents.removed, self.stages.columns),
            "similarity": self.similarity(),
            "map": self.map(),
            "order": self.order(),
            "layouts": [self.layout(layout) for layout in self.layouts],
            "words": self.words,
            "costs": self.costs(),
            "recipe": yaml.safe_dump(self.recipe, sort_keys=False, allow_unicode=True) if self.recipe else None,
            "versions": self.manifest.ingest.run.versions,
        }

    def _absent(self, stage: str) -> str:
        if self.recipe is not None and self.recipe.get(stage) is False:
            return f"Stage {stage} is switched off in the recipe."
        return f"Stage {stage} has not run, or is switched off."

    def funnel(self) -> list[Level]:
        found, counters = self.documents, self.manifest.ingest.counters
        levels = []
        if "records-in" in counters:
            reasons = report_data.reasons_of(counters, "records", without=("records-in", "rejected-records"))
            levels.append(Level("records", "Records read", counters["records-in"], _cut(reasons), found.total))
        levels.append(Level("documents", "Documents", found.total))
        for stage in self.stages.alive:
            left = found.removed.survivors[stage]
            levels[-1].losses, levels[-1].after = _cut(found.removed.losses[stage]), left
            levels.append(Level(*LEVELS[stage], left))
        for layout in self.layouts:
            levels.append(Level(f"packed {layout.name}", f"Documents in {layout.name}", layout.documents))
        return levels

    def skipped(self) -> dict[str, int]:
        """Files that were not read, by ending."""
        found = report_data.reasons_of(self.manifest.ingest.counters, "files")
        return {n.removeprefix("skipped:"): c for n, c in found.items() if n.startswith("skipped:")}

    def checks(self, levels: list[Level]) -> list[str]:
        """What does not add up, in words."""
        found, counters = self.documents, self.manifest.ingest.counters
        faults = [
            f"{level.label} do not add up: {level.count:,} in, {level.after:,} out, "
            f"{sum(count for _, count in level.losses):,} accounted for."
            for level in levels
            if not level.adds_up
        ]
        claims = [("corpus.json", "documents", self.manifest.rows, found.total)]
        if "rejected-records" in counters:
            claims.append(("ingest", "rejected records", counters["rejected-records"], self.rejects.total))
        for stage, (name, unit) in CLAIMS.items():
            claimed = self.stages.columns[stage].counters.get(name) if stage in self.stages.columns else None
            if claimed is not None:
                claims.append((stage, unit, claimed, found.removed.survivors[stage]))
        if "tokenize" in self.stages.columns:
            for layout in self.layouts:
                claims.append((f"layout {layout.name}", "tokens", layout.tokens, found.tokens))
                claims.append((f"layout {layout.name}", "documents", layout.documents, found.tokenized))
        for name, unit, claimed, counted in claims:
            if claimed != counted:
                faults.append(f"{name} has {claimed:,} {unit}, the tables have {counted:,}.")
        return faults

    def sentence(self, levels: list[Level]) -> str:
        found = self.documents
        if not found.total:
            return "The corpus is empty: no record became a document."
        first = f"{levels[0].count:,} records became " if levels[0].key == "records" else ""
        words = f"{first}{found.total:,} documents from {_some(len(found.sources), 'source')}"
        if self.stages.alive:
            words += f"; {found.kept:,} were kept"
        if self.layouts:
            main = self.layouts[0]
            words += f" and packed into {_some(main.sequences, 'sequence')} of up to {main.length:,} tokens"
        return words + "."

    def figures(self) -> list[dict[str, Any]]:
        """The numbers at the top: key, label, value as text, exact value, note."""
        found = self.documents
        figures = [_figure("documents", "Documents in", found.total, f"{_bytes(found.bytes)} of text")]
        if self.stages.alive:
            figures.append(_figure("kept", "Kept", found.kept, _percent(found.kept, found.total) + " of the documents"))
        if "tokenize" in self.stages.columns:
            mean = found.tokens / found.tokenized if found.tokenized else 0
            figures.append(_figure("tokens", "Tokens", found.tokens, f"{mean:,.0f} a document"))
        if self.layouts:
            main = self.layouts[0]
            figures.append(_figure("sequences", "Sequences", main.sequences, f"layout {main.name}"))
            figures.append(
                _figure(
                    "fill",
                    "Fill rate",
                    main.fill,
                    f"{_percent(main.full_share)} of sequences full",
                    _percent(main.fill),
                )
            )
            baseline = self.baseline(main)
            if main.similarity.count and baseline is not None:
                note = f"{baseline[0].mean:.3f} in {baseline[1]}"
                figures.append(
                    _figure(
                        "similarity", "In-window similarity", main.similarity.mean, note, f"{main.similarity.mean:.3f}"
                    )
                )
        return figures

    def baseline(self, layout: Layout) -> tuple[Histogram, str] | None:
        """What a layout's similarity is held against: the random layout of its length, or pairs drawn at random."""
        kind = layout.manifest.config.get("layout")
        for other in self.layouts:
            same = other.length == layout.length and other.manifest.config.get("layout") == "random"
            if same and kind != "random" and other.similarity.count:
                return other.similarity, f"layout {other.name}"
        return (self.random_pairs(), "random pairs") if len(self.sampled.random) else None

    def random_pairs(self) -> Histogram:
        pairs = Histogram(report_data.COSINE_EDGES)
        pairs.add(self.sampled.random.astype(np.float64))
        return pairs

    def lengths(self) -> dict[str, Any]:
        found = self.documents
        edges = report_data.LENGTH_EDGES.tolist()
        every = charts.Series("all documents", found.chars_all.counts.tolist(), NEUTRAL)
        kept = charts.Series("kept documents", found.chars_kept.counts.tolist(), 0)
        tokens = charts.Series("kept documents", found.tokens_kept.counts.tolist(), 0)
        labels: dict[str, Any] = {"y_label": "documents", "log_x": True}
        return {
            "chars": charts.histogram(
                edges, [kept, every] if self.stages.alive else [kept],
                x_label="length, codepoints (logarithmic)", unit="codepoints", **labels,
            ),
            "tokens": charts.histogram(
                edges, [tokens], x_label="length, tokens (logarithmic)", unit="tokens", **labels
            ) if "tokenize" in self.stages.columns else None,
        }  # fmt: skip

    def components(self) -> dict[str, Any] | None:
        if "dedup" not in self.stages.columns:
            return None
        sizes = self.documents.components
        removed = self.documents.removed
        losses = removed.losses["dedup"]
        copies = sum(count for reason, count in losses.items() if reason != "not considered")
        considered = removed.survivors["filter"] if "filter" in self.stages.columns else self.documents.total
        labels, values = sizes.bars(smallest=2)
        chart = charts.bars(labels, values, x_label="documents in the group", y_label="groups", colour=1)
        groups = sizes.count - sizes[1]
        return {"chart": chart, "groups": groups, "copies": copies, "largest": sizes.largest, "single": sizes[1],
                "considered": considered}  # fmt: skip

    def map(self) -> dict[str, Any] | None:
        found = self.sampled
        if not found.points:
            return None
        styles = charts.looks([group.cluster for group in found.groups] or [0])
        x_label, y_label = (
            f"{name} component ({share:.1%} of the variance)"
            for name, share in zip(("first", "second"), found.variance, strict=True)
        )
        legend = [
            {"key": charts.key(styles[group.cluster]), "look": styles[group.cluster], "group": group}
            for group in found.groups[: report_map.LEGEND]
        ]
        return {
            "chart": charts.scatter(found.points, styles, x_label=x_label, y_label=y_label), "legend": legend,
            "points": found.sampled, "more": len(found.groups) - len(legend), "variance": sum(found.variance),
            "apart": self.apart, "ring": charts.RING,
        }  # fmt: skip

    def similarity(self) -> dict[str, Any]:
        """What the manifests of the similarity stages say, how large the clusters are, what packing kept of it."""
        return {
            "facts": report_similarity.facts(self.stages),
            "sizes": report_similarity.sizes(self.documents.clusters),
            "windows": report_similarity.windows(self.layouts, [self.baseline(layout) for layout in self.layouts]),
        }

    def order(self) -> dict[str, Any] | None:
        if "order" not in self.stages.columns:
            return None
        found, pairs = self.documents, self.random_pairs()
        places, values = found.curve()
        shown = [charts.Series("similarity order", values, 0)]
        shares = [charts.Series("similarity order", found.prev_similarity.counts.tolist(), 0)]
        x = [places]
        if pairs.count and places:
            count = min(96, max(1, pairs.count // 40))
            means = [float(part.mean()) for part in np.array_split(self.sampled.random, count)]
            x.append(np.linspace(places[0], places[-1], count).tolist())
            shown.append(charts.Series("random order", means, NEUTRAL))
            shares.append(charts.Series("random order", pairs.counts.tolist(), NEUTRAL))
        return {
            "curve": charts.curve(x, shown, x_label="place in the order, documents", y_label="cosine, smoothed"),
            "histogram": charts.histogram(
                report_data.COSINE_EDGES.tolist(), shares, x_label="cosine with the document before",
                y_label="share of pairs", unit="cosine", share=True,
            ),
            "mean": found.prev_similarity.mean, "pairs": found.prev_similarity.count,
            "random": pairs.mean, "random_pairs": pairs.count,
        }  # fmt: skip

    def layout(self, layout: Layout) -> dict[str, Any]:
        labels, values = layout.sizes.bars()
        similarity, baseline = None, self.baseline(layout)
        if layout.similarity.count:
            series = [charts.Series(layout.name, layout.similarity.counts.tolist(), 0)]
            if baseline is not None:
                series.append(charts.Series(baseline[1], baseline[0].counts.tolist(), NEUTRAL))
            similarity = charts.histogram(
                report_data.COSINE_EDGES.tolist(), series, x_label="mean cosine of the documents of a sequence",
                y_label="share of sequences", unit="cosine", share=True,
            )  # fmt: skip
        return {
            "data": layout,
            "sizes": charts.bars(labels, values, x_label="documents in the sequence", y_label="sequences", colour=2),
            "similarity": similarity,
            "baseline": baseline,
            "examples": [(example, charts.strip(example.lengths, layout.length)) for example in layout.examples],
        }

    def costs(self) -> list[dict[str, Any]]:
        """A row a stage: what it cost and how fast it was, over the text of all documents."""
        rows = [("ingest", self.manifest.ingest), *self.stages.columns.items()]
        rows += [(f"pack {layout.name}", layout.manifest) for layout in self.layouts]
        total = sum(found.run.seconds for _, found in rows) or 1.0
        return [
            {
                "name": name, "run": found.run, "share": found.run.seconds / total,
                "docs_rate": self.documents.total / found.run.seconds if found.run.seconds else None,
                "bytes_rate": self.documents.bytes / found.run.seconds if found.run.seconds else None,
                "size": sum(shard.bytes for shard in found.shards),
                "jobs": list(found.run.jobs.items()),
                "facts": charts.clip(json.dumps(found.facts, ensure_ascii=False), 600) if found.facts else None,
            }
            for name, found in rows
        ]  # fmt: skip


def _figure(key: str, label: str, value: float, note: str, text: str | None = None) -> dict[str, Any]:
    shown = f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:.1f}M" if value < 99.95e6 else charts.compact(value)
    return {"key": key, "label": label, "value": value, "text": text or shown, "note": note}


def _cut(reasons: dict[str, int]) -> list[tuple[str, int]]:
    """Reasons by falling count; those past the first dozen as one."""
    ordered = sorted(((charts.clip(r, 80), c) for r, c in reasons.items() if c), key=lambda item: (-item[1], item[0]))
    rest = ordered[REASONS:]
    return ordered[:REASONS] + ([(f"{len(rest)} others", sum(c for _, c in rest))] if rest else [])


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _percent(value: float, of: float = 1.0) -> str:
    """A share with one decimal; never rounded up to 100 or down to 0."""
    share = 100 * value / of if of else 0.0
    if 99.95 <= share < 100:
        return f"{min(share, 99.99):.2f} %"
    return f"{share:.1f} %" if share == 0 or share >= 0.05 else "< 0.1 %"


def _bytes(value: float) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}" if value < 99.95 * factor else f"{value / factor:.0f} {unit}"
    return f"{value:.0f} B"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    hours, rest = divmod(round(value), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
