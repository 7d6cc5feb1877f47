"""Any encoder that sentence-transformers loads, on its own device; windows of one length at a time, never padded.

On a GPU the vector of a window may depend on its company in the last bits: `batch: 1` rules that out, slowly.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.transforms import tokenizers
from ropewalk.transforms.embedders import model_files
from ropewalk.transforms.embedders.encoder import EmbedderError, Pieces, WindowTokenizer, equal_lengths
from ropewalk.transforms.embedders.onnx import source_of

INSTALL = "pip install sentence-transformers"
BATCH = 32


@dataclass(frozen=True)
class SentenceTransformers:
    """An `encoder.Encoder`.

    Attributes:
        model: Folder or Hub id, see `model_files.find`.
        batch: Windows in one forward pass.
        threads: Threads of the tokenizer.
    """

    model: str
    batch: int = BATCH
    threads: int = 1
    name = "sentence_transformers"
    short = 64

    @property
    def limit(self) -> int:
        """The model's `max_seq_length`, less its special tokens."""
        return int(_model(self.model).get_max_seq_length() or 512) - _tokenizer(self.model, self.threads).special

    @property
    def dimensions(self) -> int:
        """The model's own."""
        return int(_model(self.model).get_sentence_embedding_dimension())

    @property
    def fingerprint(self) -> str:
        """Hash of the model's revision."""
        return hashlib.sha256(f"sentence_transformers 1 {model_files.find(self.model).revision}".encode()).hexdigest()

    def setup(self) -> None:
        """Loads the model."""
        _tokenizer(self.model, self.threads)
        _model(self.model)

    def pieces(self, texts: pa.Array) -> list[Pieces]:
        """See `Encoder.pieces`."""
        return _tokenizer(self.model, self.threads).pieces(texts)

    def encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        """See `Encoder.encode`."""
        import torch

        tokenizer, model = _tokenizer(self.model, self.threads), _model(self.model)
        found = np.empty((len(windows), self.dimensions), np.float32)
        with torch.inference_mode():
            for chosen in equal_lengths(windows, self.batch):
                ids = torch.as_tensor(tokenizer.wrap([windows[i] for i in chosen]), device=model.device)
                features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                found[chosen] = model(features)["sentence_embedding"].float().cpu().numpy()
        return found


@functools.lru_cache(maxsize=1)
def _tokenizer(model: str, threads: int) -> WindowTokenizer:
    tokenizers.use_threads(threads)
    return WindowTokenizer(source_of(model))


@functools.lru_cache(maxsize=1)
def _model(model: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EmbedderError(f"embedder sentence_transformers needs its package: {INSTALL} ({error})") from error
    return SentenceTransformer(str(model_files.find(model).folder), local_files_only=True).eval()
