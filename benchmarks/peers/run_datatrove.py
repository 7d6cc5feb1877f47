"""datatrove's four MinHash steps with its local executor, in an environment that has it; see `peer.py`.

Set here: bands, rows, n, and the processes: one task a file, two at a time, forked, as its default (`forkserver`)
imports everything again for each task. The rest is its default: xxhash 64, English word tokenizer (spaCy's rules, which
ship with spaCy). No threshold exists: what shares a bucket is a copy.
"""

import json
import struct
import time
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from peer import BANDS, JOBS, NGRAM, ROWS, Answer, files, groups_of, records, serve

CONFIG = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)


def dedup(folder: str, scratch: Path, links: bool) -> Answer:
    """Signatures, buckets, clusters, filter."""
    tasks = len(files(folder))
    work = {name: str(scratch / name) for name in ("signatures", "buckets", "remove", "kept", "dropped")}
    steps: list[tuple[list[Any], int]] = [
        ([JsonlReader(folder, glob_pattern="*.jsonl"), MinhashDedupSignature(work["signatures"], CONFIG)], tasks),
        ([MinhashDedupBuckets(work["signatures"], work["buckets"], config=CONFIG)], BANDS),
        ([MinhashDedupCluster(work["buckets"], work["remove"], config=CONFIG, save_cluster_id=links)], 1),
        (
            [
                JsonlReader(folder, glob_pattern="*.jsonl"),
                MinhashDedupFilter(
                    work["remove"],
                    exclusion_writer=JsonlWriter(work["dropped"], compression=None),
                    load_cluster_ids=links,
                ),
                JsonlWriter(work["kept"], compression=None),
            ],
            tasks,
        ),
    ]
    start = time.perf_counter()
    for number, (pipeline, count) in enumerate(steps):
        log = str(scratch / f"log{number}")
        LocalPipelineExecutor(pipeline, count, min(JOBS, count), logging_dir=log, start_method="fork").run()
    answer: Answer = {"seconds": time.perf_counter() - start}
    kept, dropped = list(records(work["kept"])), list(records(work["dropped"]))
    answer["kept"] = [record["id"] for record in kept]
    if links:
        labels = {r["id"]: r["metadata"]["minhash_cluster_id"] for r in kept + dropped}
        answer["groups"] = groups_of({name: label for name, label in labels.items() if label != -1})
        answer["links"] = _links(folder, Path(work["buckets"]))
    return answer


def _links(folder: str, buckets: Path) -> list[list[str]]:
    """Members of each bucket: a file of pairs chains the documents of a bucket one to the next."""
    ids = []
    for path in files(folder):
        with path.open(encoding="utf-8") as lines:
            ids.append([json.loads(line)["id"] for line in lines])
    found = []
    for path in sorted(buckets.glob("*.dups")):
        chains: dict[tuple[int, int], list[str]] = {}
        for f1, d1, f2, d2 in struct.iter_unpack("<4I", path.read_bytes()):
            chain = chains.pop((f1, d1), None) or [ids[f1][d1]]
            chain.append(ids[f2][d2])
            chains[f2, d2] = chain
        found += chains.values()
    return found


_SIGNATURE: list[MinhashDedupSignature] = []


def shingles(text: str) -> set[Any]:
    """Its hashed 5-grams of its own words."""
    if not _SIGNATURE:
        _SIGNATURE.append(MinhashDedupSignature("/tmp", CONFIG))
    return set(_SIGNATURE[0].get_shingles(text).ravel().tolist())


if __name__ == "__main__":
    serve(dedup, shingles)
