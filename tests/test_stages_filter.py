"""The stage in whole: columns, counters, keys and faults of its settings."""

import random

import datasets
import pytest

from ropewalk.pipelines.stages import filter as stage
from ropewalk.schemas import testing
from ropewalk.schemas.filters import RULES, FilterConfig
from ropewalk.schemas.recipe import RecipeError, parse_recipe

TEXTS = [
    "The men of the rope walk have to be strong, and they walk with the yarn. " * 3,
    "a",
    "- item and the rope\n" * 40,
    "Let the function be {open} and the rope of hemp that we have.\n" * 9,
    "Канатная дорожка стояла вдоль гавани, и люди, которые в ней работали, ходили много. " * 2,
    "12345 67890 " * 30,
]


def run(lay, run_stage, shards, name, **config):
    corpus = lay(*[testing.of_texts(texts) for texts in shards], name=name)
    recipe = parse_recipe({"output": corpus.url, "input": "x", "filter": config})
    manifest = run_stage(corpus, recipe, "filter")
    joined = datasets.concatenate_datasets(
        [datasets.load_from_disk(corpus.folder("documents")), datasets.load_from_disk(corpus.folder("filter"))], axis=1
    )
    return joined, manifest.counters


def test_stage_writes_aligned_columns(lay, run_stage):
    shards = [[" ".join(["word"] * n) for n in range(250)], [" ".join(["word"] * n) for n in range(30)]]
    joined, counters = run(lay, run_stage, shards, "corpus", min_chars=60)
    assert len(joined) == 280
    assert all(row["passed"] == (row["num_chars"] >= 60) for row in joined)
    assert all(row["language"] is None and row["language_score"] is None for row in joined)
    assert counters["passed-docs"] + counters["too_short-docs"] == counters["docs-in"] == 280


def test_sharding_and_order_change_nothing(lay, run_stage):
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 20)]
    config = {"rules": ["gopher_quality", "gopher_repetition", "c4", "fineweb"], "languages": ["en"]}
    shuffled = random.Random(5).sample(texts, len(texts))
    whole, whole_counters = run(lay, run_stage, [texts], "whole", **config)
    split, split_counters = run(lay, run_stage, [shuffled[:37], shuffled[37:]], "split", **config)

    def verdicts(joined):
        return {
            row["text"]: (row["passed"], row["filter_reason"], row["language"], row["language_score"]) for row in joined
        }

    assert verdicts(whole) == verdicts(split)
    assert whole_counters == split_counters
    names = [name for name in whole_counters if name.endswith("-docs")]
    assert sum(whole_counters[name] for name in names) == whole_counters["docs-in"] == len(texts)
    for name in names:
        if name != "passed-docs":
            assert whole_counters[name] <= whole_counters[name.removesuffix("-docs") + "-hits"]
    assert {row["filter_reason"] for row in whole} <= {
        "too_short", "other_language", None, *(rule.name for rule in RULES),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rules": ["gopher_qualty"]}, "unknown preset or rule 'gopher_qualty'; did you mean 'gopher_quality'?"),
        ({"thresholds": {"too_few_word": 1}}, "unknown rule 'too_few_word'; did you mean 'too_few_words'?"),
        ({"thresholds": {"top_2gram": 1}}, "top_2gram is not on: add 'gopher_repetition' or 'top_2gram' to `rules`"),
        ({"rules": ["c4"], "thresholds": {"lorem_ipsum": float("nan")}}, "lorem_ipsum: nan is no number"),
        ({"languages": ["english"]}, "unknown language 'english'"),
        ({"language_min_score": 0.1}, "language_min_score needs `languages`"),
        ({"min_chars": 9, "max_chars": 8}, "nothing would pass"),
        ({"rule": ["c4"]}, "unknown setting; did you mean 'rules'?"),
    ],
)
def test_faults_name_value_and_remedy(config, message):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"output": "o", "input": "x", "filter": config})
    assert message in str(caught.value)


def test_what_the_key_depends_on():
    plain, ruled = FilterConfig(), FilterConfig(rules=("c4",), thresholds={"too_few_sentences": 3})
    assert stage.extra_key(plain) == {"rules": []}
    values = {rule[0]: rule[4] for rule in stage.extra_key(ruled)["rules"]}
    assert values == {"lorem_ipsum": 0, "curly_bracket": 0, "too_few_sentences": 3}
    assert set(stage.extra_key(FilterConfig(languages=()))) == {"rules", "resiliparse"}


def test_rules_keep_the_order_of_the_table():
    both = FilterConfig(rules=("fineweb", "words_too_long", "c4"))
    assert [rule.name for rule in both.chosen] == [
        rule.name for rule in RULES if rule.preset in ("fineweb", "c4") or rule.name == "words_too_long"
    ]
    off = FilterConfig(rules=("c4",), thresholds={"too_few_sentences": float("-inf")})
    assert [rule.value for rule in off.chosen] == [0, 0, float("-inf")]
