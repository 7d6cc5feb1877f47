"""How long `ropewalk inspect --similar` looks: one vector against all vectors of a corpus, and what it holds.

    .venv/bin/python benchmarks/inspect_similar.py --documents 1000000 --out benchmarks/results/inspect_similar.json

Vectors are random on the grid, documents a few words: only the search is timed. Files are read once before the clock
starts (warm page cache). The floor reads the same vector columns and converts them to float32, and does nothing else.
Each search is checked against integer products of all vectors.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import machine

from ropewalk.kernels.grid import GRID, normalise
from ropewalk.pipelines import measure
from ropewalk.pipelines.nearest import nearest, vector_at
from ropewalk.schemas import address, files, tables
from ropewalk.schemas.manifest import CorpusManifest, Shard, StageManifest, fingerprint
from ropewalk.transforms.corpus_dir import CorpusDir
from ropewalk.transforms.shards import ShardFolder
from ropewalk.transforms.vectors import from_matrix, to_matrix

SHARD_ROWS = 62_500
BLOCK = 4096


def vectors_of(shard: int, rows: int, width: int) -> np.ndarray:
    """Unit vectors on the grid, float16[rows, width]: 50 directions and noise."""
    random = np.random.default_rng([7, shard])
    directions = np.random.default_rng(7).normal(size=(50, width))
    return normalise(directions[random.integers(50, size=rows)] + 1.5 * random.normal(size=(rows, width)))


def lay(url: str, documents: int, width: int) -> None:
    """Writes the corpus."""
    shards = -(-documents // SHARD_ROWS)
    folders = {
        "documents": ShardFolder(files.join(url, "documents"), tables.DOCUMENTS, shards, "bench"),
        "embed": ShardFolder(files.join(url, "columns", "embed"), tables.embed_table(width), shards, "bench"),
    }
    for shard in range(shards):
        count = min(SHARD_ROWS, documents - shard * SHARD_ROWS)
        ids = [fingerprint([shard, row]) for row in range(count)]
        text = [f"document {row} of shard {shard}" for row in range(count)]
        size = [len(one) for one in text]
        rows = {"id": ids, "text": text, "source": ["bench"] * count, "url": [None] * count, "num_chars": size,
                "num_bytes": size, "metadata": [None] * count}  # fmt: skip
        made = pa.RecordBatch.from_pydict(rows, schema=tables.DOCUMENTS)
        vectors = from_matrix(vectors_of(shard, count, width), np.ones(count, bool))
        columns = pa.RecordBatch.from_arrays([vectors], schema=tables.embed_table(width))
        for name, batch in (("documents", made), ("embed", columns)):
            with folders[name].writer(shard) as writer:
                for start in range(0, count, BLOCK):
                    writer.write(batch.slice(start, BLOCK))
    done = {name: folder.finish() for name, folder in folders.items()}
    ingest, embed = (_manifest(name, done[name]) for name in ("documents", "embed"))
    files.write_bytes(files.join(url, "columns", "embed", "stage.json"), embed.model_dump_json().encode())
    corpus = CorpusManifest(ropewalk="bench", rows=documents, bytes=sum(s.bytes for s in done["documents"]),
                            content="bench", sources={"bench": documents}, ingest=ingest)  # fmt: skip
    files.write_bytes(files.join(url, "corpus.json"), corpus.model_dump_json().encode())


def _manifest(stage: str, done: list[Shard]) -> StageManifest:
    with measure.Meter() as meter:
        pass
    return StageManifest(stage=stage, key="bench", config={}, reads={}, rows=sum(s.rows for s in done), counters={},
                         shards=done, run=meter.run(workers=1, runner="none", jobs={}))  # fmt: skip


def search(url: str, count: int, row: int) -> dict[str, object]:
    """One search, in a process of its own."""
    corpus = CorpusDir.open(url)
    found = vector_at(corpus, [(0, row)])
    assert found is not None
    before, held = held_mb(), [0.0]
    start, cpu = time.perf_counter(), time.process_time()
    near, _ = nearest(corpus, found[1], count, leave=found[0], watch=lambda rows: held.append(held_mb()))
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": used, "held_mb": max(held) - before,
            "found": [(one.address, one.similarity) for one in near]}  # fmt: skip


def floor(url: str) -> dict[str, object]:
    """Reads all vectors as float32 and does nothing with them."""
    corpus = CorpusDir.open(url)
    start, cpu = time.perf_counter(), time.process_time()
    total = 0
    for shard in range(len(corpus.file_names)):
        for batch in corpus.read(shard, {"embed": ["vector"]}):
            total += to_matrix(batch.column("vector")).size
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "values": total}


def held_mb() -> float:
    """Memory of this process without pages of mapped files, which lie in the page cache anyway."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def oracle(documents: int, width: int, row: int, count: int) -> list[tuple[int, float]]:
    """The same by integer products; ties would have to be told by id, and there are none."""
    query = np.rint(vectors_of(0, SHARD_ROWS, width)[row].astype(np.float64) * GRID).astype(np.int64)
    best: list[tuple[int, int]] = []
    for shard in range(-(-documents // SHARD_ROWS)):
        rows = min(SHARD_ROWS, documents - shard * SHARD_ROWS)
        whole = np.rint(vectors_of(shard, rows, width).astype(np.float64) * GRID).astype(np.int64)
        dots = whole @ query
        for at in np.argsort(-dots, kind="stable")[: count + 1].tolist():
            if (shard, at) != (0, row):
                best.append((-int(dots[at]), int(address.of_rows(shard, at, 1)[0])))
    return [(place, -dot / GRID**2) for dot, place in sorted(best)[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(floor(args.folder) if args.part == "floor" else search(args.folder, 10, 123)))
        return
    folder = tempfile.mkdtemp()
    try:
        lay(folder, args.documents, args.width)

        def run(part: str) -> dict[str, object]:
            line = [sys.executable, __file__, "--part", part, "--folder", folder]
            return dict(json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout))

        run("floor")
        runs = {part: [run(part) for _ in range(3)] for part in ("floor", "search")}
        expected = oracle(args.documents, args.width, 123, 10)
        right = all([tuple(one) for one in made["found"]] == expected for made in runs["search"])  # type: ignore[attr-defined]
        best = {part: min(made, key=lambda one: float(one["cpu_seconds"])) for part, made in runs.items()}  # type: ignore[arg-type]
    finally:
        shutil.rmtree(folder)
    result = machine({"numpy": np.__version__, "pyarrow": pa.__version__}) | {
        "command": f"benchmarks/inspect_similar.py --documents {args.documents} --width {args.width}",
        "documents": args.documents, "width": args.width, "equal_to_integers": right,
        "note": "best of three by CPU time; other work ran on the machine",
    } | {part: {name: round(value, 3) for name, value in one.items() if isinstance(value, float)}
         for part, one in best.items()}  # fmt: skip
    text = json.dumps(result, indent=1) + "\n"
    if args.out:
        args.out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
