import re
import unicodedata
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.pipelines import charts
from ropewalk.pipelines.charts import Look, Point, Series

HOSTILE = "\"><img src=x onerror=alert(1)> </title></svg><script>alert(1)</script> \u202etxt.exe \x00 &amp; '"


def test_nothing_invisible_stays():
    """Against Unicode's own classes: all controls but tab and newline, and all that embed, override or isolate."""
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in range(0x110000):
        char = chr(code)
        hidden = unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in bidi
        if char in "\t\n":
            assert charts.visible(char) == char
        elif hidden:
            assert char not in charts.visible(char), hex(code)
        elif unicodedata.category(char)[0] in "LMNPS":
            assert charts.visible(char) == char, hex(code)
    assert charts.visible("a\u202eb\x00") == "a\u27e8U+202E\u27e9b\u2400"


@given(st.text(), st.integers(2, 60))
def test_clip_is_one_short_line(text, limit):
    clipped = charts.clip(text, limit)
    assert len(clipped) <= limit
    assert "\n" not in clipped
    assert clipped == charts.visible(clipped)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (950, "950"), (999.6, "1k"), (1000, "1k"), (1240, "1.2k"), (34_000, "34k"), (999_960, "1M"),
     (5_600_000, "5.6M"), (1e12, "1T"), (0.25, "0.25"), (-1500, "-1.5k")],
)  # fmt: skip
def test_compact(value, text):
    assert charts.compact(value) == text


@given(st.floats(-1e3, 1e3), st.floats(0.1, 1e6), st.integers(2, 8))
def test_ticks_are_round_even_and_inside(low, span, count):
    found = charts.ticks(low, low + span, count)
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)
    assert len(found) <= count + 1
    steps = [b - a for a, b in zip(found, found[1:], strict=False)]
    for step in steps:
        assert step == pytest.approx(steps[0], rel=1e-6, abs=1e-9)
        digits = f"{step:.5e}".split("e")[0].rstrip("0").rstrip(".")
        assert digits in ("1", "2", "2.5", "5")


def rects(markup):
    return [
        {**{k: float(v) for k, v in r.attrib.items() if k in ("x", "y", "width", "height")}, "title": r[0].text}
        for r in ET.fromstring(str(markup)).iter("rect")
    ]


def test_histogram_draws_what_it_is_given():
    counts = [0, 3, 6, 0, 12, 0]
    edges = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000]
    series = [Series("kept", counts), Series("all", [0, 3, 7, 1, 12, 0], 6)]
    markup = charts.histogram(edges, series, x_label="length", y_label="documents", unit="tokens", log_x=True)
    found = rects(markup)
    assert [r["title"] for r in found] == [
        "10 to 100 tokens: 3 (kept)", "100 to 1k tokens: 6 (kept)", "10k to 100k tokens: 12 (kept)"
    ]  # fmt: skip
    assert found[1]["height"] == pytest.approx(2 * found[0]["height"], abs=0.2)
    assert found[2]["height"] == pytest.approx(4 * found[0]["height"], abs=0.2)
    assert len({round(r["y"] + r["height"], 1) for r in found}) == 1  # all stand on the axis
    assert found[1]["x"] - found[0]["x"] == pytest.approx((found[2]["x"] - found[0]["x"]) / 3, abs=0.2)  # decades
    outline = next(p for p in ET.fromstring(str(markup)).iter("path") if p.get("class") == "line c6")
    assert len(re.findall("H", outline.get("d"))) == 4  # bins 1 to 4, the empty one too


