import pytest

from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth.recipe import Prompt
from ropewalk.synth.recipes import load


def test_finds_recipes_by_their_module() -> None:
    assert {"agentwrite", "direct"} <= set(load.names())
    assert not {"load", "writing", "agentwrite_plan", "agentwrite_prompts"} & set(load.names())


@pytest.mark.parametrize("name", load.names())
def test_every_recipe_has_the_agreed_face(name: str) -> None:
    recipe = load.load({"name": name})
    assert recipe.name == name
    assert recipe.version >= 1
    assert recipe.expected_tokens(Prompt("p", "Write 2,000 words about tea")) >= 2000
    assert type(recipe).model_config["frozen"]
    settings = {field: info.description for field, info in type(recipe).model_fields.items()}
    assert all(settings.values()), "a setting without documentation"


def test_settings_come_from_the_runs_recipe() -> None:
    run = parse_synth_recipe({"output": "o", "prompts": "p.jsonl", "recipe": {"name": "direct", "min_s_l": 80}})
    assert load.load(run.recipe).min_s_l == 80


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "there is no None; known: agentwrite, direct"),
        ({"name": "agentwrit"}, "did you mean 'agentwrite'"),
        ({"name": "load"}, "there is no 'load'"),
        ({"name": "../direct"}, "there is no"),
        ({"name": "direct", "min_sl": 80}, "did you mean 'min_s_l'"),
        ({"name": "direct", "min_s_l": 101}, "min_s_l"),
        ({"name": "direct", "version": 7}, "version: unknown setting"),
        ({"name": "direct", "min_s_q": 50}, "judge: true"),
        ({"name": "agentwrite", "min_paragraph": 800}, "twice min_paragraph"),
    ],
)
def test_refuses_and_names_the_remedy(settings: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        load.load(settings)


def test_long_rows_are_expected_to_take_longer() -> None:
    for name in load.names():
        recipe = load.load({"name": name})
        tokens = [recipe.expected_tokens(Prompt("p", f"Write {n} words about tea")) for n in (300, 3000, 30_000)]
        assert tokens == sorted(tokens)
        assert recipe.expected_tokens(Prompt("p", "tea", required_words=3000)) == tokens[1]
        assert recipe.expected_tokens(Prompt("p", "word " * 3000, kind="document")) == tokens[1]
