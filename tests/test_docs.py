"""The documentation says what the code does: settings, recipes, commands and links are checked against it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from ropewalk.pipelines import cli
from ropewalk.schemas import recipe, synth_recipe
from ropewalk.synth.recipes import load

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(cli.app).commands


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def test_settings_page_is_up_to_date():
    command = [sys.executable, "-P", str(ROOT / "docs" / "settings.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "docs/recipes.md", "docs/synthesis.md"])
def test_recipes_shown_are_valid(name):
    shown = [yaml.safe_load(text) for text in blocks(ROOT / name, "yaml")]
    assert shown
    for document in shown:
        if "prompts" in document:
            parsed = synth_recipe.parse_synth_recipe(document, name=name)
            load.load(parsed.recipe)
        else:
            recipe.parse_recipe(document, name=name)


def test_readme_names_every_stage_command_and_option():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [stage for stage in recipe.STAGES if f"| `{stage}` |" not in text] == []
    assert [command for command in COMMANDS if f"ropewalk {command}" not in text] == []
    options = {option for param in COMMANDS["run"].params for option in param.opts if option.startswith("--")}
    assert [option for option in sorted(options) if option not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^ropewalk ([a-z-]+)", text, re.M) + re.findall(r"`ropewalk ([a-z-]+)", text)
    assert set(shown) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("target", ["demo", "test", "check", "format", "bench"])
def test_make_targets_shown_exist(target):
    text = "".join(page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "benchmarks" / "README.md"])
    assert f"make {target}" in text
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
