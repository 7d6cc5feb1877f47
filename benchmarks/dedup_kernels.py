"""Speed of the signature kernel by stage, on the text of this machine, beside reading the bytes and other libraries.

    .venv/bin/python benchmarks/dedup_kernels.py                                  # also to results/dedup_kernels.json
    .venv/bin/python benchmarks/dedup_kernels.py --peers build/rensa/bin/python   # a Python that has rensa, beside

One thread, CPU seconds, best of the repetitions; MB = 10^6 bytes of text. The stages, each with its input at hand:

    read      np.sum over the bytes as 64-bit words: the floor
    scan      bytes to word hashes
    shingle   word hashes to hashes of 5 words
    permute   shingles to 112 values; Gpair/s counts permutations of single shingles
    one-perm  shingles to 112 values in one pass
    exact     bytes to the exact hash alone
    sketch    bytes to exact hash and signature: the whole kernel, by both schemes
"""

import argparse
import gzip
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasketch
import numba
import numpy as np
from machine import HERE, machine

from ropewalk.kernels import minhash, one_permutation, shingles, sketch, words

VALUES, NGRAM, SEED = 112, 5, 1
SIZES = {"short": 2500, "long": 500_000}
KINDS = {
    "prose": ("/usr/share/doc/**/*", "/usr/share/common-licenses/*", f"{sys.prefix}/lib/python3*/**/METADATA"),
    "code": (f"{sys.base_prefix}/lib/python3*/**/*.py", f"{sys.prefix}/lib/python3*/site-packages/**/*.py"),
}
PEER = """
import json, sys, time
from rensa import RMinHash
start = time.process_time()
size = 0
for line in open(sys.argv[1], encoding="utf-8"):
    text = json.loads(line)
    size += len(text.encode())
    parts = text.lower().split()
    sketch = RMinHash(num_perm=112, seed=1)
    sketch.update([" ".join(parts[i : i + 5]) for i in range(max(1, len(parts) - 4))])
    sketch.digest()
print(size / 1e6 / (time.process_time() - start))
"""


def texts(patterns: tuple[str, ...], limit: int) -> bytes:
    """Text files of this machine, one after the other, each text once."""
    found: list[bytes] = []
    seen: set[int] = set()
    for path in _files(patterns):
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            data.decode()
        except (OSError, UnicodeDecodeError, EOFError):
            continue
        if hash(data) not in seen and b"\0" not in data:
            seen.add(hash(data))
            found.append(data)
            limit -= len(data)
        if limit < 0:
            break
    return b"\n".join(found)


def _files(patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in sorted(Path("/").glob(pattern.lstrip("/"))) if path.is_file())


def cut(data: bytes, size: int) -> np.ndarray:
    """Borders of documents of about so many bytes, at borders of characters."""
    borders = [0]
    while borders[-1] < len(data):
        stop = min(len(data), borders[-1] + size)
        while stop < len(data) and data[stop] & 0xC0 == 0x80:
            stop += 1
        borders.append(stop)
    return np.array(borders, np.int64)


