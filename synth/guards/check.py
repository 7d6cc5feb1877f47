"""Refuses a text that loops, refuses, drifts or shows its seams, and says how much of it may be kept.

A text is measured as a whole and paragraph by paragraph (see `guards.table` for what is exempt), its flags are found,
and its tail is searched for a loop. What may be kept ends with the paragraph before the first bad one, and is itself a
text that no guard refuses.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ropewalk.kernels.shingles import shingles
from ropewalk.kernels.word_spans import word_spans
from ropewalk.synth.guards import table
from ropewalk.synth.guards.flags import find_flags
from ropewalk.synth.guards.loops import find_text_loop
from ropewalk.synth.guards.metrics import PARAGRAPHS, codepoints, measure
from ropewalk.synth.recipe import Unacceptable

MAX_CHARS = 1 << 22
"""Longer texts are refused unread: no answer of a model is."""
PARAGRAPH_WORDS = {"en": 50, "zh": 120}
"""Paragraphs of fewer words are not measured on their own."""
_TAIL_CHARS = 32_768
"""The end that is searched for a loop; longer loops show in the figures."""
_SEEN_NGRAM = 8
_SEEN_SHARE = 0.5
"""A paragraph more than half of whose 8-grams stood before it is where repetition began."""


@dataclass(frozen=True)
class Fault:
    """One guard that refuses a text.

    Attributes:
        guard: Name of the guard.
        reason: Its reason code.
        detail: What was found, for people.
        at: Index of the first character that is wrong; the length of the text where that is not known.
    """

    guard: str
    reason: str
    detail: str
    at: int


class Guards:
    """The guards of a run.

    Args:
        thresholds: Values that differ from the table's, by name.

    Raises:
        RecipeError: Unknown name or a value that is none.
    """

    def __init__(self, thresholds: Mapping[str, float] | None = None) -> None:
        self.guards = table.guards(thresholds or {})

    def check(self, text: str, *, language: str, prompt: str = "", whole: bool = False) -> dict[str, float]:
        """Measures a text and refuses it if a guard fires.

        Args:
            text: A paragraph, or the whole output.
            language: `en` or `zh`.
            prompt: The task, to find echoes of it.
            whole: Whether this is the finished output: then its end is looked at too.

        Returns:
            The figures, see `metrics.measure`.

        Raises:
            Unacceptable: With the reason of the first guard that fired, in the order of the table, the figures, and in
                `keep` the clean paragraphs at the beginning.
        """
        if len(text) > MAX_CHARS:
            raise Unacceptable("oversize", f"{len(text)} characters; at most {MAX_CHARS} are read")
        figures, faults = self.examine(text, language=language, prompt=prompt, whole=whole)
        if not faults:
            return figures
        detail = "; ".join(fault.detail for fault in faults)
        keep = self._keep(text, language, prompt, min(fault.at for fault in faults))
        raise Unacceptable(faults[0].reason, detail, keep=keep, metrics=figures)

    def examine(
        self, text: str, *, language: str, prompt: str = "", whole: bool = False
    ) -> tuple[dict[str, float], list[Fault]]:
        """The figures of a text and all guards that refuse it, in the order of the table."""
        figures = measure(text, language)
        found = {name: (figures[name], f"{name} {figures[name]:.3g}", len(text)) for name in figures}
        tail = max(0, len(text) - _TAIL_CHARS)
        if loop := find_text_loop(text[tail:]):
            found["loop"] = (1, f"{loop.copies} copies of {loop.period} characters", tail + loop.start + loop.period)
        for flag in find_flags(text, language=language, prompt=prompt, whole=whole):
            found.setdefault(flag.name, (1, f"{flag.name} {flag.words!r}", flag.at))
        faults = []
        for guard in self.guards:
            if guard.name not in found:
                continue
            value, detail, at = found[guard.name]
            if guard.refuses(value, figures["words"], language):
                faults.append(Fault(guard.name, guard.reason, detail, at))
        return figures, faults or self._paragraph_faults(text, language)

    def _paragraph_faults(self, text: str, language: str) -> list[Fault]:
        """Guards that refuse a paragraph of a text that is clean as a whole: those of the first one."""
        spans = _paragraphs(text)
        if len(spans) < 2:
            return []
        least = PARAGRAPH_WORDS.get(language, PARAGRAPH_WORDS["en"])
        for start, stop in spans:
            if stop - start < least:  # cannot hold so many words
                continue
            figures = measure(text[start:stop], language)
            if figures["words"] < least:
                continue
            faults = [
                Fault(g.name, g.reason, f"{g.name} {figures[g.name]:.3g} in the paragraph at {start}", start)
                for g in self.guards
                if g.scope == "any" and g.name in figures and g.refuses(figures[g.name], figures["words"], language)
            ]
            if faults:
                return faults
        return []

    def _keep(self, text: str, language: str, prompt: str, bad: int) -> str:
        """The longest clean beginning that ends with a paragraph before `bad`, as far as halving finds it."""
        spans = _paragraphs(text)
        stops = [0] + [stop for _, stop in spans]
        high = bisect_right(stops, min(bad, _first_repeated(text, spans)))
        if high == len(stops):
            high -= 1  # nothing is known of where it is bad, but as a whole it is
        low = 0  # text[: stops[low]] is clean, the next one tried is not known to be
        step = high - 1
        while low < high - 1:
            if self.examine(text[: stops[step]], language=language, prompt=prompt)[1]:
                high = step
            else:
                low = step
            step = (low + high) // 2
        return text[: stops[low]]


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Start and stop of each paragraph: between blank lines, or lines where there is no blank one."""
    spans, at = [], 0
    separators = [match.span() for match in PARAGRAPHS.finditer(text.rstrip())]
    if not separators:
        separators = [(i, i + 1) for i, char in enumerate(text.rstrip()) if char == "\n"]
    for start, stop in [*separators, (len(text.rstrip()), len(text))]:
        if start > at:
            spans.append((at, start))
        at = stop
    return spans


def _first_repeated(text: str, spans: list[tuple[int, int]]) -> int:
    """Where the first paragraph starts that mostly stood before; the length of the text if none does."""
    starts, _, words = word_spans(codepoints(text))
    if len(words) <= _SEEN_NGRAM:
        return len(text)
    grams, _ = shingles(words, np.array([0, len(words)], np.int64), _SEEN_NGRAM)
    _, first, which = np.unique(grams, return_index=True, return_inverse=True)
    seen = np.concatenate([[0], np.cumsum(first[which] < np.arange(len(grams)))])
    for start, stop in spans:
        a, b = np.searchsorted(starts[: len(grams)], (start, stop))
        if b > a and seen[b] - seen[a] > _SEEN_SHARE * (b - a):
            return start
    return len(text)
