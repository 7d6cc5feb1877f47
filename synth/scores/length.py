"""Scores of length. All count words as `scores.words` does.

- `s_l`: LongBench-Write (arXiv 2408.07055): one required length, 0 to 100. Longer is forgiven more than shorter: it
  reaches 0 at four times the length, and at a third of it.
- `interval_score`: LonGen (Self-Lengthen, arXiv 2410.23933): an interval, 0 to 1.
- `length_reward`: LongWriter-Zero (arXiv 2506.18841): an interval and a hard cap, 0 to 1.
"""


def s_l(required: int, actual: int) -> float:
    """Length score of LongBench-Write.

        100 max(0, 1 - (actual / required - 1) / 3)  if longer than required
        100 max(0, 1 - (required / actual - 1) / 2)  otherwise; 0 for an empty text

    Args:
        required: Words asked for, at least 1.
        actual: Words written.
    """
    _check(required > 0, f"required words are {required}; a length asked for is at least 1")
    _check(actual >= 0, f"actual words are {actual}; a text has 0 words or more")
    if actual == 0:
        return 0.0
    over = (actual / required - 1) / 3 if actual > required else (required / actual - 1) / 2
    return 100 * max(0.0, 1 - over)


def interval_score(lo: float, hi: float, actual: int) -> float:
    """Length score of LonGen: 1 inside [lo, hi], falling to 0 at lo / 2 and at 3 hi / 2.

    A constraint of one number is an interval too, see `prompts.constraints`.

    Args:
        lo: Least admissible words; 0 for no bound.
        hi: Most admissible words.
        actual: Words written.
    """
    _check(0 <= lo <= hi and hi > 0, f"[{lo}, {hi}] is no interval of lengths: 0 <= lo <= hi and hi > 0")
    if actual < lo:
        return max(0.0, 2 * actual / lo - 1)
    return 1.0 if actual <= hi else max(0.0, 3 - 2 * actual / hi)


def length_reward(lo: float, hi: float, cap: float, actual: int) -> float:
    """Length reward of LongWriter-Zero: 1 inside [lo, hi], linear to 0 at no words and at the hard cap.

    Args:
        lo: Least admissible words.
        hi: Most admissible words.
        cap: Most words the model can write at all, at least `hi`.
        actual: Words written.
    """
    _check(0 <= lo <= hi <= cap and hi > 0, f"need 0 <= lo <= hi <= cap and hi > 0, got {lo}, {hi}, {cap}")
    if actual < lo:
        return actual / lo
    return 1.0 if actual <= hi else max(0.0, (cap - actual) / (cap - hi)) if cap > hi else 0.0


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
