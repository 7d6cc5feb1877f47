"""Quality as LongBench-Write scores it (arXiv 2408.07055): a judge gives six marks from 1 to 5, whatever the length.

    dimension score = (mean mark - 1) 25        S_q = mean of the six        all 0 to 100

The original counts a mark that is missing as 3; here a text without all six has no S_q, unless that is asked for.
"""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ropewalk.synth.engine import Message
from ropewalk.synth.prompts.replies import json_object, whole_number
from ropewalk.synth.recipe import Ask, Reject, Reply, Unacceptable
from ropewalk.synth.scores.words import count_words

DIMENSIONS = ("Relevance", "Accuracy", "Coherence", "Clarity", "Breadth and Depth", "Reading Experience")

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "Analysis": {"type": "string"},
            **{name: {"type": "integer", "minimum": 1, "maximum": 5} for name in DIMENSIONS},
        },
        "required": ["Analysis", *DIMENSIONS],
        "additionalProperties": False,
    },
    separators=(",", ":"),
)
"""What the judge replies; the analysis comes first, so that the marks follow from it."""

ATTEMPTS = 5
MAX_TOKENS = 1024
EXCERPT_WORDS = 5000
"""Longer texts are judged by their beginning, middle and end, together about so long: some 8k tokens."""

_PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "en": """You are a strict examiner of writing. Mark the text below, which was written for the task below.

Give each of these six a whole mark from 1 (bad) to 5 (excellent); 5 is rare:
- Relevance: it does what the task asks, and nothing beside it.
- Accuracy: what it says is true and contradicts neither itself nor the task.
- Coherence: its parts follow from each other and form a whole.
- Clarity: it is easy to understand, precise and free of mistakes of language.
- Breadth and Depth: it covers its matter widely and goes to the bottom of it.
- Reading Experience: it is a pleasure to read; it does not repeat itself, ramble or sound like a template.

Do not consider whether the text has the length the task asks for: that is measured elsewhere.

<task>
{task}
</task>

<text>
{text}
</text>

Reply with one JSON object and nothing else: first "Analysis", two or three sentences on strengths and faults; then \
"Relevance", "Accuracy", "Coherence", "Clarity", "Breadth and Depth", "Reading Experience", each a whole number \
from 1 to 5.""",
        "zh": """你是一位严格的写作评审。请为下面这篇按题目写成的文章打分。

请就以下六项各给出1(差)到5(优秀)之间的整数分，5分应当很少给：
- Relevance(切题)：完成了题目的要求，没有多余内容。
- Accuracy(准确)：内容属实，不自相矛盾，也不与题目矛盾。
- Coherence(连贯)：各部分前后衔接，构成整体。
- Clarity(清晰)：易于理解，用词准确，没有语病。
- Breadth and Depth(广度与深度)：内容全面，论述深入。
- Reading Experience(阅读体验)：读来愉快，不重复、不拖沓、不套话。

不要考虑文章是否达到题目要求的长度，长度另行计算。

<task>
{task}
</task>

<text>
{text}
</text>

只回复一个JSON对象：先写"Analysis"，用两三句话说明优点和缺点；然后依次给出"Relevance"、"Accuracy"、"Coherence"、"Clarity"、\
"Breadth and Depth"、"Reading Experience"，每项都是1到5的整数。""",
    }
)


def s_q(marks: Sequence[Mapping[str, int]], *, missing: int | None = None) -> float | None:
    """S_q of one or several judgements of a text.

    Args:
        marks: Marks by dimension, 1 to 5, one mapping a judgement.
        missing: What a mark that is missing counts as; the original has 3. Default: such a text has no S_q.
    """
    scores = []
    for name in DIMENSIONS:
        given = [mark for one in marks if (mark := one.get(name, missing)) is not None]
        if not given or len(given) < len(marks):
            return None
        scores.append((sum(given) / len(given) - 1) * 25)
    return sum(scores) / len(scores)


def parse(text: str) -> dict[str, int]:
    """The marks of a reply; those that are no whole number from 1 to 5 are missing.

    Raises:
        Unacceptable: The reply is no JSON object.
    """
    said = {_plain(key): value for key, value in json_object(text).items()}
    marks = {name: whole_number(said.get(_plain(name))) for name in DIMENSIONS}
    return {name: mark for name, mark in marks.items() if mark is not None and 1 <= mark <= 5}


async def judge(ask: Ask, task: str, text: str, *, language: str, step: str = "judge") -> float | None:
    """Has a text judged once; none, with a line in the trace, if the judge gives no full set of marks."""

    def accept(reply: Reply) -> dict[str, int]:
        marks = parse(reply.text)
        missing = [name for name in DIMENSIONS if name not in marks]
        if missing:
            raise Unacceptable("bad_judgement", f"no mark from 1 to 5 for {', '.join(missing)}")
        return marks

    prompt = _PROMPTS["zh" if language == "zh" else "en"].format(task=task, text=excerpt(text))
    try:
        marks = await ask(
            step,
            [Message("user", prompt)],
            accept=accept,
            max_tokens=MAX_TOKENS,
            expected_tokens=300,
            attempts=ATTEMPTS,
            temperature=0.5,
            json_schema=SCHEMA,
            judge=True,
        )
    except Reject as fault:
        ask.note(step, "not judged", reason=fault.reason, detail=fault.detail)
        return None
    ask.note(step, "judged", **{_plain(name): mark for name, mark in marks.items()})
    return s_q([marks])


def excerpt(text: str, *, words: int = EXCERPT_WORDS) -> str:
    """A text of more than about so many words as its beginning, middle and end, in whole paragraphs if it has them."""
    total = count_words(text)
    if total <= words:
        return text
    size = max(1, len(text) * words // (3 * total))
    middle = (len(text) - size) // 2
    first, between, last = text[:size], text[middle : middle + size], text[-size:]
    first, between = (part[: part.rfind("\n\n")] if "\n\n" in part else part for part in (first, between))
    between, last = (part.split("\n\n", 1)[-1] for part in (between, last))
    return "\n\n[…]\n\n".join(part.strip() for part in (first, between, last))


def _plain(name: str) -> str:
    return "".join(character for character in name.lower().replace("&", "and") if character.isalnum())
