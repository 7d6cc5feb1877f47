"""The whole walk on small real input: same bytes however it is cut, killed or run."""

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest

from ropewalk.pipelines import corpus, measure
from ropewalk.schemas import files
from ropewalk.schemas.recipe import Recipe, parse_recipe

RECIPE = {
    "ingest": {"shard_bytes": 40_000},
    "filter": {"min_chars": 30},
    "tokenize": {"tokenizer": "bytes"},
    "cluster": {"size": 60, "max_size": 200},
    "pack": [{"length": 2048}, {"layout": "concat", "length": 1024}, {"layout": "random", "length": 2048}],
}


def records(count: int = 500) -> list[dict[str, object]]:
    """Documents about twenty topics; every fifth is a near-copy of an earlier one, some are exact copies."""
    generator = random.Random(0)
    topics = [[f"{t}word{w}" for w in range(60)] for t in range(20)]
    found: list[dict[str, object]] = []
    for i in range(count):
        if i > 20 and i % 5 == 0:
            words = str(found[generator.randrange(len(found))]["text"]).split(" ")
            if i % 10:
                words[generator.randrange(len(words))] = "edited"
        else:
            words = generator.choices(topics[i % 20], k=generator.randrange(3, 120))
        found.append({"id": f"record-{i}", "text": " ".join(words), "url": f"https://x/{i}", "extra": {"n": i}})
    return found


def write_input(folder: Path, parts: int, *, shuffled: int = 0) -> Path:
    """Writes the records as `parts` JSONL files, in another order for another seed."""
    rows = records()
    random.Random(shuffled).shuffle(rows)
    folder.mkdir(parents=True)
    for part in range(parts):
        lines = [json.dumps(row) for row in rows[part::parts]]
        (folder / f"part-{part}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(source: Path, output: Path, **changes: object) -> Recipe:
    return parse_recipe(RECIPE | {"output": str(output), "input": [{"path": str(source), "source": "mock"}]} | changes)


def hashes(folder: Path, pattern: str = "**/*.arrow") -> dict[str, str]:
    """Content of every shard by its path."""
    files = sorted(folder.glob(pattern))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


EVERY_STAGE = {
    "filter": {"min_chars": 0, "rules": ["gopher_quality", "gopher_repetition", "c4", "fineweb"], "languages": [],
               "thresholds": {"too_few_words": 0, "too_few_stop_words": 0}},
    "dedup": {"clusters": "star", "signature": "one_permutation", "url": True, "index": True, "quality": "n",
              "normalize": {"digits": True, "accents": True}, "components_mb": 0},
    "passages": {"paragraphs": 10, "lines": 10, "substrings": 40, "snap": "character", "min_left": 0},
    "semantic": {"epsilon": 0.02},
    "neighbours": {"count": 3, "cells": 2},
}  # fmt: skip


def hostile() -> list[str]:
    """Texts that somebody wrote to break a pipeline, or that break it by being what they are."""
    flood = " ".join(f"{i:08x}" for i in range(20_000))
    return [
        "", " ", "a", "\0", "\0" * 5000, "a " * 20_000, "ab" * 30_000, "!?" * 10_000, "e\u0301" * 3000,
        "x" + "\u0300" * 5000, "\u202e" + "\u05e9\u05dc\u05d5\u05dd " * 500, "\U0001f469\u200d\U0001f680" * 800,
        "\ud7a3\uf900\U0002f800\U0010ffff" * 500, "\ufeffbom", "\r\n" * 3000, "line\n" * 5000, flood, flood[::-1],
        "{{ 7 * 7 }}<script>alert(1)</script>\x1b[31m" * 50, "ไทย" * 2000, "漢字" * 4000, "한글" * 1000, "1" * 50_000,
        " ".join(["the licence text of half the web"] * 900), "\u3000" * 999, "a\tb\vc\fd\x1ce\x85f\u2028g\u2029h",
    ]  # fmt: skip


def test_hostile_texts_lose_no_count_in_any_stage(tmp_path):
    texts = hostile() * 2 + [str(row["text"]) for row in records(150)]
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "x.jsonl").open("w") as sink:
        for i, text in enumerate(texts):
            sink.write(json.dumps({"id": i, "text": text, "url": f"http://x/{i % 190}", "n": i}) + "\n")
        sink.write(json.dumps({"id": "surrogate", "text": "half \ud800"}) + "\n")
    items = [{"id": "q", "question": texts[-1]}, {"id": "long", "question": "the licence text of half the web " * 3}]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    contamination = {"benchmarks": [str(tmp_path / "bench.jsonl")], "rule": "gpt3", "action": "mask"}
    changes = EVERY_STAGE | {"decontaminate": contamination, "report": True}
    outcome = corpus.run(recipe(tmp_path / "in", tmp_path / "corpus", **changes))
    assert outcome.corpus.rows == len(texts) and outcome.rejected == 1
    for name, manifest in outcome.stages.items():
        if not name.startswith("pack"):
            assert manifest.rows == len(texts), name
            assert manifest.counters["docs-in"] == len(texts), name
    rows = datasets.concatenate_datasets(
        [datasets.load_from_disk(f"{tmp_path}/corpus/columns/{stage}") for stage in
         ("filter", "dedup", "passages", "decontaminate", "semantic", "order", "tokenize")], axis=1
    )  # fmt: skip
    for row in rows:
        alive = row["passed"] and row["keep"] and row["enough_left"] and row["clean"]
        assert (row["input_ids"] is not None) == bool(alive)
        assert (row["rank"] is not None) == bool(alive and row["semantic_keep"])
    packed = outcome.stages["pack in_context-2048"].facts
    assert packed["tokens_in"] == packed["tokens_out"]
    assert packed["documents"] == sum(rank is not None for rank in rows["rank"])
    assert (tmp_path / "corpus" / "report.html").exists()


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """One finished walk, for tests that only look."""
    root = tmp_path_factory.mktemp("walked")
    return recipe(write_input(root / "in", 2), root / "corpus"), corpus.run(recipe(root / "in", root / "corpus"))


