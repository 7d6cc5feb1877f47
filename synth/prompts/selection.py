"""Which tasks are worth a long answer (LongWriter, arXiv 2408.07055, §instructions): rules first, then a judge.

The rules are conservative: each names what it saw, and a task that only mentions a matter passes. The judge is asked in
JSON, reason first. A range of lengths (LongWriter-Zero, arXiv 2506.18841) is asked for in the same way.
"""

import json
import re

from ropewalk.synth.engine import Message
from ropewalk.synth.prompts.replies import json_object, whole_number
from ropewalk.synth.recipe import Ask, Reject, Reply, Unacceptable
from ropewalk.synth.scores.words import count_words

MIN_WORDS, MAX_WORDS = 4, 2000
"""A task has more than three words (Self-Lengthen), and is no text that somebody pasted."""

LEAST_RANGE, GREATEST_RANGE = 50, 40_000
"""Bounds of a range of lengths that a judge may give."""

_TOXIC = re.compile(
    r"\b(?:nsfw|porno?|hentai|erotica|smut|lolicon)\b"
    r"|\b(?:explicit|graphic)(?:ly)? (?:sex|sexual)"
    r"|\bhow (?:to|do i|can i) (?:make|build|cook|synthesi[sz]e) (?:an? )?(?:\w+ )?"
    r"(?:bomb|explosives?|meth|nerve agent|ricin)\b"
    r"|色情|情色|黄文|强奸|乱伦|萝莉控|制(?:作|造)(?:炸弹|炸药|冰毒|毒品)",
    re.IGNORECASE,
)
_SCRAPING = re.compile(
    r"\b(?:scrape|scraping|crawl) (?:\w+ ){0,3}(?:data|page|pages|site|website|websites|web|emails?|urls?|links)\b"
    r"|\b(?:extract|collect|list|give me) (?:all|\d+) (?:the )?(?:\w+ )?"
    r"(?:emails?|e-mail addresses|phone numbers|urls?|links)\b"
    r"|爬取|爬虫抓取|抓取(?:网页|网站|数据)|采集(?:邮箱|电话|网址)",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"\b(?:write|create|implement|fix|debug|refactor|optimi[sz]e|complete|convert)\b(?:\s[\w+#.-]+){0,5}?\s"
    r"(?:python|java|javascript|typescript|c\+\+|c#|rust|golang|sql|bash|php|ruby|kotlin|swift|html|css|vba|matlab)\s"
    r"(?:\w+\s)?(?:code|script|program|function|class|query|app|application|module|macro|snippet|test|tests)\b"
    r"|\b(?:write|fix|debug|refactor|complete) (?:me )?(?:the |this |some |a |my )?(?:following )?"
    r"(?:code|regex|sql query)\b"
    r"|(?:写|编写|实现|修改|调试)(?:一?[个段])?\s?(?:python|java|c\+\+|c语言|sql|javascript)?\s?(?:代码|程序|脚本|函数)",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"\b(?:article|essay|story|stories|novel|report|blog|tutorial|guide|book|chapter|speech|paper|letter|review|lecture)\b"
    r"|文章|论文|小说|故事|报告|教程|指南|博客|演讲|书信|评论",
    re.IGNORECASE,
)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def fault_of(task: str) -> tuple[str, str] | None:
    """The rule that sets a task aside: (reason, what was seen), or none."""
    words = count_words(task)
    if words < MIN_WORDS:
        return "task_too_short", f"{words} words; a task has {MIN_WORDS} and more"
    if words > MAX_WORDS:
        return "task_too_long", f"{words} words; a task has at most {MAX_WORDS}"
    for reason, rule in (("toxic", _TOXIC), ("scraping", _SCRAPING)):
        if seen := rule.search(task):
            return reason, f"it says {seen.group()!r}"
    if (seen := _CODE.search(task)) and not _PROSE.search(task):
        return "code", f"it says {seen.group()!r} and names no kind of prose"
    fenced = sum(len(block) for block in _FENCED.findall(task))
    if fenced * 2 > len(task):
        return "code", "more than half of it is a code block"
    return None


def check(task: str) -> None:
    """Applies the rules.

    Raises:
        Reject: Filtered, with the rule's reason.
    """
    if fault := fault_of(task):
        raise Reject(fault[0], fault[1], filtered=True)


