"""Stage `dedup`: exact and near duplicates, each group reduced to its best document.

    sketch      documents  -> exact hash, MinHash signature, survivor order         no shuffle
    candidates  sketches   -> pairs that share an LSH bucket                        24 bytes a band and document
    index       sketches   -> keys and signatures for later corpora                 the same, if it is wanted
    verify      pairs      -> those whose similarity passes                         16 bytes a pair; text by address
    components  verified   -> groups of copies                                      16 bytes a pair and round
    survivors   groups     -> who stays                                             24 bytes a pair and member
    verdicts    survivors  -> the columns, row for row                              24 bytes a member

The settings' `seed` chooses the permutations. Every result is sorted inside its group, so nothing depends on workers.
"""

import math
from collections.abc import Sequence

import apache_beam as beam

from ropewalk.kernels import bands as lsh
from ropewalk.kernels.words import Normal
from ropewalk.pipelines.dedup_facts import component_facts, refuse_wipe_out, source_facts
from ropewalk.pipelines.dedup_index import index_jobs
from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.label_components import label_components, pick_survivors
from ropewalk.pipelines.walk import Context, Jobs
from ropewalk.schemas import files
from ropewalk.schemas.dedup import DedupConfig
from ropewalk.schemas.manifest import add_counters
from ropewalk.schemas.recipe import source_name
from ropewalk.transforms import older, verdicts
from ropewalk.transforms.candidates import EDGES, SLICE_BYTES, SLICES, BandSlices
from ropewalk.transforms.folders import KeyByHash, ReadFolder
from ropewalk.transforms.map_shards import MapShards, ReadShards, WriteGroups
from ropewalk.transforms.sent_sets import SendSets, VerifySent, sent_schema
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.shingle_sets import Shingling
from ropewalk.transforms.similarity import VERIFIED, VerifyEdges
from ropewalk.transforms.sketch import MinHash, sketch_schema
from ropewalk.transforms.survivors import PickSurvivors

VERSION = 2
READS: Sequence[str] = ("filter",)
NOT_IN_KEY = ("components_mb", "max_source_share")

EDGE_BYTES = 16
"""Two addresses."""
GROUP_BYTES = 64 << 20
"""Bytes of slices in one group of a shuffle."""
COPIES = 3
"""How often a slice is in memory at the worst moment: as the runner holds it, decoded, and joined."""


def extra_key(config: DedupConfig) -> dict[str, str]:
    """What the result depends on besides the settings: the indexes of older corpora."""
    return {url: older.index_key(url) for url in config.against}


def shingling(config: DedupConfig) -> Shingling:
    """What shingles are under these settings."""
    normal = config.normalize
    return Shingling(
        config.ngram, Normal(config.unit, normal.case, normal.punctuation, normal.digits, normal.accents), normal.nfc
    )


def bands_and_rows(config: DedupConfig) -> tuple[int, int]:
    """LSH bands and values in each, derived where the recipe does not say; none if only exact copies are looked for."""
    if not config.near:
        return 0, 0
    if config.bands is None or config.rows is None:
        return lsh.derive(config.threshold, config.recall, config.values)
    return config.bands, config.rows


