"""Plans of AgentWrite (LongWriter, arXiv 2408.07055): read from a reply, checked, and made to add up.

A step is a line such as `Paragraph 3 - Main Point: how tea came to Europe - Word Count: 400 words`. Models decorate it:
bold, headings, lists, full-width punctuation, ranges, Chinese labels, the count on a line of its own. All that is read;
what stands before the first step or after the last count is no step. What cannot be read is no plan: the model is asked
again, never guessed at.
"""

import re
from collections.abc import Sequence

from ropewalk.synth.prompts import numerals
from ropewalk.synth.recipe import PlannedStep, Unacceptable

_ZH_DIGIT = "零一二三四五六七八九十百"
_MARKS = r"[\s*_#>`|•·+-]*"
_HEAD = re.compile(
    rf"{_MARKS}(?:(?:paragraph|section|step|part|subtask|para)s?\.?{_MARKS}#?{_MARKS}(?P<en>\d{{1,3}})(?![\d,]*\d|%)"
    rf"|(?:段落|章节|部分|步骤|小节|段){_MARKS}(?P<zh>\d{{1,3}}|[{_ZH_DIGIT}]{{1,4}})(?![\d{_ZH_DIGIT}字])"
    rf"|第\s*(?P<nth>\d{{1,3}}|[{_ZH_DIGIT}]{{1,4}})\s*(?:个?段落?|部分|章节?|节|步)"
    rf"|(?P<list>\d{{1,3}})\s?(?:[.)、](?!\d)|:(?!\d)))",
)
_ABOUT = r"(?:(?:about|around|approximately|approx\.?|roughly|~|≈|约|大约)\s*)?"
_UPTO = r"\s*(?:-|~|to|至|到)\s*"
_COUNT = re.compile(
    rf"(?:word[\s-]?counts?|words|length|字[数數])(?:\s*\(\w+\))?[\s*_:=(`-]*{_ABOUT}"
    rf"(?P<lo>\d[\d,]{{0,11}})(?:\s*(?:words?|字)?{_UPTO}(?P<hi>\d[\d,]{{0,11}}))?(?:\s*(?:words?|个?字|词))?"
    rf"|{_ABOUT}(?P<lo2>\d[\d,]{{0,11}})(?:{_UPTO}(?P<hi2>\d[\d,]{{0,11}}))?[^\S\n]*(?:words?\b(?![\s-]*count)|个?字(?![母符])|词)"
)
_POINT_LABEL = re.compile(
    rf"{_MARKS}(?:main\s*(?:point|idea|topic|content)s?|point|topic|content|主要内容|主要观点|内容要点|要点|主旨|主题|论点|内容|中心)"
    rf"{_MARKS}:{_MARKS}"
)
_SEPARATORS = " \t\r\n*_#>`|•·+-－:;,.，、；：—–~"


def parse(reply: str) -> list[tuple[int, str, int]]:
    """Steps of a reply in the order they stand: (index, main point, words).

    Raises:
        Unacceptable: `bad_plan`: there is none, or a step has no count or no point.
    """
    blocks: list[tuple[int, str]] = []
    for line in reply.split("\n"):
        head = _HEAD.match(numerals.fold(line))
        if head and (head["list"] is None or not blocks or _done(blocks[-1][1])):
            index = head["en"] or head["zh"] or head["nth"] or head["list"]
            blocks.append((numerals.read_chinese(index) or 0, line[head.end() :]))
        elif blocks and not _done(blocks[-1][1]) and line.strip():
            blocks[-1] = (blocks[-1][0], f"{blocks[-1][1]}\n{line}")
    if not blocks:
        raise Unacceptable("bad_plan", "no line has the form of a step")
    return [(index, *_step(index, block)) for index, block in blocks]


