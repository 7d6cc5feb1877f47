"""Figures against a naive reading of their definitions, and the verdicts of the table on constructed texts."""

import inspect
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.schemas.synthesis import GUARD_METRICS
from ropewalk.synth.guards import metrics
from ropewalk.synth.guards.metrics import measure
from ropewalk.synth.guards.table import GUARDS

DRAW = np.random.default_rng(3)
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "or", "is")]


def word():
    return "".join(DRAW.choice(SYLLABLES, int(DRAW.integers(1, 4))))


def sentence(words=12):
    return " ".join(word() for _ in range(words)).capitalize() + "."


def paragraph(sentences=7):
    return " ".join(sentence() for _ in range(sentences))


def fired(text, language="en"):
    figures = measure(text, language)
    return {g.name for g in GUARDS if g.name in figures and g.refuses(figures[g.name], figures["words"], language)}


# -- a second reading of the definitions, by strings and slices ------------------------------------------------------


def naive(text):
    text = text.strip()
    tokens = [(m.start(), m.end()) for m in re.finditer(r"[a-z0-9]+|[\u4e00-\u9fff]", text)]
    words = [text[a:b] for a, b in tokens]
    total = max(len(text), 1)
    out = {"words": len(words)}
    raw = text.encode()
    out["compression_ratio"] = len(raw) / len(zlib.compress(raw, 6)) if raw else 0
    for name, parts in (
        ("line", [line for line in text.split("\n") if line.strip()] or [""]),
        ("paragraph", re.split(r"\n\s*\n", text)),
    ):
        again = [part for i, part in enumerate(parts) if part in parts[:i]]
        out[f"duplicate_{name}_share"] = len(again) / len(parts)
        out[f"duplicate_{name}_char_share"] = sum(map(len, again)) / total
    for n in (2, 3, 4):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        most = max((grams.count(gram) for gram in grams), default=0)
        first = next((i for i, gram in enumerate(grams) if grams.count(gram) == most), 0)
        length = tokens[first + n - 1][1] - tokens[first][0] if grams else 0
        out[f"top_{n}gram_char_share"] = length * most / total
    for n in (5, 10):
        out[f"duplicate_{n}gram_char_share"] = duplicate(words, n) / total
    ends = range(1000, len(words), 1000)
    parts = [words[max(end - 1000, 0) : end] for end in [*ends, len(words)]]
    shares = []
    for part in parts:
        grams = [tuple(part[i : i + 4]) for i in range(len(part) - 3)]
        shares.append(len(set(grams)) / len(grams) if grams else 1)
    out["min_distinct_4"] = min(shares)
    return out


def duplicate(words, n):
    seen, chars, at = [], 0, 0
    while at + n <= len(words):
        gram = words[at : at + n]
        if gram in seen:
            chars += sum(map(len, gram))
            at += n
        else:
            seen.append(gram)
            at += 1
    return chars


pieces = st.sampled_from(["a", "bc", "d e", "a a", "\n", "\n\n", " \n \n", "...", "东", "东西", "bc a", ", ", " "])
texts = st.lists(pieces, max_size=80).map(" ".join) | st.lists(pieces, max_size=80).map("".join)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_figures_against_a_naive_reading(text):
    got = measure(text, "en")
    assert tuple(got) == GUARD_METRICS
    for name, value in naive(text).items():
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_windows_against_a_naive_reading():
    words = [f"w{i % 900}" for i in range(1300)] + [f"v{i % 600}" for i in range(1350)]
    got = measure(" ".join(words), "en")
    expected = naive(" ".join(words))
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    tail = words[-2000:]
    assert got["worst_window_repeat_share"] == pytest.approx(duplicate(tail, 5) / len(" ".join(tail)))


def test_an_empty_text():
    empty = dict.fromkeys(GUARD_METRICS, 0.0) | {"min_distinct_4": 1.0}
    assert measure("", "en") == measure(" \n\n ", "zh") == empty


@pytest.mark.parametrize(
    ("text", "chars"),
    [("abcdef", 0), ("xxxx", 2), ("abc abc", 3), ("你好世界。你好世界！", 4), ("=" * 900, 2), ("a" * 900, 450),
     ("ab " + "-" * 500 + " cd " + "-" * 500, 5)],
)  # fmt: skip
def test_longest_repeat(text, chars):
    assert measure(text, "en")["longest_repeat_chars"] == chars  # a long run of one sign counts as four


@pytest.mark.parametrize(
    ("text", "language", "drift"),
    [
        ("one two three four five " * 5, "en", 0),
        ("one two three four five " * 4 + "один два три четыре пять " * 1, "en", 1),
        ("你好世界吧" * 4 + " the last fifth is English", "zh", 1),
        ("你好世界吧" * 5, "zh", 0),
        ("one 1 2 3 4 two 5 6 7 8 three four five", "en", 0),
        ("café Zürich œuvre ελλάδα naïve", "en", 0),
    ],
)
def test_language_drift(text, language, drift):
    assert measure(text, language)["language_drift"] == drift


# -- the table's verdicts on constructed texts ------------------------------------------------------------------------

