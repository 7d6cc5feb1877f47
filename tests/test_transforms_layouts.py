"""Layouts, each through the planning transform: published fill figures, conservation, determinism."""

import math
import random
import tempfile
import uuid
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.transforms import pack
from ropewalk.transforms.pack import PLAN, PlanSequences, layout_module
from ropewalk.transforms.segments import Segments, check, cut

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
LENGTH = 8192
LAYOUTS = ["in_context", "concat", "random"]


def len_20k():
    """The fixture LEN-20k of the design notes: lengths of 20,000 documents."""
    source = random.Random(0)
    return np.array([max(1, int(math.exp(source.gauss(math.log(600), 1.3)))) for _ in range(20_000)], np.uint32)


def batch_of(num_tokens):
    count = len(num_tokens)
    return pa.RecordBatch.from_pydict({
        "id": [f"{i:032x}" for i in range(count)], "rank": np.arange(count, dtype=np.uint64),
        "address": np.arange(count, dtype=np.uint64), "num_tokens": num_tokens.astype(np.uint32),
    })  # fmt: skip


def save(batch, folder):
    with pa.ipc.new_stream(f"{folder}/{uuid.uuid4().hex}", batch.schema) as stream:
        stream.write_batch(batch)


def planned(batches, transform):
    """The whole plan as one table, by sequence and place in it."""
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner=RUNNER) as p:
            typed = beam.Create(batches).with_output_types(pa.RecordBatch)
            _ = p | typed | transform | beam.Map(save, folder).with_output_types(None)
        found = [pa.ipc.open_stream(path.read_bytes()).read_next_batch() for path in Path(folder).iterdir()]
    return pa.Table.from_batches(found, schema=PLAN).sort_by([("sequence", "ascending"), ("nth", "ascending")])


def sequences_of(num_tokens, **settings):
    table = planned([batch_of(num_tokens)], PlanSequences(length=LENGTH, **settings))
    return len(np.unique(table["sequence"])), table


def test_len_20k_is_the_fixture():
    assert len_20k().sum() == 28_155_227 and (len_20k() > LENGTH).sum() == 454
    assert len(cut(len_20k(), LENGTH)[0]) == 20_689


@pytest.mark.parametrize(("open_bins", "sequences"), [(1, 4122), (10, 3443), (50, 3441), (200, 3441)])
def test_len_20k_best_fit(open_bins, sequences):
    found, table = sequences_of(len_20k(), layout="in_context", open_bins=open_bins)
    assert found == sequences
    pieces = np.bincount(table["address"].to_numpy().astype(np.int64))
    assert np.count_nonzero(pieces > 1) == 454


def test_len_20k_concat():
    found, table = sequences_of(len_20k(), layout="concat")
    assert found == math.ceil(28_155_227 / LENGTH) == 3437
    cuts = np.flatnonzero(np.bincount(table["address"].to_numpy().astype(np.int64)) > 1)
    assert len(cuts) == 3022 and np.count_nonzero(len_20k()[cuts] <= LENGTH) == 2568


def test_order_is_kept_and_partitions_stand_alone(monkeypatch):
    monkeypatch.setattr(pack, "PARTITION_DOCS", 100)
    num_tokens = np.random.default_rng(0).integers(0, 90, 250)
    function = PlanSequences(layout="concat", length=64)
    parts = [
        function(pa.concat_batches([b for _, b in function.keyed(batch_of(num_tokens).slice(i, 100))]))
        for i in range(0, 250, 100)
    ]
    assert [counters["docs-in"] for _, counters in parts] == [100, 100, 50]
    assert sum(c["tokens-in"] for _, c in parts) == num_tokens.sum()
    assert [c["sequences"] for _, c in parts] == [math.ceil(num_tokens[i : i + 100].sum() / 64) for i in (0, 100, 200)]
    numbers = [set(plan["sequence"].to_pylist()) for plan, _ in parts]
    assert len(set.union(*numbers)) == sum(map(len, numbers))
    for plan, _ in parts:  # a concat plan is the documents themselves, end to end
        assert np.all(np.diff(plan["address"].to_numpy().astype(np.int64)) >= 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_order_of_input_does_not_matter(layout):
    batch = batch_of(np.random.default_rng(1).integers(0, 3000, 700))
    transform = PlanSequences(layout=layout, length=1000, seed=5, partitions=3)
    expected = planned([batch], transform)
    shuffled = batch.take(pa.array(np.random.default_rng(2).permutation(700)))
    assert planned([shuffled.slice(i, 113) for i in range(0, 700, 113)], transform).equals(expected)
    other = planned([batch], PlanSequences(layout=layout, length=1000, seed=6, partitions=3))
    assert not other["sequence"].equals(expected["sequence"])


def test_random_order_is_random():
    num_tokens = np.full(1000, 10)
    table = sequences_of(num_tokens, layout="random", seed=1)[1]
    along = table["address"].to_numpy().astype(float)
    assert abs(np.corrcoef(along[1:], along[:-1])[0, 1]) < 0.1
    related = sequences_of(num_tokens, layout="in_context", seed=1)[1]["address"].to_numpy().astype(float)
    assert np.corrcoef(related[1:], related[:-1])[0, 1] > 0.9


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 70), max_size=40), st.integers(2, 20), st.integers(1, 5), st.sampled_from(LAYOUTS))
def test_every_token_is_in_one_segment(num_tokens, length, open_bins, layout):
    num_tokens = np.array(num_tokens, np.uint32)
    segments = layout_module(layout).plan(num_tokens, length=length, open_bins=open_bins)
    check(segments, num_tokens, length)
    tokens = sorted((d, t) for d, s, n in zip(*segments[:3], strict=True) for t in range(int(s), int(s + n)))
    assert tokens == [(d, t) for d, n in enumerate(num_tokens.tolist()) for t in range(n)]
    filled = np.bincount(segments.sequence, weights=segments.length) if len(segments.sequence) else np.zeros(0)
    assert np.all(filled >= 1) and np.all(filled <= length)
    assert np.all(np.diff(segments.sequence) >= 0)
    if layout != "concat":
        assert np.all(np.bincount(segments.document, minlength=len(num_tokens)) == -(-num_tokens.astype(int) // length))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (([0, 1], [0, 0], [4, 5], [0, 1]), "document 1 of the plan: 5 of 6"),
        (([0, 1, 1], [0, 0, 3], [4, 4, 2], [0, 1, 1]), "document 1"),
        (([0, 1], [0, 0], [4, 6], [0, 0]), "sequences of 10 to 10 tokens"),
        (([0, 1], [0, 0], [4, 6], [0, 2]), "sequences of 0 to 6"),
        (([0], [0], [4], [0]), "document 1 of the plan: 0 of 6"),
    ],
)
def test_a_broken_plan_is_found(broken, message):
    segments = Segments(*(np.array(column, np.int64) for column in broken))
    with pytest.raises(RuntimeError, match=message):
        check(segments, np.array([4, 6]), 8)


def test_ranks_with_gaps_are_refused():
    function = PlanSequences(length=8)
    with pytest.raises(RuntimeError, match="gaps"):
        function(next(function.keyed(batch_of(np.array([3, 3, 3])).take(pa.array([0, 2]))))[1])
    no_rank = batch_of(np.array([3])).set_column(1, "rank", pa.nulls(1, pa.uint64()))
    with pytest.raises(RuntimeError, match="no rank"):
        list(function.keyed(no_rank))


def test_no_documents_no_sequences():
    assert planned([], PlanSequences()).num_rows == 0
    assert sequences_of(np.zeros(5, np.uint32))[0] == 0
