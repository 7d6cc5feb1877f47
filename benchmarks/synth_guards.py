"""What the guards cost, and how well they tell loops from what people write.

    .venv/bin/python benchmarks/synth_guards.py --human human.jsonl --out benchmarks/results/synth_guards.json

`--human` is a JSONL file of texts that people wrote, with `text` and `language` (`en` or `zh`) in every record. Three
things are measured: false rejects on them (`guards.calibrate`); the share of loops refused, of every kind below, put
into the first 600 to 3,000 words of them; and MB/s of `metrics.measure` and of `Guards.check` on texts of 5,000 and
32,000 words, in as many processes as there are cores, each measuring its own texts. Without `--human`, only the speed
is measured, on made-up words.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from machine import machine

from ropewalk.synth.guards import calibrate, table
from ropewalk.synth.guards.check import Guards
from ropewalk.synth.guards.metrics import measure
from ropewalk.synth.recipe import Unacceptable


class Source:
    """A text to spoil: its units, and how they are joined."""

    def __init__(self, text: str, language: str, draw: np.random.Generator) -> None:
        self.language, self.draw = language, draw
        self.space = "" if language == "zh" else " "
        budget = int(draw.integers(600, 3000)) * (1 if language == "zh" else 6)
        self.paragraphs: list[str] = []
        for paragraph in text.split("\n\n"):
            self.paragraphs.append(paragraph)
            budget -= len(paragraph)
            if budget < 0:
                break
        self.text = "\n\n".join(self.paragraphs)

    def piece(self, words: int) -> str:
        """So many words in a row (characters of Chinese, twice as many) from somewhere in the text."""
        units = list(self.text.replace("\n", "")) if self.language == "zh" else self.text.split()
        words = min(words * (2 if self.language == "zh" else 1), len(units))
        start = int(self.draw.integers(len(units) - words + 1))
        return self.space.join(units[start : start + words])

    def lines(self, count: int) -> str:
        """So many different lines."""
        return "\n".join(self.piece(int(self.draw.integers(4, 12))) for _ in range(count))

    def edited(self, piece: str, changes: int) -> str:
        """The piece with some of its words exchanged."""
        units = list(piece) if self.language == "zh" else piece.split()
        for _ in range(changes):
            units[int(self.draw.integers(len(units)))] = self.piece(1)
        return self.space.join(units)


def _end(source: Source, loop: str) -> str:
    return f"{source.text}\n\n{loop}"


def _middle(source: Source, loop: str) -> str:
    half = len(source.paragraphs) // 2
    return "\n\n".join([*source.paragraphs[:half], loop, *source.paragraphs[half:]])


LOOPS: dict[str, Callable[[Source], str]] = {
    "word x 300": lambda s: _end(s, s.space.join([s.piece(1)] * 300)),
    "phrase of 6 words x 60": lambda s: _end(s, s.space.join([s.piece(6)] * 60)),
    "sentence of 20 words x 15": lambda s: _end(s, s.space.join([s.piece(20) + "."] * 15)),
    "sentence of 20 words x 4": lambda s: _end(s, s.space.join([s.piece(20) + "."] * 4)),
    "phrase of 6 words x 10 in the middle": lambda s: _middle(s, s.space.join([s.piece(6)] * 10)),
    "paragraph of 80 words twice": lambda s: _end(s, "\n\n".join([s.piece(80)] * 2)),
    "sentence x 15 in the middle": lambda s: _middle(s, s.space.join([s.piece(20) + "."] * 15)),
    "two sentences in turn x 12": lambda s: _end(s, s.space.join([s.piece(15) + ". " + s.piece(12) + ". "] * 12)),
    "line x 25": lambda s: _end(s, "\n".join([s.piece(10)] * 25)),
    "numbered line x 25": lambda s: _end(s, "\n".join(f"{i}. {p}" for p in [s.piece(12)] for i in range(1, 26))),
    "paragraph of 80 words x 5": lambda s: _end(s, "\n\n".join([s.piece(80)] * 5)),
    "paragraph x 5 in the middle": lambda s: _middle(s, "\n\n".join([s.piece(80)] * 5)),
    "paragraph with two words changed x 6": lambda s: _end(
        s, "\n\n".join(s.edited(p, 2) for p in [s.piece(80)] for _ in range(6))
    ),
    "block of 92 lines x 4": lambda s: _end(s, "\n".join([s.lines(92)] * 4)),
    "last third once more": lambda s: _end(s, "\n\n".join(s.paragraphs[-max(1, len(s.paragraphs) // 3) :])),
    "one letter x 500": lambda s: _end(s, ("哈" if s.language == "zh" else "a") * 500),
    "dots x 500": lambda s: _end(s, ". " * 500),
}


def recall(rows: list[tuple[str, str]], guards: Guards) -> dict[str, dict[str, float]]:
    """Share of loops refused, by language and kind; only texts that are clean before are spoiled."""
    found: dict[str, dict[str, list[bool]]] = {}
    kept: dict[str, list[float]] = {}
    draw = np.random.default_rng(0)
    for text, language in rows:
        source = Source(text, language, draw)
        if guards.examine(source.text, language=language)[1]:
            continue
        for kind, spoil in LOOPS.items():
            refused = False
            try:
                guards.check(spoil(source), language=language)
            except Unacceptable as fault:
                refused = fault.reason == "repetition"
                kept.setdefault(language, []).append(min(1.0, len(fault.keep) / len(source.text)))
            found.setdefault(language, {}).setdefault(kind, []).append(refused)
    out: dict[str, dict[str, float]] = {}
    for language, kinds in found.items():
        out[language] = {kind: round(float(np.mean(hits)), 4) for kind, hits in kinds.items()}
        out[language]["all"] = round(float(np.mean([hit for hits in kinds.values() for hit in hits])), 4)
        out[language]["texts"] = len(kinds["line x 25"])
        out[language]["clean_text_kept_share"] = round(float(np.mean(kept[language])), 3)
    return out


def made_up(words: int, seed: int) -> str:
    """English-looking text of so many words: Zipf-distributed made-up words, in sentences and paragraphs."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lexicon = ["".join(draw.choice(letters, int(draw.integers(2, 10)))) for _ in range(20_000)]
    ranks = np.minimum(draw.zipf(1.2, words), len(lexicon)) - 1
    out = []
    for at, rank in enumerate(ranks.tolist(), 1):
        out.append(lexicon[rank] + (".\n\n" if at % 120 == 0 else ". " if at % 17 == 0 else " "))
    return "".join(out)


