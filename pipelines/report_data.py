"""Numbers of the report, collected from a corpus folder in one pass over its small columns.

Memory is one batch, a few histograms, and a sample of ids: a corpus of any size will do. Counts are taken from the
columns themselves and compared with what the manifests claim, so that a report can say that something does not add up.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.pipelines import report_removed
from ropewalk.pipelines.report_apart import Apart
from ropewalk.pipelines.report_histogram import Histogram, SizeCounts
from ropewalk.pipelines.report_removed import Removed
from ropewalk.schemas import files, tables
from ropewalk.schemas.manifest import CorpusManifest, StageManifest
from ropewalk.schemas.recipe import RecipeError, parse_recipe
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, CorpusDir
from ropewalk.transforms.ingest.mended import answered, letter_key

SAMPLE = 4000
"""Documents on the map, at most; also the pairs behind the random order."""
CURVE_BINS = 2048
JOINED_ROWS, JOINED_BYTES = 2048, 32 << 20
COLUMNS: dict[str, tuple[str, ...]] = {
    "filter": ("passed", "filter_reason"),
    **report_removed.COLUMNS,
    "tokenize": ("num_tokens",),
    "cluster": ("cluster", "distance"),
    "neighbours": ("neighbour_similarity",),
    "order": ("rank", "prev_similarity"),
}
"""What the pass reads of each stage, besides `documents`."""

LENGTH_EDGES = np.unique(np.ceil(10 ** (np.arange(0, 81) / 8)).astype(np.int64))
"""Borders of the length histograms, eight to a decade: exact integers from 1 to 10^10."""
COSINE_EDGES = np.round(np.linspace(-1, 1, 81), 6)


@dataclass
class Documents:
    """What one pass over the documents and their columns found."""

    total: int = 0
    chars: int = 0
    bytes: int = 0
    removed: Removed = field(default_factory=Removed)
    kept: int = 0
    tokens: int = 0
    tokenized: int = 0
    chars_all: Histogram = field(default_factory=lambda: Histogram(LENGTH_EDGES))
    chars_kept: Histogram = field(default_factory=lambda: Histogram(LENGTH_EDGES))
    tokens_kept: Histogram = field(default_factory=lambda: Histogram(LENGTH_EDGES))
    components: SizeCounts = field(default_factory=SizeCounts)
    sources: dict[str, list[int]] = field(default_factory=dict)
    """Documents, kept documents, kept tokens by source."""
    clusters: Counter[int] = field(default_factory=Counter)
    apart: Apart = field(default_factory=Apart)
    """Of the kept documents, those unlike the others."""
    prev_similarity: Histogram = field(default_factory=lambda: Histogram(COSINE_EDGES))
    curve_sums: np.ndarray = field(default_factory=lambda: np.zeros(CURVE_BINS))
    curve_counts: np.ndarray = field(default_factory=lambda: np.zeros(CURVE_BINS, np.int64))
    curve_width: int = 1
    sample: pa.Table | None = None
    """`id, address` of the sampled kept documents, by id."""
    addresses: dict[str, int] = field(default_factory=dict)
    """Address of each document asked for: of its kept row where several share an id."""

    def curve(self, points: int = 96) -> tuple[list[float], list[float]]:
        """Mean similarity to the document before, by place in the order: places and values."""
        used = int(np.flatnonzero(self.curve_counts).max(initial=-1)) + 1
        if not used:
            return [], []
        group = np.arange(used) * min(points, used) // used
        sums, counts = (np.bincount(group, a[:used]) for a in (self.curve_sums, self.curve_counts))
        where = np.bincount(group, np.arange(used) + 0.5) / np.bincount(group) * self.curve_width
        keep = counts > 0
        return where[keep].tolist(), (sums[keep] / counts[keep]).tolist()


@dataclass
class Stages:
    """The finished stages of a corpus and what is wrong with them.

    Attributes:
        columns: Manifests of the stages whose columns count, in the order of the walk.
        layouts: Manifests by layout name.
        warnings: What a reader must know.
    """

    columns: dict[str, StageManifest]
    layouts: dict[str, StageManifest]
    warnings: list[str]

    @property
    def alive(self) -> list[str]:
        """Stages whose verdicts put documents out."""
        return [stage for stage in ALIVE_COLUMNS if stage in self.columns]


def own_recipe(url: str) -> dict[str, Any] | None:
    """The recipe in a corpus folder; none if there is none, or if this version does not understand it."""
    data = files.read_bytes(files.join(url, "recipe.json"))
    try:
        found: dict[str, Any] = json.loads(data or b"null")
        parse_recipe(found or {}, name="recipe.json")
    except (ValueError, RecipeError):
        return None
    return found


def find_stages(corpus: CorpusDir, manifest: CorpusManifest, recipe: dict[str, Any] | None) -> Stages:
    """Which stages count.

    With a recipe, those it switches on. Without one, a stage that no later stage has read was switched off after it
    ran. Columns of another row space are left out, and columns made from since-changed ones are named.
    """
    parsed = parse_recipe(recipe) if recipe is not None else None
    columns, warnings = {}, []
    for stage in tables.COLUMNS:
        found = corpus.stage_manifest(f"columns/{stage}")
        if found is None or (parsed is not None and not parsed.enabled(stage)):
            continue
        if found.rows != manifest.rows or found.reads.get("documents", manifest.content) != manifest.content:
            warnings.append(
                f"The columns of {stage} belong to an earlier ingest and are left out: run the recipe again."
            )
            continue
        columns[stage] = found
    wanted = {pack.name for pack in parsed.pack or ()} if parsed is not None else None
    layouts = {}
    for name in files.names(files.join(corpus.url, "sequences")):
        layout = corpus.stage_manifest(f"sequences/{name}")
        if layout is not None and (wanted is None or name in wanted):
            layouts[name] = layout
    if parsed is None:
        readers = [m.reads for m in [*columns.values(), *layouts.values()] if m.reads]
        for stage in ALIVE_COLUMNS:
            later = [m for name, m in columns.items() if name not in ("filter", stage)] + list(layouts.values())
            if stage in columns and any(m.reads for m in later) and not any(stage in reads for reads in readers):
                del columns[stage]
    for name, one in [*columns.items(), *((f"layout {n}", m) for n, m in layouts.items())]:
        for read, key in one.reads.items():
            if (read in columns and columns[read].key != key) or (read == "documents" and key != manifest.content):
                warnings.append(f"{name} was made from an earlier {read}: run the recipe again.")
    return Stages(columns, layouts, warnings)


def collect(corpus: CorpusDir, stages: Stages, *, wanted: Sequence[str] = (), sample: int = SAMPLE) -> Documents:
    """The pass over all documents.

    Args:
        corpus: The corpus.
        stages: The stages that count.
        wanted: Ids of documents whose addresses are needed.
        sample: Kept documents to sample. Ids are hashes, so those with the smallest ids are a uniform sample, the
            same for any sharding.
    """
    threshold = stages.columns["dedup"].config.get("threshold", 0.75) if "dedup" in stages.columns else 0.75
    found = Documents(removed=Removed(float(threshold)))
    manifest = corpus.manifest()
    assert manifest is not None
    found.curve_width = max(1, -(-manifest.rows // CURVE_BINS))
    read: dict[str, Sequence[str]] = {"documents": ["id", "source", "num_chars", "num_bytes"]}
    read |= {stage: names for stage, names in COLUMNS.items() if stage in stages.columns}
    wanted_ids = pa.array(sorted(set(wanted)), pa.string())
    lowest = _Lowest(sample)
    spare: dict[str, int] = {}
    for shard in range(len(corpus.file_names)):
        for batch in _joined(corpus.read(shard, read)):
            batch = _with_alive(batch, stages.alive)
            _add(found, batch, stages)
            kept = batch.filter(batch.column("alive"))
            lowest.add(kept.select(["id", "address"]))
            found.apart.add(kept)
            for rows, into in ((kept, found.addresses), (batch, spare)) if len(wanted_ids) else ():
                hits = rows.select(["id", "address"]).filter(pc.is_in(rows.column("id"), wanted_ids)).to_pydict()
                for id_, address in zip(hits["id"], hits["address"], strict=True):
                    into.setdefault(id_, address)
    found.addresses = spare | found.addresses
    found.sample = lowest.table()
    return found


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Larger batches: long documents are written one a batch, and each batch has its price.

    Where files are not memory-mapped, a batch keeps its unread text in memory too: hence the limit in bytes.
    """
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + (pc.sum(batch.column("num_bytes")).as_py() or 0)
        if rows >= JOINED_ROWS or size >= JOINED_BYTES:
            yield pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)


