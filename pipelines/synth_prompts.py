"""The prompts of a synthesis run: read once, numbered for good, laid as shards. What cannot be read is a dead letter.

    out/prompts/data-….arrow           every prompt a row is to be made of, in the order of the inputs
    out/prompts/unread/data-….arrow    records that are no prompt, and second copies of a prompt
    out/prompts/stage.json             written last

Files are read by the readers of `transforms.ingest`, so every format, packing and filesystem works. A corpus folder
gives its kept documents.
"""

import hashlib
import itertools
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ropewalk.pipelines import measure
from ropewalk.pipelines.synth_manifest import MANIFEST
from ropewalk.schemas import files
from ropewalk.schemas.manifest import StageManifest, add_counters, canonical_json, fingerprint
from ropewalk.schemas.recipe import IngestConfig, InputConfig, RecipeError, parse_recipe, source_name
from ropewalk.schemas.synth_recipe import PromptsConfig, SynthRecipe
from ropewalk.schemas.synthesis import PROMPTS, SYNTH_REJECTS
from ropewalk.synth.recipe import Prompt
from ropewalk.transforms.corpus_dir import ALIVE_COLUMNS, DOCUMENTS, CorpusDir
from ropewalk.transforms.ingest.splits import Split, plan_splits
from ropewalk.transforms.shards import ShardFolder, discard, sweep

VERSION = 1
STEP = "prompts"
"""Name of this step in the table of rejects."""
TEXT_LIMIT = 4096
"""Bytes of a rejected record that are kept."""
LANGUAGES = {"en": "en", "english": "en", "zh": "zh", "chinese": "zh"}
NUMBERS = ("required_words", "len_lo", "len_hi")


@dataclass(frozen=True)
class Input:
    """One input, listed.

    Attributes:
        config: As the recipe has it.
        source: Name of its source.
        splits: What to read, where it is files.
        corpus: What to read, where it is a corpus folder.
        alive: Stages of the corpus whose verdicts count.
        listing: What the result depends on besides the settings.
    """

    config: PromptsConfig
    source: str
    splits: tuple[Split, ...] = ()
    corpus: CorpusDir | None = None
    alive: tuple[str, ...] = ()
    listing: tuple[list[str], ...] = field(default=(), repr=False)


@dataclass
class Found:
    """Some records of an input: the prompts among them, and the others as rows of `SYNTH_REJECTS`."""

    prompts: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)


def list_prompts(recipe: SynthRecipe) -> list[Input]:
    """Lists the inputs of a recipe, in the order in which they are read, whatever the order they are named in.

    Raises:
        InputError: If an input does not exist, matches nothing, or holds nothing readable.
    """
    inputs = [_list(config, recipe.output) for config in recipe.prompts]
    return sorted(inputs, key=lambda item: (item.source, item.config.path, item.config.model_dump_json()))


def prompts_key(recipe: SynthRecipe, inputs: list[Input]) -> str:
    """Fingerprint of all that the prompts depend on: code, settings and the listing of the inputs."""
    return fingerprint(
        {
            "version": VERSION,
            "shard_rows": recipe.generation.shard_rows,
            "inputs": [item.config.model_dump(mode="json") for item in inputs],
            "listing": fingerprint([list(item.listing) for item in inputs]),
        }
    )


def manifest(output: str) -> StageManifest | None:
    """What is known of the prompts of a run, or none before they are laid."""
    data = files.read_bytes(files.join(output, STEP, "stage.json"))
    return StageManifest.model_validate_json(data) if data else None


