"""short-m@k: draw k samples at once, stop at the first m that finish, and prefer the short ones (arXiv 2505.17813 §3).

Which samples finish first depends on the machine; what is chosen must not, once the replies are in the cache. So the
cache has the word: before anything is asked, samples it holds whole are looked up; when enough have finished the rest
are cancelled, and then the cache is looked up again (a sample may have got there while it was being cancelled). The
choice is the m shortest of what it holds, ties to the lower number. Run again, it holds the same ones and nothing is
asked.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ropewalk.synth.ask import RowAsk
from ropewalk.synth.events import Event
from ropewalk.synth.recipe import Ask, Reject

T = TypeVar("T")
Draw = Callable[[Ask, int], Awaitable[T]]
"""Draws sample number i with the given `ask`; its steps need names of their own (`think-3`)."""


@dataclass(frozen=True)
class Drawn(Generic[T]):
    """A sample that finished.

    Attributes:
        index: Its number.
        value: What `draw` returned.
        generated_tokens: Tokens it took.
    """

    index: int
    value: T
    generated_tokens: int


@dataclass
class _Outcome(Generic[T]):
    """A sample whose end the cache knows: it finished, or was rejected."""

    twin: RowAsk
    events: list[Event]
    drawn: Drawn[T] | None = None
    reject: Reject | None = None


class _Miss(Exception):
    """The cache cannot go on with this sample."""


async def short_m_at_k(ask: RowAsk, draw: Draw[T], *, k: int, m: int) -> list[Drawn[T]]:
    """Draws up to k samples and returns the shortest m of those that were finished first.

    The row is charged for the samples that ended, not for what was cancelled; each sample may use what was left of the
    row's token budget when they began.

    Args:
        ask: The row's.
        draw: Draws one sample; may be called several times for the same one, so it must have no effects.
        k: Samples to begin, at least m.
        m: Samples to return, at least 1.

    Returns:
        The shortest first; fewer than m if so many were rejected.

    Raises:
        Reject: All were rejected; it is that of the first sample.
    """
    if not 1 <= m <= k:
        raise ValueError(f"short-m@k needs 1 <= m <= k, got m={m}, k={k}")
    before = ask.account.generated_tokens
    outcomes = await _look_up(ask, draw, range(k))
    for outcome in outcomes.values():
        for event in outcome.events:
            ask.desk.observer(event)
    rejects: dict[int, Reject] = {}
    missing = m - sum(outcome.drawn is not None for outcome in outcomes.values())
    if missing > 0:
        rejects = await _race(ask, draw, [index for index in range(k) if index not in outcomes], missing)
        outcomes = await _look_up(ask, draw, range(k))
    for index in sorted(outcomes):
        ask.join(outcomes[index].twin, before)
        if (reject := outcomes[index].reject) is not None:
            rejects[index] = reject
    drawn = [outcome.drawn for outcome in outcomes.values() if outcome.drawn is not None]
    if not drawn and rejects:
        raise rejects[min(rejects)]
    return sorted(drawn, key=lambda sample: (sample.generated_tokens, sample.index))[:m]


async def _look_up(ask: RowAsk, draw: Draw[T], indices: Iterable[int]) -> dict[int, _Outcome[T]]:
    """The samples whose end the cache knows; nothing is asked and nobody is told."""

    async def miss() -> None:
        raise _Miss

    found: dict[int, _Outcome[T]] = {}
    before = ask.account.generated_tokens
    for index in indices:
        events: list[Event] = []
        twin = ask.fork(on_miss=miss, desk=dataclasses.replace(ask.desk, observer=events.append))
        outcome: _Outcome[T] = _Outcome(twin, events)
        try:
            value = await draw(twin, index)
            outcome.drawn = Drawn(index, value, twin.account.generated_tokens - before)
        except Reject as reject:
            outcome.reject = reject
        except _Miss:
            continue
        found[index] = outcome
    return found


async def _race(ask: RowAsk, draw: Draw[T], indices: Iterable[int], wanted: int) -> dict[int, Reject]:
    """Draws samples until so many have finished, and cancels the rest; who was rejected meanwhile."""
    tasks = {asyncio.ensure_future(draw(ask.fork(), index)): index for index in indices}
    running, rejects = set(tasks), {}
    try:
        while running and wanted > 0:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                error = task.exception()
                if isinstance(error, Reject):
                    rejects[tasks[task]] = error
                elif error is not None:
                    raise error
                else:
                    wanted -= 1
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)  # a reply on its way into the cache gets there
    return rejects
