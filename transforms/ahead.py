"""Results in order, made a few at a time: while one item waits for Python, the kernels of another run.

While kernels run, the thread that waits for them does nothing; while Python composes texts, builds Arrow columns or
writes, no kernel runs. Two items at once fill both gaps.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map(function, items)` on some threads; at most so many items and one are taken before their results are.

    Args:
        function: Bears being called by several threads at once.
        items: Taken one by one, in the caller's thread.
        threads: Calls at once; 1 calls in the caller's thread.

    Yields:
        Results in the order of the items; what a call raises, in its turn.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
