"""What a deduplication did, in numbers: sizes of the groups, what went of each source, whether that is believable."""

from typing import Any

import numpy as np

from ropewalk.schemas.manifest import add_counters
from ropewalk.transforms.shards import ShardFolder

SMALL_SOURCE = 1000
"""Sources with fewer documents may go altogether."""


def component_facts(groups: ShardFolder) -> dict[str, Any]:
    """Number of groups of copies, and how many there are of sizes "2", "3-4", "5-8" and so on."""
    by_power: dict[int, int] = {}
    count = largest = 0
    for shard in range(groups.num_shards):
        for batch in groups.read(shard):
            first = batch.column("address").to_numpy() == batch.column("survivor").to_numpy()
            sizes = batch.column("component_size").to_numpy()[first].astype(np.int64)
            sizes = sizes[sizes > 1]
            count, largest = count + len(sizes), max(largest, int(sizes.max(initial=0)))
            powers, times = np.unique(np.ceil(np.log2(sizes)).astype(int), return_counts=True)
            for power, number in zip(powers.tolist(), times.tolist(), strict=True):
                by_power[power] = by_power.get(power, 0) + number
    histogram = {
        f"{(1 << power - 1) + 1}-{1 << power}" if power > 1 else "2": number
        for power, number in sorted(by_power.items())
    }
    return {"components": count, "largest_component-docs": largest, "component_sizes": histogram}


def source_facts(target: ShardFolder) -> dict[str, dict[str, Any]]:
    """What happened to each source.

    Returns:
        By source: `docs`, `removed`, those of them `checked` by exact similarity with what was kept instead, those of
        them `below_threshold`, and the share of `false_positives` that this makes likely.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in add_counters([shard.counters for shard in target.done().values()]).items():
        if name.startswith("source:"):
            source, _, what = name.removeprefix("source:").rpartition(":")
            found.setdefault(source, {})[what.removesuffix("-docs")] = value
    for facts in found.values():
        checked = facts["checked"]
        facts["false_positives"] = round(facts["below_threshold"] / checked, 6) if checked else None
    return found


def refuse_wipe_out(sources: dict[str, dict[str, Any]], most: float) -> None:
    """Stops where more than a share of one source would be removed.

    Args:
        sources: See `source_facts`.
        most: Share that is still believable, 0 … 1.

    Raises:
        RuntimeError: Naming the source and what to do.
    """
    for name, source in sources.items():
        if source["docs"] >= SMALL_SOURCE and source["removed"] > most * source["docs"]:
            share = source["removed"] / source["docs"]
            raise RuntimeError(
                f"dedup would remove {source['removed']:,} of {source['docs']:,} documents of source {name!r} "
                f"({share:.1%}): a boilerplate header, or a copy of another source? If it is right, raise "
                f"`dedup.max_source_share` (now {most}) and run again: the work is kept"
            )
