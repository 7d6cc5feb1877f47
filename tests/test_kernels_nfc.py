import re
import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.kernels import nfc
from ropewalk.transforms import utf8

MARKS = st.sampled_from("\u0301\u0316\u0327\u3099\u0f71\u05b0\u093c\u0345")
ANY = st.characters(exclude_categories=["Cs"])
TEXT = st.lists(st.one_of(MARKS, ANY, st.sampled_from(["eeeeeeee", "é", "\u1112\u1161\u11ab", "한"])), max_size=12).map(
    "".join
)


def answers(texts):
    data, offsets = utf8.buffers(pa.array(texts, pa.large_string()))
    found = np.empty(len(texts), np.uint8)
    nfc.check(data, offsets, np.arange(len(offsets) - 1), nfc.table(), found)
    return found.tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=5))
@example(["a\u0316\u0301", "a\u0301\u0316", "x" * 9 + "\u0301", "a\u0316\u0316", "\u212b"])
def test_kernel_is_the_reference_and_never_overlooks_one(texts):
    found = answers(texts)
    assert found == [nfc.check_reference(text) for text in texts]
    assert all(unicodedata.is_normalized("NFC", text) for text, answer in zip(texts, found, strict=True) if answer == 0)


def test_every_codepoint_behind_a_letter():
    texts = [f"a{chr(c)}" for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    found = np.array(answers(texts))
    composed = np.array([unicodedata.is_normalized("NFC", text) for text in texts])
    assert not (~composed & (found == 0)).any()
    assert (composed & (found != 0)).sum() < 200  # and it is seldom asked for nothing


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5), st.data())
def test_composed_texts(texts, data):
    array = pa.array(["before", *texts], pa.large_string()).slice(1)
    found = utf8.composed(array)
    assert found.to_pylist() == [unicodedata.normalize("NFC", text) for text in texts]
    if not any(answers(texts)):
        assert found is array


def test_long_texts_are_composed_in_pieces(monkeypatch):
    text = ("e\u0301\u0301 \u1112\u1161\u11ab東か\u3099" * 40 + "x\u0323\u0307") * 7
    for size in (1, 2, 5, 100):
        monkeypatch.setattr(nfc, "_PIECES", re.compile(nfc._PIECES.pattern.replace(b"%d" % nfc.PIECE, b"%d" % size)))
        assert len(nfc._PIECES.findall(text.encode())) > 1
        out = bytearray()
        nfc.composed(text.encode(), out)
        assert out.decode() == unicodedata.normalize("NFC", text)


def test_a_run_of_marks_that_is_no_text_is_left_alone():
    for count, changed in ((nfc.MOST_MARKS, True), (nfc.MOST_MARKS + 2, False), (2_000_000, False)):
        texts = ["a" + "\u0301\u0316" * (count // 2), "e\u0301"]
        first, second = utf8.composed(pa.array(texts, pa.large_string())).to_pylist()
        assert (first != texts[0]) == changed and second == "é"
