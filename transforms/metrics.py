"""Beam counters whose names carry their unit: `docs-in`, `bytes-out`, `minhash-msec`.

They feed a runner's dashboard. The counts that must add up are kept with the shards (`shards.ShardWriter.count`), where
a retried bundle cannot count twice.
"""

from apache_beam.metrics import Metrics


def count(owner: type, name: str, amount: int) -> None:
    """Adds `amount` to counter `name` of the transform class `owner`."""
    Metrics.counter(owner, name).inc(int(amount))
