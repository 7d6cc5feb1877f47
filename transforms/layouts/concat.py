"""Layout `concat`: the similarity order as one stream of tokens, cut every `length` of them.

Every sequence but the last is full, at the price of cutting each document that crosses a border.
"""

import numpy as np

from ropewalk.kernels.concat_split import concat_split
from ropewalk.transforms.segments import Segments

ALONG = "rank"
"""Documents come in the similarity order."""


def plan(num_tokens: np.ndarray, *, length: int, open_bins: int) -> Segments:
    """Lays documents, in their order, into sequences.

    Args:
        num_tokens: Tokens of each document, integers[n].
        length: Tokens in a sequence; only the last one may have fewer.
        open_bins: Not used.

    Returns:
        The segments, in stream order.
    """
    return Segments(*concat_split(num_tokens, length))