def measure(data: bytes, size: int, repeat: int) -> dict[str, Any]:
    """MB/s of every stage on documents of one size."""
    array, offsets = np.frombuffer(data, np.uint8), cut(data, size)
    count = len(offsets) - 1
    wanted, classes = np.ones(count, bool), words.table()
    a, b = minhash.permutations(VALUES, SEED)
    exact, num_words = np.zeros((count, 2), np.uint64), np.zeros(count, np.int64)
    signatures = np.full((count, VALUES), minhash.EMPTY, np.uint32)
    found, borders = words.word_hashes(array, offsets)
    room = np.empty(len(data), np.uint64)
    made, starts = shingles.shingles(found, borders, NGRAM)

    def kernel(values: int, many: bool) -> None:
        none = 0 if not many else values
        out = signatures[:, :values]
        sketch.sketch(
            array, offsets, wanted, 0, count, classes, NGRAM, a[:none], b[:none], SEED, exact, num_words, out
        )  # fmt: skip

    stages: dict[str, Callable[[], object]] = {
        "read": lambda: np.sum(array[: len(array) // 8 * 8].view(np.uint64)),
        "scan": lambda: words._word_hashes(array, offsets, classes, room, borders),
        "shingle": lambda: shingles._shingles(found, borders, NGRAM, made, starts),
        "permute": lambda: minhash._minhash(made, starts, a, b, signatures, sketch.BLOCK),
        "one-perm": lambda: one_permutation._signatures(made, starts, SEED, signatures),
        "exact": lambda: kernel(0, True),
        "sketch, affine32": lambda: kernel(VALUES, True),
        "sketch, one_permutation": lambda: kernel(VALUES, False),
    }
    figures: dict[str, Any] = {"documents": count, "megabytes": round(len(data) / 1e6, 1)}
    figures["bytes_a_word"] = round(len(data) / len(found), 2)
    for name, run in stages.items():
        figures[name] = round(len(data) / 1e6 / _best(run, repeat), 1)
    figures["permute, Gpair/s"] = round(len(made) * VALUES / len(data) * figures["permute"] / 1e3, 1)
    return figures


def datasketch_speed(data: bytes, size: int, documents: int) -> float:
    """MB/s of the same signatures by datasketch from Python words and its default hash."""
    offsets = cut(data, size)[: documents + 1]
    parts = [data[i:j].decode() for i, j in zip(offsets[:-1], offsets[1:], strict=True)]
    start = time.process_time()
    for text in parts:
        tokens = text.lower().split()
        made = datasketch.MinHash(num_perm=VALUES, seed=SEED, scheme="affine32")
        made.update_batch([" ".join(tokens[i : i + NGRAM]).encode() for i in range(max(1, len(tokens) - NGRAM + 1))])
    return round(int(offsets[-1]) / 1e6 / (time.process_time() - start), 2)


def rensa_speed(python: Path, data: bytes, size: int, documents: int) -> float:
    """The same by rensa, in another environment."""
    offsets = cut(data, size)[: documents + 1]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as sink:
        for i, j in zip(offsets[:-1], offsets[1:], strict=True):
            sink.write(json.dumps(data[i:j].decode()) + "\n")
        sink.flush()
        done = subprocess.run([python, "-c", PEER, sink.name], capture_output=True, text=True, check=True)
    return round(float(done.stdout), 2)


def _best(run: Callable[[], object], repeat: int) -> float:
    run()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=40, help="text of each kind, at most")
    parser.add_argument("--repeat", type=int, default=7, help="repetitions; the best counts")
    parser.add_argument("--peers", type=Path, help="a Python in which rensa can be imported")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "dedup_kernels.json")
    args = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("numba", "numpy", "datasketch")}
    report: dict[str, Any] = {"machine": machine(versions) | {"llvm_cpu": numba.config.CPU_NAME or _cpu()}}
    for kind, patterns in KINDS.items():
        data = texts(patterns, args.mb * 10**6)
        for name, size in SIZES.items():
            figures = measure(data, size, args.repeat)
            documents = max(1, 4_000_000 // size)
            figures["datasketch"] = datasketch_speed(data, size, documents)
            if args.peers:
                figures["rensa"] = rensa_speed(args.peers, data, size, documents)
            figures["reading is faster by"] = round(figures["read"] / figures["sketch, affine32"], 1)
            report[f"{kind}, {name} documents"] = figures
            print(f"{kind}, {name} documents")
            for figure, value in figures.items():
                print(f"    {figure:26} {value:>10,}")
    args.out.write_text(json.dumps(report, indent=2) + "\n")


def _cpu() -> str:
    from llvmlite import binding

    return str(binding.get_host_cpu_name())


if __name__ == "__main__":
    main()
