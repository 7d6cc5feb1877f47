"""Settings of the stage `filter`, and its rules with their thresholds, in one table.

A rule refuses a document whose figure is beyond its bound. Its name is the reason code in the columns and counters, and
what `rules` and `thresholds` of a recipe call it.
"""

import difflib
import math
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ropewalk.schemas.settings import Settings

Preset = Literal["gopher_quality", "gopher_repetition", "c4", "fineweb"]

GOPHER = "Gopher, arXiv 2112.11446"
C4 = "C4, JMLR 21 (2020)"
FINEWEB = "FineWeb, arXiv 2406.17557"


@dataclass(frozen=True)
class Rule:
    """One rule of a preset.

    Attributes:
        name: Its name and reason code.
        preset: The preset it belongs to.
        figure: What it looks at: one of `transforms.quality.FIGURES`.
        bound: `least`: smaller figures are refused; `most`: greater ones.
        value: The bound, unless a recipe's `thresholds` has another.
        source: Where the value comes from.
        applies: `all` documents; `spaced`: those of which at least half of the words are of a script written with
            spaces; `english`: those whose language is English, or not known.
        min_words: Documents of fewer words are exempt.
    """

    name: str
    preset: Preset
    figure: str
    bound: Literal["least", "most"]
    value: float
    source: str
    applies: Literal["all", "spaced", "english"] = "all"
    min_words: int = 0


RULES: tuple[Rule, ...] = (
    Rule("too_few_words", "gopher_quality", "words", "least", 50, GOPHER),
    Rule("too_many_words", "gopher_quality", "words", "most", 100_000, GOPHER),
    Rule("words_too_short", "gopher_quality", "mean_word_chars", "least", 3, GOPHER, "spaced"),
    Rule("words_too_long", "gopher_quality", "mean_word_chars", "most", 10, GOPHER, "spaced"),
    Rule("too_many_hashes", "gopher_quality", "hashes_per_token", "most", 0.1, GOPHER),
    Rule("too_many_ellipses", "gopher_quality", "ellipses_per_token", "most", 0.1, GOPHER),
    Rule("too_many_bullets", "gopher_quality", "bullet_line_share", "most", 0.9, GOPHER),
    Rule("too_many_ellipsis_lines", "gopher_quality", "ellipsis_line_share", "most", 0.3, GOPHER),
    Rule("too_few_letters", "gopher_quality", "alpha_token_share", "least", 0.8, GOPHER),
    Rule("too_few_stop_words", "gopher_quality", "stop_words", "least", 2, GOPHER, "english"),
    Rule("repeated_paragraphs", "gopher_repetition", "repeated_paragraph_share", "most", 0.3, GOPHER),
    Rule("repeated_paragraph_chars", "gopher_repetition", "repeated_paragraph_char_share", "most", 0.2, GOPHER),
    Rule("repeated_lines", "gopher_repetition", "repeated_line_share", "most", 0.3, GOPHER),
    Rule("repeated_line_chars", "gopher_repetition", "repeated_line_char_share", "most", 0.2, GOPHER),
    Rule("top_2gram", "gopher_repetition", "top_2gram_char_share", "most", 0.2, GOPHER, "spaced", 50),
    Rule("top_3gram", "gopher_repetition", "top_3gram_char_share", "most", 0.18, GOPHER, "spaced", 50),
    Rule("top_4gram", "gopher_repetition", "top_4gram_char_share", "most", 0.16, GOPHER, "spaced", 50),
    Rule("repeated_5grams", "gopher_repetition", "repeated_5gram_char_share", "most", 0.15, GOPHER, "spaced"),
    Rule("repeated_6grams", "gopher_repetition", "repeated_6gram_char_share", "most", 0.14, GOPHER, "spaced"),
    Rule("repeated_7grams", "gopher_repetition", "repeated_7gram_char_share", "most", 0.13, GOPHER, "spaced"),
    Rule("repeated_8grams", "gopher_repetition", "repeated_8gram_char_share", "most", 0.12, GOPHER, "spaced"),
    Rule("repeated_9grams", "gopher_repetition", "repeated_9gram_char_share", "most", 0.11, GOPHER, "spaced"),
    Rule("repeated_10grams", "gopher_repetition", "repeated_10gram_char_share", "most", 0.1, GOPHER, "spaced"),
    Rule("lorem_ipsum", "c4", "lorem_ipsum_lines", "most", 0, C4),
    Rule("curly_bracket", "c4", "curly_lines", "most", 0, C4),
    Rule("too_few_sentences", "c4", "kept_sentences", "least", 5, C4, "english"),
    Rule("too_few_ended_lines", "fineweb", "ended_line_share", "least", 0.12, FINEWEB),
    Rule("too_many_short_lines", "fineweb", "short_line_share", "most", 0.67, FINEWEB),
    Rule("too_many_repeated_chars", "fineweb", "repeated_line_char_share", "most", 0.01, FINEWEB),
    Rule("too_many_newlines", "fineweb", "newlines_per_token", "most", 0.3, FINEWEB),
)
"""Every rule, in the order in which they are asked: the first one that refuses is a document's reason."""

