import sys

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels.word_spans import word_spans, word_spans_reference
from ropewalk.kernels.words import words_reference


def spans(text):
    starts, stops, hashes = word_spans(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.int32))
    return list(zip(starts.tolist(), stops.tolist(), strict=True)), hashes.tolist()


def test_by_hand():
    assert spans("Don't panic: 東京 2024")[0] == [(0, 3), (4, 5), (6, 11), (13, 14), (14, 15), (16, 20)]
    assert spans("")[0] == []


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters() | st.sampled_from("aB9 東の\u0301\U00020000\ud800"), max_size=40))
def test_spans_are_the_reference_and_the_words_those_of_the_byte_kernel(text):
    found, hashes = spans(text)
    assert found == word_spans_reference(text)
    clean = text.encode(
        "utf-8", "replace"
    ).decode()  # the byte kernel's words know no surrogates; both take them for gaps
    words = words_reference(clean)
    assert len(words) == len(found)
    # Equal words have equal hashes, different ones different: the hash is a name for the lower-cased word.
    assert len(set(words)) == len(set(hashes)) == len(set(zip(words, hashes, strict=True)))


def test_every_codepoint():
    text = " ".join(chr(code) for code in range(0x20, sys.maxunicode + 1, 3) if not 0xD800 <= code < 0xE000)
    assert spans(text)[0] == word_spans_reference(text)
