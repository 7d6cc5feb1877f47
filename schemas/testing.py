"""Seeded builders of mock data, for our tests and for those of anyone who builds on the schemas."""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.schemas import address, tables

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


def topical(count: int, *, topics: int = 6, seed: int = 0) -> tuple[pa.RecordBatch, np.ndarray]:
    """Mock documents that are about something.

    Args:
        count: Number of documents.
        topics: Number of topics; each has words of its own besides the common ones.
        seed: Seed; equal seeds give equal bytes.

    Returns:
        `count` rows of `tables.DOCUMENTS` with sources and addresses, and the topic of each: int64[count].
    """
    random = np.random.default_rng([seed, 1])
    topic = random.integers(0, topics, count)
    sizes = np.maximum(3, random.lognormal(4.4, 0.9, count)).astype(int)
    texts = []
    for i in range(count):
        names = np.array([f"{word}{'abcdefghijklmnopqrstuvwxyz'[topic[i] % 26]}" for word in _WORDS])
        own = random.random(sizes[i]) < 0.5
        words = np.where(
            own, names[random.integers(0, 12, sizes[i])], np.array(_WORDS)[random.integers(0, len(_WORDS), sizes[i])]
        )
        texts.append(" ".join(words.tolist()).capitalize() + ".")
    batch = of_texts(texts)
    sources = pa.array([("web", "books", "code")[int(t) % 3] for t in topic], pa.string())
    urls = [f"https://example.org/{s}/{i}" if i % 4 else None for i, s in enumerate(sources.to_pylist())]
    return batch.set_column(2, tables.DOCUMENTS.field("source"), sources).set_column(
        3, tables.DOCUMENTS.field("url"), pa.array(urls, pa.string())
    ), topic


def columns(
    shards: list[pa.RecordBatch], topics: list[np.ndarray], *, seed: int = 0
) -> dict[str, list[pa.RecordBatch]]:
    """Mock columns of every stage for given documents: a plausible walk, not the real one.

    Documents under 60 characters fail the filter, equal texts are copies, a token is four bytes, vectors scatter
    around one direction a topic, clusters are the topics, the order goes topic by topic, the one neighbour of a
    document is the one before it. Of every 23 documents one repeats a passage, another too much for it to stay, one
    holds a benchmark item and goes, and one is a semantic copy.

    Args:
        shards: Rows of `tables.DOCUMENTS`, one batch a shard.
        topics: Topic of each row: int64[rows] a shard.
        seed: Seed.

    Returns:
        Batches by stage, one a shard.
    """
    random = np.random.default_rng([seed, 2])
    texts = [text for shard in shards for text in shard.column("text").to_pylist()]
    ids = [id_ for shard in shards for id_ in shard.column("id").to_pylist()]
    topic = np.concatenate(topics)
    count = len(texts)
    passed = np.array([len(text) >= 60 for text in texts], bool)
    groups: dict[str, list[int]] = {}
    for i in np.flatnonzero(passed):
        groups.setdefault(texts[i], []).append(int(i))
    first = [groups[text][0] if passed[i] else i for i, text in enumerate(texts)]
    kept = passed & (np.array(first, np.int64) == np.arange(count))
    lot = np.array([int(id_[:8], 16) % 23 for id_ in ids], np.int64)
    enough = kept & (lot != 1)
    alive = enough & (lot != 2)
    distinct = alive & (lot != 3)
    model = min((ids[i] for i in np.flatnonzero(distinct)), default=None)
    tokens = [[5 + b for b in text.encode()[::4]] + [0] if alive[i] else None for i, text in enumerate(texts)]
    centres = random.normal(size=(int(topic.max(initial=0)) + 1, tables.VECTOR_DIMENSIONS))
    vectors = centres[topic] + 1.3 * random.normal(size=(count, tables.VECTOR_DIMENSIONS))
    vectors = np.round(vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * 2048) / 2048
    order = sorted(np.flatnonzero(distinct).tolist(), key=lambda i: (topic[i], ids[i]))
    rank = {row: place for place, row in enumerate(order)}
    before = {row: float(vectors[row] @ vectors[order[place - 1]]) for row, place in rank.items() if place}
    flat = pa.array(vectors.astype(np.float16).ravel())
    addresses = np.concatenate([address.of_rows(s, 0, shard.num_rows) for s, shard in enumerate(shards)])
    rows: dict[str, dict[str, Any]] = {
        "filter": {
            "passed": passed,
            "filter_reason": [None if p else "too_short" for p in passed],
            "language": [None] * count,
            "language_score": [None] * count,
        },
        "dedup": {
            "keep": [bool(kept[i]) if passed[i] else None for i in range(count)],
            "dup_of": [ids[first[i]] if passed[i] and not kept[i] else None for i in range(count)],
            "component_size": [len(groups[text]) if passed[i] else 1 for i, text in enumerate(texts)],
            "similarity": [1.0 if passed[i] and not kept[i] else None for i in range(count)],
            "dup_kind": ["exact" if passed[i] and not kept[i] else None for i in range(count)],
        },
        "passages": {
            "repeated_spans": [[{"start": 0, "stop": 10}] if kept[i] and lot[i] < 2 else [] for i in range(count)],
            "repeated_bytes": [10 if kept[i] and lot[i] < 2 else 0 for i in range(count)],
            "enough_left": [bool(enough[i]) if kept[i] else None for i in range(count)],
        },
        "decontaminate": {
            "clean": [bool(alive[i]) if enough[i] else None for i in range(count)],
            "contaminated_spans": [
                [{"start": 20, "stop": 40, "benchmark": "mock", "item": "7"}] if enough[i] and lot[i] == 2 else []
                for i in range(count)
            ],
            "masked_spans": [[] for _ in range(count)],
        },
        "tokenize": {"input_ids": tokens, "num_tokens": [len(t or ()) for t in tokens]},
        "embed": {
            "vector": pa.FixedSizeListArray.from_arrays(flat, type=tables.EMBED.field(0).type, mask=pa.array(~alive))
        },
        "cluster": {
            "cluster": [int(topic[i]) if alive[i] else None for i in range(count)],
            "distance": [0.5 if alive[i] else None for i in range(count)],
        },
        "semantic": {
            "semantic_keep": [bool(distinct[i]) if alive[i] else None for i in range(count)],
            "semantic_dup_of": [model if alive[i] and not distinct[i] else None for i in range(count)],
            "semantic_similarity": [0.97 if alive[i] and not distinct[i] else None for i in range(count)],
        },
        "neighbours": {
            "neighbours": [
                None if i not in rank else [int(addresses[order[rank[i] - 1]])] if rank[i] else [] for i in range(count)
            ],
            "neighbour_similarity": [None if i not in rank else [before[i]] if rank[i] else [] for i in range(count)],
        },
        "order": {
            "rank": [rank.get(i) for i in range(count)],
            "prev_similarity": [before.get(i) for i in range(count)],
        },
    }
    starts = np.cumsum([0, *(shard.num_rows for shard in shards)])
    return {
        stage: [
            pa.RecordBatch.from_pydict(fields, schema=tables.COLUMNS[stage]).slice(start, shard.num_rows)
            for start, shard in zip(starts, shards, strict=False)
        ]
        for stage, fields in rows.items()
    }


