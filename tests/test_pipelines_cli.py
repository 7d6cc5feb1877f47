"""The command line as a stranger uses it: real processes, exit codes and messages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.schemas import testing

ROPEWALK = str(Path(sys.executable).parent / "ropewalk")
SMALL = {"tokenize": {"tokenizer": "bytes"}, "pack": {"length": 512}, "filter": {"min_chars": 10}}


def call(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([ROPEWALK, *args], capture_output=True, text=True, cwd=cwd, env=environment, timeout=240)


def write(folder: Path, **changes: object) -> Path:
    lines = [json.dumps({"text": text}) for text in testing.documents(120, copies=0.2).column("text").to_pylist()]
    (folder / "in.jsonl").write_text("\n".join([*lines[:60], '{"text": broken', *lines[60:]]) + "\n")
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"output": "corpus", "input": "in.jsonl"} | SMALL | changes))
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder where a small recipe, with one broken line in its input, has been run."""
    folder = tmp_path_factory.mktemp("cli")
    write(folder)
    return folder, call("run", "recipe.yaml", cwd=folder)


def test_a_run_says_what_it_did(ran):
    folder, result = ran
    assert result.returncode == 0, result.stderr
    assert "120 documents in corpus, 1 records rejected" in result.stdout
    assert (folder / "corpus" / "report.html").stat().st_size > 10_000
    for step in ("ingest", "filter", "dedup", "tokenize", "embed", "cluster", "order", "pack in_context-512", "report"):
        assert step in result.stdout
    assert "Traceback" not in result.stderr and "WARNING" not in result.stderr


def test_a_second_run_is_a_no_op(ran):
    result = call("run", "recipe.yaml", cwd=ran[0])
    assert result.returncode == 0 and result.stdout.count("up to date") == 9


def test_plan_runs_nothing(ran, tmp_path):
    done = call("plan", "recipe.yaml", cwd=ran[0])
    assert done.returncode == 0 and done.stdout.count("up to date") >= 8, done.stdout
    changed = call("plan", "recipe.yaml", "--set", "order.neighbours=3", cwd=ran[0])
    assert "runs again" in changed.stdout
    write(tmp_path)
    assert call("plan", "recipe.yaml", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "corpus").exists()


def test_inspect_shows_real_rows(ran):
    folder = ran[0]
    overview = call("inspect", "corpus", cwd=folder)
    assert "120 documents" in overview.stdout and "columns/dedup" in overview.stdout
    document = call("inspect", "corpus", "--row", "3", cwd=folder)
    assert "num_tokens" in document.stdout and "rank" in document.stdout
    id_ = document.stdout.split(" id ")[1].split()[0]
    assert call("inspect", "corpus", "--id", id_, cwd=folder).stdout == document.stdout
    sequence = call("inspect", "corpus", "--sequence", "0", cwd=folder)
    assert re.search(r"sequence 0 of in_context-512: \d{3} tokens, \d+ segments", sequence.stdout)
    copy = call("inspect", "corpus", "--similar", id_[:10], cwd=folder)
    assert copy.returncode == 2 and "put out by `dedup` before `embed`" in copy.stderr
    kept = copy.stderr.split("it is a copy of ")[1][:32]
    near = call("inspect", "corpus", "--similar", kept, "--count", "3", cwd=folder)
    assert near.returncode == 0, near.stderr
    assert f"document {kept}" in near.stdout and "3 · cosine 0." in near.stdout and "4 · cosine" not in near.stdout
    clusters = call("inspect", "corpus", "--clusters", cwd=folder)
    assert clusters.returncode == 0 and "documents in 1 clusters" in clusters.stdout
    rejects = call("inspect", "corpus", "--rejects", cwd=folder)
    assert "in.jsonl" in rejects.stdout and "61" in rejects.stdout


