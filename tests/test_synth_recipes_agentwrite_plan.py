import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.synth.recipe import PlannedStep, Unacceptable
from ropewalk.synth.recipes import agentwrite_prompts as say
from ropewalk.synth.recipes.agentwrite_plan import check, parse, reconcile

WANTED = [(1, "How tea came to Europe", 300), (2, "The 3 kinds of tea, 1900 to 1950", 500)]

FORMS = {
    "as asked": """Paragraph 1 - Main Point: How tea came to Europe - Word Count: 300 words
Paragraph 2 - Main Point: The 3 kinds of tea, 1900 to 1950 - Word Count: 500 words""",
    "blank lines and a preamble and a total": """Sure! Here is a plan of 2 paragraphs:

Paragraph 1 - Main Point: How tea came to Europe - Word Count: 300 words

Paragraph 2 - Main Point: The 3 kinds of tea, 1900 to 1950 - Word Count: 500 words

Total: 800 words""",
    "bold": """**Paragraph 1** - **Main Point:** How tea came to Europe - **Word Count:** 300 words
**Paragraph 2 - Main Point: The 3 kinds of tea, 1900 to 1950 - Word Count: 500 words**""",
    "headings and lines of their own": """### Paragraph 1
- **Main Point**: How tea came to Europe
- **Word Count**: about 300 words

### Paragraph 2
- **Main Point**: The 3 kinds of tea, 1900 to 1950
- **Word Count**: approx. 500""",
    "a numbered list": """1. How tea came to Europe (300 words)
2) The 3 kinds of tea, 1900 to 1950: 500 words""",
    "a numbered list of labels": """1. Main Point: How tea came to Europe
   Word Count: 300
2. Main Point: The 3 kinds of tea, 1900 to 1950
   Word Count: 500""",
    "ranges": """Paragraph 1 - Main Point: How tea came to Europe - Word Count: 250-350 words
Paragraph 2 - Main Point: The 3 kinds of tea, 1900 to 1950 - Word Count: 400 to 600 words""",
    "a table": """| Paragraph 1 | Main point: How tea came to Europe | 300 words |
| Paragraph 2 | Main point: The 3 kinds of tea, 1900 to 1950 | 500 words |""",
    "long dashes": """Paragraph 1 — Main Point: How tea came to Europe — Word Count: 300 words
Paragraph 2 – Main Point: The 3 kinds of tea, 1900 to 1950 – Word Count: 500 words""",
    "full width": """Ｐａｒａｇｒａｐｈ　１　－　Ｍａｉｎ　Ｐｏｉｎｔ：How tea came to Europe－Word Count：３００
Paragraph ２：The 3 kinds of tea, 1900 to 1950（５００ words）""",
    "sections": """Section 1: How tea came to Europe - Word Count: 300
Step 2: The 3 kinds of tea, 1900 to 1950 - Word Count: 500 words.""",
}


@pytest.mark.parametrize("form", FORMS)
def test_reads_every_form(form: str) -> None:
    assert parse(FORMS[form]) == WANTED


@pytest.mark.parametrize(
    "reply",
    [
        "段落1 - 要点：茶的历史，约三千年 - 字数：300字\n段落2 - 要点：茶的种类 - 字数：500字",
        "好的，提纲如下：\n段落１　－　主旨：茶的历史，约三千年　－　字数：３００字\n"
        "段落２－要点：茶的种类－字数：约４００－６００字\n合计800字",
        "第一段：茶的历史，约三千年（300字）\n第二段：茶的种类（500字）",
        "**第1段** - **主要内容**：茶的历史，约三千年 - **字数**：300字\n\n"
        "**第2段** - **主要内容**：茶的种类 - **字数**：500字",
        "1、茶的历史，约三千年（约300字）\n2、茶的种类（400到600字）",
    ],
)
def test_reads_chinese_forms(reply: str) -> None:
    assert parse(reply) == [(1, "茶的历史，约三千年", 300), (2, "茶的种类", 500)]


@pytest.mark.parametrize("language", ["en", "zh"])
@settings(max_examples=25)
@given(
    points=st.lists(st.text(st.characters(categories=("L",)), min_size=1, max_size=30), min_size=2, max_size=50),
    words=st.lists(st.integers(1, 9999), min_size=50, max_size=50),
)
def test_reads_back_its_own_lines(language: str, points: list[str], words: list[int]) -> None:
    points = [f"（{point}）里" if language == "zh" else f"the {point} of it" for point in points]
    plan = [PlannedStep(point, count) for point, count in zip(points, words, strict=False)]
    reply = "\n".join(say.plan_line(number, step, language) for number, step in enumerate(plan))
    assert parse(reply) == [(number + 1, step.point, step.words) for number, step in enumerate(plan)]


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        ("", "no line"),
        ("I cannot help with that.", "no line"),
        ("A plan:\n- Introduction\n- Body\n- End", "no line"),
        ("1. Introduction\n2. Body\n3. End", "step 1 has no word count"),
        (FORMS["as asked"].replace(" - Word Count: 500 words", ""), "step 2 has no word count"),
        ("Paragraph 1 - Main Point:  - Word Count: 300 words", "step 1 has no main point"),
    ],
)
def test_what_cannot_be_read_is_no_plan(reply: str, detail: str) -> None:
    with pytest.raises(Unacceptable, match=detail) as fault:
        parse(reply)
    assert fault.value.reason == "bad_plan"


