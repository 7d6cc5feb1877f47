"""The demo's recipe: real documents every machine has, full of near-duplicates."""

import json
import sysconfig
from pathlib import Path

RECIPE = """\
# Python's own standard library, and the sources and docs of the installed packages.
# Only what differs from the defaults is set: see docs/recipes.md for every setting.
output: {output}

input:
  - {{path: {stdlib}, source: stdlib, format: code, exclude: [site-packages, __pycache__], priority: 1}}
  - {{path: {packages}, source: packages, format: code, exclude: [__pycache__]}}
  - {{path: {packages}, source: docs, format: text, exclude: [__pycache__]}}

ingest:
  limit: {limit}        # documents of each input, for a quick demo; remove it for all

filter:
  min_chars: 200

dedup:
  threshold: 0.75

pack:
  - {{layout: in_context, length: 8192}}
  - {{layout: in_context, length: 32768}}
  - {{layout: random, length: 8192}}
"""
LIMIT = 2500


def write_recipe(output: Path) -> Path:
    """Writes `<output>/recipe.yaml` unless it is there already; returns its path."""
    path = output / "recipe.yaml"
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        paths = sysconfig.get_paths()
        # JSON strings are YAML strings, whatever signs a path has.
        names = {"output": str(output), "stdlib": paths["stdlib"], "packages": paths["purelib"]}
        text = RECIPE.format(limit=LIMIT, **{name: json.dumps(path) for name, path in names.items()})
        path.write_text(text, encoding="utf-8")
    return path
