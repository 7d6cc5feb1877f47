"""Stage `embed`: document vectors.

First the document frequencies of words are counted on a sample, then every document is embedded with their weights.
The frequencies stay beside the vectors (`frequencies.arrow`), so that a new text can be embedded in the same way.
"""

from collections.abc import Sequence

import apache_beam as beam
import numpy as np

from ropewalk.kernels.lexical import BUCKETS
from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files, tables
from ropewalk.transforms import embed as embedding
from ropewalk.transforms import sampling
from ropewalk.transforms.map_shards import MapShards

VERSION = 1
READS: Sequence[str] = ("filter", "dedup", "passages", "decontaminate")


def jobs(context: Context) -> Jobs:
    """Frequencies of a sample, then vectors of all."""
    alive = context.alive
    partial = context.work("frequencies", embedding.FREQUENCIES, context.num_shards)
    limit = sampling.limit(embedding.SAMPLE_DOCUMENTS, context.rows)
    count = embedding.CountFrequencies(limit, context.threads)

    def build_frequencies(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["id", "text"]}
        mapped = MapShards(context.corpus, read, alive, count, partial, aligned=False, cut=context.cut)
        return pipeline | beam.Create(shards) | mapped

    yield Job("count words", partial, build_frequencies)
    frequencies = np.zeros(BUCKETS, np.int64)
    for shard in range(partial.num_shards):
        for batch in partial.read(shard):
            embedding.add_frequencies(frequencies, batch)
    documents = sum(shard.counters.get("sampled-docs", 0) for shard in partial.done().values())
    url = files.join(context.folder, "frequencies.arrow")
    embedding.write_frequencies(url, frequencies, documents)

    embedder = embedding.LexicalEmbedder(url, context.threads)
    target = context.columns("embed", tables.embed_table(embedder.dimensions))
    function = embedding.Embed(embedder)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["text"]}
        return (
            pipeline | beam.Create(shards) | MapShards(context.corpus, read, alive, function, target, cut=context.cut)
        )

    yield Job("embed", target, build)
    return {
        "embedder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "dimensions": embedder.dimensions,
        "sampled_docs": documents,
    }
