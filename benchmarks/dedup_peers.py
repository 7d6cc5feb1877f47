"""The same 10,000 documents through datatrove, text-dedup, data-juicer and rensa: who keeps what, and why.

    .venv/bin/python benchmarks/dedup_peers.py --envs build/peers        # makes the environments where they lack

Sample and exact similarities are those of `dedup_quality.py`. Each tool runs in an environment of its own (pinned, see
ENVIRONMENTS), offline, with 14 bands of 8 rows of word 5-grams; `peers/run_*.py` says what was set and what is that
tool's default. Ropewalk runs with its defaults (the same bands, threshold 0.75, exact verification, components).

Every disagreement is put in one class, for pairs (two documents in one group of copies for one tool and not for the
other) and for documents (kept by one, removed by the other). With t = 0.75, J the exact similarity under our words and
P that under the other tool's, asked of its own code:

    other_survivor     the same group for both, another member kept                              (documents only)
    our_band_miss      they joined it, J >= t; our signatures share no band, so it was never compared (looked up)
    our_star_edges     they joined it, J >= t, and our signatures share a band, but in each bucket that they share both
                       were compared with its best member only, another document that was no copy of both
    normalisation      one tool joined it with t or more under its own words; under the other's it is below
    no_verification    they joined it directly, without a look at it, and it is below t under both
    their_estimate     they compared the signatures (rensa alone does), and were mistaken about which side of t it is
    kept_only          they compare with kept documents only (rensa), and both were copies of some other one
    transitivity       joined through other documents only, and below t (under both, where it is they who joined it)
    their_band_miss    we joined it, J >= t and P >= t, and they did not
    left_out           documents without a shingle under their words: dropped, or all joined
    unexplained        none of these

For documents the pair is the removed document and the survivor that took its place. A document in `transitivity` is
followed along the chain that joined it: `chain_breaks` counts, by the same classes, the direct links on the way that
the other tool does not have.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from dedup_quality import Truth, make_sample, records, run_ours
from machine import machine

from ropewalk.transforms.sketch import MinHash

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))
from peer import BANDS, OFFLINE, ROWS, THRESHOLD  # noqa: E402

ENVIRONMENTS = {
    "datatrove": ("datatrove[io,processing]==0.10.1", "spacy==3.8.18", "orjson==3.13.0"),
    "text_dedup": ("text-dedup==0.4.0",),
    "data_juicer": ("py-data-juicer==1.6.1", "aiohttp==3.14.5"),
    "rensa": ("rensa==0.5.0",),
}
"""What pip installs for each tool, beside what that depends on."""

Pair = tuple[str, str]


def python_of(envs: Path, tool: str) -> Path:
    """The interpreter of a tool's environment; makes the environment where it lacks."""
    python = envs / tool / "bin" / "python"
    if not python.exists():
        print(f"{tool}: installing {' '.join(ENVIRONMENTS[tool])} into {envs / tool}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", envs / tool], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *ENVIRONMENTS[tool]], check=True)
    return python.absolute()


def versions_of(python: Path, tool: str) -> str:
    """Name and version of what was pinned."""
    names = [spec.split("==")[0].split("[")[0] for spec in ENVIRONMENTS[tool]]
    code = "import sys, importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    return subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True).stdout.strip()


