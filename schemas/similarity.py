"""Settings of the stages that bring similar documents together: `embed`, `cluster`, `neighbours` and `order`."""

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
    """The similarity order: In-Context Pretraining's greedy path, short segments dissolved."""

    neighbours: int = Field(default=10, ge=1, le=256)
    """Nearest neighbours of a document in the graph."""
    min_segment: int = Field(default=21, ge=0)
    """Segments of the path with fewer documents are dissolved into their neighbours' places; 0: paper-faithful."""
