import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import passage_units, spans, window_verdicts, words
from ropewalk.kernels.periodic_windows import periodic_windows, periodic_windows_reference
from ropewalk.kernels.winnow import winnow, winnow_reference

FEW = st.binary(max_size=60).map(lambda raw: bytes(97 + byte % 2 for byte in raw))
"""Bytes of an alphabet of two: everything repeats."""
NONE = np.empty(0, np.int64)


def joined(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes of all parts with a gap between them, and where each begins and ends."""
    data, begin, end = b"", [], []
    for part in parts:
        begin.append(len(data))
        data += part
        end.append(len(data))
        data += b"#"
    return np.frombuffer(data or b"#", np.uint8), np.array(begin, np.int64), np.array(end, np.int64)


@pytest.mark.parametrize("kind", [passage_units.LINE, passage_units.PARAGRAPH])
@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.text(st.sampled_from("aB .\n\n\t\ré東"), max_size=30), max_size=3),
    least=st.integers(1, 5),
)
def test_units_are_those_of_python(kind, parts, least):
    data, begin, end = joined([part.encode() for part in parts])
    expected = []
    for i, part in enumerate(parts):
        for start, stop, after in passage_units.units_reference(part.encode(), kind):
            text = part.encode()[start:stop].decode()
            if stop - start >= least and words.words_reference(text):
                expected.append((i, begin[i] + start, begin[i] + after, tuple(words.words_reference(text))))
    room = passage_units.count_lines(data, begin, end)
    piece, starts, stops = (np.empty(room, np.int64) for _ in range(3))
    hashes = np.empty((room, 2), np.uint64)
    count = passage_units.passage_units(
        data, begin, end, kind, least, words.table(), piece, starts, stops, hashes
    )  # fmt: skip
    found = list(zip(piece[:count].tolist(), starts[:count].tolist(), stops[:count].tolist(), strict=True))
    assert found == [row[:3] for row in expected]
    by_words: dict[tuple[str, ...], set[tuple[int, int]]] = {}
    for row, pair in zip(expected, hashes[:count].tolist(), strict=True):
        by_words.setdefault(row[3], set()).add(tuple(pair))
    assert all(len(pairs) == 1 for pairs in by_words.values())
    for half in (0, 1):  # each half alone tells different words apart
        assert len({next(iter(pairs))[half] for pairs in by_words.values()}) == len(by_words)


def test_a_unit_longer_than_a_block_of_words():
    text = " ".join(f"w{i}" for i in range(3 * passage_units.BLOCK + 5))
    parts = [text, text.replace(" ", "\n").upper(), text.replace("w7 ", "w8 ")]
    data, begin, end = joined([part.encode() for part in parts])
    out = [np.empty(20_000, np.int64) for _ in range(3)]
    hashes = np.empty((20_000, 2), np.uint64)
    kind = passage_units.PARAGRAPH
    assert passage_units.passage_units(data, begin, end, kind, 1, words.table(), *out, hashes) == 3
    assert (hashes[0] == hashes[1]).all() and (hashes[0] != hashes[2]).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(FEW, max_size=3), st.integers(2, 12))
def test_periodic_windows(parts, n):
    data, begin, end = joined(parts)
    expected = {
        (begin[i] + first, begin[i] + last, period)
        for i, part in enumerate(parts)
        for first, last, period in periodic_windows_reference(part, n)
    }
    found = [tuple(row) for row in periodic_windows(data, begin, end, n).tolist()]
    assert set(found) == expected and len(found) == len(expected)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=80).map(lambda raw: bytes(97 + b % 3 for b in raw)), max_size=3),
    st.integers(1, 10), st.integers(0, 10),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9)), max_size=3),
)  # fmt: skip
def test_winnow(parts, k, more, skipped):
    n = k + more
    data, begin, end = joined(parts)
    skip = spans.union(np.array([a for a, _ in skipped], np.int64), np.array([a + b + 1 for a, b in skipped], np.int64))
    found, hashes = winnow(data, begin, end, n, k, skip[0], skip[1] - 1)
    assert (found[:, 2] <= found[:, 3]).all()
    gone = {s for a, b in zip(*skip, strict=True) for s in range(a, b)}
    covered = {}
    for piece, anchor, first, last in found.tolist():
        for window in range(first, last + 1):
            assert window not in covered and window not in gone
            covered[window] = (piece, anchor)
    for i, part in enumerate(parts):
        for s, anchor in enumerate(winnow_reference(part, n, k)):
            window = int(begin[i]) + s
            assert window in gone or covered.pop(window) == (i, begin[i] + anchor)
    assert not covered
    grams: dict[bytes, set[int]] = {}
    for row, value in zip(found.tolist(), hashes.tolist(), strict=True):
        grams.setdefault(data[row[1] : row[1] + k].tobytes(), set()).add(value)
    assert all(len(values) == 1 for values in grams.values())
    assert len({next(iter(values)) for values in grams.values()}) == len(grams)


def test_winnow_over_blocks_and_its_density():
    raw = random.Random(3).randbytes(50_000)
    data, begin, end = joined([raw])
    for n, k in ((100, 50), (12_000, 6_000)):  # a window longer than a block as well
        found, _ = winnow(data, begin, end, n, k, NONE, NONE)
        values = winnow_reference(raw[:20_000], n, k) if n == 100 else None
        anchors = np.repeat(found[:, 1], found[:, 3] - found[:, 2] + 1)
        assert len(anchors) == len(raw) - n + 1
        if values:
            assert anchors[: len(values)].tolist() == values
            assert len(found) / len(raw) == pytest.approx(2 / (n - k + 2), rel=0.05)
        assert ((anchors >= np.arange(len(anchors))) & (anchors <= np.arange(len(anchors)) + n - k)).all()


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(0, 6))
def test_window_verdicts(data, k, more):
    n = k + more
    groups = []
    for _ in range(data.draw(st.integers(1, 3))):
        gram = data.draw(st.binary(min_size=k, max_size=k))
        members = []
        for _ in range(data.draw(st.integers(1, 5))):
            # The first window holds the anchor at its end at most, the last one at its start at least.
            anchor = data.draw(st.integers(0, more))
            last = data.draw(st.integers(0, anchor))
            left = data.draw(st.binary(min_size=anchor, max_size=anchor))
            size = last + n - anchor - k
            right = data.draw(st.binary(min_size=size, max_size=size))
            fold = bytes.maketrans(bytes(range(256)), bytes(97 + b % 2 for b in range(256)))
            members.append((left.translate(fold) + gram.translate(fold) + right.translate(fold), anchor, last))
        groups.append(members)
    flat = [member for group in groups for member in group]
    contexts, anchors, lasts = [list(part) for part in zip(*flat, strict=True)]
    offsets = np.cumsum([0, *(len(c) for c in contexts)])
    borders = np.cumsum([0, *(last + 1 for last in lasts)])
    verdicts = np.empty(borders[-1], np.uint8)
    window_verdicts.window_verdicts(
        np.frombuffer(b"".join(contexts), np.uint8), offsets, np.array(anchors), np.array(lasts),
        np.cumsum([0, *(len(group) for group in groups)]), n, k, borders, verdicts,
    )  # fmt: skip
    expected = [
        verdict
        for group in groups
        for row in window_verdicts.window_verdicts_reference(*[list(p) for p in zip(*group, strict=True)], n)
        for verdict in row
    ]
    assert verdicts.tolist() == expected


SPAN_LISTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=8)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in pairs], np.int64), np.array([a + b for a, b in pairs], np.int64)


@settings(max_examples=300, deadline=None)
@given(SPAN_LISTS, SPAN_LISTS)
def test_union_and_difference(a, b):
    def members(starts, stops):
        return {i for x, y in zip(starts.tolist(), stops.tolist(), strict=True) for i in range(x, y)}

    a, b = [(x, y + 1) for x, y in a], [(x, y + 1) for x, y in b]
    joined_a, joined_b = spans.union(*arrays(a)), spans.union(*arrays(b))
    assert members(*joined_a) == members(*arrays(a))
    assert (joined_a[0][1:] > joined_a[1][:-1]).all() and (joined_a[0] < joined_a[1]).all()
    rest = spans.difference(*joined_a, *joined_b)
    assert members(*rest) == members(*joined_a) - members(*joined_b)
    assert (rest[0] < rest[1]).all() and (rest[0][1:] >= rest[1][:-1]).all()


@pytest.mark.parametrize("how", ["character", "word", "line"])
@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.sampled_from("ab1 .\n\né東ก🙂"), max_size=25),
    ends=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_snap(how, text, ends):
    raw = text.encode()
    start, stop = sorted(min(end, len(raw)) for end in ends)
    # The text stands between two others: its neighbours must not count.
    data = np.frombuffer(b"x" + raw + b"y", np.uint8)
    starts, stops, one = np.array([start + 1]), np.array([stop + 1]), np.array([1])
    spans.snap(data, starts, stops, one, one + len(raw), spans.SNAPS[how], words.table())
    found = (int(starts[0]) - 1, int(stops[0]) - 1)
    expected = spans.snap_reference(text, start, stop, how)
    assert found == expected if expected != (0, 0) else found[0] == found[1]
    if how == "word" and found[0] < found[1]:  # words of what is left are words of the text
        left = raw[: found[0]] + raw[found[1] :]
        sides = words.words_reference(raw[: found[0]].decode()) + words.words_reference(raw[found[1] :].decode())
        assert words.words_reference(left.decode()) == sides


@pytest.mark.parametrize(
    ("text", "cut", "left"),
    [
        ("alpha the quick brown fox gamma", " the quick brown fox ", "alpha gamma"),
        ("alpha, the quick brown fox gamma", " the quick brown fox ", "alpha,gamma"),
        ("alpha the quick brown fox, gamma", " the quick brown fox", "alpha, gamma"),
        ("alpha 東京gamma", " 東京", "alpha gamma"),
        ("alpha東京gamma", "東京", "alpha京gamma"),
        ("我東京他", "東京", "我他"),
        ("我 東京 他", " 東京 ", "我他"),
        ("alpha\u3000béta\u3000gamma", "\u3000béta\u3000", "alpha\u3000gamma"),
    ],
)
def test_snap_to_words_joins_none(text, cut, left):
    data = np.frombuffer(text.encode(), np.uint8)
    start = len(text[: text.index(cut)].encode())
    starts, stops, zero = np.array([start]), np.array([start + len(cut.encode())]), np.zeros(1, np.int64)
    spans.snap(data, starts, stops, zero, zero + len(data), spans.SNAPS["word"], words.table())
    assert (data[: starts[0]].tobytes() + data[stops[0] :].tobytes()).decode() == left
