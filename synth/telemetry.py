"""Live counts of a run, made from its events; a display reads `snapshot` whenever it likes.

Tokens and money are of requests really asked in this run; what the cache answered is counted apart. Cost and time of
the whole are projected once a hundredth of the rows is finished, from what finished rows cost per token they were
expected to take: the longest rows start first, so the mean row of the beginning is no measure of the rest.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ropewalk.schemas.synth_recipe import PriceConfig
from ropewalk.synth.events import Event
from ropewalk.synth.limits import cost_of

_RECENT_SECONDS = 60.0
_PROJECT_AFTER = 0.01  # share of the rows


@dataclass
class _Row:
    """A row under way."""

    expected: int = 0
    fresh: int = 0  # tokens generated for it in this run
    wasted: int = 0
    money: float = 0.0
    from_cache: bool = False
    undecided: dict[str, int] = field(default_factory=dict)  # fresh tokens by step, until its reply is judged


class Telemetry:
    """Consumes events.

    Args:
        price: Prices of tokens.
        clock: Seconds, monotonic.
    """

    def __init__(self, price: PriceConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._price, self._clock = price, clock
        self._began: float | None = None
        self._recent: deque[tuple[float, int]] = deque()
        self._rows: dict[str, _Row] = {}
        self._known_rows = self._known_expected = 0
        self._finished_expected = 0
        self._fresh_expected = self._fresh_tokens = 0
        self._fresh_money = 0.0
        self.total_rows: int | None = None
        """Rows of the whole run, where known: without it nothing is projected."""
        self.busy: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)
        """Slot seconds used, and there were."""
        self.rows: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.finish_reasons: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.money = 0.0

    def expect(self, num_rows: int, expected_tokens: int) -> None:
        """Rows that have been read and will be made, and the tokens they are expected to take."""
        self._known_rows += num_rows
        self._known_expected += expected_tokens

    def observe(self, event: Event) -> None:
        """Counts one event."""
        if self._began is None:
            self._began = self._clock()
        getattr(self, f"_on_{event.kind}", lambda _: None)(event)

    def snapshot(self) -> dict[str, Any]:
        """Everything counted so far, JSON values; each name ends in its unit."""
        seconds = 0.0 if self._began is None else self._clock() - self._began
        used, there = self.busy()
        finished = self.rows["done"] + self.rows["rejected"]
        figures: dict[str, Any] = {
            "elapsed-seconds": seconds,
            "total-rows": self.total_rows,
            "started-rows": self.rows["started"],
            "running-rows": self.rows["started"] - finished,
            "done-rows": self.rows["done"],
            "rejected-rows": self.rows["rejected"],
            "rejected_by_reason-rows": dict(self.rejected.most_common()),
            "asked-requests": self.requests["asked"],
            "answered-requests": self.requests["answered"],
            "cached-requests": self.requests["cached"],
            "retried-requests": self.requests["retried"],
            "failed-requests": self.requests["failed"],
            "failures_by_reason-requests": dict(self.failures.most_common()),
            "finish_reasons-requests": dict(self.finish_reasons.most_common()),
            "refused_by_reason-replies": dict(self.refused.most_common()),
            "prompt-tokens": self.tokens["prompt"],
            "cached-tokens": self.tokens["cached"],
            "generated-tokens": self.tokens["generated"],
            "wasted-tokens": self.tokens["wasted"],
            "replayed-tokens": self.tokens["replayed"],
            "generated-tokens_per_second": self.tokens["generated"] / seconds if seconds else 0.0,
            "recent-tokens_per_second": self._recent_speed(),
            "busy-share": used / there if there else 0.0,
            "cost-money": self.money,
        }
        return figures | self._projection(finished)

    def _projection(self, finished: int) -> dict[str, float | None]:
        cost = eta = None
        if self.total_rows and finished >= _PROJECT_AFTER * self.total_rows and self._fresh_expected:
            mean = self._known_expected / max(1, self._known_rows)
            left = max(0.0, mean * self.total_rows - self._finished_expected)
            under_way = list(self._rows.values())
            tokens = left * self._fresh_tokens / self._fresh_expected - sum(row.fresh for row in under_way)
            money = left * self._fresh_money / self._fresh_expected - sum(row.money for row in under_way)
            cost = self.money + max(0.0, money)
            speed = self._recent_speed()
            eta = max(0.0, tokens) / speed if speed else None
        return {"projected_cost-money": cost, "eta-seconds": eta}

    def _recent_speed(self) -> float:
        """Tokens per second over the last minute."""
        if self._began is None:
            return 0.0
        now = self._clock()
        while self._recent and self._recent[0][0] < now - _RECENT_SECONDS:
            self._recent.popleft()
        seconds = min(_RECENT_SECONDS, now - self._began)
        return sum(tokens for _, tokens in self._recent) / seconds if seconds else 0.0

    def _on_started(self, event: Event) -> None:
        self.rows["started"] += 1
        self._rows[event.row] = _Row(expected=int(event.facts.get("expected-tokens", 0)))

    def _on_asked(self, event: Event) -> None:
        self.requests["asked"] += 1

    def _on_answered(self, event: Event) -> None:
        assert event.completion is not None
        usage = event.completion.usage
        self.requests["answered"] += 1
        self.finish_reasons[event.completion.finish_reason] += 1
        self.tokens.update(prompt=usage.prompt, cached=usage.cached, generated=usage.generated)
        cost = cost_of(usage, self._price)
        self.money += cost
        self._recent.append((self._clock(), usage.generated))
        while self._recent[0][0] < self._recent[-1][0] - _RECENT_SECONDS:
            self._recent.popleft()
        row = self._row(event.row)
        row.fresh += usage.generated
        row.money += cost
        row.undecided[event.step] = row.undecided.get(event.step, 0) + usage.generated

    def _on_cached(self, event: Event) -> None:
        assert event.completion is not None
        self.requests["cached"] += 1
        self.tokens["replayed"] += event.completion.usage.generated
        self._row(event.row).from_cache = True

    def _on_retried(self, event: Event) -> None:
        self.requests["retried"] += 1
        self.failures[event.reason] += 1

    def _on_failed(self, event: Event) -> None:
        self.requests["failed"] += 1
        self.failures[event.reason] += 1

    def _on_accepted(self, event: Event) -> None:
        self._row(event.row).undecided.pop(event.step, None)

    def _on_refused(self, event: Event) -> None:
        self.refused[event.reason] += 1
        tokens = self._row(event.row).undecided.pop(event.step, 0)
        kept = float(event.facts.get("kept-chars", 0)) / max(1, len(event.text))
        self._waste(event.row, round(tokens * (1 - kept)))

    def _on_done(self, event: Event) -> None:
        self.rows["done"] += 1
        self._end(event)

    def _on_rejected(self, event: Event) -> None:
        self.rows["rejected"] += 1
        self.rejected[event.reason] += 1
        row = self._row(event.row)
        self._waste(event.row, row.fresh - row.wasted)
        self._end(event)

    def _row(self, name: str) -> _Row:
        """The row of this name; two at once with the same name share it: counts may err, a row may not fail by them."""
        return self._rows.setdefault(name, _Row())

    def _waste(self, name: str, tokens: int) -> None:
        self.tokens["wasted"] += tokens
        self._row(name).wasted += tokens

    def _end(self, event: Event) -> None:
        row = self._rows.pop(event.row, _Row())
        self._finished_expected += row.expected
        if not row.from_cache:
            self._fresh_expected += row.expected
            self._fresh_tokens += row.fresh
            self._fresh_money += row.money
