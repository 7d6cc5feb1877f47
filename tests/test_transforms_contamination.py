"""Each rule against plain Python on small vocabularies; masks against plain slices of strings."""

import json
import pickle
import tempfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.ngram_matches import matching_grams
from ropewalk.kernels.skip_matches import skip_matches_reference
from ropewalk.kernels.word_borders import word_borders_reference
from ropewalk.kernels.words import words_reference
from ropewalk.schemas.decontaminate import DecontaminateConfig
from ropewalk.transforms import contamination
from ropewalk.transforms.benchmark_index import build_index
from ropewalk.transforms.benchmarks import Source
from ropewalk.transforms.ingest.listing import File
from ropewalk.transforms.masks import Mask

WORDS = st.sampled_from(["a", "b", "c", "A.", "é", "東"])
TEXTS = st.lists(WORDS, max_size=30).map(" ".join)
ITEMS = st.lists(st.tuples(st.lists(WORDS, min_size=8, max_size=16).map(" ".join), TEXTS), min_size=1, max_size=4)


def index_of(folder, items, config):
    path = f"{folder}/items.jsonl"
    with open(path, "w") as sink:
        sink.writelines(json.dumps({"q": q, "a": a}) + "\n" for q, a in items)
    file = File(url=path, path="items.jsonl", format="jsonl", packing=None, size=1, stamp="")
    return build_index(f"{folder}/index", [Source("bench", (file,), ("q",), ("a",), "id")], config)


def find(text, index, config, ignored=()):
    data = np.frombuffer(text.encode() or b" ", np.uint8)
    mask = np.zeros(len(index.grams.grams), bool)
    mask[list(ignored)] = True
    return contamination.find(data[: len(text.encode())], index, mask, config)


