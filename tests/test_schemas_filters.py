"""The documented table is the one that judges."""

from pathlib import Path

import pytest

from ropewalk.schemas.filters import LANGUAGES, RULES, FilterConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "filters.md"
WHO = {"all": "all", "spaced": "scripts with spaces", "english": "English"}


def test_the_documented_table_is_the_one_that_judges():
    rows = []
    for rule in RULES:
        who = WHO[rule.applies] + (f", from {rule.min_words} words" if rule.min_words else "")
        side = "below" if rule.bound == "least" else "above"
        cells = (
            f"`{rule.name}`", f"`{rule.preset}`", f"`{rule.figure}`", side, f"{rule.value:g}", who, rule.source,
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # Table A1 of the Gopher paper, and section A1.1's text.
        ("repeated_lines", 0.30), ("repeated_paragraphs", 0.30), ("repeated_line_chars", 0.20),
        ("repeated_paragraph_chars", 0.20), ("top_2gram", 0.20), ("top_3gram", 0.18), ("top_4gram", 0.16),
        ("repeated_5grams", 0.15), ("repeated_6grams", 0.14), ("repeated_7grams", 0.13), ("repeated_8grams", 0.12),
        ("repeated_9grams", 0.11), ("repeated_10grams", 0.10), ("too_few_words", 50), ("too_many_words", 100_000),
        ("words_too_short", 3), ("words_too_long", 10), ("too_many_hashes", 0.1), ("too_many_bullets", 0.9),
        ("too_many_ellipsis_lines", 0.3), ("too_few_letters", 0.8), ("too_few_stop_words", 2),
        # FineWeb, section 3.6, and C4, section 2.2.
        ("too_few_ended_lines", 0.12), ("too_many_repeated_chars", 0.01), ("too_many_short_lines", 0.67),
        ("too_few_sentences", 5),
    ],
)  # fmt: skip
def test_published_values(name, value):
    assert next(rule.value for rule in RULES if rule.name == name) == value


def test_defaults_ask_for_nothing():
    config = FilterConfig()
    assert (config.chosen, config.languages) == ((), None)
    assert list(LANGUAGES) == sorted(set(LANGUAGES))
