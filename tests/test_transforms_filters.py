"""Rules, languages and verdicts, against the table read by hand."""

import inspect
import random

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.kernels import text_counts
from ropewalk.schemas import tables, testing
from ropewalk.schemas.filters import LANGUAGES, PRESETS, RULES, FilterConfig
from ropewalk.transforms import language, quality
from ropewalk.transforms.filters import FilterDocuments

PROSE = (
    "The rope walk stood along the harbour, and the men who worked in it walked many miles to and fro each day. "
    "They spun the hemp into yarn with care, laid the yarns into strands, and laid the strands into rope. "
    "A master of the trade could tell from the sound of the wheel that a strand would have to be laid again!\n"
)


def judge(texts: list[str], **config: object) -> tuple[list[dict[str, object]], dict[str, int]]:
    batch = testing.of_texts(texts)
    verdicts, counters = FilterDocuments(FilterConfig(min_chars=0, **config))(batch)
    assert verdicts.schema == tables.FILTER
    return verdicts.to_pylist(), counters


def reasons(texts: list[str], **config: object) -> list[object]:
    return [row["filter_reason"] for row in judge(texts, **config)[0]]


def test_the_table_is_whole():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert {rule.figure for rule in RULES} <= set(quality.FIGURES)
    for groups, figure in quality.FIGURES.values():  # what a figure reads is among the groups it asks for
        asked = {name for group in groups for name in text_counts.GROUPS[group]}
        figure({name: np.zeros(1, np.int64) for name in asked})


def test_languages_are_those_of_the_detector():
    from resiliparse.parse.lang import supported_langs

    assert list(LANGUAGES) == supported_langs()


@pytest.mark.parametrize("preset", PRESETS)
def test_prose_passes(preset):
    more = "Where the walk ended, there was a gate to the quay. Ships lay there, and waited for their rigging.\n"
    assert reasons([PROSE + more], rules=(preset,)) == [None]


def reference(rule, counts) -> bool:
    """Whether a rule refuses a text of these counts."""
    figure = float(quality.FIGURES[rule.figure][1](counts)[0])
    if rule.applies == "spaced" and 2 * counts["unspaced"][0] > counts["words"][0]:
        return False
    if counts["words"][0] < rule.min_words:
        return False
    return figure < rule.value if rule.bound == "least" else figure > rule.value


def corpus() -> list[str]:
    sources = [inspect.getsource(module) for module in (quality, language, text_counts)]
    lists = ["- item\n" * 40, "• one\n\n" * 3, "…\n" * 60, "# " * 80, "東京は日本の首都です。" * 20, "a b " * 300]
    prose = [PROSE * k for k in (1, 2, 30)] + [
        PROSE.upper(),
        "Lorem ipsum dolor sit amet.\n" + PROSE,
        PROSE + "Let it be {so}.\n",
    ]
    return [*sources, *lists, *prose, "", " ", "\x00", "😀" * 200, "word " * 60, "x" * 5000, "\n" * 500, "א ב ג " * 30]


def test_every_rule_on_many_texts():
    texts = corpus()
    rows, counters = judge(texts, rules=PRESETS)
    counted = [{name: np.array([n]) for name, n in text_counts.counts_reference(text).items()} for text in texts]
    refused = [[rule.name for rule in RULES if reference(rule, counts)] for counts in counted]
    assert [row["filter_reason"] for row in rows] == [names[0] if names else None for names in refused]
    assert [row["passed"] for row in rows] == [not names for names in refused]
    for rule in RULES:
        assert counters.get(f"{rule.name}-hits", 0) == sum(rule.name in names for names in refused)
        assert counters.get(f"{rule.name}-docs", 0) == sum(names[:1] == [rule.name] for names in refused)
    firsts = sum(count for name, count in counters.items() if name.endswith("-docs"))
    assert firsts == len(texts)  # passed-docs is one of them
    assert len({name for names in refused for name in names}) > 20  # the texts put nearly every rule to the test


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_borders(rule):
    """A figure at its bound passes; the least step beyond is refused."""
    draw = random.Random(rule.name)
    words = "the rope walk of a master and hemp # ... - {x} lorem ipsum. No!\n • … one\n\n two".split(" ")
    texts = [" ".join(draw.choices(words, k=draw.randint(120, 150))) for _ in range(40)]
    counts = quality.count(testing.of_texts(texts).column("text"), frozenset(text_counts.GROUPS))
    figures = quality.FIGURES[rule.figure][1](counts).astype(float)
    for i in np.argsort(figures)[[0, 20, 39]].tolist():
        value = float(figures[i])
        inside, outside = (-np.inf, np.inf) if rule.bound == "least" else (np.inf, -np.inf)
        for bound, passes in (
            (value, True),
            (np.nextafter(value, inside), True),
            (np.nextafter(value, outside), False),
        ):
            found = reasons([texts[i]], rules=(rule.name,), thresholds={rule.name: float(bound)})
            assert found == [None if passes else rule.name], (value, bound)


def test_the_first_rule_of_the_table_is_the_reason():
    text = "- a\n" * 10
    assert reasons([text], rules=("gopher_repetition", "gopher_quality")) == ["too_few_words"]
    assert reasons([text], rules=("gopher_repetition",)) == ["repeated_lines"]
    assert reasons([text], rules=("gopher_quality",), thresholds={"too_few_words": 0}) == ["words_too_short"]
    assert reasons([text], rules=("fineweb", "gopher_quality"), thresholds={"too_few_words": 11}) == ["too_few_words"]


