"""Rounds of stars over a shuffle that is played in plain Python: any graph, any cut, any order."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
import scipy.sparse.csgraph
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.transforms.candidates import EDGES
from ropewalk.transforms.components import KeyEnds, LabelStars, LargeStar, SmallStar, _KeyEnds

NODE = st.one_of(st.integers(0, 20), st.sampled_from([2**32, 2**63, 2**64 - 1]))


def batch(edges: np.ndarray) -> pa.RecordBatch:
    a, b = np.asarray(edges, np.uint64).reshape(-1, 2).T
    return pa.RecordBatch.from_arrays([a, b], schema=EDGES)


def shuffle(folder: list[pa.RecordBatch], *, both: bool, partitions: int) -> list[pa.RecordBatch]:
    """Rows by partition, those of each in the order in which the batches come."""
    keyed = _KeyEnds(KeyEnds(both, partitions, range(partitions)))
    groups: list[list[pa.RecordBatch]] = [[batch([])] for _ in range(partitions)]
    for part in folder:
        for key, rows in keyed.process(part):
            groups[key].append(rows)
    return [pa.concat_batches(group) for group in groups]


def label(folder: list[pa.RecordBatch], partitions: int, most: int) -> tuple[dict[int, int], int]:
    """Label of each node, and how many rounds it took."""
    for number in range(1, most + 1):
        star = LargeStar() if number % 2 else SmallStar()
        rows = sum(part.num_rows for part in folder)
        made = [star(group) for group in shuffle(folder, both=number % 2 == 1, partitions=partitions)]
        folder = [part for part, _ in made]
        assert sum(part.num_rows for part in folder) <= rows
        if number % 2 and not sum(counters["unsettled-nodes"] for _, counters in made):
            labels, counters = LabelStars(number)(pa.concat_batches(folder))
            address, component = (column.to_pylist() for column in labels.columns)
            assert list(zip(component, address, strict=True)) == sorted(zip(component, address, strict=True))
            assert counters == {"copied-groups": len(set(component)), "star-rounds": number}
            assert len(set(address)) == len(address)
            return dict(zip(address, component, strict=True)), number
    raise AssertionError(f"{most} rounds were not enough")


def scipy_labels(edges: np.ndarray) -> dict[int, int]:
    """Smallest node of the component of each node that has an edge to another."""
    edges = np.asarray(edges, np.uint64).reshape(-1, 2)
    edges = edges[edges[:, 0] != edges[:, 1]]
    nodes, index = np.unique(edges, return_inverse=True)
    a, b = index.reshape(edges.shape).T
    graph = scipy.sparse.coo_matrix((np.ones(len(a)), (a, b)), (len(nodes),) * 2)
    count, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.full(count, 2**64 - 1, np.uint64)
    np.minimum.at(smallest, labels, nodes)
    return dict(zip(nodes.tolist(), smallest[labels].tolist(), strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NODE, NODE), max_size=60), st.integers(1, 5), st.integers(1, 4))
def test_labels_are_scipys(edges, partitions, pieces):
    folder = [batch(edges[start::pieces]) for start in range(pieces)]
    assert label(folder, partitions, most=30)[0] == scipy_labels(edges)


@pytest.mark.parametrize("partitions", [2, 7])
@pytest.mark.parametrize(("shape", "most"), [("random chain", 31), ("sorted chain", 41), ("star", 7), ("web", 15)])
def test_100_000_nodes_in_few_rounds(shape, most, partitions):
    count = 100_000
    random = np.random.default_rng(3)
    nodes = random.permutation(count) if shape == "random chain" else np.arange(count)
    if shape == "star":
        edges = np.stack([np.delete(nodes, count // 2), np.full(count - 1, count // 2)], 1)
    elif shape == "web":
        edges = random.integers(0, count, (count, 2))
    else:
        edges = np.stack([nodes[:-1], nodes[1:]], 1)
    labels, rounds = label([batch(edges[:1000]), batch(edges[1000:])], partitions, most)
    assert labels == scipy_labels(edges) and rounds > 1
