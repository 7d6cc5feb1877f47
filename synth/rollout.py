"""One long answer as several requests: the segment rollout of UloRL (arXiv 2507.19766 §3.1).

A request generates at most a segment; an answer that is not finished then goes back to the pool of waiting requests
with what it has, as token ids where the engine tells them (re-tokenised text may split otherwise), and a prefix cache
makes reading it again nearly free. So the latency of a request is bounded, short ones leave early, and a crash costs
a segment. At temperature 0 the answer is the same as in one piece: stop strings are looked for across the seams, and
each seam is the place where a loop is found by engines that cannot look for one themselves.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ropewalk.synth.engine import Completion, FinishReason

AskSegment = Callable[[int, int, tuple[int, ...], str], Awaitable[Completion]]
"""(segment, most tokens, ids generated so far, text so far) to the completion of that segment."""

FindLoop = Callable[[Sequence[int] | str], Any]
"""Whether the end of these tokens, or of this text where no tokens are known, is a loop: something, or None."""


@dataclass(frozen=True)
class Rolled:
    """An answer, all segments joined.

    Attributes:
        text: Its text; begins with the prefix it was given.
        token_ids: Its tokens without the prefix; empty if unknown.
        finish_reasons: Of each segment; the last one's is the answer's.
        num_tokens: Tokens generated.
        starved: It ended for lack of room before a single token: the prompt fills the context.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reasons: tuple[FinishReason, ...] = ()
    num_tokens: int = 0
    starved: bool = False


async def roll_out(
    ask_segment: AskSegment,
    *,
    ceilings: Sequence[int],
    segment_tokens: int,
    stop: Sequence[str] = (),
    prefix: str = "",
    find_loop: FindLoop | None = None,
    on_continue: Callable[[Rolled, int], None] = lambda rolled, ceiling: None,
) -> Rolled:
    """Asks segment after segment until the answer ends or reaches its last ceiling.

    Args:
        ask_segment: Asks for one.
        ceilings: Most tokens of the answer; a second, higher one is where it may go once it has reached the first.
        segment_tokens: Most tokens of one request.
        stop: Strings that end the answer.
        prefix: Beginning of the answer, given as text; then all segments are continued from text, since its tokens
            are not known.
        find_loop: Looks for a loop at each seam; the answer then ends as `repetition`.
        on_continue: Told before each further request: the answer so far, and the ceiling it goes to.
    """
    rolled = Rolled(prefix)
    for ceiling in ceilings:
        while rolled.num_tokens < ceiling:
            segment = len(rolled.finish_reasons)
            if segment:
                on_continue(rolled, ceiling)
            wanted = min(segment_tokens, ceiling - rolled.num_tokens)
            completion = await ask_segment(segment, wanted, () if prefix else rolled.token_ids, rolled.text)
            before, rolled = rolled, _join(rolled, completion, stop, prefix)
            if rolled.finish_reasons[-1] != "length":
                return rolled
            if rolled.num_tokens == before.num_tokens:  # the context is used up
                return replace(rolled, starved=not before.finish_reasons)
            if find_loop is not None and find_loop(rolled.token_ids or rolled.text):
                return replace(rolled, finish_reasons=(*rolled.finish_reasons[:-1], "repetition"))
    return rolled


def _join(rolled: Rolled, completion: Completion, stop: Sequence[str], prefix: str) -> Rolled:
    """The answer with one segment more."""
    finish = completion.finish_reason
    # A character whose bytes the cut tore apart: what follows is to bring it whole.
    new = completion.text.rstrip("\ufffd") if finish == "length" else completion.text
    text = rolled.text + new
    known = bool(rolled.token_ids) or rolled.text == prefix
    ids = rolled.token_ids + completion.token_ids if known and (completion.token_ids or not completion.text) else ()
    if rolled.finish_reasons:  # no engine sees a stop string that began in the segment before
        found = completion.stop_reason if finish == "stop" and completion.stop_reason in stop else None
        at = _first_across(len(rolled.text), text + (found or ""), stop, len(prefix))
        if at >= 0:
            text, ids, finish = (text + (found or ""))[:at], (), "stop"
    tokens = max(completion.usage.generated, len(completion.token_ids), bool(completion.text))
    return Rolled(text, ids, (*rolled.finish_reasons, finish), rolled.num_tokens + tokens)


def _first_across(seam: int, text: str, stop: Sequence[str], start: int) -> int:
    """Where the stop string begins that is complete first, of those across the seam; -1 if there is none."""
    found = [
        (at + len(s), at) for s in stop if (at := text.find(s, max(start, seam - len(s) + 1), seam + len(s) - 1)) >= 0
    ]
    return min(found)[1] if found else -1
