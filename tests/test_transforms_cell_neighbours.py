import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.kernels import blocked_search, graph_search
from ropewalk.kernels.blocked_search import search
from ropewalk.kernels.grid import normalise
from ropewalk.schemas import tables
from ropewalk.transforms import cell_neighbours, neighbour_recall, vectors
from ropewalk.transforms.cell_neighbours import KEYED, PARTIAL, SearchCells, merge_lists
from ropewalk.transforms.neighbour_edges import UniteEdges, keyed_edges

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def matrix(count, *, seed=0, distinct=None):
    """Unit vectors on the grid, `distinct` different ones at most."""
    random = np.random.default_rng(seed)
    topics = random.normal(size=(5, 32))
    made = normalise(topics[random.integers(0, 5, count)] + 0.8 * random.normal(size=(count, 32))).astype(np.float32)
    return made if distinct is None else made[random.integers(0, distinct, count)]


def keyed(count=60, *, seed=0, cells=4):
    """Every document asks its own cell and one more; ranks and vectors occur more than once."""
    random = np.random.default_rng(seed)
    made = matrix(count, seed=seed, distinct=count // 2)
    own = random.integers(0, cells, count)
    rows = np.repeat(np.arange(count), 2)
    member = np.arange(2 * count) % 2 == 0
    cell = np.where(member, own[rows], (own[rows] + 1) % cells).astype(np.uint32)
    rank = random.integers(0, 20, count).astype(np.uint64)[rows]
    places = (random.permutation(count).astype(np.uint64) << np.uint64(20))[rows]
    return pa.RecordBatch.from_arrays([places, rank, cell, member, vectors.to_lists(made[rows])], schema=KEYED)


def naive(batch, count):
    """(address, cell) -> [(similarity, rank, address)] in plain Python."""
    rows = batch.to_pylist()
    for row in rows:
        row["vector"] = [round(float(x) * 2048) for x in row["vector"]]
    found = {}
    for row in rows:
        near = [
            (-sum(x * y for x, y in zip(row["vector"], other["vector"], strict=True)), other["rank"], other["address"])
            for other in rows
            if other["member"] and other["cell"] == row["cell"] and other["address"] != row["address"]
        ]
        best = [(-s / 2**22, r, a) for s, r, a in sorted(near)[:count] if s < 0]
        if best:
            found.setdefault(row["address"], []).append(best)
    return {address: sorted(lists) for address, lists in found.items()}


def as_lists(parts):
    found = {}
    for part in parts:
        assert part.schema.equals(PARTIAL)
        for row in part.to_pylist():
            near = list(zip(row["similarity"], row["ranks"], row["neighbours"], strict=True))
            found.setdefault(row["address"], []).append(near)
    return {address: sorted(lists) for address, lists in found.items()}


@pytest.mark.parametrize("count", [1, 5, 50])
def test_lists_are_those_of_plain_python(count):
    batch = keyed()
    partial, counters = SearchCells(count)(batch)
    assert as_lists([partial]) == naive(batch, count)
    assert counters["member-docs"] == 60 and counters["question-docs"] == 120


@pytest.mark.parametrize("pieces", [1, 4])
def test_transform_on_any_sharding(pieces):
    batch = keyed(seed=3)
    mixed = batch.take(pa.array(np.random.default_rng(pieces).permutation(120)))
    parts = [mixed.slice(start, 120 // pieces) for start in range(0, 120, 120 // pieces)]
    cut = [(group, part.filter(pa.array(part["cell"].to_numpy() % 2 == group))) for part in parts for group in (0, 1)]
    with TestPipeline(runner=RUNNER) as p:
        source = p | beam.Create(cut).with_output_types(tuple[int, pa.RecordBatch])

        def check(found):
            assert as_lists(found) == naive(keyed(seed=3), 4)

        assert_that(source | SearchCells(4), check)


def test_merged_lists_are_the_best_of_all():
    batch = keyed(seed=5)
    partial, _ = SearchCells(4)(batch)
    rows = partial.set_column(0, PARTIAL.field(0), pa.array(partial["address"].to_numpy() >> np.uint64(20)))
    best, lengths = merge_lists(rows, 61, 6)
    every = naive(batch, 4)
    flat = list(zip(*(best[name].to_pylist() for name in ("similarity", "ranks", "neighbours")), strict=True))
    borders = np.r_[0, np.cumsum(lengths)]
    for row in range(61):
        candidates = sum(every.get(row << 20, []), [])
        expected = sorted(candidates, key=lambda c: (-c[0], c[1], c[2]))[:6]
        assert flat[borders[row] : borders[row + 1]] == expected


def test_search_in_blocks_is_one_search():
    made = matrix(300, distinct=100)
    own = np.r_[np.arange(250), np.full(50, -1)]
    whole = search(made, made[:250], own, 9, block_bytes=1 << 30)
    assert all(
        np.array_equal(a, b) for a, b in zip(whole, search(made, made[:250], own, 9, block_bytes=1), strict=True)
    )
    nothing = search(made[:3], made[:0], np.full(3, -1), 2)
    assert (nothing[0] == -1).all() and not nothing[1].any()


def test_a_graph_finds_nearly_all_and_the_same_again(monkeypatch):
    made = matrix(800)
    own = np.r_[np.arange(700), np.full(100, -1)]
    exact, found = (how.search(made, made[:700], own, 8) for how in (blocked_search, graph_search))
    assert all(np.array_equal(a, b) for a, b in zip(found, graph_search.search(made, made[:700], own, 8), strict=True))
    assert (found[0] != own[:, None]).all() and (np.diff(found[1], axis=1) <= 0).all()
    scores = np.einsum("qd,qkd->qk", made.astype(np.float64), made[found[0]].astype(np.float64))
    assert np.array_equal(found[1], scores)
    assert np.mean(found[1] >= exact[1][:, -1:]) > 0.97
    few = graph_search.search(made[:5], made[:2], np.array([0, 1, -1, -1, -1]), 4)
    assert [sorted(row[row >= 0].tolist()) for row in few[0]] == [[1], [0], [0, 1], [0, 1], [0, 1]]
    assert (graph_search.search(made[:2], made[:0], np.full(2, -1), 3)[0] == -1).all()
    # Of the cells only those with many members are searched so.
    monkeypatch.setattr(cell_neighbours, "HNSW_ROWS", 16)
    batch = keyed()
    partial, counters = SearchCells(3, "hnsw")(batch)
    large = np.bincount(batch["cell"].to_numpy(), weights=batch["member"].to_numpy(zero_copy_only=False)) >= 16
    asked = np.bincount(batch["cell"].to_numpy())
    assert counters["graph-docs"] == asked[large].sum() > 0 and large.sum() < len(large)
    mixed = batch.take(pa.array(np.random.default_rng(0).permutation(120)))
    assert as_lists([SearchCells(3, "hnsw")(mixed)[0]]) == as_lists([partial])


def test_an_edge_stands_once_whoever_named_it():
    batch = pa.RecordBatch.from_pydict(
        {
            "address": pa.array([1, 5, 2**32 + 1, 7], pa.uint64()),
            "neighbours": pa.array([[5, 2**32 + 1], [1], None, []], pa.list_(pa.uint64())),
            "neighbour_similarity": pa.array([[0.5, 0.25], [0.5], None, []], pa.list_(pa.float32())),
        }
    )
    links = dict(keyed_edges(batch))
    assert list(links) == [0]
    edges, counters = UniteEdges()(links[0])
    assert edges.schema == tables.EDGES
    assert edges.to_pylist() == [
        {"a": 1, "b": 5, "similarity": 0.5}, {"a": 1, "b": 2**32 + 1, "similarity": 0.25},
    ]  # fmt: skip
    assert counters == {"link-edges": 3, "graph-edges": 2, "mutual-edges": 1}
    assert list(keyed_edges(batch.slice(2))) == []
    assert UniteEdges()(links[0].slice(0, 0))[0].num_rows == 0


def test_recall_counts_what_is_as_near_as_the_last_true_one():
    rows = [(0, [0.9, 0.5]), (2, [0.7]), (3, [0.4, 0.4])]
    lists = [pa.array([similarity for _, similarity in rows], PARTIAL.field("similarity").type)]
    empty = pa.array([[0] * len(s) for _, s in rows], PARTIAL.field("ranks").type)
    exact = pa.RecordBatch.from_arrays([np.array([0, 2, 3], np.uint64), empty, empty, *lists], schema=PARTIAL)
    found = pa.array([[0.9, 0.3], [0.1], None, [0.4, 0.4]], pa.list_(pa.float32()))
    assert neighbour_recall.recall(exact, found) == (3, 5)
