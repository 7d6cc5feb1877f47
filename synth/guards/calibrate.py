"""How the guards treat text that people wrote: false rejects of each, and the values that would have kept 99 of 100.

Every text is examined as a finished output. Counts are exact; percentiles come from a seeded reservoir of 10,000 texts
a language (Vitter's algorithm R), so memory does not grow with the input and the same input gives the same report. As
the texts are taken to be good, every refusal is a false one: what the guards miss is not measured here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ropewalk.schemas.synthesis import GUARD_METRICS
from ropewalk.synth.guards.check import MAX_CHARS, Guards

RESERVOIR = 10_000
PERCENTILES = (1, 5, 50, 95, 99)


@dataclass
class Figures:
    """What was found in the texts of one language.

    Attributes:
        texts: Texts examined.
        words: Their words.
        oversize: Texts too long to be examined, not among them.
        rejected: Texts that at least one guard refused.
        by_guard: Texts each guard refused, guards that refused none included.
        percentiles: Of each figure: percentile -> value.
        suggested: For each guard with a number, the value that 99 of 100 texts of its `min_words` or more pass.
        examples: For each guard that refused, the first reasons, at most three.
    """

    texts: int = 0
    words: int = 0
    oversize: int = 0
    rejected: int = 0
    by_guard: dict[str, int] = field(default_factory=dict)
    percentiles: dict[str, dict[int, float]] = field(default_factory=dict)
    suggested: dict[str, float] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rejected_share(self) -> float:
        """Share of texts refused."""
        return self.rejected / self.texts if self.texts else 0.0


@dataclass(frozen=True)
class Calibration:
    """The report: figures by language."""

    languages: dict[str, Figures]

    def lines(self) -> list[str]:
        """The report as text, for a terminal."""
        out = []
        for language, figures in sorted(self.languages.items()):
            out += [
                f"{language}: {figures.texts:,} texts, {figures.words:,} words; refused {figures.rejected:,}"
                f" ({figures.rejected_share:.2%})" + (f"; {figures.oversize:,} too long" if figures.oversize else ""),
                f"  {'guard':32} {'refused':>8} {'p50':>10} {'p95':>10} {'p99':>10} {'suggested':>10}",
            ]
            for name, refused in figures.by_guard.items():
                values = figures.percentiles.get(name, {})
                cells = [f"{values[p]:10.3g}" if values else f"{'':10}" for p in (50, 95, 99)]
                suggested = f"{figures.suggested[name]:10.3g}" if name in figures.suggested else ""
                out.append(f"  {name:32} {refused:8,} {' '.join(cells)} {suggested}".rstrip())
        return out


def calibrate(texts: Iterable[tuple[str, str]], thresholds: Mapping[str, float] | None = None) -> Calibration:
    """Examines texts that people wrote.

    Args:
        texts: Text and language (`en` or `zh`) of each.
        thresholds: Values that differ from the table's, by name.

    Raises:
        RecipeError: If a threshold's name is unknown.
    """
    guards = Guards(thresholds)
    languages: dict[str, Figures] = {}
    samples: dict[str, np.ndarray] = {}
    draw = np.random.default_rng(0)
    for text, language in texts:
        figures = languages.setdefault(language, Figures(by_guard={guard.name: 0 for guard in guards.guards}))
        if len(text) > MAX_CHARS:
            figures.oversize += 1
            continue
        values, faults = guards.examine(text, language=language, whole=True)
        sample = samples.setdefault(language, np.empty((RESERVOIR, len(GUARD_METRICS))))
        place = figures.texts if figures.texts < RESERVOIR else int(draw.integers(figures.texts + 1))
        if place < RESERVOIR:
            sample[place] = [values[name] for name in GUARD_METRICS]
        figures.texts += 1
        figures.words += int(values["words"])
        figures.rejected += bool(faults)
        for fault in faults:
            figures.by_guard[fault.guard] += 1
            examples = figures.examples.setdefault(fault.guard, [])
            if len(examples) < 3:
                examples.append(fault.detail)
    for language, sample in samples.items():
        _summarize(languages[language], sample[: languages[language].texts], guards)
    return Calibration(languages)


def _summarize(figures: Figures, sample: np.ndarray, guards: Guards) -> None:
    for column, name in enumerate(GUARD_METRICS):
        found = np.percentile(sample[:, column], PERCENTILES)
        figures.percentiles[name] = dict(zip(PERCENTILES, found.tolist(), strict=True))
    words = sample[:, GUARD_METRICS.index("words")]
    for guard in guards.guards:
        if guard.name in GUARD_METRICS and (long := words >= guard.min_words).any():
            values = sample[long, GUARD_METRICS.index(guard.name)]
            figures.suggested[guard.name] = float(np.percentile(values, 99 if guard.direction == "most" else 1))
