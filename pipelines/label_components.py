"""Groups of copies: connected components of a folder of edges, and who stays of each.

    edges --> [large-star, small-star, large-star, ...] --> stars --> labels by component --> survivors

Edges are joined in one worker's memory if they fit, and by rounds of stars if they do not.

Each round is a job of its own that leaves a folder of edges; the folder before it goes when the round is done, so a
killed run resumes at the last whole round. The rounds end when a large-star meets no node that is not tied to the
smallest of its component (a count, not a guess), or as soon as the edges that are left fit into memory after all.
"""

import math
from collections.abc import Callable, Generator, Sequence

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context
from ropewalk.schemas import files
from ropewalk.transforms.candidates import EDGES
from ropewalk.transforms.components import LABELS, JoinFolder, KeyEnds, LabelStars, LargeStar, SmallStar
from ropewalk.transforms.folders import KeyByHash, ReadFolder
from ropewalk.transforms.map_shards import WriteGroups
from ropewalk.transforms.members import MEMBERS, LocateEdges, ReadApart, ReadMembers
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.survivors import SURVIVORS, PickSurvivors

EDGE_BYTES = 16
"""Two addresses."""
MEMBER_BYTES = 24
"""An address, its component and the other end of an edge."""
JOIN_BYTES = 128
"""What an edge takes to join in memory: two nodes at most, about 64 bytes each."""
LABEL_BYTES = 48
"""What an edge makes at most of labels, edges and what is known of their documents in a group of copies."""
GROUP_BYTES = 64 << 20
"""Bytes of slices in one group of a shuffle."""
ROUND_BYTES = 128 << 20
"""The same in a round: what a group joins by itself spares rounds, so it is larger."""
COPIES = 3
"""How often a slice is in memory at the worst moment: as the runner holds it, decoded, and joined."""
ROUND = "round-"
"""What the folders of rounds are called, before their number."""
MAX_ROUNDS = 200
"""A chain of 10 million nodes takes 23 rounds, and they grow with the logarithm."""


def label_components(context: Context, edges: ShardFolder, *, budget_mb: int) -> Generator[Job, None, ShardFolder]:
    """Jobs that label every document that has an edge with the smallest address of its component.

    Args:
        context: Where work folders go.
        edges: Finished folder with columns `a` and `b`, uint64, and perhaps others; direction and repeats do not
            matter, loops are ignored.
        budget_mb: Memory for joining in one worker, at 128 bytes an edge; more edges go by rounds. The labels are the
            same.

    Yields:
        Jobs; between two of them the first one must have been run.

    Returns:
        Folder of `LABELS`, by hash of `component`, whole components in a shard, sorted by component, then address. Its
        counter `star-rounds` is the number of rounds, the same in each shard.

    Raises:
        RuntimeError: If the rounds do not end.
    """
    rows = _rows(edges)
    labels = context.work("labels", LABELS, _partitions(rows * LABEL_BYTES))
    stars, joined, rounds = edges, False, 0
    if not _finished(labels):
        stars, joined, rounds = yield from _contract(context, edges, rows, (budget_mb << 20) // JOIN_BYTES)

    def label(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | (ReadFolder(stars) if joined else JoinFolder(stars))
            | KeyByHash("b", labels.num_shards, shards)
            | WriteGroups(LabelStars(rounds), labels, shards, EDGES)
        )

    yield Job("join copies", labels, label, COPIES * rows * EDGE_BYTES // labels.num_shards)
    for name in _rounds(context):
        files.remove(files.join(context.folder, "_work", name))
    return labels


def pick_survivors(
    context: Context, picker: PickSurvivors, edges: ShardFolder, labels: ShardFolder
) -> Generator[Job, None, ShardFolder]:
    """Jobs that pick who stays of each group; where groups are stars, edges first learn their component.

    Args:
        context: Where work folders go.
        picker: How.
        edges: Finished folder with columns `a` and `b`, uint64, and perhaps others.
        labels: What `label_components` made of it.

    Yields:
        Jobs; between two of them the first one must have been run.

    Returns:
        Folder of `survivors.SURVIVORS`, whole components in a shard, sorted by component, then best first.
    """
    size = MEMBER_BYTES * (_rows(labels) + _rows(edges))
    located = None
    if picker.clusters == "star":
        located = context.work("located", MEMBERS, _partitions(size))
        yield Job("locate copies", located, _locate(labels, edges, located), COPIES * size // located.num_shards)
    groups = context.work("survivors", SURVIVORS, labels.num_shards)

    def pick(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | ReadMembers(labels, located, shards) | WriteGroups(picker, groups, shards, MEMBERS)

    yield Job("pick survivors", groups, pick, COPIES * size // groups.num_shards)
    return groups


def _locate(
    labels: ShardFolder, edges: ShardFolder, located: ShardFolder
) -> Callable[[beam.Pipeline, Sequence[int]], object]:
    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        rows = pipeline | ReadApart(labels, edges, located.num_shards, shards)
        return rows | WriteGroups(LocateEdges(), located, shards, MEMBERS)

    return build


def _contract(
    context: Context, edges: ShardFolder, rows: int, fit: int
) -> Generator[Job, None, tuple[ShardFolder, bool, int]]:
    """Rounds until at most `fit` edges are left or every component is a star; the edges, whether so, and how many."""
    partitions = max(1, math.ceil(2 * EDGE_BYTES * rows / ROUND_BYTES))

    def folder(number: int) -> ShardFolder:
        return context.work(f"{ROUND}{number:03d}", EDGES, partitions) if number else edges

    number = _last_finished(context, folder)
    while True:
        current = folder(number)
        if number % 2 and not sum(shard.counters["unsettled-nodes"] for shard in current.done().values()):
            return current, True, number
        if _rows(current) <= fit:
            return current, False, number
        if number == MAX_ROUNDS:
            raise RuntimeError(
                f"{edges.url}: components are not settled after {number} rounds of large-star and small-star, which "
                "should never be: raise the memory budget, so that they are joined in memory, and report it"
            )
        number += 1
        target = folder(number)
        yield Job(f"join copies, round {number}", target, _round(current, target, large=number % 2 == 1),
                  COPIES * 2 * EDGE_BYTES * _rows(current) // partitions)  # fmt: skip
        if current is not edges:
            files.remove(current.url)


def _round(edges: ShardFolder, target: ShardFolder, *, large: bool) -> Callable[[beam.Pipeline, Sequence[int]], object]:
    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | ReadFolder(edges)
            | KeyEnds(large, target.num_shards, shards)
            | WriteGroups(LargeStar() if large else SmallStar(), target, shards, EDGES)
        )

    return build


def _last_finished(context: Context, folder: Callable[[int], ShardFolder]) -> int:
    """The last whole round that an earlier run left; 0: none."""
    numbers = (int(name.removeprefix(ROUND)) for name in reversed(_rounds(context)))
    return next((number for number in numbers if _finished(folder(number))), 0)


def _rounds(context: Context) -> list[str]:
    return [name for name in files.names(files.join(context.folder, "_work")) if name.startswith(ROUND)]


def _finished(folder: ShardFolder) -> bool:
    return len(folder.done()) == folder.num_shards


def _rows(folder: ShardFolder) -> int:
    return sum(shard.rows for shard in folder.done().values())


def _partitions(size: int) -> int:
    return max(1, math.ceil(size / GROUP_BYTES))
