"""The index that a deduplicated corpus leaves, so that later ones can be deduplicated against it."""

from collections.abc import Callable, Generator, Sequence

import apache_beam as beam

from ropewalk.pipelines.jobs import Job
from ropewalk.pipelines.walk import Context
from ropewalk.schemas import files
from ropewalk.schemas.manifest import fingerprint
from ropewalk.transforms.candidates import SLICES, BandSlices
from ropewalk.transforms.map_shards import MapShards, ReadShards, WriteGroups
from ropewalk.transforms.older import INDEX, IndexSketches, SortSlices, index_schema, write_index_file
from ropewalk.transforms.shards import ShardFolder, sweep


def index_jobs(
    context: Context,
    sketches: ShardFolder,
    table: str,
    bands: int,
    rows: int,
    partitions: int,
    settings: dict[str, object],
) -> Generator[Job, None, Callable[[], None]]:
    """Writes `index/dedup`: sorted keys and sketches with their ids.

    Args:
        context: The stage's.
        sketches: Folder of the sketches.
        table: The same as a table of the corpus.
        bands: LSH bands.
        rows: Signature values in a band.
        partitions: Shards of the keys.
        settings: What the signatures depend on; a later corpus must have the same.

    Returns:
        What writes the file that makes an index of it: to be called when the verdicts are there.
    """
    corpus = context.corpus
    root = files.join(corpus.url, INDEX)
    files.remove(files.join(root, "index.json"))
    key = fingerprint([context.key, "index"])
    keys = ShardFolder(files.join(root, "keys"), SLICES, partitions, key)

    def write_keys(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        return (
            pipeline
            | beam.Create(list(range(context.num_shards)))
            | ReadShards(corpus, {table: sketches.schema.names})
            | BandSlices(bands, rows, partitions, shards)
            | WriteGroups(SortSlices(), keys, shards, SLICES)
        )

    yield Job("index keys", keys, write_keys, sum(s.bytes for s in sketches.done().values()) // partitions)
    signed = ShardFolder(files.join(root, "sketch"), index_schema(bands * rows), context.num_shards, key)

    def write_sketches(pipeline: beam.Pipeline, shards: Sequence[int]) -> object:
        read = {"documents": ["id"], table: sketches.schema.names}
        mapped = MapShards(corpus, read, None, IndexSketches(bands * rows), signed)
        return pipeline | beam.Create(shards) | mapped

    yield Job("index sketches", signed, write_sketches)

    def finish() -> None:
        names = [shard.file for shard in keys.finish()]
        signed.finish()
        write_index_file(corpus, settings, key, names)
        sweep(keys.url)
        sweep(signed.url)

    return finish
