import re

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from ropewalk.kernels import grid, lexical
from ropewalk.schemas import tables, testing
from ropewalk.transforms import embed as embedding
from ropewalk.transforms import sampling, vectors
from ropewalk.transforms.embed import CountFrequencies, Embed, LexicalEmbedder, embed

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
TOPICS = {
    "rope": "hemp fibre strand twist tar hawser cable walk yarn spinner knot splice bitter hatchel ledger".split(),
    "bread": "flour yeast oven crust knead dough proof rye wheat loaf sour salt bake crumb batter".split(),
    "stars": "orbit comet planet lens dust galaxy nova red shift parallax spectrum dwarf pulsar moon tide".split(),
}
COMMON = "the a of and in is it that was for on are with as at be this from have or by one had not but".split()


def topical(each, *, seed=0, words=80):
    """Documents of three topics, two common words to each word of the topic, and their topics."""
    random = np.random.default_rng(seed)
    texts, topics = [], []
    for number, vocabulary in enumerate(TOPICS.values()):
        for _ in range(each):
            parts = [[*random.choice(COMMON, 2), random.choice(vocabulary)] for _ in range(words)]
            texts.append(" ".join(word for part in parts for word in part))
            topics.append(number)
    order = random.permutation(len(texts))
    return testing.of_texts([texts[i] for i in order]), np.array(topics)[order]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> LexicalEmbedder:
    """With frequencies of the topical documents."""
    documents, _ = topical(50)
    total = np.zeros(lexical.BUCKETS, np.int64)
    part, counters = CountFrequencies()(documents)
    embedding.add_frequencies(total, part)
    url = str(tmp_path_factory.mktemp("embed") / "frequencies.arrow")
    embedding.write_frequencies(url, total, counters["sampled-docs"])
    return LexicalEmbedder(url)


def matrix(batch):
    return vectors.to_matrix(batch.column("vector").drop_null())


def test_vectors_agree_with_plain_tf_idf(embedder):
    documents, _ = topical(4, seed=9)
    found = matrix(embed(documents, embedder))
    weights = lexical.idf(*embedding.read_frequencies(embedder.frequencies))
    expected = np.array([lexical.project_reference(text, weights) for text in documents.column("text").to_pylist()])
    assert np.abs(found - expected).max() <= 0.5 / grid.GRID + 1e-4
    assert np.abs(np.einsum("nd,nd->n", found, expected) - 1).max() < 0.005


def test_frequencies_are_counted_exactly(embedder):
    documents, _ = topical(50)
    frequencies, count = embedding.read_frequencies(embedder.frequencies)
    texts = documents.column("text").to_pylist()
    assert count == 150
    for word in ("the", "hemp", "yeast"):
        bucket = lexical.hash_reference(word) >> (64 - lexical.BUCKET_BITS)
        assert frequencies[bucket] == sum(word in re.split(" ", text) for text in texts)
    # Classes of words: 25 common and 45 of topics, in this vocabulary without a collision.
    assert np.count_nonzero(frequencies) == 70


def test_likes_are_near_and_unlikes_far(embedder):
    documents, topics = topical(50, seed=5)
    found = matrix(embed(documents, embedder))
    cosines = found @ found.T
    same = topics[:, None] == topics[None]
    above = np.triu(np.ones_like(same), 1).astype(bool)
    assert cosines[same & above].min() > cosines[~same & above].max()
    # And the weights are what does it: common words hide the topics otherwise.
    plain = matrix(embed(documents, LexicalEmbedder()))
    gap = cosines[same & above].mean() - cosines[~same].mean()
    assert gap > 1.3 * ((plain @ plain.T)[same & above].mean() - (plain @ plain.T)[~same].mean())


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("step", [1, 7, 150])
def test_batches_and_threads_do_not_show(embedder, threads, step):
    documents, _ = topical(50, seed=2)
    whole = embed(documents, embedder).column("vector")
    other = LexicalEmbedder(embedder.frequencies, threads)
    parts = [embed(documents.slice(start, step), other).column("vector") for start in range(0, 150, step)]
    assert pa.concat_arrays(parts).equals(whole)
    assert other.fingerprint == embedder.fingerprint != LexicalEmbedder().fingerprint


