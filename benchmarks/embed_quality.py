"""Quality and speed of the embedders on real documents of this machine: Python sources, package descriptions, docs.

    .venv/bin/python benchmarks/embed_quality.py                       # also to results/embed_quality.json

    length bias     correlation of log length with the mean cosine to all others (recipes: |rho| <= .1 after centring);
                    the means come from one half of the documents, rho from the other
    split halves    the two halves of a long document: how often the one finds the other before all others' (hit@1),
                    with pooled vectors and with those of the first windows alone (recipes: at least 5 points apart)
    batches         largest difference between a window's vector in a batch and alone
    speed           CPU seconds, one thread; `read` is np.sum over the bytes as 64-bit words: the floor of any reader

The lexical embedder's word weights come from the documents themselves, as in a corpus. Texts are distinct; those under
400 bytes are left out. A long document has 20 to 400 kB. What the results hold already is not measured again.
"""

import argparse
import glob
import gzip
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from machine import HERE, machine

from ropewalk.kernels import grid, lexical
from ropewalk.transforms import centre, utf8
from ropewalk.transforms.embed import LexicalEmbedder
from ropewalk.transforms.embedders import openvino_model
from ropewalk.transforms.embedders.minilm import MiniLM
from ropewalk.transforms.embedders.static import StaticEmbedder
from ropewalk.transforms.embedders.windows import WindowEmbedder

SHORTEST, LONG = 400, (20_000, 400_000)
PATTERNS = (
    "/usr/share/doc/**/*", f"{sys.prefix}/lib/python3*/site-packages/**/METADATA",
    f"{sys.base_prefix}/lib/python3*/**/*.py", f"{sys.prefix}/lib/python3*/site-packages/**/*.py",
)  # fmt: skip


