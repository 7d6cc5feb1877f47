import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.schemas.recipe import InputConfig, Recipe, RecipeError, load_recipe, parse_recipe, source_name

MINIMAL = {"output": "corpus", "input": "data/*.jsonl"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dedup": {"treshold": 0.8}}, "dedup.treshold: unknown setting; did you mean 'threshold'?"),
        ({"dedupe": {}}, "dedupe: unknown setting; did you mean 'dedup'?"),
        ({"input": [{"path": "x", "txt": "body"}]}, "input.0.txt: unknown setting; did you mean 'text'?"),
        ({"pack": [{"lenght": 9}]}, "pack.0.lenght: unknown setting; did you mean 'length'?"),
        ({"dedup": {"threshold": 1.5}}, "dedup.threshold: Input should be less than or equal to 1 (got 1.5)"),
        ({"input": []}, "input:"),
        ({"embed": False}, "cluster needs embed"),
        ({"tokenize": False}, "pack needs tokenize"),
        ({"order": False}, "layout 'in_context' needs order"),
        ({"pack": [{}, {"layout": "in_context"}]}, "layout and length must differ"),
        ({"filter": {"min_chars": 10, "max_chars": 5}}, "max_chars=5 is below min_chars=10"),
    ],
)
def test_faults_name_the_field_and_the_remedy(change, expected):
    with pytest.raises(RecipeError) as fault:
        parse_recipe(MINIMAL | change, name="r.yaml")
    assert expected in str(fault.value)
    assert str(fault.value).startswith("r.yaml: ")


def test_every_fault_is_listed():
    with pytest.raises(RecipeError) as fault:
        parse_recipe({"input": "x", "sed": 1, "dedup": {"bands": 0}})
    assert len(str(fault.value).splitlines()) == 3


def test_defaults_and_shorthands():
    recipe = parse_recipe(MINIMAL | {"dedup": None, "pack": {"length": 64}})
    assert recipe.input == (InputConfig(path="data/*.jsonl"),)
    assert recipe.dedup.threshold == 0.75
    assert [pack.name for pack in recipe.pack] == ["in_context-64"]
    assert not parse_recipe(MINIMAL | {"dedup": False}).enabled("dedup")


def test_recipes_are_frozen():
    with pytest.raises(ValueError):
        parse_recipe(MINIMAL).seed = 3


def test_overrides_reach_into_lists(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | {"pack": [{"length": 8}, {"length": 16}]}))
    recipe = load_recipe(path, {"pack.1.length": 32, "dedup.threshold": 0.9})
    assert [pack.length for pack in recipe.pack] == [8, 32]
    assert recipe.dedup.threshold == 0.9
    with pytest.raises(RecipeError, match="'2' is not one of the 2 entries"):
        load_recipe(path, {"pack.2.length": 1})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such recipe"),
        (b"a: [", "not valid YAML"),
        (b"- 1", "a recipe is a mapping"),
        (b"\xff\xfe\xfa", "cannot be read"),
    ],
)
def test_unreadable_recipes(tmp_path, content, expected):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=expected):
        load_recipe(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/wiki/*.jsonl.gz", "wiki"),
        ("books.parquet", "books"),
        ("hf://datasets/org/name/data/*.parquet", "data"),
        ("s3://bucket/", "bucket"),
        ("*", "input"),
    ],
)
def test_source_names(path, name):
    assert source_name(InputConfig(path=path)) == name


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_document_is_a_recipe_or_a_recipe_error(document):
    try:
        assert isinstance(parse_recipe(document if isinstance(document, dict) else {"input": document}), Recipe)
    except RecipeError as fault:
        assert str(fault)
