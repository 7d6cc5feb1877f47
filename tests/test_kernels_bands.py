import pytest
from datasketch import lsh
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import bands


@pytest.mark.parametrize(
    ("number", "rows", "threshold"),
    [(14, 8, 0.75), (20, 13, 0.8), (9, 13, 0.8), (450, 20, 0.8), (1, 1, 0.5), (5, 3, 0.0), (5, 3, 1.0), (1, 256, 0.9)],
)
def test_errors_are_datasketchs(number, rows, threshold):
    missed, vain = bands.errors(number, rows, threshold)
    assert missed == pytest.approx(lsh._false_negative_probability(threshold, number, rows), abs=1e-8)
    assert vain == pytest.approx(lsh._false_positive_probability(threshold, number, rows), abs=1e-8)


def every(threshold, recall, values):
    for rows in range(1, values + 1):
        for number in range(1, values // rows + 1):
            if bands.match_probability(threshold, number, rows) >= recall:
                vain = lsh._false_positive_probability(threshold, number, rows)
                yield vain, number * rows, (number, rows)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 0.98), st.floats(0.5, 0.99), st.integers(1, 40))
def test_derived_bands_are_the_best_of_all(threshold, recall, values):
    found = sorted(every(threshold, recall, values))
    if not found:
        with pytest.raises(ValueError, match="more values, a higher threshold or a lower recall"):
            bands.derive(threshold, recall, values)
        return
    number, rows = bands.derive(threshold, recall, values)
    assert number * rows <= values and bands.match_probability(threshold, number, rows) >= recall
    assert bands.errors(number, rows, threshold)[1] <= found[0][0] + 1e-7


def test_derived_bands_of_usual_settings():
    assert bands.derive(0.75, 0.95, 256) == (29, 8)
    assert bands.derive(1.0, 0.95, 100) == (1, 64)
    for setting in ((0.8, 0.95, 256), (0.5, 0.9, 128), (0.8, 0.95, 9000)):
        number, rows = bands.derive(*setting)
        assert bands.match_probability(setting[0], number - 1, rows) < setting[1]  # one band less misses too many
    with pytest.raises(ValueError, match="at most 0.8784 of them"):
        bands.derive(0.1, 0.95, 20)
