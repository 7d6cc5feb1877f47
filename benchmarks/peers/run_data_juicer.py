"""data-juicer's operator `document_minhash_deduplicator`, in an environment that has it; see `peer.py`.

Set here: bands, rows and permutations, n, the number of processes. The rest is its default: words split at spaces (its
advice for English; line ends do not split), lower case, sha1. Its threshold only chooses bands where none are given.

It imports ray for its executors and torch to empty the GPU's cache, and installs both by itself where they lack.
Neither does anything for this operator on one machine, so its executors are not imported and the cache not emptied.
"""

import importlib.util
import sys
import time
import types
from pathlib import Path
from typing import Any

import data_juicer  # noqa: F401
from peer import BANDS, JOBS, NGRAM, ROWS, THRESHOLD, Answer, files, groups_of, records, serve

found = importlib.util.find_spec("data_juicer")
assert found is not None and found.submodule_search_locations is not None
core = types.ModuleType("data_juicer.core")
core.__path__ = [f"{found.submodule_search_locations[0]}/core"]
sys.modules["data_juicer.core"] = core

import datasets  # noqa: E402
from data_juicer.core.data import NestedDataset  # noqa: E402
from data_juicer.ops import base_op  # noqa: E402
from data_juicer.ops.common.helper_func import UnionFind, split_on_whitespace  # noqa: E402
from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator  # noqa: E402

base_op.free_models = lambda *args, **options: None


def dedup(folder: str, scratch: Path, links: bool) -> Answer:
    """Loads with `datasets`, as its own loader does, and runs the operator."""
    start = time.perf_counter()
    paths = [str(path) for path in files(folder)]
    cache = str(scratch / "cache")
    loaded = datasets.load_dataset("json", data_files=paths, split="train", cache_dir=cache, num_proc=JOBS)
    operator = DocumentMinhashDeduplicator(
        window_size=NGRAM,
        num_permutations=BANDS * ROWS,
        num_bands=BANDS,
        num_rows_per_band=ROWS,
        jaccard_threshold=THRESHOLD,
        num_proc=JOBS,
    )
    kept = operator.run(NestedDataset(loaded))
    kept.to_json(str(scratch / "kept.jsonl"))
    answer: Answer = {"seconds": time.perf_counter() - start}
    answer["kept"] = list(kept["id"])
    if links:
        ids = [record["id"] for record in records(folder)]
        buckets = [sorted(b) for table in operator.hash_tables for b in table.values() if len(b) > 1]
        union = UnionFind()
        for bucket in buckets:
            for i in bucket:
                union.union(i, bucket[0])
        answer["groups"] = groups_of({ids[i]: union.find(i) for i in list(union.parent)})
        answer["links"] = [[ids[i] for i in bucket] for bucket in buckets]
    return answer


def shingles(text: str) -> set[Any]:
    """What its `compute_hash` hashes."""
    words = split_on_whitespace(text.lower())
    return {" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


if __name__ == "__main__":
    serve(dedup, shingles)
