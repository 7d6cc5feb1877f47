"""Recipe files as the commands take them: of which half they are, and `--set`."""

from pathlib import Path
from typing import Any

import yaml

from ropewalk.schemas.recipe import Recipe, load_recipe
from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import SynthRecipe, load_synth_recipe


def is_synth(path: Path) -> bool:
    """Whether a file is the recipe of a synthesis run: it says `prompts`. False for what is no recipe at all."""
    return "prompts" in _keys(path)


def load_walk(path: Path, overrides: dict[str, Any]) -> Recipe:
    """Reads the recipe of a corpus.

    Raises:
        RecipeError: It is no such recipe, or wrong; see `settings.load`.
    """
    if is_synth(path):
        raise RecipeError(f"{path}: says `prompts`, so it is a synthesis recipe: use `ropewalk synth {path}`")
    return load_recipe(path, overrides)


def load_synth(
    path: Path, overrides: dict[str, Any], *, engine: str | None = None, limit: int | None = None
) -> SynthRecipe:
    """Reads the recipe of a synthesis run.

    Args:
        path: The file.
        overrides: Values by dotted name.
        engine: Engine to use instead of the recipe's; what the recipe sets for another engine is left out.
        limit: At most so many prompts of every input.

    Raises:
        RecipeError: It is no such recipe, or wrong; see `settings.load`.
    """
    keys = _keys(path)
    if "input" in keys and "prompts" not in keys:
        raise RecipeError(f"{path}: says `input` and no `prompts`, so it is a corpus recipe: use `ropewalk run {path}`")
    if engine is not None:
        written = keys.get("engine")
        same = engine == (written.get("name", "local") if isinstance(written, dict) else written)
        overrides = overrides if same else {"engine": {"name": engine}} | overrides
    loaded = load_synth_recipe(path, overrides)
    if limit is None:
        return loaded
    inputs = [item.model_copy(update={"limit": min(limit, item.limit or limit)}) for item in loaded.prompts]
    return loaded.model_copy(update={"prompts": tuple(inputs)})


def overrides(settings: list[str] | None) -> dict[str, Any]:
    """Values of `--set` by dotted name.

    Raises:
        RecipeError: One is not `NAME=VALUE`, or its value is no YAML.
    """
    found: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set {setting}: write NAME=VALUE, such as --set dedup.threshold=0.85")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(f"--set {setting}: the value is not valid YAML") from None
    return found


def _keys(path: Path) -> dict[str, Any]:
    """The file's top level, as far as it is a mapping; what is wrong with it is told by who loads it."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}