def test_explain_tells_why(ran):
    document = call("inspect", "corpus", "--row", "3", cwd=ran[0])
    id_ = document.stdout.split(" id ")[1].split()[0]
    result = call("explain", "corpus", id_[:12], cwd=ran[0])
    assert result.returncode == 0, result.stderr
    assert id_ in result.stdout and "where it ended" in result.stdout and "in_context-512" in result.stdout


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
        (["run", "recipe.yaml", "--set", "dedup.treshold=1"], "did you mean 'threshold'?"),
        (["run", "recipe.yaml", "--set", "dedup"], "write NAME=VALUE"),
        (["run", "recipe.yaml", "--limt", "3"], "did you mean --limit?"),
        (["run", "recipe.yaml", "--until", "deduplicate"], "unknown stage 'deduplicate'"),
        (["run", "recipe.yaml", "--set", "input=missing/*.jsonl"], "missing/*.jsonl"),
        (["inspect", "elsewhere"], "no corpus.json here"),
        (["inspect", "corpus", "--row", "120"], "numbered from 0"),
        (["inspect", "corpus", "--layout", "x", "--sequence", "0"], "there are in_context-512"),
        (["inspect", "corpus", "--similar", "zzz"], "zzz: no such document"),
        (["inspect", "elsewhere", "--similar", "0"], "no corpus.json here"),
        (["report", "elsewhere"], "no corpus.json here"),
        (["explain", "corpus", "zzz"], "zzz: no such document"),
        (["explain", "elsewhere", "0"], "no corpus.json here"),
        (["retry-rejects", "elsewhere"], "no corpus.json here"),
        (["retry-rejects", "corpus", "--mended", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_remedy(ran, args, expected):
    result = call(*args, cwd=ran[0])
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_help_teaches():
    result = call("run", "--help", cwd=Path("/"))
    assert result.returncode == 0
    for word in ("--from", "--until", "--limit", "--set", "--workers", "--runner", "--force", "--debug"):
        assert word in result.stdout


def test_ctrl_c_leaves_a_resumable_state_and_says_so(tmp_path):
    write(tmp_path)
    process = subprocess.Popen(
        [ROPEWALK, "run", "recipe.yaml"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    while not (tmp_path / "corpus" / "documents").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "the same command goes on from here" in stderr
    result = call("run", "recipe.yaml", cwd=tmp_path)
    assert result.returncode == 0 and "120 documents" in result.stdout


def test_rejected_records_are_mended_and_read(tmp_path):
    write(tmp_path, **{stage: False for stage in ("dedup", "tokenize", "embed", "cluster", "order", "pack")})
    assert call("run", "recipe.yaml", cwd=tmp_path).returncode == 0
    written = call("retry-rejects", "corpus", cwd=tmp_path)
    assert written.returncode == 0 and "1 dead letters" in written.stdout
    path = tmp_path / "corpus" / "rejects" / "mend.jsonl"
    letter = json.loads(path.read_text())
    path.write_text(json.dumps(letter | {"record": {"text": "whole again, at last"}}))
    result = call("retry-rejects", "corpus", "--mended", str(path), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 mended records taken" in result.stdout and "121 documents in corpus" in result.stdout
    again = call("retry-rejects", "corpus", "--mended", str(path), cwd=tmp_path)
    assert "0 mended records taken" in again.stdout and "had been taken before" in again.stdout
    assert "not in the corpus yet" not in again.stdout
    assert "None is left to mend" in call("inspect", "corpus", "--rejects", cwd=tmp_path).stdout


def test_mended_records_from_elsewhere(tmp_path):
    """Paths of the recipe count from where it ran; the run it gets from elsewhere is the very same."""
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    write(home, **{stage: False for stage in ("dedup", "tokenize", "embed", "cluster", "order", "pack")})
    assert call("run", "recipe.yaml", cwd=home).returncode == 0
    assert call("retry-rejects", "../home/corpus", cwd=away).returncode == 0
    letter = json.loads((home / "corpus" / "rejects" / "mend.jsonl").read_text())
    mended = away / "mended.jsonl"
    mended.write_text(json.dumps(letter | {"record": {"text": "whole again, at last"}}))
    feed = ("retry-rejects", "../home/corpus", "--mended", "mended.jsonl")
    for _ in range(2):  # the second time it was taken before, and still is not in the corpus
        result = call(*feed, "--no-run", cwd=away)
        assert result.returncode == 0, result.stderr
        assert "not in the corpus yet: the next `ropewalk run`" in result.stdout
    (home / "corpus" / "mended").rename(tmp_path / "mended")
    result = call(*feed, cwd=away)
    assert result.returncode == 0, result.stderr
    assert "1 mended records taken" in result.stdout and "121 documents" in result.stdout
    again = call("run", "recipe.yaml", cwd=home)
    assert again.stdout.count("up to date") == 3, again.stdout  # ingest, filter, report
    mended.write_text(json.dumps(letter | {"record": {"text": "another text"}}) + "\n{\n")
    result = call(*feed, cwd=away)
    assert result.returncode == 1 and "differ from the record that was taken before" in result.stdout
    folder = call("retry-rejects", "../home/corpus", "--mended", ".", cwd=away)
    assert folder.returncode == 2 and "--mended" in folder.stderr and "this is a folder" in folder.stderr
    # Corrected where it came from, too: the run says what to remove.
    lines = (home / "in.jsonl").read_text().splitlines()
    (home / "in.jsonl").write_text("\n".join([*lines[:60], '{"text": "whole again, at last"}', *lines[61:]]) + "\n")
    result = call("run", "recipe.yaml", cwd=home)
    assert result.returncode == 0 and "Careful: 1 mended records" in result.stdout
    home.rename(tmp_path / "moved")
    result = call("retry-rejects", "../moved/corpus", "--mended", "mended.jsonl", cwd=away)
    assert result.returncode == 2 and "which is not there any more" in result.stderr


def test_a_synthesis_run_has_its_own_way(tmp_path):
    (tmp_path / "synth.json").write_text("{}")
    result = call("retry-rejects", ".", cwd=tmp_path)
    assert result.returncode == 0 and "ropewalk synth RECIPE --force" in result.stdout
    similar = call("inspect", ".", "--similar", "0", cwd=tmp_path)
    assert similar.returncode == 2 and "is a synthesis run and has no vectors" in similar.stderr


def test_empty_input_is_a_clear_failure(tmp_path):
    path = write(tmp_path)
    (tmp_path / "in.jsonl").write_text("")
    result = call("run", str(path), cwd=tmp_path)
    assert result.returncode == 2
    assert "no document" in result.stderr
