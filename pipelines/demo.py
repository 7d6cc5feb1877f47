"""The demo's recipes: real documents every machine has, full of near-duplicates; and a few short writing tasks."""

import importlib.util
import json
import sysconfig
from pathlib import Path

from ropewalk.schemas import smollm2

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

TASKS = (
    ("A morning in the long building where ropes are made, told by an apprentice. Write about 120 words.", 120),
    ("How hemp becomes rope, for readers of twelve years. Write about 160 words.", 160),
    ("A letter from a ship's captain to the ropemaker whose cable held in a storm. Write about 120 words.", 120),
    ("A short story about a knot that nobody could untie. Write about 200 words.", 200),
)
"""Writing tasks of our own, and the length each asks for."""
SYNTH_RECIPE = """\
# A model of 135 million parameters writes on this CPU. Its text is a demonstration, not training data.
# For real rows name a real engine: see docs/synthesis.md.
output: {output}
prompts: {{path: {tasks}, source: demo}}

recipe:
  name: agentwrite
  plan: outline          # a fixed outline of sections: this model cannot plan
  section_words: 80
  cut_sentences: true    # a paragraph ends at its last whole sentence
  min_paragraph: 40
  context_words: 80      # it sees only the end of what it wrote: more confuses it
  room: 1.5

engine: local
generation: {{attempts: 4}}
sampling: {{temperature: 0.7, top_p: 0.9}}
"""


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


def write_synth_recipe(output: Path) -> Path:
    """Writes `<output>/synth.yaml` and its tasks unless they are there already; returns the recipe's path."""
    path, tasks = output / "synth.yaml", output / "tasks.jsonl"
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"prompt": task, "required_words": words}) for task, words in TASKS]
        tasks.write_text("\n".join(lines) + "\n", encoding="utf-8")
        names = {"output": json.dumps(str(output / "synth")), "tasks": json.dumps(str(tasks))}
        path.write_text(SYNTH_RECIPE.format(**names), encoding="utf-8")
    return path


def missing_for_synth() -> str | None:
    """What to install before the demo's model can write; none if it is there."""
    if importlib.util.find_spec("openvino_genai") is None:
        return "pip install 'ropewalk[local]'"
    return smollm2.INSTALL if smollm2.path() is None else None