PRESETS: tuple[str, ...] = tuple(dict.fromkeys(rule.preset for rule in RULES))
LANGUAGES: tuple[str, ...] = tuple(
    (
        "af ar as az ba be bg bn bo br ca ce cs cv cy da de dv el en eo es et eu fa fi fo fr fy ga gd gl gu ha he hi "
        "hr hu hy id io is it ja jv ka kk km kn ko ku ky la lb lt lv mg mk ml mn mr mt my ne nl no or pa pl ps pt rm "
        "ro ru sa sc sd si sk sl so sq sr sv sw ta te tg th tk tl tr tt ug uk ur uz vi vo yi zh"
    ).split()
)
"""Codes of the languages that can be told apart."""


class FilterConfig(Settings):
    """Which documents take part in the later stages. Nothing is changed or deleted: verdicts are columns."""

    min_chars: int = Field(default=50, ge=0)
    """Shortest document, in codepoints."""
    max_chars: int | None = Field(default=None, ge=1)
    """Longest document, in codepoints; none: no limit."""
    rules: tuple[str, ...] = ()
    """Quality rules: presets (`gopher_quality`, `gopher_repetition`, `c4`, `fineweb`) or single rules by name; see
    [filters](filters.md)."""
    thresholds: dict[str, float] = {}
    """Other thresholds for rules that are on, by rule: `{too_few_words: 100}`; infinity (`.inf`, `-.inf`) turns one
    off."""
    languages: tuple[str, ...] | None = None
    """Languages to keep, as codes (`[en, de]`). An empty list: identify, and keep all; none: do not identify."""
    language_min_score: float = Field(default=0, ge=0, le=1)
    """Documents whose language is less certain are refused. The score is the margin over the next language, from 0, a
    tie, to 1; at 0.05 nine in ten wrong ones are refused, and one in twelve right ones."""

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            _known(name, [*PRESETS, *(rule.name for rule in RULES)], "preset or rule")
        return value

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            _known(name, LANGUAGES, "language")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise ValueError(f"max_chars={self.max_chars} is below min_chars={self.min_chars}: nothing would pass")
        for name, value in self.thresholds.items():
            _known(name, [rule.name for rule in RULES], "rule", "thresholds: ")
            if math.isnan(value):
                raise ValueError(f"thresholds: {name}: {value} is no number; infinity turns a rule off")
            if name not in [rule.name for rule in self.chosen]:
                preset = next(rule.preset for rule in RULES if rule.name == name)
                raise ValueError(f"thresholds: {name} is not on: add {preset!r} or {name!r} to `rules`")
        if self.language_min_score and self.languages is None:
            raise ValueError("language_min_score needs `languages`: name some, or `languages: []` to keep all")
        return self

    @property
    def chosen(self) -> tuple[Rule, ...]:
        """The rules that are on, in the table's order, with this recipe's thresholds."""
        return tuple(
            Rule(**(vars(rule) | {"value": self.thresholds.get(rule.name, rule.value)}))
            for rule in RULES
            if rule.name in self.rules or rule.preset in self.rules
        )


def _known(name: str, known: list[str] | tuple[str, ...], what: str, where: str = "") -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"{where}unknown {what} {name!r}; {hint}")
