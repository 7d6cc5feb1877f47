"""The length a task asks for, read from its own words (Min-tuning, arXiv 2410.10210), in English and Chinese.

Only a number that counts words or 字 is a length: not a year, not five paragraphs, not the size of a given text, not
the share of one part (`300 words per section`). Where several lengths are left that do not agree, the task states
none: a wrong length is worse than no length. A single number becomes an interval as in LonGen (arXiv 2410.23933):

    about x: [0.8 x, 1.2 x]    at least x: [x, 1.5 x]    at most x: [0.5 x, x]
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ropewalk.synth.prompts import numerals

WORDS_PER_PAGE = 300


class Kind(StrEnum):
    """How a length is asked for."""

    ABOUT = "about"
    RANGE = "range"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"


@dataclass(frozen=True)
class Length:
    """A length asked for.

    Attributes:
        kind: How it is put.
        words: The number stated; the middle of a range. What `s_l` compares with.
        lo: Least admissible words.
        hi: Most admissible words.
    """

    kind: Kind
    words: int
    lo: int
    hi: int


def about(words: int) -> Length:
    """About so many words."""
    return Length(Kind.ABOUT, words, -(-words * 4 // 5), words * 6 // 5)


def between(lo: int, hi: int) -> Length:
    """From `lo` to `hi` words."""
    return Length(Kind.RANGE, (lo + hi) // 2, lo, hi)


def at_least(words: int) -> Length:
    """So many words or more."""
    return Length(Kind.AT_LEAST, words, words, words * 3 // 2)


def at_most(words: int) -> Length:
    """So many words or fewer."""
    return Length(Kind.AT_MOST, words, -(-words // 2), words)


def extract(task: str, *, pages: bool = False) -> Length | None:
    """The length a task asks for, or none.

    Args:
        task: The task, in English, Chinese or both.
        pages: Take `10 pages` for 3,000 words; off, because it is a guess.
    """
    text = numerals.fold(task)
    found = [*_english(text), *_chinese(text)]
    if not found and pages:
        found = [*_pages(text)]
    return _agree(sorted(found, key=lambda mention: mention.start))


@dataclass(frozen=True)
class _Mention:
    start: int
    length: Length
    total: bool


Rules = tuple[tuple[re.Pattern[str], re.Pattern[str], Callable[[int], Length]], ...]
"""What stands right before a number, or right after its unit, and the length that makes; the first that fits."""

_NEVER = re.compile(r"(?!)")
_N = rf"(?<!\d )(?:{numerals.ENGLISH})"
_UNIT = r"(?:words?\b|chinese characters\b)"
_EN = re.compile(
    rf"\bbetween (?P<lo1>{_N})(?:\s*words?)? and (?P<hi1>{_N})[\s-]*{_UNIT}"
    rf"|(?P<lo2>{_N})(?:\s*words?)?\s*(?:-|~|to|or)\s*(?P<hi2>{_N})[\s-]*{_UNIT}"
    rf"|(?P<n1>{_N})\s?(?P<plus>\+?)[\s-]*{_UNIT}"
    rf"|\bword[\s-]?(?P<what>count|limit|length)(?P<said>[^\n.;\d]{{0,30}}?)(?P<n2>(?P<lo3>{_N}))"
    rf"(?:\s*(?:-|~|to|and)\s*(?P<hi3>{_N}))?(?:[\s-]*{_UNIT})?(?!\s*(?:%|percent|page|paragraph|sentence|section))"
)
_EN_SO = r"(?: an?| the)?(?: total)?(?: of)?(?: about| around| approximately| roughly)?[\s:(~]*$"
_EN_RULES: Rules = (
    (
        re.compile(rf"\b(?:no|not|not be|n't be|never) (?:fewer|less|shorter) than{_EN_SO}"),
        re.compile(r"[\s(,]*(?:or (?:more|longer)\b|and (?:above|over|more|up)\b|min(?:imum)?\b|at (?:the )?least\b)"),
        at_least,
    ),
    (
        re.compile(
            r"(?:\b|')(?:at (?:the )?most|no (?:more|longer) than"
            r"|(?:not|n't|never|without) (?:be )?(?:(?:more|longer) than|over|go (?:over|above|beyond)|exceed(?:ing)?)"
            r"|up to|under|below|(?:less|fewer|shorter) than"
            rf"|within|max(?:imum)?\.?(?: length)?|limit(?:ed)?(?: it| yourself| your \w+)?(?: to| is)?){_EN_SO}"
        ),
        re.compile(r"[\s(,]*(?:or (?:less|fewer|under|below|shorter)\b|max(?:imum)?\b|at (?:the )?most\b|limit\b)"),
        at_most,
    ),
    (
        re.compile(
            rf"\b(?:at (?:the )?least|min(?:imum)?\.?(?: length)?|(?:more|longer) than|over|above|exceed(?:s|ing)?"
            rf"|upwards of){_EN_SO}"
        ),
        _NEVER,
        at_least,
    ),
)
_EN_TOTAL = re.compile(r"\b(?:total|overall|altogether|entire|whole)\b")
_EN_TOTAL_AFTER = re.compile(r"[\s(,]*(?:in )?(?:total|overall|altogether|all)\b")
_EN_PART_BEFORE = re.compile(
    r"\b(?:each|every|per)\b[^.;\n!?]{0,60}$"
    r"|\b(?:introduction|conclusion|body|paragraphs|sections|chapters|parts)\s*(?::|\(|-|of|with|in)"
    r"\s*(?:about |around |approximately |roughly |~)?$"
)
_EN_PART_AFTER = re.compile(
    r"[\s(,]*(?:per|each|every|apiece)\b|\s*(?:an?|/)\s*(?:minute|hour|day|week|month|page)\b|\s*/"
    r"|\s+(?:paragraphs|sections|chapters|parts|articles|essays|stories|posts|pieces|reviews|descriptions)\b"
)
_EN_GIVEN = re.compile(
    r"\b(?:these|those|this|following|above|attached|given|provided|my|first|last|top|common|frequent|per)[\s:(]*"
    r"(?:(?!(?:in|with|to|at|of|using|for|under|about|within|is|as|be|by|into|around)\b)\w+\s)?$"
    r"|\b(?:few|several|many|couple(?: of)?|dozens of|tens of|hundreds of)\s*$"
)
_EN_CUE = re.compile(
    r"\b(?:in|about|around|approximately|roughly|exactly|within|a|an|under|of|than|most|least)[\s(~]*$"
)
_EN_LISTED = re.compile(r"\s*(?:from|in|on|of|starting|beginning|ending|related|that (?:start|begin|end|rhyme))\b")

_Z = rf"(?:{numerals.CHINESE})"
_ZI = (
    r"(?:个|個)?(?:汉字|漢字|中文字|(?:英文)?(?:单词|單詞)|词(?![语汇典组句性条])"
    r"|字(?![典体母符幕眼面节帖谜根形音号组词]))"
)
_ZH = re.compile(
    rf"(?P<lo1>{_Z})\s*(?:{_ZI})?\s*(?:-|~|到|至)+\s*(?P<hi1>{_Z})\s*{_ZI}"
    rf"|(?P<lo2>[一二两三四五六七八九])(?P<hi2>[二三四五六七八九][千万百])\s*{_ZI}"
    rf"|(?P<n1>{_Z})(?P<plus>[多余]?)\s*{_ZI}"
    rf"|字[数數](?P<said>[^\n。;,，；、\d零一二两三四五六七八九十百千万]{{0,12}})(?P<n2>(?P<lo3>{_Z}))\s*(?:{_ZI})?"
    rf"(?:\s*(?:-|~|到|至)+\s*(?P<hi3>{_Z})\s*(?:{_ZI})?)?(?!\s*(?:%|页|頁|段|章|节|句|行|倍|分))"
)
_ZH_SO = r"(?:约|大约)?[\s::(]*$"
_ZH_RULES: Rules = (
    (
        re.compile(rf"(?:不|不能|不得|不要|不应|不可|勿)(?:少|低|小|短)[于於]{_ZH_SO}"),
        re.compile(r"[\s(,，]*(?:及|或|及其)?(?:以上|起(?!草)|打底|往上)"),
        at_least,
    ),
    (
        re.compile(rf"(?:不|不能|不得|不要|不应|不可|勿|别)(?:超[过過出]|[多高大长][于於]){_ZH_SO}"),
        re.compile(r"[\s(,，]*(?:及|或)?(?:(?:以|之)[内內下]|为限|封顶|内(?![容在心部外涵]))"),
        at_most,
    ),
    (_NEVER, re.compile(r"\s*(?:左右|上下)"), about),
    (re.compile(rf"(?:最多|至多|[少低小短][于於]|上限[为是]?|限(?:制)?[在为]?){_ZH_SO}"), _NEVER, at_most),
    (re.compile(rf"(?:至少|最少|起码|超[过過]|[大多高长][于於]|下限[为是]?|达到|上){_ZH_SO}"), _NEVER, at_least),
)
_ZH_TOTAL = re.compile(r"(?:总字数|總字數|总共|共计|全文|全篇|合计|整篇|总计|一共)[^。;；\n]{0,12}$")
_ZH_PART_BEFORE = re.compile(r"[每各][^。;,，；\n]{0,12}$|(?:引言|结论|摘要|正文|段落|开头|结尾)[^。;,，；\n]{0,3}$")
_ZH_PART_AFTER = re.compile(r"\s*(?:每|/|一[段章节])")
_ZH_GIVEN = re.compile(r"(?:前|后|第|[这那]篇?|以上|以下|上述|上面|下面|几|数|若干|给定的?|原文)\s*$")

_PAGES = re.compile(rf"(?P<en>{_N})(?:\s*|-)pages?\b|(?P<zh>{_Z})\s*[页頁](?!码|面)")


def _english(text: str) -> Iterator[_Mention]:
    for match in _EN.finditer(text):
        before = " ".join(text[max(0, match.start() - 90) : match.start()].split()) + " " + (match["said"] or "")
        after = text[match.end() : match.end() + 40]
        if _EN_PART_AFTER.match(after) or (_EN_PART_BEFORE.search(before) and not _EN_TOTAL.search(before[-40:])):
            continue
        if _EN_GIVEN.search(before):
            continue
        number = match["n1"] or match["n2"]
        if match["n1"] and (numerals.read_english(number) or 0) < 50:
            if not _EN_CUE.search(before) or _EN_LISTED.match(after):
                continue  # `use these 10 words`, but not `in 30 words`
        if match["what"] == "limit":
            after = f" limit{after}"
        length = _length(match, numerals.read_english, _EN_RULES, before, after)
        if length:
            total = bool(match["what"] or _EN_TOTAL.search(before[-40:]) or _EN_TOTAL_AFTER.match(after))
            yield _Mention(match.start(), length, total)


def _chinese(text: str) -> Iterator[_Mention]:
    for match in _ZH.finditer(text):
        before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() : match.end() + 20]
        if _ZH_GIVEN.search(before) or _ZH_PART_BEFORE.search(before) or _ZH_PART_AFTER.match(after):
            continue
        if match.group() == "千字" and after.startswith("文"):
            continue  # the Thousand Character Classic
        length = _length(match, numerals.read_chinese, _ZH_RULES, before + (match["said"] or ""), after)
        if length and (length.words >= 50 or length.kind is not Kind.ABOUT):
            yield _Mention(match.start(), length, bool(match["n2"] or _ZH_TOTAL.search(before)))


def _length(
    match: re.Match[str], read: Callable[[str], int | None], rules: Rules, before: str, after: str
) -> Length | None:
    lo, hi = match["lo1"] or match["lo2"] or match["lo3"], match["hi1"] or match["hi2"] or match["hi3"]
    if lo and hi:
        return _pair(read(lo), read(hi), _scale(lo), _scale(hi))
    number = read(match["n1"] or match["n2"])
    if number is None or number < 10:
        return None
    for start, end, make in rules:
        if start.search(before) or end.match(after):
            return make(number)
    return at_least(number) if match["plus"] else about(number)


def _pages(text: str) -> Iterator[_Mention]:
    for match in _PAGES.finditer(text):
        number = numerals.read_english(match["en"]) if match["en"] else numerals.read_chinese(match["zh"])
        if number and number <= 1000 and not _EN_GIVEN.search(text[max(0, match.start() - 40) : match.start()]):
            yield _Mention(match.start(), about(number * WORDS_PER_PAGE), False)


_SCALES = {"k": 1000, "thousand": 1000, "千": 1000, "w": 10**4, "万": 10**4, "萬": 10**4, "百": 100, "hundred": 100}


def _scale(number: str) -> int:
    """What the last word of a number multiplies by, where it is written out: `2k`, `3 thousand`, `5千`."""
    return next((scale for name, scale in _SCALES.items() if number.endswith(name)), 1)


def _pair(lo: int | None, hi: int | None, lo_scale: int, hi_scale: int) -> Length | None:
    if lo is None or hi is None:
        return None
    if lo_scale == 1 < hi_scale and lo * hi_scale < hi:  # 2-3k, two to three thousand, 三到五千
        lo *= hi_scale
    return between(lo, hi) if 10 <= lo < hi else about(hi) if lo == hi else None


def _agree(mentions: list[_Mention]) -> Length | None:
    """One length of all that were found.

    The totals, if any is called so; else all. If they agree, that; a lower and an upper bound make a range; and one
    that is at least twice the sum of the others is the whole of which they are parts.
    """
    chosen = [mention for mention in mentions if mention.total] or mentions
    lengths = list(dict.fromkeys(mention.length for mention in chosen))
    if len(lengths) < 2:
        return lengths[0] if lengths else None
    bounds = {length.kind: length.words for length in lengths}
    if len(lengths) == 2 and bounds.keys() == {Kind.AT_LEAST, Kind.AT_MOST}:
        if bounds[Kind.AT_LEAST] < bounds[Kind.AT_MOST]:
            return between(bounds[Kind.AT_LEAST], bounds[Kind.AT_MOST])
    *parts, whole = sorted(lengths, key=lambda length: length.words)
    return whole if 2 * sum(part.words for part in parts) <= whole.words else None
