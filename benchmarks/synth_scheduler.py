"""How full the scheduler keeps the batch, and what barriers cost: simulated engines in virtual time.

    .venv/bin/python benchmarks/synth_scheduler.py
    .venv/bin/python benchmarks/synth_scheduler.py --peer /path/to/venv/with/datatrove/bin/python

500 rows shaped like AgentWrite's: a plan, then 2 to 50 paragraphs one after the other, each request with the text so
far. The same calls, from the same recipe to the same engine, are executed in four ways:

    ours            `Generation.run`
    batches         as many rows at once as there are slots; the next batch when the last row of it has ended
    stage by stage  all plans, then all first paragraphs, then all second ones, ...
    both            batches, and each of them stage by stage: a chain of batch calls, such as Beam's RunInference

The engine is `echo`: sequences are decoded in step, a step of n sequences takes a + b n seconds; reading a prompt holds
up the batch, but for what a prefix cache of the size of the KV cache still holds of it. Two machines: `local` has the
figures measured for SmolLM2-135M with OpenVINO on 2 cores; `gpu` is an assumption (8B parameters on one large GPU),
since no GPU was here to measure. The KV cache holds 24,576 tokens a slot, the longest row; `tight` is `gpu` with 8,192,
where not all slots can be used. One simulated token stands for 40, with 40 times its latency.

With `--peer`, datatrove's InferenceRunner and Ropewalk also run 40 of the rows against one and the same HTTP server on
this machine, in real time with short latencies, both with their caches on disk; the server keeps the time, from the
first request to the last answer.
"""

import argparse
import asyncio
import dataclasses
import json
import math
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

import synth_peer
from machine import machine

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth import virtual_time
from ropewalk.synth.engine import Message, Request
from ropewalk.synth.engines.echo import EchoEngine, EchoOptions
from ropewalk.synth.generation import Generation
from ropewalk.synth.recipe import Ask, Prompt, Sample
from ropewalk.synth.testing import MemoryCache, NoGuards, no_loop

HERE = Path(__file__).resolve().parent
SCALE = 40  # tokens that one simulated token stands for
SLOTS = (16, 64, 256)
KV_TOKENS = {"local": 24576, "gpu": 24576, "tight": 8192}  # that the KV cache holds for each slot
MACHINES = {
    # 1 sequence: 33 tokens/s, 16: 238, as measured; 0.75 s for a prompt of 1,000 tokens
    "local": {"step_seconds": 0.0276, "sequence_step_seconds": 0.00247, "prompt_token_seconds": 0.00075},
    "gpu": {"step_seconds": 0.008, "sequence_step_seconds": 0.00007, "prompt_token_seconds": 0.00005},
}
MACHINES["tight"] = MACHINES["gpu"]
PEER_ROWS = 40
WAYS = ("ours", "batches", "stage by stage", "both")


@dataclasses.dataclass(frozen=True)
class Shape:
    """Tokens a row really takes, simulated; what the recipe expects is rounder."""

    plan: int
    paragraphs: tuple[int, ...]


def shapes(rows: int, seed: int) -> dict[str, Shape]:
    """2 to 50 paragraphs of about 450 tokens, log-normal, each row's around a mean of its own."""
    rng = random.Random(seed)
    found = {}
    for number in range(rows):
        steps = rng.randint(2, 50)
        mean = rng.uniform(300, 600)
        lengths = [min(2000.0, max(60.0, rng.lognormvariate(math.log(mean), 0.4))) for _ in range(steps)]
        paragraphs = tuple(max(1, round(length / SCALE)) for length in lengths)
        found[f"{number:04}"] = Shape(max(1, round(30 * steps / SCALE)), paragraphs)
    return found


class Barriers:
    """Lets the rows of one group go from step to step together."""

    def __init__(self, steps: dict[str, int]) -> None:
        self._left = [sum(count > stage for count in steps.values()) for stage in range(max(steps.values()))]
        self._open = [asyncio.Event() for _ in self._left]

    async def done(self, stage: int) -> None:
        """One row has finished a stage: waits for all the others that have it."""
        self._left[stage] -= 1
        if not self._left[stage]:
            self._open[stage].set()
        await self._open[stage].wait()