def test_histogram_of_shares_compares_unequal_sets():
    series = [Series("a", [1, 3]), Series("b", [250, 750], 1)]
    found = charts.histogram([0, 1, 2], series, x_label="x", y_label="y", unit="u", share=True)
    assert [r["title"] for r in rects(found)] == ["0 to 1 u: 25.0 % (a)", "1 to 2 u: 75.0 % (a)"]
    heights = [r["y"] for r in rects(found)]
    outline = next(p for p in ET.fromstring(str(found)).iter("path") if p.get("class") == "line c1")
    assert [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", outline.get("d"))] == heights


def test_bars_and_strip_are_in_proportion():
    found = rects(charts.bars(["2", "3", "4"], [10, 0, 5], x_label="size", y_label="groups"))
    assert [r["title"] for r in found] == ["2: 10", "4: 5"]
    assert found[0]["height"] == pytest.approx(2 * found[1]["height"], abs=0.2)
    found = rects(charts.strip([100, 300, 400], 1000))
    assert [r["x"] for r in found] == [0, 100, 400]
    assert found[-1]["x"] + found[-1]["width"] == pytest.approx(800, abs=2)


@pytest.mark.parametrize("count", [1, 7, 18, 40])
def test_labels_of_bars_leave_each_other_room(count):
    labels = [f"{2**i + 1}–{2 ** (i + 1)}" for i in range(count)]
    markup = charts.bars(labels, [1234] * count, x_label="size", y_label="groups")
    assert len(rects(markup)) == count
    for texts in (labels, ["1.2k"]):
        found = [
            t for t in ET.fromstring(str(markup)).iter("text") if t.text in texts and t.get("text-anchor") == "middle"
        ]
        places = [float(t.get("x")) for t in found]
        assert found and all(b - a >= 6.5 * max(map(len, texts)) for a, b in zip(places, places[1:], strict=False))


def test_curve_goes_through_its_points():
    markup = charts.curve([[0, 5, 10]], [Series("order", [0.0, 1.0, 0.5])], x_label="place", y_label="cosine")
    line = next(ET.fromstring(str(markup)).iter("polyline"))
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in line.get("points").split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y2 == pytest.approx((y0 - y1) / 2, abs=0.2)


def test_scatter_keeps_distances():
    points = [Point(0, 0, 7, "a"), Point(4, 0, 7, "b"), Point(0, 3, 9, "c")]
    markup = charts.scatter(points, charts.looks([7, 9]), x_label="x", y_label="y")
    at = {
        p[0].text: tuple(map(float, re.match(r"M([\d.]+) ([\d.]+)", p.get("d")).groups()))
        for p in ET.fromstring(str(markup)).iter("path")
        if len(p)
    }
    across, up = at["b"][0] - at["a"][0], at["a"][1] - at["c"][1]
    assert across > 0
    assert up / across == pytest.approx(3 / 4, abs=0.01)


def test_looks_are_distinct_for_the_largest():
    found = charts.looks(list(range(100, 300)))
    leading = [found[g] for g in range(100, 112)]
    assert len(set(leading)) == 12
    rest = {found[g] for g in range(112, 300)}
    assert not rest & set(leading)
    assert rest == {Look(colour, shape) for colour in range(6) for shape in (2, 3)}


def test_empty_charts_say_so():
    labels = {"x_label": "x", "y_label": "y"}
    for markup in (
        charts.histogram([0, 1], [Series("a", [0])], unit="u", **labels), charts.bars([], [], **labels),
        charts.bars(["1"], [0], **labels), charts.curve([[]], [Series("a", [])], **labels),
        charts.scatter([], {}, **labels),
    ):  # fmt: skip
        assert markup == '<p class="absent">Nothing to draw.</p>'


def test_one_value_is_enough():
    assert rects(charts.histogram([1, 2], [Series("a", [5])], x_label="x", y_label="y", unit="u", log_x=True))
    assert "polyline" in charts.curve([[3]], [Series("a", [0.0])], x_label="x", y_label="y")
    assert "path" in charts.scatter([Point(1, 1, 0, "a")], charts.looks([0]), x_label="x", y_label="y")


def test_hostile_words_stay_words():
    """Every chart is well-formed XML whose only elements are its own."""
    every = [
        charts.histogram([0, 1], [Series(HOSTILE, [1])] * 2, x_label=HOSTILE, y_label=HOSTILE, unit=HOSTILE),
        charts.bars([HOSTILE], [1], x_label=HOSTILE, y_label=HOSTILE),
        charts.curve([[0, 1]], [Series(HOSTILE, [0, 1])], x_label=HOSTILE, y_label=HOSTILE),
        charts.scatter([Point(0, 0, 0, HOSTILE)], charts.looks([0]), x_label=HOSTILE, y_label=HOSTILE),
    ]
    for markup in every:
        tags = {element.tag for element in ET.fromstring(str(markup)).iter()}
        assert tags <= {"svg", "g", "path", "rect", "text", "title", "polyline"}
        assert "\u202e" not in markup and "\x00" not in markup
        assert any(charts.visible(HOSTILE) in (e.text or "") for e in ET.fromstring(str(markup)).iter())
