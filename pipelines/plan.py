"""`ropewalk plan`: what a run would do, before anything is spent.

The cost model is the design's: bytes per document that a stage reads, shuffles and writes. Numbers of documents are
those of the corpus where it exists, else an estimate from the inputs' size.
"""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ropewalk.pipelines import corpus, walk
from ropewalk.pipelines.terminal import shown, size
from ropewalk.schemas.recipe import Recipe
from ropewalk.transforms.corpus_dir import CorpusDir

BYTES_PER_DOCUMENT = 4_000
"""Assumed length of a document before ingest has counted."""
BYTES_PER_TOKEN = 4
"""Assumed text per token before tokenize has counted; also the size of a token id."""
VECTOR_BYTES = 512
EDGE_BYTES = 24


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
    dedup = recipe.dedup
    bands = (dedup.bands + 1 if dedup.near else 1) if dedup else 0
    signature = 4 * dedup.bands * dedup.rows + 48 if dedup else 0
    known = {
        "ingest": Cost(text_bytes, 0, text_bytes),
        "filter": Cost(4 * documents, 0, 2 * documents),
        "dedup": Cost(text_bytes, documents * bands * EDGE_BYTES, documents * (signature + 16)),
        "tokenize": Cost(text_bytes, 0, tokens * BYTES_PER_TOKEN),
        "embed": Cost(text_bytes, 0, documents * VECTOR_BYTES),
        "cluster": Cost(documents * VECTOR_BYTES, 0, documents * 8),
        "order": Cost(documents * VECTOR_BYTES, documents * (VECTOR_BYTES + 52), documents * 12),
        "report": Cost(documents * 600, 0, 2_000_000),
    }
    found = {}
    for name in corpus.walked(recipe):
        pack = Cost(tokens * BYTES_PER_TOKEN, 0, tokens * BYTES_PER_TOKEN)
        found[name] = pack if name.startswith("pack ") else known[name]
    return found


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
    console.print(f"A pass of a local shuffle holds at most {recipe.memory_mb} MB (`memory_mb`). Nothing was run.")


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
