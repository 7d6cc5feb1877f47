"""Finds a recipe by its name: the module in this folder that is called so, and the model in it that says so.

There is no registry: a new recipe is a new file that holds a frozen settings model whose `name` is the file's.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, cast

from ropewalk.schemas import settings
from ropewalk.schemas.settings import RecipeError, Settings
from ropewalk.synth import recipes
from ropewalk.synth.recipe import Recipe


def names() -> list[str]:
    """Names of all recipes."""
    return [module.name for module in pkgutil.iter_modules(recipes.__path__) if _model(module.name)]


def load(document: Mapping[str, Any]) -> Recipe:
    """Makes a recipe of its settings.

    Args:
        document: The mapping under `recipe:`, with `name`.

    Raises:
        RecipeError: No such recipe (the message names all), an unknown setting or a wrong value.
    """
    known, name = names(), document.get("name")
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RecipeError(f"recipe: there is no {name!r}; {hint}known: {', '.join(known)}")
    model = _model(str(name))
    assert model is not None  # noqa: S101 - it is in `names`
    return cast(Recipe, settings.parse(model, dict(document), name=f"recipe {name}"))


def _model(module: str) -> type[Settings] | None:
    for value in vars(importlib.import_module(f"{recipes.__name__}.{module}")).values():
        if isinstance(value, type) and issubclass(value, Settings) and "name" in value.model_fields:
            if value.model_fields["name"].default == module:
                return value
    return None
