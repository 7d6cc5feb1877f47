"""A few documents in brief: what the columns say of each, and how it begins."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.pipelines import rows
from ropewalk.pipelines.report_data import Stages
from ropewalk.schemas import address, files
from ropewalk.schemas.manifest import StageManifest
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather

HEAD_CHARS = 400
COLUMNS = {"cluster": ["cluster", "distance"], "order": ["rank"]}
"""What is read of the stages that bring similar documents together."""


@dataclass
class Brief:
    """One document.

    Attributes:
        address: Where it is.
        id: Its id.
        source: Its source.
        url: Its address in the world, if it has one.
        chars: Its length, in codepoints.
        head: How it begins.
        out: The stage that puts it out; none: it stays.
        cluster: Its cluster, if it has one.
        distance: 1 - cosine to the centroid of its cluster.
        rank: Its place in the similarity order, if it has one.
        sequences: Numbers of the sequences it is in, by layout.
    """

    address: int
    id: str
    source: str
    url: str | None
    chars: int
    head: str
    out: str | None = None
    cluster: int | None = None
    distance: float | None = None
    rank: int | None = None
    sequences: dict[str, list[int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Where it is from, as well as that is known."""
        return self.url or self.source


def briefs(corpus: CorpusDir, stages: Stages, addresses: Sequence[int]) -> list[Brief]:
    """Reads documents at given addresses, in that order; not their sequences, see `fill_sequences`."""
    where = np.array(addresses, np.uint64)
    found: list[Brief | None] = [None] * len(where)
    names = ["id", "source", "url", "num_chars", "text"]
    for batch, here, places in Gather(corpus, DOCUMENTS, names).parts(where):
        for row, place in zip(here.tolist(), places.tolist(), strict=True):
            id_, source, url, chars = (batch.column(name)[row].as_py() for name in names[:-1])
            head = pc.utf8_slice_codeunits(batch.column("text").slice(row, 1), 0, HEAD_CHARS)[0].as_py()
            found[place] = Brief(int(where[place]), id_, source, url, chars, head)
    documents = [one for one in found if one is not None]
    assert len(documents) == len(where)
    for stage in stages.alive:
        for one, alive in zip(documents, _values(corpus, stage, [ALIVE_COLUMNS[stage]], where), strict=True):
            one.out = one.out or (stage if alive[ALIVE_COLUMNS[stage]] is False else None)
    for stage, columns in COLUMNS.items():
        if stage in stages.columns:
            for one, row in zip(documents, _values(corpus, stage, columns, where), strict=True):
                for name in columns:
                    setattr(one, name, row[name])
    return documents


def living(corpus: CorpusDir, stages: Stages, ids: Collection[str]) -> dict[str, int]:
    """Addresses of documents by id; of several with one id the first that stays, if any does."""
    found = rows.every_place(corpus, ids)
    every = [(id_, int(address.of_rows(*place, 1)[0])) for id_, places in found.items() for place in places]
    where = np.array([one for _, one in every], np.uint64)
    alive = np.ones(len(where), bool)
    for stage in stages.alive:
        verdicts = Gather(corpus, stage, [ALIVE_COLUMNS[stage]]).rows(where).column(0)
        alive &= pc.fill_null(verdicts, False).to_numpy(zero_copy_only=False)
    chosen: dict[str, int] = {}
    for row in np.argsort(~alive, kind="stable").tolist():
        chosen.setdefault(*every[row])
    return chosen


def _values(corpus: CorpusDir, stage: str, columns: list[str], where: np.ndarray) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Gather(corpus, stage, columns).rows(where).to_pylist()
    return found


def fill_sequences(corpus: CorpusDir, layouts: dict[str, StageManifest], documents: Sequence[Brief]) -> None:
    """Finds the sequences that documents are in: one pass over the ids in each layout."""
    by_id: dict[str, list[Brief]] = {}
    for one in documents:
        by_id.setdefault(one.id, []).append(one)
    wanted = pa.array(sorted(by_id), pa.string())
    for layout, manifest in layouts.items():
        number = 0
        for shard in manifest.shards:
            for batch in files.open_arrow(files.join(corpus.url, "sequences", layout, shard.file)):
                ids = batch.column("doc_ids")
                hits = pc.indices_nonzero(pc.is_in(ids.flatten(), wanted))
                owners = pc.list_parent_indices(ids).take(hits).to_pylist()
                for owner, id_ in zip(owners, ids.flatten().take(hits).to_pylist(), strict=True):
                    for one in by_id[id_]:
                        # A copy that is out may share the id of the one that was packed.
                        if one.out is None and number + owner not in one.sequences.setdefault(layout, []):
                            one.sequences[layout].append(number + owner)
                number += batch.num_rows
