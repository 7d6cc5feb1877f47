"""Writes the tables of settings in `docs/` from the models of the recipes: `.venv/bin/python docs/settings.py`.

With `--check` it writes nothing and fails if a page differs; a test runs that.
"""

import sys
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ropewalk.schemas import recipe, synth_recipe
from ropewalk.schemas.settings import models_in
from ropewalk.synth.guards import table as table_of_guards
from ropewalk.synth.recipes import load

FOLDER = Path(__file__).resolve().parent
PAGES: dict[str, type[BaseModel]] = {"recipes.md": recipe.Recipe, "synthesis.md": synth_recipe.SynthRecipe}
BEGIN, END = "<!-- settings: written by docs/settings.py -->", "<!-- end of settings -->"
SIZES = {1 << 30: "GiB", 1 << 20: "MiB", 1 << 10: "KiB"}


def sections(whole: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """A recipe's models by the key they stand under, in the order of its fields."""
    found: dict[str, type[BaseModel]] = {"": whole}

    def add(prefix: str, model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            for inner in models_in(field.annotation):
                if inner not in found.values():
                    found[prefix + name] = inner
                    add(f"{prefix}{name}.", inner)

    add("", whole)
    return found


def kind_of(annotation: Any) -> str:
    """An annotation as a reader of YAML would say it."""
    if typing.get_origin(annotation) is Literal:
        return " ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return f"list of {kind_of(typing.get_args(annotation)[0])}"
    if typing.get_origin(annotation) is dict or models_in(annotation) == [annotation]:
        return "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "`true` `false`", type(None): "none"}
    inner = [arg for arg in typing.get_args(annotation) if arg is not Ellipsis]
    return " or ".join(kind_of(arg) for arg in inner) if inner else names.get(annotation, str(annotation))


def bounds_of(metadata: list[Any]) -> str:
    """The least and greatest value allowed, if there are any."""
    least = next((m.ge for m in metadata if getattr(m, "ge", None) is not None), None)
    most = next((m.le for m in metadata if getattr(m, "le", None) is not None), None)
    below = next((m.lt for m in metadata if getattr(m, "lt", None) is not None), None)
    above = next((m.gt for m in metadata if getattr(m, "gt", None) is not None), None)
    parts = [f"from {least}" if least is not None else "", f"above {above}" if above is not None else ""]
    parts.append(f"to {most}" if most is not None else "")
    if below is not None:
        parts.append(f"below 2^{below.bit_length() - 1}" if isinstance(below, int) and below > 1 else f"below {below}")
    return "".join(f", {part}" if i == 0 else f" {part}" for i, part in enumerate(filter(None, parts)))


def default_of(value: Any, name: str) -> str:
    """A default as it would be written in YAML, sizes in bytes with a unit."""
    if value is PydanticUndefined:
        return "**required**"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == () or isinstance(value, tuple):
        return f"`{list(value)}`"
    if isinstance(value, int) and name.endswith(("bytes", "_limit")):
        for size, unit in SIZES.items():
            if value >= size and value % size == 0 and value > 1 << 14:
                return f"`{value}` ({value // size} {unit})"
    return f"`{value}`"


def table(model: type[BaseModel], leave_out: set[str]) -> str:
    """The fields of a model."""
    lines = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in leave_out:
            about = " ".join((field.description or "").split()).replace("|", "\\|")
            values = kind_of(field.annotation) + bounds_of(field.metadata)
            default = PydanticUndefined if field.is_required() else field.get_default(call_default_factory=True)
            lines.append(f"| `{name}` | {values} | {default_of(default, name)} | {about} |")
    return "\n".join(lines)


def settings(whole: type[BaseModel]) -> str:
    """All tables of a recipe."""
    found = sections(whole)
    parts = []
    for name, model in found.items():
        about = " ".join((model.__doc__ or "").split())
        title = f"### `{name}`" if name else "### The recipe itself"
        apart = {field for field in model.model_fields if (f"{name}." if name else "") + field in found}
        parts += [title, about, table(model, apart)]
    return "\n\n".join(parts)


def guards() -> str:
    """The table of guards."""
    lines = ["| guard | refuses | English | Chinese | looked at in | from words | value from |", "|---" * 7 + "|"]
    scopes = {"any": "paragraphs and the whole", "whole": "the whole"}
    for g in table_of_guards.GUARDS:
        sign = "above" if g.direction == "most" else "below"
        flag = g.source == "flag" or g.name == "loop"
        cells = ["any", "", ""] if flag else [sign, f"{g.en:g}", f"{g.zh:g}"]
        cells = [f"`{g.name}`", *cells, scopes[g.scope], str(g.min_words or ""), g.source]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ways() -> str:
    """The settings of every way of writing."""
    parts = []
    for name in load.names():
        model = type(load.load({"name": name}))
        parts += [f"### `{name}`", " ".join((model.__doc__ or "").split()), table(model, {"name"})]
    return "\n\n".join(parts)


def between(page: str, begin: str, end: str, text: str) -> str:
    """A page with what lies between two marks written anew; unchanged if it has no such marks."""
    if begin not in page:
        return page
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"


def render(page: str, whole: type[BaseModel]) -> str:
    """The page with its tables written anew."""
    page = between(page, BEGIN, END, settings(whole))
    page = between(page, "<!-- guards: written by docs/settings.py -->", "<!-- end of guards -->", guards())
    return between(page, "<!-- ways: written by docs/settings.py -->", "<!-- end of ways -->", ways())


def main() -> int:
    """Writes the pages, or checks them."""
    stale = 0
    for name, whole in PAGES.items():
        page = FOLDER / name
        old = page.read_text(encoding="utf-8")
        new = render(old, whole)
        if new == old:
            continue
        if "--check" in sys.argv:
            print(f"{page}: settings have changed; run .venv/bin/python docs/settings.py", file=sys.stderr)
            stale = 1
        else:
            page.write_text(new, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
