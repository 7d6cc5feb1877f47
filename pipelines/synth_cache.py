"""`ropewalk cache`: what the request cache of a run holds, and tidying it."""

import datetime

from rich.console import Console
from rich.table import Table

from ropewalk.pipelines.synth_manifest import cache_url
from ropewalk.pipelines.terminal import shown, size
from ropewalk.schemas import files
from ropewalk.schemas.settings import RecipeError
from ropewalk.synth import cache_files


def show_stats(url: str, console: Console) -> None:
    """Prints what a cache holds: requests and tokens by model and step, files and bytes.

    Raises:
        RecipeError: There is no cache.
    """
    folder = _existing(url)
    found = cache_files.stats(folder)
    console.print(
        f"{found.keys:,} requests in {found.segments:,} segments, {size(found.bytes)}: [bold]{shown(folder)}[/]",
        highlight=False,
    )
    if found.oldest_ns is not None and found.newest_ns is not None:
        oldest, newest = (_day(nanoseconds) for nanoseconds in (found.oldest_ns, found.newest_ns))
        cached = f", {found.cached_tokens:,} of them from a prefix cache" if found.cached_tokens else ""
        console.print(f"{found.generated_tokens:,} tokens generated; {found.prompt_tokens:,} read{cached}")
        console.print(f"from {oldest} to {newest}", highlight=False)
    if found.duplicates or found.torn_segments:
        torn = f"{found.torn_segments:,} torn segments ({size(found.torn_bytes)} are no record)"
        console.print(f"{found.duplicates:,} duplicates, {torn}: `ropewalk cache gc` removes both", highlight=False)
    if found.open_segments:
        console.print(f"{found.open_segments:,} segments are being written")
    table = Table("", "requests", "generated tokens")
    for column in table.columns[1:]:
        column.justify = "right"
    for title, tallies in (
        ("model", found.by_model), ("step", found.by_step), ("ended by", found.by_finish_reason)
    ):  # fmt: skip
        for name, tally in tallies.items():
            table.add_row(shown(f"{title} {name}"), f"{tally.records:,}", f"{tally.generated_tokens:,}")
    if table.row_count:
        console.print(table)


def collect(url: str, console: Console, *, older_than: float | None, model: str | None, dry_run: bool) -> None:
    """Joins the segments of a cache, drops what is named, and prints what was done.

    Raises:
        RecipeError: There is no cache.
    """
    folder = _existing(url)
    done = cache_files.collect(folder, older_than_days=older_than, model=model, dry_run=dry_run)
    would = "would go" if dry_run else "removed"
    parts = [f"{done.duplicates:,} duplicates", f"{size(done.torn_bytes)} that were no record"]
    if older_than is not None or model is not None:
        parts.insert(0, f"{done.filtered:,} requests")
    console.print(f"{would}: {', '.join(parts)}; {done.kept:,} requests stay", highlight=False)
    if done.segments_replaced:
        into = (
            ""
            if dry_run
            else f" by {done.segments_written:,}, {size(done.bytes_before)} became {size(done.bytes_after)}"
        )
        console.print(
            f"{done.segments_replaced:,} segments {'would be ' if dry_run else ''}replaced{into}", highlight=False
        )
    if done.segments_open:
        console.print(f"{done.segments_open:,} segments are being written and were left alone")


def _existing(url: str) -> str:
    folder = cache_url(url)
    if not files.names(folder):
        raise RecipeError(f"{folder}: no request cache here; give the folder of a run, or its cache")
    return folder


def _day(nanoseconds: int) -> str:
    return datetime.datetime.fromtimestamp(nanoseconds / 1e9, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
