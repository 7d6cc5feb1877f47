"""Concatenates documents and cuts the stream every `length` tokens: a segment for each document in each window.

    window w holds tokens [w L, (w + 1) L) of the stream; document i holds [c_i, c_{i+1}), c = running sum

Their overlaps are found by arithmetic alone, O(segments). What most pretraining does; it cuts every document that
crosses a border, where best-fit cuts only those longer than a window.
"""

import numpy as np


def concat_split_reference(
    num_tokens: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same token by token."""
    stream = [(i, t) for i, n in enumerate(num_tokens.tolist()) for t in range(n)]
    rows: list[list[int]] = []
    for place, (document, token) in enumerate(stream):
        if rows and rows[-1][0] == document and rows[-1][3] == place // length:
            rows[-1][2] += 1
        else:
            rows.append([document, token, 1, place // length])
    table = np.array(rows, np.int64).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


def concat_split(num_tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cuts the concatenation of documents into windows.

    Args:
        num_tokens: Tokens of each document, integers[n]; empty ones get no segment.
        length: Tokens in a window; only the last may have fewer.

    Returns:
        For each segment, in stream order: its document, its first token in the document, its length in tokens, and its
        window: int64[s] each.
    """
    stops = np.cumsum(num_tokens, dtype=np.int64)
    starts = stops - num_tokens
    counts = np.where(num_tokens > 0, (stops - 1) // length - starts // length + 1, 0)
    document = np.repeat(np.arange(len(num_tokens)), counts)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    window = starts[document] // length + nth
    first = np.maximum(window * length, starts[document])
    last = np.minimum((window + 1) * length, stops[document])
    return document, first - starts[document], last - first, window
