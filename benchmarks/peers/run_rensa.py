r"""A near-duplicate script around rensa, in an environment that has it; see `peer.py`.

rensa has signatures and an index, no reading and no shingles: both are this script's (`\w+` words, lower case), in two
processes. Each document is added to rensa's own `RMinHashDeduplicator`, which keeps it unless it shares a band with one
that was kept and the signatures' estimate is at least the threshold. 112 values in 14 bands, as everybody here.
"""

import json
import multiprocessing
import re
import time
from pathlib import Path
from typing import Any

from peer import BANDS, JOBS, NGRAM, ROWS, THRESHOLD, Answer, files, groups_of, records, serve
from rensa import RMinHash, RMinHashDeduplicator

VALUES = BANDS * ROWS
SEED = 42
BATCH = 500
WORD = re.compile(r"\w+")


def shingle_list(text: str) -> list[str]:
    """Word 5-grams; a shorter text is one."""
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, min(len(words), 1)))]


def shingles(text: str) -> set[Any]:
    """The same as a set."""
    return set(shingle_list(text))


def sketch(lines: list[str]) -> tuple[list[str], list[Any]]:
    """Ids and signatures of some records."""
    found = [json.loads(line) for line in lines]
    tokens = [shingle_list(record["text"]) for record in found]
    return [record["id"] for record in found], RMinHash.from_token_sets(tokens, VALUES, SEED)


def batches(folder: str) -> Any:
    """The lines of all files, some at a time."""
    for path in files(folder):
        with path.open(encoding="utf-8") as lines:
            batch: list[str] = []
            for line in lines:
                batch.append(line)
                if len(batch) == BATCH:
                    yield batch
                    batch = []
            yield batch


def dedup(folder: str, scratch: Path, links: bool) -> Answer:
    """One pass: sketch in two processes, decide in this one; the kept records are written."""
    start = time.perf_counter()
    index = RMinHashDeduplicator(THRESHOLD, VALUES, True, BANDS, SEED)
    kept: list[str] = []
    sketches: list[tuple[str, Any]] = []
    order: dict[str, int] = {}
    with multiprocessing.get_context("forkserver").Pool(JOBS) as pool:
        for ids, signatures in pool.imap(sketch, batches(folder)):
            flags = index.add_pairs(list(zip(ids, signatures, strict=True)))
            for name, signature, new in zip(ids, signatures, flags, strict=True):
                order[name] = len(order)
                if new:
                    kept.append(name)
                if links:
                    sketches.append((name, signature))
    stays = set(kept)
    with (scratch / "kept.jsonl").open("w", encoding="utf-8") as sink:
        for record in records(folder):
            if record["id"] in stays:
                sink.write(json.dumps(record, ensure_ascii=False) + "\n")
    answer: Answer = {"seconds": time.perf_counter() - start, "kept": kept}
    if links:
        labels = {name: name for name in kept}
        answer["links"] = []
        for name, signature in sketches:
            if name in stays:
                continue
            others = [other for other in index.get_duplicates(signature) if order[other] < order[name]]
            labels[name] = min(others, key=order.__getitem__)
            answer["links"] += [[name, other] for other in others]
        answer["groups"] = groups_of(labels)
        answer["candidates"] = []
        for band in range(0, VALUES, ROWS):
            keys = {name: tuple(signature.digest()[band : band + ROWS]) for name, signature in sketches}
            answer["candidates"] += groups_of(keys)
    return answer


if __name__ == "__main__":
    serve(dedup, shingles)