def steps(*words: int) -> list[tuple[int, str, int]]:
    return [(index, f"point {index}", count) for index, count in enumerate(words, 1)]


def checked(plan, required=1000, **changes):
    return check(plan, **{"required": required, "min_words": 100, "max_words": 1500} | changes)


def test_a_good_plan_adds_up() -> None:
    assert checked(steps(400, 600)) == (PlannedStep("point 1", 400), PlannedStep("point 2", 600))
    assert sum(step.words for step in checked(steps(400, 500, 399))) == 1000


@pytest.mark.parametrize(
    ("plan", "detail"),
    [
        (steps(1000), "1 steps"),
        (steps(*[100] * 51), "51 steps"),
        ([(1, "a", 500), (3, "b", 500)], r"numbered \[1, 3\]"),
        ([(2, "a", 500), (1, "b", 500)], "numbered"),
        ([(1, "a", 500), (1, "b", 500)], "numbered"),
        ([(0, "a", 500), (1, "b", 500)], "numbered"),
        ([(1, "The  End", 500), (2, "the end", 500)], "two steps have the point"),
        (steps(99, 901), "step of 99 words"),
        (steps(1501, 200), "step of 1501 words"),
        (steps(650, 651), "1301 words for 1000"),
        (steps(350, 349), "699 words for 1000"),
    ],
)
def test_a_plan_that_will_not_do(plan, detail: str) -> None:
    with pytest.raises(Unacceptable, match=detail) as fault:
        checked(plan)
    assert fault.value.reason == "bad_plan"


def test_thirty_percent_off_is_the_most() -> None:
    assert sum(step.words for step in checked(steps(650, 650))) == 1000
    assert sum(step.words for step in checked(steps(350, 350))) == 1000


@given(st.lists(st.integers(100, 1500), min_size=2, max_size=50), st.floats(0.71, 1.29))
def test_reconciled_plans_add_up_within_bounds_and_keep_their_order(words: list[int], factor: float) -> None:
    required = round(sum(words) * factor)
    if not 100 * len(words) <= required <= 1500 * len(words):
        with pytest.raises(Unacceptable, match="cannot add up"):
            reconcile(words, required, min_words=100, max_words=1500)
        return
    scaled = reconcile(words, required, min_words=100, max_words=1500)
    assert sum(scaled) == required
    assert all(100 <= count <= 1500 for count in scaled)
    free = [(old, new) for old, new in zip(words, scaled, strict=True) if 100 < new < 1499]
    for old, new in free:  # those that no bound holds keep their proportions
        assert abs(new * free[0][0] - old * free[0][1]) <= 2 * max(old, free[0][0])
    for one, other in zip(zip(words, scaled, strict=True), list(zip(words, scaled, strict=True))[1:], strict=False):
        if one[0] <= other[0]:
            assert one[1] <= other[1] + 1


def test_reconcile_by_hand() -> None:
    assert reconcile([100, 400, 500], 1000, min_words=100, max_words=1500) == [100, 400, 500]
    assert reconcile([200, 400, 400], 1300, min_words=100, max_words=500) == [300, 500, 500]
    assert reconcile([100, 200, 200], 400, min_words=100, max_words=500) == [100, 150, 150]
    assert reconcile([300, 300, 300], 1000, min_words=100, max_words=1500) == [334, 333, 333]


MUTATIONS = (
    lambda text, n: text[:n] + text[n + 1 :],
    lambda text, n: text[:n] + "\n" + text[n:],
    lambda text, n: text[:n] + str(n % 10) + text[n:],
    lambda text, n: "\n".join(line for k, line in enumerate(text.split("\n")) if k != n % 5),
    lambda text, n: text.replace("words", "", n % 3),
    lambda text, n: text + "\n" + text.split("\n")[n % len(text.split("\n"))],
    lambda text, n: re.sub(r"\d", lambda m: "０１２３４５６７８９"[int(m.group())], text, count=n % 7),
    lambda text, n: text[: len(text) - n % 40],
    lambda text, n: "Here is the plan for 1000 words:\n\n" + text,
)


@given(st.sampled_from(sorted(FORMS)), st.lists(st.tuples(st.sampled_from(MUTATIONS), st.integers(0, 150)), max_size=6))
def test_a_mangled_plan_is_a_sound_plan_or_refused(form: str, mutations) -> None:
    text = FORMS[form]
    for mutate, place in mutations:
        text = mutate(text, place)
    try:
        plan = check(parse(text), required=1000, min_words=100, max_words=1500)
    except Unacceptable as fault:
        assert fault.reason == "bad_plan"
        assert fault.detail
        return
    assert 2 <= len(plan) <= 50
    assert sum(step.words for step in plan) == 1000
    assert all(100 <= step.words <= 1500 and step.point.strip() for step in plan)
    assert "Here is the plan" not in plan[0].point  # further down it may be a line that was repeated


@given(st.text(max_size=400))
def test_any_text_is_a_plan_or_refused(text: str) -> None:
    try:
        assert parse(text)
    except Unacceptable as fault:
        assert fault.reason == "bad_plan"
