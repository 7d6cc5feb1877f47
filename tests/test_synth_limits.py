import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.schemas.synth_recipe import LimitsConfig, PriceConfig
from ropewalk.synth.engine import Completion, RequestError, Usage
from ropewalk.synth.limits import Limits, cost_of

PRICE = PriceConfig(prompt=1.0, cached=0.1, completion=10.0)


def answer(prompt=0, cached=0, generated=0):
    return Completion("", (), "stop", Usage(prompt, cached, generated))


def test_cost_by_hand():
    # 600,000 read at 1, 400,000 from the cache at 0.1, 100,000 written at 10, each a million
    assert cost_of(Usage(1_000_000, 400_000, 100_000), PRICE) == pytest.approx(0.6 + 0.04 + 1.0)


def test_money_stops_the_run():
    limits = Limits(LimitsConfig(money=1.0, price=PRICE))
    assert limits.admit(0, 60_000)  # expects 0.6
    assert not limits.admit(0, 60_000)  # would make 1.2
    assert limits.admit(0, 40_000)
    limits.settle(0, 60_000, answer(generated=50_000))
    assert limits.exhausted is None
    assert limits.admit(0, 1) and not limits.admit(0, 20_000)
    limits.settle(0, 40_000, answer(generated=50_000))
    assert limits.money == pytest.approx(1.0)
    assert limits.exhausted is not None and limits.exhausted.startswith("money:")
    assert not limits.admit(0, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100), st.booleans()), max_size=80), st.integers(1, 400))
def test_tokens_pass_the_limit_by_no_more_than_answers_pass_their_expectation(jobs, limit):
    limits = Limits(LimitsConfig(tokens=limit))
    in_flight, spent, excess = [], 0, 0
    for expected, actual, settle_first in jobs:
        if settle_first and in_flight:
            want, got = in_flight.pop(0)
            limits.settle(0, want, answer(generated=got))
            spent, excess = spent + got, excess + max(0, got - want)
        alone = not in_flight
        if limits.admit(0, expected):
            in_flight.append((expected, actual))
            if alone:  # alone it may go though it does not fit
                excess += max(0, spent + expected - limit)
        else:
            assert in_flight or limits.exhausted
    for want, got in in_flight:
        limits.settle(0, want, answer(generated=got))
        spent, excess = spent + got, excess + max(0, got - want)
    assert limits.tokens == spent <= limit + excess
    assert (limits.exhausted is not None) == (spent >= limit)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=80), st.integers(10, 20), st.floats(0.1, 1))
def test_breaker_against_a_plain_window(outcomes, window, share):
    limits = Limits(LimitsConfig(error_window=window, error_share=share))
    trips = False
    for number, ok in enumerate(outcomes, 1):
        limits.record(None if ok else RequestError("server", "no", transient=True))
        last = outcomes[max(0, number - window) : number]
        trips = trips or (not ok and len(last) == window and last.count(False) / window >= share)
        assert (limits.exhausted is not None) == trips


def test_what_failed_costs_nothing_and_frees_its_share():
    limits = Limits(LimitsConfig(tokens=10))
    assert limits.admit(5, 10) and not limits.admit(5, 10)
    limits.settle(5, 10, None)
    assert limits.admit(5, 10) and limits.tokens == 0
