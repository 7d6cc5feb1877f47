"""Segments: which tokens of which document go into which sequence. What every layout answers with."""

from typing import NamedTuple

import numpy as np


class Segments(NamedTuple):
    """A plan; row i is one segment, and the segments of a sequence stand in their order inside it.

    Attributes:
        document: Index of the document in the order it was given, int64[s].
        start: First token, counted in the document, int64[s].
        length: Tokens, at least 1, int64[s].
        sequence: Number of its sequence, from 0 without gaps, int64[s].
    """

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray
    sequence: np.ndarray


def cut(num_tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts documents longer than `length` into pieces of that length and a tail; others stay whole.

    Args:
        num_tokens: Tokens of each document, integers[n]; empty ones get no piece.
        length: Tokens in a piece, at most.

    Returns:
        Document, first token and length of each piece, int64[p] each.
    """
    tokens = num_tokens.astype(np.int64)
    counts = -(-tokens // length)
    document = np.repeat(np.arange(len(tokens)), counts)
    start = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)) * length
    return document, start, np.minimum(length, tokens[document] - start)


def check(segments: Segments, num_tokens: np.ndarray, length: int) -> None:
    """Makes sure that every token of every document is in exactly one segment, and that no sequence is too long.

    Args:
        segments: The plan.
        num_tokens: Tokens of each document, integers[n].
        length: Tokens in a sequence, at most.

    Raises:
        RuntimeError: Naming the first document or sequence that is wrong.
    """
    order = np.lexsort((segments.start, segments.document))
    document, start, tokens = (column[order] for column in segments[:3])
    expected = np.cumsum(tokens) - tokens  # segments laid end to end: right where the documents are, too
    stops = np.cumsum(num_tokens, dtype=np.int64)
    wrong = (start + (stops - num_tokens)[document] != expected) | (tokens < 1)
    total = np.bincount(document, weights=tokens, minlength=len(num_tokens)).astype(np.int64)
    if wrong.any() or np.any(total != num_tokens):
        first = int(document[wrong][0]) if wrong.any() else int(np.argmax(total != num_tokens))
        raise RuntimeError(
            f"document {first} of the plan: {total[first]} of {num_tokens[first]} tokens, or not in order"
        )
    filled = np.bincount(segments.sequence, weights=segments.length)
    if len(filled) and (filled.max() > length or filled.min() < 1):
        raise RuntimeError(f"sequences of {int(filled.min())} to {int(filled.max())} tokens: must be in [1, {length}]")
