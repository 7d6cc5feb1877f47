"""Figures of one text: how repetitive it is, and whether it changes its language.

Words are those of `kernels.words`: runs of letters and digits, lower-cased; an ideograph is a word of its own, so
n-grams of Chinese are n-grams of characters. Characters are codepoints. Repetition is measured as in Gopher (arXiv
2112.11446, A.1.1): lines end at newlines (blank ones do not count), paragraphs at blank lines, shares are of the
characters of the text.

    words                           words
    compression_ratio               UTF-8 bytes / bytes of zlib, level 6
    duplicate_{line,paragraph}_share, …_char_share
                                    lines that stood before / lines; their characters / characters
    top_{2,3,4}gram_char_share      characters of the most frequent n-gram * its count / characters
    duplicate_{5,10}gram_char_share characters of words in n-grams that stood before / characters
    min_distinct_4                  different 4-grams / 4-grams, the least of all windows of 1,000 words
    longest_repeat_chars, …_share   longest piece that stands twice without overlapping; runs of one sign count as 4
    worst_window_repeat_share       duplicate_5gram_char_share of the worst window of 2,000 words
    language_drift                  change of the share of words in the language's script, first to last fifth

Windows follow each other; the last one ends with the text, so a bad end is not diluted. A text longer than 2^20
characters is measured in pieces of that size, and the worst figure of a piece is the text's: memory stays bounded.
"""

import re
import zlib

import numpy as np

from ropewalk.kernels import ngram_repeats
from ropewalk.kernels.longest_repeat import longest_repeat
from ropewalk.kernels.shingles import shingles
from ropewalk.kernels.suffix_array import suffix_array
from ropewalk.kernels.word_spans import word_spans
from ropewalk.schemas.synthesis import GUARD_METRICS

PIECE_CHARS = 1 << 20
DISTINCT_WINDOW = 1000
REPEAT_WINDOW = 2000
RUN_CHARS = 4
"""Longest run of one sign the search for repeats sees: rules of dashes and dotted leaders are no repeats."""

_RUN = re.compile(rf"([\W_])\1{{{RUN_CHARS},}}")
PARAGRAPHS = re.compile(r"\n\s*\n")
"""What is between paragraphs: a blank line, or several."""


def measure(text: str, language: str) -> dict[str, float]:
    """Measures a text.

    Args:
        text: The assistant's text, a paragraph of it or all.
        language: `zh`: its script is ideographs; any other: Latin letters.

    Returns:
        The figures named in `synthesis.GUARD_METRICS`, in that order; shares are 0 to 1. An empty text has zeros and
        `min_distinct_4` 1.
    """
    pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)] or [""]
    figures = [_measure(piece, language) for piece in pieces]
    worst = {name: max(piece[name] for piece in figures) for name in GUARD_METRICS}
    worst["words"] = sum(piece["words"] for piece in figures)
    worst["min_distinct_4"] = min(piece["min_distinct_4"] for piece in figures)
    return worst


def codepoints(text: str) -> np.ndarray:
    """The text as int32[characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.int32)


def _measure(text: str, language: str) -> dict[str, float]:
    text = text.strip()
    codes = codepoints(text)
    starts, stops, hashes = word_spans(codes)
    lengths = stops - starts
    total = max(len(text), 1)
    lines = [line for line in text.split("\n") if line.strip()] or [""]
    figures = {"words": float(len(hashes)), "compression_ratio": _compression_ratio(text)}
    for name, parts in (("line", lines), ("paragraph", PARAGRAPHS.split(text))):
        count, chars = _duplicates(parts)
        figures[f"duplicate_{name}_share"] = count / len(parts)
        figures[f"duplicate_{name}_char_share"] = chars / total
    for n in (2, 3, 4):
        at, count = ngram_repeats.top(_grams(hashes, n))
        chars = int(stops[at + n - 1] - starts[at]) if count else 0
        figures[f"top_{n}gram_char_share"] = chars * count / total
    for n in (5, 10):
        figures[f"duplicate_{n}gram_char_share"] = ngram_repeats.duplicate_chars(_grams(hashes, n), lengths, n) / total
    figures["min_distinct_4"] = _min_distinct(hashes)
    figures["longest_repeat_chars"] = float(_longest_repeat(text))
    figures["longest_repeat_share"] = figures["longest_repeat_chars"] / total
    figures["worst_window_repeat_share"] = _worst_window(hashes, starts, stops)
    figures["language_drift"] = _drift(codes[starts], language)
    return {name: figures[name] for name in GUARD_METRICS}


def _compression_ratio(text: str) -> float:
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw, 6)) if raw else 0.0


def _duplicates(parts: list[str]) -> tuple[int, int]:
    """How many parts stood before, and their characters."""
    seen: set[str] = set()
    count = chars = 0
    for part in parts:
        if part in seen:
            count, chars = count + 1, chars + len(part)
        else:
            seen.add(part)
    return count, chars


def _grams(hashes: np.ndarray, n: int) -> np.ndarray:
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    return shingles(hashes, np.array([0, len(hashes)], np.int64), n)[0]


def windows(count: int, size: int) -> list[tuple[int, int]]:
    """Windows of `size` words over `count` of them: one after the other, the last one moved back to end with them."""
    if count <= size:
        return [(0, count)]
    begins = [*range(0, count - size, size), count - size]
    return [(begin, begin + size) for begin in begins]


def _min_distinct(hashes: np.ndarray) -> float:
    grams = _grams(hashes, 4)
    if not len(grams):
        return 1.0
    parts = [grams[start : max(stop - 3, start)] for start, stop in windows(len(hashes), DISTINCT_WINDOW)]
    return float(min(ngram_repeats.kinds(part) / len(part) for part in parts))


def _worst_window(hashes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> float:
    worst = 0.0
    for start, stop in windows(len(hashes), REPEAT_WINDOW):
        if stop - start >= 5:
            lengths = stops[start:stop] - starts[start:stop]
            chars = ngram_repeats.duplicate_chars(_grams(hashes[start:stop], 5), lengths, 5)
            worst = max(worst, chars / int(stops[stop - 1] - starts[start]))
    return worst


def _longest_repeat(text: str) -> int:
    codes = codepoints(_RUN.sub(r"\1" * RUN_CHARS, text))
    symbols, ranks = np.unique(codes, return_inverse=True)
    ranks = ranks.astype(np.int32)
    return int(longest_repeat(ranks, suffix_array(ranks, len(symbols)))[0])


def _drift(firsts: np.ndarray, language: str) -> float:
    """Change of the share of words whose first character is of the language's script; numbers are of any."""
    letters = firsts[(firsts < 0x30) | (firsts > 0x39)]
    if language == "zh":
        ours = ((letters >= 0x3400) & (letters < 0xA000)) | (letters >= 0x20000)
    else:
        ours = (letters < 0x0250) | ((letters >= 0x1E00) & (letters < 0x1F00))
    fifth = len(letters) // 5
    if fifth == 0:
        return 0.0
    return abs(float(ours[-fifth:].mean()) - float(ours[:fifth].mean()))