def _with_alive(batch: pa.RecordBatch, stages: Sequence[str]) -> pa.RecordBatch:
    alive = pa.array(np.ones(batch.num_rows, bool))
    for stage in stages:
        alive = pc.and_(alive, pc.fill_null(batch.column(ALIVE_COLUMNS[stage]), False))
    return batch.append_column("alive", alive)


def _add(found: Documents, batch: pa.RecordBatch, stages: Stages) -> None:
    chars, alive = _numbers(batch, "num_chars"), _numbers(batch, "alive").astype(bool)
    found.total += batch.num_rows
    found.chars += int(chars.sum())
    found.bytes += int(_numbers(batch, "num_bytes").sum())
    found.kept += int(alive.sum())
    found.chars_all.add(chars)
    found.chars_kept.add(chars[alive])
    tokens = np.zeros(batch.num_rows, np.int64)
    found.removed.add(batch, stages.alive)
    if "dedup" in stages.columns:
        kept = pc.fill_null(batch.column("keep"), False).to_numpy(zero_copy_only=False)
        found.components.add(_numbers(batch, "component_size")[kept])
    if "tokenize" in stages.columns:
        # A stage behind it may put documents out that have tokens: they are packed nowhere.
        tokens = np.where(alive, _numbers(batch, "num_tokens"), 0)
        found.tokens += int(tokens.sum())
        found.tokenized += int((tokens > 0).sum())
        found.tokens_kept.add(tokens[alive])
    if "cluster" in stages.columns:
        found.clusters.update(_tally(batch.column("cluster").drop_null()))
    if "order" in stages.columns:
        _add_order(found, batch)
    source = batch.column("source").dictionary_encode()
    place = source.indices.to_numpy(zero_copy_only=False)
    for i, name in enumerate(source.dictionary.to_pylist()):
        row, here = found.sources.setdefault(name, [0, 0, 0]), place == i
        row[0] += int(here.sum())
        row[1] += int((here & alive).sum())
        row[2] += int(tokens[here & alive].sum())


