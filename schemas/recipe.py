"""The recipe: what to read and how each stage is set. Frozen; unknown keys are refused with a suggestion."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ropewalk.schemas import settings
from ropewalk.schemas.decontaminate import DecontaminateConfig
from ropewalk.schemas.dedup import DedupConfig, PassagesConfig, SemanticConfig
from ropewalk.schemas.filters import FilterConfig
from ropewalk.schemas.settings import RecipeError, Settings
from ropewalk.schemas.similarity import ClusterConfig, EmbedConfig, NeighboursConfig, OrderConfig

__all__ = ["STAGES", "Recipe", "RecipeError", "load_recipe", "parse_recipe", "source_name"]

STAGES = (
    "ingest", "filter", "dedup", "passages", "decontaminate", "tokenize", "embed", "cluster", "semantic", "neighbours",
    "order", "pack", "report",
)  # fmt: skip
"""The walk, in order. Every stage but ingest can be switched off in a recipe with `stage: false`; `passages`,
`decontaminate`, `semantic` and `neighbours` are off unless the recipe sets them."""


class InputConfig(Settings):
    """One input: files, folders or datasets that share a source name."""

    path: str
    """File, folder, glob, or any fsspec URL (`hf://datasets/org/name/*.parquet`, `s3://…`)."""
    source: str | None = None
    """Name of the source in the corpus; default: derived from the path."""
    format: Literal["auto", "jsonl", "json", "parquet", "arrow", "text", "html", "code"] = "auto"
    """How to read the files; `auto` goes by the ending of each name. `code` takes source files of every language."""
    text: str = "text"
    """Field that holds the document."""
    id: str = "id"
    """Field that holds a stable key, where there is one."""
    url: str = "url"
    """Field that holds the document's address, where there is one."""
    unit: Literal["file", "repository"] = "file"
    """For text and code: one document a file, or all files of a repository joined into one, in the order of their
    paths. A folder is one repository if it holds `.git` or readable files itself, else each folder in it is one; with a
    glob, each folder that matches."""
    exclude: tuple[str, ...] = ()
    """Glob patterns of files and folders to leave out, matched against the path below `path` and against the name."""
    priority: int = Field(default=0, ge=-128, le=127)
    """Of two copies otherwise equal, the one from the source with the higher priority is kept."""


class IngestConfig(Settings):
    """Reading records into the row space."""

    shard_bytes: int = Field(default=64 << 20, ge=1 << 10)
    """Input bytes of one shard: larger JSONL files are split at line ends, small files share a shard."""
    max_record_bytes: int = Field(default=128 << 20, ge=1, lt=1 << 31)
    """A longer record becomes a dead letter; bounds memory."""
    payload_limit: int = Field(default=64 << 10, ge=0)
    """Bytes of a rejected record kept in the dead-letter table."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many documents of every input, for a quick try."""


class TokenizeConfig(Settings):
    """Text to token ids."""

    tokenizer: str = "auto"
    """`auto` (smollm2 if installed, else bytes), `smollm2`, `bytes`, path of a `tokenizer.json`, or a Hub id."""
    add_eos: bool = True
    """Append the tokenizer's end-of-text token to every document."""


class PackConfig(Settings):
    """One layout of training sequences."""

    layout: Literal["in_context", "concat", "random"] = "in_context"
    """`in_context`: best-fit along the similarity order; `concat`: the same order cut every `length` tokens;
    `random`: best-fit along a seeded random order."""
    length: int = Field(default=8192, ge=2, lt=2**31)
    """Tokens in a sequence, at most."""
    open_bins: int = Field(default=10, ge=1, le=4096)
    """Sequences kept open at once; more fill better, fewer keep neighbours closer."""
    loss: Literal["token", "document"] = "token"
    """Every token counts the same, or every document (tokens weigh 1 / tokens of their segment)."""

    @property
    def name(self) -> str:
        """Folder of the layout below `sequences/`."""
        return f"{self.layout}-{self.length}"