def documents(megabytes: int) -> list[str]:
    """Distinct texts in a random order."""
    found: dict[str, None] = {}
    for pattern in PATTERNS:
        size = 0
        for name in np.random.default_rng(0).permutation(sorted(glob.glob(pattern, recursive=True))):
            path = Path(name)
            try:
                data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                text = data.decode()
            except (OSError, UnicodeDecodeError, EOFError):
                continue
            if SHORTEST <= len(data) <= LONG[1] and "\0" not in text and text not in found:
                found[text] = None
                size += len(data)
            if size > megabytes * 10**6 // len(PATTERNS):
                break
    texts = list(found)
    return [texts[i] for i in np.random.default_rng(1).permutation(len(texts))]


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def halves(texts: list[str], count: int) -> tuple[list[str], list[str]]:
    """First and second halves of long documents, cut at a line."""
    first, second = [], []
    for text in texts:
        if LONG[0] <= len(text) <= LONG[1] and len(first) < count:
            at = text.find("\n", len(text) // 2) + 1
            if at and len(text) - at > len(text) // 3:
                first.append(text[:at])
                second.append(text[at:])
    return first, second


def hit_at_1(first: np.ndarray, second: np.ndarray) -> float:
    """How often a first half is nearest to its own second half, in percent."""
    cosines = first.astype(np.float32) @ second.astype(np.float32).T
    return round(100 * float((cosines.argmax(axis=1) == np.arange(len(first))).mean()), 1)


def bias(texts: list[str], vectors: np.ndarray) -> dict[str, Any]:
    """Length bias before and after centring."""
    lengths = np.array([len(text.encode()) for text in texts])
    matrix, middle = vectors.astype(np.float32), len(texts) // 2
    means = centre.means_of(lengths[:middle], matrix[:middle])
    moved = centre.centre(matrix[middle:], lengths[middle:], means).astype(np.float32)
    return {
        "documents": len(texts),
        "rho": centre.length_bias(lengths[middle:], matrix[middle:]),
        "rho centred": centre.length_bias(lengths[middle:], moved),
    }


def timed(run: Any) -> tuple[Any, float]:
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


def lexical_of(texts: list[str]) -> LexicalEmbedder:
    """With word weights of these texts."""
    data, offsets = utf8.buffers(arrow(texts))
    embedder = LexicalEmbedder()
    embedder._idf = lexical.idf(lexical.frequencies(data, offsets), len(texts))
    return embedder


def lexical_speed(texts: list[str], repeat: int) -> dict[str, float]:
    """MB/s/core of the floor, of counting words and of projecting; the best of the repetitions."""
    data, offsets = utf8.buffers(arrow(texts))
    weights = lexical.idf(lexical.frequencies(data, offsets), len(texts))
    stages = {
        "read": lambda: np.sum(data[: len(data) // 8 * 8].view(np.uint64)),
        "count words": lambda: lexical.frequencies(data, offsets),
        "project": lambda: grid.snap(lexical.project(data, offsets, weights)),
    }
    found = {}
    for name, run in stages.items():
        run()
        found[name] = round(len(data) / 1e6 / min(timed(run)[1] for _ in range(repeat)), 1)
    return found | {"megabytes": round(len(data) / 1e6, 1), "documents": len(texts)}


def window_speed(precision: openvino_model.Precision, lengths: tuple[int, ...] = (16, 64, 254)) -> dict[str, float]:
    """Windows a CPU second by length, and whether batches show."""
    encoder, random = MiniLM(precision), np.random.default_rng(0)
    found = {}
    for length in lengths:
        windows = [random.integers(1000, 30000, length).astype(np.uint32) for _ in range(64)]
        encoder.encode(windows)
        together, seconds = timed(lambda windows=windows: encoder.encode(windows))
        found[f"windows/s, {length} tokens"] = round(len(windows) / seconds, 1)
        alone = np.concatenate([encoder.encode([window]) for window in windows[:16]])
        found[f"largest difference in a batch, {length} tokens"] = float(np.abs(alone - together[:16]).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=60, help="text, at most")
    parser.add_argument("--bias", type=int, default=800, help="documents of the length bias")
    parser.add_argument("--encoded", type=int, default=600, help="documents of the length bias of minilm")
    parser.add_argument("--halves", type=int, default=200, help="long documents that are split")
    parser.add_argument("--caps", type=int, nargs="+", default=[8], help="max_windows of minilm")
    parser.add_argument("--fresh", action="store_true", help="measure again what the results hold already")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "embed_quality.json")
    args = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("numba", "numpy", "openvino", "tokenizers")}
    report: dict[str, Any] = {"machine": machine(versions), "command": "benchmarks/embed_quality.py"}
    report["note"] = "CPU seconds of one thread; ten other processes were running on the two cores"
    if args.out.exists() and not args.fresh:
        report = json.loads(args.out.read_text()) | report

    def tell(name: str, measure: Callable[[], dict[str, Any]]) -> None:
        if name not in report:
            report[name] = measure()
            args.out.write_text(json.dumps(report, indent=2) + "\n")
        print(name, json.dumps(report[name]), flush=True)

    texts = documents(args.mb)
    first, second = halves(texts, args.halves)
    sample = texts[: args.bias]
    sizes = np.array([len(text.encode()) for text in texts])
    tell("documents", lambda: {
        "count": len(texts), "megabytes": round(sizes.sum() / 1e6, 1), "median bytes": int(np.median(sizes)),
        "long, split": len(first), "median bytes of a half": int(np.median([len(t.encode()) for t in first])),
    })  # fmt: skip
    tell("lexical, speed in MB/s/core", lambda: lexical_speed(texts, 3))
    tell("minilm f32, speed", lambda: window_speed("f32"))
    tell("minilm bf16, speed", lambda: window_speed("bf16"))

    def lexical_figures() -> dict[str, Any]:
        made = lexical_of(texts)
        return {
            "length bias": bias(sample, made.embed(arrow(sample))),
            "length bias of all": bias(texts, made.embed(arrow(texts))),
            "split halves, hit@1": hit_at_1(made.embed(arrow(first)), made.embed(arrow(second))),
        }

    def static_figures() -> dict[str, Any]:
        static = StaticEmbedder()
        static.setup()
        vectors, seconds = timed(lambda: static.embed(arrow(sample)))
        return {
            "MB/s/core": round(sum(len(text.encode()) for text in sample) / 1e6 / seconds, 2),
            "length bias": bias(sample, vectors),
            "split halves, hit@1": hit_at_1(static.embed(arrow(first)), static.embed(arrow(second))),
        }

    def halves_figures(cap: int) -> dict[str, Any]:
        embedder = WindowEmbedder(MiniLM(), max_windows=cap)
        (one, two), seconds = timed(lambda: [embedder.embed_windows(arrow(part)) for part in (first, second)])
        windows = int(one.num_windows.sum() + two.num_windows.sum())
        return {
            "split halves, hit@1": hit_at_1(one.vectors, two.vectors),
            "first windows alone, hit@1": hit_at_1(one.heads, two.heads),
            "windows": windows,
            "windows/s": round(windows / seconds, 1),
            "mean dispersion": round(float(one.dispersion.mean()), 3),
        }

    def caps_figures(count: int = 80) -> dict[str, Any]:
        found: dict[str, Any] = {"documents": count}
        for cap in (8, 32):
            embedder = WindowEmbedder(MiniLM("bf16"), max_windows=cap)
            parts = [embedder.embed_windows(arrow(part[:count])) for part in (first, second)]
            found[f"hit@1, at most {cap} windows"] = hit_at_1(parts[0].vectors, parts[1].vectors)
            found[f"windows, at most {cap}"] = int(sum(part.num_windows.sum() for part in parts))
        return found

    def bias_figures(cap: int) -> dict[str, Any]:
        some = texts[: args.encoded]
        found, seconds = timed(lambda: WindowEmbedder(MiniLM(), max_windows=cap).embed_windows(arrow(some)))
        return {
            "length bias": bias(some, found.vectors),
            "length bias of first windows": bias(some, found.heads),
            "MB/s/core": round(sum(len(text.encode()) for text in some) / 1e6 / seconds, 3),
            "windows": int(found.num_windows.sum()),
        }

    tell("lexical", lexical_figures)
    tell("static", static_figures)
    for cap in args.caps:
        tell(f"minilm, max_windows {cap}", lambda cap=cap: halves_figures(cap))
        tell(f"minilm, max_windows {cap}, length", lambda cap=cap: bias_figures(cap))
    tell("minilm bf16, split halves by windows", caps_figures)


if __name__ == "__main__":
    main()
