"""One figure of several scorers, as LongWriter-Zero combines its rewards (arXiv 2506.18841).

Rewards live on different scales, so not they are averaged but their advantages within the group of candidates:

    A_s(c) = (r_s(c) - mean_s) / max_c |r_s(c) - mean_s|        in [-1, 1]; 0 where all candidates are equal
    C(c)   = veto(c) (1 + mean_s A_s(c)) / 2                    in [0, 1]

(The z-score divided by its largest size is the same.) The veto, 0 for a text that repeats itself, multiplies: no other
score can pay for repetition, which is how a length reward is gamed.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ropewalk.synth.scores.words import count_words

Floats = npt.NDArray[np.float64]

_THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)
_UNIT = re.compile("[\u4e00-\u9fff]|\\w+")


def advantages(rewards: npt.ArrayLike) -> Floats:
    """Advantages of candidates within their group.

    Args:
        rewards: float64[scorers, candidates], finite.

    Returns:
        float64[scorers, candidates] in [-1, 1].
    """
    values = np.asarray(rewards, np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"rewards are finite, one row a scorer and one column a candidate; got shape {values.shape}")
    centred = values - values.mean(1, keepdims=True)
    largest = np.abs(centred).max(1, keepdims=True)
    # What is left of equal numbers after the mean is rounding, not preference.
    equal = largest <= 1e-12 * np.abs(values).max(1, keepdims=True)
    scaled: Floats = np.where(equal, 0.0, centred / np.where(equal, 1.0, largest))
    return scaled


def composite(rewards: npt.ArrayLike, veto: npt.ArrayLike | None = None) -> Floats:
    """One figure a candidate.

    Args:
        rewards: float64[scorers, candidates].
        veto: float64[candidates] in [0, 1]; 0 for a text that repeats itself.

    Returns:
        float64[candidates] in [0, 1].
    """
    figure: Floats = (1 + advantages(rewards).mean(0)) / 2
    if veto is None:
        return figure
    factors = np.asarray(veto, np.float64)
    if factors.shape != figure.shape or not ((factors >= 0) & (factors <= 1)).all():
        raise ValueError(f"veto is one factor from 0 to 1 for each of {len(figure)} candidates")
    return figure * factors


def choose(figures: npt.ArrayLike) -> tuple[int, int] | None:
    """(chosen, rejected): best and worst candidate, the first of equals; none where all are equal."""
    values = np.asarray(figures, np.float64)
    best, worst = int(values.argmax()), int(values.argmin())
    return None if values[best] == values[worst] else (best, worst)


def lexical_vectors(texts: Sequence[str]) -> Floats:
    """Counts of words (of ideographs, in Chinese), scaled to length 1; a stand-in for embeddings.

    Returns:
        float64[texts, distinct words].
    """
    places: dict[str, int] = {}
    counted = [[places.setdefault(unit, len(places)) for unit in _UNIT.findall(text.lower())] for text in texts]
    vectors = np.zeros((len(texts), max(1, len(places))))
    for row, units in zip(vectors, counted, strict=True):
        np.add.at(row, units, 1.0)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1.0, norms)


def duplicated_paragraphs(
    text: str,
    *,
    threshold: float = 0.92,
    min_words: int = 40,
    vectors: Callable[[Sequence[str]], Any] = lexical_vectors,
) -> float:
    """Share of the paragraphs of a text that say what an earlier one says.

    Args:
        text: The text; paragraphs are parted by blank lines.
        threshold: Cosine from which two say the same.
        min_words: Only paragraphs of more words than this are looked at.
        vectors: Texts to float[texts, dimensions] of length 1: an embedder, or the lexical stand-in.
    """
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if count_words(part) > min_words]
    if len(paragraphs) < 2:
        return 0.0
    rows = np.asarray(vectors(paragraphs), np.float64)
    earlier = np.tril(rows @ rows.T, -1)
    return float((earlier.max(1) >= threshold).mean())


def format_reward(
    text: str, *, thought: bool = False, vectors: Callable[[Sequence[str]], Any] = lexical_vectors
) -> float:
    """Format reward of LongWriter-Zero: right structure, less the share of duplicated paragraphs; 0 to 1.

    Args:
        text: The text.
        thought: Whether exactly one `<think>` block followed by exactly one `<answer>` block is due.
        vectors: See `duplicated_paragraphs`.
    """
    if thought:
        blocks = _THOUGHT.fullmatch(text)
        if not blocks or any(re.search(r"</?(?:think|answer)>", block) for block in blocks.groups()):
            return 0.0
        text = blocks[2]
    return 1.0 - duplicated_paragraphs(text, vectors=vectors) if text.strip() else 0.0
