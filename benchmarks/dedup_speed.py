"""Speed of near-duplicate removal, side by side in one run: `dedup`, datatrove, text-dedup, data-juicer, rensa.

    .venv/bin/python benchmarks/dedup_speed.py --envs build/peers        # 1 GB; about 7 minutes on 2 cores
    .venv/bin/python benchmarks/dedup_speed.py --tools                   # ours alone; about 1 minute

Ropewalk: the stage `dedup` at its defaults (reads Arrow, writes the verdict columns) as its `stage.json` measured it,
on the first files of a corpus of `make_corpus.py`, about 0.1, 0.3 and 1 GB; and ingest before it, as the other tools
read JSONL and write what they keep. Beside it the floor, reading all bytes of the texts from the same Arrow files, and
the signatures alone in one thread.

The others: environments and settings of `dedup_peers.py`, two processes, on the first documents of the same corpus, as
many as they finish in a quarter of a minute or so. `mb_per_second` is without start-up: what the larger of two inputs
has more than the smaller, divided by what it takes longer. `mb_per_second_with_start` counts all. The ratios take the
former, the better for them.

Without other tools, the last run beside them stays in the results under `side_by_side`, with its own machine and its
own figures of ours: only those compare with the tools'.

MB are 10^6 bytes of JSONL for everybody, so that the figures compare. Page cache warm, nothing synced. Medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from dedup_peers import ENVIRONMENTS, ask, python_of, versions_of
from machine import machine

from ropewalk.transforms import utf8
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir
from ropewalk.transforms.sketch import MinHash

HERE = Path(__file__).resolve().parent
ROPEWALK = Path(sys.executable).with_name("ropewalk")
SHARES = (0.1, 0.3, 1.0)  # of the corpus
PEER_MB = {"datatrove": 6.0, "text_dedup": 16.0, "data_juicer": 8.0, "rensa": 80.0}
SMALLER = 0.25  # share of it that the smaller input is
PEER_FILES = 2
SKETCH_MB = 200


def call(*command: object) -> None:
    """Runs a command, or ends with what it printed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}")