def lay_prompts(recipe: SynthRecipe, inputs: list[Input], *, force: bool = False) -> StageManifest:
    """Reads the inputs into `prompts/`; does nothing if that was done before.

    Args:
        recipe: What to read, and where to write.
        inputs: See `list_prompts`.
        force: Read again even if nothing has changed.

    Returns:
        The manifest of the prompts: `records-in` = rows + `filtered-records` + `dead_letter-records`.

    Raises:
        RecipeError: If there is no prompt at all; the message says what became of the records.
    """
    key, url = prompts_key(recipe, inputs), files.join(recipe.output, STEP)
    laid = manifest(recipe.output)
    if laid is not None and laid.key == key and not force:
        sweep(url)
        return laid
    # Shards are numbered `of` how many, so all records are read before the first shard is written; and an input that
    # holds nothing leaves what was made before as it is.
    with measure.Meter() as meter, tempfile.TemporaryFile() as spool, tempfile.TemporaryFile() as rejected:
        fresh = _first_of_each(_spool(inputs, spool, rejected))
        count = int(fresh.sum())
        if not count:
            raise RecipeError(_nothing(inputs, rejected))
        files.remove(files.join(recipe.output, MANIFEST))  # rows of other prompts are not this run's
        discard(url)
        target = ShardFolder(url, PROMPTS, math.ceil(count / recipe.generation.shard_rows), key)
        unread = unread_folder(recipe.output, key)
        with unread.writer(0) as rejects:
            for batch in _stream(rejected):
                _write_rejects(rejects, batch.to_pylist())
            _lay(spool, fresh, target, recipe.generation.shard_rows, rejects)
    shards = target.finish()
    unread.finish()
    counters = add_counters([rejects.counters, *(shard.counters for shard in shards)])
    counters["records-in"] = count + rejects.rows
    laid = StageManifest(
        stage=STEP, key=key, config={"prompts": [item.config.model_dump(mode="json") for item in inputs]}, reads={},
        rows=count, counters=dict(sorted(counters.items())), shards=shards,
        run=meter.run(workers=1, runner="none", jobs={}),
    )  # fmt: skip
    files.write_bytes(files.join(url, "stage.json"), laid.model_dump_json(indent=1).encode())
    sweep(url)
    sweep(unread.url)
    return laid


def unread_folder(output: str, key: str) -> ShardFolder:
    """Where the records lie that became no prompt."""
    return ShardFolder(files.join(output, STEP, "unread"), SYNTH_REJECTS, 1, key)


def prompts_of(batch: pa.RecordBatch) -> Iterator[Prompt]:
    """Rows of `synthesis.PROMPTS` as recipes see them."""
    for row in batch.select(PROMPTS.names).to_pylist():
        yield Prompt(**row | {"source_ids": tuple(row["source_ids"])})


def read_input(item: Input) -> Iterator[Found]:
    """Reads one input in order, some thousand records at a time; duplicates are not looked for yet."""
    if item.corpus is not None:
        yield from _read_corpus(item, item.corpus)
        return
    # Beam takes seconds to import, and a run that has its prompts does not need it.
    from ropewalk.transforms.ingest.read import read_split

    config = IngestConfig(payload_limit=TEXT_LIMIT)
    for split in item.splits:
        for read in read_split(split, config):
            found = Found()
            for row in [] if read.rejects is None else read.rejects.to_pylist():
                found.rejects.append(_unreadable(row))
            for batch in read.documents:
                for row in batch.to_pylist():
                    _take(row, item.config, found)
            yield found


def _list(config: PromptsConfig, output: str) -> Input:
    name = source_name(InputConfig(path=config.path, source=config.source))
    if _is_corpus(config.path):
        corpus = CorpusDir.open(config.path)
        laid = corpus.manifest()
        assert laid is not None
        stages = {stage: corpus.stage_manifest(f"columns/{stage}") for stage in ALIVE_COLUMNS}
        current = {s: m.key for s, m in stages.items() if m and m.reads.get(DOCUMENTS) == laid.content}
        listing = [[name, laid.content], *([stage, key] for stage, key in sorted(current.items()))]
        return Input(config, name, corpus=corpus, alive=tuple(current), listing=tuple(listing))
    entry = {"path": config.path, "source": config.source, "format": config.format, "text": config.prompt}
    ingest = {"limit": config.limit}
    plan = plan_splits(parse_recipe({"output": output, "input": [entry | {"id": config.id}], "ingest": ingest}))
    return Input(config, name, splits=plan.splits, listing=tuple(plan.listing))


