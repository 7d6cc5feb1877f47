"""Texts without the spans that stages cut out of them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ropewalk.kernels import cut_spans as kernel
from ropewalk.transforms import utf8


def cut_spans(texts: pa.LargeStringArray, spans: Sequence[pa.ListArray]) -> pa.LargeStringArray:
    """Removes spans from each text.

    Args:
        texts: n texts without nulls.
        spans: For each stage that cuts, its spans of each text: list<struct<start: uint32, stop: uint32>>[n], in bytes,
            ascending; they may overlap between stages.

    Returns:
        The n texts that are left; `texts` itself where nothing is cut.

    Raises:
        ValueError: If a span runs backwards, leaves its text or ends inside a character.
    """
    if not any(column.offsets[-1].as_py() > column.offsets[0].as_py() for column in spans):
        return texts
    data, offsets = utf8.buffers(texts)
    begin, end, borders = pieces(texts, spans)
    out = np.empty(int((end - begin).sum()), np.uint8)
    left = kernel.copy_pieces(data, begin, end, borders, out)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(left), pa.py_buffer(out))


def pieces(texts: pa.LargeStringArray, spans: Sequence[pa.ListArray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the spans leave of each text, as places in the buffer of `utf8.buffers(texts)`.

    Args:
        texts: n texts without nulls.
        spans: As in `cut_spans`.

    Returns:
        Where each piece begins and where it ends, int64[pieces] each, none of them empty; and where the pieces of each
        text are, int64[n + 1].

    Raises:
        ValueError: As `cut_spans`.
    """
    data, offsets = utf8.buffers(texts)
    parts = [span_buffers(column) for column in spans]
    before = np.cumsum([0, *(len(starts) for starts, _, _ in parts)])
    nothing = np.empty(0, np.int64)
    starts = np.concatenate([nothing, *(starts for starts, _, _ in parts)])
    stops = np.concatenate([nothing, *(stops for _, stops, _ in parts)])
    borders = np.array([part[2] + shift for part, shift in zip(parts, before, strict=False)], np.int64)
    borders = borders.reshape(len(parts), len(texts) + 1)
    row, wrong = kernel.check_spans(data, offsets, starts, stops, borders)
    if row >= 0:
        size = offsets[row + 1] - offsets[row]
        raise ValueError(
            f"text {row} of {len(texts)}: bytes [{starts[wrong]}, {stops[wrong]}) of its {size} are no span to cut: "
            "spans ascend, stay inside the text and begin and end between characters; the columns belong to other "
            "documents: remove the stage's folder and rerun"
        )
    begin, end = np.empty(len(texts) + len(starts), np.int64), np.empty(len(texts) + len(starts), np.int64)
    found = kernel.pieces(offsets, starts, stops, borders, begin, end)
    return begin[: found[-1]], end[: found[-1]], found


def span_buffers(spans: pa.ListArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and stops of a column of spans, int64[spans] each, and where those of each row are, int64[rows + 1]."""
    borders = spans.offsets.to_numpy().astype(np.int64)
    values = spans.values.slice(borders[0], borders[-1] - borders[0])
    starts, stops = (values.field(name).to_numpy().astype(np.int64) for name in ("start", "stop"))
    return starts, stops, borders - borders[0]
