"""Does it help? Data for a tiny language model: the same documents in six layouts, and what it is asked afterwards.

    .venv/bin/python benchmarks/layouts_lm.py --folder build/lm-short --largest 1800 --lengths 2048 --vocabulary 4096
    .venv/bin/python benchmarks/layouts_lm.py --folder build/lm-long

The first makes what `layouts_lm_train.py --preset cpu` needs, the second what `--preset gpu` does.

Documents: what this machine has of Python, C headers, Perl, manual pages and package documentation
(`layouts_lm_pool.py`), of one group (package, tool, folder) at most `--group-mb`. `ropewalk run` removes copies among
*all* of them at a Jaccard similarity of 0.5, before anything is chosen. Then, by hash and before any training:

- whole groups are held out (8 in 100): `packages`, the harder set: nothing of their package was trained on;
- of the other groups, documents are held out by the hash of their id (6 in 100): `documents`;
- documents over `--max-chars` are not trained on, as a window of one is the same in every layout: `long`;
- the rest is trained on, less the copies that a run of `dedup` against an index of what is held out still finds.

The layouts are Ropewalk's `in_context`, `concat` and `random`, from a recipe that reads the training documents with a
BPE tokenizer made from them. Made here with the same best-fit packing: `tight`, the similarity order with 2 open
sequences instead of 10; and two controls, `package` (random inside each group, group after group) and `source` (random
inside each of the sources: one kind of text).

`<folder>/data.npz` has each document's tokens once and a plan for each layout, which `export` checks against the
sequences that Ropewalk wrote.
"""

import argparse
import collections
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from layouts_lm_pool import pool, unit
from machine import machine

from ropewalk.kernels.mix64 import mix64
from ropewalk.transforms.layouts import in_context

ROPEWALK = Path(sys.executable).with_name("ropewalk")
END = "<|endoftext|>"
HELD_GROUPS, HELD_DOCUMENTS = 0.08, 0.06  # shares of groups, and of the documents of the others
OPEN_BINS, FEW_BINS = 10, 2
DEDUP: dict[str, Any] = {"threshold": 0.5, "bands": None, "rows": None, "recall": 0.95, "max_source_share": 1.0}
"""Stricter than the default, as a copy that is held out and trained on would spoil everything."""
WRITTEN = ("in_context", "concat", "random")
NEAREST = 64
TARGETS = 400


