"""Any encoder in a file that OpenVINO reads: `model.onnx`, or `openvino_model.xml`, with its `tokenizer.json` beside.

The folders that sentence-transformers and Optimum write are understood: the model in `onnx/` or `openvino/`, the window
in `sentence_bert_config.json`, the pooling in `1_Pooling/config.json`. A model with an output of one vector a text is
not pooled again.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.transforms import tokenizers
from ropewalk.transforms.embedders import model_files, openvino_model
from ropewalk.transforms.embedders.encoder import EmbedderError, Pieces, WindowTokenizer

FILES = (
    "model.onnx", "onnx/model.onnx", "openvino_model.xml", "openvino/openvino_model.xml",
)  # fmt: skip
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
DEFAULT_LIMIT = 512
"""Tokens of a window where no file says how many."""


@dataclass(frozen=True)
class Onnx:
    """An `encoder.Encoder`.

    Attributes:
        model: Folder or Hub id, see `model_files.find`.
        precision: `f32` or `bf16`.
        batch: Windows in a request.
        threads: Threads that OpenVINO may use.
    """

    model: str
    precision: openvino_model.Precision = "f32"
    batch: int = openvino_model.BATCH
    threads: int = 1
    name = "onnx"
    short = 64

    @property
    def limit(self) -> int:
        """What the model's files say, less its special tokens."""
        return window_limit(model_files.find(self.model)) - _tokenizer(self.model, self.threads).special

    @property
    def dimensions(self) -> int:
        """Of the model's last output axis."""
        return int(_loaded(self.model, self.precision, self.threads).dimensions)

    @property
    def fingerprint(self) -> str:
        """Hash of the model's revision."""
        revision = model_files.find(self.model).revision
        return hashlib.sha256(f"onnx 1 {revision} {self.precision}".encode()).hexdigest()

    def setup(self) -> None:
        """Loads the model."""
        _tokenizer(self.model, self.threads)
        _loaded(self.model, self.precision, self.threads)

    def pieces(self, texts: pa.Array) -> list[Pieces]:
        """See `Encoder.pieces`."""
        return _tokenizer(self.model, self.threads).pieces(texts)

    def encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        """See `Encoder.encode`."""
        tokenizer, loaded = _tokenizer(self.model, self.threads), _loaded(self.model, self.precision, self.threads)

        def inputs(chosen: np.ndarray) -> dict[str, np.ndarray]:
            ids = tokenizer.wrap([windows[i] for i in chosen])
            values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            return {name: values[name].astype(kind) for name, kind in loaded.inputs.items()}

        return openvino_model.run(
            loaded.compiled,
            windows,
            inputs,
            lambda request: pooled(np.array(request.get_output_tensor(loaded.output).data), loaded.pooling),
            threads=self.threads,
            dimensions=loaded.dimensions,
            batch=self.batch,
        )


@dataclass(frozen=True)
class _Loaded:
    compiled: Any
    inputs: dict[str, np.dtype]
    output: int
    dimensions: int
    pooling: str


def pooled(states: np.ndarray, pooling: str) -> np.ndarray:
    """A vector of each text: [n, d] as it is, or [n, tokens, d] pooled by `mean`, `cls` or `last` -> [n, d]."""
    if states.ndim == 2:
        return states
    if pooling == "mean":
        found: np.ndarray = states.mean(axis=1, dtype=np.float64)
        return found
    return states[:, 0 if pooling == "cls" else -1]


def window_limit(files: model_files.ModelFiles) -> int:
    """Tokens that a window of the model holds, special ones included."""
    told = files.json("sentence_bert_config.json").get("max_seq_length")
    told = told or files.json("config.json").get("max_position_embeddings")
    return int(told or DEFAULT_LIMIT)


def source_of(model: str) -> tokenizers.TokenizerSource:
    """The tokenizer beside a model.

    Raises:
        EmbedderError: There is none.
    """
    path = model_files.find(model).folder / "tokenizer.json"
    if not path.is_file():
        raise EmbedderError(f"embed.model {model}: there is no {path}: save the model's fast tokenizer there")
    return tokenizers.TokenizerSource(model, path.read_text(encoding="utf-8"), None)


@functools.lru_cache(maxsize=2)
def _tokenizer(model: str, threads: int) -> WindowTokenizer:
    tokenizers.use_threads(threads)
    return WindowTokenizer(source_of(model))


@functools.lru_cache(maxsize=2)
def _loaded(model: str, precision: openvino_model.Precision, threads: int) -> _Loaded:
    found = model_files.find(model)
    path = next((found.folder / name for name in FILES if (found.folder / name).is_file()), None)
    if path is None:
        raise EmbedderError(f"embed.model {model}: none of {', '.join(FILES)} in {found.folder}")
    graph = _read(path)
    names = {port.get_any_name(): np.dtype(port.get_element_type().to_dtype()) for port in graph.inputs}
    unknown = set(names) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown or "input_ids" not in names:
        raise EmbedderError(f"{path}: its inputs are {sorted(names)}: an encoder takes input_ids and attention_mask")
    output, dimensions = _output(path, graph)
    pooling = found.json("1_Pooling/config.json")
    modes = [name for flag, name in POOLINGS.items() if pooling.get(flag)]
    if pooling and len(modes) != 1:
        raise EmbedderError(f"{found.folder}/1_Pooling/config.json asks for other pooling than {sorted(POOLINGS)}")
    compiled = openvino_model.compile_model(graph, precision, threads)
    return _Loaded(compiled, names, output, dimensions, modes[0] if modes else "mean")


def _read(path: Path) -> Any:
    try:
        return openvino_model.import_openvino().Core().read_model(str(path))
    except RuntimeError as error:
        raise EmbedderError(f"{path}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from None


def _output(path: Path, graph: Any) -> tuple[int, int]:
    """Which output to take, and its last axis: one vector a text before the states of all tokens."""
    shapes = [port.get_partial_shape() for port in graph.outputs]
    for rank in (2, 3):
        for number, shape in enumerate(shapes):
            if shape.rank.is_static and len(shape) == rank and shape[rank - 1].is_static:
                return number, shape[rank - 1].get_length()
    raise EmbedderError(f"{path}: no output of vectors [texts, numbers] or [texts, tokens, numbers]")
