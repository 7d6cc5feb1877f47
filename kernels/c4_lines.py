r"""What C4 would keep of a text: counted, never cut.

A line is kept if, white space around it aside,

    no word of it has more than 1,000 codepoints (words are what white space separates),
    without its citations ([12], [], [edit], [citation needed]) it ends with one of . ? ! " ' and not with ...,
    it has at least 3 words,
    it holds neither `javascript` nor `terms of use`, `privacy policy`, `cookie policy`, `uses cookies`,
    `use of cookies`, `use cookies`; ASCII letters of any case.

Raffel et al., "Exploring the Limits of Transfer Learning" (JMLR 21, 2020), section 2.2, as its code has it
(`c4_utils.py` of TensorFlow Datasets), in that code's order: `lorem ipsum` and curly brackets refuse a document only
where they stand in a line that was not left out before.

A sentence ends at one of . ! ? (or a run of them, quotes and brackets behind it) before white space or the line's end;
what follows the last one is a sentence too. The original asks NLTK's Punkt, which knows abbreviations; here `Mr. Smith
left.` is two.

Shapes: data uint8[bytes]; classes uint8[0x20000]; counts int64[4].
"""

import re

import numpy as np
from numba import njit

from ropewalk.kernels.line_counts import find_newline
from ropewalk.kernels.read_bytes import byte_at
from ropewalk.kernels.text_classes import SPACE, class_of, decode, trim

MAX_WORD = 1000
MIN_WORDS = 3
FIELDS = ("kept_lines", "sentences", "lorem_ipsum", "curly_lines")
"""lines kept; sentences in them; lines with `lorem ipsum`; lines with `{`; the last two are not kept."""
KEPT, SENTENCES, LOREM, CURLY = range(len(FIELDS))

