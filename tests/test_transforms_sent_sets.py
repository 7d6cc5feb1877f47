import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.stages import dedup
from ropewalk.schemas import files, testing
from ropewalk.schemas.recipe import parse_recipe
from ropewalk.transforms import sent_sets, shingle_sets, similarity, sketch
from ropewalk.transforms.map_shards import WriteGroups
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.shingle_sets import Shingling


def cut(documents: pa.RecordBatch, sizes: list[int]) -> list[pa.RecordBatch]:
    starts = np.cumsum([0, *sizes]).tolist()
    return [documents.slice(start, size) for start, size in zip(starts, sizes, strict=False)]


@pytest.mark.parametrize("verify", ["exact", "signature", "none"])
def test_what_is_sent_is_judged_as_what_is_read_in_place(lay, tmp_path, monkeypatch, verify):
    monkeypatch.setattr(shingle_sets, "LARGEST_SET", 30)  # most texts are compared by a share of their shingles
    documents = testing.documents(90, seed=4, words=(0, 60), copies=0.6)
    parts = cut(documents, [40, 0, 50])
    corpus = lay(*parts)
    hasher = sketch.MinHash(num_perm=32)
    folder = ShardFolder(corpus.folder("sketch"), sketch.sketch_schema(32), 3, "k")
    for shard, part in enumerate(parts):
        with folder.writer(shard) as writer:
            writer.write(hasher(part)[0])
    place = np.array([i if i < 40 else (2 << 32) + i - 40 for i in range(90)], np.uint64)
    left, right = np.random.default_rng(0).permutation(np.argwhere(np.triu(np.ones((90, 90)), 1)))[:1500].T
    edges = ShardFolder(str(tmp_path / "edges"), similarity.EDGES, 2, "k")
    for shard in range(2):
        with edges.writer(shard) as writer:
            part = slice(700 * shard, 800 + 700 * shard)  # some pairs are in both
            columns = [pa.array(place[ends[part]]) for ends in (left, right)]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=similarity.EDGES))

    verifier = similarity.VerifyEdges(corpus, "sketch", Shingling(3), 0.3, verify=verify)
    expected, counters = verifier(pa.concat_batches([b for shard in range(2) for b in edges.read(shard)]))
    target = ShardFolder(str(tmp_path / "verified"), similarity.VERIFIED, 3, "k")
    schema = sent_sets.sent_schema(32)
    for shards in ([0, 2], [1]):
        with beam.Pipeline() as pipeline:
            sent = pipeline | sent_sets.SendSets(edges, verifier, 32, 3, shards)
            sent | WriteGroups(sent_sets.VerifySent(verifier), target, shards, schema)
    found = pa.concat_batches([batch for shard in range(3) for batch in target.read(shard)])
    order = np.lexsort((found.column("a").to_numpy(), found.column("b").to_numpy()))
    for name in found.schema.names:
        np.testing.assert_array_equal(found.column(name).to_numpy()[order], expected.column(name).to_numpy())
    done = target.done().values()
    assert {name: sum(shard.counters[name] for shard in done) for name in counters} == counters
    assert 0 < expected.num_rows and (verify == "none" or expected.num_rows < 1500)


def test_a_corpus_that_cannot_be_mapped_is_deduplicated_alike(lay, run_stage, monkeypatch):
    documents = testing.documents(200, seed=3, words=(2, 60), copies=0.5)
    corpus = lay(*cut(documents, [120, 80]))
    recipe = parse_recipe({"output": corpus.url, "input": "x", "filter": False, "dedup": {"threshold": 0.7}})

    def verdicts() -> list[dict]:
        manifest = run_stage(corpus, recipe, "dedup")
        batches = [b for s in range(2) for b in corpus.read(s, {"dedup": ["keep", "dup_of", "similarity", "dup_kind"]})]
        return [batch.to_pylist() for batch in batches], manifest.counters

    mapped = verdicts()
    with monkeypatch.context() as patch:
        patch.setattr(dedup.files, "is_local", lambda url: False)
        assert not files.is_local(corpus.url)
        assert verdicts() == mapped
