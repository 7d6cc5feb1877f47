"""What is wrong with a text apart from repetition: refusals, admissions, labels, echoes, loose ends, hidden characters.

A flag is a place: its name (the guard's), where in the text, and the words themselves. Each family looks where only a
model puts such words, see `guards.phrases`; a text that merely speaks of them is left alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.kernels.word_spans import word_spans
from ropewalk.synth.guards import phrases
from ropewalk.synth.guards.metrics import codepoints

FLAGS = (
    "refusal",
    "truncation",
    "meta_label",
    "instruction_echo",
    "unclosed",
    "special_token",
    "hidden_characters",
    "no_end",
)

_OPENING = re.compile(r"[\s*_#>]*")
_DECORATION = ' \t\r*_#>~=-[](){}（）【】「」`"“”'
_QUOTES = tuple("\"'“‘「『")
_END_CHARS = 300
"""How far from its end an admission that text is missing is looked for."""
_LINE_CHARS = 500
"""Longer lines are no labels."""
_ECHO_WORDS = {"en": 20, "zh": 40}
_ECHO_SHARE = 0.8
_FENCE = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.M)
_TAG = re.compile(
    r"<(/?)(think|thinking|answer|response|output|document|div|span|table|code|pre|details|summary|article|section)\b"
    r"[^<>\n]{0,200}>"
)
_PAIRS = dict(zip("([{（【《「『", ")]}）】》」』", strict=True))
_CLOSERS = {close: opened for opened, close in _PAIRS.items()}
_TERMINAL = frozenset(".!?…。！？｡‽")
_OPEN_END = frozenset(",;:，；：、-–—([{（【《“‘「『")
_NOT_PROSE = re.compile(r"[ \t]*(?:[|#>`~•·–—-]|[*+] |\d{1,4}[.)、]|[（(]?[一二三四五六七八九十\d]{1,3}[)）、])")
_LONG_LINE = 60  # columns, ideographs being two wide: a shorter last line may be a signature or a verse


@dataclass(frozen=True)
class Flag:
    """One place that is wrong.

    Attributes:
        name: One of `FLAGS`.
        at: Index of its first character; everything before it may be kept.
        words: What stands there.
    """

    name: str
    at: int
    words: str


def find_flags(text: str, *, language: str, prompt: str = "", whole: bool = False) -> list[Flag]:
    """Finds all flags of a text, in time linear in it.

    Args:
        text: A paragraph, or the whole output.
        language: `en` or `zh`.
        prompt: The task, to find echoes of it.
        whole: Whether the text is finished: then it must end like prose, if it is prose.
    """
    found = [*_openings(text), *_truncations(text), *_labels(text)]
    found += _echo(text, language, prompt) if prompt else []
    found += _unclosed(text)
    for name, pattern in (("special_token", phrases.SPECIAL_TOKEN), ("hidden_characters", phrases.HIDDEN)):
        if match := pattern.search(text):
            found.append(Flag(name, match.start(), repr(match.group())[1:-1]))
    found += _no_end(text) if whole else []
    return found


def strip_labels(text: str) -> str:
    """Takes labels off the seams of a written step: whole lines at its beginning and end that say what it is.

    `Paragraph 3:`, `[Word count: 200]`, `Here is the revised paragraph:`, `第三段：` go; a label in front of prose on
    the same line, or inside the text, stays, and is flagged as `meta_label`: text is refused rather than edited.
    """
    lines = text.strip().split("\n")
    first, last = 0, len(lines)
    while first < last and (not lines[first].strip() or _is_label(lines[first], seam=True)):
        first += 1
    while last > first and (not lines[last - 1].strip() or _is_label(lines[last - 1], seam=True)):
        last -= 1
    return "\n".join(lines[first:last])


def _is_label(line: str, *, seam: bool) -> bool:
    """Whether a line is a label; at a seam, things are that would be somebody's words inside a text."""
    if len(line) > _LINE_CHARS:
        return False
    bare = line.strip(_DECORATION)
    if not bare:
        return False
    if phrases.LABEL_LINE.fullmatch(bare):
        return True
    return seam and line.lstrip()[:1] not in _QUOTES and phrases.PREAMBLE_LINE.fullmatch(bare) is not None


