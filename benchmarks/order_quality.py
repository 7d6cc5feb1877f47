"""How near the similarity order comes to the optimum, on five corpora of different nature.

    .venv/bin/python benchmarks/order_quality.py [--corpora code prose] [--cache FOLDER] [--seeds 3]

Corpora, their groups and vectors: `order_corpora.py`; they are fetched on the first run. Each order is one cluster, as
`OrderBySimilarity` makes it. Measured for each:

adjacent    mean cosine of neighbours, and its share of LKH's (Helsgaun's Lin-Kernighan: near the heaviest path)
8k, 32k     in-window similarity: the documents follow one another without gaps, a window is cut every 8,192 or 32,768
            tokens, a token being 4 bytes; mean cosine of the pairs of documents that have a part in a window, mean over
            the windows with two or more, over eight places where the first window begins
purity      of such pairs at 32k, the share that comes from one group (package, manual, book, language, topic)
cpu         seconds of the whole order, neighbours included; compiled before

LKH is elkai's (`pip install --target` into the cache: no requirement of ours), on 10,000 times (1 - cosine), with a
city that is near all to make the tour a path; what it found stays in the cache. `random` and the order of the rows
are drawn with several seeds: a shuffled input changes the rows, hence ties and kicks, as other ids would.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from order_corpora import REAL, Corpus, load

from ropewalk.transforms.local_search import LocalSearch
from ropewalk.transforms.order import order_vectors

HERE = Path(__file__).resolve().parent
PHASES = 8
NEIGHBOURS, NEAR = 10, 0.95
METHODS: dict[str, tuple[Any, int, int]] = {
    "icp": ("icp", 1, 0),
    "dissolve": ("dissolve", 1, 0),
    "edges": ("edges", 1, 0),
    "tree": ("tree", 1, 0),
    "dissolve + path search": ("dissolve", 1, 4),
    "edges + path search": ("edges", 1, 4),
    "edges + long path search": ("edges", 1, 32),
    "dissolve + window 10": ("dissolve", 10, 4),
    "edges + window 10": ("edges", 10, 4),
    "tree + window 4": ("tree", 4, 4),
    "tree + window 10 (default)": ("tree", 10, 4),
    "tree + window 20": ("tree", 20, 4),
}


def windows(corpus: Corpus, order: np.ndarray, gram: np.ndarray, tokens: int) -> tuple[float, float]:
    """In-window similarity, and the share of pairs from one group."""
    lengths = corpus.sizes[order] / 4
    stops = np.cumsum(lengths)
    starts = stops - lengths
    similar, pure = [], []
    for phase in range(PHASES):
        for cut in np.arange(tokens * phase / PHASES, stops[-1], tokens):
            first, last = np.searchsorted(stops, cut, "right"), np.searchsorted(starts, cut + tokens, "left")
            inside = order[first:last]
            count = len(inside)
            if count < 2:
                continue
            block, groups = gram[np.ix_(inside, inside)], corpus.groups[inside]
            similar.append((block.sum() - np.trace(block)) / (count * (count - 1)))
            pure.append(((groups[:, None] == groups[None]).sum() - count) / (count * (count - 1)))
    return float(np.mean(similar)), float(np.mean(pure))


def judge(corpus: Corpus, order: np.ndarray, gram: np.ndarray) -> dict[str, float]:
    """All figures of an order."""
    assert sorted(order.tolist()) == list(range(len(gram)))
    short, _ = windows(corpus, order, gram, 8192)
    long, purity = windows(corpus, order, gram, 32768)
    return {"adjacent": float(gram[order[1:], order[:-1]].mean()), "8k": short, "32k": long, "purity": purity}


def lkh(gram: np.ndarray, cache: Path) -> np.ndarray:
    """The heaviest path that elkai's LKH finds."""
    folder = cache / "elkai"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), "elkai==2.0.1"]
        subprocess.run(pip, check=True)
    sys.path.insert(0, str(folder))
    import elkai

    distances = np.zeros((len(gram) + 1, len(gram) + 1), np.int64)
    distances[1:, 1:] = np.rint((1 - gram) * 10_000)
    np.fill_diagonal(distances, 0)
    tour = np.array(elkai.DistanceMatrix(distances.tolist()).solve_tsp(runs=1))[:-1]
    cut = int(np.flatnonzero(tour == 0)[0])
    path: np.ndarray = np.r_[tour[cut + 1 :], tour[:cut]] - 1
    return path


