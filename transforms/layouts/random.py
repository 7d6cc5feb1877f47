"""Layout `random`: best-fit along a seeded random order: what `in_context` is to be compared with.

The order is that of a hash of seed and id, so it does not depend on how the documents are sharded.
"""

import numpy as np

from ropewalk.transforms.layouts import in_context
from ropewalk.transforms.segments import Segments

ALONG = "id"
"""Documents come in the order of their hashed ids."""


def plan(num_tokens: np.ndarray, *, length: int, open_bins: int) -> Segments:
    """As `in_context.plan`; only the order the documents come in is another."""
    return in_context.plan(num_tokens, length=length, open_bins=open_bins)
