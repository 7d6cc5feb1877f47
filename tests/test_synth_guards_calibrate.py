import numpy as np

from ropewalk.schemas.synthesis import GUARD_METRICS
from ropewalk.synth.guards import calibrate as module
from ropewalk.synth.guards.calibrate import calibrate
from ropewalk.synth.guards.check import MAX_CHARS
from ropewalk.synth.guards.metrics import measure

DRAW = np.random.default_rng(5)
WORDS = ["".join(DRAW.choice(list("abcdefghij"), 6)) for _ in range(4000)]


def text(words):
    return " ".join(DRAW.choice(WORDS, words)) + "."


GOOD = [text(int(DRAW.integers(60, 400))) for _ in range(60)]
BAD = ["again and again " * 100 + "."] * 3 + ["I cannot help with that. " + GOOD[0]]


def test_counts_and_percentiles():
    report = calibrate([(t, "en") for t in GOOD + BAD] + [("春天来了。" * 4, "zh"), ("a" * (MAX_CHARS + 1), "zh")])
    en, zh = report.languages["en"], report.languages["zh"]
    assert (en.texts, en.rejected, en.by_guard["refusal"], en.by_guard["compression_ratio"]) == (64, 4, 1, 3)
    assert en.rejected_share == 4 / 64
    assert en.by_guard["truncation"] == 0 and "truncation" not in en.examples
    assert (zh.texts, zh.oversize, zh.rejected) == (1, 1, 0)
    figures = [measure(t, "en") for t in GOOD + BAD]
    for name in GUARD_METRICS:
        values = [f[name] for f in figures]
        assert en.percentiles[name] == {p: np.percentile(values, p) for p in (1, 5, 50, 95, 99)}
    long = [f["compression_ratio"] for f in figures if f["words"] >= 200]
    assert en.suggested["compression_ratio"] == np.percentile(long, 99)
    assert en.suggested["min_distinct_4"] <= en.percentiles["min_distinct_4"][50]
    assert "compression_ratio" not in zh.suggested  # 16 characters are exempt
    assert any("refused 4 (6.25%)" in line for line in report.lines())
    assert sum("compression_ratio" in line for line in report.lines()) == 2


def test_the_reservoir_is_bounded_and_the_same_every_time(monkeypatch):
    monkeypatch.setattr(module, "RESERVOIR", 10)
    rows = [(t, "en") for t in GOOD]
    first, second = calibrate(iter(rows)), calibrate(iter(rows))
    assert first == second
    assert first.languages["en"].texts == 60
    median = first.languages["en"].percentiles["words"][50]
    assert 60 <= median <= 400
    tenth = [measure(t, "en")["words"] for t in GOOD[:10]]
    assert median != np.percentile(tenth, 50)  # later texts take their places


def test_thresholds_and_nothing():
    assert calibrate([(GOOD[0], "en")], {"compression_ratio": 0}).languages["en"].rejected == int(
        measure(GOOD[0], "en")["words"] >= 200
    )
    assert calibrate([]).lines() == []