def write_jsonl(path: Path, records: Iterator[dict[str, str]] | list[dict[str, str]]) -> int:
    """Writes records; how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as sink:
        for record in records:
            sink.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def ropewalk(folder: Path, name: str, **settings: Any) -> Path:
    """Runs a recipe over `<name>.jsonl`; the corpus."""
    corpus = folder / name
    recipe = {"output": str(corpus), "input": [{"path": str(folder / f"{name}.jsonl"), "source": name}]} | settings
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    print(f"ropewalk run {path}", flush=True)
    done = subprocess.run([ROPEWALK, "run", path, "--workers", "1"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return corpus


def table(corpus: Path, *names: str) -> dict[str, Any]:
    """Columns of a corpus by name, as Arrow arrays in one piece."""
    import datasets

    columns: dict[str, Any] = {}
    for name in ("documents", *names):
        data = datasets.load_from_disk(str(corpus / name if name == "documents" else corpus / "columns" / name))
        columns |= {column: data.data.column(column).combine_chunks() for column in data.column_names}
    return columns


NOTHING: dict[str, Any] = {
    "filter": False, "embed": False, "cluster": False, "order": False, "pack": False, "report": False,
}  # fmt: skip


def split(folder: Path, corpus: Path, max_chars: int) -> dict[str, Any]:
    """Writes train, documents, packages and long as JSONL; facts."""
    columns = table(corpus, "dedup")
    keep = columns["keep"].to_pylist()
    parts: dict[str, list[dict[str, str]]] = {"train": [], "documents": [], "packages": [], "long": []}
    for id_, text, metadata, kept in zip(
        columns["id"].to_pylist(), columns["text"].to_pylist(), columns["metadata"].to_pylist(), keep, strict=True
    ):
        if not kept:
            continue
        more = json.loads(metadata)
        record = {"id": id_, "text": text, "group": more["group"], "kind": more["kind"]}
        if len(text) > max_chars:
            parts["long"].append(record)
        elif unit("group " + more["group"]) < HELD_GROUPS:
            parts["packages"].append(record)
        elif unit("document " + id_) < HELD_DOCUMENTS:
            parts["documents"].append(record)
        else:
            parts["train"].append(record)
    for name, records in parts.items():
        write_jsonl(folder / f"{name}.jsonl", records)
    return {
        "pool": len(keep),
        "copies_removed": sum(k is False for k in keep),
        "kinds_of_copies": dict(collections.Counter(k for k in columns["dup_kind"].to_pylist() if k)),
        **{name: len(records) for name, records in parts.items()},
        "groups": {name: len({r["group"] for r in records}) for name, records in parts.items()},
        "train_kinds": dict(collections.Counter(r["kind"] for r in parts["train"])),
        "mean_chars": {
            name: round(float(np.mean([len(r["text"]) for r in records]))) for name, records in parts.items() if records
        },
    }


def make_tokenizer(folder: Path, vocabulary: int) -> Path:
    """A byte-level BPE of the training documents."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with (folder / "train.jsonl").open(encoding="utf-8") as lines:
        tokenizer.train_from_iterator((json.loads(line)["text"] for line in lines), trainer)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def leaks(corpora: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Removes copies of held-out documents from the training documents, by `dedup` against their indexes.

    There are few, as `dedup` has seen all documents together before. That the check finds copies at all is seen by
    planting one held-out document in forty.
    """
    train = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
    planted = []
    for name in corpora:
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
            for record in map(json.loads, itertools.islice(lines, 0, None, 40)):
                text = record["text"] + "\nA planted copy.\n"
                planted.append(record | {"id": "planted " + record["id"], "text": text})
    checked = [record | {"place": str(place)} for place, record in enumerate(train + planted)]
    write_jsonl(folder / "train-check.jsonl", checked)
    against = DEDUP | {"against": [str(corpus) for corpus in corpora.values()]}
    columns = table(ropewalk(folder, "train-check", dedup=against, **NOTHING, tokenize=False), "dedup")
    dropped = columns["metadata"].filter(pc.equal(columns["keep"], False)).to_pylist()
    gone = {int(json.loads(metadata)["place"]) for metadata in dropped}
    write_jsonl(folder / "train.jsonl", [record for place, record in enumerate(train) if place not in gone])
    return {
        "checked": len(train),
        "copies_removed": sum(place < len(train) for place in gone),
        "planted": len(planted),
        "planted_found": sum(place >= len(train) for place in gone),
    }


def seen(train: np.ndarray, held: np.ndarray, doublings: int = 6) -> float:
    """Share of held-out tokens that lie in a run of 2^doublings tokens which training documents have as well."""

    def runs(tokens: np.ndarray) -> np.ndarray:
        value = mix64(tokens.astype(np.uint64), 1)
        for k in range(doublings):
            value = mix64(value[: -(1 << k)] * np.uint64(0x9E3779B97F4A7C15) + value[1 << k :], 2)
        return value

    hits = np.flatnonzero(np.isin(runs(held), runs(train)))
    steps = np.zeros(len(held) + 1, np.int64)
    np.add.at(steps, hits, 1)
    np.add.at(steps, hits + (1 << doublings), -1)
    return round(float((np.cumsum(steps)[:-1] > 0).mean()), 4)


def documents_of(corpus: Path) -> dict[str, Any]:
    """Tokens of the documents of a corpus by ascending id, with group, source and vector."""
    has_vectors = (corpus / "columns" / "embed").exists()
    columns = table(corpus, "tokenize", *(["embed"] if has_vectors else []))
    ids = columns["id"].to_pylist()
    order = np.argsort(np.array(ids))
    lists = columns["input_ids"].take(pa.array(order))
    metadata = [json.loads(columns["metadata"][i].as_py()) for i in order.tolist()]
    out: dict[str, Any] = {
        "ids": [ids[i] for i in order],
        "tokens": lists.flatten().to_numpy().astype(np.uint16),
        "lengths": lists.value_lengths().to_numpy().astype(np.int64),
        "groups": [m["group"] for m in metadata],
        "kinds": [m["kind"] for m in metadata],
    }
    if has_vectors:
        vectors = columns["vector"].take(pa.array(order))
        out["vectors"] = vectors.flatten().to_numpy().astype(np.float32).reshape(len(ids), -1)
    return out


def plan_of(corpus: Path, layout: str, length: int, documents: dict[str, Any]) -> dict[str, np.ndarray]:
    """The plan of a layout that Ropewalk wrote, checked token by token against the documents."""
    import datasets

    place = {id_: i for i, id_ in enumerate(documents["ids"])}
    first = np.r_[0, np.cumsum(documents["lengths"])]
    data = datasets.load_from_disk(str(corpus / "sequences" / f"{layout}-{length}"))
    plan: dict[str, list[int]] = {"document": [], "start": [], "length": [], "sequence": []}
    for number, row in enumerate(data.with_format("numpy")):
        at = 0
        for id_, start, size in zip(row["doc_ids"], row["doc_starts"], row["seq_lengths"], strict=True):
            document = place[str(id_)]
            begin = first[document] + int(start)
            ours = documents["tokens"][begin : begin + int(size)]
            if not np.array_equal(ours, row["input_ids"][at : at + int(size)]):
                raise SystemExit(f"{layout}: sequence {number} is not what its plan says")
            at += int(size)
            for name, value in (("document", document), ("start", start), ("length", size), ("sequence", number)):
                plan[name].append(int(value))
    return {name: np.array(values, np.int32) for name, values in plan.items()}


def controlled(documents: dict[str, Any], length: int, key: str) -> dict[str, np.ndarray]:
    """The layout with documents random inside each group or kind, packed as `random` is."""
    hashed = np.array([mix64(np.array([int(i[:16], 16)], np.uint64), 1)[0] for i in documents["ids"]])
    by = np.array([unit(name) for name in documents[key]])
    return planned(documents, np.lexsort((hashed, by)), length, OPEN_BINS)


def tight(corpus: Path, documents: dict[str, Any], length: int) -> dict[str, np.ndarray]:
    """Layout `in_context` with few sequences open at once: fuller of neighbours, less full."""
    columns = table(corpus, "order")
    rank = columns["rank"].to_numpy()[np.argsort(np.array(columns["id"].to_pylist()))]
    return planned(documents, np.argsort(rank, kind="stable"), length, FEW_BINS)


def planned(documents: dict[str, Any], order: np.ndarray, length: int, open_bins: int) -> dict[str, np.ndarray]:
    """Best-fit along an order of documents."""
    segments = in_context.plan(documents["lengths"][order], length=length, open_bins=open_bins)
    return {
        "document": order[segments.document].astype(np.int32),
        "start": segments.start.astype(np.int32),
        "length": segments.length.astype(np.int32),
        "sequence": segments.sequence.astype(np.int32),
    }


def neighbours(documents: dict[str, Any]) -> dict[str, np.ndarray]:
    """For up to `TARGETS` documents with 256 tokens or more: the nearest others, nearest first, and random others."""
    targets = np.flatnonzero(documents["lengths"] >= 256)
    targets = np.sort(np.random.default_rng(5).permutation(targets)[:TARGETS])
    cosine = documents["vectors"][targets] @ documents["vectors"].T
    cosine[np.arange(len(targets)), targets] = -2
    count = min(NEAREST, len(documents["ids"]) - 1)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    random = np.random.default_rng(6)
    other = np.stack([random.permutation(np.delete(np.arange(len(documents["ids"])), t))[:count] for t in targets])
    return {
        "targets": targets.astype(np.int32),
        "related": nearest.astype(np.int32),
        "unrelated": other.astype(np.int32),
        "cosine": np.take_along_axis(cosine, nearest, 1).astype(np.float32),
    }


def in_window(plan: dict[str, np.ndarray], documents: dict[str, Any]) -> dict[str, float]:
    """What a layout is like: documents a window, share of tokens of a lone document, of its windows' main group."""
    tokens = np.bincount(plan["sequence"], plan["length"])
    sizes = np.bincount(plan["sequence"])
    alone = tokens[sizes == 1].sum() / tokens.sum()
    names = np.unique(documents["groups"], return_inverse=True)[1]
    cells = plan["sequence"].astype(np.int64) * (names.max() + 1) + names[plan["document"]]
    keys, index = np.unique(cells, return_inverse=True)
    most = np.zeros(len(tokens))
    np.maximum.at(most, keys // (names.max() + 1), np.bincount(index, plan["length"]))
    facts = {
        "sequences": len(tokens),
        "documents_a_sequence": float(sizes.mean()),
        "fill": float(tokens.mean() / tokens.max()),
        "tokens_alone": float(alone),
        "tokens_of_main_group": float(most.sum() / tokens.sum()),
    }
    if "vectors" in documents:
        order = np.argsort(plan["sequence"], kind="stable")
        vectors = documents["vectors"][plan["document"][order]].astype(np.float64)
        starts = np.r_[0, np.cumsum(sizes)[:-1]]
        total = np.add.reduceat(vectors, starts, axis=0)
        pairs = sizes * (sizes - 1)
        own = np.add.reduceat((vectors**2).sum(1), starts)
        facts["mean_cosine"] = float((((total**2).sum(1) - own)[pairs > 0] / pairs[pairs > 0]).mean())
    return {name: round(value, 4) for name, value in facts.items()}


def export(folder: Path, corpora: dict[str, Path], lengths: list[int], vocabulary: int, facts: dict[str, Any]) -> None:
    """Writes `data.npz` and `facts.json`."""
    arrays: dict[str, np.ndarray] = {}
    for name, corpus in corpora.items():
        documents = documents_of(corpus)
        if max(documents["lengths"]) >= 2**31 or documents["tokens"].max() >= vocabulary:
            raise SystemExit(f"{name}: tokens or lengths out of range")
        if name == "long":  # only its windows are needed
            enough = np.flatnonzero(documents["lengths"] >= max(lengths))
            chosen = np.sort(np.random.default_rng(4).permutation(enough)[:192])
            first = np.r_[0, np.cumsum(documents["lengths"])]
            arrays["long/windows"] = np.stack([documents["tokens"][first[i] : first[i] + max(lengths)] for i in chosen])
            facts["long_windows"] = len(chosen)
            facts["long_seen"] = seen(arrays["train/tokens"], arrays["long/windows"].ravel())
            continue
        arrays[f"{name}/tokens"] = documents["tokens"]
        arrays[f"{name}/lengths"] = documents["lengths"].astype(np.int32)
        facts[f"{name}_tokens"] = int(documents["lengths"].sum())
        for length in lengths:
            plans = {
                layout: plan_of(corpus, layout, length, documents) for layout in ("in_context", "random", "concat")
            }
            if name == "train":
                plans["tight"] = tight(corpus, documents, length)
                plans |= {key: controlled(documents, length, f"{key}s") for key in ("group", "kind")}
                plans = {{"group": "package", "kind": "source"}.get(k, k): plan for k, plan in plans.items()}
            for layout, plan in plans.items():
                whole = np.bincount(plan["document"], plan["length"], len(documents["ids"]))
                if not np.array_equal(whole, documents["lengths"]):
                    raise SystemExit(f"{name} {layout}-{length}: a token is lost or doubled")
                facts.setdefault("layouts", {})[f"{name} {layout}-{length}"] = in_window(plan, documents)
                for column, values in plan.items():
                    arrays[f"{name}/{layout}-{length}/{column}"] = values
        if name != "train":
            facts[f"{name}_seen"] = seen(arrays["train/tokens"], documents["tokens"])
            near = neighbours(documents)
            facts[f"{name}_nearest_cosine"] = round(float(near["cosine"][:, 0].mean()), 3)
            arrays |= {f"{name}/{key}": values for key, values in near.items() if key != "cosine"}
    np.savez_compressed(folder / "data.npz", **arrays)
    facts["vocabulary"] = vocabulary
    facts["data_sha256"] = hashlib.sha256((folder / "data.npz").read_bytes()).hexdigest()
    facts["data_bytes"] = (folder / "data.npz").stat().st_size
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))


