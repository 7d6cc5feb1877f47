"""text-dedup's MinHash command, in an environment that has it; see `peer.py`.

Set here: b, r and num_perm (so that it does not choose bands itself), n, the number of processes. The rest is its
default: sha1, words split at every non-word character, documents under five words left out. No similarity is looked at.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
from peer import BANDS, JOBS, NGRAM, ROWS, Answer, groups_of, records, serve
from text_dedup import minhash
from text_dedup.utils import ngrams

MIN_LENGTH = 5


def dedup(folder: str, scratch: Path, links: bool) -> Answer:
    """Its `main`, with its own arguments. Its hash tables, which are local to it, are kept by handing out the dicts."""
    tables: list[dict[Any, set[int]]] = []

    def table(kind: Any) -> dict[Any, set[int]]:
        tables.append(defaultdict(kind))
        return tables[-1]

    minhash.defaultdict = table
    options = {
        "path": "json", "data_files": f"{folder}/*.jsonl", "split": "train", "column": "text",
        "cache_dir": scratch / "cache", "output": scratch / "kept", "num_proc": JOBS,
        "ngram": NGRAM, "min_length": MIN_LENGTH, "num_perm": BANDS * ROWS, "b": BANDS, "r": ROWS,
    }  # fmt: skip
    start = time.perf_counter()
    minhash.main([f"--{name}={value}" for name, value in options.items()], standalone_mode=False)
    answer: Answer = {"seconds": time.perf_counter() - start}
    answer["kept"] = list(datasets.load_from_disk(str(scratch / "kept"))["id"])
    if links:
        ids = [record["id"] for record in records(folder)]
        answer["groups"] = groups_of({ids[i]: minhash.uf.find(i) for i in list(minhash.uf.parent)})
        answer["links"] = [[ids[i] for i in bucket] for t in tables for bucket in t.values() if len(bucket) > 1]
    return answer


def shingles(text: str) -> set[Any]:
    """What its `embed_func` hashes."""
    words = minhash.NON_ALPHA.split(text.lower())
    return {" ".join(t).lower() for t in ngrams(words, NGRAM, MIN_LENGTH)}


if __name__ == "__main__":
    serve(dedup, shingles)
