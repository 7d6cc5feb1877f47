"""What the runner scripts of the other tools share; runs in their interpreters, with nothing but the standard library.

    python run_X.py dedup INPUT SCRATCH OUT.json [--links]     # INPUT: a folder of JSONL files with `id` and `text`
    python run_X.py pairs INPUT PAIRS.json OUT.json            # the tool's own exact Jaccard of pairs of ids

`dedup` answers {seconds, kept, groups, links}: the ids that stay, all groups of two or more documents that the tool
takes for copies, and the lists of documents that it brought together directly (the members of a bucket; a compared
pair), so that a pair joined only through others can be told. `--links` asks for groups and links; they are gathered
after the clock stopped. A tool that compares what shares a bucket adds `candidates`, the members of each bucket.

Every tool gets the same settings, as far as it has them, from `SETTINGS`, and may not download anything.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OFFLINE = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}  # fmt: skip
BANDS, ROWS, NGRAM, THRESHOLD, JOBS = 14, 8, 5, 0.75, 2

Answer = dict[str, Any]


def files(folder: str) -> list[Path]:
    """The JSONL files of a folder, in order."""
    return sorted(Path(folder).glob("*.jsonl"))


def records(folder: str) -> Iterator[dict[str, Any]]:
    """All records of a folder, in the order of files and lines."""
    for path in files(folder):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def groups_of(labels: dict[str, Any]) -> list[list[str]]:
    """Groups of two or more from a label for each id."""
    found: dict[Any, list[str]] = {}
    for name, label in labels.items():
        found.setdefault(label, []).append(name)
    return [group for group in found.values() if len(group) > 1]


def jaccards(folder: str, pairs: list[tuple[str, str]], shingles: Callable[[str], set[Any]]) -> list[float]:
    """Jaccard similarity of the shingle sets of pairs of ids; -1 where neither document has a shingle."""
    wanted = {name for pair in pairs for name in pair}
    sets = {record["id"]: shingles(record["text"]) for record in records(folder) if record["id"] in wanted}
    found = []
    for a, b in pairs:
        union = len(sets[a] | sets[b])
        found.append(len(sets[a] & sets[b]) / union if union else -1.0)
    return found


def serve(dedup: Callable[[str, Path, bool], Answer], shingles: Callable[[str], set[Any]]) -> None:
    """Answers one command.

    Args:
        dedup: (folder of input, scratch folder, whether links are wanted) -> `kept` and, if so, `groups` and `links`;
            it sets `seconds` itself where the links cost time.
        shingles: A text's shingles as this tool makes them.
    """
    missing = [f"{name}={value}" for name, value in OFFLINE.items() if os.environ.get(name) != value]
    if missing:
        raise SystemExit(f"set {' '.join(missing)}: this runs offline, or it would measure downloads")
    mode, folder, *rest = sys.argv[1:]
    start = time.perf_counter()
    answer: Any
    if mode == "dedup":
        scratch, out = Path(rest[0]), rest[1]
        scratch.mkdir(parents=True, exist_ok=True)
        answer = dedup(folder, scratch, "--links" in rest)
        answer.setdefault("seconds", time.perf_counter() - start)
    else:
        pairs, out = json.loads(Path(rest[0]).read_text()), rest[1]
        answer = jaccards(folder, [(a, b) for a, b in pairs], shingles)
    Path(out).write_text(json.dumps(answer))
