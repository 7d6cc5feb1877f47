"""The commands of the synthesis half: `synth`, `cache`, `guards`. `cli` adds them to the others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ropewalk.pipelines.failures import EXIT_FAILURE, EXIT_INTERRUPTED, console, errors, failures
from ropewalk.pipelines.terminal import shown

KEPT = "Every finished request is in the cache"
REMEDIES = {
    "tokens": "The budget is that of one run; `--budget-tokens` sets another. ",
    "money": "The budget is that of one run; `--budget-money` sets another. ",
    "errors": "See what the server says of these requests, or lower `engine.max_sequences`. ",
}
"""What to do, by why a run stopped."""

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file with `prompts`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: `--set sampling.temperature=0.7`. Repeatable."),
]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", metavar="NAME", help="local, vllm, openai or echo; in place of the recipe's engine."),
]
Limit = Annotated[int | None, typer.Option(help="Take at most so many prompts of every input: a quick try.", min=1)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the libraries' logs.")]
Cache = Annotated[str, typer.Argument(help="Folder of a run, or of a request cache.")]

cache_app = typer.Typer(no_args_is_help=True, help="Look at the request cache of a synthesis run, and tidy it.")
guards_app = typer.Typer(no_args_is_help=True, help="The guards that refuse degenerate text.")


def synth(
    recipe: Recipe,
    engine: EngineName = None,
    limit: Limit = None,
    settings: Settings = None,
    budget_tokens: Annotated[
        int | None, typer.Option("--budget-tokens", metavar="N", help="Stop after N generated tokens.", min=1)
    ] = None,
    budget_money: Annotated[
        float | None, typer.Option("--budget-money", metavar="X", help="Stop at this cost, at `limits.price`.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be asked, and ask nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make all rows again, even if they are up to date; answers stay cached.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Have a model write a row for every prompt. What is done is skipped; what was interrupted goes on."""
    from ropewalk.pipelines.recipe_files import load_synth, overrides

    with failures(debug, kept=KEPT):
        budget: dict[str, Any] = {"limits.tokens": budget_tokens, "limits.money": budget_money}
        changed = {name: value for name, value in budget.items() if value is not None} | overrides(settings)
        loaded = load_synth(recipe, changed, engine=engine, limit=limit)
        if dry_run:
            from ropewalk.pipelines.synth_plan import show_synth_plan

            show_synth_plan(loaded, console)
        else:
            run(loaded, force=force)


def demo(output: Path, *, force: bool, debug: bool) -> None:
    """The synthesis part of the demo: a small model writes a few short texts on this CPU, if it is installed."""
    from ropewalk.pipelines import demo as example
    from ropewalk.pipelines.recipe_files import load_synth

    missing = example.missing_for_synth()
    if missing is not None:
        console.print(f"A small model could write on this CPU as well: [bold]{shown(missing)}[/], and the demo again.")
        return
    with failures(debug, kept=KEPT):
        written = example.write_synth_recipe(output)
        console.print(
            f"Now a model of 135 million parameters writes, by [bold]{shown(written)}[/]. "
            "Its text is a demonstration, not training data; the guards refuse some of it."
        )
        run(load_synth(written, {}), force=force)


def run(recipe: Any, *, force: bool = False) -> None:
    """Makes the rows of a recipe, shows how it goes, and ends the process unless all of them are there."""
    from ropewalk.pipelines import synth as synthesis
    from ropewalk.pipelines.synth_display import SynthDisplay

    with SynthDisplay(recipe.output, console) as display:
        outcome = synthesis.run(recipe, force=force, watcher=display)
    if outcome.manifest is None:
        display.stopped()
    if outcome.interrupted:
        errors.print(f"Interrupted. {KEPT}: the same command goes on from here.")
        raise typer.Exit(EXIT_INTERRUPTED)
    if outcome.stopped is not None:
        errors.print(f"[bold red]stopped[/] {shown(outcome.stopped)}", highlight=False)
        remedy = REMEDIES.get(outcome.stopped.split(":")[0], "")
        errors.print(f"{remedy}{KEPT}: the same command goes on from here.", highlight=False)
        raise typer.Exit(EXIT_FAILURE)


def inspect(directory: str, row: int | None, id: str | None, *, trace: bool, full: bool, rejects: bool) -> None:
    """Shows what was asked for of a run's folder."""
    from ropewalk.pipelines.synth_inspect import SynthInspector
    from ropewalk.schemas.settings import RecipeError

    found = SynthInspector(directory, console, full=full)
    named = row is not None or id is not None
    if trace and not named:
        raise RecipeError("--trace: of which row? Add --row N or --id ID")
    if named:
        (found.trace if trace else found.row)(row, id)
    elif rejects:
        found.rejects()
    else:
        found.overview()


@cache_app.command("stats")
def cache_stats(directory: Cache, debug: Debug = False) -> None:
    """What the cache holds: requests and tokens by model, files and bytes."""
    with failures(debug):
        from ropewalk.pipelines.synth_cache import show_stats

        show_stats(directory, console)


@cache_app.command("gc")
def cache_gc(
    directory: Cache,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", help="Drop answers older than this.", min=0)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Drop answers of this model.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and touch nothing.")] = False,
    debug: Debug = False,
) -> None:
    """Join the cache's files into few, and drop what is named; without a name nothing is dropped."""
    with failures(debug):
        from ropewalk.pipelines.synth_cache import collect

        collect(directory, console, older_than=older_than, model=model, dry_run=dry_run)


@guards_app.command("calibrate")
def guards_calibrate(
    file: Annotated[str, typer.Argument(help="Text that people wrote: any file or folder that `ropewalk run` reads.")],
    language: Annotated[str | None, typer.Option(help="en or zh; default: by each text's script.")] = None,
    field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    debug: Debug = False,
) -> None:
    """How often each guard refuses text that people wrote, by guard: its false alarms."""
    with failures(debug):
        from ropewalk.pipelines.synth_guards import show_calibration

        show_calibration(file, language, field, console)
