"""What a run folder says about itself: `synth.json`, `recipe.json`, `metrics.json`, and how to find the cache."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ropewalk.schemas import files
from ropewalk.schemas.manifest import Run, Shard
from ropewalk.schemas.settings import RecipeError
from ropewalk.schemas.synth_recipe import SynthRecipe, parse_synth_recipe
from ropewalk.synth.engine import EngineInfo

MANIFEST, RECIPE, METRICS = "synth.json", "recipe.json", "metrics.json"


class SynthManifest(BaseModel):
    """`synth.json`, written last. Everything but `run` is reproducible over the same cache.

    Attributes:
        key: Fingerprint of everything the rows depend on; an equal key makes a rerun a no-op.
        prompts: Key of the prompts.
        recipe: Name and version of the way of writing.
        config: The recipe file as it ran.
        engine: Who answered, see `synth.engine.EngineInfo`.
        counts: `records` = `sft` + `filtered` + `dead_letters`.
        counters: Sums over the shards, by name with unit; rejects by `kind:reason`.
        shards: The shards of `prompts`, `sft` and `rejects`.
        run: How it went: never part of a hash.
        metrics: The last figures of `metrics.json`; as `run`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ropewalk: str
    key: str
    prompts: str
    recipe: dict[str, Any]
    config: dict[str, Any]
    engine: dict[str, Any]
    counts: dict[str, int]
    counters: dict[str, int]
    shards: dict[str, list[Shard]]
    run: Run
    metrics: dict[str, Any] = Field(default_factory=dict)


def is_run(url: str) -> bool:
    """Whether a folder is that of a synthesis run, finished or not."""
    found = set(files.names(url))
    return MANIFEST in found or {RECIPE, "prompts"} <= found


def read_manifest(url: str) -> SynthManifest | None:
    """The manifest of a finished run; none of an unfinished one."""
    data = files.read_bytes(files.join(url, MANIFEST))
    return SynthManifest.model_validate_json(data) if data else None


def read_recipe(url: str) -> SynthRecipe:
    """The recipe a run was last called with; `output` is the folder as it is called now.

    Raises:
        RecipeError: There is none: this is no run folder.
    """
    data = files.read_bytes(files.join(url, RECIPE))
    document = json.loads(data) if data else {}
    if "prompts" not in document:
        raise RecipeError(f"{url}: not the folder of a synthesis run: it has no {RECIPE} with `prompts`")
    return parse_synth_recipe(document | {"output": url}, name=files.join(url, RECIPE))


def read_engine(url: str, role: str = "engine") -> EngineInfo | None:
    """Who answered in a run, once it has begun to ask; or who judged, with `role` "judge"."""
    data = files.read_bytes(files.join(url, METRICS))
    info = json.loads(data).get(role) if data else None
    return EngineInfo(**info) if info else None


def cache_url(url: str) -> str:
    """The request cache of a run folder; any other folder is taken for a cache itself."""
    return read_recipe(url).cache_url if is_run(url) else url
