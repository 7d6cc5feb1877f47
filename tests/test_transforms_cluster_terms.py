import math
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from apache_beam import Create
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.schemas import files, tables, testing
from ropewalk.transforms import cluster_terms
from ropewalk.transforms.centroids import Centroids
from ropewalk.transforms.cluster_terms import TERMS, WORDS, NameClusters, SampleWords, telling_words, words_of
from ropewalk.transforms.map_shards import WriteGroups
from ropewalk.transforms.shards import ShardFolder

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def texts_about(topics, *, seed=0):
    """A text of each topic: words of its own, common ones, and a number."""
    random = np.random.default_rng(seed)
    pools = [[f"{word}{'abcdefg'[t]}" for word in ("hemp", "mast", "sail", "tar", "quay")] for t in range(7)]
    common = ["rope", "walk", "of", "the", "Ärger", "x1y"]
    return [" ".join(random.choice(pools[t] + common, 12).tolist()) + f" {t}-{i}" for i, t in enumerate(topics)]


def naive(clusters, texts, count):
    """The words by the formula, in plain Python."""
    found = {}
    documents = [{w for w in re.findall(r"[^\W\d_]+", text.lower()) if 3 <= len(w) <= 24} for text in texts]
    everywhere = Counter(word for words in documents for word in words)
    for c in sorted(set(clusters)):
        own = [words for words, k in zip(documents, clusters, strict=True) if k == c]
        inside = Counter(word for words in own for word in words)
        scores = {
            w: round(1e6 * n / len(own) * math.log(n / len(own) / (everywhere[w] / len(texts))))
            for w, n in inside.items()
            if n >= min(2, len(own))
        }
        best = sorted((w for w in scores if scores[w] > 0), key=lambda w: (-scores[w], w))[:count]
        found[c] = best or sorted(inside, key=lambda w: (-inside[w], w))[:count]
    return found


@pytest.mark.parametrize("topics", [1, 2, 7])
def test_words_are_those_of_the_formula(topics):
    clusters = np.random.default_rng(topics).integers(0, topics, 150).astype(np.uint32) * 3
    texts = texts_about((clusters // 3).tolist())
    found = telling_words(clusters, words_of(pa.array(texts)), 5)
    assert found == naive(clusters.tolist(), texts, 5)
    if topics == 7:
        assert all(word.endswith("abcdefg"[c // 3]) for c, words in found.items() for word in words)


def test_words_of_any_script_and_documents_without_words():
    texts = ["Ναυς ναυς σχοινί", "日本語の縄 123", "42 _ !", "", "ναυς rope", "naïve"]
    clusters = np.array([0, 1, 2, 2, 0, 5], np.uint32)
    found = telling_words(clusters, words_of(pa.array(texts)), 3)
    assert found == {0: ["ναυς"], 1: ["日本語の縄"], 2: [], 5: ["naïve"]}
    assert telling_words(clusters[:0], words_of(pa.array([], pa.string())), 3) == {}


def test_only_so_many_documents_of_a_cluster_are_read_whatever_their_order():
    count = 3 * cluster_terms.SAMPLE
    hashes = np.random.default_rng(0).permutation(count).astype(np.uint64)
    hashes[hashes == 5] = 4  # two copies with one id
    clusters = (np.arange(count) % 2).astype(np.uint32)
    batch = pa.RecordBatch.from_arrays([clusters, hashes, words_of(pa.array(["rope"] * count))], schema=WORDS)
    first = cluster_terms.first_rows(batch)
    for c in (0, 1):
        own = np.sort(hashes[clusters == c])
        kept = np.sort(first["hash"].to_numpy()[first["cluster"].to_numpy() == c])
        assert np.array_equal(kept, own[own <= own[cluster_terms.SAMPLE - 1]])
    mixed = cluster_terms.first_rows(batch.take(pa.array(np.random.default_rng(1).permutation(count))))
    assert sorted(map(str, mixed.to_pylist())) == sorted(map(str, first.to_pylist()))


@pytest.mark.parametrize("pieces", [1, 3])
def test_names_are_the_same_for_any_sharding_and_in_groups(tmp_path, lay, pieces):
    topics = np.random.default_rng(0).integers(0, 7, 300)
    topics[topics == 4] = 3  # an empty cluster
    documents = testing.of_texts(texts_about(topics.tolist()))
    order = np.random.default_rng(pieces).permutation(300)
    parts = np.array_split(order, pieces)
    corpus = lay(*[documents.take(pa.array(part)) for part in parts])
    columns = ShardFolder(corpus.folder("cluster"), tables.CLUSTER, pieces, "test")
    for number, part in enumerate(parts):
        with columns.writer(number) as writer:
            out = part == 7
            arrays = [
                pa.array(topics[part].astype(np.uint32), mask=out),
                pa.array(np.zeros(len(part), np.float32), mask=out),
            ]
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=tables.CLUSTER))
    sizes = np.bincount(np.delete(topics, 7), minlength=7)
    url = files.join(corpus.folder("cluster"), "centroids.arrow")
    Centroids.of(np.eye(7, 8, dtype=np.float32)).write(url, sizes, {})
    assert cluster_terms.read_sizes(url).tolist() == sizes.tolist()
    assert cluster_terms.read_terms(corpus) == {}
    named = ShardFolder(str(tmp_path / "named"), TERMS, 2, "test")
    with TestPipeline(runner=RUNNER) as p:
        words = p | Create(range(pieces)) | SampleWords(corpus, url, 2, [0, 1])
        done = words | WriteGroups(NameClusters(url, 5), named, [0, 1], WORDS)
        assert_that(done, lambda found: None)
    read = (batch for shard in range(2) for batch in named.read(shard))
    cluster_terms.write_terms(files.join(corpus.folder("cluster"), cluster_terms.FILE), read, sizes)
    table = files.open_arrow(files.join(corpus.folder("cluster"), cluster_terms.FILE)).read_all()
    assert table.schema.equals(TERMS, check_metadata=True) and table["documents"].to_pylist() == sizes.tolist()
    found = cluster_terms.read_terms(corpus)
    assert list(found) == list(range(7)) and found[4] == [] and sizes[4] == 0
    assert all(len(found[c]) == 5 and all(w.endswith("abcdefg"[c]) for w in found[c]) for c in range(7) if c != 4)
    # Of every cluster the documents with the smallest hashes were read; a group's clusters are weighed together.
    hashes = cluster_terms.sampling.hash_ids(documents.column("id"), seed=cluster_terms.SAMPLE_SEED)
    for group in (0, 1):
        read = [
            row
            for c in range(group, 7, 2)
            for row in np.flatnonzero((topics == c) & (np.arange(300) != 7))[
                np.argsort(hashes[(topics == c) & (np.arange(300) != 7)])[: cluster_terms.SAMPLE]
            ]
        ]
        texts = documents.column("text").to_pylist()
        expected = naive([int(topics[row]) for row in read], [texts[row] for row in read], 5)
        assert {c: words for c, words in found.items() if c % 2 == group and words} == expected
