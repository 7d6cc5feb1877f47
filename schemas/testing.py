"""Seeded builders of mock data, for our tests and for those of anyone who builds on the schemas."""

import hashlib
import json

import numpy as np
import pyarrow as pa

from ropewalk.schemas import tables

_WORDS = (
    "rope hemp fibre yarn strand lay twist tar mast sail harbour wind knot splice bitter end hawser cable deck anchor "
    "length walk wheel hook top cart sledge spinner hatchel bale ship quay winter morning master apprentice ledger"
).split()


def documents(count: int, *, seed: int = 0, words: tuple[int, int] = (20, 200), copies: float = 0.0) -> pa.RecordBatch:
    """Mock documents of random words.

    Args:
        count: Number of documents.
        seed: Seed; equal seeds give equal bytes.
        words: Shortest and longest document, in words.
        copies: Share of documents that repeat an earlier one with one word changed.

    Returns:
        `count` rows of `tables.DOCUMENTS`.
    """
    random = np.random.default_rng(seed)
    texts: list[str] = []
    for _ in range(count):
        if texts and random.random() < copies:
            parts = texts[int(random.integers(len(texts)))].split(" ")
            parts[int(random.integers(len(parts)))] = "changed"
        else:
            length = int(random.integers(words[0], words[1] + 1))
            parts = [
                f"{_WORDS[i]}{j}"
                for i, j in zip(random.integers(0, len(_WORDS), length), random.integers(0, 9, length), strict=True)
            ]
        texts.append(" ".join(parts))
    return of_texts(texts)


def of_texts(texts: list[str], *, source: str = "mock") -> pa.RecordBatch:
    """Rows of `tables.DOCUMENTS` for given texts; ids are hashes of position and text."""
    ids = [hashlib.blake2b(f"{i}:{t}".encode(), digest_size=16).hexdigest() for i, t in enumerate(texts)]
    return pa.RecordBatch.from_pydict(
        {
            "id": ids,
            "text": texts,
            "source": [source] * len(texts),
            "url": [None] * len(texts),
            "num_chars": [len(t) for t in texts],
            "num_bytes": [len(t.encode()) for t in texts],
            "metadata": [json.dumps({"n": i}) for i in range(len(texts))],
        },
        schema=tables.DOCUMENTS,
    )
