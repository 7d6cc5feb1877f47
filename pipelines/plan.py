"""`ropewalk plan`: what a run would do, before anything is spent.

The cost model is the design's: bytes per document that a stage reads, shuffles and writes. Numbers of documents are
those of the corpus where it exists, else an estimate from the inputs' size.
"""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ropewalk.kernels import bands as lsh
from ropewalk.pipelines import corpus, walk
from ropewalk.pipelines.stages.dedup import bands_and_rows
from ropewalk.pipelines.terminal import shown, size
from ropewalk.schemas.dedup import DedupConfig
from ropewalk.schemas.recipe import Recipe
from ropewalk.schemas.similarity import EmbedConfig
from ropewalk.schemas.tables import MAX_DIMENSIONS, VECTOR_DIMENSIONS
from ropewalk.transforms.corpus_dir import CorpusDir

BYTES_PER_DOCUMENT = 4_000
"""Assumed length of a document before ingest has counted."""
BYTES_PER_TOKEN = 4
"""Assumed text per token before tokenize has counted; also the size of a token id."""
BYTES_PER_UNIT = 60
"""Assumed length of a paragraph, line or the distance of two fingerprints."""
UNIT_BYTES = 28
WINDOW_BYTES = 900
"""Assumed text in a window of an encoder, overlap taken off."""
EDGE_BYTES = 24
LINK_BYTES = 20
COUNT_BYTES = 12


@dataclass(frozen=True)
class Cost:
    """Estimated cost of one step, in bytes.

    Attributes:
        read: Read from the corpus or the inputs.
        shuffled: Sent through a runner's shuffle.
        written: Written to the corpus.
    """

    read: int
    shuffled: int
    written: int


def costs(recipe: Recipe, documents: int, text_bytes: int) -> dict[str, Cost]:
    """Estimated cost of every step by name, for a corpus of this size."""
    tokens = text_bytes // BYTES_PER_TOKEN
    bands, rows = bands_and_rows(recipe.dedup) if recipe.dedup else (0, 0)
    signature = 4 * bands * rows + 56
    keys = bands + 1 + bool(recipe.dedup and recipe.dedup.url)
    reads_text = recipe.filter and (recipe.filter.rules or recipe.filter.languages is not None)
    units = text_bytes // BYTES_PER_UNIT
    cells, links = (recipe.neighbours.cells, recipe.neighbours.count * LINK_BYTES) if recipe.neighbours else (0, 0)
    vector, columns = vector_bytes(recipe.embed or EmbedConfig())
    known = {
        "ingest": Cost(text_bytes, 0, text_bytes),
        "filter": Cost(text_bytes if reads_text else 4 * documents, 0, 2 * documents),
        "dedup": Cost(text_bytes, documents * keys * EDGE_BYTES, documents * (signature + 24)),
        "passages": Cost(text_bytes, units * UNIT_BYTES, documents * 24),
        "decontaminate": Cost(text_bytes, 0, documents * 24),
        "tokenize": Cost(text_bytes, 0, tokens * BYTES_PER_TOKEN),
        "embed": Cost(text_bytes, 0, documents * columns),
        "cluster": Cost(2 * documents * vector, documents * COUNT_BYTES, documents * 8),
        "semantic": Cost(documents * vector, documents * (vector + 40), documents * 24),
        "neighbours": Cost(
            documents * vector * 2 + documents * links,
            documents * cells * (vector + 60) + documents * (cells + 1) * links,
            documents * (cells + 2) * links,
        ),
        "order": Cost(documents * vector, documents * (vector + 52), documents * 12),
        "report": Cost(documents * 600, 0, 2_000_000),
    }
    found = {}
    for name in corpus.walked(recipe):
        pack = Cost(tokens * BYTES_PER_TOKEN, 0, tokens * BYTES_PER_TOKEN)
        found[name] = pack if name.startswith("pack ") else known[name]
    return found


def vector_bytes(config: EmbedConfig) -> tuple[int, int]:
    """Size of a document's vector, and of all its columns of `embed`."""
    width = {"lexical": VECTOR_DIMENSIONS, "static": VECTOR_DIMENSIONS, "minilm": 384}.get(
        config.embedder, MAX_DIMENSIONS
    )
    vector = 2 * min(config.dimensions or width, width)
    if config.embedder == "lexical":
        return vector, vector * (1 + config.centre)
    return vector, vector * (1 + config.centre) + 36 + (0 if config.embedder == "static" else vector + 8)


