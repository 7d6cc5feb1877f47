"""The command line. Each command imports what it needs, so that help and errors come at once."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ropewalk.pipelines import synth_cli
from ropewalk.pipelines.failures import console, failures
from ropewalk.pipelines.kernel_cache import drop_stale_kernels
from ropewalk.pipelines.terminal import shown

app = typer.Typer(
    name="ropewalk",
    help="Training data for long context: lay documents into long sequences, have a model write long answers.",
    epilog="Start with `ropewalk demo`. Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}

Until = Annotated[str, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")]
From = Annotated[str, typer.Option("--from", metavar="STAGE", help="Begin here; the stages before must have finished.")]
Limit = Annotated[int | None, typer.Option(help="Take at most so many documents of every input: a quick try.", min=1)]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: `--set dedup.threshold=0.85`. Repeatable."),
]
Workers = Annotated[int, typer.Option(help="Worker processes of the local runner; 1: threads of this process.", min=1)]
Runner = Annotated[str, typer.Option(help="Beam runner; any other Beam flag is passed through to it.")]
Force = Annotated[bool, typer.Option("--force", help="Run stages again even if they are up to date.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Beam's log.")]


@app.command(context_settings=PASS_THROUGH)
def run(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    first: From = "ingest",
    until: Until = "report",
    limit: Limit = None,
    settings: Settings = None,
    workers: Workers = 1,
    runner: Runner = "local",
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Run the stages of a recipe. What is up to date is skipped; what was interrupted goes on where it was."""
    from ropewalk.pipelines.recipe_files import load_walk

    with failures(debug):
        loaded = load_walk(recipe, _overrides(settings, limit))
        _walk(loaded, workers, runner, context.args, first, until, force, debug)


@app.command(context_settings=PASS_THROUGH)
def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Corpus folder to write.")] = Path("demo"),
    limit: Limit = None,
    settings: Settings = None,
    workers: Workers = 1,
    force: Force = False,
    no_synth: Annotated[
        bool, typer.Option("--no-synth", help="Leave out the part where a small model writes.")
    ] = False,
    debug: Debug = False,
) -> None:
    """The whole walk on documents every machine has, then a small model that writes a few texts on this CPU."""
    from ropewalk.pipelines import demo as example
    from ropewalk.schemas.recipe import load_recipe

    with failures(debug):
        written = example.write_recipe(output)
        console.print(f"The recipe is [bold]{shown(written)}[/]: change it and `ropewalk run {shown(written)}`.")
        loaded = load_recipe(written, _overrides(settings, limit))
        _walk(loaded, workers, "local", context.args, "ingest", "report", force, debug)
    if not no_synth:
        synth_cli.demo(output, force=force, debug=debug)


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    limit: Limit = None,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Show what `run` or `synth` would do: what is up to date, what is read, held, asked and paid. Runs nothing."""
    from ropewalk.pipelines.recipe_files import is_synth, load_synth, load_walk, overrides

    with failures(debug):
        if is_synth(recipe):
            from ropewalk.pipelines.synth_plan import show_synth_plan

            show_synth_plan(load_synth(recipe, overrides(settings), limit=limit), console)
        else:
            from ropewalk.pipelines.plan import show_plan

            show_plan(load_walk(recipe, _overrides(settings, limit)), console)


@app.command()
def inspect(
    directory: Annotated[str, typer.Argument(help="Corpus folder, or folder of a synthesis run.")],
    row: Annotated[int | None, typer.Option(help="Show the document or prompt in this row, in full.", min=0)] = None,
    id: Annotated[str | None, typer.Option("--id", help="Show the document or prompt with this id.")] = None,
    sequence: Annotated[int | None, typer.Option(help="Show this sequence, with its document borders.", min=0)] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the sequence; default: the first one.")] = None,
    similar: Annotated[
        str | None, typer.Option("--similar", metavar="ID", help="Show the documents most similar to this one.")
    ] = None,
    clusters: Annotated[bool, typer.Option("--clusters", help="Show the largest clusters and their words.")] = False,
    count: Annotated[int, typer.Option(help="How many similar documents, or clusters.", min=1, max=1000)] = 10,
    trace: Annotated[bool, typer.Option("--trace", help="Of a prompt: every request, reply and decision.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Of a prompt: show texts whole, not cut in the middle.")] = False,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the first dead letters.")] = False,
    debug: Debug = False,
) -> None:
    """Look at real rows: an overview, a document or prompt, a sequence, what is similar, what was rejected."""
    from ropewalk.pipelines.synth_manifest import is_run
    from ropewalk.schemas.settings import RecipeError

    with failures(debug):
        if is_run(directory):
            if similar is not None or clusters:
                asked = "--clusters" if similar is None else "--similar"
                raise RecipeError(f"{asked}: {directory} is a synthesis run and has no vectors: name a corpus folder")
            synth_cli.inspect(directory, row, id, trace=trace, full=full, rejects=rejects)
            return
        if similar is not None:
            from ropewalk.pipelines.inspect_similar import Similar

            Similar(directory, console).show(similar, count)
            return
        if clusters:
            from ropewalk.pipelines.inspect_clusters import show_clusters
            from ropewalk.transforms.corpus_dir import CorpusDir

            show_clusters(CorpusDir.open(directory), count, console)
            return
        from ropewalk.pipelines.inspect import Inspector

        found = Inspector(directory, console)
        if row is not None or id is not None:
            found.document(row, id)
        elif sequence is not None:
            found.sequence(sequence, layout)
        elif rejects:
            found.rejects()
        else:
            found.overview()


@app.command()
def explain(
    directory: Annotated[str, typer.Argument(help="Corpus folder.")],
    id: Annotated[str, typer.Argument(help="Id of a document, or the beginning of it.")],
    debug: Debug = False,
) -> None:
    """Why a document stays or goes: what each stage found in it, its copies and what they share, where it ended."""
    with failures(debug):
        from ropewalk.pipelines.explain import Explainer

        Explainer(directory, console).explain(id)


@app.command()
def retry_rejects(
    directory: Annotated[str, typer.Argument(help="Corpus folder.")],
    mended: Annotated[
        Path | None, typer.Option("--mended", help="The file of dead letters, mended; without it, one is written.")
    ] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Do not run the recipe with the mended records.")] = False,
    workers: Workers = 1,
    debug: Debug = False,
) -> None:
    """Write rejected records to a file to be mended; with `--mended`, take them back and run the recipe with them."""
    from ropewalk.pipelines import retry_rejects as retry
    from ropewalk.pipelines.synth_manifest import is_run

    with failures(debug):
        if is_run(directory):
            console.print("This is a synthesis run: `ropewalk synth RECIPE --force` asks its failed rows again.")
        elif mended is None:
            retry.show_written(retry.write_letters(directory), directory, console)
        else:
            corpus, file = retry.absolute(directory), retry.absolute(str(mended))
            with retry.recipe_folder(corpus):
                fed = retry.feed(corpus, file)
                retry.show_fed(fed, console)
                if fed.records and not no_run:
                    _walk(retry.recipe_of(corpus), workers, "local", [], "ingest", "report", False, debug)
                elif fed.records or (fed.answered and not retry.is_current(corpus)):
                    console.print("They are not in the corpus yet: the next `ropewalk run` of its recipe reads them.")
            if fed.all_wrong:
                raise typer.Exit(1)


@app.command()
def report(
    directory: Annotated[str, typer.Argument(help="Corpus folder.")],
    debug: Debug = False,
) -> None:
    """Write the corpus' `report.html` again."""
    from ropewalk.pipelines.report import write_report
    from ropewalk.schemas import files

    with failures(debug):
        kept = files.read_bytes(files.join(directory, "recipe.json"))
        console.print(f"Report: [bold]{shown(write_report(directory, recipe=json.loads(kept) if kept else None))}[/]")


