"""Recall and precision of the stage `dedup` against the exact similarity of all pairs of 10,000 real documents.

    .venv/bin/python benchmarks/dedup_quality.py

Sample: 6,000 documents of `make_corpus`'s pool, 200 to 20,000 bytes each, drawn without repeats, and 4,000 edited
copies of them: each of a family drawn with repeats from 2,500 of the heads (so that families differ in size), its words
replaced with a probability of its own, 0 for one copy in ten, else uniform in (0, 0.08). All of it follows from the
seed; `sample.json` records the hash of what was written. Similar pairs that nobody made (versions of a licence, of a
module) are in it as they come.

Truth: Jaccard similarity of the sets of word 5-grams for all 50 million pairs, by a sparse matrix product. Words follow
the rule of `kernels/words.py` as its table states it, but cut by Python's own `str.translate` and `str.split`; 5-grams
get numbers by sorting, so no hash is in it, and no kernel.

Then `ropewalk run … --until dedup` with several settings. In each class of similarity: the share of pairs whose two
documents end in one group of copies, and the share that the S-curve lets one expect of a single pair (groups join more:
two copies can meet in a third). For what was removed: its similarity to the survivor, and whether any document of its
group is a copy.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from machine import machine
from make_corpus import build_pool, edited, read
from scipy import sparse

from ropewalk.kernels.words import CODEPOINT, UNSPACED, Normal, entry, words_reference
from ropewalk.transforms.corpus_dir import DOCUMENTS, CorpusDir

HERE = Path(__file__).resolve().parent
ROPEWALK = Path(sys.executable).with_name("ropewalk")
SMALLEST, LARGEST = 200, 20_000  # bytes of a head
HEADS, FAMILIES, COPIES = 0.6, 0.25, 0.4  # shares of the documents
EXACT, HIGHEST = 0.1, 0.08  # share of copies without an edit, highest rate of the others
FILES = 4
FLOOR = 0.5  # pairs below are not kept
CLASSES = (0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
RUNS: dict[str, dict[str, Any]] = {
    "defaults: 14x8, 0.75": {},
    "star": {"clusters": "star"},
    "verify: signature": {"verify": "signature"},
    "verify: none": {"verify": "none"},
    "one_permutation": {"signature": "one_permutation"},
    "14x8, 0.8": {"threshold": 0.8},
    "20x13, 0.75": {"bands": 20, "rows": 13},
    "20x13, 0.8": {"bands": 20, "rows": 13, "threshold": 0.8},
    "derived for 0.95 at 0.8": {"bands": None, "rows": None, "threshold": 0.8},
}


def make_sample(folder: Path, documents: int, seed: int) -> dict[str, Any]:
    """Writes the sample as JSONL files, unless it is there; returns what is in it."""
    facts_file = folder / "sample.json"
    if facts_file.exists():
        return dict(json.loads(facts_file.read_text()))
    pool, vocabulary, fingerprint = build_pool()
    fitting = [path for path, size in pool if SMALLEST <= size <= LARGEST]
    heads = round(documents * HEADS)
    if heads > len(fitting):
        raise SystemExit(f"{len(fitting)} documents of this machine have {SMALLEST} to {LARGEST} bytes, not {heads}")
    random = np.random.default_rng([seed, 7])
    chosen = random.permutation(len(fitting))[:heads].tolist()
    words = np.array(vocabulary, dtype=object)
    records = [
        {"id": f"{i}.0", "text": read(fitting[f]), "path": fitting[f], "rate": 0.0} for i, f in enumerate(chosen)
    ]
    for variant in range(1, documents - heads + 1):
        head = records[int(random.integers(round(documents * FAMILIES)))]
        rate = 0.0 if random.random() < EXACT else round(float(random.uniform(0, HIGHEST)), 4)
        text = (
            edited(str(head["text"]), rate, words, np.random.default_rng([seed, 8, variant])) if rate else head["text"]
        )
        records.append({**head, "id": f"{str(head['id'])[:-2]}.{variant}", "text": text, "rate": rate})
    order = random.permutation(len(records)).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    for part in range(FILES):
        data = b"".join(json.dumps(records[i], ensure_ascii=False).encode() + b"\n" for i in order[part::FILES])
        (folder / f"part-{part:04d}.jsonl").write_bytes(data)
        digest.update(data)
        size += sum(len(str(records[i]["text"]).encode()) for i in order[part::FILES])
    facts = {
        "documents": len(records), "heads": heads, "copies": len(records) - heads, "text_bytes": size, "seed": seed,
        "pool_sha256": fingerprint, "sha256": digest.hexdigest(),
    }  # fmt: skip
    facts_file.write_text(json.dumps(facts, indent=1))
    return facts


def records(folder: Path) -> list[dict[str, Any]]:
    """The sample, in the order of files and lines."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8", newline="\n") as lines:
            found += [json.loads(line) for line in lines]
    return found


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """Words of texts under the default normalisation."""
    table: dict[int, str] = {}
    for codepoint in {ord(char) for text in texts for char in set(text)}:
        value = entry(codepoint, Normal())
        char = chr(value & int(CODEPOINT))
        table[codepoint] = f" {char} " if value & int(UNSPACED) else char if value else " "
    return [text.translate(table).split() for text in texts]