def jobs(context: Context) -> Jobs:
    """Sketch, candidates, index, verify, components, survivors, verdicts."""
    corpus, config, threads = context.corpus, context.config, context.threads
    made_of = shingling(config)
    bands, rows = bands_and_rows(config)
    settings = {
        **config.model_dump(mode="json", include={"near", "url", "unit", "ngram", "normalize", "signature"}),
        "bands": bands,
        "rows": rows,
        "seed": context.recipe.seed,
        "version": VERSION,
    }
    hasher = MinHash(
        ngram=config.ngram,
        num_perm=bands * rows,
        seed=context.recipe.seed,
        scheme=config.signature,
        normal=made_of.normal,
        nfc=made_of.nfc,
        priorities={source_name(entry): entry.priority for entry in context.recipe.input},
        quality=config.quality,
        url=config.url,
        threads=threads,
    )
    sketches = context.work("sketch", sketch_schema(hasher.num_perm), context.num_shards)
    table = "dedup/_work/sketch"
    indexes = older.open_older(config.against, settings, corpus)
    joined = older.JoinedCorpus(corpus.url, corpus.file_names, tuple(indexes), table)

    def sketch(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["id", "text", "source", "num_bytes"]}
        read["documents"] += ["url"] * config.url + ["metadata"] * bool(config.quality)
        hashed = MapShards(corpus, read, context.alive, hasher, sketches, threads=threads)
        return pipeline | beam.Create(shards) | hashed

    yield Job("sketch documents", sketches, sketch)
    counters = _counters(sketches)

    slices = counters.get("sketched-docs", 0) * (bands + 1 + config.url) * SLICE_BYTES
    partitions = _partitions(slices)
    # A star forms around what stays, so an old document that went is none to be tied to.
    to_older = older.EdgesToOlder(indexes, joined if config.clusters == "star" else None)
    edges = context.work("edges", EDGES, partitions)

    def candidates(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {table: sketches.schema.names}
        return (
            pipeline
            | beam.Create(list(range(context.num_shards)))
            | ReadShards(corpus, read)
            | BandSlices(bands, rows, partitions, shards)
            | WriteGroups(to_older, edges, shards, SLICES)
        )

    yield Job("find candidates", edges, candidates, COPIES * slices // partitions)
    largest = max(shard.counters["largest_bucket-docs"] for shard in edges.done().values())
    counters |= _counters(edges) | {"largest_bucket-docs": largest}
    finish_index = None
    if config.index:
        finish_index = yield from index_jobs(context, sketches, table, bands, rows, partitions, settings)
    else:
        files.remove(files.join(corpus.url, older.INDEX))

    verifier = VerifyEdges(joined, table, made_of, config.threshold, config.near, config.verify, config.url, threads)
    # At least as many groups as shards: here the work is reading texts, and each group can be another worker's.
    mapped = all(files.is_local(url) for url in (corpus.url, *config.against))
    pair_bytes = EDGE_BYTES if mapped else EDGE_BYTES + 2 * _mean_set_bytes(counters)
    size = edges.progress()[0] * pair_bytes
    verified = context.work("verified", VERIFIED, max(context.num_shards, _partitions(size)))

    def verify(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        if not mapped:
            sent = pipeline | SendSets(edges, verifier, hasher.num_perm, verified.num_shards, shards)
            return sent | WriteGroups(VerifySent(verifier), verified, shards, sent_schema(hasher.num_perm))
        return (
            pipeline
            | ReadFolder(edges)
            | KeyByHash("b", verified.num_shards, shards)
            | WriteGroups(verifier, verified, shards, EDGES)
        )

    yield Job("verify candidates", verified, verify, COPIES * size // verified.num_shards)
    counters |= _counters(verified)

    labels = yield from label_components(context, verified, budget_mb=config.components_mb)
    picker = PickSurvivors(joined, table, config.clusters)
    groups = yield from pick_survivors(context, picker, verified, labels)

    target = context.columns("dedup")
    alive = context.alive
    judge = verdicts.Verdicts(joined, table, alive, made_of, config.threshold, config.verify, config.url, threads)

    def write(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        evidence = pipeline | verdicts.ReadEvidence(groups, verified, shards)
        return evidence | WriteGroups(judge, target, shards, verdicts.EVIDENCE)

    size = counters["verified-pairs"] * 2 * EDGE_BYTES
    yield Job("write verdicts", target, write, COPIES * size // context.num_shards)
    sources = source_facts(target)
    refuse_wipe_out(sources, config.max_source_share)
    if finish_index is not None:
        finish_index()
    return {
        "bands": bands,
        "rows": rows,
        "midpoint": round(lsh.midpoint(bands, rows), 4) if bands else None,
        **dict(sorted(counters.items())),
        **component_facts(groups),
        "sources": sources,
    }


def _mean_set_bytes(counters: dict[str, int]) -> int:
    """About how large a shingle set is: 8 bytes for each word of 6 bytes."""
    return 8 * counters.get("sketched-bytes", 0) // (6 * max(1, counters.get("sketched-docs", 0)))


def _partitions(size: int) -> int:
    return max(1, math.ceil(size / GROUP_BYTES))


def _counters(folder: ShardFolder) -> dict[str, int]:
    return add_counters([shard.counters for shard in folder.done().values()])