app.command()(synth_cli.synth)
app.add_typer(synth_cli.cache_app, name="cache")
app.add_typer(synth_cli.guards_app, name="guards")


def main() -> None:
    """The console script."""
    drop_stale_kernels()
    app()


def _walk(
    recipe: Any, workers: int, runner: str, beam_args: list[str], first: str, until: str, force: bool, debug: bool
) -> None:
    from ropewalk.pipelines import corpus
    from ropewalk.pipelines import retry_rejects as retry
    from ropewalk.pipelines.display import Display
    from ropewalk.pipelines.jobs import LOCAL_RUNNER, Engine

    _check_beam_args(beam_args)
    engine = Engine(LOCAL_RUNNER if runner == "local" else runner, workers, tuple(beam_args), recipe.memory_mb)
    with Display(console) as display:
        outcome = corpus.run(recipe, engine, first=first, until=until, force=force, watcher=display)
    kept = f"{outcome.corpus.rows:,} documents in [bold]{shown(recipe.output)}[/]"
    console.print(f"Done: {kept}" + (f", {outcome.rejected:,} records rejected" if outcome.rejected else ""))
    if outcome.rejected:
        console.print(f"Why they were rejected: [bold]ropewalk inspect {shown(recipe.output)} --rejects[/]")
    retry.show_state(recipe.output, console)
    if outcome.report:
        console.print(f"Report: [bold]{shown(outcome.report)}[/]")


def _overrides(settings: list[str] | None, limit: int | None) -> dict[str, Any]:
    from ropewalk.pipelines.recipe_files import overrides

    return ({} if limit is None else {"ingest.limit": limit}) | overrides(settings)


def _check_beam_args(args: list[str]) -> None:
    """Refuses what neither we nor Beam know: a misspelt flag would otherwise be dropped in silence."""
    import argparse

    from apache_beam.options.pipeline_options import PipelineOptions

    from ropewalk.schemas.recipe import RecipeError

    parser = argparse.ArgumentParser(add_help=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    known = set(parser._option_string_actions)
    ours = ["--from", "--until", "--limit", "--set", "--workers", "--runner", "--force", "--debug"]
    for arg in args:
        name = arg.partition("=")[0]
        if name.startswith("-") and name not in known:
            close = difflib.get_close_matches(name, [*ours, *known], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise RecipeError(f"unknown option {name}: neither Ropewalk nor Beam has it{hint}")
    if args and not args[0].startswith("-"):
        raise RecipeError(f"unexpected argument {args[0]!r}: one recipe at a time; see `ropewalk run --help`")


if __name__ == "__main__":
    main()
