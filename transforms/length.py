"""Length bounds: the first filter."""

import numpy as np


def length_refusals(num_chars: np.ndarray, *, min_chars: int, max_chars: int | None) -> dict[str, np.ndarray]:
    """Which documents are refused for their length.

    Args:
        num_chars: Length of each document in codepoints, integer[n].
        min_chars: Shortest that passes.
        max_chars: Longest that passes; none for no limit.

    Returns:
        bool[n] by reason: `too_short`, `too_long`.
    """
    long = num_chars > max_chars if max_chars is not None else np.zeros(len(num_chars), bool)
    return {"too_short": num_chars < min_chars, "too_long": long}
