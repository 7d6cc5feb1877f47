"""A corpus folder as its readers see it: one row space, columns beside it, joined by position.

corpus/corpus.json                 manifest of the row space
corpus/documents/data-….arrow      the documents
corpus/columns/<stage>/…           columns of a stage, row-aligned with the documents
corpus/sequences/<layout>/…        packed sequences, a row space of their own
corpus/rejects/<stage>/…           dead letters
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.schemas import address, files
from ropewalk.schemas.manifest import CorpusManifest, StageManifest
from ropewalk.transforms.cuts import cut_spans

DOCUMENTS = "documents"
ALIVE_COLUMNS = {
    "filter": "passed",
    "dedup": "keep",
    "passages": "enough_left",
    "decontaminate": "clean",
    "semantic": "semantic_keep",
}
"""Stages that can put a document out, and the column that says so."""
SPAN_COLUMNS = {"passages": "repeated_spans", "decontaminate": "masked_spans"}
"""Stages that cut spans out of the text, and the column that says which."""


@dataclass(frozen=True)
class CorpusDir:
    """A corpus folder; small and picklable, so that workers can open it themselves.

    Attributes:
        url: The folder.
        file_names: Names of the document shards, in order; empty before ingest.
    """

    url: str
    file_names: tuple[str, ...] = ()

    @classmethod
    def open(cls, url: str) -> "CorpusDir":
        """Opens a corpus whose row space is laid.

        Raises:
            FileNotFoundError: If there is no `corpus.json`.
        """
        manifest = cls(url).manifest()
        if manifest is None:
            raise FileNotFoundError(f"{url}: no corpus.json here: not a corpus folder, or its ingest never finished")
        return cls(url, tuple(shard.file for shard in manifest.shards))

    @property
    def own_shards(self) -> int:
        """Shards of this corpus' own documents."""
        return len(self.file_names)

    def folder(self, table: str) -> str:
        """URL of a table's folder: `documents`, or the columns of a stage."""
        return files.join(self.url, table) if table == DOCUMENTS else files.join(self.url, "columns", table)

    def shard_url(self, table: str, shard: int) -> str:
        """URL of one shard of a table."""
        return files.join(self.folder(table), self.file_names[shard])

    def manifest(self) -> CorpusManifest | None:
        """The row space, or none before ingest has finished."""
        data = files.read_bytes(files.join(self.url, "corpus.json"))
        return CorpusManifest.model_validate(json.loads(data)) if data else None

    def stage_manifest(self, folder: str) -> StageManifest | None:
        """Manifest of a finished stage, by folder below the corpus (`columns/dedup`, `sequences/concat-8192`)."""
        data = files.read_bytes(files.join(self.url, folder, "stage.json"))
        return StageManifest.model_validate(json.loads(data)) if data else None

    def read(
        self,
        shard: int,
        columns: Mapping[str, Sequence[str]],
        *,
        alive: Sequence[str] | None = None,
        cut: Sequence[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Streams one shard's rows with columns from several tables side by side.

        Args:
            shard: Shard number.
            columns: Column names by table (`{"documents": ["id", "text"], "tokenize": ["num_tokens"]}`).
            alive: Stages whose verdicts make a last column `alive` (bool): true where all of them keep the row. None
                adds no such column.
            cut: Stages whose spans are cut out of `text`: it comes as the later stages see it.

        Yields:
            Batches of at most the size they were written in, with a first column `address` (uint64).
        """
        wanted = {table: list(names) for table, names in columns.items()}
        for stage in alive or ():
            if ALIVE_COLUMNS[stage] not in wanted.setdefault(stage, []):
                wanted[stage].append(ALIVE_COLUMNS[stage])
        for stage in cut:
            wanted.setdefault(stage, []).append(SPAN_COLUMNS[stage])
        row = 0
        for parts in _aligned([self._batches(shard, table, names) for table, names in wanted.items()]):
            by_name = {
                name: part.column(name) for part, names in zip(parts, wanted.values(), strict=True) for name in names
            }
            count = parts[0].num_rows
            fields: dict[str, pa.Array] = {"address": pa.array(address.of_rows(shard, row, count))}
            fields |= {name: by_name[name] for names in columns.values() for name in names}
            if cut:
                fields["text"] = cut_spans(fields["text"], [by_name[SPAN_COLUMNS[stage]] for stage in cut])
            if alive is not None:
                mask = pa.array(np.ones(count, bool))
                for stage in alive:
                    mask = pc.and_(mask, pc.fill_null(by_name[ALIVE_COLUMNS[stage]], False))
                fields["alive"] = mask
            yield pa.RecordBatch.from_pydict(fields)
            row += count

    def _batches(self, shard: int, table: str, names: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in files.open_arrow(self.shard_url(table, shard)):
            yield batch.select(names)


def _aligned(streams: list[Iterator[pa.RecordBatch]]) -> Iterator[list[pa.RecordBatch]]:
    """Cuts several streams of the same rows at the union of their borders."""
    heads: list[pa.RecordBatch | None] = [next(stream, None) for stream in streams]
    while all(head is not None for head in heads):
        count = min(head.num_rows for head in heads if head is not None)
        if count:
            yield [head.slice(0, count) for head in heads if head is not None]
        for i, head in enumerate(heads):
            assert head is not None
            heads[i] = head.slice(count) if head.num_rows > count else next(streams[i], None)
    if any(head is not None for head in heads):
        raise RuntimeError("columns of one shard have different numbers of rows: remove the stage's folder and rerun")
