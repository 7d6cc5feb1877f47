"""`ropewalk plan` of a synthesis recipe: what would be asked, before anything is spent. It asks nothing.

Tokens are what the way of writing expects to generate for each prompt (`recipe.expected_tokens`); the prompts that are
read again with every step are not in it, nor what is generated and refused.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from ropewalk.pipelines import synth_prompts
from ropewalk.pipelines.synth import run_key, shards_key
from ropewalk.pipelines.synth_manifest import read_engine, read_manifest
from ropewalk.pipelines.synth_tables import SynthTables
from ropewalk.pipelines.terminal import shown
from ropewalk.schemas.synth_recipe import SynthRecipe
from ropewalk.schemas.synthesis import PROMPTS
from ropewalk.synth import cache_files
from ropewalk.synth.recipe import Prompt, Recipe
from ropewalk.synth.recipes.load import load


@dataclass
class Expected:
    """What is known of the prompts of one source before the run.

    Attributes:
        prompts: Prompts.
        finished: Of those, in finished shards.
        begun: Of the others, with some answer in the cache.
        tokens: Tokens the unfinished ones will likely generate.
    """

    prompts: int = 0
    finished: int = 0
    begun: int = 0
    tokens: int = 0


@dataclass
class SynthPlan:
    """What a run would do.

    Attributes:
        sources: By source.
        rejected: Records that are no prompt, by reason.
        up_to_date: Whether nothing is left to do.
    """

    sources: dict[str, Expected] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    up_to_date: bool = False


def plan(recipe: SynthRecipe) -> SynthPlan:
    """Works out what a run of the recipe would do. Writes nothing.

    Raises:
        RecipeError: The recipe cannot be run.
    """
    way = load(recipe.recipe)
    inputs = synth_prompts.list_prompts(recipe)
    prompts_key = synth_prompts.prompts_key(recipe, inputs)
    key = run_key(recipe, way, prompts_key)
    laid, manifest = synth_prompts.manifest(recipe.output), read_manifest(recipe.output)
    found = SynthPlan(up_to_date=manifest is not None and manifest.key == key)
    begun = _begun(recipe)
    if laid is None or laid.key != prompts_key:
        for prompt in _read(inputs, found.rejected):
            _count(found, way, prompt, False, begun)
        return found
    for name, count in laid.counters.items():
        if name.startswith("reason:"):
            found.rejected[name.removeprefix("reason:").removesuffix("-records")] = count
    info = read_engine(recipe.output)
    judge = read_engine(recipe.output, "judge")
    tables = SynthTables(recipe.output, laid, shards_key(key, info, judge) if info else key)
    done = set(range(len(laid.shards))) if found.up_to_date else tables.done()
    for shard in range(len(laid.shards)):
        for prompt in tables.read_prompts(shard):
            _count(found, way, prompt, shard in done, begun)
    return found


def show_synth_plan(recipe: SynthRecipe, console: Console) -> None:
    """Prints the plan: prompts by source, what is done, expected tokens and cost."""
    found = plan(recipe)
    table = Table("source", "prompts", "finished", "begun", "tokens to generate", "cost")
    for column in table.columns[1:]:
        column.justify = "right"
    total = Expected()
    for source, expected in sorted(found.sources.items()):
        table.add_row(shown(source), *_cells(expected, recipe))
        for name, value in vars(expected).items():
            setattr(total, name, getattr(total, name) + value)
    if len(found.sources) > 1:
        table.add_row("all", *_cells(total, recipe), style="bold")
    console.print(table)
    for reason, count in sorted(found.rejected.items()):
        console.print(f"no prompt: {count:,} records, {shown(reason)}")
    engine = recipe.engine.name + (f", model {recipe.engine.model}" if recipe.engine.model else "")
    console.print(f"Recipe {shown(recipe.recipe['name'])} on engine {shown(engine)}; writes {shown(recipe.output)}.")
    if not recipe.limits.price.completion:
        console.print("Set `limits.price.completion` (a million tokens) to see what it would cost.")
    else:
        console.print(
            "The cost is that of the tokens generated; prompts that are read, and refused texts, come on top."
        )
    console.print("All rows are up to date." if found.up_to_date else "Nothing was asked.")


def _cells(expected: Expected, recipe: SynthRecipe) -> list[str]:
    price = recipe.limits.price.completion
    cost = f"{expected.tokens * price / 1e6:,.2f}" if price else ""
    return [f"{value:,}" for value in vars(expected).values()] + [cost]


def _count(found: SynthPlan, way: Recipe, prompt: Prompt, finished: bool, begun: set[str]) -> None:
    expected = found.sources.setdefault(prompt.source, Expected())
    expected.prompts += 1
    if finished:
        expected.finished += 1
    else:
        expected.begun += prompt.id in begun
        expected.tokens += way.expected_tokens(prompt)


def _read(inputs: list[synth_prompts.Input], rejected: Counter[str]) -> Iterator[Prompt]:
    """Prompts straight from the inputs, counted but not kept."""
    seen: set[str] = set()
    for item in inputs:
        for found in synth_prompts.read_input(item):
            rejected.update(row["reason"] for row in found.rejects)
            for prompt in synth_prompts.prompts_of(pa.RecordBatch.from_pylist(found.prompts, schema=PROMPTS)):
                if prompt.id in seen:
                    rejected["duplicate_id"] += 1
                else:
                    seen.add(prompt.id)
                    yield prompt


def _begun(recipe: SynthRecipe) -> set[str]:
    """Rows with some answer in the cache."""
    return {row for batch in cache_files.read(recipe.cache_url) for row in batch.column("row").unique().to_pylist()}