def measure(corpus: Corpus, cache: Path, seeds: int) -> dict[str, Any]:
    """Figures of every order of a corpus, mean over seeds, and the spread of those that vary."""
    gram = corpus.vectors @ corpus.vectors.T
    count = len(gram)
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        shuffle = np.random.default_rng(seed).permutation(count) if seed else np.arange(count)
        random = np.random.default_rng([seed, 1]).permutation(count)
        runs.setdefault("random", []).append(judge(corpus, random, gram) | {"cpu": 0.0})
        for name, (method, window, search) in METHODS.items():
            local = LocalSearch(window, search, NEIGHBOURS, NEAR)
            began = time.process_time()
            order, starts, _ = order_vectors(corpus.vectors[shuffle], method, local)
            cpu = time.process_time() - began
            found = judge(corpus, shuffle[order], gram) | {"cpu": cpu, "jumps": int(starts.sum()) - 1}
            runs.setdefault(name, []).append(found)
    stored = cache / f"{corpus.name}.lkh.json"
    if not stored.exists():
        began = time.process_time()
        stored.write_text(json.dumps({"path": lkh(gram, cache).tolist(), "cpu": time.process_time() - began}))
    known = json.loads(stored.read_text())
    runs["lkh"] = [judge(corpus, np.array(known["path"]), gram) | {"cpu": known["cpu"]}]
    best, icp = runs["lkh"][0]["adjacent"], {k: np.mean([run[k] for run in runs["icp"]]) for k in ("8k", "32k")}
    table = {}
    for name, every in runs.items():
        means = {key: round(float(np.mean([run[key] for run in every])), 4) for key in every[0]}
        means["of_lkh"] = round(means["adjacent"] / best, 4)
        means |= {f"{key}_of_icp": round(means[key] / icp[key], 3) for key in icp}
        means["spread"] = round(max(np.ptp([run[key] for run in every]) for key in ("adjacent", "8k", "32k")), 4)
        table[name] = means
    return {
        "documents": count, "groups": len(set(corpus.groups.tolist())), "near_copies_left_out": corpus.left_out,
        "mean_bytes": round(float(corpus.sizes.mean())), "orders": table,
    }  # fmt: skip


def show(name: str, found: dict[str, Any]) -> None:
    """One corpus as a table."""
    print(f"\n{name}: {found['documents']} documents of {found['mean_bytes']:,} bytes in {found['groups']} groups")
    print(f"{'':28}{'adjacent':>9}{'of LKH':>8}{'8k':>8}{'x ICP':>7}{'32k':>8}{'x ICP':>7}{'purity':>8}{'cpu s':>8}")
    for order, run in found["orders"].items():
        print(
            f"{order:28}{run['adjacent']:9.4f}{run['of_lkh']:8.1%}{run['8k']:8.4f}{run['8k_of_icp']:7.2f}"
            f"{run['32k']:8.4f}{run['32k_of_icp']:7.2f}{run['purity']:8.3f}{run['cpu']:8.2f}",
            flush=True,
        )


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=[*REAL, "synthetic"], choices=[*REAL, "synthetic"])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ropewalk-order")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "order_quality.json")
    args = parser.parse_args()
    warm = np.eye(40, dtype=np.float32)
    for method, window, search in METHODS.values():
        order_vectors(warm, method, LocalSearch(window, search, NEIGHBOURS, NEAR))
    result: dict[str, Any] = {}
    for name in args.corpora:
        result[name] = measure(load(name, args.cache), args.cache, args.seeds)
        show(name, result[name])
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba")} | {"elkai": "2.0.1"}
    about = machine(versions) | {"command": " ".join(["benchmarks/order_quality.py", *sys.argv[1:]])}
    args.output.write_text(json.dumps({"machine": about, "seeds": args.seeds, "corpora": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