def test_counts_add_up(walked):
    settings, outcome = walked
    counters = {name: manifest.counters for name, manifest in outcome.stages.items()}
    assert outcome.corpus.ingest.counters["records-in"] == outcome.corpus.rows == 500
    judged = {name: value for name, value in counters["filter"].items() if not name.endswith("-hits")}
    assert sum(v for n, v in judged.items() if n.startswith(("passed", "too_"))) == 500
    joined = datasets.concatenate_datasets(
        [datasets.load_from_disk(f"{settings.output}/documents")]
        + [datasets.load_from_disk(f"{settings.output}/columns/{stage}") for stage in
           ("filter", "dedup", "tokenize", "embed", "cluster", "order")], axis=1
    )  # fmt: skip
    kept = [row for row in joined if row["keep"]]
    assert 300 < len(kept) < 450  # every fifth is a copy
    assert sorted(row["rank"] for row in kept) == list(range(len(kept)))
    assert all(row["rank"] is None and row["num_tokens"] == 0 for row in joined if not row["keep"])
    ids = {row["id"]: row for row in joined}
    for row in joined:
        if row["keep"] is False:
            survivor = ids[row["dup_of"]]
            assert survivor["keep"] and row["similarity"] >= 0 and row["component_size"] == survivor["component_size"]
    tokens = sum(row["num_tokens"] for row in kept)
    for layout in ("in_context-2048", "concat-1024", "random-2048"):
        packed = datasets.load_from_disk(f"{settings.output}/sequences/{layout}")
        assert sum(packed["num_tokens"]) == tokens
        assert {i for row in packed for i in row["doc_ids"]} == {row["id"] for row in kept}


