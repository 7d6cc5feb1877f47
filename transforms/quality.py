"""Quality rules: figures of each text, and which rules refuse it.

    text --counts--> integers (kernels.text_counts) --ratios--> figures --bounds--> refusals

The rules and their bounds are the table `schemas.filters.RULES`. Nothing here loops over documents in Python.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from ropewalk.kernels import text_counts
from ropewalk.schemas.filters import Rule
from ropewalk.transforms import utf8

Counts = Mapping[str, np.ndarray]
"""Counts by name, see `kernels.text_counts.FIELDS`: int64[n] each."""


def _share(part: str, whole: str) -> Callable[[Counts], np.ndarray]:
    return lambda counts: counts[part] / np.maximum(counts[whole], 1)


def _stop_words(counts: Counts) -> np.ndarray:
    return np.bitwise_count(counts["stop_words"])


FIGURES: dict[str, tuple[tuple[str, ...], Callable[[Counts], np.ndarray]]] = {
    "words": (("tokens",), lambda counts: counts["words"]),
    "mean_word_chars": (("tokens",), _share("word_chars", "words")),
    "hashes_per_token": (("tokens",), _share("hashes", "tokens")),
    "ellipses_per_token": (("tokens",), _share("ellipses", "tokens")),
    "bullet_line_share": (("lines",), _share("bullet_lines", "lines")),
    "ellipsis_line_share": (("lines",), _share("ellipsis_lines", "lines")),
    "alpha_token_share": (("tokens",), _share("alpha_tokens", "tokens")),
    "stop_words": (("tokens",), _stop_words),
    "repeated_paragraph_share": (("lines",), _share("repeated_paragraphs", "paragraphs")),
    "repeated_paragraph_char_share": (("lines",), _share("repeated_paragraph_chars", "chars")),
    "repeated_line_share": (("lines",), _share("repeated_lines", "filled_lines")),
    "repeated_line_char_share": (("lines",), _share("repeated_line_chars", "chars")),
    **{
        f"top_{n}gram_char_share": (("lines", "tokens", "grams"), _share(f"top_{n}gram_chars", "chars"))
        for n in text_counts.TOP
    },
    **{
        f"repeated_{n}gram_char_share": (("lines", "tokens", "grams"), _share(f"repeated_{n}gram_chars", "chars"))
        for n in text_counts.DUP
    },
    "lorem_ipsum_lines": (("c4",), lambda counts: counts["lorem_ipsum"]),
    "curly_lines": (("c4",), lambda counts: counts["curly_lines"]),
    "kept_sentences": (("c4",), lambda counts: counts["sentences"]),
    "ended_line_share": (("lines",), _share("ended_lines", "filled_lines")),
    "short_line_share": (("lines",), _share("short_lines", "filled_lines")),
    "newlines_per_token": (("lines", "tokens"), _share("newlines", "tokens")),
}
"""What rules look at, by name: the groups of counts it needs, and how it is made of them. A share of nothing is 0."""


def groups_of(rules: Sequence[Rule]) -> frozenset[str]:
    """Groups of counts that rules need, see `kernels.text_counts.GROUPS`."""
    found = {group for rule in rules for group in FIGURES[rule.figure][0]}
    if any(rule.applies == "spaced" or rule.min_words for rule in rules):
        found.add("tokens")
    return frozenset(found)


def count(texts: pa.LargeStringArray, groups: frozenset[str], threads: int = 1) -> dict[str, np.ndarray]:
    """Counts of each text, by name; zeros where they are not of `groups`.

    Args:
        texts: The documents, n of them, without nulls.
        groups: What to count.
        threads: Threads for the kernels.

    Returns:
        int64[n] by the names of `kernels.text_counts.FIELDS`.
    """
    data, offsets = utf8.buffers(texts)
    counts = np.zeros((len(texts), len(text_counts.FIELDS)), np.int64)

    def run(first: int, last: int) -> None:
        text_counts.count_texts(data, offsets, first, last, groups, counts)

    if groups:
        utf8.spread(run, offsets, threads)
    return dict(zip(text_counts.FIELDS, counts.T, strict=True))


def refusals(rules: Sequence[Rule], counts: Counts, language: pa.Array | None = None) -> dict[str, np.ndarray]:
    """Which documents each rule refuses.

    Args:
        rules: The rules, with their bounds.
        counts: Counts of n documents, of the groups that the rules need.
        language: Language code of each, null where it is not known, string[n]; none if nothing is known.

    Returns:
        bool[n] by rule, in the order of `rules`.
    """
    found = {}
    foreign = None
    if language is not None:
        foreign = np.array([code not in (None, "en") for code in language.to_pylist()], bool)
    for rule in rules:
        figure = FIGURES[rule.figure][1](counts)
        refused = figure < rule.value if rule.bound == "least" else figure > rule.value
        if rule.min_words:
            refused = refused & (counts["words"] >= rule.min_words)
        if rule.applies == "spaced":
            refused = refused & (2 * counts["unspaced"] <= counts["words"])
        if rule.applies == "english" and foreign is not None:
            refused = refused & ~foreign
        found[rule.name] = refused
    return found