def watched(command: Sequence[object], folder: Path, extra: Mapping[str, str]) -> tuple[float, float]:
    """Runs a command in a folder: its seconds, and the most MB that it and its children held at a time.

    Memory is resident less shared pages, sampled ten times a second, as in a stage's `stage.json`.

    Raises:
        SystemExit: If the command fails; with the end of what it printed, all of which is in `log` in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start, peak = time.perf_counter(), 0
    with (folder / "log").open("wb") as log:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=folder, env=os.environ | extra, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            held = 0
            try:
                for one in [(root := psutil.Process(process.pid)), *root.children(recursive=True)]:
                    memory = one.memory_info()
                    held += memory.rss - memory.shared
            except psutil.Error:  # it ended meanwhile
                pass
            peak = max(peak, held)
            time.sleep(0.1)
    seconds = time.perf_counter() - start
    if process.returncode:
        end = (folder / "log").read_text(errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}\n{end}")
    return seconds, peak / 1e6


def ask(python: Path, tool: str, mode: str, inputs: Path, scratch: Path, *rest: object) -> dict[str, Any]:
    """One command of a tool's runner: its answer, with `whole_seconds` and `peak_memory_mb` for `dedup`."""
    folder = (scratch / f"{tool}-{mode}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / "answer.json"
    script = HERE / "peers" / f"run_{tool}.py"
    between = folder / "scratch" if mode == "dedup" else rest[0]
    extra = OFFLINE | {"HF_HOME": str(folder / "hf"), "PYTHONUNBUFFERED": "1"}
    command = [python, script, mode, inputs.resolve(), between, out, *(rest if mode == "dedup" else ())]
    seconds, peak = watched(command, folder, extra)
    answer = json.loads(out.read_text())
    if mode == "dedup":
        answer |= {"whole_seconds": seconds, "peak_memory_mb": peak}
    shutil.rmtree(folder)
    return {"similarities": answer} if mode == "pairs" else dict(answer)


@dataclass
class Outcome:
    """What one tool made of the sample.

    Attributes:
        kept: Ids that stay.
        groups: Groups of two or more copies.
        links: Lists of documents that were brought together directly.
        candidates: Lists of documents that were compared if one was kept; none for a tool that does not compare.
    """

    kept: set[str]
    groups: list[list[str]]
    links: list[list[str]]
    candidates: list[list[str]] | None = None

    @cached_property
    def group(self) -> dict[str, int]:
        """Number of the group of each document that has one."""
        return {name: number for number, group in enumerate(self.groups) for name in group}

    def together(self, a: str, b: str) -> bool:
        """Whether two documents are in one group."""
        return self.group.get(a, -1) == self.group.get(b, -2)

    @cached_property
    def linked(self) -> dict[str, list[int]]:
        """Numbers of the links that each document is in."""
        return _memberships(self.links)

    @cached_property
    def bucketed(self) -> dict[str, list[int]]:
        """Numbers of the lists of candidates that each document is in."""
        return _memberships(self.candidates or [])

    def direct(self, a: str, b: str) -> bool:
        """Whether two documents were brought together directly."""
        return not set(self.linked.get(a, ())).isdisjoint(self.linked.get(b, ()))

    def candidate(self, a: str, b: str) -> bool:
        """Whether two documents share a bucket of a tool that compares what does."""
        return not set(self.bucketed.get(a, ())).isdisjoint(self.bucketed.get(b, ()))

    def survivor(self, name: str) -> str | None:
        """The kept document of a document's group, itself included; none if there is none."""
        group = self.groups[self.group[name]] if name in self.group else [name]
        return next((other for other in group if other in self.kept), None)

    def pairs(self) -> set[Pair]:
        """All pairs of documents that are in one group, each in alphabetical order."""
        return {pair for group in self.groups for pair in combinations(sorted(group), 2)}

    def chain(self, a: str, b: str) -> list[Pair]:
        """The fewest direct links that lead from one document of a group to another."""
        before: dict[str, str] = {a: a}
        queue, opened = collections.deque([a]), set()
        while queue and b not in before:
            name = queue.popleft()
            for number in self.linked.get(name, ()):
                if number in opened:
                    continue
                opened.add(number)
                for other in self.links[number]:
                    if other not in before:
                        before[other] = name
                        queue.append(other)
        path = [b]
        while path[-1] != a:
            path.append(before[path[-1]])
        return list(pairwise(path[::-1]))


def our_outcome(folder: Path, scratch: Path, truth: Truth) -> Outcome:
    """Ropewalk's, with its defaults. Its links are the pairs of a group that are copies: candidates are compared."""
    ours = run_ours(folder, scratch, {}, truth)
    assert (ours.facts["bands"], ours.facts["rows"]) == (BANDS, ROWS)
    members: dict[int, list[str]] = {}
    for i, survivor in enumerate(ours.survivor.tolist()):
        members.setdefault(survivor, []).append(truth.ids[i])
    kept = {truth.ids[i] for i in members}
    groups = [group for group in members.values() if len(group) > 1]
    outcome = Outcome(kept, groups, [])
    one, other, similarity = truth.pairs
    for a, b in zip(one[similarity >= THRESHOLD].tolist(), other[similarity >= THRESHOLD].tolist(), strict=True):
        if outcome.together(truth.ids[a], truth.ids[b]):
            outcome.links.append([truth.ids[a], truth.ids[b]])
    return outcome


class Bands:
    """Our buckets, from the transform that the stage uses: each document is compared with the best of its bucket."""

    def __init__(self, sample: list[dict[str, Any]]) -> None:
        sketch = MinHash(ngram=5, num_perm=BANDS * ROWS, seed=0)
        sketch.setup()
        self.keys: dict[str, list[bytes]] = {}
        self._best: dict[tuple[int, bytes], tuple[int, set[str]]] = {}
        for start in range(0, len(sample), 1000):
            self._add(sketch, sample[start : start + 1000])

    def _add(self, sketch: MinHash, some: list[dict[str, Any]]) -> None:
        sizes = [len(r["text"].encode()) for r in some]
        columns = {
            "id": pa.array([f"{i:032x}" for i in range(len(some))]),
            "text": pa.array([r["text"] for r in some], pa.large_string()),
            "source": pa.array(["sample"] * len(some)),
            "num_bytes": pa.array(sizes, pa.uint32()),
        }
        signatures = sketch(pa.RecordBatch.from_pydict(columns))[0].column("signature").to_pylist()
        for record, size, signature in zip(some, sizes, signatures, strict=True):
            bands = np.array(signature, np.uint32).reshape(BANDS, ROWS)
            self.keys[record["id"]] = [band.tobytes() for band in bands]
            for bucket in enumerate(self.keys[record["id"]]):
                best, names = self._best.get(bucket, (0, set()))
                if size >= best:
                    self._best[bucket] = (size, {record["id"]} | (names if size == best else set()))

    def centres(self, a: str, b: str) -> set[str]:
        """The best documents of the buckets that two share: the longest, all of them where the id decides."""
        shared = [bucket for bucket in enumerate(self.keys[a]) if self.keys[b][bucket[0]] == bucket[1]]
        return {name for bucket in shared for name in self._best[bucket][1]}


@dataclass
class Comparison:
    """Ropewalk against one other tool.

    Attributes:
        ours: What we made of it.
        theirs: What they did.
        truth: Exact similarities under our words.
        peer: Exact similarities under theirs, by pair; filled by `ask_peer`.
        bands: Our signatures.
    """

    ours: Outcome
    theirs: Outcome
    truth: Truth
    peer: dict[Pair, float]
    bands: "Bands"

    def similarities(self, a: str, b: str) -> tuple[float, float]:
        """Under our words and under theirs."""
        return self.truth.jaccard(self.truth.place[a], self.truth.place[b]), self.peer[min(a, b), max(a, b)]

    def differing_pairs(self) -> list[Pair]:
        """Pairs that are in one group for one tool only."""
        return sorted(self.ours.pairs() ^ self.theirs.pairs())

    def differing_documents(self) -> list[str]:
        """Documents that only one tool keeps."""
        return sorted(self.ours.kept ^ self.theirs.kept)

    def replaced(self, name: str) -> Pair | None:
        """A document that one tool removed, and the survivor that took its place there."""
        remover = self.theirs if name in self.ours.kept else self.ours
        survivor = remover.survivor(name)
        return None if survivor is None or survivor == name else (name, survivor)

    def breaks(self, a: str, b: str) -> list[Pair]:
        """The links of the chain between two documents that the other tool does not have together."""
        joiner, other = (self.theirs, self.ours) if self.theirs.together(a, b) else (self.ours, self.theirs)
        return [pair for pair in joiner.chain(a, b) if not other.together(*pair)]

    def pair_class(self, a: str, b: str) -> str:
        """Class of a pair that is in one group for exactly one tool."""
        mine, theirs = self.similarities(a, b)
        if theirs < 0:
            return "left_out"
        compares = self.theirs.candidates is not None
        if self.ours.together(a, b):
            if mine < THRESHOLD:
                return "transitivity"
            if theirs < THRESHOLD:
                return "normalisation"
            if compares and (self.theirs.kept.isdisjoint((a, b)) or self.theirs.direct(a, b)):
                return "kept_only"
            return "their_estimate" if self.theirs.candidate(a, b) else "their_band_miss"
        if mine >= THRESHOLD:
            centres = self.bands.centres(a, b)
            if not centres:
                return "our_band_miss"
            return "unexplained" if {a, b} & centres else "our_star_edges"
        if theirs >= THRESHOLD:
            return "normalisation"
        if not self.theirs.direct(a, b):
            return "transitivity"
        return "their_estimate" if compares else "no_verification"

    def document_class(self, name: str) -> str:
        """Class of a document that one tool keeps and the other removes."""
        pair = self.replaced(name)
        if pair is None:
            return "left_out" if self.theirs.survivor(name) is None else "unexplained"
        stayer = self.ours if name in self.ours.kept else self.theirs
        return "other_survivor" if stayer.together(*pair) else self.pair_class(*pair)

    def wanted(self) -> set[Pair]:
        """Pairs whose similarity under their words is asked of them."""
        found = set(self.differing_pairs())
        replaced = [pair for name in self.differing_documents() if (pair := self.replaced(name))]
        for pair in replaced:
            if not (self.ours.together(*pair) and self.theirs.together(*pair)):
                found.update(self.breaks(*pair))
        return {(min(pair), max(pair)) for pair in [*found, *replaced]}

    def example(self, pair: Pair | None, name: str) -> dict[str, Any]:
        """What the result shows of a disagreement."""
        if pair is None:
            return {"document": name}
        mine, theirs = self.similarities(*pair)
        return {"pair": list(pair), "under_our_words": round(mine, 4), "under_theirs": round(theirs, 4)}

    def report(self) -> dict[str, Any]:
        """Counts and three examples of each class."""
        pairs: dict[str, list[Pair]] = {}
        for pair in self.differing_pairs():
            pairs.setdefault(self.pair_class(*pair), []).append(pair)
        documents: dict[str, list[str]] = {}
        for name in self.differing_documents():
            documents.setdefault(self.document_class(name), []).append(name)
        chained = [pair for name in documents.get("transitivity", []) if (pair := self.replaced(name))]
        weak = collections.Counter(self.pair_class(*link) for pair in chained for link in self.breaks(*pair))
        examples = {
            kind: [self.example(pair, "") for pair in _spread(found)] for kind, found in sorted(pairs.items())
        } | {
            f"{kind}, documents": [self.example(self.replaced(name), name) for name in _spread(found)]
            for kind, found in sorted(documents.items())
        }
        return {
            "kept": len(self.theirs.kept),
            "kept_by_both": len(self.ours.kept & self.theirs.kept),
            "kept_by_us_only": len(self.ours.kept - self.theirs.kept),
            "kept_by_them_only": len(self.theirs.kept - self.ours.kept),
            "pairs_joined": len(self.theirs.pairs()),
            "pairs_joined_by_us_only": len(self.ours.pairs() - self.theirs.pairs()),
            "pairs_joined_by_them_only": len(self.theirs.pairs() - self.ours.pairs()),
            "pairs_by_class": _counts(pairs),
            "documents_by_class": _counts(documents),
            "chain_breaks": dict(sorted(weak.items())),
            "unexplained": len(pairs.get("unexplained", [])) + len(documents.get("unexplained", [])),
            "examples": examples,
        }


def _memberships(lists: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, members in enumerate(lists):
        for name in members:
            found.setdefault(name, []).append(number)
    return found


def _counts(found: Mapping[str, Sequence[object]]) -> dict[str, int]:
    return {kind: len(some) for kind, some in sorted(found.items())}


def _spread(found: Sequence[Any], most: int = 3) -> list[Any]:
    """The first, the middle and the last."""
    return [found[i] for i in sorted({0, len(found) // 2, len(found) - 1})][:most]


def judgement(outcome: Outcome, truth: Truth) -> dict[str, Any]:
    """A tool against the exact similarities under our words, so that all of them can be put side by side."""
    one, other, similarity = truth.pairs
    joined = np.array([outcome.together(truth.ids[a], truth.ids[b]) for a, b in zip(one, other, strict=True)], bool)
    removed = [(name, outcome.survivor(name)) for name in truth.ids if name not in outcome.kept]
    exact = [truth.jaccard(truth.place[name], truth.place[s]) for name, s in removed if s is not None]
    return {
        "removed": len(removed),
        "recall_of_pairs": round(float(joined[similarity >= THRESHOLD].mean()), 4),
        "removed_similar_to_survivor": round(float((np.array(exact) >= THRESHOLD).mean()), 4),
        "removed_below_half": int((np.array(exact) < 0.5).sum()),
    }


def ask_peer(python: Path, tool: str, folder: Path, scratch: Path, wanted: Iterable[Pair]) -> dict[Pair, float]:
    """Their own exact similarity of pairs."""
    pairs = sorted(wanted)
    (scratch / "pairs.json").write_text(json.dumps(pairs))
    answer = ask(python, tool, "pairs", folder, scratch, (scratch / "pairs.json").resolve())
    return dict(zip(pairs, answer["similarities"], strict=True))


def print_table(found: Mapping[str, Any]) -> None:
    """One line a tool, then one a class."""
    print(f"\n{'':14}{'kept':>7}{'removed':>9}{'recall':>8}{'>= t to survivor':>18}")
    for tool, one in found.items():
        about = one["judged"]
        print(
            f"{tool:14}{one['kept']:7}{about['removed']:9}{about['recall_of_pairs']:8.3f}"
            f"{about['removed_similar_to_survivor']:18.3f}"
        )
    peers = {tool: one for tool, one in found.items() if tool != "ropewalk"}
    for what in ("documents_by_class", "pairs_by_class"):
        kinds = sorted({kind for one in peers.values() for kind in one[what]})
        print(f"\n{what:24}" + "".join(f"{tool:>13}" for tool in peers))
        for kind in kinds:
            print(f"{kind:24}" + "".join(f"{one[what].get(kind, 0):13}" for one in peers.values()))
    print(f"{'unexplained':24}" + "".join(f"{one['unexplained']:13}" for one in peers.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=HERE.parent / "build" / "peers", help="the tools' environments")
    parser.add_argument("--tools", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=HERE.parent / "build" / "dedup")
    parser.add_argument("--reuse", action="store_true", help="what is in --scratch is not run again")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "dedup_peers.json")
    args = parser.parse_args()
    pythons = {tool: python_of(args.envs, tool) for tool in args.tools}
    folder = args.scratch / f"sample-{args.documents}-{args.seed}"
    facts = make_sample(folder, args.documents, args.seed)
    sample = records(folder)
    truth = Truth.of(sample)
    if not args.reuse:
        shutil.rmtree(args.scratch / "ropewalk", ignore_errors=True)
    ours = our_outcome(folder, args.scratch, truth)
    bands = Bands(sample)
    found: dict[str, Any] = {
        "ropewalk": {
            "kept": len(ours.kept),
            "pairs_joined": len(ours.pairs()),
            "judged": judgement(ours, truth),
        }
    }
    for tool, python in pythons.items():
        print(f"{tool}: {versions_of(python, tool)}", flush=True)
        saved = args.scratch / f"{tool}-{args.documents}-{args.seed}.json"
        if not (args.reuse and saved.exists()):
            saved.write_text(json.dumps(ask(python, tool, "dedup", folder, args.scratch, "--links")))
        answer = json.loads(saved.read_text())
        theirs = Outcome(set(answer["kept"]), answer["groups"], answer["links"], answer.get("candidates"))
        comparison = Comparison(ours, theirs, truth, {}, bands)
        comparison.peer = ask_peer(python, tool, folder, args.scratch, comparison.wanted())
        found[tool] = {
            "versions": versions_of(python, tool),
            "judged": judgement(theirs, truth),
        } | comparison.report()
    print_table(found)
    result = {
        "what": "the same documents through other tools; see benchmarks/dedup_peers.py for the classes",
        **machine({}),
        "sample": facts,
        "settings": {"bands": BANDS, "rows": ROWS, "ngram": 5, "threshold": THRESHOLD},
        "tools": found,
    }
    args.results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
