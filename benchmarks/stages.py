"""Measures every stage on a generated corpus, and the floor beside it in the same run.

    make bench                                           # 200 MB, three repetitions
    make bench BENCH_ARGS="--mb 1000 --repeat 3"

Each repetition runs `floor.py` and then `ropewalk run` into an empty folder, both in processes of their own. A first
walk on a few documents, not counted, fills numba's cache of compiled kernels. Figures of a stage come from the `run`
block of its `stage.json`; the medians over the repetitions go to `results/`, as a table and as CSV with every run.
"""

import argparse
import csv
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from machine import machine

from ropewalk.schemas.recipe import STAGES

HERE = Path(__file__).resolve().parent
ROPEWALK = Path(sys.executable).with_name("ropewalk")
FIELDS = (
    "repetition", "stage", "seconds", "cpu_seconds", "documents_per_second", "mb_per_second", "peak_memory_mb",
    "read_mb", "written_mb",
)  # fmt: skip


def call(*command: object, quiet: bool = True) -> str:
    """Runs a command; its output, or an error that shows it."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if quiet else None, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def write_recipe(path: Path, inputs: Path, output: Path) -> Path:
    """A recipe with every stage at its defaults."""
    recipe = {"input": [{"path": f"{inputs}/*.jsonl", "source": "bench"}], "output": str(output)}
    path.write_text(yaml.safe_dump(recipe))
    return path


def stage_manifests(corpus: Path) -> dict[str, dict[str, Any]]:
    """The manifest of each step by name, in the order of the walk."""
    found = {"ingest": json.loads((corpus / "corpus.json").read_text())["ingest"]}
    for path in [*corpus.glob("columns/*/stage.json"), *sorted(corpus.glob("sequences/*/stage.json"))]:
        found[path.parent.name] = json.loads(path.read_text())
    return dict(sorted(found.items(), key=lambda item: STAGES.index(item[1]["stage"])))


def one_run(folder: Path, recipe: Path, corpus: Path, extra: list[str], repetition: int) -> list[dict[str, Any]]:
    """Floor and walk once: a row for each."""
    floor = json.loads(call(sys.executable, HERE / "floor.py", folder, "--scratch", corpus.parent, quiet=False))
    rows = [row("floor", floor, floor["documents"], floor["bytes_read"], repetition)]
    shutil.rmtree(corpus, ignore_errors=True)
    start = time.perf_counter()
    call(ROPEWALK, "run", recipe, *extra)
    seconds = time.perf_counter() - start
    laid = json.loads((corpus / "corpus.json").read_text())
    for name, manifest in stage_manifests(corpus).items():
        rows.append(row(name, manifest["run"], laid["rows"], floor["bytes_read"], repetition))
    whole = {"seconds": seconds, "peak_memory_bytes": max(r["peak_memory_mb"] for r in rows[1:]) * 1e6}
    whole["cpu_seconds"] = sum(r["cpu_seconds"] for r in rows[1:])
    rows.append(row("whole command", whole, laid["rows"], floor["bytes_read"], repetition))
    return rows


def row(stage: str, run: dict[str, Any], documents: int, size: int, repetition: int) -> dict[str, Any]:
    """One line of the CSV. MB/s is JSONL input over seconds for every stage, so that the lines compare."""
    seconds = max(run["seconds"], 1e-3)
    return {
        "repetition": repetition,
        "stage": stage,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(run.get("cpu_seconds", 0), 2),
        "documents_per_second": round(documents / seconds),
        "mb_per_second": round(size / 1e6 / seconds, 1),
        "peak_memory_mb": round(run.get("peak_memory_bytes", 0) / 1e6),
        "read_mb": round(run.get("bytes_read", 0) / 1e6),
        "written_mb": round(run.get("bytes_written", 0) / 1e6),
    }


def medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The median over repetitions of every figure, a row a stage."""
    found = []
    for stage in dict.fromkeys(r["stage"] for r in rows):
        mine = [r for r in rows if r["stage"] == stage]
        found.append({"stage": stage} | {f: statistics.median(r[f] for r in mine) for f in FIELDS[2:]})
    return found


def table(rows: list[dict[str, Any]], facts: dict[str, str]) -> str:
    """The result as Markdown."""
    head = ["stage", "seconds", "CPU seconds", "documents/s", "MB/s", "times floor", "peak memory MB", "written MB"]
    floor = next(r["seconds"] for r in rows if r["stage"] == "floor")
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for r in rows:
        memory = "" if r["stage"] == "floor" else f"{r['peak_memory_mb']:.0f}"
        written = f"{r['written_mb']:.0f}" if r["stage"] not in ("floor", "whole command") else ""
        cells = [
            r["stage"], f"{r['seconds']:.2f}", f"{r['cpu_seconds']:.2f}", f"{r['documents_per_second']:,.0f}",
            f"{r['mb_per_second']:.1f}", f"{r['seconds'] / floor:.1f}", memory, written,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*(f"- {name}: {value}" for name, value in facts.items()), "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=200, help="size of the corpus, in MB of text")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=HERE.parent / "build" / "bench")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--name", default=None, help="name of the result files; default: stages-<mb>mb")
    args, extra = parser.parse_known_args()
    folder = args.scratch / f"{args.mb:.0f}mb"
    if not (folder / "corpus.json").exists():
        print(call(sys.executable, HERE / "make_corpus.py", folder, "--mb", args.mb), end="")
    made = json.loads((folder / "corpus.json").read_text())
    corpus = args.scratch / "out"
    recipe = write_recipe(args.scratch / "bench.yaml", folder.resolve(), corpus.resolve())
    print("compiling kernels", flush=True)
    shutil.rmtree(corpus, ignore_errors=True)
    call(ROPEWALK, "run", recipe, "--limit", 200, *extra)
    rows: list[dict[str, Any]] = []
    for repetition in range(1, args.repeat + 1):
        print(f"repetition {repetition} of {args.repeat}", flush=True)
        rows += one_run(folder, recipe, corpus, extra, repetition)
    laid = json.loads((corpus / "corpus.json").read_text())
    size = sum(f["bytes"] for f in made["files"])
    facts = {
        "corpus": f"{made['records']:,} documents, {size / 1e6:,.0f} MB of JSONL, seed {made['seed']}",
        "runs": f"{args.repeat}, medians below",
        "command": shlex.join(["ropewalk", "run", recipe.name, *extra]) + " (every stage at its defaults)",
    } | machine(laid["ingest"]["run"]["versions"])
    name = args.name or f"stages-{args.mb:.0f}mb"
    args.results.mkdir(parents=True, exist_ok=True)
    text = table(medians(rows), facts)
    (args.results / f"{name}.md").write_text(f"# {name}\n\n{text}")
    with (args.results / f"{name}.csv").open("w", newline="") as sink:
        writer = csv.DictWriter(sink, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    print(text)
    shutil.rmtree(corpus, ignore_errors=True)


if __name__ == "__main__":
    main()