CLEAN = "\n\n".join(paragraph() for _ in range(10))
BLOCK = "\n".join(sentence(8) for _ in range(92))
N_GRAMS = {"duplicate_5gram_char_share", "duplicate_10gram_char_share", "min_distinct_4"}
REPEATS = {"longest_repeat_chars", "longest_repeat_share", "worst_window_repeat_share"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CLEAN + "\n\n" + (word() + " ") * 1500, N_GRAMS | REPEATS | {"top_2gram_char_share", "top_4gram_char_share"}),
        (CLEAN + "\n\n" + (sentence() + "\n") * 60, N_GRAMS | REPEATS | {"duplicate_line_share"}),
        (CLEAN + ("\n\n" + paragraph()) * 20, N_GRAMS | REPEATS | {"duplicate_paragraph_share", "compression_ratio"}),
        (f"{CLEAN}\n\n" + "\n".join([BLOCK] * 32), N_GRAMS | REPEATS | {"duplicate_line_share", "compression_ratio"}),
        (CLEAN + "\n\n" + "他走进房间，看见桌上放着一封信。" * 200, N_GRAMS | REPEATS),
    ],
    ids=["token", "line", "paragraph", "92-line block x 32", "zh sentence"],
)
def test_loops_fire(text, expected):
    assert expected <= fired(text)


CHORUS = sentence(6)
POEM = "\n\n".join("\n".join(sentence(7) for _ in range(8)) + "\n" + CHORUS for _ in range(8))
BALLAD = "\n\n".join("\n".join(sentence(6) for _ in range(4)) + f"\n{CHORUS}\n{CHORUS}" for _ in range(8))
TABLE = "| name | value | place |\n|---|---|---|\n" + "".join(
    f"| {word()} {word()} | {DRAW.integers(10_000)} | {word()} |\n" for _ in range(120)
)
CODE = inspect.getsource(json.decoder)
LIST = "\n".join(f"{i}. {sentence(9)}" for i in range(1, 80))
HANZI = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]
ZH = "\n\n".join(
    "".join("".join(DRAW.choice(HANZI, 14)) + ("。" if i % 2 else "，") for i in range(16)) for _ in range(12)
)


@pytest.mark.parametrize(
    ("text", "language"),
    [(CLEAN, "en"), (POEM, "en"), (TABLE, "en"), (LIST, "en"), (ZH, "zh")],
    ids=["prose", "refrain", "table", "numbered list", "zh"],
)
def test_legitimate_texts_do_not(text, language):
    assert fired(text, language) == set()


def test_code_repeats_longer_pieces_than_prose_may():
    assert fired(CODE) == {"longest_repeat_chars"}


def test_a_ballad_whose_refrain_is_a_third_of_it_is_beyond_gopher():
    assert fired(BALLAD) >= {"duplicate_line_share", "duplicate_5gram_char_share", "duplicate_10gram_char_share"}
    assert not fired(BALLAD) & {"longest_repeat_chars", "compression_ratio"}


def test_short_texts_are_exempt():
    assert fired("yes " * 40) == set()
    assert fired("yes " * 60) != set()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(2, 30), st.integers(0, 1000))
def test_a_clean_paragraph_at_the_end_hides_no_loop_in_a_window(sentences, copies, seed):
    """Appending to a text only adds: what stood twice still does, and counts that cover it cannot shrink.

    So the absolute figure never falls, the relative ones times the length never fall, and those of the worst window
    stay as long as the window that was worst stays whole: while windows are aligned to the start.
    """
    draw = np.random.default_rng(seed)
    loop = " ".join(" ".join(draw.choice(SYLLABLES, 9)) + "." for _ in range(sentences))
    text = CLEAN + "\n\n" + "\n\n".join([loop] * copies)
    more = text + "\n\n" + paragraph()
    before, after = measure(text, "en"), measure(more, "en")
    assert after["longest_repeat_chars"] >= before["longest_repeat_chars"]
    for name in GUARD_METRICS:
        if name.endswith("_char_share"):
            assert after[name] * len(more) >= before[name] * len(text) - 1e-6, name
    assert after["words"] > before["words"]
    assert after["min_distinct_4"] <= before["min_distinct_4"] + 0.1  # windows shift by at most one paragraph


@pytest.mark.parametrize(
    "text",
    ["a" * 3_000_000, "a\n" * 1_500_000, " " * 3_000_000, "- " * 1_500_000, "\n \n" * 1_000_000, "哈" * 1_200_000],
    ids=["one word", "lines", "spaces", "signs", "blank lines", "zh"],
)
def test_hostile_megabytes_are_measured_in_pieces(text, monkeypatch):
    sizes = []
    monkeypatch.setattr(metrics, "_longest_repeat", lambda piece: sizes.append(len(piece)) or 0)
    figures = measure(text, "en")
    assert set(figures) == set(GUARD_METRICS) and np.isfinite(list(figures.values())).all()
    assert max(sizes) <= metrics.PIECE_CHARS


def test_pieces_are_put_together_by_their_worst(monkeypatch):
    monkeypatch.setattr(metrics, "PIECE_CHARS", 5000)
    text = (CLEAN[:5000] + ("again and again " * 400))[:10_000]
    whole, parts = measure(text, "en"), [measure(text[:5000], "en"), measure(text[5000:], "en")]
    assert whole["words"] == parts[0]["words"] + parts[1]["words"]
    assert whole["compression_ratio"] == parts[1]["compression_ratio"] > parts[0]["compression_ratio"]
    assert whole["min_distinct_4"] == parts[1]["min_distinct_4"] < parts[0]["min_distinct_4"]


def test_lone_surrogates_are_measured():
    assert measure("a \ud800 b" * 30, "en")["words"] == 31