def _openings(text: str) -> Iterator[Flag]:
    match = _OPENING.match(text)
    at = match.end() if match else 0
    for name, pattern in (("refusal", phrases.REFUSAL), ("meta_label", phrases.LABEL_OPENING)):
        if match := pattern.match(text, at):
            yield Flag(name, at, match.group())


def _truncations(text: str) -> Iterator[Flag]:
    if match := phrases.TRUNCATION.search(text, max(0, len(text.rstrip()) - _END_CHARS)):
        yield Flag("truncation", match.start(), match.group())
        return
    for at, line in _lines(text):
        bare = line.strip() if len(line) <= _LINE_CHARS else ""
        if bare[:1] in tuple("[(（【…*") and (match := phrases.TRUNCATION.search(bare)):
            yield Flag("truncation", at, match.group())
            return


def _labels(text: str) -> Iterator[Flag]:
    first, last = len(text) - len(text.lstrip()), text.rstrip().rfind("\n") + 1
    for at, line in _lines(text):
        bare = line[: _LINE_CHARS + 1].strip(_DECORATION)
        seam = at == last or at <= first
        if _is_label(line, seam=seam) or phrases.LABEL_START.match(bare):
            yield Flag("meta_label", at, bare[:80])
            return
    if match := phrases.LABEL_ANYWHERE.search(text):
        yield Flag("meta_label", match.start(), match.group())


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with the index of their first character."""
    at = 0
    for line in text.split("\n"):
        if line:
            yield at, line
        at += len(line) + 1


def _echo(text: str, language: str, prompt: str) -> list[Flag]:
    """Whether the text begins with the prompt's words: by pairs of neighbours; long prompts hold all single words."""
    count = _ECHO_WORDS.get(language, _ECHO_WORDS["en"])
    starts, _, words = word_spans(codepoints(text[: 40 * count]))
    _, _, asked = word_spans(codepoints(prompt))
    if len(words) < count:
        return []
    pairs = list(zip(words[: count - 1].tolist(), words[1:count].tolist(), strict=True))
    known = set(zip(asked[:-1].tolist(), asked[1:].tolist(), strict=True))
    if sum(pair in known for pair in pairs) < _ECHO_SHARE * len(pairs):
        return []
    return [Flag("instruction_echo", int(starts[0]), text[starts[0] : starts[0] + 80])]


def _unclosed(text: str) -> list[Flag]:
    """An open fence or tag anywhere, or an open bracket in the last paragraph (smileys and lists close more)."""
    fences = list(_FENCE.finditer(text))
    if len(fences) % 2:
        return [Flag("unclosed", fences[-1].start(), "code fence")]
    opened: dict[str, list[int]] = {}
    for match in _TAG.finditer(text):
        places = opened.setdefault(match.group(2), [])
        if not match.group(1):
            places.append(match.start())
        elif places:
            places.pop()
    if left := sorted((places[0], name) for name, places in opened.items() if places):
        return [Flag("unclosed", left[0][0], f"<{left[0][1]}>")]
    if fences:
        return []
    start = max(text.rstrip().rfind("\n\n"), 0)
    stack: list[tuple[str, int]] = []
    for at, char in enumerate(text[start:], start):
        if char in _PAIRS:
            stack.append((char, at))
        elif stack and _CLOSERS.get(char) == stack[-1][0]:
            stack.pop()
    return [Flag("unclosed", start, f"{stack[0][0]} …")] if stack else []


def _no_end(text: str) -> list[Flag]:
    """A last line of prose that stops without a full stop; quotes, brackets, emphasis and pictures may follow it."""
    text = text.rstrip()
    at = text.rfind("\n") + 1
    line = text[at:]
    columns = sum(2 if char >= "\u2e80" else 1 for char in line[:_LONG_LINE])
    if columns < _LONG_LINE or _NOT_PROSE.match(line) or "://" in line:
        return []
    decides = (char for char in reversed(line) if char.isalnum() or char in _TERMINAL or char in _OPEN_END)
    return [] if next(decides, ".") in _TERMINAL else [Flag("no_end", max(text.rfind("\n\n"), 0), line[-40:])]
