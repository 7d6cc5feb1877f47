"""The command line. Each command imports what it needs, so that help and errors come at once."""

import difflib
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from ropewalk.pipelines.terminal import shown

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="ropewalk",
    help="Lay documents into long training sequences: ingest, deduplicate, order by similarity, pack.",
    epilog="Start with `ropewalk demo`. Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)

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
    from ropewalk.schemas.recipe import load_recipe

    with _failures(debug):
        loaded = load_recipe(recipe, _overrides(settings, limit))
        _walk(loaded, workers, runner, context.args, first, until, force, debug)


@app.command(context_settings=PASS_THROUGH)
def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Corpus folder to write.")] = Path("demo"),
    limit: Limit = None,
    settings: Settings = None,
    workers: Workers = 1,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """The whole walk on documents every machine has: Python's own library and the installed packages."""
    from ropewalk.pipelines import demo as example
    from ropewalk.schemas.recipe import load_recipe

    with _failures(debug):
        written = example.write_recipe(output)
        console.print(f"The recipe is [bold]{shown(written)}[/]: change it and `ropewalk run {shown(written)}`.")
        loaded = load_recipe(written, _overrides(settings, limit))
        _walk(loaded, workers, "local", context.args, "ingest", "report", force, debug)


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    limit: Limit = None,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """Show what `run` would do: what is up to date, what is read, shuffled and held in memory. Runs nothing."""
    from ropewalk.pipelines.plan import show_plan
    from ropewalk.schemas.recipe import load_recipe

    with _failures(debug):
        show_plan(load_recipe(recipe, _overrides(settings, limit)), console)


@app.command()
def inspect(
    directory: Annotated[str, typer.Argument(help="Corpus folder.")],
    row: Annotated[int | None, typer.Option(help="Show the document in this row, with every column.", min=0)] = None,
    id: Annotated[str | None, typer.Option("--id", help="Show the document with this id.")] = None,
    sequence: Annotated[int | None, typer.Option(help="Show this sequence, with its document borders.", min=0)] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the sequence; default: the first one.")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the first dead letters.")] = False,
    debug: Debug = False,
) -> None:
    """Look at real rows of a corpus: an overview, one document, one sequence, or what was rejected."""
    from ropewalk.pipelines.inspect import Inspector

    with _failures(debug):
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
def report(
    directory: Annotated[str, typer.Argument(help="Corpus folder.")],
    debug: Debug = False,
) -> None:
    """Write the corpus' `report.html` again."""
    from ropewalk.pipelines.report import write_report
    from ropewalk.schemas import files

    with _failures(debug):
        kept = files.read_bytes(files.join(directory, "recipe.json"))
        console.print(f"Report: [bold]{shown(write_report(directory, recipe=json.loads(kept) if kept else None))}[/]")


def main() -> None:
    """The console script."""
    app()


def _walk(
    recipe: Any, workers: int, runner: str, beam_args: list[str], first: str, until: str, force: bool, debug: bool
) -> None:
    _quiet(debug)
    from ropewalk.pipelines import corpus
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
    if outcome.report:
        console.print(f"Report: [bold]{shown(outcome.report)}[/]")


def _overrides(settings: list[str] | None, limit: int | None) -> dict[str, Any]:
    from ropewalk.schemas.recipe import RecipeError

    found: dict[str, Any] = {} if limit is None else {"ingest.limit": limit}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set {setting}: write NAME=VALUE, such as --set dedup.threshold=0.85")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RecipeError(f"--set {setting}: the value is not valid YAML") from None
    return found


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


def _quiet(debug: bool) -> None:
    """Keeps the log of Beam and its libraries out of the progress display."""
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR, format="%(name)s: %(message)s")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not debug:
        threading.excepthook = lambda failure: None  # Beam's threads; what fails a job reaches us as its error


class _failures:
    """Turns exceptions into messages and exit codes."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug

    def __enter__(self) -> None:
        _quiet(self.debug)
        signal.signal(signal.SIGTERM, _terminated)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        from ropewalk.schemas.recipe import RecipeError

        if error is None or isinstance(error, SystemExit | typer.Exit):
            return
        if isinstance(error, KeyboardInterrupt):
            errors.print("Interrupted. Finished shards are kept: the same command goes on from here.")
            _leave(EXIT_INTERRUPTED)
        if self.debug:
            return
        if isinstance(error, RecipeError | FileNotFoundError | NotADirectoryError | PermissionError | BlockingIOError):
            errors.print(f"[bold red]error[/] {shown(error)}", highlight=False)
            _leave(EXIT_USAGE)
        reason = _root_cause(error)
        errors.print(f"[bold red]failed[/] {shown(reason)}", highlight=False)
        errors.print("Finished shards are kept: the same command goes on from here. `--debug` shows the traceback.")
        _leave(EXIT_FAILURE)


def _terminated(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _root_cause(error: BaseException) -> str:
    """Beam wraps a worker's error in layers of text; the last line is the one that says what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


def _leave(code: int) -> None:
    """Ends the process and its workers at once: everything worth keeping is on disk already."""
    import contextlib

    import psutil

    sys.stdout.flush()
    sys.stderr.flush()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(code)


if __name__ == "__main__":
    main()
