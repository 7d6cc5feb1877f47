"""The table of guards: what is measured, from which value on a text is refused, and where that value comes from.

A recipe's `guards:` changes values by name, for all languages; `inf` turns a guard of direction `most` off, and 0 one
of direction `least`. Flags count places, so their value is 0. Self-Lengthen's rule that no 10 words may ever be
repeated (arXiv 2410.23933) is `duplicate_10gram_char_share: 0`; it also refuses refrains.

The values are for prose, with the lists and tables it holds. Of 66 modules of Python's library 36 are beyond one of
them, 35 by `longest_repeat_chars`: where code is to be written, turn that one and `compression_ratio` off. A poem whose
refrain is a third of it is beyond Gopher's values.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ropewalk.schemas.settings import RecipeError
from ropewalk.synth.guards.flags import FLAGS

_Scope = Literal["any", "whole"]
_Source = Literal["Gopher", "ours", "calibrated", "flag"]


@dataclass(frozen=True)
class Guard:
    """One guard.

    Attributes:
        name: Its name, that of the figure or flag it looks at.
        reason: Reason code of a text it refuses.
        direction: `most`: greater values are refused; `least`: smaller ones.
        en: Value for English and every language but Chinese.
        zh: Value for Chinese.
        scope: `any`: texts and each of their paragraphs; `whole`: the text checked only.
        min_words: Texts and paragraphs of fewer words are exempt.
        source: `Gopher`: arXiv 2112.11446, for words; where Chinese, whose n-grams are of characters, differs, its
            value is calibrated; `ours`: set by judgement; `calibrated`: set on human text and injected loops,
            `benchmarks/results/synth_guards.json`; `flag`: not a number.
    """

    name: str
    reason: str
    direction: Literal["most", "least"]
    en: float
    zh: float
    scope: _Scope
    min_words: int
    source: _Source

    def limit(self, language: str) -> float:
        """Its value for a language."""
        return self.zh if language == "zh" else self.en

    def refuses(self, value: float, words: float, language: str) -> bool:
        """Whether a figure of a text of so many words is beyond the value."""
        if words < self.min_words:
            return False
        return value > self.limit(language) if self.direction == "most" else value < self.limit(language)


def _guard(
    name: str, en: float, zh: float, min_words: int, source: _Source, *, scope: _Scope = "any", least: bool = False
) -> Guard:
    return Guard(name, "repetition", "least" if least else "most", en, zh, scope, min_words, source)


GUARDS: tuple[Guard, ...] = (
    _guard("compression_ratio", 4, 4, 200, "calibrated"),
    _guard("duplicate_line_share", 0.3, 0.3, 50, "Gopher", scope="whole"),
    _guard("duplicate_paragraph_share", 0.3, 0.3, 50, "Gopher", scope="whole"),
    _guard("duplicate_line_char_share", 0.2, 0.2, 50, "Gopher", scope="whole"),
    _guard("duplicate_paragraph_char_share", 0.2, 0.2, 50, "Gopher", scope="whole"),
    _guard("top_2gram_char_share", 0.2, 0.2, 50, "Gopher", scope="whole"),
    _guard("top_3gram_char_share", 0.18, 0.18, 50, "Gopher", scope="whole"),
    _guard("top_4gram_char_share", 0.16, 0.16, 50, "Gopher", scope="whole"),
    _guard("duplicate_5gram_char_share", 0.15, 0.25, 100, "Gopher"),
    _guard("duplicate_10gram_char_share", 0.1, 0.15, 100, "Gopher"),
    _guard("min_distinct_4", 0.75, 0.65, 200, "calibrated", least=True),
    _guard("longest_repeat_chars", 150, 200, 50, "calibrated"),
    _guard("longest_repeat_share", 0.05, 0.05, 200, "calibrated", scope="whole"),
    _guard("worst_window_repeat_share", 0.15, 0.3, 200, "calibrated", scope="whole"),
    Guard("language_drift", "language_drift", "most", 0.3, 0.3, "whole", 200, "ours"),
    Guard("loop", "repetition", "most", 0, 0, "whole", 0, "ours"),
    *(Guard(name, name, "most", 0, 0, "whole", 0, "flag") for name in FLAGS),
)


def guards(overrides: Mapping[str, float]) -> tuple[Guard, ...]:
    """The table with some values changed.

    Raises:
        RecipeError: A name is unknown, or a value is no number.
    """
    names = [guard.name for guard in GUARDS]
    for name, value in overrides.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
            raise RecipeError(f"guards: {name}: unknown guard; {hint}")
        if math.isnan(value) or value < 0:
            raise RecipeError(f"guards: {name}: {value} is no limit; give 0 or more, `.inf` to turn the guard off")
    return tuple(
        dataclasses.replace(guard, en=overrides[guard.name], zh=overrides[guard.name])
        if guard.name in overrides
        else guard
        for guard in GUARDS
    )
