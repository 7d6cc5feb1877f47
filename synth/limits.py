"""What a run may cost, and when it has failed too often to go on.

Tokens and money are those of requests really asked in this run: what the cache answers is free. A request is let in
only if its expected answer still fits beside those in flight, so near the limit fewer run at once, and the limit is
passed by what the last requests exceed their expectation, not by a whole batch.
"""

from collections import deque
from collections.abc import Callable

from ropewalk.schemas.synth_recipe import LimitsConfig, PriceConfig
from ropewalk.synth.engine import Completion, RequestError, Usage


def cost_of(usage: Usage, price: PriceConfig) -> float:
    """Money for one request, in the currency of the prices."""
    read = (usage.prompt - usage.cached) * price.prompt + usage.cached * price.cached
    return (read + usage.generated * price.completion) / 1e6


class Limits:
    """Counts what a run has spent. One object for all engines of the run.

    Attributes:
        exhausted: Why the run must end, once it must.
        listeners: Called when a request has been settled: another, of any engine, may fit now.
        tokens: Generated in this run.
        money: Spent in this run.
    """

    def __init__(self, config: LimitsConfig) -> None:
        self._config = config
        self._reserved_tokens = 0
        self._reserved_money = 0.0
        self._in_flight = 0
        self._outcomes: deque[bool] = deque(maxlen=config.error_window)
        self._failures = 0
        self.exhausted: str | None = None
        self.listeners: list[Callable[[], None]] = []
        self.tokens = 0
        self.money = 0.0

    def admit(self, prompt_tokens: int, expected_tokens: int) -> bool:
        """Whether a request may go now; if so, its expected cost is set aside until `settle`."""
        money = self._expected_money(prompt_tokens, expected_tokens)
        if self.exhausted is not None:
            return False
        if self._in_flight:  # alone it always may: else a limit below one expected answer would wait forever
            limits = self._config
            if limits.tokens is not None and self.tokens + self._reserved_tokens + expected_tokens > limits.tokens:
                return False
            if limits.money is not None and self.money + self._reserved_money + money > limits.money:
                return False
        self._in_flight += 1
        self._reserved_tokens += expected_tokens
        self._reserved_money += money
        return True

    def settle(self, prompt_tokens: int, expected_tokens: int, completion: Completion | None) -> None:
        """A request that was let in has ended: with an answer, or without (failed, cancelled: nothing is known)."""
        self._in_flight -= 1
        self._reserved_tokens -= expected_tokens
        self._reserved_money -= self._expected_money(prompt_tokens, expected_tokens)
        if completion is not None:
            self._spend(completion.usage)
        for listener in self.listeners:
            listener()

    def _spend(self, usage: Usage) -> None:
        self.tokens += usage.generated
        self.money += cost_of(usage, self._config.price)
        if self._config.tokens is not None and self.tokens >= self._config.tokens:
            self._exhaust(f"tokens: {self.tokens:,} generated, limits.tokens is {self._config.tokens:,}")
        if self._config.money is not None and self.money >= self._config.money:
            self._exhaust(f"money: {self.money:.4g} spent, limits.money is {self._config.money:.4g}")

    def record(self, error: RequestError | None) -> None:
        """One request was answered, or failed, even if it will be asked again.

        A fault that is the request's own (too long, refused) says nothing about the engine and is not counted: it is
        not cached either, so a resumed run meets all of them again, and nothing else.
        """
        if error is not None and not error.transient:
            return
        outcomes, config = self._outcomes, self._config
        if len(outcomes) == config.error_window:
            self._failures -= outcomes[0]
        outcomes.append(error is not None)
        self._failures += outcomes[-1]
        if error and len(outcomes) == config.error_window and self._failures >= config.error_share * len(outcomes):
            self._exhaust(
                f"errors: {self._failures} of the last {len(outcomes)} requests failed, the last with: {error}"
            )

    def _expected_money(self, prompt_tokens: int, expected_tokens: int) -> float:
        return cost_of(Usage(prompt_tokens, 0, expected_tokens), self._config.price)

    def _exhaust(self, reason: str) -> None:
        if self.exhausted is None:
            self.exhausted = reason