def test_a_second_run_does_nothing(walked):
    settings, _ = walked
    root = Path(settings.output)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    corpus.run(settings)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_changed_setting_reruns_its_stage_and_those_after_it(tmp_path):
    source = write_input(tmp_path / "in", 1)
    corpus.run(recipe(source, tmp_path / "c"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "c").rglob("stage.json")}
    corpus.run(recipe(source, tmp_path / "c", order={"neighbours": 3}))
    changed = {p.parent.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert {"order", "in_context-2048", "concat-1024"} <= changed
    assert not changed & {"filter", "dedup", "tokenize", "embed", "cluster"}


@pytest.mark.parametrize(("parts", "shuffled"), [(1, 0), (7, 1)])
def test_sequences_do_not_depend_on_how_the_input_is_cut(walked, tmp_path, parts, shuffled):
    settings, _ = walked
    corpus.run(recipe(write_input(tmp_path / "in", parts, shuffled=shuffled), tmp_path / "corpus"))
    assert hashes(tmp_path / "corpus" / "sequences") == hashes(Path(settings.output) / "sequences")


def test_the_order_in_which_inputs_are_named_does_not_matter(tmp_path):
    files = sorted(write_input(tmp_path / "in", 3).iterdir())
    found = []
    for name, order in (("a", files), ("b", files[::-1])):
        inputs = [{"path": str(path), "source": "mock"} for path in order]
        corpus.run(parse_recipe(RECIPE | {"output": str(tmp_path / name), "input": inputs}))
        found.append(hashes(tmp_path / name))
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_demo_killed_ten_times_ends_with_the_same_bytes(tmp_path):
    def command(folder: str) -> list[str]:
        ropewalk = str(Path(sys.executable).parent / "ropewalk")
        return [ropewalk, "demo", str(tmp_path / folder), "--limit", "200", "--no-synth"]

    started = time.monotonic()
    assert subprocess.run(command("whole"), capture_output=True).returncode == 0
    seconds = time.monotonic() - started
    output = tmp_path / "killed"
    generator = random.Random(1)
    finished: dict[Path, int] = {}
    kills = 0
    for _ in range(10):
        process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # A start takes some seconds, so that each try gets a little further than the one before.
        until = time.monotonic() + generator.uniform(0.1, 0.35) * seconds
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        kills += process.poll() is None
        process.kill()
        process.wait()
        assert all(shard.stat().st_ino == inode for shard, inode in finished.items())
        for record in output.rglob("_shards/*.json"):
            shard = record.parent.parent / json.loads(record.read_text())["file"]
            finished[shard] = shard.stat().st_ino
        for manifest in output.rglob("stage.json"):
            finished |= {shard: shard.stat().st_ino for shard in manifest.parent.glob("data-*.arrow")}
        finished = {shard: inode for shard, inode in finished.items() if "_work" not in shard.parts}
    assert kills >= 5
    assert subprocess.run(command("killed"), capture_output=True).returncode == 0
    assert all(shard.stat().st_ino == inode for shard, inode in finished.items())
    assert hashes(output) == hashes(tmp_path / "whole")
    assert not [path for path in output.rglob("*") if ".tmp-" in path.name or path.name in ("_work", "_shards")]


def test_a_run_killed_between_the_two_manifests_of_ingest_keeps_its_documents(tmp_path):
    settings = recipe(write_input(tmp_path / "in", 2), tmp_path / "corpus")
    corpus.run(settings, until="ingest")
    root = tmp_path / "corpus"
    before = {path: path.stat().st_ino for path in root.rglob("*.arrow")}
    manifest = (root / "corpus.json").read_bytes()
    (root / "corpus.json").unlink()
    (root / "documents" / "_work").mkdir()
    corpus.run(settings, until="ingest")
    corpus.run(settings, until="ingest")
    assert {path: path.stat().st_ino for path in root.rglob("*.arrow")} == before
    assert (root / "corpus.json").read_bytes() == manifest
    assert not (root / "documents" / "_work").exists()
    # A half-done ingest of other settings must not pass for the finished one.
    other = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"limit": 10})})
    corpus.run(other, until="ingest")
    assert corpus.run(settings, until="ingest").corpus.rows == 500


def test_only_one_run_writes_a_corpus(tmp_path):
    settings = recipe(write_input(tmp_path / "in", 1), tmp_path / "corpus")
    with files.lock(settings.output), pytest.raises(BlockingIOError, match="another run is writing this corpus"):
        corpus.run(settings)
    corpus.run(settings, until="ingest")


def test_columns_of_an_earlier_row_space_do_not_stay(tmp_path):
    settings = recipe(write_input(tmp_path / "in", 1), tmp_path / "corpus")
    corpus.run(settings, until="tokenize")
    (tmp_path / "in" / "more.jsonl").write_text('{"text": "one more document, long enough to pass the filter"}\n')
    corpus.run(settings, until="filter")
    assert [path.name for path in (tmp_path / "corpus" / "columns").iterdir()] == ["filter"]


def test_the_report_follows_the_corpus(walked, tmp_path):
    settings, _ = walked
    report = Path(settings.output) / "report.html"
    before = report.read_bytes()
    report.unlink()
    corpus.run(settings)
    assert report.read_bytes() == before
    (Path(settings.output) / "report.key").unlink()  # as if killed before the report was written again
    report.write_text("old")
    corpus.run(settings)
    assert report.read_bytes() == before


def test_a_kill_after_the_dead_letters_are_whole_keeps_them(tmp_path, monkeypatch):
    folder = write_input(tmp_path / "in", 1)
    with (folder / "part-0.jsonl").open("a") as sink:
        sink.write("no JSON\n")
    settings = recipe(folder, tmp_path / "corpus")
    whole = measure.Meter.__exit__

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure.Meter, "__exit__", killed)
    with pytest.raises(KeyboardInterrupt):
        corpus.run(settings, until="ingest")
    monkeypatch.setattr(measure.Meter, "__exit__", whole)
    assert corpus.run(settings, until="ingest").rejected == 1
    assert len(datasets.load_from_disk(f"{settings.output}/rejects/ingest")) == 1
