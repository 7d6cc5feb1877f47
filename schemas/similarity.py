"""Settings of the stages that bring similar documents together: `embed`, `cluster` and `order`."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ropewalk.schemas.settings import Settings


class EmbedConfig(Settings):
    """Document vectors."""

    embedder: Literal["lexical", "static", "minilm", "onnx", "sentence_transformers", "vllm", "openai"] = "lexical"
    """`lexical`: hashed TF-IDF, randomly projected; needs no model. `static`: a vector for each token, distilled once
    from `minilm`. `minilm`: all-MiniLM-L6-v2 on the CPU. `onnx`, `sentence_transformers`, `vllm`: a model of yours.
    `openai`: a server with `/v1/embeddings`."""
    model: str | None = None
    """Folder of a model, or Hub id (`org/name@revision`) of one that has been downloaded; for `openai` the server's
    name for it."""
    url: str | None = None
    """Base URL of the server of `openai`, such as `http://localhost:8000/v1`."""
    api_key_env: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable that holds the server's key; the key itself is never written anywhere."""
    window: int | None = Field(default=None, ge=8)
    """Tokens of a window, for `openai` characters; default: as many as the model takes, for `openai` 1200."""
    overlap: float = Field(default=0.1, ge=0, le=0.5)
    """Share of a window that the next one repeats."""
    max_windows: int = Field(default=8, ge=1, le=1024)
    """Windows of one document, at most: evenly spaced, the first and the last among them."""
    dimensions: int | None = Field(default=None, ge=8, le=512)
    """Numbers of a vector; default: as many as the embedder has, at most 512."""
    reduce: Literal["project", "truncate"] = "project"
    """How a longer vector is shortened: by random signs, or to its first numbers, as Matryoshka encoders allow."""
    precision: Literal["f32", "bf16"] = "f32"
    """Arithmetic of `minilm` and `onnx`; `bf16` is faster where the processor has it, but not the same on all."""
    temperature: float = Field(default=1.0, ge=0.1, le=10)
    """Divides the attention logits of `minilm` (TempScale); below 1 sharpens the attention."""
    centre: bool = False
    """Take the mean vector of documents of like length from each vector, so that length alone makes none alike."""
    batch: int | None = Field(default=None, ge=1)
    """Windows in a request; default: 8 for `onnx`, 32 for `sentence_transformers`, 64 for `openai`, 1024 for `vllm`."""
    options: dict[str, Any] = {}
    """Passed through to vLLM's `LLM(…)`."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        takes = _EMBEDDERS[self.embedder]
        for name, field in type(self).model_fields.items():
            if name not in ("embedder", "centre", *takes) and getattr(self, name) != field.default:
                users = [f"`{kind}`" for kind, known in _EMBEDDERS.items() if name in known]
                raise ValueError(
                    f"{name} does nothing for embedder {self.embedder}: leave it out, or choose {' or '.join(users)}"
                )
        for name in ("model", "url"):
            if name in takes and getattr(self, name) is None:
                raise ValueError(f"embedder {self.embedder} needs `{name}`: {_NEEDED[name]}")
        return self


_WINDOWS = ("window", "overlap", "max_windows", "dimensions", "reduce")
_EMBEDDERS: dict[str, tuple[str, ...]] = {
    "lexical": (),
    "static": ("dimensions",),
    "minilm": (*_WINDOWS, "precision", "temperature"),
    "onnx": (*_WINDOWS, "model", "precision", "batch"),
    "sentence_transformers": (*_WINDOWS, "model", "batch"),
    "vllm": (*_WINDOWS, "model", "batch", "options"),
    "openai": (*_WINDOWS, "model", "url", "api_key_env", "batch"),
}
"""The settings that each embedder heeds."""
_NEEDED = {
    "model": "a folder, a Hub id, or the server's name for its model",
    "url": "the base URL of the server, such as http://localhost:8000/v1",
}


class ClusterConfig(Settings):
    """Spherical k-means; bounds how many documents are compared with each other."""

    size: int = Field(default=1000, ge=1)
    """Documents a cluster should have: the number of clusters is documents / size."""
    max_size: int = Field(default=8000, ge=2)
    """Larger clusters are split again."""
    sample_per_cluster: int = Field(default=128, ge=1)
    """Documents per cluster in the training sample."""
    iterations: int = Field(default=12, ge=1)
    """Rounds of k-means."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_size < self.size:
            raise ValueError(f"max_size={self.max_size} is below size={self.size}: raise max_size")
        return self


class OrderConfig(Settings):
    """The similarity order: In-Context Pretraining's greedy path, short segments dissolved."""

    neighbours: int = Field(default=10, ge=1, le=256)
    """Nearest neighbours of a document in the graph."""
    min_segment: int = Field(default=21, ge=0)
    """Segments of the path with fewer documents are dissolved into their neighbours' places; 0: paper-faithful."""
