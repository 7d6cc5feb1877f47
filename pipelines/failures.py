"""How a command ends: exceptions become messages and exit codes."""

import contextlib
import logging
import os
import signal
import sys
import threading
from typing import Any

import typer
from rich.console import Console

from ropewalk.pipelines.terminal import shown

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

console = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)


class failures:
    """Context manager around a command: turns what goes wrong into a message and an exit code.

    Args:
        debug: Let tracebacks and the log through.
        kept: What to say of work that is kept when a command is cut short.
    """

    def __init__(self, debug: bool, *, kept: str = "Finished shards are kept") -> None:
        self.debug, self.kept = debug, kept

    def __enter__(self) -> None:
        quiet(self.debug)
        signal.signal(signal.SIGTERM, _terminated)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        from ropewalk.schemas.settings import RecipeError

        if error is None or isinstance(error, SystemExit | typer.Exit):
            return
        if isinstance(error, KeyboardInterrupt):
            errors.print(f"Interrupted. {self.kept}: the same command goes on from here.")
            leave(EXIT_INTERRUPTED)
        if self.debug:
            return
        if isinstance(error, RecipeError | FileNotFoundError | NotADirectoryError | PermissionError | BlockingIOError):
            errors.print(f"[bold red]error[/] {shown(error)}", highlight=False)
            leave(EXIT_USAGE)
        reason = _root_cause(error)
        errors.print(f"[bold red]failed[/] {shown(reason)}", highlight=False)
        errors.print(f"{self.kept}: the same command goes on from here. `--debug` shows the traceback.")
        leave(EXIT_FAILURE)


def quiet(debug: bool) -> None:
    """Keeps the log of Beam and its libraries out of the progress display."""
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR, format="%(name)s: %(message)s")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not debug:
        threading.excepthook = lambda failure: None  # Beam's threads; what fails a job reaches us as its error


def leave(code: int) -> None:
    """Ends the process and its workers at once: everything worth keeping is on disk already."""
    import psutil

    sys.stdout.flush()
    sys.stderr.flush()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(code)


def _terminated(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _root_cause(error: BaseException) -> str:
    """Beam wraps a worker's error in layers of text; the last line is the one that says what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
