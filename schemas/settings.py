"""Settings read from YAML: frozen models, unknown keys refused with a suggestion, faults that name file and field."""

import difflib
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

M = TypeVar("M", bound=BaseModel)


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names file, field, value and remedy."""


class Settings(BaseModel):
    """Base of every settings model: frozen, no unknown keys, the docstring under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )  # JSON has no infinity; its name is read back as the number


def load(model: type[M], path: str | Path, overrides: dict[str, Any] | None = None) -> M:
    """Reads a YAML file into a model.

    Args:
        model: The model of the whole file.
        path: The file.
        overrides: Values by dotted name (`{"dedup.threshold": 0.85, "pack.0.length": 32768}`), set last.

    Raises:
        RecipeError: The file is missing, no YAML, or has an unknown key or a wrong value.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe. `ropewalk demo` shows one at work") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(document, dict):
        needed = " and ".join(f"`{name}`" for name, field in model.model_fields.items() if field.is_required())
        raise RecipeError(f"{path}: a recipe is a mapping with {needed}, got {type(document).__name__}")
    for name, value in (overrides or {}).items():
        _set(document, name, value, str(path))
    return parse(model, document, name=str(path))


def parse(model: type[M], document: dict[str, Any], *, name: str = "recipe") -> M:
    """Validates settings given as plain data; see `load`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        faults = error.errors()
        # `stage: false` is the second choice of a union: its complaint only repeats the first one's.
        faults = [f for f in faults if f["type"] != "literal_error" or f["ctx"]["expected"] != "False"] or faults
        raise RecipeError("\n".join(_explain(model, name, fault) for fault in faults)) from None


def models_in(kind: Any) -> list[type[BaseModel]]:
    """The models inside an annotation such as `tuple[PackConfig, ...] | Literal[False]`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for inner in typing.get_args(kind) for model in models_in(inner)]


def _set(document: dict[str, Any], dotted: str, value: Any, name: str) -> None:
    *parents, last = dotted.split(".")
    here: Any = document
    for part in parents:
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise RecipeError(f"{name}: --set {dotted}: {part!r} is not one of the {len(here)} entries")
            here = here[int(part)]
            continue
        if not isinstance(here.get(part), dict | list):
            here[part] = {}
        here = here[part]
    if isinstance(here, list):
        if not last.isdigit() or int(last) >= len(here):
            raise RecipeError(f"{name}: --set {dotted}: {last!r} is not one of the {len(here)} entries")
        here[int(last)] = value
    else:
        here[last] = value


def _explain(model: type[BaseModel], name: str, fault: Any) -> str:
    place = [str(part) for part in fault["loc"] if not _is_tag(part)]
    field = ".".join(place) or "recipe"
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, place[:-1])
        close = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        return f"{name}: {field}: unknown setting; {hint}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    shown = "" if fault["type"] in ("missing", "value_error") else f" (got {fault['input']!r})"
    return f"{name}: {field}: {message}{shown}"


def _is_tag(part: Any) -> bool:
    return isinstance(part, str) and (part.endswith("Config") or part.startswith(("literal", "tuple", "function")))


def _known_keys(model: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        inner = models_in(model.model_fields[part].annotation) if part in model.model_fields else []
        model = inner[0] if inner else model
    return list(model.model_fields)