def number_ngrams(words: Sequence[Sequence[str]], ngram: int) -> list[np.ndarray]:
    """The set of n-grams of each document as sorted numbers, equal for equal n-grams; a shorter document has one."""
    vocabulary: dict[str, int] = {}
    padded = [[vocabulary.setdefault(w, len(vocabulary) + 1) for w in d] for d in words]
    padded = [d + [0] * (ngram - len(d)) if d else d for d in padded]
    lengths = np.array([len(d) for d in padded])
    flat = np.array([w for d in padded for w in d] + [0] * ngram, np.int64)
    size = int(lengths.sum())
    codes = flat[:size]
    for i in range(1, ngram):
        codes = np.unique(codes * (len(vocabulary) + 1) + flat[i : size + i], return_inverse=True)[1].astype(np.int64)
    ends = np.cumsum(lengths)
    return [np.unique(codes[e - n : e - ngram + 1]) if n else codes[:0] for e, n in zip(ends, lengths, strict=True)]


@dataclass
class Truth:
    """Exact similarity of documents, by their places in `ids`."""

    ids: list[str]
    shingles: list[np.ndarray]

    @classmethod
    def of(cls, sample: list[dict[str, Any]], ngram: int = 5) -> "Truth":
        """Truth of a sample. Some documents' words are compared with those of the reference rule."""
        texts = [unicodedata.normalize("NFC", r["text"]) for r in sample]
        words = split_words(texts)
        for i in range(0, len(texts), max(1, len(texts) // 100)):
            assert words[i] == words_reference(texts[i]), sample[i]["id"]
        return cls([r["id"] for r in sample], number_ngrams(words, ngram))

    @cached_property
    def place(self) -> dict[str, int]:
        """Place of each id."""
        return {name: i for i, name in enumerate(self.ids)}

    def jaccard(self, a: int, b: int) -> float:
        """Similarity of two documents."""
        both = len(np.intersect1d(self.shingles[a], self.shingles[b], assume_unique=True))
        return both / max(len(self.shingles[a]) + len(self.shingles[b]) - both, 1)

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs of FLOOR or more: int[n] places of the one, of the other (the larger), float[n] similarity."""
        counts = np.array([len(s) for s in self.shingles])
        columns = np.concatenate(self.shingles)
        repeated = np.bincount(columns) > 1
        borders = np.concatenate([[0], np.cumsum([int(repeated[s].sum()) for s in self.shingles])])
        columns = columns[repeated[columns]]
        shape = (len(counts), len(repeated))
        matrix = sparse.csr_matrix((np.ones(len(columns), np.int32), columns, borders), shape)
        transposed = matrix.T.tocsr()
        found = []
        for start in range(0, len(counts), 250):
            both = (matrix[start : start + 250] @ transposed).tocoo()
            a, b = both.row.astype(np.int64) + start, both.col.astype(np.int64)
            similarity = both.data / (counts[a] + counts[b] - both.data)
            wanted = (a < b) & (similarity >= FLOOR)
            found.append((a[wanted], b[wanted], similarity[wanted]))
        one, other, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
        return one, other, similarity


@dataclass
class Ours:
    """What one run left.

    Attributes:
        survivor: Place of the survivor of each document, by place; itself where it is kept.
        similarity: As recorded with a removed document, NaN elsewhere.
        facts: Of the stage.
    """

    survivor: np.ndarray
    similarity: np.ndarray
    facts: dict[str, Any]


def run_ours(folder: Path, scratch: Path, settings: dict[str, Any], truth: Truth) -> Ours:
    """`ropewalk run` until dedup through the command line, and its columns."""
    output, recipe = scratch / "ropewalk", scratch / "recipe.yaml"
    asked = {
        "input": [{"path": f"{folder.resolve()}/*.jsonl", "source": "sample"}], "output": str(output.resolve()),
        "filter": False, "dedup": settings,
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(asked))
    done = subprocess.run([ROPEWALK, "run", recipe, "--until", "dedup"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ropewalk run {recipe} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    corpus = CorpusDir.open(str(output))
    place, rows = {}, []
    for shard in range(corpus.own_shards):
        columns = {DOCUMENTS: ["id", "metadata"], "dedup": ["keep", "dup_of", "similarity"]}
        for row in (row for batch in corpus.read(shard, columns) for row in batch.to_pylist()):
            place[row["id"]] = truth.place[json.loads(row["metadata"])["id"]]
            rows.append(row)
    assert sorted(place.values()) == list(range(len(truth.ids))), "a document is missing or twice there"
    survivor, similarity = np.arange(len(truth.ids)), np.full(len(truth.ids), np.nan)
    for row in rows:
        if not row["keep"]:
            survivor[place[row["id"]]] = place[row["dup_of"]]
            similarity[place[row["id"]]] = np.nan if row["similarity"] is None else row["similarity"]
    manifest = corpus.stage_manifest("columns/dedup")
    assert manifest is not None
    return Ours(survivor, similarity, manifest.facts)


def judge(truth: Truth, ours: Ours, threshold: float) -> dict[str, Any]:
    """Recall by class and precision of one run."""
    one, other, similarity = truth.pairs
    joined = ours.survivor[one] == ours.survivor[other]
    bands, rows = ours.facts["bands"], ours.facts["rows"]
    expected = 1 - (1 - similarity**rows) ** bands
    recall = {}
    for low, high in zip(CLASSES, CLASSES[1:], strict=False):
        inside = (similarity >= low) & ((similarity < high) | (high == 1))
        if low >= threshold and inside.any():
            recall[f"{low:g}-{high:g}"] = {
                "pairs": int(inside.sum()),
                "together": round(float(joined[inside].mean()), 4),
                "expected_of_one": round(float(expected[inside].mean()), 4),
            }
    above = similarity >= threshold
    removed = np.flatnonzero(ours.survivor != np.arange(len(truth.ids)))
    exact = np.array([truth.jaccard(i, ours.survivor[i]) for i in removed.tolist()])
    best = np.zeros(len(truth.ids))
    np.maximum.at(best, one[joined], similarity[joined])
    np.maximum.at(best, other[joined], similarity[joined])
    recorded = ours.similarity[removed]
    known = ~np.isnan(recorded)
    return {
        "bands": bands,
        "rows": rows,
        "removed": len(removed),
        "recall": recall,
        "recall_all": round(float(joined[above].mean()), 4),
        "expected_of_one_all": round(float(expected[above].mean()), 4),
        "removed_similar_to_survivor": round(float((exact >= threshold).mean()), 4),
        "removed_similar_to_one_of_group": round(float((best[removed] >= threshold).mean()), 4),
        "similarity_to_survivor": {
            f"percentile_{p}": round(float(np.percentile(exact, p)), 4) for p in (0, 1, 5, 25, 50)
        },
        "largest_error_of_recorded_similarity": float(np.abs(recorded - exact)[known].max(initial=0)),
    }


def print_table(runs: dict[str, Any]) -> None:
    """Recall by class and precision, a line a run."""
    names = [f"{low:g}-{high:g}" for low, high in zip(CLASSES, CLASSES[1:], strict=False)]
    print(f"\n{'recall: together (S-curve)':28}" + "".join(f"{name:>16}" for name in names) + f"{'all':>16}")
    for name, run in runs.items():
        cells = [run["recall"].get(c) for c in names]
        shown = [f"{c['together']:.3f} ({c['expected_of_one']:.3f})" if c else "" for c in cells]
        shown.append(f"{run['recall_all']:.3f} ({run['expected_of_one_all']:.3f})")
        print(f"{name:28}" + "".join(f"{cell:>16}" for cell in shown))
    print(f"\n{'precision':28}{'removed':>9}{'>= t: survivor':>16}{'>= t: any':>11}{'worst':>8}{'error':>10}")
    for name, run in runs.items():
        print(
            f"{name:28}{run['removed']:9}{run['removed_similar_to_survivor']:16.4f}"
            f"{run['removed_similar_to_one_of_group']:11.4f}{run['similarity_to_survivor']['percentile_0']:8.3f}"
            f"{run['largest_error_of_recorded_similarity']:10.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=HERE.parent / "build" / "dedup")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "dedup_quality.json")
    args = parser.parse_args()
    folder = args.scratch / f"sample-{args.documents}-{args.seed}"
    facts = make_sample(folder, args.documents, args.seed)
    print(f"{facts['documents']} documents, {facts['text_bytes'] / 1e6:.1f} MB of text: exact similarity of all pairs")
    truth = Truth.of(records(folder))
    similarity = truth.pairs[2]
    print(
        f"{len(similarity)} pairs of {FLOOR} or more, {int((similarity >= CLASSES[0]).sum())} of {CLASSES[0]} or more"
    )
    shutil.rmtree(args.scratch / "ropewalk", ignore_errors=True)
    runs: dict[str, Any] = {}
    result = {
        "what": "dedup against exact all-pairs Jaccard of word 5-grams; see benchmarks/dedup_quality.py",
        **machine({}),
        "sample": facts,
        "pairs_of_0.75_or_more": int((similarity >= CLASSES[0]).sum()),
    }
    for name, settings in RUNS.items():
        print(f"ropewalk run: {name}", flush=True)
        ours = run_ours(folder, args.scratch, settings, truth)
        runs[name] = {"settings": settings} | judge(truth, ours, settings.get("threshold", 0.75))
        result |= {"runs": runs}
        args.results.write_text(json.dumps(result, indent=1) + "\n")
    print_table(runs)


if __name__ == "__main__":
    main()