def _is_corpus(path: str) -> bool:
    try:
        return "corpus.json" in files.names(path)
    except (OSError, ValueError, ImportError):  # whoever lists the files tells what is wrong
        return False


def _read_corpus(item: Input, corpus: CorpusDir) -> Iterator[Found]:
    left = item.config.limit if item.config.limit is not None else math.inf
    columns = {DOCUMENTS: ["id", "text", "source", "metadata"]}
    for shard in range(len(corpus.file_names)):
        for batch in corpus.read(shard, columns, alive=item.alive):
            found = Found()
            kept = batch.filter(batch.column("alive"))
            for row in kept.slice(0, min(kept.num_rows, int(min(left, kept.num_rows)))).to_pylist():
                language = _language(_fields(row["metadata"]).get("language"))
                about = {"kind": "document", "language": language, "source_ids": [row["id"]]}
                if item.config.source is not None:
                    about["source"] = item.config.source
                _keep({"id": row["id"], "prompt": row["text"], "source": row["source"]} | about, found)
            left -= kept.num_rows
            yield found
            if left <= 0:
                return


def _take(row: dict[str, Any], config: PromptsConfig, found: Found) -> None:
    """A record of a file becomes a prompt, or a reject that says which field is wrong."""
    fields = _fields(row["metadata"])
    prompt = {"id": row["id"], "prompt": row["text"], "kind": "task", "source": row["source"], "source_ids": []}
    for name in NUMBERS:
        key = config.required_words if name == "required_words" else name
        value = fields.get(key)
        if value in (None, ""):
            continue
        number = _whole(value)
        if number is None:
            detail = f"{key} is {value!r}: a whole number of words from 1, or leave it out"
            found.rejects.append(_reject(prompt, "bad_field", detail))
            return
        prompt[name] = number
    if prompt.get("len_lo", 0) > prompt.get("len_hi", math.inf):
        detail = f"len_lo {prompt['len_lo']} is above len_hi {prompt['len_hi']}: exchange them"
        found.rejects.append(_reject(prompt, "bad_field", detail))
        return
    spoken = fields.get("language")
    prompt["language"] = _language(spoken)
    if spoken not in (None, "") and prompt["language"] is None:
        detail = f"language is {spoken!r}: only en and zh are written; leave it out to go by the text"
        found.rejects.append(_reject(prompt, "unsupported_language", detail, kind="filtered"))
        return
    _keep(prompt, found)


def _keep(prompt: dict[str, Any], found: Found) -> None:
    if not prompt["prompt"].strip():
        found.rejects.append(_reject(prompt, "empty_prompt", "nothing but white space"))
    else:
        found.prompts.append(prompt)


def _fields(metadata: str | None) -> dict[str, Any]:
    return json.loads(metadata) if metadata else {}


