"""Components and survivors through whole jobs: both ways, resumed, against scipy and plain Python."""

import itertools
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
import scipy.sparse.csgraph

from ropewalk.kernels.mix64 import bucket, mix64
from ropewalk.pipelines import label_components
from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.label_components import pick_survivors
from ropewalk.pipelines.walk import Context
from ropewalk.schemas import files, testing
from ropewalk.transforms.components import LABELS
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.members import MEMBERS
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.similarity import VERIFIED
from ropewalk.transforms.survivors import PickSurvivors, survivors

ENGINE = Engine()


def context(url) -> Context:
    nothing = cast(Any, None)
    return Context(CorpusDir("none"), nothing, nothing, 0, 1, "key", str(url), {}, ())


def write_edges(url, edges: np.ndarray, shards: int = 3) -> ShardFolder:
    """A folder of verified edges, some of them twice and the wrong way round, and loops."""
    random = np.random.default_rng(len(edges))
    again = random.choice(edges, min(len(edges), 50))[:, ::-1]
    loops = np.repeat(random.choice(edges.ravel(), min(len(edges), 3)), 2).reshape(-1, 2)
    edges = random.permutation(np.concatenate([edges, again, loops]))
    folder = ShardFolder(str(url), VERIFIED, shards, "edges")
    for shard in range(shards):
        part = edges[shard::shards]
        with folder.writer(shard) as writer:
            for start in range(0, len(part), 1000):
                a, b = part[start : start + 1000].T
                writer.write(pa.RecordBatch.from_arrays([a, b, np.ones(len(a), np.float32)], schema=VERIFIED))
    return folder


def run(jobs, engine=ENGINE, stop_after=None) -> tuple[Any, list[str]]:
    """Runs a generator of jobs, or some of them; what it returns and the labels of the jobs."""
    labels: list[str] = []
    while stop_after is None or len(labels) < stop_after:
        try:
            job = next(jobs)
        except StopIteration as stop:
            return stop.value, labels
        engine.run(job)
        labels.append(job.label)
    return None, labels


def label(url, edges, budget_mb, **options):
    return run(label_components.label_components(context(url), edges, budget_mb=budget_mb), **options)


def shards_of(folder: ShardFolder) -> list[dict]:
    return [pa.Table.from_batches(folder.read(s), folder.schema).to_pydict() for s in range(folder.num_shards)]


def scipy_labels(edges: np.ndarray) -> dict[int, int]:
    """Smallest node of each node's component."""
    nodes, index = np.unique(edges, return_inverse=True)
    a, b = index.reshape(edges.shape).T
    graph = scipy.sparse.coo_matrix((np.ones(len(a)), (a, b)), (len(nodes),) * 2)
    count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.full(count, 2**64 - 1, np.uint64)
    np.minimum.at(smallest, labels, nodes)
    return dict(zip(nodes.tolist(), smallest[labels].tolist(), strict=True))


def chain(count: int) -> np.ndarray:
    nodes = np.random.default_rng(count).permutation(count)
    return np.stack([nodes[:-1], nodes[1:]], 1)


def sparse(count: int, edges: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, count, (edges, 2))
    return found[found[:, 0] != found[:, 1]]


def graph() -> np.ndarray:
    """Random graphs below and at the threshold of a giant component, a chain, a star, cliques and a pair, apart."""
    parts = [
        sparse(1000, 500, 1),
        sparse(1000, 1000, 2),
        chain(100),
        np.stack([np.delete(np.arange(500), 250), np.full(499, 250)], 1),
        *(np.array(list(itertools.combinations(range(size), 2))) for size in (2, 3, 20, 30)),
    ]
    return np.concatenate([part + 1000 * number for number, part in enumerate(parts)])


@pytest.fixture
def many_groups(monkeypatch):
    monkeypatch.setattr(label_components, "GROUP_BYTES", 40_000)
    monkeypatch.setattr(label_components, "ROUND_BYTES", 40_000)


