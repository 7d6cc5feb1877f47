"""From settings to an engine. Engines are imported when one is asked for: most need packages of their own."""

import importlib

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import Engine


def load(config: EngineConfig) -> Engine:
    """The engine of these settings, not started.

    Raises:
        ValueError: Its options are wrong; the message names them.
    """
    module = importlib.import_module(f"ropewalk.synth.engines.{config.name}")
    engine: Engine = module.from_config(config)
    return engine
