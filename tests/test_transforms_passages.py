import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.longest_repeat import lcp_array
from ropewalk.kernels.suffix_array import suffix_array
from ropewalk.schemas import tables
from ropewalk.transforms import passages, passages_substrings, utf8
from ropewalk.transforms.corpus_dir import CorpusDir

SPANS = pa.list_(tables.SPAN)


class Texts:
    """A `Gather` of one batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def parts(self, addresses):
        yield self.batch, addresses.astype(np.int64), np.arange(len(addresses))


def batch(texts: list[str], *, order: list[int] | None = None) -> pa.RecordBatch:
    """Documents in the order of their ids, unless another is given."""
    order = list(range(len(texts))) if order is None else order
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.arange(len(texts), dtype=np.uint64)),
            pa.array([f"{place:08x}" + "0" * 24 for place in order], pa.string()),
            pa.array(texts, pa.large_string()),
            pa.array([True] * len(texts), pa.bool_()),
        ],
        names=["address", "id", "text", "alive"],
    )


def find(documents: pa.RecordBatch, n: int) -> tuple[list[list[tuple[int, int]]], dict[str, int]]:
    """Cuts of each document, before snapping, without Beam; and what was counted."""
    anchors, _ = passages_substrings.FindAnchors(n)(documents)
    judge = passages_substrings.JudgeAnchors(CorpusDir(""), n)
    judge._texts = Texts(documents.select(["text"]))
    windows, counters = judge(anchors)
    row, start, stop, keep = (column.to_numpy(zero_copy_only=False) for column in windows.columns)
    live = passages.LivePieces.of(documents, [])
    judged = row.astype(np.int64), start.astype(np.int64), stop.astype(np.int64), keep
    text, begin, end = passages_substrings.repeated_spans(live, judged, n)
    spans: list[list[tuple[int, int]]] = [[] for _ in range(documents.num_rows)]
    for i, a, b in zip(text.tolist(), begin.tolist(), end.tolist(), strict=True):
        spans[i].append((a - int(live.offsets[i]), b - int(live.offsets[i])))
    return spans, counters | {"anchors": anchors.num_rows}


def marked(texts: list[bytes], n: int, firsts: list[tuple[int, int]], repeats: list[tuple[int, int]]):
    """Spans of bytes in windows that are repeats, without those in firsts, n bytes long at least."""
    marks = [bytearray(len(text)) for text in texts]
    for i, s in repeats:
        marks[i][s : s + n] = b"\1" * n
    for i, s in firsts:
        marks[i][s : s + n] = b"\0" * n
    found = []
    for mark in marks:
        runs = [list(run) for cut, run in itertools.groupby(range(len(mark)), key=mark.__getitem__) if cut]
        found.append([(run[0], run[-1] + 1) for run in runs if len(run) >= n])
    return found


def by_dictionary(texts: list[bytes], n: int, order: list[int] | None = None) -> list[list[tuple[int, int]]]:
    places: dict[bytes, list[tuple[int, int]]] = {}
    for i in sorted(range(len(texts)), key=lambda i: (order[i] if order else 0, i)):
        for s in range(len(texts[i]) - n + 1):
            places.setdefault(texts[i][s : s + n], []).append((i, s))
    several = [found for found in places.values() if len(found) > 1]
    return marked(texts, n, [f[0] for f in several], [place for f in several for place in f[1:]])


def by_suffix_array(texts: list[bytes], n: int) -> list[list[tuple[int, int]]]:
    """From the suffix array of all texts, each ended by a symbol of its own: equal windows are neighbours in it."""
    symbols, owner, place = [], [], []
    for i, text in enumerate(texts):
        symbols += [byte + len(texts) for byte in text] + [i]
        owner += [i] * (len(text) + 1)
        place += range(len(text) + 1)
    text = np.array(symbols, np.int32)
    sa = suffix_array(text, 256 + len(texts))
    breaks = np.flatnonzero(lcp_array(text, sa) < n)
    firsts, repeats = [], []
    for a, b in itertools.pairwise([*breaks.tolist(), len(sa)]):
        if b - a > 1:
            group = [(owner[k], place[k]) for k in sorted(sa[a:b].tolist())]
            firsts.append(group[0])
            repeats += group[1:]
    return marked(texts, n, firsts, repeats)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "ab", "aab", "xyzzy", "abcdefgh", "q" * 9]), max_size=25), max_size=5),
    st.integers(8, 24), st.randoms(use_true_random=False),
)  # fmt: skip
def test_substrings_are_those_of_a_dictionary(parts, n, shuffle):
    texts = ["".join(part) for part in parts]
    order = list(range(len(texts)))
    shuffle.shuffle(order)
    documents = batch(texts, order=order)
    found, _ = find(documents, n)
    raw = [text.encode() for text in texts]
    assert found == by_dictionary(raw, n, order)
    # Every byte that is cut stands in a window that stands whole elsewhere in what is left.
    left = []
    for text, spans in zip(raw, found, strict=True):
        borders = [0, *(end for span in spans for end in span), len(text)]
        left += [text[a:b] for a, b in zip(borders[::2], borders[1::2], strict=True)]
    for text, spans in zip(raw, found, strict=True):
        for start, stop in spans:
            for at in range(start, stop):
                around = range(max(0, at - n + 1), min(at, len(text) - n) + 1)
                assert any(text[s : s + n] in piece for s in around for piece in left)


def prose(size: int, seed: int) -> list[str]:
    """Texts that quote each other, at all lengths."""
    source = random.Random(seed)
    vocabulary = ["".join(source.choices("etaoinshrdlu", k=source.randint(1, 9))) for _ in range(3000)]
    texts: list[str] = []
    while sum(map(len, texts)) < size:
        text = ""
        while len(text) < source.randint(0, 4000):
            if texts and source.random() < 0.3:
                quoted = source.choice(texts)
                at = source.randint(0, len(quoted))
                text += quoted[at : at + int(source.expovariate(1 / source.choice([50, 200, 2000])))]
            text += " ".join(source.choices(vocabulary, k=source.randint(1, 60))) + source.choice([" ", "\n", "。"])
        texts.append(text)
    return texts


@pytest.mark.parametrize("n", [8, 40, 101, 1000])
def test_substrings_are_those_of_a_suffix_array(n):
    texts = prose(250_000, n)
    found, counters = find(batch(texts), n)
    assert found == by_suffix_array([text.encode() for text in texts], n)
    assert sum(map(len, found)) > (3 if n == 1000 else 100)
    if n == 40:
        assert counters["compared-anchors"] < counters["repeated-anchors"] < counters["anchors"] / 2


@pytest.mark.parametrize("period", [1, 2, 3, 16, 17, 60, 300])
def test_a_megabyte_of_the_same_keeps_one_copy(period):
    letters = "".join(chr(97 + i % 26) + str(i) for i in range(period))[:period]
    text = (letters * (1_000_000 // period + 1))[:1_000_000]
    found, counters = find(batch([text, "other", text[5:]], order=[1, 0, 2]), 100)
    kept = 100 + period - 1  # each window that there is, once
    assert found == [[(kept, len(text))], [], [(0, len(text) - 5)]]
    assert counters["anchors"] < 0.13 * 2_000_000


def test_a_licence_in_every_document():
    licence = prose(3_000, 7)[0][:2_000]
    texts = [f"{i} wrote this {licence} in {i}" for i in range(10_000)]
    raw = [text.encode() for text in texts]
    found, _ = find(batch(texts[:150]), 100)
    assert found == by_dictionary(raw[:150], 100)
    found, counters = find(batch(texts), 100)
    assert counters["most_copies-anchors"] >= 10_000 and counters["repeated-anchors"] > 300_000
    # All of it but for the first; around it only what had stood beside the same digits before.
    assert not any(b > raw[0].index(b" in ") for _, b in found[0])
    assert all(
        b"".join(raw[i][a:b] for a, b in found[i]).count(licence.encode()[100:-100]) == 1 for i in range(1, 10_000)
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_and_threads_change_no_anchor(threads):
    documents = batch([*prose(20_000, 5), "", "short", "z" * 5000])
    whole, _ = passages_substrings.FindAnchors(30)(documents)
    cuts = [documents.slice(0, 3), documents.slice(3, 1), documents.slice(4)]
    function = passages_substrings.FindAnchors(30, threads=threads)
    assert pa.concat_batches([function(part)[0] for part in cuts]).equals(whole)
    for kind in ("line", "paragraph"):
        whole, _ = passages.HashUnits(kind, 5)(documents)
        parts = [passages.HashUnits(kind, 5, threads=threads)(part)[0] for part in cuts]
        assert pa.concat_batches(parts).equals(whole)


def test_pieces_leave_out_the_dead_and_what_was_cut():
    documents = batch(["abcdef", "dead", "", "ghi"]).set_column(3, "alive", pa.array([True, False, True, True]))
    spans = pa.array([[{"start": 1, "stop": 3}, {"start": 5, "stop": 6}], [], [], [{"start": 0, "stop": 3}]], SPANS)
    live = passages.LivePieces.of(documents.append_column("x", spans), ["x"])
    texts = [bytes(live.data[a:b]) for a, b in zip(live.begin, live.end, strict=True)]
    assert texts == [b"a", b"de"] and live.borders.tolist() == [0, 2, 2, 2]
    assert live.address.tolist() == [0, 2, 3] and live.texts(np.array([0, 1])).tolist() == [0, 0]
    nothing = passages.LivePieces.of(documents.slice(1, 1).append_column("x", spans.slice(1, 1)), ["x"])
    assert len(nothing.begin) == 0 and utf8.buffers(documents.column("text").slice(1, 0))[1].tolist() == [0]