_NEEDS_LONG_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "needs_long": {"type": "boolean"},
            "harmful": {"type": "boolean"},
            "words_lo": {"type": "integer"},
            "words_hi": {"type": "integer"},
        },
        "required": ["reason", "needs_long", "harmful", "words_lo", "words_hi"],
        "additionalProperties": False,
    },
    separators=(",", ":"),
)
_NEEDS_LONG = {
    "en": """Somebody sent a writing assistant the request below. Decide whether a good answer must be long, that is, \
longer than {words} words.

<request>
{task}
</request>

Reply with one JSON object and nothing else:
"reason": one sentence;
"needs_long": true if a good answer needs more than {words} words, else false;
"harmful": true if the request is toxic or sexual, asks for illegal help, or wants data scraped from somewhere, else \
false;
"words_lo" and "words_hi": the shortest and the longest that a good answer could sensibly be, in words.""",
    "zh": """有人向写作助手提出了下面的请求。请判断：一份好的回答是否必须很长，即超过{words}字。

<request>
{task}
</request>

只回复一个JSON对象：
"reason"：一句话的理由；
"needs_long"：好的回答需要超过{words}字则为true，否则为false；
"harmful"：请求含有害、色情、违法内容或要求抓取数据则为true，否则为false；
"words_lo"和"words_hi"：一份好的回答合理的最短和最长字数。""",
}

_RANGE_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"lo": {"type": "integer"}, "hi": {"type": "integer"}},
        "required": ["lo", "hi"],
        "additionalProperties": False,
    },
    separators=(",", ":"),
)
_RANGE = {
    "en": """You estimate lengths. How many words would an ideal answer to the request below have? Consider what kind \
of text it is, how much matter it must cover, and any length the request names.

<request>
{task}
</request>

Reply with one JSON object and nothing else: {{"lo": fewest words, "hi": most words}}, from 50 to 40000.""",
    "zh": """你负责估计篇幅。对下面的请求，理想的回答应当有多少字？请考虑文体、内容的多少，以及请求中提到的字数。

<request>
{task}
</request>

只回复一个JSON对象：{{"lo": 最少字数, "hi": 最多字数}}，在50到40000之间。""",
}


async def check_needs_long(ask: Ask, task: str, *, language: str, words: int) -> tuple[int, int] | None:
    """Asks the judge whether a task needs a long answer; three tries.

    Returns:
        The range of lengths the judge gave, if it is one.

    Raises:
        Reject: Filtered (`short_answer`, `harmful`), or the judge gave no answer.
    """

    def accept(reply: Reply) -> tuple[bool, bool, tuple[int, int] | None]:
        found = json_object(reply.text)
        needs, harmful = found.get("needs_long"), found.get("harmful")
        if not isinstance(needs, bool) or not isinstance(harmful, bool):
            raise Unacceptable("bad_json", "`needs_long` and `harmful` are true or false")
        return needs, harmful, _bounds(found.get("words_lo"), found.get("words_hi"))

    needs, harmful, bounds = await ask(
        "needs-long",
        [Message("user", _say(_NEEDS_LONG, language).format(task=task, words=words))],
        accept=accept,
        max_tokens=400,
        expected_tokens=80,
        attempts=3,
        json_schema=_NEEDS_LONG_SCHEMA,
        judge=True,
    )
    if harmful:
        raise Reject("harmful", "so the judge", filtered=True, step="needs-long")
    if not needs:
        raise Reject(
            "short_answer", f"the judge sees no need of more than {words} words", filtered=True, step="needs-long"
        )
    return bounds


async def length_range(ask: Ask, task: str, *, language: str) -> tuple[int, int] | tuple[None, None]:
    """Asks the judge for a plausible range of lengths; two tries, then none."""

    def accept(reply: Reply) -> tuple[int, int]:
        found = json_object(reply.text)
        bounds = _bounds(found.get("lo"), found.get("hi"))
        if bounds is None:
            raise Unacceptable("bad_range", f"{found}: need {LEAST_RANGE} <= lo <= hi <= {GREATEST_RANGE}")
        return bounds

    try:
        return await ask(
            "length-range",
            [Message("user", _say(_RANGE, language).format(task=task))],
            accept=accept,
            max_tokens=100,
            expected_tokens=20,
            attempts=2,
            json_schema=_RANGE_SCHEMA,
            judge=True,
        )
    except Reject as fault:
        ask.note("length-range", "no range", reason=fault.reason, detail=fault.detail)
        return None, None


def _bounds(lo: object, hi: object) -> tuple[int, int] | None:
    least, most = whole_number(lo), whole_number(hi)
    if least is None or most is None or not LEAST_RANGE <= least <= most <= GREATEST_RANGE:
        return None
    return least, most


def _say(prompts: dict[str, str], language: str) -> str:
    return prompts.get(language, prompts["en"])
