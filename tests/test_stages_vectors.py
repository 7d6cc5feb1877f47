"""The stages tokenize, embed and cluster, one after the other on laid corpora."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ropewalk.pipelines.jobs import Engine
from ropewalk.pipelines.stages import cluster as cluster_stage
from ropewalk.pipelines.stages import tokenize as tokenize_stage
from ropewalk.schemas import files, testing
from ropewalk.schemas.recipe import TokenizeConfig, parse_recipe
from ropewalk.transforms import centroids as clusters_in_cells
from ropewalk.transforms import cluster as clustering
from ropewalk.transforms import cluster_terms
from ropewalk.transforms import embed as embedding

WALK = ("filter", "tokenize", "embed", "cluster")


def shards(documents, count, *, seed=0):
    """The documents in some other order and `count` shards."""
    order = np.random.default_rng(seed).permutation(documents.num_rows) if seed else np.arange(documents.num_rows)
    shuffled = documents.take(pa.array(order))
    borders = np.linspace(0, documents.num_rows, count + 1).astype(int)
    return [shuffled.slice(a, b - a) for a, b in zip(borders[:-1], borders[1:], strict=True)]


def recipe(corpus, **stages):
    settings = {"tokenize": {"tokenizer": "bytes"}, "filter": {"min_chars": 60}, "dedup": False} | stages
    return parse_recipe({"output": corpus.url, "input": "x", **settings})


def walk(run_stage, corpus, made):
    return {name: run_stage(corpus, made, name) for name in WALK if made.enabled(name)}


def joined(corpus):
    found = [name for name in WALK if corpus.stage_manifest(f"columns/{name}")]
    tables = [datasets.load_from_disk(corpus.folder(name)) for name in ("documents", *found)]
    return datasets.concatenate_datasets(tables, axis=1)


def outcome(corpus):
    """Every column of every document by id, and the bytes of centroids and frequencies."""
    rows = {row["id"]: {k: v for k, v in row.items() if k != "metadata"} for row in joined(corpus)}
    data = [files.read_bytes(files.join(corpus.folder(stage), f"{name}.arrow")) for stage, name in SIDE]
    return rows, data


SIDE = (("embed", "frequencies"), ("cluster", "centroids"), ("cluster", "terms"))
ALONE = {"tokenize": False, "pack": False}
CLUSTER = {"size": 40, "max_size": 60, "sample_per_cluster": 16, "iterations": 6}


def topical(count, *, seed=0):
    """Documents of ten topics, some too short for the filter."""
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        topic = random.integers(10)
        words = [f"topic{topic}word{i}" for i in random.integers(0, 30, random.integers(2, 40))]
        texts.append(" ".join([*words, *(f"common{i}" for i in random.integers(0, 20, len(words)))]))
    return testing.of_texts(texts)


def test_the_walk_is_the_same_for_any_sharding(lay, run_stage, monkeypatch):
    documents = topical(400)
    found = []
    for number, (count, seed) in enumerate([(1, 0), (2, 1), (7, 2)]):
        corpus = lay(*shards(documents, count, seed=seed), name=f"corpus{number}")
        monkeypatch.setattr(Engine, "threads", property(lambda self, threads=number + 1: threads))
        manifests = walk(run_stage, corpus, recipe(corpus, cluster=CLUSTER))
        found.append((outcome(corpus), {name: (m.counters, m.facts) for name, m in manifests.items()}))
    assert found[0] == found[1] == found[2]


def test_columns_counts_and_facts_agree(lay, run_stage):
    corpus = lay(*shards(topical(400), 3))
    manifests = walk(run_stage, corpus, recipe(corpus, cluster=CLUSTER))
    rows = list(joined(corpus))
    alive = [row for row in rows if row["passed"]]
    assert 0 < len(alive) < len(rows) == 400
    for row in rows:
        if row["passed"]:
            assert bytes(row["input_ids"][:-1]).decode() == row["text"] and row["input_ids"][-1] == 256
            assert len(row["vector"]) == 256 and row["cluster"] is not None and row["distance"] >= 0
        else:
            assert row["input_ids"] is row["vector"] is row["cluster"] is row["distance"] is None
            assert row["num_tokens"] == 0
    tokenized, embedded, clustered = (manifests[name] for name in ("tokenize", "embed", "cluster"))
    assert tokenized.counters["tokens"] == sum(row["num_tokens"] for row in rows)
    assert tokenized.counters["tokenized-docs"] == embedded.counters["embedded-docs"] == len(alive)
    assert clustered.counters["clustered-docs"] == clustered.facts["documents"] == len(alive)
    assert tokenized.facts["tokenizer"] == "bytes" and tokenized.facts["eos"] == 256
    assert embedded.facts["dimensions"] == 256 and embedded.facts["sampled_docs"] == len(alive)
    sizes = np.bincount([row["cluster"] for row in alive], minlength=clustered.facts["clusters"])
    stored = pa.ipc.open_stream(files.join(corpus.folder("cluster"), "centroids.arrow")).read_all()
    assert stored["size"].to_pylist() == sizes.tolist()
    assert clustered.facts["largest"] == sizes.max() <= 60 and clustered.facts["smallest"] == sizes[sizes > 0].min()
    assert clustered.facts["oversized"] == clustered.facts["unsplittable"] == 0
    # Ten topics in about ten clusters of which the large ones were split: hardly a pair of topics shares one.
    topics = {}
    for row in alive:
        topics.setdefault(row["cluster"], []).append(row["text"].split("word")[0])
    purity = sum(max(map(names.count, names)) for names in topics.values()) / len(alive)
    assert purity > 0.9
    assert "_work" not in files.names(corpus.folder("cluster"))


def test_clusters_are_named_by_the_words_of_their_topic(lay, run_stage):
    documents, topic = testing.topical(300)  # the words of topic 0 end in a, and so on
    corpus = lay(*shards(documents, 3))
    walk(run_stage, corpus, recipe(corpus, cluster={"size": 25, "terms": 5}))
    names = cluster_terms.read_terms(corpus)
    letters = {}
    for row, number in zip(joined(corpus), topic, strict=True):
        letters.setdefault(row["cluster"], []).append("abcdef"[number])
    large = {number: found for number, found in letters.items() if number is not None and len(found) >= 10}
    assert len(large) > 5
    for number, found in large.items():
        common = max(set(found), key=found.count)
        assert len(names[number]) == 5 and sum(word.endswith(common) for word in names[number]) >= 4
    walk(run_stage, corpus, recipe(corpus, cluster={"size": 25, "terms": 0}))
    assert cluster_terms.read_terms(corpus) == {}


def test_oversized_clusters_are_split_and_copies_are_counted(lay, run_stage):
    texts = [f"{'same words in every one of them ' * 4}" for _ in range(90)]
    documents = testing.of_texts(texts + topical(100).column("text").to_pylist())
    corpus = lay(*shards(documents, 2))
    made = recipe(corpus, **ALONE, cluster={"size": 20, "max_size": 30, "sample_per_cluster": 8})
    facts = walk(run_stage, corpus, made)["cluster"].facts
    assert facts["unsplittable"] == facts["oversized"] == 1 and facts["largest"] == 90
    assert corpus.stage_manifest("columns/cluster").rows == 190  # that of the columns, whichever job came last


def test_a_huge_clump_of_copies_is_dealt_by_id_and_counted(lay, run_stage, monkeypatch):
    monkeypatch.setattr(cluster_stage, "SHARED", 40)
    texts = ["same words in every one of them " * 4] * 200 + topical(100).column("text").to_pylist()
    documents = testing.of_texts(texts)  # ids of their own
    found = []
    for name, count, seed in (("two", 2, 0), ("five", 5, 3)):
        corpus = lay(*shards(documents, count, seed=seed), name=name)
        made = recipe(corpus, **ALONE, cluster={"size": 20, "max_size": 30, "sample_per_cluster": 8})
        facts = walk(run_stage, corpus, made)["cluster"].facts
        found.append((outcome(corpus), facts))
    assert found[0] == found[1]
    assert facts["sharing"] == 9 and facts["largest"] < 40 and facts["oversized"] == facts["unsplittable"]
    clusters = [row["cluster"] for row in joined(corpus) if row["text"].startswith("same")]
    assert len(set(clusters)) == 10 and len({row["distance"] for row in joined(corpus) if "same" in row["text"]}) == 1


def test_texts_without_a_word_are_spread_over_the_clusters(lay, run_stage):
    documents = testing.of_texts(["! " * 40 + "." * i for i in range(150)] + topical(200).column("text").to_pylist())
    corpus = lay(*shards(documents, 3))
    facts = walk(run_stage, corpus, recipe(corpus, **ALONE, cluster=CLUSTER))["cluster"].facts
    zero = [row for row in joined(corpus) if row["text"].startswith("!")]
    assert facts["zero_vectors"] == 150 == sum(row["distance"] == 1 and not any(row["vector"]) for row in zero)
    sizes = np.bincount([row["cluster"] for row in zero], minlength=facts["clusters"])
    assert facts["clusters"] >= 5 and sizes.max() < 2.5 * 150 / facts["clusters"]
    only = lay(*shards(documents.slice(0, 150), 2), name="only")
    facts = walk(run_stage, only, recipe(only, **ALONE, cluster=CLUSTER))["cluster"].facts
    assert facts["clusters"] == 4 and facts["largest"] < 60 and facts["documents"] == 150


def test_centroids_in_coarse_cells_are_nearly_as_good_and_the_same_for_any_sharding(lay, run_stage, monkeypatch):
    documents = topical(600)
    settings = {"size": 12, "max_size": 60, "sample_per_cluster": 16, "iterations": 6}

    def mean_distance(corpus):
        return np.mean([row["distance"] for row in joined(corpus) if row["cluster"] is not None])

    flat = lay(*shards(documents, 2), name="flat")
    walk(run_stage, flat, recipe(flat, **ALONE, cluster=settings))
    monkeypatch.setattr(clusters_in_cells, "FLAT", 10)
    monkeypatch.setattr(clusters_in_cells, "PROBES", 3)
    monkeypatch.setattr(cluster_stage, "GROUP_BYTES", 100_000)
    found = []
    for name, count, seed in (("one", 1, 0), ("four", 4, 2)):
        corpus = lay(*shards(documents, count, seed=seed), name=name)
        facts = walk(run_stage, corpus, recipe(corpus, **ALONE, cluster=settings))["cluster"].facts
        found.append((outcome(corpus), facts, files.read_bytes(files.join(corpus.folder("cluster"), "coarse.arrow"))))
    assert found[0] == found[1]
    assert facts["coarse_cells"] == 7 and 35 < facts["clusters"] < 60 and facts["oversized"] == 0
    assert mean_distance(corpus) < 1.05 * mean_distance(flat)


def test_balanced_clusters_are_of_like_size(lay, run_stage):
    random = np.random.default_rng(5)
    # Half of the documents are of one topic out of six.
    topic = np.where(random.random(500) < 0.5, 0, random.integers(0, 6, 500))
    texts = [" ".join(f"topic{t}word{i}" for i in random.integers(0, 40, 15)) for t in topic]
    largest, sizes = [], {}
    for balanced in (False, True):
        corpus = lay(*shards(testing.of_texts(texts), 2), name=f"balanced{balanced}")
        settings = {"size": 83, "max_size": 400, "sample_per_cluster": 83, "balanced": balanced}
        facts = walk(run_stage, corpus, recipe(corpus, **ALONE, cluster=settings))["cluster"].facts
        largest.append(facts["largest"])
        rows = [row for row in joined(corpus) if row["cluster"] is not None]
        sizes[balanced] = np.bincount([row["cluster"] for row in rows])
    assert facts["clusters"] == 6 and largest[1] <= 1.06 * 1.25 * 500 / 6 < largest[0]
    stored = pa.ipc.open_stream(files.join(corpus.folder("cluster"), "centroids.arrow")).read_all()
    centroids = np.array(stored["vector"].to_pylist())
    # The distance is the true one, prices left aside.
    for row in rows[:50]:
        assert row["distance"] == pytest.approx(1 - np.dot(row["vector"], centroids[row["cluster"]]), abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_documents(lay, run_stage, count):
    documents = testing.of_texts(["rope " * 40 + str(i) for i in range(count)] + ["short"] * 3)
    corpus = lay(*shards(documents, 2))
    manifests = walk(run_stage, corpus, recipe(corpus, **ALONE, cluster={"size": 1, "max_size": 2}))
    facts = manifests["cluster"].facts
    assert facts["documents"] == count and facts["clusters"] <= count
    assert [row["cluster"] is not None for row in joined(corpus)].count(True) == count


def test_the_key_follows_the_tokenizers_content(tmp_path):
    path = tmp_path / "tokenizer.json"
    base = '{"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}'
    path.write_text(base)
    first = tokenize_stage.extra_key(TokenizeConfig(tokenizer=str(path)))
    path.write_text(base + " ")
    assert tokenize_stage.extra_key(TokenizeConfig(tokenizer=str(path))) != first
    assert len(tokenize_stage.extra_key(TokenizeConfig(tokenizer="bytes"))["tokenizer"]) == 64


def test_an_interrupted_clustering_goes_on_where_it_was(lay, run_stage, monkeypatch):
    corpus = lay(*shards(topical(300), 3))
    made = recipe(corpus, **ALONE, cluster=CLUSTER | {"size": 100, "max_size": 100})
    expected = walk(run_stage, corpus, made)["cluster"]
    assert expected.facts["rounds"] > 1
    rows, data = outcome(corpus)
    again = run_stage(corpus, made, "cluster")  # the work folder is gone, the centroids are still there
    assert outcome(corpus) == (rows, data) and again.facts == expected.facts
    # Interrupted in the second round: the next run starts with its centroids.
    files.remove(corpus.folder("cluster"))
    trained = []
    train, assign = cluster_stage.kmeans.train, clustering.AssignClusters.__call__

    def failing(self, batch):
        if len(clustering.read_centroids(self.centroids)[0]) > 3:
            raise RuntimeError("power cut")
        return assign(self, batch)

    monkeypatch.setattr(clustering.AssignClusters, "__call__", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(corpus, made, "cluster")
    monkeypatch.setattr(clustering.AssignClusters, "__call__", assign)
    monkeypatch.setattr(
        cluster_stage.kmeans, "train", lambda v, *args, **kw: trained.append(len(v)) or train(v, *args, **kw)
    )
    resumed = run_stage(corpus, made, "cluster")
    assert resumed.facts == expected.facts and outcome(corpus) == (rows, data)
    assert resumed.facts["sampled_docs"] not in trained  # not from the start


def test_a_new_text_can_be_embedded_like_the_corpus(lay, run_stage):
    documents = topical(60)
    corpus = lay(documents)
    walk(run_stage, corpus, recipe(corpus, **ALONE, cluster=False, order=False))
    made = embedding.LexicalEmbedder(files.join(corpus.folder("embed"), "frequencies.arrow"))
    rows = [row for row in joined(corpus) if row["passed"]]
    found = made.embed(pa.array([row["text"] for row in rows], pa.large_string()))
    assert np.array_equal(found, np.array([row["vector"] for row in rows], np.float16))