class Writing:
    """The recipe: a plan, then paragraph after paragraph."""

    name, version = "writing", 1

    def __init__(self, rows: dict[str, Shape], barriers: Barriers | None = None) -> None:
        self._rows, self._barriers = rows, barriers

    def expected_tokens(self, prompt: Prompt) -> int:
        """What a task says about its length: so many paragraphs of average length."""
        return 460 // SCALE * len(self._rows[prompt.id].paragraphs)

    async def __call__(self, prompt: Prompt, ask: Ask) -> Sample:
        """Makes one row."""
        shape, text = self._rows[prompt.id], ""
        for stage in range(1 + len(shape.paragraphs)):
            messages = [Message("user", f"{prompt.prompt} {text}")]
            text += await ask(
                f"step-{stage}", messages, accept=lambda r: r.text, max_tokens=400, expected_tokens=450 // SCALE
            )
            if self._barriers is not None:
                await self._barriers.done(stage)
        return Sample((Message("assistant", text),), len(text), "en")


def reply_of(rows: dict[str, Shape]) -> Any:
    """The simulated model: as many words as the row's shape says."""

    def reply(request: Request) -> str:
        shape = rows[request.row]
        tokens = (shape.plan, *shape.paragraphs)[int(request.step.removeprefix("step-"))]
        return " w" * tokens

    return reply


def simulate(way: str, machine: str, slots: int, rows: dict[str, Shape]) -> dict[str, Any]:
    """One execution of all rows."""
    engine = EchoEngine(
        EchoOptions(
            max_tokens=slots * KV_TOKENS[machine] // SCALE, **{k: v * SCALE for k, v in MACHINES[machine].items()}
        ),
        reply=reply_of(rows),
        max_sequences=slots,
    )
    config = parse_synth_recipe({"output": "o", "prompts": "p", "engine": "echo"})
    prompts = [Prompt(name, f"Task {name}") for name in rows]

    async def run() -> float:
        groups = [prompts]
        if way in ("batches", "both"):
            groups = [prompts[start : start + slots] for start in range(0, len(prompts), slots)]
        cache = MemoryCache()
        for group in groups:
            steps = {prompt.id: 1 + len(rows[prompt.id].paragraphs) for prompt in group}
            barriers = Barriers(steps) if way in ("stage by stage", "both") else None
            generation = Generation(
                Writing(rows, barriers), engine, cache, config, guards=NoGuards(), find_loop=no_loop
            )
            await generation.start()
            if way == "ours":
                made = [row async for row in generation.run(group)]
            else:
                made = await asyncio.gather(*map(generation.make, group))
            assert all(row.sft for row in made) and len(made) == len(group)
        assert len(cache.calls) == sum(1 + len(shape.paragraphs) for shape in rows.values())
        return asyncio.get_running_loop().time()

    began = time.perf_counter()
    seconds = virtual_time.run(run())
    busy = engine.stats()["busy-seconds"] / (seconds * slots)
    return {
        "machine": machine,
        "slots-sequences": slots,
        "way": way,
        "simulated-seconds": round(seconds, 1),
        "busy-share": round(busy, 4),
        "simulation-seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", type=Path, help="Python of an environment with datatrove")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "synth_scheduler.json")
    args = parser.parse_args()
    rows = shapes(args.rows, args.seed)
    found = []
    for simulated in MACHINES:
        for slots in SLOTS:
            runs = {way: simulate(way, simulated, slots, rows) for way in WAYS}
            for way, run in runs.items():
                run["times_faster-ours"] = round(run["simulated-seconds"] / runs["ours"]["simulated-seconds"], 2)
                print(f"{simulated:6} {slots:4} {way:15} busy {run['busy-share']:.3f}", end=" ")
                print(f"{run['simulated-seconds']:10.1f} s  ours {run['times_faster-ours']:.2f}x", flush=True)
                found.append(run)
    result = {
        "what": "simulated batch: share of slots busy, and time of all rows, by way of scheduling",
        "command": f"benchmarks/synth_scheduler.py --rows {args.rows} --seed {args.seed}",
        **machine({"python": platform.python_version()}),
        "rows": args.rows,
        "requests": sum(1 + len(shape.paragraphs) for shape in rows.values()),
        "generated-tokens": SCALE * sum(shape.plan + sum(shape.paragraphs) for shape in rows.values()),
        "machines": {name: {**MACHINES[name], "kv_slot-tokens": KV_TOKENS[name]} for name in MACHINES},
        "runs": found,
    }
    if args.peer:
        result["peer"] = synth_peer.compare(
            args.peer,
            sys.executable,
            {name: [shape.plan, *shape.paragraphs] for name, shape in list(rows.items())[:PEER_ROWS]},
        )
        print(json.dumps(result["peer"], indent=2))
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