def test_both_ways_agree_with_scipy(tmp_path, many_groups):
    # Addresses all over the 64 bits, in another order than the nodes' numbers.
    edges = mix64(graph().astype(np.uint64), 5)
    folder = write_edges(tmp_path / "edges", edges)
    memory, jobs = label(tmp_path / "memory", folder, 64)
    assert jobs == ["join copies"]
    rounds, jobs = label(tmp_path / "rounds", folder, 0)
    assert len(jobs) > 5
    assert shards_of(memory) == shards_of(rounds)
    assert [s.hash for s in memory.done().values()] == [s.hash for s in rounds.done().values()]
    found = shards_of(memory)
    labels = {a: c for shard in found for a, c in zip(shard["address"], shard["component"], strict=True)}
    assert labels == scipy_labels(edges) and len(found) > 1
    assert sum(len(shard["address"]) for shard in found) == len(labels)
    for number, shard in enumerate(found):
        assert set(bucket(mix64(np.array(shard["component"], np.uint64)), len(found)).tolist()) == {number}
        order = list(zip(shard["component"], shard["address"], strict=True))
        assert order == sorted(order)
    counters = [shard.counters for shard in rounds.done().values()]
    assert {c["star-rounds"] for c in counters} == {len(jobs) - 1}
    assert sum(c["copied-groups"] for c in counters) == len(set(labels.values()))
    assert files.names(str(tmp_path / "rounds" / "_work")) == ["labels"]  # no round is left behind


def test_no_edges_no_labels(tmp_path):
    folder = write_edges(tmp_path / "edges", np.empty((0, 2), np.uint64))
    labels, _ = label(tmp_path / "work", folder, 0)
    assert shards_of(labels) == [{"address": [], "component": []}]


def test_rounds_stop_as_soon_as_the_edges_fit(tmp_path, many_groups, monkeypatch):
    monkeypatch.setattr(label_components, "JOIN_BYTES", 1 << 11)  # 512 edges in a megabyte
    cliques = [np.array(list(itertools.combinations(range(60 * k, 60 * k + 60), 2))) for k in range(2)]
    edges = np.concatenate(cliques).astype(np.uint64)  # 3,540 edges, of which 118 are enough
    folder = write_edges(tmp_path / "edges", edges)
    labels, jobs = label(tmp_path / "work", folder, 1)
    assert jobs == ["join copies, round 1", "join copies"]
    assert sorted(c for shard in shards_of(labels) for c in shard["component"]) == [0] * 60 + [60] * 60


def test_a_killed_run_resumes_at_the_last_round(tmp_path, monkeypatch):
    monkeypatch.setattr(label_components, "GROUP_BYTES", 512)
    monkeypatch.setattr(label_components, "ROUND_BYTES", 256)
    folder = write_edges(tmp_path / "edges", chain(24).astype(np.uint64))
    whole, _ = label(tmp_path / "whole", folder, 1)
    # Killed in the middle of the third round, of which one shard is missing; the second one is still there.
    killed = label_components.label_components(context(tmp_path / "killed"), folder, budget_mb=0)
    for _ in range(3):
        job = next(killed)
        ENGINE.run(job)
    files.remove(job.target.path(1))
    work = str(tmp_path / "killed" / "_work")
    assert files.names(work) == ["round-002", "round-003"]
    _, rest = label(tmp_path / "killed", folder, 0, stop_after=2)
    # Killed again, just after the fourth: two whole rounds are left.
    assert rest == ["join copies, round 3", "join copies, round 4"]
    assert files.names(work) == ["round-003", "round-004"]
    again, rest = label(tmp_path / "killed", folder, 0)
    rounds = 4 + len(rest) - 1
    assert rest == [*(f"join copies, round {number}" for number in range(5, rounds + 1)), "join copies"]
    assert rounds > 4 and files.names(work) == ["labels"]
    assert [shard.hash for shard in again.done().values()] == [shard.hash for shard in whole.done().values()]
    assert {shard.counters["star-rounds"] for shard in again.done().values()} == {rounds}
    # Another run finds the labels themselves.
    assert label(tmp_path / "killed", folder, 0)[1] == ["join copies"]


def test_rounds_without_an_end_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(label_components, "ROUND_BYTES", 1000)
    monkeypatch.setattr(label_components, "MAX_ROUNDS", 1)
    folder = write_edges(tmp_path / "edges", chain(60).astype(np.uint64))
    with pytest.raises(RuntimeError, match="not settled after 1 rounds"):
        label(tmp_path / "rounds", folder, 0)


