"""`kill -9` at twenty random moments of a run: nothing answered is asked again, and the bytes are the same."""

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.synth import cache_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROWS, KILLS = 200, 20
OPTIONS = {
    "tokens": 150, "refusal": 0.03, "empty": 0.03, "repetition": 0.03,
    "request_seconds": 0.01, "step_seconds": 0.0008, "sequence_step_seconds": 0.0001,
}  # fmt: skip


def write(folder: Path) -> list[str]:
    """A recipe and its tasks; returns the command that runs it."""
    folder.mkdir()
    tasks = [{"prompt": f"Write about rope number {n}.", "required_words": 200 + n * 13 % 600} for n in range(ROWS)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    document = {
        "output": str(folder / "out"),
        "prompts": {"path": "tasks.jsonl"},
        "recipe": {"name": "agentwrite", "plan": "outline"},
        "engine": {"name": "echo", "max_sequences": 32, "options": OPTIONS | {"log": str(folder / "log")}},
        "guards": {"no_end": "Infinity"},
        "generation": {"shard_rows": 25, "window_rows": 60},
    }
    (folder / "recipe.yaml").write_text(json.dumps(document))
    return [str(Path(sys.executable).parent / "ropewalk"), "synth", str(folder / "recipe.yaml")]


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


def asked(folder: Path) -> list[tuple[str, str, int, int]]:
    """Requests that went to the engine, in their order; a kill may have cut the last line."""
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("]")]


def cached(folder: Path) -> set[tuple[str, str, int, int]]:
    """Requests whose answers are durable."""
    columns = ["row", "step", "attempt", "segment"]
    return {
        tuple(row.values())
        for batch in cache_files.read(str(folder / "out" / "cache"))
        for row in batch.select(columns).to_pylist()
    }


def hashes(output: Path) -> dict[str, str]:
    found = [path for table in ("prompts", "sft", "rejects") for path in output.glob(f"{table}/**/*.arrow")]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def finished_shards(output: Path) -> dict[Path, int]:
    """Shards of samples with a record: they must never be written again."""
    records = [json.loads(path.read_bytes()) for path in output.glob("sft/_shards/*.json")]
    return {output / "sft" / record["file"]: (output / "sft" / record["file"]).stat().st_ino for record in records}


def test_a_run_killed_twenty_times_asks_nothing_twice_and_ends_with_the_same_bytes(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(write(whole), whole)
    total = len(asked(whole))
    assert total == len(set(asked(whole))) == len(cached(whole)) > 3 * ROWS
    command = write(killed)
    generator = random.Random(0)
    kills = 0
    shards: dict[Path, int] = {}
    for _ in range(KILLS):
        before, answered = len(asked(killed)), cached(killed)
        # Some tries end before the first request; together they come close to the end of the run.
        wanted = generator.randrange(2 * total // KILLS)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=killed)
        while len(asked(killed)) < before + wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.03))
        kills += process.poll() is None
        process.kill()
        process.wait()
        assert not answered & set(asked(killed)[before:])
        assert answered <= cached(killed)
        assert all(path.stat().st_ino == inode for path, inode in shards.items())
        shards |= finished_shards(killed / "out")
    assert kills == KILLS, "the run ended before it was killed: raise ROWS"
    assert shards, "no shard was ever finished before a kill: lower shard_rows"
    before, answered = len(asked(killed)), cached(killed)
    run(command, killed)
    assert not answered & set(asked(killed)[before:])
    assert all(path.stat().st_ino == inode for path, inode in shards.items())
    assert set(asked(killed)) == set(asked(whole)) and cached(killed) == cached(whole)
    assert hashes(killed / "out") == hashes(whole / "out")
    assert json.loads((killed / "out" / "synth.json").read_bytes())["counts"]["records"] == ROWS
    assert not [path for path in (killed / "out").rglob("*") if path.name == "_shards"]
