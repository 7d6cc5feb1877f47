"""Layout `in_context`: best-fit along the similarity order, so that a sequence holds documents that belong together.

Only documents longer than a sequence are cut (Fewer Truncations, arXiv 2404.10830); the few open sequences keep
neighbours close (In-Context Pretraining, arXiv 2310.10638) and still fill them.
"""

import numpy as np

from ropewalk.kernels.best_fit import best_fit
from ropewalk.transforms.segments import Segments, cut

ALONG = "rank"
"""Documents come in the similarity order."""


def plan(num_tokens: np.ndarray, *, length: int, open_bins: int) -> Segments:
    """Lays documents, in their order, into sequences.

    Args:
        num_tokens: Tokens of each document, integers[n].
        length: Tokens in a sequence, at most.
        open_bins: Sequences open at once.

    Returns:
        The segments, by sequence; sequences are numbered as they are opened.
    """
    document, start, tokens = cut(num_tokens, length)
    sequence = best_fit(tokens, length, open_bins)
    order = np.argsort(sequence, kind="stable")
    return Segments(document[order], start[order], tokens[order], sequence[order])
