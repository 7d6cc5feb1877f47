"""CPU time and memory of `OrderBySimilarity`: a million documents in clusters of about 1,000, and large clusters.

    OPENBLAS_NUM_THREADS=1 .venv/bin/python benchmarks/order_speed.py [--clusters 1000]

Vectors: 256 numbers on the grid, made as they are needed: topics within a cluster, themes within a topic, so that the
nearest neighbour of a document has a cosine of about .45, as in the real corpora of `order_quality.py`. Making them is
not counted. Everything else is: Arrow in and out, neighbours, order, search. One thread; CPU time, since others work on
the machine at the same time.
"""

import argparse
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from machine import machine

from ropewalk.kernels.grid import normalise
from ropewalk.transforms.order import KEYED, OrderBySimilarity
from ropewalk.transforms.vectors import to_lists

HERE = Path(__file__).resolve().parent
RUNS: dict[str, dict[str, Any]] = {
    "tree + window 10 (default)": {},
    "tree": {"search": 0},
    "edges + path search": {"method": "edges", "window": 1},
    "dissolve": {"method": "dissolve", "search": 0},
    "icp": {"method": "icp", "search": 0},
}


def cluster(number: int, size: int) -> pa.RecordBatch:
    """One cluster as `OrderBySimilarity` gets it."""
    random = np.random.default_rng([number, size])
    topics, count = random.standard_normal((max(size // 60, 1), 256)), max(size // 8, 1)
    themes = topics[random.integers(0, len(topics), count)] + random.standard_normal((count, 256))
    vectors = normalise(themes[random.integers(0, count, size)] + 1.7 * random.standard_normal((size, 256)))
    ids = random.integers(0, 2**63, (2, size)).astype(np.uint64)
    columns = [ids[0], ids[1], np.full(size, number, np.uint32), np.arange(size, dtype=np.uint64), to_lists(vectors)]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=KEYED)


def measure(settings: dict[str, Any], sizes: list[int]) -> dict[str, Any]:
    """CPU and wall seconds, and what the order is worth."""
    transform = OrderBySimilarity(**settings)
    transform(cluster(0, 200))  # compiles
    cpu = wall = 0.0
    cosines: list[np.ndarray] = []
    for number, size in enumerate(sizes):
        batch = cluster(number, size)
        began, at = time.process_time(), time.perf_counter()
        ordered, _ = transform(batch)
        cpu, wall = cpu + time.process_time() - began, wall + time.perf_counter() - at
        cosines.append(ordered.column("prev_similarity").drop_null().to_numpy())
    return {
        "documents": sum(sizes), "cpu_s": round(cpu, 2), "wall_s": round(wall, 2),
        "cpu_s_a_million": round(cpu / sum(sizes) * 1e6, 1),
        "adjacent": round(float(np.concatenate(cosines).mean()), 4),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=1000, help="clusters of the run with the defaults")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "order_speed.json")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    sizes = random.integers(500, 1501, args.clusters).tolist()
    result = {}
    for name, settings in RUNS.items():
        result[name] = measure(settings, sizes if not settings else sizes[:50])
        print(f"{name:28} {result[name]}", flush=True)
    for size in (8_000, 32_768):
        result[f"default, one cluster of {size:,}"] = measure({}, [size])
        print(f"{size:28,} {result[f'default, one cluster of {size:,}']}", flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "pyarrow")}
    about = machine(versions) | {"command": " ".join(["benchmarks/order_speed.py", *sys.argv[1:]])}
    args.output.write_text(json.dumps({"machine": about, "runs": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