def test_length_comes_first_and_bounds_are_inclusive():
    texts = ["a" * n for n in (9, 10, 20, 21, 0)]
    batch = testing.of_texts(texts)
    verdicts, counters = FilterDocuments(FilterConfig(min_chars=10, max_chars=20, rules=("too_few_words",)))(batch)
    found = verdicts.column("filter_reason").to_pylist()
    assert found == ["too_short", "too_few_words", "too_few_words", "too_long", "too_short"]
    assert counters["passed-docs"] == 0
    assert (counters["too_few_words-docs"], counters["too_few_words-hits"]) == (2, 5)


def test_without_rules_the_text_is_not_read():
    assert FilterDocuments(FilterConfig()).reads == ["num_chars"]
    assert FilterDocuments(FilterConfig(rules=("c4",))).reads == ["num_chars", "text"]
    assert FilterDocuments(FilterConfig(languages=())).reads == ["num_chars", "text"]
    batch = testing.documents(5).select(["num_chars"])
    assert FilterDocuments(FilterConfig())(batch)[1] == {"passed-docs": 5}


GERMAN = (
    "Die Seilerbahn stand am Hafen entlang, und die Männer, die darin arbeiteten, gingen jeden Tag viele Meilen hin "
    "und her. Sie spannen den Hanf mit Sorgfalt zu Garn und schlugen das Garn zu Litzen und die Litzen zu Seilen.\n"
)
TERSE = "Ropes were made here. Men walked backwards, spinning yarn from hemp fibres wound about their waist. " * 2
RUSSIAN = (
    "Канатная дорожка стояла вдоль гавани, и люди, которые в ней работали, каждый день проходили много вёрст. " * 2
)
CHINESE = "制绳工场沿着港口而建,在里面工作的人每天来回走很多里路。他们小心地把麻纺成纱,再把纱捻成股,把股捻成绳。" * 3


def test_languages():
    texts = [PROSE, GERMAN, RUSSIAN, CHINESE, "12 34 56!", ""]
    rows, _ = judge(texts, languages=())
    assert [row["language"] for row in rows] == ["en", "de", "ru", "zh", None, None]
    assert all(row["passed"] for row in rows)
    assert all((row["language_score"] is None) == (row["language"] is None) for row in rows)
    assert all(0 < row["language_score"] <= 1 for row in rows[:4])
    kept, counters = judge(texts, languages=("de", "zh"))
    assert [row["passed"] for row in kept] == [False, True, False, True, False, False]
    assert counters == {"passed-docs": 2, "other_language-docs": 4, "other_language-hits": 4}
    least = rows[1]["language_score"]
    assert reasons([GERMAN], languages=(), language_min_score=least) == [None]
    assert reasons(
        [GERMAN], languages=(), language_min_score=np.nextafter(np.float32(least), np.float32(1)).item()
    ) == ["uncertain_language"]


def test_english_rules_are_for_english():
    rules = ("too_few_stop_words", "too_few_sentences")
    assert reasons([GERMAN], rules=rules) == ["too_few_stop_words"]
    assert reasons([GERMAN, TERSE], rules=rules, languages=()) == [None, "too_few_stop_words"]


def test_word_lengths_are_for_scripts_with_spaces():
    assert reasons([CHINESE, "a b c " * 30], rules=("words_too_short",)) == [None, "words_too_short"]


def test_a_book_is_sampled_at_its_beginning_and_middle():
    half = language.PART_BYTES
    text = RUSSIAN * 400
    data = np.frombuffer(("é" * half + text).encode(), np.uint8)
    found = language.sample(data, 0, len(data))
    assert found.startswith("é" * (half // 2) + "\n") and len(found.encode()) <= 2 * half + 1
    assert found[half // 2 + 2 :] in text  # whole characters of the middle
    short = "abc\u0301"
    assert language.sample(np.frombuffer(short.encode(), np.uint8), 0, len(short.encode())) == "abć"


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_threads_and_order_do_not_matter(threads):
    texts = corpus()
    config = FilterConfig(rules=PRESETS, languages=())
    whole = FilterDocuments(config, threads)(testing.of_texts(texts))[0].to_pylist()
    order = list(range(len(texts)))
    random.Random(3).shuffle(order)
    shuffled = testing.of_texts([texts[i] for i in order])
    pieces = [shuffled.slice(at, 4) for at in range(0, len(texts), 4)]
    found = [row for piece in pieces for row in FilterDocuments(config, 1)(piece)[0].to_pylist()]
    assert found == [whole[i] for i in order]


def test_transform_maps_batches():
    batch = testing.documents(5)

    def check(found):
        assert [b.num_rows for b in found] == [5] and found[0].schema == tables.FILTER

    with TestPipeline(runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner") as p:
        assert_that(p | beam.Create([batch]) | FilterDocuments(FilterConfig(min_chars=1, rules=("fineweb",))), check)


def test_an_empty_batch():
    verdicts, counters = FilterDocuments(FilterConfig(rules=PRESETS, languages=("en",)))(testing.documents(0))
    assert verdicts.num_rows == 0 and counters == {"passed-docs": 0}


def test_nothing_is_computed_that_is_not_asked_for():
    found = quality.count(pa.array([PROSE], pa.large_string()), quality.groups_of(FilterConfig(rules=("c4",)).chosen))
    assert found["sentences"][0] == 3 and found["tokens"][0] == found["lines"][0] == 0
