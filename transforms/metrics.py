"""Beam counters whose names carry their unit: `docs-in`, `bytes-out`, `minhash-msec`.

They feed a runner's dashboard. The counts that must add up are kept with the shards (`shards.ShardWriter.count`), where
a retried bundle cannot count twice.
"""

import contextlib
import time
from collections.abc import Iterator

from apache_beam.metrics import Metrics


def count(owner: type, name: str, amount: int) -> None:
    """Adds `amount` to counter `name` of the transform class `owner`."""
    Metrics.counter(owner, name).inc(int(amount))


@contextlib.contextmanager
def timed_msec(owner: type, name: str) -> Iterator[None]:
    """Adds the block's wall time in milliseconds to counter `name`, also when the block raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        Metrics.counter(owner, name).inc(round((time.perf_counter() - start) * 1000))