def test_rows_that_are_out_are_null_and_wordless_ones_zero(embedder):
    documents = testing.of_texts(["rope walk", "--- !!! ---", "hemp", ""])
    batch = documents.append_column("alive", pa.array([True, True, False, None]))
    found, counters = Embed(embedder)(batch)
    assert found.schema == tables.EMBED
    found.validate(full=True)
    assert found.column("vector").is_null().to_pylist() == [False, False, True, True]
    assert counters == {"embedded-docs": 2, "zero_vector-docs": 1}
    assert matrix(found)[0].any() and not matrix(found)[1].any()
    assert Embed(embedder)(batch.slice(0, 0))[0].num_rows == 0
    assert Embed(embedder)(batch.slice(2))[1] == {"embedded-docs": 0, "zero_vector-docs": 0}


@pytest.mark.parametrize("offset", [0, 3])
def test_matrices_survive_the_column(offset):
    random = np.random.default_rng(0)
    rows = grid.normalise(random.normal(size=(6, 256)))
    present = np.array([True, False, True, True, True, False, True, True])
    column = vectors.from_matrix(rows, present).slice(offset)
    assert column.is_valid().to_pylist() == present[offset:].tolist()
    assert np.array_equal(vectors.to_matrix(column.drop_null()), rows[present[:offset].sum() :].astype(np.float32))
    with pytest.raises(ValueError, match="vectors are null"):
        vectors.to_matrix(column)


def test_a_sample_goes_by_id_alone():
    ids = testing.documents(2000, words=(1, 2)).column("id")
    whole = sampling.hash_ids(ids, seed=1)
    assert np.array_equal(sampling.hash_ids(ids.slice(700), seed=1), whole[700:])
    assert len(set(whole.tolist())) == 2000 and not (whole == sampling.hash_ids(ids, seed=2)).any()
    assert (whole <= np.uint64(sampling.limit(2000, 2000))).all()
    # 500 of 2000 are wanted; four standard errors are 77.
    assert abs((whole <= np.uint64(sampling.limit(500, 2000))).sum() - 500) < 77
    assert sampling.limit(5, 0) == 2**64 - 1


def test_frequencies_of_a_sample_are_those_of_its_documents():
    documents, _ = topical(100)
    limit = sampling.limit(90, 300)
    part, counters = CountFrequencies(limit)(documents)
    chosen = sampling.hash_ids(documents.column("id"), seed=embedding.SAMPLE_SEED) <= np.uint64(limit)
    expected, _ = CountFrequencies()(documents.filter(pa.array(chosen)))
    assert part.equals(expected) and 0 < counters["sampled-docs"] == chosen.sum() < 300


@pytest.mark.parametrize("pieces", [1, 3])
def test_transforms_on_any_sharding(embedder, pieces):
    documents, _ = topical(10)
    whole = {bytes(row) for row in matrix(embed(documents, embedder))}
    batches = [documents.slice(start, 30 // pieces) for start in range(0, 30, 30 // pieces)]

    def check_vectors(found):
        assert {bytes(row) for batch in found for row in matrix(batch)} == whole

    def check_frequencies(found):
        total = np.zeros(lexical.BUCKETS, np.int64)
        for part in found:
            embedding.add_frequencies(total, part)
        expected = np.zeros(lexical.BUCKETS, np.int64)
        embedding.add_frequencies(expected, CountFrequencies()(documents)[0])
        assert np.array_equal(total, expected)

    with TestPipeline(runner=RUNNER) as p:
        source = p | beam.Create(batches[::-1])
        assert_that(source | Embed(embedder), check_vectors, label="vectors")
        assert_that(source | CountFrequencies(), check_frequencies, label="frequencies")
