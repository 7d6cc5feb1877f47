"""Settings of the stages that bring similar documents together: `embed`, `cluster` and `order`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ropewalk.schemas.settings import Settings


class EmbedConfig(Settings):
    """Document vectors."""

    embedder: Literal["lexical"] = "lexical"
    """`lexical`: hashed TF-IDF, randomly projected; needs no model."""


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
