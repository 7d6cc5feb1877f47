"""An engine that only knows a request cache: for traces and tests. It asks nobody."""

from typing import Protocol

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.cache_key import cache_key
from ropewalk.synth.engine import Completion, EngineInfo, Request, RequestError


class Answers(Protocol):
    """What is needed of `cache.RequestCache`."""

    def get(self, key: bytes) -> Completion | None:
        """The answer, if it is there."""


class ReplayEngine:
    """Answers what the cache answers.

    Args:
        cache: The cache; none: it answers nothing itself, for callers that look into a cache first, as `RowAsk` does.
        info: The model that filled the cache: name, revision and template are part of its keys.
    """

    def __init__(self, cache: Answers | None, info: EngineInfo) -> None:
        self._cache, self._info = cache, info

    async def start(self) -> EngineInfo:
        """The model it stands in for."""
        return self._info

    async def generate(self, request: Request) -> Completion:
        """Answers from the cache.

        Raises:
            RequestError: `not_cached`.
        """
        completion = self._cache.get(cache_key(self._info, request)) if self._cache is not None else None
        if completion is None:
            where = f"{request.row}, {request.step}, attempt {request.attempt}, segment {request.segment}"
            raise RequestError("not_cached", f"the cache has no answer to {where}", transient=False)
        return completion

    def count_tokens(self, text: str) -> int:
        """An estimate: four bytes a token."""
        return len(text.encode("utf-8", "replace")) // 4 + 1

    def stats(self) -> dict[str, float]:
        """None."""
        return {}

    async def close(self) -> None:
        """Nothing to free."""


def from_config(config: EngineConfig) -> ReplayEngine:
    """The engine of these settings: `model`, and the options `cache` (URL), `revision` and `template`.

    Raises:
        ValueError: Another option.
    """
    from ropewalk.synth.cache import RequestCache

    options = dict(config.options)
    url, revision, template = options.pop("cache", None), options.pop("revision", ""), options.pop("template", "")
    if options:
        raise ValueError(f"engine replay has no option {min(options)!r}; it has cache, revision and template")
    if url is None:
        raise ValueError("engine replay needs the option `cache`: the URL of a request cache")
    model = config.model or "echo"
    info = EngineInfo("replay 1", model, str(revision), str(template), max_sequences=config.max_sequences or 64)
    return ReplayEngine(RequestCache.open(str(url)), info)
