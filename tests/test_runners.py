"""One walk, the same bytes on every runner: this process, worker processes, a portable job service and its workers.

The portable job service is Beam's own (`local_job_service_main`), which ships with it; each SDK worker is a process
that gets the pipeline over the wire, as it would from Flink or Dataflow.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ropewalk.pipelines import corpus
from ropewalk.pipelines.jobs import Engine
from ropewalk.schemas import testing
from ropewalk.schemas.recipe import Recipe, parse_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # every Beam job starts its workers anew

WORKER = f"{sys.executable} -P -m apache_beam.runners.worker.sdk_worker_main"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of mock documents, with near-copies, an exact copy and a line that is no JSON."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = testing.documents(150, copies=0.3, words=(20, 120)).select(["id", "text"]).to_pylist()
    rows.append({"id": "again", "text": rows[0]["text"]})
    for name, part in (("a", rows[:70]), ("b", rows[70:])):
        lines = [json.dumps(row) for row in part] + (["not JSON"] if name == "b" else [])
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def recipe(inputs: Path, output: Path) -> Recipe:
    return parse_recipe(
        {
            "output": str(output),
            "input": f"{inputs}/*.jsonl",
            "ingest": {"shard_bytes": 16_384},
            "tokenize": {"tokenizer": "bytes"},
            "cluster": {"size": 40, "max_size": 60},
            "pack": {"length": 512},
            "report": False,
        }
    )


def results(output: Path) -> dict[str, object]:
    """Everything a run promises to repeat: every shard's hash, counters and facts, without what it cost."""
    found: dict[str, object] = {"corpus": (json.loads((output / "corpus.json").read_text()))["content"]}
    for path in sorted(output.glob("*/*/stage.json")):
        manifest = json.loads(path.read_text())
        del manifest["run"]
        found[str(path.parent.relative_to(output))] = manifest
    return found


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The walk in this process."""
    output = tmp_path_factory.mktemp("local") / "corpus"
    outcome = corpus.run(recipe(inputs, output))
    assert (outcome.corpus.rows, outcome.rejected) == (151, 1)
    found = results(output)
    assert len(found) == 8, sorted(found)  # the row space, six stages of columns, one layout
    return found


def test_worker_processes(inputs, expected, tmp_path):
    corpus.run(recipe(inputs, tmp_path / "corpus"), Engine(workers=2))
    assert results(tmp_path / "corpus") == expected


def test_portable_job_service_with_workers_in_their_own_process(inputs, expected, tmp_path):
    with job_service(tmp_path / "service.log") as endpoint:
        flags = (
            f"--job_endpoint={endpoint}",
            "--environment_type=beam:env:harness_subprocess_python:v1",
            f"--environment_config={WORKER}",
        )
        corpus.run(recipe(inputs, tmp_path / "corpus"), Engine("PortableRunner", beam_args=flags))
    assert results(tmp_path / "corpus") == expected


def test_a_run_whose_worker_is_killed_ends_and_goes_on_when_called_again(inputs, expected, tmp_path):
    output = tmp_path / "corpus"
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(inputs, output).model_dump(mode="json")))  # JSON is YAML
    command = [str(Path(sys.executable).with_name("ropewalk")), "run", str(path), "--until", "filter"]
    run = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True)
    workers: list[psutil.Process] = []
    while not workers and run.poll() is None:
        workers = [
            c for c in psutil.Process(run.pid).children(recursive=True) if "sdk_worker_main" in " ".join(c.cmdline())
        ]
        time.sleep(0.05)
    workers[0].kill()
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1 and "Worker subprocess exited with return code -9" in errors, errors
    assert "Traceback" not in errors
    assert subprocess.run(command, timeout=120).returncode == 0
    found = results(output)
    assert found == {name: expected[name] for name in found} and "columns/filter" in found


@contextlib.contextmanager
def job_service(log: Path) -> Iterator[str]:
    """Beam's local job service on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "apache_beam.runners.portability.local_job_service_main", "-p", str(port)]
    with log.open("wb") as sink:
        service = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                socket.create_connection(("localhost", port), 1).close()
                break
            assert service.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"localhost:{port}"
    finally:
        service.terminate()
        service.wait(10)