PHRASES = (
    "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip

_CITATION = re.compile(r"\[[0-9]*]|\[edit]|\[citation needed]")
_SENTENCE = re.compile(r"""[.!?]+['")\]}”’»]*(?=\s|$)""")

_EDIT, _NEEDED, _JAVASCRIPT, _LOREM, _TERMS, _PRIVACY, _COOKIE, _POLICY, _USES, _USE_OF, _USE = (
    np.frombuffer(text.encode(), np.uint8)
    for text in (
        "[edit]", "[citation needed]", "javascript", "lorem ipsum", "terms of use", "privacy policy", "cookie",
        " policy", "uses ", "use of ", "use ",
    )
)  # fmt: skip
_WATCHED = np.zeros(256, np.bool_)
_WATCHED[np.frombuffer(b"jJpPfFvVkK{[", np.uint8)] = True
"""A phrase is looked for where its rarest letter stands."""


def counts_reference(text: str) -> dict[str, int]:
    """Counts of a text, by the definitions."""
    found = dict.fromkeys(FIELDS, 0)
    for line in text.split("\n"):
        line = line.strip()
        words = line.split()
        bare = _CITATION.sub("", line)
        lower = re.sub("[A-Z]", lambda m: m[0].lower(), line)
        if any(len(word) > MAX_WORD for word in words) or len(words) < MIN_WORDS:
            continue
        if not bare.endswith((".", "?", "!", '"', "'")) or bare.endswith("..."):
            continue
        if "lorem ipsum" in lower:
            found["lorem_ipsum"] += 1
        elif "javascript" in lower:
            continue
        elif "{" in line:
            found["curly_lines"] += 1
        elif not any(phrase in lower for phrase in PHRASES):
            found["kept_lines"] += 1
            ends = list(_SENTENCE.finditer(bare))
            rest = bare[ends[-1].end() :] if ends else bare
            found["sentences"] += len(ends) + bool(rest.strip())
    return found


@njit(cache=True, nogil=True)
def _stands(data: np.ndarray, at: int, first: int, last: int, phrase: np.ndarray) -> bool:
    """Whether a phrase stands at `at`, ASCII letters of any case."""
    if at < first or at + len(phrase) > last:
        return False
    for i in range(len(phrase)):
        byte = byte_at(data, at + i)
        if 0x41 <= byte <= 0x5A:
            byte |= np.uint8(0x20)
        if byte != phrase[i]:
            return False
    return True


@njit(cache=True, nogil=True)
def _same(data: np.ndarray, at: int, first: int, last: int, text: np.ndarray) -> bool:
    if at < first or at + len(text) > last:
        return False
    for i in range(len(text)):
        if byte_at(data, at + i) != text[i]:
            return False
    return True


@njit(cache=True, nogil=True)
def _citation(data: np.ndarray, at: int, first: int, last: int) -> int:
    """Where the citation that begins at `at` ends; `at` if there is none."""
    stop = at + 1
    while stop < last and 0x30 <= byte_at(data, stop) <= 0x39:
        stop += 1
    if stop < last and byte_at(data, stop) == 0x5D:
        return stop + 1
    for text in (_EDIT, _NEEDED):
        if _same(data, at, first, last, text):
            return at + len(text)
    return at


@njit(cache=True, nogil=True)
def _ends_well(data: np.ndarray, first: int, last: int) -> bool:
    """Whether a line, without its citations, ends as C4 wants it."""
    dots, at = 0, last
    while at > first:
        if byte_at(data, at - 1) == 0x5D:
            begin = at - 2
            while begin >= first and 0x30 <= byte_at(data, begin) <= 0x39:
                begin -= 1
            if begin >= first and byte_at(data, begin) == 0x5B:
                at = begin
                continue
            if _same(data, at - len(_EDIT), first, last, _EDIT):
                at -= len(_EDIT)
                continue
            if _same(data, at - len(_NEEDED), first, last, _NEEDED):
                at -= len(_NEEDED)
                continue
        byte = byte_at(data, at - 1)
        if byte != 0x2E:
            return dots > 0 or byte == 0x3F or byte == 0x21 or byte == 0x22 or byte == 0x27
        dots += 1
        if dots == 3:
            return False
        at -= 1
    return dots > 0


@njit(cache=True, nogil=True, inline="always")
def _closes(codepoint: int) -> bool:
    return (
        codepoint == 0x22 or codepoint == 0x27 or codepoint == 0x29 or codepoint == 0x5D or codepoint == 0x7D
        or codepoint == 0x201D or codepoint == 0x2019 or codepoint == 0xBB
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _line(data: np.ndarray, first: int, last: int, classes: np.ndarray, counts: np.ndarray) -> None:
    """Counts a line that ends well and has no white space around it."""
    words, chars = 0, 0
    sentences, ended, filled, skip = 0, False, False, first
    lorem = javascript = curly = policy = False
    at = first
    while at < last:
        byte = byte_at(data, at)
        codepoint, size = np.int64(byte), 1
        if byte >= 0x80:
            codepoint, size = decode(data, at, last)
        elif _WATCHED[byte]:
            if byte == 0x5B:
                skip = max(skip, _citation(data, at, first, last))
            elif byte == 0x7B:
                curly = True
            else:
                letter = byte | np.uint8(0x20)
                if letter == 0x6A:
                    javascript |= _stands(data, at, first, last, _JAVASCRIPT)
                elif letter == 0x70:
                    lorem |= _stands(data, at - 7, first, last, _LOREM)
                elif letter == 0x66:
                    policy |= _stands(data, at - 7, first, last, _TERMS)
                elif letter == 0x76:
                    policy |= _stands(data, at - 3, first, last, _PRIVACY)
                elif _stands(data, at - 3, first, last, _COOKIE):
                    begin, behind = at - 3, at + 3
                    policy |= _stands(data, behind, first, last, _POLICY)
                    if behind < last and (byte_at(data, behind) | np.uint8(0x20)) == 0x73:
                        policy |= _stands(data, begin - len(_USES), first, last, _USES)
                        policy |= _stands(data, begin - len(_USE_OF), first, last, _USE_OF)
                        policy |= _stands(data, begin - len(_USE), first, last, _USE)
        space = class_of(codepoint, classes) & SPACE
        if space:
            words += chars > 0
            chars = 0
        else:
            chars += 1
            if chars > MAX_WORD:
                return
        if at >= skip:
            if space:
                if ended:
                    sentences, ended, filled = sentences + 1, False, False
            elif codepoint == 0x2E or codepoint == 0x21 or codepoint == 0x3F:
                ended = filled = True
            elif not (ended and _closes(codepoint)):
                ended, filled = False, True
        at += size
    words += chars > 0
    if words < MIN_WORDS:
        return
    if lorem:
        counts[LOREM] += 1
    elif javascript:
        return
    elif curly:
        counts[CURLY] += 1
    elif not policy:
        counts[KEPT] += 1
        counts[SENTENCES] += sentences + (ended or filled)


@njit(cache=True, nogil=True)
def count_c4(data: np.ndarray, start: int, stop: int, classes: np.ndarray, counts: np.ndarray) -> None:
    """Counts what C4 would keep of bytes [start, stop).

    Args:
        data: UTF-8.
        start: First byte.
        stop: End of the text.
        classes: `text_classes.classes()`.
        counts: Added to.
    """
    at = start
    while at < stop:
        first = at
        at = find_newline(data, at, stop)
        last = trim(data, first, at, classes)
        at += 1
        while first < last:
            codepoint, size = (
                decode(data, first, last) if byte_at(data, first) >= 0x80 else (np.int64(byte_at(data, first)), 1)
            )
            if not class_of(codepoint, classes) & SPACE:
                break
            first += size
        if first < last and _ends_well(data, first, last):
            _line(data, first, last, classes, counts)