class Recipe(Settings):
    """A whole walk. Every stage runs with its defaults unless it is set, or switched off with `false`."""

    output: str
    """Corpus folder: local path or any fsspec URL."""
    input: tuple[InputConfig, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random."""
    memory_mb: int = Field(default=1024, ge=64)
    """Memory one pass of a shuffle may take on the local runner; more data means more passes, never another result."""
    ingest: IngestConfig = IngestConfig()
    filter: FilterConfig | Literal[False] = FilterConfig()
    dedup: DedupConfig | Literal[False] = DedupConfig()
    passages: PassagesConfig | Literal[False] = False
    decontaminate: DecontaminateConfig | Literal[False] = False
    tokenize: TokenizeConfig | Literal[False] = TokenizeConfig()
    embed: EmbedConfig | Literal[False] = EmbedConfig()
    cluster: ClusterConfig | Literal[False] = ClusterConfig()
    semantic: SemanticConfig | Literal[False] = False
    neighbours: NeighboursConfig | Literal[False] = False
    order: OrderConfig | Literal[False] = OrderConfig()
    pack: tuple[PackConfig, ...] | Literal[False] = (PackConfig(),)
    report: bool = True
    """Write `report.html` at the end."""

    @field_validator("input", "pack", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [{"path": value}]
        if isinstance(value, dict):
            return [value]
        if isinstance(value, list | tuple):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator(
        "filter", "dedup", "passages", "decontaminate", "tokenize", "embed", "cluster", "semantic", "neighbours",
        "order", "ingest", mode="before",
    )  # fmt: skip
    @classmethod
    def _defaults_if_empty(cls, value: Any) -> Any:
        return {} if value is None or value is True else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        needs = {
            "cluster": ("embed",),
            "semantic": ("embed", "cluster"),
            "neighbours": ("embed", "cluster"),
            "order": ("embed", "cluster"),
            "pack": ("tokenize",),
        }
        for stage, required in needs.items():
            for other in required:
                if getattr(self, stage) is not False and getattr(self, other) is False:
                    raise ValueError(f"{stage} needs {other}: remove `{other}: false`, or add `{stage}: false`")
        names = [pack.name for pack in self.pack or ()]
        if len(set(names)) < len(names):
            raise ValueError(f"pack: layout and length must differ between entries, got {', '.join(names)}")
        for pack in self.pack or ():
            if pack.layout != "random" and self.order is False:
                raise ValueError(f"pack: layout {pack.layout!r} needs order: use `random`, or remove `order: false`")
        sources: dict[str, int] = {}
        for entry in self.input:
            name = source_name(entry)
            if sources.setdefault(name, entry.priority) != entry.priority:
                raise ValueError(f"input: source {name!r} has two priorities; give the inputs different `source` names")
        return self

    def enabled(self, stage: str) -> bool:
        """Whether `stage` is switched on."""
        return stage == "ingest" or getattr(self, stage) is not False


def source_name(entry: InputConfig) -> str:
    """Name of an input's source: as given, or the last part of its path that names something."""
    if entry.source:
        return entry.source
    parts = [p for p in re.split(r"[/\\]+", entry.path.split("://")[-1]) if p not in ("", ".", "..")]
    plain = [p for p in parts if not re.search(r"[*?\[\]{}]", p)]
    name = (plain or ["input"])[-1]
    return re.sub(r"(\.(jsonl?|ndjson|parquet|arrow|txt|md|rst|html?|gz|zst))+$", "", name) or "input"


def load_recipe(path: str | Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Reads a YAML recipe.

    Args:
        path: The file.
        overrides: Values by dotted name (`{"dedup.threshold": 0.85, "pack.0.length": 32768}`), set last.

    Raises:
        RecipeError: The file is missing, no YAML, or has an unknown key or a wrong value.
    """
    return settings.load(Recipe, path, overrides)


def parse_recipe(document: dict[str, Any], *, name: str = "recipe") -> Recipe:
    """Validates a recipe given as plain data; see `load_recipe`."""
    return settings.parse(Recipe, document, name=name)