def main() -> None:
    """Makes the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/lm-long"), help="where data.npz and facts.json go")
    parser.add_argument("--work", type=Path, help="scratch, up to 1 GB; default: <folder>/work")
    parser.add_argument("--extra", type=Path, help="site-packages of another environment, for more Python")
    parser.add_argument("--group-mb", type=float, default=4.0, help="text of one group, in MB, at most")
    parser.add_argument("--max-chars", type=int, default=12_000, help="longest training document, in codepoints")
    parser.add_argument("--largest", type=int, default=200_000, help="largest document of all, in bytes")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 8192], help="tokens of a window")
    parser.add_argument("--vocabulary", type=int, default=8192)
    args = parser.parse_args()
    work = (args.work or args.folder / "work").resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{write_jsonl(work / 'pool.jsonl', pool(args.extra, int(args.group_mb * 1e6), args.largest))} documents",
        flush=True,
    )
    everything = ropewalk(work, "pool", dedup=DEDUP, **(NOTHING | {"tokenize": False}))
    facts: dict[str, Any] = {"machine": machine({}), "lengths": args.lengths, "max_chars": args.max_chars}
    facts |= split(work, everything, args.max_chars)
    print(json.dumps(facts), flush=True)
    tokenizer = {"tokenize": {"tokenizer": str(make_tokenizer(work, args.vocabulary))}}
    pack = {"pack": [{"layout": name, "length": n} for name in WRITTEN for n in args.lengths]}
    plain = {"filter": False, "report": False}
    held = {
        name: ropewalk(work, name, dedup=DEDUP | {"index": True}, **plain, **tokenizer, **pack)
        for name in ("documents", "packages")
    }
    facts["leaks"] = leaks(held, work)
    print(json.dumps(facts["leaks"]), flush=True)
    train = ropewalk(work, "train", dedup=False, **plain, **tokenizer, **pack)
    corpora = {"train": train, **held}
    if facts["long"]:
        corpora["long"] = ropewalk(work, "long", dedup=False, **(NOTHING | tokenizer))
    export(args.folder, corpora, args.lengths, args.vocabulary, facts)
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
