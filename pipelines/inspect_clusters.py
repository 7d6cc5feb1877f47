"""`ropewalk inspect --clusters`: the largest clusters, their words, and the documents nearest to their middle."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.rule import Rule

from ropewalk.pipelines import report_data
from ropewalk.pipelines.brief import briefs
from ropewalk.pipelines.cluster_words import words_of
from ropewalk.pipelines.terminal import shown
from ropewalk.schemas.recipe import RecipeError
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.gather import Gather

EXAMPLES = 3
"""Documents of a cluster that are shown."""
MILLIONTHS = 1_000_000
"""Distances are added in these, so that a sum does not depend on its order."""
LINE_CHARS = 100


@dataclass
class Sizes:
    """Documents of each cluster, and the sum of their distances from the centroid, by number."""

    documents: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    distance: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, cluster: np.ndarray, distance: np.ndarray) -> None:
        """Counts documents: uint32[n], float32[n]."""
        more = max(0, int(cluster.max(initial=0)) + 1 - len(self.documents))
        if more:
            self.documents, self.distance = np.pad(self.documents, (0, more)), np.pad(self.distance, (0, more))
        self.documents += np.bincount(cluster, minlength=len(self.documents))
        whole = np.rint(distance.astype(np.float64) * MILLIONTHS)
        # Whole numbers up to 2^53 are exact in the float64 that bincount adds in.
        self.distance += np.bincount(cluster, whole, len(self.documents)).astype(np.int64)


def show_clusters(corpus: CorpusDir, count: int, console: Console) -> None:
    """Shows the largest clusters.

    Args:
        corpus: The corpus.
        count: Clusters to show.
        console: Where to show.

    Raises:
        RecipeError: If the corpus is not clustered.
    """
    manifest = corpus.manifest()
    assert manifest is not None
    stages = report_data.find_stages(corpus, manifest, report_data.own_recipe(corpus.url))
    if "cluster" not in stages.columns:
        raise RecipeError(f"{corpus.url}: no clusters yet: run the recipe up to `cluster`")
    sizes = Sizes()
    for shard in range(len(corpus.file_names)):
        for batch in corpus.read(shard, {"cluster": ["cluster", "distance"]}):
            present = batch.filter(batch.column("cluster").is_valid())
            sizes.add(present.column("cluster").to_numpy(), present.column("distance").to_numpy())
    total, filled = int(sizes.documents.sum()), int((sizes.documents > 0).sum())
    largest = np.argsort(-sizes.documents, kind="stable")[: min(count, filled)]
    names, middle = words_of(corpus, largest.tolist()), _middle(corpus, largest)
    addresses = [place for cluster in largest.tolist() for _, _, place in middle[cluster]]
    known = {one.address: one for one in briefs(corpus, stages, addresses)}

    def say(text: str) -> None:
        console.print(shown(text), highlight=False)

    say(f"{total:,} documents in {filled:,} clusters" + (f"; the {count:,} largest" if count < filled else ""))
    for cluster in largest.tolist():
        size = int(sizes.documents[cluster])
        mean = 1 - sizes.distance[cluster] / MILLIONTHS / size
        title = f"cluster {cluster} · {size:,} documents, {size / total:.1%} · mean cosine with its centroid {mean:.3f}"
        console.print(Rule(shown(title), align="left"))
        if names.get(cluster):
            say(", ".join(names[cluster]))
        for distance, id_, place in middle[cluster]:
            one = known[place]
            head = " ".join(f"{one.name}: {one.head}".split())
            cut = head if len(head) <= LINE_CHARS else f"{head[:LINE_CHARS].rstrip()} …"
            console.print(shown(f"  {1 - distance:.3f}  {id_}  ") + f"[dim]{shown(cut)}[/]", highlight=False)


def _middle(corpus: CorpusDir, clusters: np.ndarray) -> dict[int, list[tuple[float, str, int]]]:
    """The documents nearest to the centroids of some clusters: distance, id and address; ties by id."""
    ids = Gather(corpus, DOCUMENTS, ["id"])
    best: dict[int, list[tuple[float, str, int]]] = {int(cluster): [] for cluster in clusters}
    for shard in range(len(corpus.file_names)):
        for batch in corpus.read(shard, {"cluster": ["cluster", "distance"]}):
            batch = batch.filter(batch.column("cluster").is_valid())
            cluster, distance = batch.column("cluster").to_numpy(), batch.column("distance").to_numpy()
            chosen = np.zeros(len(cluster), bool)
            for one in np.intersect1d(clusters, cluster).tolist():
                rows = np.flatnonzero(cluster == one)
                near = distance[rows]
                least = np.partition(near, EXAMPLES - 1)[EXAMPLES - 1] if len(rows) > EXAMPLES else np.inf
                if len(best[one]) == EXAMPLES:
                    least = min(least, best[one][-1][0])
                chosen[rows[near <= least]] = True
            where = batch.column("address").filter(pa.array(chosen)).to_numpy()
            found = zip(cluster[chosen].tolist(), distance[chosen].tolist(), where.tolist(), strict=True)
            for (one, apart, place), id_ in zip(found, ids.rows(where).column("id").to_pylist(), strict=True):
                best[one] = sorted([*best[one], (apart, id_, place)])[:EXAMPLES]
    return best
