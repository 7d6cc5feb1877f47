"""`ropewalk inspect --similar`: the documents nearest to one, and how far off the order and the packing put them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.rule import Rule

from ropewalk.pipelines import brief, report_data, rows
from ropewalk.pipelines.brief import Brief
from ropewalk.pipelines.cluster_words import phrase, words_of
from ropewalk.pipelines.nearest import Near, Watch, nearest, vector_at
from ropewalk.pipelines.terminal import clean, shown
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, CorpusDir

QUIET_SECONDS = 1.0
"""A search is this long before it shows a bar."""
HEAD_CHARS = 240
CLOSE = 10
"""Places in the order that count as near."""
SEQUENCES = 3
"""Sequences of a document that are named."""


class Similar:
    """Shows the neighbours of documents of one corpus.

    Args:
        url: Corpus folder.
        console: Where to show.

    Raises:
        FileNotFoundError: If `url` is not a corpus.
    """

    def __init__(self, url: str, console: Console) -> None:
        self.corpus, self.console = CorpusDir.open(url), console
        manifest = self.corpus.manifest()
        assert manifest is not None
        self.rows = manifest.rows
        self.stages = report_data.find_stages(self.corpus, manifest, report_data.own_recipe(url))

    def show(self, id: str, count: int) -> None:
        """The documents nearest to one.

        Args:
            id: Its id, or the beginning of it.
            count: Documents to show.

        Raises:
            RecipeError: If there is no such document, or nothing to compare it by.
        """
        name, places = rows.named(self.corpus, id)
        if "embed" not in self.stages.columns:
            raise RecipeError(f"{self.corpus.url}: no vectors yet: run the recipe up to `embed`{self._careful()}")
        found = vector_at(self.corpus, places)
        if found is None:
            raise RecipeError(self._why_no_vector(name, places[0]))
        own, vector = found
        if not vector.any():
            raise RecipeError(
                f"{name}: its vector is zero, so it is similar to nothing: the embedder found no word in it to go by; "
                f"`ropewalk inspect {self.corpus.url} --id {name}` shows the document"
            )
        with _bar(self.console, self.rows) as watch:
            near, others = nearest(self.corpus, vector, count, leave=own, watch=watch)
        self._print(own, near, others)

    def _careful(self) -> str:
        return "".join(f" ({warning})" for warning in self.stages.warnings if " embed " in warning)

    def _why_no_vector(self, name: str, place: rows.Place) -> str:
        for stage in self.stages.alive:
            if stage == "semantic":  # comes after `embed`
                break
            verdict = rows.fetch(self.corpus, stage, place)
            if verdict[ALIVE_COLUMNS[stage]] is False:
                copy = verdict.get("dup_of")
                instead = f"; it is a copy of {copy}, which may have one" if copy else ""
                return (
                    f"{name}: was put out by `{stage}` before `embed`, so it has no vector{instead}; "
                    f"`ropewalk explain {self.corpus.url} {name}` says why it is out"
                )
        return f"{name}: has no vector, though no stage put it out: run the recipe again"

    def _print(self, own: int, near: list[Near], others: int) -> None:
        this, *found = brief.briefs(self.corpus, self.stages, [own, *(one.address for one in near)])
        brief.fill_sequences(self.corpus, self.stages.layouts, [this, *found])
        words = words_of(self.corpus, {one.cluster for one in (this, *found) if one.cluster is not None})
        for warning in self.stages.warnings:
            self._say(f"Careful: {warning}")
        self._document(f"document {this.id}", this, None, words)
        for number, (one, match) in enumerate(zip(found, near, strict=True), 1):
            self._document(f"{number} · cosine {match.similarity:.4f} · {one.id}", one, this, words)
        self.console.print(Rule())
        if not found:
            self._say("No other document has a vector.")
            return
        few = f"all {others:,} others" if len(found) == others else f"the {len(found):,} nearest of {others:,} others"
        self._say(f"These are {few} that have a vector. {summary(this, found)}".strip())

    def _document(self, title: str, one: Brief, this: Brief | None, words: dict[int, list[str]]) -> None:
        self.console.print(Rule(shown(title), align="left"))
        self._say(f"{one.name} · {one.chars:,} characters")
        parts = [f"OUT: put out by {one.out}" if one.out else "stays"]
        if one.cluster is not None:
            about = phrase(words.get(one.cluster, ()))
            same = "the same cluster" if this is not None and this.cluster == one.cluster else f"cluster {one.cluster}"
            parts.append(same + (f" ({about})" if about and "same" not in same else ""))
        if one.rank is not None:
            parts.append(f"rank {one.rank:,}" + (_apart(one, this) if this is not None else ""))
        for layout, numbers in one.sequences.items():
            shared = this is not None and bool(set(numbers) & set(this.sequences.get(layout, ())))
            more = f" and {len(numbers) - SEQUENCES:,} more" if len(numbers) > SEQUENCES else ""
            named = ", ".join(f"{number:,}" for number in numbers[:SEQUENCES])
            parts.append(f"{layout}: " + ("the same sequence" if shared else f"sequence {named}{more}"))
        self._say(" · ".join(parts))
        head = " ".join(clean(one.head).split())
        cut = head if len(head) <= HEAD_CHARS and one.chars <= brief.HEAD_CHARS else f"{head[:HEAD_CHARS].rstrip()} …"
        self.console.print(f"[dim]{shown(cut)}[/]", highlight=False)

    def _say(self, text: str) -> None:
        self.console.print(shown(text), highlight=False)


def summary(this: Brief, found: list[Brief]) -> str:
    """How well clusters, order and sequences bring a document and its neighbours together, in words."""
    said = []
    if this.cluster is not None:
        said.append(f"{sum(one.cluster == this.cluster for one in found):,} in its cluster")
    apart = [abs(one.rank - this.rank) for one in found if one.rank is not None and this.rank is not None]
    if this.rank is not None:
        said.append(f"{sum(places <= CLOSE for places in apart):,} within {CLOSE} places of it in the order")
    for layout, numbers in this.sequences.items():
        shared = sum(bool(set(numbers) & set(one.sequences.get(layout, ()))) for one in found)
        said.append(f"{shared:,} beside it in a sequence of {layout}")
    return f"Of them: {'; '.join(said)}." if said else ""


def _apart(one: Brief, this: Brief) -> str:
    if one.rank is None or this.rank is None or one.rank == this.rank:
        return ""
    places = abs(one.rank - this.rank)
    return f", {places:,} place{'s' if places > 1 else ''} {'later' if one.rank > this.rank else 'before'}"


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Watch]:
    """A bar of the rows looked at, on a terminal, and only if it takes long; nothing of it stays."""
    columns = (TextColumn("looking"), BarColumn(), MofNCompleteColumn(), TextColumn("documents"), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task("", total=total)
    started = time.monotonic()

    def watch(looked: int) -> None:
        progress.update(task, completed=looked)
        if time.monotonic() - started > QUIET_SECONDS:
            progress.start()

    try:
        yield watch
    finally:
        progress.stop()