def windows(config: EmbedConfig, documents: int, text_bytes: int) -> int | None:
    """Windows to encode, about: what can be reused is not known before; none: there is no encoder."""
    if config.embedder in ("lexical", "static"):
        return None
    return min(documents * config.max_windows, documents + text_bytes // WINDOW_BYTES)


def show_plan(recipe: Recipe, console: Console) -> None:
    """Prints the steps, what would run and why, and what it would move."""
    from ropewalk.pipelines.stages.ingest import ingest_key, plan_splits

    splits = plan_splits(recipe)
    folder = CorpusDir(recipe.output)
    laid = folder.manifest()
    ingested = laid is not None and laid.ingest.key == ingest_key(recipe, splits)
    if ingested and laid is not None:
        documents = laid.rows
        text = sum(shard.counters.get("text-bytes", shard.bytes) for shard in laid.shards)
        console.print(
            f"{documents:,} documents, {size(text)} of text in {len(laid.shards)} shards ({shown(recipe.output)})"
        )
    else:
        text = splits.bytes
        documents = max(1, text // BYTES_PER_DOCUMENT)
        guess = f"estimated {documents:,} documents in {len(splits.splits)} shards"
        console.print(f"{splits.files:,} input files, {size(text)}; {guess}")
    states: dict[str, corpus.State] = {}
    if ingested and laid is not None:
        opened = CorpusDir.open(recipe.output)
        states = {state.step.name: state for state in corpus.states(recipe, opened, laid.content)}
    table = Table("step", "state", "reads", "shuffles", "writes", "passes")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, cost in costs(recipe, documents, text).items():
        state = _state(name, ingested, states, folder, recipe)
        passes = max(1, -(-cost.shuffled // (recipe.memory_mb << 20)))
        shuffled = (size(cost.shuffled), str(passes)) if cost.shuffled else ("", "")
        done = state == "up to date"
        table.add_row(
            name, state, size(cost.read), shuffled[0], size(cost.written), shuffled[1], style="dim" if done else ""
        )
    console.print(table)
    encoded = windows(recipe.embed, documents, text) if recipe.embed else None
    if encoded is not None:
        console.print(
            f"embed: about {encoded:,} windows go through the encoder, less those of texts that were embedded before"
        )
    if recipe.dedup and recipe.dedup.near:
        console.print(curve(recipe.dedup))
    console.print(f"A pass of a local shuffle holds at most {recipe.memory_mb} MB (`memory_mb`). Nothing was run.")


def curve(config: DedupConfig) -> Table:
    """The S-curve of the dedup's bands, and what it makes of pairs on the wrong side of the threshold."""
    bands, rows = bands_and_rows(config)
    found = "not verified" if config.verify == "none" else f"verified by {config.verify} similarity"
    missed, extra = lsh.errors(bands, rows, config.threshold)
    table = Table(
        title=f"near-duplicates: {bands} bands of {rows} rows, threshold {config.threshold}, {found}",
        caption=f"Pairs spread evenly over all similarities: of those above the threshold "
        f"{missed / max(1 - config.threshold, 1e-9):.1%} are missed, of those below "
        f"{extra / max(config.threshold, 1e-9):.1%} are compared in vain",
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    points = sorted({0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, config.threshold})
    table.add_column("similarity of a pair")
    for point in points:
        table.add_column(f"{point:g}", justify="right", style="bold" if point == config.threshold else "")
    table.add_row("chance to be compared", *(f"{lsh.match_probability(point, bands, rows):.3f}" for point in points))
    return table


def _state(name: str, ingested: bool, states: dict[str, corpus.State], folder: CorpusDir, recipe: Recipe) -> str:
    if name == "ingest":
        return "up to date" if ingested else "runs"
    if name == "report":
        return "runs" if not states or any(state.fresh is None for state in states.values()) else "up to date"
    state = states.get(name)
    if state is not None and state.fresh is not None:
        return "up to date"
    step = next(step for step in walk.steps(recipe) if step.name == name)
    return "runs again: settings or inputs changed" if folder.stage_manifest(step.folder) else "runs"
