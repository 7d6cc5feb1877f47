"""`ropewalk guards calibrate`: how often the guards refuse text that people wrote."""

from collections.abc import Iterator

from rich.console import Console

from ropewalk.pipelines.terminal import shown
from ropewalk.schemas.recipe import IngestConfig, parse_recipe
from ropewalk.schemas.settings import RecipeError
from ropewalk.synth.guards.calibrate import calibrate
from ropewalk.synth.scores.words import language_of

LANGUAGES = ("en", "zh")


def show_calibration(path: str, language: str | None, field: str, console: Console) -> None:
    """Prints false alarms by guard.

    Args:
        path: Whatever `ropewalk run` reads: file, folder, glob, URL.
        language: `en` or `zh`; none: by each text's script.
        field: Field that holds the text.
        console: Where to print.

    Raises:
        RecipeError: The language is unknown, or there is no text.
    """
    if language is not None and language not in LANGUAGES:
        raise RecipeError(f"--language {language}: the guards know {' and '.join(LANGUAGES)}")
    found = calibrate((text, language or language_of(text)) for text in _texts(path, field))
    if not found.languages:
        raise RecipeError(f"{path}: no text in field {field!r}; name the field with --field")
    console.print("\n".join(map(shown, found.lines())), highlight=False)
    for name, figures in sorted(found.languages.items()):
        for guard, examples in figures.examples.items():
            for example in examples:
                console.print(shown(f"{name}, {guard}: {example}"), style="dim", highlight=False)


def _texts(path: str, field: str) -> Iterator[str]:
    from ropewalk.transforms.ingest.read import read_split
    from ropewalk.transforms.ingest.splits import plan_splits

    plan = plan_splits(parse_recipe({"output": "", "input": {"path": path, "text": field}}))
    for split in plan.splits:
        for read in read_split(split, IngestConfig()):
            for batch in read.documents:
                yield from (text for text in batch.column("text").to_pylist() if text.strip())
