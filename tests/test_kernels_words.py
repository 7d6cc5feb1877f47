import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import words


def hashes(*texts: str) -> list[list[int]]:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0] + [len(e) for e in encoded])
    found, borders = words.word_hashes(np.frombuffer(b"".join(encoded) + b"\0", np.uint8), offsets)
    return [found[a:b].tolist() for a, b in zip(borders[:-1], borders[1:], strict=True)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t-_.!", []),
        ("Don't panic", ["don", "t", "panic"]),
        ("snake_case v2.0 1,000", ["snake", "case", "v2", "0", "1", "000"]),
        ("ÉCOLE Straße ΑΣ", ["école", "straße", "ασ"]),
        ("cafe\u0301", ["cafe\u0301"]),  # a combining mark belongs to its word
        ("İ", ["İ"]),  # its lower case is two codepoints
        ("東京 tower", ["東", "京", "tower"]),
        ("x東y", ["x", "東", "y"]),
        ("ひらカナ", ["ひ", "ら", "カ", "ナ"]),
        ("한국어 문서", ["한국어", "문서"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("ខ្មែរ", list("ខ្មែរ")),
        ("𠀀𰀀", ["𠀀", "𰀀"]),
        ("a🙂b", ["a", "b"]),
        ("\U000e0100x", ["x"]),
    ],
)
def test_token_rule(text, tokens):
    assert words.words_reference(text) == tokens
    assert hashes(text) == [[words.hash_reference(t) for t in tokens]]


def test_hash_values_are_fixed():
    # Worked out by hand from the formula of the module: changing them changes every sketch ever written.
    mask = (1 << 64) - 1
    h = (0xCBF29CE484222325 ^ (0x6162 | 2 << 56)) * 0xBF58476D1CE4E5B9 & mask
    h ^= h >> 32
    h = h * 0x94D049BB133111EB & mask
    assert hashes("ab") == [[h ^ h >> 29]]


@settings(max_examples=300)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_kernel_hashes_the_reference_tokens(texts):
    assert hashes(*texts) == [[words.hash_reference(t) for t in words.words_reference(text)] for text in texts]


def test_every_codepoint_alone_and_inside_a_word():
    codepoints = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    for text in ("".join(f"{chr(c)} " for c in codepoints), "".join(f"a{chr(c)}b" for c in codepoints[::3])):
        assert hashes(text) == [[words.hash_reference(t) for t in words.words_reference(text)]]


@pytest.mark.parametrize("length", range(1, 26))
def test_token_lengths_around_the_block_size(length):
    same = [words.hash_reference(token) for token in ("x" * length, "x" * length + "y")]
    assert hashes("x" * length + " " + "x" * length + "y") == [same]


@given(st.text(st.sampled_from("ab東é .")), st.integers(1, 3))
def test_scanning_in_pieces_gives_the_same_tokens(text, room):
    data = np.frombuffer(text.encode() + b"\0", np.uint8)
    at, pieces, stop = 0, [], len(data) - 1
    while at < stop:
        out = np.empty(room, np.uint64)
        found, at = words.scan_words(data, at, stop, words.table(), out)
        pieces += out[:found].tolist()
    assert [pieces] == hashes(text)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_utf8_do_no_harm(data):
    padded = np.frombuffer(data + b"\xf0\x9f\x99\x82", np.uint8)  # a character cut by the end must not be read past it
    for stop in range(len(data), len(padded)):
        out = np.empty(stop + 1, np.uint64)
        found, at = words.scan_words(padded, 0, stop, words.table(), out)
        assert found <= (stop + 1) // 2 and at <= stop


def test_table_is_small_and_agrees_with_the_rule():
    table = words.table()
    assert table.nbytes <= 1 << 19
    for codepoint in range(0, words.TABLE_SIZE, 7):
        lower, alone = words.kind(codepoint)
        assert table[codepoint] == (lower | (int(words.UNSPACED) if lower and alone else 0))