def _work(task: tuple[str, list[str], int]) -> tuple[float, float]:
    what, texts, repeats = task
    guards = Guards()
    measure(texts[0], "en")  # compiled, or read from numba's cache, before the clock starts
    guards.examine(texts[0], language="en")
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        for text in texts:
            if what == "measure":
                measure(text, "en")
            else:
                guards.examine(text, language="en", whole=True)
    return time.perf_counter() - start, time.process_time() - cpu


def speed(texts: dict[int, list[str]]) -> Iterator[dict[str, object]]:
    """MB/s of all cores together by the wall clock, other load included, and CPU milliseconds of one text."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        for words, group in texts.items():
            size = sum(len(text.encode()) for text in group)
            for what in ("measure", "check"):
                repeats = max(1, 640_000 // (words * len(group)))
                spent = list(pool.map(_work, [(what, group, repeats)] * cores))
                cpu = sum(seconds for _, seconds in spent)
                yield {
                    "what": what, "words": words, "bytes": size // len(group), "processes": cores,
                    "mb_per_second": round(cores * size * repeats / 1e6 / max(seconds for seconds, _ in spent), 2),
                    "mb_per_cpu_second": round(cores * size * repeats / 1e6 / cpu, 2),
                    "cpu_milliseconds_per_text": round(1e3 * cpu / (cores * repeats * len(group)), 1),
                }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--human", type=Path, help="JSONL of texts that people wrote, with text and language")
    parser.add_argument("--spoil", type=int, default=120, help="texts a language that loops are put into")
    parser.add_argument("--note", default="", help="what the human texts are; written into the result")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default: only print it")
    args = parser.parse_args()
    result: dict[str, object] = {
        "command": " ".join(["benchmarks/synth_guards.py", *sys.argv[1:]]),
        "machine": machine({"python": platform.python_version()}),
        "load_average": os.getloadavg()[0],
        "human_texts": args.note,
        "table": {g.name: [g.direction, g.en, g.zh, g.min_words, g.source] for g in table.GUARDS},
    }
    if args.human:
        with args.human.open(encoding="utf-8") as records:
            rows = [(record["text"], record["language"]) for record in map(json.loads, records)]
        result["false_rejects"] = {
            language: {
                "texts": f.texts, "words": f.words, "rejected": f.rejected,
                "rejected_share": round(f.rejected_share, 4),
                "by_guard": {name: count for name, count in f.by_guard.items() if count},
                "percentiles": {n: {str(p): round(v, 4) for p, v in q.items()} for n, q in f.percentiles.items()},
            }
            for language, f in calibrate.calibrate(rows).languages.items()
        }  # fmt: skip
        draw = np.random.default_rng(1)
        chosen: list[tuple[str, str]] = []
        for language in sorted({language for _, language in rows}):
            own = [row for row in rows if row[1] == language]
            order = draw.permutation(len(own))[: args.spoil]
            chosen += [own[i] for i in sorted(order.tolist())]
        result["loops_refused"] = recall(chosen, Guards())
    result["speed"] = list(speed({words: [made_up(words, seed) for seed in range(4)] for words in (5_000, 32_000)}))
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