def runs(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def expected(text, items, config):
    """Items and the words of the document that a rule finds, written as the papers say it."""
    document, n, found, where = words_reference(text), config.ngram, set(), set()
    own = set(runs(document, n))
    for number, (question, answer) in enumerate(items):
        parts = [words_reference(question), words_reference(answer)]
        if config.parts == "answers":
            tail, head = parts[0][-(n - 1) :], parts[1][: n - 1]
            parts = [parts[1], tail + head]
        for part in parts:
            if config.skips is not None:
                matches = skip_matches_reference(document, part, n, config.skips)
                share = len({j + k for _, j, length in matches for k in range(length)}) / max(len(part), 1)
                places = {i + k for i, _, length in matches for k in range(length)}
            else:
                hits = [gram for gram in runs(part, n) if gram in own]
                share = len(hits) / max(len(runs(part, n)), 1)
                if config.share_of == "words":
                    at = {i + k for i, gram in enumerate(runs(part, n)) if gram in own for k in range(n)}
                    share = len(at) / max(len(part), 1)
                places = {i + k for i, gram in enumerate(runs(document, n)) if gram in hits for k in range(n)}
            if places and share >= config.share:
                found.add(number)
                where |= places
    return found, where


RULES = st.sampled_from(
    [
        {"rule": "gpt3", "ngram": 3},
        {"rule": "palm", "ngram": 2},
        {"rule": "palm", "ngram": 3, "share": 0.4, "share_of": "words"},
        {"rule": "llama2", "ngram": 2, "skips": 1, "share": 0.6, "clean_below": None},
        {"rule": "llama2", "ngram": 3, "skips": 2, "share": 0.3, "clean_below": 0.1},
        {"rule": "datatrove", "ngram": 3},
    ]
)


@settings(deadline=None, max_examples=80)
@given(ITEMS, TEXTS, RULES)
def test_rules_say_what_their_papers_say(items, text, rule):
    config = DecontaminateConfig(benchmarks=[{"path": "x"}], **rule)
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(folder, [*items, ("long enough to be found " * 3, "and this as well " * 5)], config)
        finding = find(text, index, config)
        assert [index.item_names[i].as_py() for i in finding.items] == [str(i) for i in finding.items]
    wanted, where = expected(text, items, config)
    assert set(finding.items.tolist()) == wanted and finding.complete
    borders = word_borders_reference(text)
    told = {i for start, stop, _ in finding.spans for i, (a, b) in enumerate(borders) if start <= a and b <= stop}
    assert told == where
    # Spans begin and end with words, and name items that are contaminated.
    assert {start for start, _, _ in finding.spans} <= {a for a, _ in borders}
    assert {stop for _, stop, _ in finding.spans} <= {b for _, b in borders}
    assert {item for _, _, item in finding.spans} <= wanted and not set(finding.touched.tolist()) & wanted


def test_hashes_are_not_believed(tmp_path):
    config = DecontaminateConfig(benchmarks=[{"path": "x"}], rule="gpt3", ngram=3)
    index = index_of(tmp_path, [("one two three four", "five six seven")], config)
    assert len(find("one two three", index, config).items) == 1
    # The same index with other texts behind the hashes: what a collision would look like.
    texts = pa.array(["eno two three four", "five six seven"], pa.large_string())
    index.__dict__["texts"] = (np.frombuffer(texts.buffers()[2], np.uint8), np.frombuffer(texts.buffers()[1], np.int64))
    assert len(find("one two three", index, config).items) == 0
    assert len(find("two three four", index, config).items) == 1


def test_an_index_travels_as_its_address(tmp_path):
    config = DecontaminateConfig(benchmarks=[{"path": "x"}], rule="gpt3", ngram=3)
    index = index_of(tmp_path, [("one two three four", "five six seven")] * 100, config)
    assert len(find("one two three", index, config).items) == 100  # its arrays are mapped now
    sent = pickle.dumps(index)
    assert len(sent) < 300 and len(find("one two three", pickle.loads(sent), config).items) == 100


def test_a_common_beginning_hides_no_match_with_skips(tmp_path):
    common = "read the following passage very carefully and then answer this question"
    item = f"{common} {' '.join(f'w{i}' for i in range(60))}"
    config = DecontaminateConfig(benchmarks=[{"path": "x"}], rule="llama2", max_documents=1)
    index = index_of(tmp_path, [(item, "b")], config)
    data = np.frombuffer(common.encode(), np.uint8)
    ignored = matching_grams(data, 0, len(data), index.grams, np.unique(index.ngrams)).tolist()
    assert len(ignored) == 2
    finding = find(f"foo bar {item} end", index, config, ignored)
    assert finding.items.tolist() == [0] and len(finding.spans) == 1
    start, stop, _ = finding.spans[0]
    assert f"foo bar {item} end"[start:stop] == item.split(" ", 2)[2]


@settings(deadline=None, max_examples=40)
@given(ITEMS, TEXTS, RULES)
def test_matches_in_pieces_are_those_of_the_whole(items, text, rule):
    config = DecontaminateConfig(benchmarks=[{"path": "x"}], **rule)
    text = text * 3 + " ab c" + text
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        index = index_of(folder, [*items, ("long enough to be found " * 3, "and this as well " * 5)], config)
        whole = find(text, index, config)
        matches = contamination.ngram_matches

        def few(*args):
            for words, borders, grams in matches(*args):
                for at in range(0, len(grams), 3):
                    yield words[at : at + 3], borders[at : at + 3], grams[at : at + 3]

        patch.setattr(contamination, "ngram_matches", few)
        parts = find(text, index, config)
    assert (parts.spans, parts.items.tolist(), parts.touched.tolist(), parts.complete) == (
        whole.spans, whole.items.tolist(), whole.touched.tolist(), whole.complete,
    )  # fmt: skip


def test_a_document_of_matches_takes_little_memory(tmp_path):
    config = DecontaminateConfig(benchmarks=[{"path": "x"}])
    index = index_of(tmp_path, [("sort the list " + "0, " * 30, "b")], config)
    text = "0 " * (4 << 20)
    find(text[:1000], index, config)  # compiles
    tracemalloc.start()
    try:
        finding = find(text, index, config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert finding.spans == [(0, len(text) - 1, 0)]
    assert peak < 16 * len(text)  # four million matches in one piece take ten times as much


def test_repetition_without_end_is_told(tmp_path, monkeypatch):
    config = DecontaminateConfig(benchmarks=[{"path": "x"}], rule="llama2", share=0.1, clean_below=None)
    index = index_of(tmp_path, [("a " * 500, "b")], config)
    monkeypatch.setattr(contamination, "MAX_SEEDS", 5000)
    finding = find("a " * 2000, index, config)
    assert not finding.complete and len(finding.items) == 1
    monkeypatch.setattr(contamination, "MAX_SEEDS", 1 << 22)
    assert find("a " * 2000, index, config).complete


@settings(deadline=None, max_examples=300)
@given(
    st.text(st.sampled_from("ab é東😀"), max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=4),
    st.integers(0, 6), st.integers(0, 8), st.one_of(st.none(), st.integers(1, 3)),
)  # fmt: skip
def test_masks_are_cut_in_characters(text, matches, window, min_piece, max_pieces):
    matches = [(a, min(a + length, len(text))) for a, length in matches if a < len(text)]
    keep = np.ones(len(text), bool)
    for start, stop in matches:
        first, last = max(start - window, 0), min(stop + window, len(text))
        while joins(text[:first], text[first:]):
            first -= 1
        while joins(text[:last], text[last:]):
            last += 1
        keep[first:last] = False
    pieces = [
        piece for piece in "".join(c if k else "\n" for c, k in zip(text, keep, strict=True)).split("\n") if piece
    ]
    stay = [piece for piece in pieces if len(piece) >= min_piece]
    octets = [(len(text[:a].encode()), len(text[:b].encode())) for a, b in matches]
    data = text.encode()
    cuts = Mask(window, min_piece, max_pieces).cut(np.frombuffer(data, np.uint8), octets)
    if not stay or (max_pieces is not None and len(pieces) > max_pieces):
        assert cuts is None
        return
    assert cuts is not None and all(a < b < c for (a, b), (c, _) in zip(cuts[:-1], cuts[1:], strict=True))
    borders = [0, *(border for cut in cuts for border in cut), len(data)]
    left = [data[a:b].decode() for a, b in zip(borders[::2], borders[1::2], strict=True)]
    # What stays between two words that would be one, a character, is part of the piece on one of its sides.
    assert [piece for piece in left if piece] == stay or len("".join(left)) > len("".join(stay))
    rest = "".join(left)
    for piece in stay:
        assert piece in rest
        rest = rest[rest.index(piece) + len(piece) :]
    assert len("".join(left)) - len("".join(stay)) <= len(cuts) + 1
    assert words_reference("".join(left)) == [word for piece in left for word in words_reference(piece)]


def joins(before, behind):
    return bool(before and behind and before[-1] in "abé" and behind[0] in "abé")


@pytest.mark.parametrize(
    ("text", "match", "left"),
    [
        ("one two three four MATCH five six seven", "MATCH", "one two three  six seven"),
        ("one two three a MATCH b six seven", "MATCH", "one two three six seven"),
        ("一二三四五MATCH六七八九十", "MATCH", "一二九十"),
        ("x" * 300 + " MATCH " + "y" * 300, "MATCH", "x" * 298 + "y" * 298),  # no word to end with
    ],
)
def test_masks_leave_whole_words(text, match, left):
    start = len(text[: text.index(match)].encode())
    data = text.encode()
    cuts = Mask(window=3).cut(np.frombuffer(data, np.uint8), [(start, start + len(match.encode()))])
    assert [(data[:a] + data[b:]).decode() for a, b in cuts] == [left]
