"""Settings of the stages that bring similar documents together: `embed`, `cluster`, `neighbours` and `order`."""

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
    balanced: bool = False
    """Even out the sizes of clusters: those that would be larger than a quarter above the mean cost a price, at which
    their outer documents go to the next best cluster."""
    terms: int = Field(default=8, ge=0, le=64)
    """Words that name a cluster, at most; 0: none."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_size < self.size:
            raise ValueError(f"max_size={self.max_size} is below size={self.size}: raise max_size")
        return self


class NeighboursConfig(Settings):
    """Nearest neighbours of every document in the whole corpus, and their graph."""

    count: int = Field(default=10, ge=1, le=256)
    """Neighbours of a document."""
    cells: int = Field(default=4, ge=1, le=256)
    """Clusters in which they are looked for: the document's own and the nearest others."""
    search: Literal["exact", "hnsw"] = "exact"
    """How a cluster is searched: every pair, or large clusters along a graph (HNSW)."""
    edges: bool = True
    """Write the graph, an edge where either has the other, to `columns/neighbours/edges/`."""
    recall_sample: int = Field(default=512, ge=0, le=1 << 16)
    """Documents whose neighbours are compared with exact ones, found among all documents: recall is in the manifest."""


class OrderConfig(Settings):
    """The similarity order: inside each cluster by `method`, then a local search."""

    method: Literal["tree", "edges", "dissolve", "icp"] = "tree"
    """`tree`: leaves of average linkage, every branch together; `edges`: greedily the most similar pairs; `icp`: greedy
    path of In-Context Pretraining (with `search: 0`: its paper's order); `dissolve`: the same, short segments
    dissolved."""
    neighbours: int = Field(default=10, ge=1, le=256)
    """Nearest neighbours of a document: edges of the graph, and beside which the local search may move it."""
    min_segment: int = Field(default=21, ge=0)
    """`dissolve`: segments of the path with fewer documents are dissolved into their neighbours' places."""
    window: int = Field(default=10, ge=1, le=64)
    """Documents ahead over which similarity counts in the local search, d places ahead by 1/d; 1: only neighbours."""
    search: int = Field(default=4, ge=0, le=1000)
    """Passes of the local search; with `window: 1`, kicks a document; 0: none."""
    near_duplicate: float = Field(default=0.95, gt=0, le=1)
    """Documents with this cosine or a larger one are near-duplicates: the local search keeps them apart."""