def _add_order(found: Documents, batch: pa.RecordBatch) -> None:
    batch = batch.filter(pc.and_(pc.is_valid(batch.column("rank")), pc.is_valid(batch.column("prev_similarity"))))
    similarity = batch.column("prev_similarity").to_numpy().astype(np.float64)
    place = np.minimum(batch.column("rank").to_numpy() // np.uint64(found.curve_width), CURVE_BINS - 1).astype(np.int64)
    found.prev_similarity.add(similarity)
    found.curve_sums += np.bincount(place, similarity, CURVE_BINS)
    found.curve_counts += np.bincount(place, minlength=CURVE_BINS)


def _numbers(batch: pa.RecordBatch, name: str) -> np.ndarray:
    values = pc.fill_null(batch.column(name), pa.scalar(False if name in ("alive", "passed") else 0))
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array if array.dtype == bool else array.astype(np.int64)


def _tally(values: pa.Array) -> dict[Any, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}


class _Lowest:
    """Keeps the rows with the smallest (id, address)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: list[pa.RecordBatch] = []
        self.rows = 0
        self.highest: str | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        if self.highest is not None:
            batch = batch.filter(pc.less_equal(batch.column("id"), self.highest))
        self.parts.append(batch)
        self.rows += batch.num_rows
        if self.rows >= 4 * self.limit:
            table = self.table()
            self.parts, self.rows = table.to_batches(), table.num_rows
            self.highest = table.column("id")[-1].as_py()

    def table(self) -> pa.Table:
        schema = pa.schema([("id", pa.string()), ("address", pa.uint64())])
        table = pa.Table.from_batches([p.cast(schema) for p in self.parts], schema)
        return table.sort_by([("id", "ascending"), ("address", "ascending")]).slice(0, self.limit).combine_chunks()


@dataclass
class Rejects:
    """The dead letters: counts by reason, how many have been mended, and a few of the others of each reason."""

    total: int = 0
    mended: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)


def collect_rejects(corpus: CorpusDir, *, each: int = 2, limit: int = 16) -> Rejects:
    """Reads all dead letters; their payloads only if some have been mended."""
    found, done = Rejects(), answered(corpus.url)
    shown: Counter[str] = Counter()
    for batch in _tables(files.join(corpus.url, "rejects")):
        found.total += batch.num_rows
        found.reasons.update(_tally(batch.column("reason")))
        if done:
            is_open = [letter_key(batch.slice(row, 1).to_pylist()[0]) not in done for row in range(batch.num_rows)]
            found.mended += is_open.count(False)
            batch = batch.filter(pa.array(is_open, pa.bool_()))
        for row in batch.select(["stage", "reason", "detail", "source", "path", "line"]).to_pylist():
            if shown[row["reason"]] < each and len(found.examples) < limit:
                shown[row["reason"]] += 1
                found.examples.append(row)
    return found


def _tables(url: str) -> Iterator[pa.RecordBatch]:
    for stage in files.names(url):
        for name in files.names(files.join(url, stage)):
            if name.endswith(".arrow"):
                yield from files.open_arrow(files.join(url, stage, name))


def reasons_of(counters: Mapping[str, int], unit: str, *, without: Sequence[str] = ()) -> dict[str, int]:
    """Counters `<reason>-<unit>` by reason, largest first."""
    ending = f"-{unit}"
    found = {n.removesuffix(ending): c for n, c in counters.items() if n.endswith(ending) and n not in without and c}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