def median_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def touch_texts(corpus: CorpusDir) -> int:
    """Reads every byte of the texts once; their number."""
    total = 0
    for shard in range(corpus.own_shards):
        for batch in corpus.read(shard, {DOCUMENTS: ["text"]}):
            data, offsets = utf8.buffers(batch.column("text"))
            used = data[offsets[0] : offsets[-1]]
            np.bitwise_xor.reduce(used[: len(used) // 8 * 8].view(np.uint64))
            total += len(used)
    return total


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure_floor(corpus: CorpusDir, repeat: int) -> dict[str, float]:
    """Seconds of reading all texts, the first time not counted."""
    size = touch_texts(corpus)
    seconds = statistics.median(timed(lambda: touch_texts(corpus))[0] for _ in range(repeat))
    return {"text_mb": round(size / 1e6, 1), "seconds": round(seconds, 3), "mb_per_second": round(size / 1e6 / seconds)}


def measure_sketch(corpus: CorpusDir, repeat: int) -> dict[str, Any]:
    """MB of text a second that one thread makes signatures of, 112 values."""
    batches: list[pa.RecordBatch] = []
    size = 0
    for shard in range(corpus.own_shards):
        for batch in corpus.read(shard, {DOCUMENTS: ["id", "text", "source", "num_bytes"]}):
            if size < SKETCH_MB * 1e6:
                batches.append(batch)
                size += int(np.diff(utf8.buffers(batch.column("text"))[1]).sum())
    found: dict[str, Any] = {"text_mb": round(size / 1e6, 1)}
    for scheme in ("affine32", "one_permutation"):
        sketch = MinHash(scheme=scheme)
        sketch.setup()
        for batch in batches:
            sketch(batch)
        seconds = statistics.median(timed(lambda s=sketch: [s(b) for b in batches])[0] for _ in range(repeat))
        found[scheme] = {"seconds": round(seconds, 3), "mb_per_second": round(size / 1e6 / seconds, 1)}
    return found


def measure_ours(files: list[Path], scratch: Path, repeat: int, extra: list[str]) -> tuple[dict[str, Any], CorpusDir]:
    """Ingest once and dedup some times over, on some files."""
    output, recipe = scratch / "ropewalk", scratch / "recipe.yaml"
    shutil.rmtree(output, ignore_errors=True)
    inputs = [{"path": str(path.resolve()), "source": "bench"} for path in files]
    recipe.write_text(yaml.safe_dump({"input": inputs, "output": str(output.resolve()), "filter": False}))
    call(ROPEWALK, "run", recipe, "--until", "ingest", *extra)
    runs, size = [], sum(path.stat().st_size for path in files) / 1e6
    for _ in range(repeat):
        shutil.rmtree(output / "columns" / "dedup", ignore_errors=True)
        whole, _ = timed(lambda: call(ROPEWALK, "run", recipe, "--from", "dedup", "--until", "dedup", *extra))
        run = json.loads((output / "columns" / "dedup" / "stage.json").read_text())["run"]
        runs.append(
            {
                "seconds": run["seconds"],
                "cpu_seconds": run["cpu_seconds"],
                "whole_command_seconds": whole,
                "peak_memory_mb": run["peak_memory_bytes"] / 1e6,
                "mb_per_second": size / run["seconds"],
                **{f"job, {name}": seconds for name, seconds in run["jobs"].items()},
            }
        )
    corpus = CorpusDir.open(str(output))
    manifest = corpus.manifest()
    assert manifest is not None
    ingest = manifest.ingest.run
    result = {"documents": manifest.rows, "jsonl_mb": round(size, 1), "dedup": median_of(runs), "repetitions": repeat}
    result["ingest"] = {"seconds": ingest.seconds, "peak_memory_mb": round(ingest.peak_memory_bytes / 1e6)}
    both = ingest.seconds + result["dedup"]["seconds"]
    return result | {"ingest_and_dedup_mb_per_second": round(size / both, 1)}, corpus


def write_subset(files: list[Path], folder: Path, size: float) -> tuple[Path, int, float]:
    """The first documents of a corpus, `size` bytes of them or a little more, in files for two processes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines: list[bytes] = []
    written = 0
    for path in files:
        with path.open("rb") as source:
            for line in source:
                if written >= size:
                    break
                lines.append(line)
                written += len(line)
    for part in range(PEER_FILES):
        (folder / f"part-{part:04d}.jsonl").write_bytes(b"".join(lines[part::PEER_FILES]))
    return folder, len(lines), written / 1e6


def measure_peer(python: Path, tool: str, files: list[Path], mb: float, scratch: Path, repeat: int) -> dict[str, Any]:
    """One of the other tools on two inputs; the smaller one's median counts as start-up and its own share."""
    found: list[dict[str, Any]] = []
    for share in (SMALLER, 1.0):
        folder, documents, size = write_subset(files, scratch / "subset", mb * 1e6 * share)
        runs = []
        for _ in range(repeat):
            answer = ask(python, tool, "dedup", folder, scratch)
            runs.append({name: answer[name] for name in ("seconds", "whole_seconds", "peak_memory_mb")})
            kept = len(answer["kept"])
        found.append({"documents": documents, "jsonl_mb": round(size, 2), "kept": kept} | median_of(runs))
    small, large = found
    longer = max(large["seconds"] - small["seconds"], 1e-3)
    return {
        "versions": versions_of(python, tool),
        "mb_per_second": round((large["jsonl_mb"] - small["jsonl_mb"]) / longer, 3),
        "mb_per_second_with_start": round(large["jsonl_mb"] / large["seconds"], 3),
        "peak_memory_mb": large["peak_memory_mb"],
        "repetitions": repeat,
        "runs": found,
    }


def side_by_side(results: Path) -> dict[str, Any] | None:
    """The last run beside other tools that a file of results knows."""
    if not results.exists():
        return None
    old: dict[str, Any] = json.loads(results.read_text())
    return old if "others" in old else old["side_by_side"]


def print_table(result: dict[str, Any]) -> None:
    """A line a measurement."""
    print(f"\n{'':36}{'MB':>8}{'seconds':>9}{'MB/s':>9}{'peak MB':>9}{'ours is':>9}")
    floor, sketch = result["floor"], result["signatures"]
    print(f"{'floor: reading the texts':36}{floor['text_mb']:8.0f}{floor['seconds']:9.2f}{floor['mb_per_second']:9.0f}")
    for scheme in ("affine32", "one_permutation"):
        one = sketch[scheme]
        print(f"{f'signatures, one thread: {scheme}':36}{sketch['text_mb']:8.0f}", end="")
        print(f"{one['seconds']:9.2f}{one['mb_per_second']:9.1f}")
    for one in result["ropewalk"]:
        run = one["dedup"]
        print(f"{'ropewalk: dedup':36}{one['jsonl_mb']:8.0f}{run['seconds']:9.2f}", end="")
        print(f"{run['mb_per_second']:9.1f}{run['peak_memory_mb']:9.0f}")
    for tool, one in result.get("others", {}).items():
        large = one["runs"][-1]
        print(f"{tool:36}{large['jsonl_mb']:8.1f}{large['seconds']:9.2f}", end="")
        print(f"{one['mb_per_second']:9.2f}{one['peak_memory_mb']:9.0f}{one['ours_is_times']:8.0f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="folder of make_corpus.py; default: made in --scratch")
    parser.add_argument("--mb", type=float, default=1000, help="size of the corpus if it is made")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="shares of its files, ascending")
    parser.add_argument("--envs", type=Path, default=HERE.parent / "build" / "peers", help="the tools' environments")
    parser.add_argument("--tools", nargs="*", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--peer-scale", type=float, default=1, help="factor to the size of the others' inputs")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--conditions", default="", help="what else ran, for the results")
    parser.add_argument("--scratch", type=Path, default=HERE.parent / "build" / "dedup")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "dedup_speed.json")
    args, extra = parser.parse_known_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    corpus = args.corpus or args.scratch / f"{args.mb:.0f}mb"
    if not (corpus / "corpus.json").exists():
        print(f"making {corpus}", flush=True)
        call(sys.executable, HERE / "make_corpus.py", corpus, "--mb", args.mb)
    files = sorted(corpus.glob("*.jsonl"))
    pythons = {tool: python_of(args.envs, tool) for tool in args.tools}
    for path in files:
        path.read_bytes()  # into the page cache
    print("compiling kernels", flush=True)
    measure_ours(files[:1], args.scratch, 1, ["--limit", "200", *extra])
    ours = []
    for share in args.shares:
        some = files[: max(1, round(len(files) * share))]
        one, opened = measure_ours(some, args.scratch, args.repeat, extra)
        ours.append(one)
        print(f"ropewalk: {one['jsonl_mb']:.0f} MB, {one['dedup']['mb_per_second']:.1f} MB/s", flush=True)
    result: dict[str, Any] = {
        "what": "near-duplicate removal side by side; see benchmarks/dedup_speed.py",
        **machine({}),
        "command_flags": " ".join(extra),
        "conditions": args.conditions,
        "load": [round(load, 1) for load in os.getloadavg()],
        "ropewalk": ours,
        "floor": measure_floor(opened, args.repeat),
        "signatures": measure_sketch(opened, args.repeat),
        "others": {},
    }
    shutil.rmtree(args.scratch / "ropewalk", ignore_errors=True)
    for tool, python in pythons.items():
        one = measure_peer(python, tool, files, PEER_MB[tool] * args.peer_scale, args.scratch, args.repeat)
        one["ours_is_times"] = round(ours[-1]["dedup"]["mb_per_second"] / one["mb_per_second"], 1)
        one["ours_with_ingest_is_times"] = round(ours[-1]["ingest_and_dedup_mb_per_second"] / one["mb_per_second"], 1)
        result["others"][tool] = one
        print(f"{tool}: {one['mb_per_second']:.2f} MB/s", flush=True)
    shutil.rmtree(args.scratch / "subset", ignore_errors=True)
    if not pythons:
        del result["others"]
        result["side_by_side"] = side_by_side(args.results)
    print_table(result)
    args.results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
