"""An embedding model in vLLM, in this process: `LLM(model, runner="pooling").embed(…)`, as vLLM 0.32 has it.

vLLM makes its own batches, so that a window's vector may depend on its company in the last bits.
"""

import atexit
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.transforms import tokenizers
from ropewalk.transforms.embedders import model_files
from ropewalk.transforms.embedders.encoder import EmbedderError, Pieces, WindowTokenizer
from ropewalk.transforms.embedders.onnx import source_of, window_limit

INSTALL = "pip install 'ropewalk[vllm]'"
BATCH = 1024
"""Windows handed to vLLM at once: it makes batches of its own from them."""


@dataclass(frozen=True)
class Vllm:
    """An `encoder.Encoder`.

    Attributes:
        model: Folder or Hub id, see `model_files.find`.
        batch: Windows handed over at once.
        options: Further arguments of vLLM's `LLM`.
        threads: Threads of the tokenizer.
    """

    model: str
    batch: int = BATCH
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    name = "vllm"
    short = 64

    @property
    def limit(self) -> int:
        """`max_model_len` of the options, or what the model's files say, less the special tokens."""
        told = self.options.get("max_model_len") or window_limit(model_files.find(self.model))
        return int(told) - _tokenizer(self.model, self.threads).special

    @property
    def dimensions(self) -> int:
        """`hidden_size` of the model's config.json: known without loading the model."""
        width = model_files.find(self.model).json("config.json").get("hidden_size")
        if not width:
            raise EmbedderError(f"embed.model {self.model}: its config.json has no hidden_size")
        return int(width)

    @property
    def fingerprint(self) -> str:
        """Hash of the model's revision and the options."""
        parts = (1, model_files.find(self.model).revision, json.dumps(dict(self.options), sort_keys=True))
        return hashlib.sha256(f"vllm {parts}".encode()).hexdigest()

    def setup(self) -> None:
        """Loads the model."""
        _tokenizer(self.model, self.threads)
        self._engine()

    def pieces(self, texts: pa.Array) -> list[Pieces]:
        """See `Encoder.pieces`."""
        return _tokenizer(self.model, self.threads).pieces(texts)

    def encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        """See `Encoder.encode`."""
        tokenizer, engine = _tokenizer(self.model, self.threads), self._engine()
        found = np.empty((len(windows), self.dimensions), np.float32)
        for first in range(0, len(windows), self.batch):
            part = windows[first : first + self.batch]
            prompts = [{"prompt_token_ids": tokenizer.wrap([window])[0].tolist()} for window in part]
            made = [output.outputs.embedding for output in engine.embed(prompts, use_tqdm=False)]
            found[first : first + len(part)] = np.array(made, np.float32)
        return found

    def _engine(self) -> Any:
        return _engine(self.model, json.dumps(dict(self.options), sort_keys=True))


@functools.lru_cache(maxsize=1)
def _tokenizer(model: str, threads: int) -> WindowTokenizer:
    tokenizers.use_threads(threads)
    return WindowTokenizer(source_of(model))


@functools.lru_cache(maxsize=1)
def _engine(model: str, options: str) -> Any:
    try:
        import vllm
    except ImportError as error:
        raise EmbedderError(f"embedder vllm needs vLLM: {INSTALL} ({error})") from error
    # On a CPU vLLM's workers look through all modules, and stumble over numba's if they are forked from this process.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    folder = str(model_files.find(model).folder)
    made = vllm.LLM(**({"model": folder, "runner": "pooling"} | json.loads(options)))
    # Else Python would wait at its end for vLLM's process, which waits for Python.
    atexit.register(made.llm_engine.engine_core.shutdown)
    return made
