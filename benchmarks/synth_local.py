"""Measures what the embedded engine loses against OpenVINO alone: tokens a second, same prompts, same sampling.

    python benchmarks/synth_local.py                     # 1, 8 and 16 sequences of 256 tokens, three repetitions
    python benchmarks/synth_local.py --tokens 32 --repeat 1 --sequences 1 4

`raw` is one call of `ContinuousBatchingPipeline.generate` for the whole batch, a loop inside C++; `engine` is as many
`SteppedEngine.generate` tasks at once, with chat template, tokenization, decoding and the loop guard. Both have a
pipeline of their own in this process, and take turns in each repetition, the one that goes first changing. Each size
is run once before, not counted. Answers go on past their end to the last token, so that both do the same work; beyond
256 tokens the loop guard may end some, and `tokens` tells. Medians and their ratio go to `results/synth_local.json`.
"""

import argparse
import asyncio
import importlib.metadata
import json
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from machine import machine

from ropewalk.schemas import smollm2
from ropewalk.schemas.synth_recipe import EngineConfig
from ropewalk.synth.engine import Engine, Message, Repetition, Request, Sampling
from ropewalk.synth.engines import local

HERE = Path(__file__).resolve().parent
TOPICS = (
    "tea", "rain", "lighthouses", "bicycles", "old maps", "bread", "bees", "bridges", "winter", "letters", "markets",
    "harbours", "clocks", "gardens", "trains", "salt",
)  # fmt: skip
PROMPTS = [f"Write an essay about {topic} and the people who live with it." for topic in TOPICS]
TEMPERATURE, TOP_P = 0.7, 0.95


class Raw:
    """OpenVINO alone, set up as the engine sets it up."""

    def __init__(self, max_sequences: int) -> None:
        self._ov = local.import_openvino()
        scheduler = self._ov.SchedulerConfig()
        scheduler.max_num_seqs = max_sequences
        scheduler.num_kv_blocks = max_sequences * local.BLOCKS_PER_SEQUENCE
        scheduler.enable_prefix_caching = True
        self._pipe = self._ov.ContinuousBatchingPipeline(str(smollm2.checked_path()), scheduler, "CPU")

    def run(self, prompts: list[str], tokens: int) -> int:
        """Generates; returns the number of tokens."""
        tokenizer = self._pipe.get_tokenizer()
        inputs, configs = [], []
        for seed, prompt in enumerate(prompts):
            text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
            inputs.append(tokenizer.encode(text, add_special_tokens=False).input_ids)
            config = self._pipe.get_config()
            config.apply_chat_template, config.ignore_eos, config.max_new_tokens = False, True, tokens
            config.do_sample, config.temperature, config.top_p, config.rng_seed = True, TEMPERATURE, TOP_P, seed
            configs.append(config)
        return sum(len(result.m_generation_ids[0]) for result in self._pipe.generate(inputs, configs))


async def run_engine(engine: Engine, prompts: list[str], tokens: int) -> int:
    """Generates by the engine; returns the number of tokens."""
    requests = [
        Request(
            row=str(seed),
            step="bench",
            messages=(Message("user", prompt),),
            sampling=Sampling(
                max_tokens=tokens,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                seed=seed,
                repetition=Repetition(),
                extra={"ignore_eos": True},
            ),
        )
        for seed, prompt in enumerate(prompts)
    ]
    answers = await asyncio.gather(*(engine.generate(request) for request in requests))
    return sum(len(answer.token_ids) for answer in answers)


async def measure(sizes: list[int], tokens: int, repeat: int) -> list[dict[str, Any]]:
    """A row for each size, repetition and side."""
    raw = Raw(max(sizes))
    engine = local.from_config(EngineConfig(max_sequences=max(sizes)))
    await engine.start()
    rows = []
    for size in sizes:
        prompts = [PROMPTS[place % len(PROMPTS)] for place in range(size)]
        for repetition in range(repeat + 1):
            sides = ("raw", "engine") if repetition % 2 else ("engine", "raw")
            for side in sides:
                start, cpu = time.perf_counter(), time.process_time()
                if side == "raw":
                    made = raw.run(prompts, tokens)
                else:
                    made = await run_engine(engine, prompts, tokens)
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                row = {
                    "sequences": size, "repetition": repetition, "side": side, "tokens": made,
                    "seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3),
                    "tokens_per_second": round(made / seconds, 1),
                }  # fmt: skip
                print(row, flush=True)
                if repetition:  # the first fills caches of both
                    rows.append(row)
    await engine.close()
    return rows


def medians(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tokens a second of both sides and their ratio, a row a size."""
    found = []
    for size in dict.fromkeys(row["sequences"] for row in rows):
        raw, engine = (
            statistics.median(r["tokens_per_second"] for r in rows if (r["sequences"], r["side"]) == (size, side))
            for side in ("raw", "engine")
        )
        found.append({"sequences": size, "raw": raw, "engine": engine, "ratio": round(engine / raw, 3)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "synth_local.json")
    args = parser.parse_args()
    rows = asyncio.run(measure(args.sequences, args.tokens, args.repeat))
    versions = {name: importlib.metadata.version(name) for name in ("ropewalk", "openvino-genai", "openvino")}
    result = {
        "model": Path(smollm2.FILE).stem,
        "sampling": {"temperature": TEMPERATURE, "top_p": TOP_P, "tokens": args.tokens},
        "command": shlex.join(["python", "benchmarks/synth_local.py", *sys.argv[1:]]),
        **machine({"python": platform.python_version()} | versions),
        "medians": medians(rows),
        "runs": rows,
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["medians"], indent=1))


if __name__ == "__main__":
    main()
