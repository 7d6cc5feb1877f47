"""Texts without the spans that stages cut out of them."""

from collections.abc import Sequence

import pyarrow as pa


def cut_spans(texts: pa.LargeStringArray, spans: Sequence[pa.ListArray]) -> pa.LargeStringArray:
    """Removes spans from each text.

    Args:
        texts: n texts without nulls.
        spans: For each stage that cuts, its spans of each text: list<struct<start: uint32, stop: uint32>>[n], in bytes;
            they may overlap between stages.

    Returns:
        The n texts that are left; a text without spans as it was.
    """
    raise NotImplementedError