def _whole(value: Any) -> int | None:
    """A number of words, from any way in which a file may hold it."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and 1 <= number < 2**31 else None


def _language(value: Any) -> str | None:
    """`en` or `zh` from a tag such as `en-US`, `zh_CN` or `English`."""
    if not isinstance(value, str):
        return None
    return LANGUAGES.get(value.strip().lower().replace("_", "-").split("-")[0])


def _reject(prompt: dict[str, Any], reason: str, detail: str, *, kind: str = "dead_letter") -> dict[str, Any]:
    return {
        "id": prompt["id"], "kind": kind, "reason": reason, "detail": detail, "step": STEP, "text": "",
        "metrics": "{}", "completion_tokens": 0, "source": prompt["source"], "prompt": prompt["prompt"],
    }  # fmt: skip


def _unreadable(row: dict[str, Any]) -> dict[str, Any]:
    """A dead letter of the readers as one of ours; its id is the place it lies at, for it has no other."""
    place = {name: row[name] for name in ("path", "line", "byte_offset")}
    where = row["path"] + (f", line {row['line']}" if row["line"] else "")
    identity = canonical_json([row["source"], *place.values(), row["reason"]])
    # The readers speak of the settings of a corpus recipe.
    detail = row["detail"].replace("set `text` of the input", "set `prompt` of the input")
    return _reject(
        {"id": hashlib.blake2b(identity.encode(), digest_size=16).hexdigest(), "source": row["source"], "prompt": ""},
        row["reason"], f"{where}: {detail}",
    ) | {
        "text": (row["payload"] or b"")[:TEXT_LIMIT].decode(errors="replace"),
        "metrics": canonical_json({name: value for name, value in place.items() if value is not None}),
    }  # fmt: skip


def _spool(inputs: list[Input], prompts: IO[bytes], rejects: IO[bytes]) -> np.ndarray:
    """Writes all prompts to one temporary stream and all rejects to another; ids of the prompts in order, S32[n]."""
    ids = [np.empty(0, "S32")]
    with (
        pa.ipc.new_stream(pa.PythonFile(prompts, "w"), PROMPTS) as prompt_stream,
        pa.ipc.new_stream(pa.PythonFile(rejects, "w"), SYNTH_REJECTS) as reject_stream,
    ):
        for item in inputs:
            for found in read_input(item):
                if found.prompts:
                    prompt_stream.write_batch(pa.RecordBatch.from_pylist(found.prompts, schema=PROMPTS))
                    ids.append(np.array([prompt["id"] for prompt in found.prompts], "S32"))
                if found.rejects:
                    reject_stream.write_batch(pa.RecordBatch.from_pylist(found.rejects, schema=SYNTH_REJECTS))
    return np.concatenate(ids)


def _stream(spool: IO[bytes]) -> Iterator[pa.RecordBatch]:
    spool.seek(0)
    yield from pa.ipc.open_stream(spool)


def _first_of_each(ids: np.ndarray) -> np.ndarray:
    """Which ids are seen for the first time: bool[n]."""
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    return first


def _lay(spool: IO[bytes], fresh: np.ndarray, target: ShardFolder, shard_rows: int, rejects: Any) -> None:
    """Cuts the stream in shards of equal length; a prompt that was there before goes to the rejects."""

    def parts() -> Iterator[tuple[int, pa.RecordBatch]]:
        row = number = 0
        for batch in _stream(spool):
            mask = pa.array(fresh[row : row + batch.num_rows])
            row += batch.num_rows
            detail = "an earlier prompt has this id: the same key in the same source, or the same text"
            again = batch.filter(pc.invert(mask)).to_pylist()
            _write_rejects(rejects, [_reject(prompt, "duplicate_id", detail, kind="filtered") for prompt in again])
            kept = batch.filter(mask)
            while kept.num_rows:
                part = kept.slice(0, shard_rows - number % shard_rows)
                yield number // shard_rows, part
                kept, number = kept.slice(part.num_rows), number + part.num_rows

    for shard, group in itertools.groupby(parts(), key=lambda item: item[0]):
        with target.writer(shard) as writer:
            for _, part in group:
                writer.write(part)
                for source, count in Counter(part.column("source").to_pylist()).items():
                    writer.count(f"source:{source}-prompts", count)


def _write_rejects(rejects: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        rejects.write(pa.RecordBatch.from_pylist(rows, schema=SYNTH_REJECTS))
    for row in rows:
        rejects.count(f"{row['kind']}-records", 1)
        rejects.count(f"reason:{row['reason']}-records", 1)


def _nothing(inputs: list[Input], rejects: IO[bytes]) -> str:
    paths = ", ".join(repr(item.config.path) for item in inputs)
    reasons: Counter[str] = Counter()
    first = ""
    for batch in _stream(rejects):
        reasons.update(batch.column("reason").to_pylist())
        first = first or batch.column("detail")[0].as_py()
    if not reasons:
        return f'prompts: {paths} has no record: write one prompt a line, such as {{"prompt": "Write about …"}}'
    counts = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(reasons.items()))
    return f"prompts: {paths} has no prompt; all records were rejected: {counts}. First: {first}"