def check(
    steps: Sequence[tuple[int, str, int]],
    *,
    required: int,
    min_words: int,
    max_words: int,
    max_steps: int = 50,
    tolerance: float = 0.3,
) -> tuple[PlannedStep, ...]:
    """A plan out of steps, with words that add up to what is required.

    Args:
        steps: What `parse` returned.
        required: Words of the whole text.
        min_words: Least words of a step.
        max_words: Most words of a step.
        max_steps: Most steps.
        tolerance: How far the total may be off before it is scaled to be right; beyond, the plan is refused.

    Raises:
        Unacceptable: `bad_plan`.
    """
    indices = [index for index, _, _ in steps]
    if not 2 <= len(steps) <= max_steps:
        raise Unacceptable(
            "bad_plan", f"{len(steps)} steps; a plan has 2 to {max_steps}", metrics={"steps": len(steps)}
        )
    if indices != list(range(1, len(steps) + 1)):
        raise Unacceptable("bad_plan", f"steps are numbered {indices}, not 1 to {len(steps)}")
    points = [" ".join(point.split()).casefold() for _, point, _ in steps]
    twice = next((point for number, point in enumerate(points) if point in points[:number]), None)
    if twice is not None:
        raise Unacceptable("bad_plan", f"two steps have the point {twice[:80]!r}")
    words = [count for _, _, count in steps]
    outside = [count for count in words if not min_words <= count <= max_words]
    if outside:
        raise Unacceptable("bad_plan", f"a step of {outside[0]} words; each has {min_words} to {max_words}")
    total = sum(words)
    if abs(total - required) > tolerance * required + 1e-6:
        detail = f"the steps add up to {total} words for {required}; {tolerance:.0%} off is the most"
        raise Unacceptable("bad_plan", detail, metrics={"planned-words": total, "required-words": required})
    scaled = reconcile(words, required, min_words=min_words, max_words=max_words)
    return tuple(PlannedStep(point, count) for (_, point, _), count in zip(steps, scaled, strict=True))


def reconcile(words: Sequence[int], required: int, *, min_words: int, max_words: int) -> list[int]:
    """Words of the steps scaled so that they add up to what is required, none below or above its bound.

    What a bound takes from one step, the others get in proportion; the last words go to the largest remainders.

    Raises:
        Unacceptable: `bad_plan`: so many steps cannot add up to it.
    """
    if not len(words) * min_words <= required <= len(words) * max_words:
        detail = f"{len(words)} steps of {min_words} to {max_words} words cannot add up to {required}"
        raise Unacceptable("bad_plan", detail)
    low, high = 0.0, max_words / min(words)
    for _ in range(100):  # the total grows with the factor, so halving finds it
        factor = (low + high) / 2
        total = sum(min(max(count * factor, min_words), max_words) for count in words)
        low, high = (factor, high) if total < required else (low, factor)
    exact = [min(max(count * high, min_words), max_words) for count in words]
    scaled = [int(share) for share in exact]
    by_remainder = sorted(range(len(words)), key=lambda step: (scaled[step] - exact[step], step))
    while (short := required - sum(scaled)) > 0:
        for step in [step for step in by_remainder if scaled[step] < max_words][:short]:
            scaled[step] += 1
    return scaled


def _done(block: str) -> bool:
    return _COUNT.search(numerals.fold(block)) is not None


def _step(index: int, block: str) -> tuple[str, int]:
    folded = numerals.fold(block)
    counts = list(_COUNT.finditer(folded))
    if not counts:
        raise Unacceptable("bad_plan", f"step {index} has no word count")
    count = counts[-1]
    low = int((count["lo"] or count["lo2"]).replace(",", ""))
    high = count["hi"] or count["hi2"]
    label = _POINT_LABEL.match(folded) or _POINT_LABEL.search(folded[: count.start()])
    start = label.end() if label else 0
    point = block[start : count.start()] if count.start() > start else block[count.end() :]
    point = (
        re.sub(r"\s+", " ", re.sub(r"[*_`]{1,3}", "", point))
        .rstrip(_SEPARATORS + "([（【")
        .lstrip(_SEPARATORS + ")]）】")
    )
    if not point:
        raise Unacceptable("bad_plan", f"step {index} has no main point")
    return point, (low + int(high.replace(",", ""))) // 2 if high else low
