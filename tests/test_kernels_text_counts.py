"""The counts behind the quality rules, against plain Python written from the definitions."""

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.kernels import read_bytes, repeated_grams, text_classes, text_counts
from ropewalk.kernels.token_counts import tokens_reference
from ropewalk.schemas import testing
from ropewalk.transforms import utf8

PIECES = (
    "the", "and", "cat", "Of", "don't", "l’eau", "3.14", "x_y", " ", " ", " ", ". ", "...", "…", "\n", "\n\n", "\n ",
    "\r\n", "\u00a0", "\u2028", "\u3000", "- ", "• ", "#", "##", "[12]", "[edit]", "[citation needed]", "[x]", "{", "]",
    "lorem ipsum", "Lorem IPSUM", "JavaScript", "use cookies", "uses Cookies", "use of cookies", "Cookie policy",
    "privacy policy", "terms of Use", "word word word ", "!", '?"', "'", ")", "東京", "。", "ไทย", "नमस्ते", "العربية",
    "می‌خواهم", "😀", "👨‍👩‍👧", "\x00", "e\u0301", "x" * 31, "y" * 1001, "\U00020000", "\U000e0100", "\U0010ffff",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join)


def counted(found: list[str], **pieces: int) -> list[dict[str, int]]:
    data, offsets = utf8.buffers(testing.of_texts(found).column("text"))
    counts = np.zeros((len(found), len(text_counts.FIELDS)), np.int64)
    text_counts.count_texts(data, offsets, 0, len(found), frozenset(text_counts.GROUPS), counts, **pieces)
    return [dict(zip(text_counts.FIELDS, row.tolist(), strict=True)) for row in counts]


@settings(max_examples=400, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_counts_are_those_of_the_definitions(found):
    assert counted(found) == [text_counts.counts_reference(text) for text in found]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("a b c. -".split()), max_size=200).map(" ".join))
def test_much_repetition(text):
    assert counted([text])[0] == text_counts.counts_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "\n",
        "\x00",
        " ",
        "😀",
        "東",
        ".",
        "#",
        "\n\n\n",
        "a\n",
        "\na",
        "\u2029",
        "א",
        "\r",
        "-",
        "…",
        "a" * 70_000,
    ],
    ids=lambda text: ascii(text[:9]),
)
def test_tiny_and_odd_texts(text):
    assert counted([text, "between", text]) == [text_counts.counts_reference(t) for t in (text, "between", text)]


def test_real_text():
    source = open(re.__file__, encoding="utf-8").read()
    own = open(__file__, encoding="utf-8").read()
    assert counted([source, own, source + own]) == [
        text_counts.counts_reference(t) for t in (source, own, source + own)
    ]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't panic... 3.14 東京!", ["Don't", "panic", "...", "3.14", "東", "京", "!"]),
        ("well-known U.S. e.g. «oui»", ["well", "-", "known", "U.S", ".", "e.g", ".", "«", "oui", "»"]),
        ("می‌خواهم 👍👍👎", ["می‌خواهم", "👍👍", "👎"]),
        ("a..b 'tis", ["a", "..", "b", "'", "tis"]),
    ],
)
def test_tokens_by_hand(text, tokens):
    assert tokens_reference(text) == tokens


def test_counts_by_hand():
    text = "- One two. \n\n• three…\nthree…\n\n- One two.\n"
    found = counted([text])[0]
    assert [found[name] for name in ("lines", "filled_lines", "bullet_lines", "ellipsis_lines", "ended_lines")] == [
        6, 4, 3, 2, 2,
    ]  # fmt: skip
    assert (found["repeated_lines"], found["repeated_line_chars"]) == (1, 10)  # `three…` is not `• three…`
    assert (found["paragraphs"], found["repeated_paragraphs"], found["repeated_paragraph_chars"]) == (3, 1, 10)


@pytest.mark.parametrize(
    ("line", "kept", "sentences"),
    [
        ("One two three.", 1, 1),
        ("One two.", 0, 0),
        ("One two three", 0, 0),
        ("One two three...", 0, 0),
        ("One two three.[12]", 1, 1),
        ("One two three. [12]", 0, 0),  # as in C4's code: the space before the citation stays
        ("One two three..[1].", 0, 0),
        ("One two. Three!", 1, 2),
        ("He said 'no.' Then he left.", 1, 2),
        ("Version 3.14 is out now.", 1, 1),
        ("One two three javascript.", 0, 0),
        ("We use cookies here.", 0, 0),
        ("We like cookies here.", 1, 1),
        ("One two " + "x" * 1001 + ".", 0, 0),
        ("One two " + "x" * 999 + ".", 1, 1),
    ],
)
def test_lines_of_c4_by_hand(line, kept, sentences):
    found = counted([line])[0]
    assert (found["kept_lines"], found["sentences"]) == (kept, sentences)


def test_pieces_of_long_texts_add_up():
    # Tokens and lines fill the pieces exactly, so the counts of the whole are the sums over the pieces.
    draw = random.Random(1)
    lines = [" ".join(draw.choice("abc") for _ in range(10)) for _ in range(40)]
    whole = counted(["\n".join(lines)], piece_tokens=100)[0]
    parts = counted(["\n".join(lines[i : i + 10]) for i in range(0, 40, 10)])
    for name in (*text_counts.GRAM_FIELDS, "tokens", "words", "alpha_tokens"):
        assert whole[name] == sum(part[name] for part in parts), name
    distinct = [f"line {i}" for i in range(8)]
    assert counted(["\n".join([*distinct, *distinct])], piece_lines=8)[0]["repeated_lines"] == 8
    # The ninth different line empties the table, so the first eight are new once more; it is itself still known.
    again = counted(["\n".join([*distinct, "ninth", "ninth", *distinct])], piece_lines=8)[0]
    assert again["repeated_lines"] == 1


def test_a_long_line():
    text = "word " * 1_000_000
    found = counted([text])[0]
    assert (found["tokens"], found["chars"], found["filled_lines"]) == (1_000_000, 5_000_000, 1)
    # Noted at the first word; from the second on, every ten words are an n-gram that occurred before.
    assert found["repeated_10gram_chars"] == (1_000_000 - 1) // 10 * 10 * 4


def test_classes():
    table = text_classes.classes()
    assert table.tolist() == [text_classes.classify_reference(code) for code in range(len(table))]
    data = np.array([0xFFFF, 0x10000, 0x10FFFF, 0x20000, 0x3FFFF, 0x40000])
    found = [int(text_classes.class_of(int(code), table)) for code in data]
    assert found == [text_classes.classify_reference(int(code)) for code in data]


@settings(deadline=None)
@given(st.binary(min_size=8, max_size=40), st.data())
def test_eight_bytes(data, draw):
    at = draw.draw(st.integers(0, len(data) - 8))
    assert int(read_bytes.eight_at(np.frombuffer(data, np.uint8), at)) == read_bytes.eight_at_reference(data, at)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_top_is_the_first_of_equals(n):
    tokens = "aa bb cc dd xx a b c d".split()
    assert repeated_grams.top_reference(tokens, n) == len(" ".join(tokens[:n]))
    assert counted([" ".join(tokens)])[0][f"top_{n}gram_chars"] == len(" ".join(tokens[:n]))
