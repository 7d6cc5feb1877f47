"""`ropewalk inspect`: look at real rows. Text comes from anyone: it is escaped, cut, and stripped of control codes."""

from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from ropewalk.pipelines import rows
from ropewalk.pipelines.inspect_sequence import show_sequence
from ropewalk.pipelines.terminal import shorten, shown
from ropewalk.schemas import files
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.ingest.mended import answered, letter_key

DOCUMENT_CHARS = 2400
"""What is shown of a document's text."""


class Inspector:
    """Shows parts of one corpus.

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
        self.manifest = manifest

    def overview(self) -> None:
        """What is in the corpus: tables, rows, bytes, when and how fast they were made."""
        self.console.print(
            f"{self.manifest.rows:,} documents in {len(self.manifest.shards)} shards: {shown(self.corpus.url)}"
        )
        for source, count in self.manifest.sources.items():
            self.console.print(f"  {shown(source)}: {count:,}")
        table = Table("folder", "rows", "bytes", "seconds", "counters")
        for column in table.columns[1:4]:
            column.justify = "right"
        table.add_row(*self._row(DOCUMENTS, self.manifest.ingest))
        for folder in rows.folders(self.corpus, "columns") + rows.folders(self.corpus, "sequences"):
            manifest = self.corpus.stage_manifest(folder)
            if manifest:
                table.add_row(*self._row(folder, manifest))
        self.console.print(table)

    def document(self, row: int | None, id: str | None) -> None:
        """One document with every column, by row number in the whole corpus or by id.

        Raises:
            RecipeError: If there is no such document.
        """
        place = self._locate(row, id)
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_row("address", f"shard {place[0]}, row {place[1]}")
        for folder in [DOCUMENTS, *rows.folders(self.corpus, "columns")]:
            name = folder.removeprefix("columns/")
            if name != DOCUMENTS and self.corpus.stage_manifest(folder) is None:
                continue
            for column, value in rows.fetch(self.corpus, name, place).items():
                if column == "vector" and value is not None:
                    length = sum(number * number for number in value) ** 0.5
                    table.add_row(column, f"{len(value):,} values, length {length:.3f}")
                elif column != "text":
                    table.add_row(column, shown(shorten(value)))
        self.console.print(table)
        self.console.print(Rule("text"))
        self.console.print(shown(shorten(rows.fetch(self.corpus, DOCUMENTS, place)["text"], DOCUMENT_CHARS)))

    def sequence(self, number: int, layout: str | None) -> None:
        """One packed sequence: its documents in order, and how similar those are that follow one another.

        Raises:
            RecipeError: If there is no such layout or sequence.
        """
        layouts = [folder.removeprefix("sequences/") for folder in rows.folders(self.corpus, "sequences")]
        if not layouts:
            raise RecipeError(f"{self.corpus.url}: no sequences yet: run the recipe up to `pack`")
        layout = layout or layouts[0]
        if layout not in layouts:
            raise RecipeError(f"--layout {layout}: there is no such layout; there are {', '.join(layouts)}")
        show_sequence(self.corpus, f"sequence {number} of {layout}", self._sequence(layout, number), self.console)

    def rejects(self, count: int = 50) -> None:
        """The first dead letters, with file, line and reason; those that have been mended are only counted."""
        printed = mended = 0
        done = answered(self.corpus.url)
        table = Table("reason", "file", "line", "byte", "detail")
        for folder in rows.folders(self.corpus, "rejects"):
            url = files.join(self.corpus.url, folder)
            for name in files.names(url):
                if not name.endswith(".arrow") or (printed >= count and not done):
                    continue
                for batch in files.open_arrow(files.join(url, name)):
                    for number in range(batch.num_rows if printed < count or done else 0):
                        row = batch.slice(number, 1).to_pylist()[0]
                        if done and letter_key(row) in done:
                            mended += 1
                        elif printed < count:
                            cells = (row["reason"], row["path"], row["line"], row["byte_offset"], row["detail"])
                            table.add_row(*(shown(shorten(cell, 200)) for cell in cells))
                            printed += 1
        total = self.manifest.ingest.counters.get("rejected-records", 0)
        self.console.print(table if printed else "No record was rejected." if not total else "None is left to mend.")
        if total > printed + mended:
            more = f"{total - printed - mended:,} more in {files.join(self.corpus.url, 'rejects')}"
            self.console.print(shown(more), highlight=False)
        if mended:
            self.console.print(f"{mended:,} others have been mended, and read as records of their own.")
        if printed:
            self.console.print(f"To mend them: [bold]ropewalk retry-rejects {shown(self.corpus.url)}[/]")

    def _row(self, folder: str, manifest: Any) -> tuple[str, ...]:
        size = sum(shard.bytes for shard in manifest.shards)
        counters = ", ".join(f"{name} {value:,}" for name, value in list(manifest.counters.items())[:6])
        return folder, f"{manifest.rows:,}", f"{size:,}", f"{manifest.run.seconds:.1f}", shown(counters)

    def _locate(self, row: int | None, id: str | None) -> tuple[int, int]:
        if id is not None:
            places = rows.places(self.corpus, {id})
            if id not in places:
                raise RecipeError(f"--id {id}: no such document in {self.corpus.url}")
            return places[id]
        assert row is not None
        left = row
        for shard, record in enumerate(self.manifest.shards):
            if left < record.rows:
                return shard, left
            left -= record.rows
        raise RecipeError(f"--row {row}: the corpus has {self.manifest.rows:,} rows, numbered from 0")

    def _sequence(self, layout: str, number: int) -> dict[str, Any]:
        manifest = self.corpus.stage_manifest(f"sequences/{layout}")
        if manifest is None or number >= manifest.rows:
            raise RecipeError(
                f"--sequence {number}: {layout} has {manifest.rows if manifest else 0:,} sequences, from 0"
            )
        left = number
        for shard in manifest.shards:
            if left < shard.rows:
                for batch in files.open_arrow(files.join(self.corpus.url, "sequences", layout, shard.file)):
                    if left < batch.num_rows:
                        return dict(batch.drop_columns("input_ids").slice(left, 1).to_pylist()[0])
                    left -= batch.num_rows
            left -= shard.rows
        raise RuntimeError(f"{layout}: fewer sequences than its manifest says")