def naive_survivors(edges, rank, clusters) -> dict[int, tuple[int, int]]:
    """Survivor and size of its group for each document that has one, in plain Python; `rank` 0 is the best."""
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    stays: dict[int, int] = {}
    for node in sorted(near, key=rank.__getitem__):
        if clusters == "star":
            better = [u for u in near[node] if stays.get(u) == u]
        else:
            better, seen = [node], {node}
            for u in better:
                better += [v for v in near[u] if v not in seen]
                seen |= near[u]
        stays[node] = min([node, *better], key=rank.__getitem__)
    sizes = {s: list(stays.values()).count(s) for s in stays.values()}
    return {node: (s, sizes[s]) for node, s in stays.items() if sizes[s] > 1}


def test_survivors_are_those_of_plain_python_whatever_the_sharding(lay, tmp_path, many_groups):
    count = 400
    documents = testing.documents(count, seed=4, words=(1, 3))
    ids = documents.column("id").to_pylist()
    order = np.random.default_rng(0).integers(0, 30, count).astype(np.uint64)  # many ties, settled by the id
    rank = {i: place for place, i in enumerate(sorted(range(count), key=lambda i: (-int(order[i]), ids[i])))}
    edges = np.concatenate([sparse(150, 100, 3), sparse(250, 900, 4) + 150])
    expected = {clusters: naive_survivors(edges.tolist(), rank, clusters) for clusters in ("components", "star")}
    assert all(len(found) > 250 for found in expected.values()) and expected["star"] != expected["components"]

    for number, shards in enumerate((1, 4)):
        # The documents elsewhere, the edges in another order and the other way round.
        place = np.random.default_rng(number).permutation(count) if number else np.arange(count)
        shuffled = documents.take(pa.array(place))
        borders = np.linspace(0, count, shards + 1).astype(int)
        corpus = lay(*(shuffled.slice(i, j - i) for i, j in itertools.pairwise(borders)), name=f"corpus-{number}")
        address = np.empty(count, np.uint64)
        sketches = ShardFolder(corpus.folder("sketch"), pa.schema([("order", pa.uint64())]), shards, "k")
        for shard, (i, j) in enumerate(itertools.pairwise(borders)):
            address[place[i:j]] = np.arange(j - i, dtype=np.uint64) | np.uint64(shard << 32)
            with sketches.writer(shard) as writer:
                writer.write(pa.RecordBatch.from_arrays([pa.array(order[place[i:j]])], schema=sketches.schema))
        document = {a: i for i, a in enumerate(address.tolist())}
        folder = write_edges(tmp_path / f"edges-{number}", address[edges[:, ::-1] if number else edges], shards + 1)
        labels, _ = label(tmp_path / f"work-{number}", folder, 64)
        members = sum(shard.rows for shard in labels.done().values())
        for clusters, wanted in expected.items():
            where = context(tmp_path / f"{clusters}-{number}")
            groups, _ = run(pick_survivors(where, PickSurvivors(corpus, "sketch", clusters), folder, labels))
            assert groups.num_shards > 1
            found = {}
            for shard in shards_of(groups):
                rows = zip(shard["address"], shard["survivor"], shard["component_size"], strict=True)
                found |= {document[a]: (document[s], size) for a, s, size in rows}
            assert found == wanted
            counters = [shard.counters for shard in groups.done().values()]
            assert sum(c["copied-docs"] for c in counters) == len({s for s, _ in wanted.values()})
            assert sum(c["unpaired-docs"] for c in counters) == members - len(wanted)


def test_two_copies_of_a_third_that_goes_both_stay():
    labels = pa.RecordBatch.from_arrays([np.array([0, 1, 2], np.uint64), np.zeros(3, np.uint64)], schema=LABELS)
    edges = pa.RecordBatch.from_pydict({"address": [1, 2], "component": [0, 0], "other": [0, 1]}, schema=MEMBERS)
    order, ids = pa.array([9, 8, 7], pa.uint64()), pa.array(["c", "b", "a"])
    found = survivors(labels, order, ids, edges).to_pydict()
    assert found == {"address": [0, 1], "survivor": [0, 0], "component_size": [2, 2]}
    found = survivors(labels, order, ids).to_pydict()
    assert found == {"address": [0, 1, 2], "survivor": [0, 0, 0], "component_size": [3, 3, 3]}
