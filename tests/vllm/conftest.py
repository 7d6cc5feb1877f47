"""Fixtures of the tests that need vLLM. They run in an environment of their own, by `make test-vllm`."""

import asyncio
import importlib.util
import os
import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import Completion, Request, RequestError
from ropewalk.synth.engines import vllm
from ropewalk.synth.engines.stepped import SteppedEngine

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]

os.environ["HF_HUB_OFFLINE"] = "1"
# The tiny model has nothing to share out, and two threads that wait for each other crawl where others use the cores.
os.environ["OMP_NUM_THREADS"] = "1"

TINY = {"dtype": "float32", "kv_cache_memory_bytes": 1 << 26, "block_size": 32}
"""Options of the tiny model: float32, so that a request gets the same tokens in any batch."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny random model of `tiny_model.py`."""
    folder = tmp_path_factory.mktemp("tiny")
    runpy.run_path(str(Path(__file__).with_name("tiny_model.py")))["make"](folder)
    return folder


class Served:
    """At most one vLLM engine at a time, kept as long as the next test wants the same one.

    Closing an engine takes vLLM's process groups away from any other in the process.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._config: EngineConfig | None = None
        self.engine: SteppedEngine

    def __call__(self, model: Path, *, max_sequences: int = 16, **options: object) -> "Served":
        """Serves a model."""
        options = {**TINY, **options}
        config = EngineConfig(name="vllm", model=str(model), max_sequences=max_sequences, options=options)
        if config != self._config:
            self.close()
            self.engine = vllm.from_config(config)
            self.info = self.run(self.engine.start())
            self._config = config
        return self

    def run(self, coroutine):
        """Runs a coroutine in the loop the engine lives in."""
        return self._runner.run(coroutine)

    def answers(self, requests: Sequence[Request]) -> list[Completion | RequestError]:
        """Answers of requests asked at once, in one batch; a request that failed gives its error."""

        async def ask():
            return await asyncio.gather(*map(self.engine.generate, requests), return_exceptions=True)

        return self.run(ask())

    def answer(self, request: Request) -> Completion:
        """Answer of one request, alone."""
        return self.run(self.engine.generate(request))

    def close(self) -> None:
        """Ends the engine that runs, if any."""
        if self._config is not None:
            self._config = None
            self.run(self.engine.close())


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """Starts vLLM in this process: `served(model, max_num_seqs=4).answer(request)`."""
    served = Served()
    yield served
    served.close()


@pytest.fixture
def tiny(served: Served, tiny_model: Path) -> Served:
    """The tiny model on vLLM, as most tests want it."""
    return served(tiny_model)


@pytest.fixture(scope="session")
def make_request() -> Callable[..., Request]:
    """Makes requests: `make_request([5, 6, 7], max_tokens=9)`, or with messages in place of ids."""
    from ropewalk.synth.engine import Message, Sampling

    def make(prompt: Sequence[int] | str, *, generated: Sequence[int] = (), **sampling) -> Request:
        ids, messages = (), ()
        if isinstance(prompt, str):
            messages = (Message("user", prompt),)
        else:
            ids = tuple(prompt)
        return Request(
            row="r", step="s", messages=messages, prompt_ids=ids, generated_ids=tuple(generated),
            sampling=Sampling(**sampling),
        )  # fmt: skip

    return make
