"""One row as it was made: its coroutine runs once more, and only the cache answers."""

from ropewalk.schemas.synth_recipe import SynthRecipe
from ropewalk.synth.ask import Cache, Guarding
from ropewalk.synth.engine import EngineInfo
from ropewalk.synth.engines.replay import ReplayEngine
from ropewalk.synth.events import Event
from ropewalk.synth.generation import Generation
from ropewalk.synth.recipe import Prompt, Recipe
from ropewalk.synth.rollout import FindLoop


async def trace(
    prompt: Prompt,
    recipe: Recipe,
    cache: Cache,
    info: EngineInfo,
    config: SynthRecipe,
    *,
    judge: EngineInfo | None = None,
    guards: Guarding | None = None,
    find_loop: FindLoop | None = None,
) -> list[Event]:
    """Every prompt, reply and decision of a row, whole and in order.

    Args:
        prompt: The row.
        recipe: The recipe that made it.
        cache: The cache of the run; only read.
        info: The model that wrote it: name, revision and template are part of the cache's keys.
        config: The run.
        judge: The model that judged, if another.
        guards: As given to the run.
        find_loop: As given to the run.

    Returns:
        The events; the last is `done` or `rejected`. A row that the cache cannot finish ends as rejected with
        `not_cached`, after the request that was never answered.
    """
    events: list[Event] = []
    generation = Generation(
        recipe,
        ReplayEngine(None, info),
        cache,
        config,
        judge=None if judge is None else ReplayEngine(None, judge),
        observer=events.append,
        guards=guards,
        find_loop=find_loop,
    )
    await generation.start()
    await generation.make(prompt)
    return events
