import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.cut_spans import cut_spans_reference
from ropewalk.schemas import tables
from ropewalk.transforms.cuts import cut_spans, span_buffers

SPANS = pa.list_(tables.SPAN)


def column(rows: list[list[tuple[int, int]]]) -> pa.ListArray:
    return pa.array([[{"start": a, "stop": b} for a, b in row] for row in rows], SPANS)


@st.composite
def texts_and_spans(draw):
    texts = draw(st.lists(st.text(st.sampled_from("ab\n é北🙂\x00"), max_size=20), max_size=8))
    stages = []
    for _ in range(draw(st.integers(1, 3))):
        rows = []
        for text in texts:
            borders = np.cumsum([0, *(len(c.encode()) for c in text)]).tolist()
            points = sorted(draw(st.lists(st.sampled_from(borders), max_size=6)))
            rows.append(list(zip(points[::2], points[1::2], strict=False)))
        stages.append(rows)
    return texts, stages, draw(st.integers(0, len(texts)))


@settings(max_examples=300, deadline=None)
@given(texts_and_spans())
def test_cuts_are_what_python_cuts(case):
    texts, stages, first = case
    expected = [
        cut_spans_reference(text.encode(), [span for rows in stages for span in rows[i]]).decode()
        for i, text in enumerate(texts)
    ]
    array, spans = pa.array(texts, pa.large_string()), [column(rows) for rows in stages]
    found = cut_spans(array, spans)
    found.validate(full=True)
    assert found.type == pa.large_string() and found.to_pylist() == expected
    part = cut_spans(array.slice(first), [rows.slice(first) for rows in spans])
    assert part.to_pylist() == expected[first:]


def test_nothing_cut_is_no_copy():
    texts = pa.array(["one", "two", ""], pa.large_string())
    assert cut_spans(texts, [column([[], [], []])]) is texts and cut_spans(texts, []) is texts
    # Spans of rows outside the slice are none of this slice's.
    rows = column([[(0, 1)], [], []]).slice(1)
    assert cut_spans(texts.slice(1), [rows]).to_pylist() == ["two", ""]
    nothing = pa.array([], pa.large_string())
    assert cut_spans(nothing, [column([])]).to_pylist() == []


@pytest.mark.parametrize("row", [[(2, 1)], [(0, 9)], [(0, 4), (3, 5)], [(3, 5)], [(0, 2)], [(4, 4), (0, 1)]])
def test_spans_of_other_texts_are_refused(row):
    texts = pa.array(["fine", "aé北b"], pa.large_string())  # borders 0 1 3 6 7
    with pytest.raises(ValueError, match="text 1 of 2: bytes"):
        cut_spans(texts, [column([[(1, 2)], []]), column([[], row])])


def test_more_fields_in_a_span_do_no_harm():
    kind = pa.list_(pa.struct([("item", pa.string()), *tables.SPAN]))
    spans = pa.array([[{"item": "x", "start": 1, "stop": 2}], [{"item": "y", "start": 0, "stop": 3}]], kind)
    assert cut_spans(pa.array(["abc", "def"], pa.large_string()), [spans]).to_pylist() == ["ac", ""]
    starts, stops, borders = span_buffers(spans.slice(1))
    assert starts.tolist() == [0] and stops.tolist() == [3] and borders.tolist() == [0, 1]