def sequences(
    shards: list[pa.RecordBatch], walked: dict[str, list[pa.RecordBatch]], *, length: int, shuffle: int | None = None
) -> pa.RecordBatch:
    """Mock sequences: documents one after the other, cut every `length` tokens.

    Args:
        shards: Rows of `tables.DOCUMENTS`, one batch a shard.
        walked: Their columns, see `columns`.
        length: Tokens in a sequence.
        shuffle: Seed of a random order; none for the similarity order.

    Returns:
        Rows of `tables.SEQUENCES`.
    """
    documents = {
        rank: (id_, ids, np.array(vector, np.float32))
        for s, shard in enumerate(shards)
        for id_, ids, rank, vector in zip(
            shard.column("id").to_pylist(), walked["tokenize"][s].column("input_ids").to_pylist(),
            walked["order"][s].column("rank").to_pylist(), walked["embed"][s].column("vector").to_pylist(), strict=True,
        )
        if rank is not None
    }  # fmt: skip
    order = list(range(len(documents)))
    if shuffle is not None:
        np.random.default_rng(shuffle).shuffle(order)
    rows: list[list[tuple[int, int, int]]] = [[]]
    for rank in order:
        start, left = 0, len(documents[rank][1])
        while left:
            room = length - sum(n for _, _, n in rows[-1])
            if not room:
                rows.append([])
                continue
            taken = min(room, left)
            rows[-1].append((rank, start, taken))
            start, left = start + taken, left - taken
    found = []
    for row in rows if order else []:
        vectors = np.stack([documents[rank][2] for rank, _, _ in row])
        pairs = (vectors @ vectors.T)[np.triu_indices(len(row), 1)]
        lengths = [n for _, _, n in row]
        found.append(
            {
                "input_ids": [t for rank, start, n in row for t in documents[rank][1][start : start + n]],
                "num_tokens": sum(lengths),
                "seq_lengths": lengths,
                "cu_seqlens": [0, *np.cumsum(lengths).tolist()],
                "doc_ids": [documents[rank][0] for rank, _, _ in row],
                "doc_starts": [start for _, start, _ in row],
                "loss_weights": [1.0] * len(row),
                "similarity": float(pairs.mean()) if len(pairs) else None,
            }
        )
    return pa.RecordBatch.from_pylist(found, schema=tables.SEQUENCES)
