"""Items made a few at a time come as `map` would give them."""

import threading
import time

import pytest

from ropewalk.transforms.ahead import ahead


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_results_come_in_the_order_of_the_items(threads, count):
    def slower_at_first(item):
        time.sleep((count - item) * 1e-4)
        return item * item

    assert list(ahead(slower_at_first, iter(range(count)), threads)) == [item * item for item in range(count)]


def test_no_more_items_are_taken_than_are_needed():
    taken, most = [], []

    def items():
        for item in range(30):
            taken.append(item)
            yield item

    for done, _ in enumerate(ahead(str, items(), 3)):
        most.append(len(taken) - done)
    assert len(taken) == 30
    assert max(most) == 4  # three at work, and the next


def test_so_many_calls_run_at_once():
    meeting = threading.Barrier(3, timeout=20)
    assert list(ahead(lambda item: meeting.wait() >= 0 and item, range(6), 3)) == list(range(6))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_its_turn_and_ends_it(threads):
    def refuse_five(item):
        if item == 5:
            raise ValueError("five")
        return item

    results = ahead(refuse_five, range(100), threads)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert list(results) == []


def test_whoever_stops_early_leaves_no_call_behind():
    running = threading.active_count()
    results = ahead(str, range(100), 4)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == running
