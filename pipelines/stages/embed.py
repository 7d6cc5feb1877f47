"""Stage `embed`: document vectors.

count words            for `lexical`: document frequencies of words, on a sample
find earlier vectors   for the others, if columns of an earlier run were set aside: which texts need no embedding
embed                  a vector of every document
sample vectors         for all but the plain `lexical`: how much length alone decides, told in the manifest
centre                 if asked for: the mean of documents of like length is taken from each vector

The frequencies stay beside the vectors (`frequencies.arrow`), and the means (`means.arrow`), so that a new text can be
embedded in the same way.
"""

import math
from collections.abc import Generator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from ropewalk.kernels.lexical import BUCKETS
from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files
from ropewalk.schemas.manifest import add_counters, fingerprint
from ropewalk.transforms import centre, sampling
from ropewalk.transforms import earlier_vectors as earlier
from ropewalk.transforms import embed as embedding
from ropewalk.transforms.embedders import load
from ropewalk.transforms.map_shards import BatchFunction, MapShards
from ropewalk.transforms.shards import ShardFolder

VERSION = 1
READS: Sequence[str] = ("filter", "dedup", "passages", "decontaminate")
NOT_IN_KEY = ("api_key_env", "batch")

LEXICAL = "lexical"
LOADED_BY_WORKERS_ONLY = "vllm"
"""Of this one two would not fit a GPU."""


def extra_key(config: Any) -> dict[str, str]:
    """What the result depends on besides the settings: the model's content."""
    return {} if config.embedder in (LEXICAL, "static") else {"encoder": load.encoder(config).fingerprint}


def jobs(context: Context) -> Jobs:
    """Vectors of all documents that need one made, then what depends on all of them."""
    config = context.config
    facts: dict[str, Any] = {}
    embedder: embedding.Embedder
    if config.embedder == LEXICAL:
        embedder, facts["sampled_docs"] = yield from _lexical(context)
    else:
        embedder = load.embedder(config, context.threads)
        if config.embedder != LOADED_BY_WORKERS_ONLY:
            embedder.setup()  # what is missing is told now, not by a worker
    plain, centred = (embedding.table_of(embedder, centred=centred) for centred in (False, True))
    target = context.columns("embed", centred if config.centre else plain)
    made = context.work("raw", plain, context.num_shards) if config.centre else target
    known = None
    if embedder.reusable:
        known = yield from _earlier(context, embedder, target, made)
    function = embedding.Embed(embedder, known)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | beam.Create(shards) | _over_texts(context, function, made)

    yield Job("embed", made, build)
    counters = add_counters([shard.counters for shard in made.done().values()])
    facts |= {"embedder": embedder.name, "fingerprint": embedder.fingerprint, "dimensions": embedder.dimensions}
    facts |= {"reused_docs": counters["reused-docs"]} if embedder.reusable else {}
    facts |= _window_facts(counters) if embedder.windowed else {}
    if not config.centre and config.embedder == LEXICAL:
        return facts
    lengths, vectors = yield from _sample(context, made, counters["embedded-docs"])
    facts |= {"length_bias": centre.length_bias(lengths, vectors), "length_bias_docs": len(lengths)}
    if not config.centre:
        return facts
    means = centre.means_of(lengths, vectors)
    moved = centre.centre(vectors, lengths, means).astype(np.float32)
    facts["length_bias_centred"] = centre.length_bias(lengths, moved)
    url = files.join(context.folder, "means.arrow")
    centre.write_means(url, means)

    def build_centred(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["text"], f"embed/{earlier.RAW}": plain.names}
        function = centre.Centre(url, centred)
        return pipeline | beam.Create(shards) | MapShards(
            context.corpus, read, None, function, target, cut=context.cut
        )  # fmt: skip

    yield Job("centre", target, build_centred)
    return facts


def _lexical(context: Context) -> Generator[Job, None, tuple[embedding.LexicalEmbedder, int]]:
    """The lexical embedder with word frequencies of a sample, and how many documents that has."""
    partial = context.work("frequencies", embedding.FREQUENCIES, context.num_shards)
    limit = sampling.limit(embedding.SAMPLE_DOCUMENTS, context.rows)
    count = embedding.CountFrequencies(limit, context.threads)

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | beam.Create(shards) | _over_texts(context, count, partial, aligned=False)

    yield Job("count words", partial, build)
    frequencies = np.zeros(BUCKETS, np.int64)
    for shard in range(partial.num_shards):
        for batch in partial.read(shard):
            embedding.add_frequencies(frequencies, batch)
    documents = sum(shard.counters.get("sampled-docs", 0) for shard in partial.done().values())
    url = files.join(context.folder, "frequencies.arrow")
    embedding.write_frequencies(url, frequencies, documents)
    return embedding.LexicalEmbedder(url, context.threads), documents


def _over_texts(
    context: Context, function: BatchFunction, target: ShardFolder, aligned: bool = True
) -> MapShards:  # fmt: skip
    read = {"documents": ["id", "text"]}
    return MapShards(context.corpus, read, context.alive, function, target, aligned=aligned, cut=context.cut)


def _earlier(
    context: Context, embedder: embedding.Embedder, target: ShardFolder, made: ShardFolder
) -> Generator[Job, None, earlier.EarlierVectors | None]:
    """Sets stale files aside, and finds the documents whose vectors are in them."""
    keep = {folder.path(shard) for folder in (target, made) for shard in folder.done()}
    earlier.set_aside(context.folder, keep)
    names = earlier.names(context.folder)
    folder = context.work("matches", earlier.MATCHES, context.num_shards)
    matches = ShardFolder(folder.url, folder.schema, folder.num_shards, fingerprint([folder.key, names]))
    known = earlier.EarlierVectors.of(context.corpus, context.folder, embedder.fingerprint, matches)
    if known is None:
        return None
    find = known
    partitions = max(1, math.ceil(context.rows / earlier.GROUP_PAIRS))

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return pipeline | earlier.FindEarlier(find, context.alive, context.cut, shards, partitions)

    yield Job("find earlier vectors", matches, build, math.ceil(context.rows / context.num_shards) * earlier.PAIR_BYTES)
    return known


def _sample(context: Context, made: ShardFolder, documents: int) -> Generator[Job, None, tuple[np.ndarray, np.ndarray]]:
    """Lengths and vectors of a sample, in the order of shards."""
    drawn = context.work("sample", centre.SAMPLE, context.num_shards)
    draw = centre.SampleLengths(sampling.limit(centre.SAMPLE_DOCUMENTS, documents))
    table = f"embed/{earlier.RAW}" if made.url != context.folder else "embed"

    def build(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["id", "text"], table: ["vector"]}
        return pipeline | beam.Create(shards) | MapShards(
            context.corpus, read, None, draw, drawn, aligned=False, cut=context.cut
        )  # fmt: skip

    yield Job("sample vectors", drawn, build, beside=True)
    return centre.sample_of(batch for shard in range(drawn.num_shards) for batch in drawn.read(shard))


def _window_facts(counters: dict[str, int]) -> dict[str, Any]:
    """What the windows tell: of all documents, and of those with more than one."""
    documents, long = counters["embedded-docs"], counters["windowed-docs"]
    return {
        "windows": counters["windows"],
        "windows_per_doc": round(counters["windows"] / documents, 3) if documents else None,
        "windowed_docs": long,
        "most_windows_docs": counters["most_windows-docs"],
        "not_finite_docs": counters["not_finite_vector-docs"],
        "mean_dispersion": round(counters["dispersion-millionths"] / 1e6 / long, 6) if long else None,
    }
