"""Builds a JSONL corpus of any size from the documents this machine has, with near-duplicates of known similarity.

    .venv/bin/python benchmarks/make_corpus.py build/bench/1000mb --mb 1000

Pool: Python's own library, the installed packages (.py .md .rst .txt) and /usr/share/doc. Each document of the pool is
the head of a family: itself and some edited copies, each word of a copy replaced with probability `rate` by a word
drawn from the pool. With s = (1 - rate)^n the share of n-word shingles that survive, the expected Jaccard similarity of
head and copy is s / (2 - s). Half of the copies get rate 0.5: at n = 5 that is J = 0.016, in effect another document.

Same machine, packages, size and seed: same bytes (`corpus.json` records the hash of every file and of the pool).
"""

import argparse
import collections
import concurrent.futures
import gzip
import hashlib
import json
import multiprocessing
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATES = (0.0, 0.005, 0.02, 0.05, 0.1, 0.5)
WEIGHTS = (0.1, 0.1, 0.1, 0.1, 0.1, 0.5)
ENDINGS = (".py", ".md", ".rst", ".txt")
SMALLEST, LARGEST = 200, 1 << 20  # bytes of a document
VOCABULARY = 50_000


@dataclass(frozen=True)
class Plan:
    """One record to write: a head (variant 0) or an edited copy of it."""

    path: str
    family: int
    variant: int
    rate: float


def pool_files() -> list[Path]:
    """Paths of the pool, sorted."""
    paths = sysconfig.get_paths()
    library, packages = Path(paths["stdlib"]), Path(paths["purelib"])
    # Packages of the interpreter that .venv was made from differ between machines: those of .venv are the lock's.
    own = (p for p in library.rglob("*") if "site-packages" not in p.relative_to(library).parts)
    found = {p for tree in (own, packages.rglob("*")) for p in tree if p.suffix in ENDINGS and p.is_file()}
    docs = Path("/usr/share/doc")
    if docs.is_dir():
        found |= {p for p in docs.rglob("*") if p.is_file() and (p.suffix in (*ENDINGS, ".gz") or "." not in p.name)}
    return sorted(found)


def read(path: str) -> str:
    """Text of a pool file; empty if it is none."""
    data = Path(path).read_bytes()
    try:
        return (gzip.decompress(data) if path.endswith(".gz") else data).decode()
    except (UnicodeDecodeError, OSError, EOFError):
        return ""


def build_pool() -> tuple[list[tuple[str, int]], list[str], str]:
    """(path, bytes) of each usable document without exact repeats, the commonest words, and the pool's fingerprint."""
    documents, seen, digest = [], set(), hashlib.sha256()
    words: collections.Counter[str] = collections.Counter()
    for path in map(str, pool_files()):
        text = read(path).encode()
        if not SMALLEST <= len(text) <= LARGEST:
            continue
        key = hashlib.sha256(text).digest()
        if key in seen:
            continue
        seen.add(key)
        documents.append((path, len(text)))
        digest.update(path.encode() + key)
        words.update(text[:20_000].decode(errors="ignore").split())
    common = sorted(words, key=lambda word: (-words[word], word))[:VOCABULARY]
    return documents, common, digest.hexdigest()


def plan(documents: list[tuple[str, int]], size: int, seed: int) -> list[Plan]:
    """Which records to write, in a shuffled order; `size` bytes of text, about."""
    random = np.random.default_rng([seed, 0])
    copies = max(3, round(size / sum(length for _, length in documents)))
    plans: list[Plan] = []
    written = 0
    for family in random.permutation(len(documents)).tolist():
        path, length = documents[family]
        rates = [0.0, *random.choice(RATES, size=copies, p=WEIGHTS).tolist()]
        for variant, rate in enumerate(rates):
            if written < size:
                plans.append(Plan(path, family, variant, rate))
                written += length
    return [plans[i] for i in random.permutation(len(plans)).tolist()]


def edited(text: str, rate: float, vocabulary: np.ndarray, random: np.random.Generator) -> str:
    """`text` with each word replaced with probability `rate`; spaces and line ends stay."""
    pieces = re.split(r"(\s+)", text)
    words = np.arange(0, len(pieces), 2)
    for place in words[random.random(len(words)) < rate].tolist():
        pieces[place] = str(vocabulary[int(random.integers(len(vocabulary)))])
    return "".join(pieces)


def write_file(target: Path, plans: list[Plan], vocabulary: list[str], seed: int) -> dict[str, object]:
    """Writes one JSONL file; returns its name, records, bytes and hash."""
    words = np.array(vocabulary, dtype=object)
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as sink:
        for item in plans:
            text = read(item.path)
            if item.rate:
                text = edited(text, item.rate, words, np.random.default_rng([seed, 1, item.family, item.variant]))
            record = {
                "id": f"{item.family}.{item.variant}",
                "text": text,
                "path": item.path,
                "family": item.family,
                "rate": item.rate,
                "kind": Path(item.path).suffix.removeprefix(".") or "doc",
            }
            line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
            sink.write(line)
            digest.update(line)
            size += len(line)
    return {"file": target.name, "records": len(plans), "bytes": size, "sha256": digest.hexdigest()}


def make(folder: Path, *, mb: float, files: int, seed: int, jobs: int) -> dict[str, object]:
    """Writes the corpus and `corpus.json`, which says what is in it."""
    documents, vocabulary, fingerprint = build_pool()
    plans = plan(documents, int(mb * 1e6), seed)
    folder.mkdir(parents=True, exist_ok=True)
    shares = [plans[i::files] for i in range(files)]
    targets = [folder / f"part-{i:04d}.jsonl" for i in range(files)]
    with concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        written = list(pool.map(write_file, targets, shares, [vocabulary] * files, [seed] * files))
    facts: dict[str, object] = {
        "seed": seed,
        "mb": mb,
        "pool": {"documents": len(documents), "bytes": sum(n for _, n in documents), "sha256": fingerprint},
        "records": len(plans),
        "by_rate": {
            str(rate): sum(p.variant > 0 and p.rate == rate for p in plans) for rate in RATES
        } | {"heads": sum(p.variant == 0 for p in plans)},
        "files": written,
    }  # fmt: skip
    (folder / "corpus.json").write_text(json.dumps(facts, indent=1))
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mb", type=float, default=1000, help="text to write, in MB (10^6 bytes), about")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes; no matter for the result")
    args = parser.parse_args()
    facts = make(args.folder, mb=args.mb, files=args.files, seed=args.seed, jobs=args.jobs)
    total = sum(f["bytes"] for f in facts["files"])  # type: ignore[attr-defined]
    print(f"{args.folder}: {facts['records']} records, {total / 1e6:.0f} MB of JSONL in {args.files} files")


if __name__ == "__main__":
    main()
