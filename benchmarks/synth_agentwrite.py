"""Direct prompting against AgentWrite on the embedded model, and the engine's own speed beside them, in one run.

    .venv/bin/python benchmarks/synth_agentwrite.py

Twenty writing tasks of our own, 300 to 1,500 words, go through `ropewalk synth` with both recipes. Then every third
request of the AgentWrite run is given to the engine once more, all at once, for exactly as many tokens as it had
generated: what the engine can do with this work where nothing has to wait for anything. Only figures are kept, no text.
Runs below `--scratch` that were finished or killed before go on from there: for timings, begin with an empty folder.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from machine import machine

from ropewalk.pipelines import synth
from ropewalk.pipelines.synth_manifest import read_engine
from ropewalk.schemas.synth_recipe import SynthRecipe, parse_synth_recipe
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import Request
from ropewalk.synth.engines.local import OpenVinoStepper
from ropewalk.synth.recipe import Prompt
from ropewalk.synth.recipes.load import load as load_recipe
from ropewalk.synth.scores.length import s_l
from ropewalk.synth.scores.words import count_words
from ropewalk.synth.trace import trace

HERE = Path(__file__).resolve().parent
TASKS = HERE / "writing_tasks.jsonl"
AGENTWRITE = {
    "name": "agentwrite", "plan": "outline", "section_words": 100, "min_paragraph": 50, "context_words": 0,
    "cut_sentences": True,
}  # fmt: skip
SAMPLING = {"temperature": 0.7, "min_p": 0.1, "repetition_penalty": 1.1}


def recipe_of(way: dict[str, Any], output: Path, args: argparse.Namespace) -> SynthRecipe:
    """The run of one way of writing."""
    engine = {"name": "local", "model": args.model, "max_sequences": args.sequences}
    return parse_synth_recipe(
        {
            "output": str(output), "prompts": str(TASKS), "recipe": way, "engine": engine, "sampling": SAMPLING,
            "generation": {"attempts": args.attempts}, "seed": 1,
        }
    )  # fmt: skip


def figures_of(recipe: SynthRecipe) -> dict[str, Any]:
    """What came out of a run."""
    output = Path(recipe.output)
    metrics = json.loads((output / "metrics.json").read_text())
    rows, rejects = (datasets.load_from_disk(str(output / table)) for table in ("sft", "rejects"))
    scores = [row["s_l"] for row in rows]
    return {
        "prompts": len(rows) + len(rejects),
        "rows": len(rows),
        "rejects by reason": dict(Counter(rejects["reason"]).most_common()),
        "mean s_l of rows": round(statistics.mean(scores), 1) if scores else None,
        "mean s_l of prompts, no row counts 0": round(sum(scores) / (len(rows) + len(rejects)), 1),
        "mean words": round(statistics.mean(rows["output_words"])) if len(rows) else None,
        "requests": metrics["answered-requests"],
        "refused replies by reason": metrics["refused_by_reason-replies"],
        "generated tokens": metrics["generated-tokens"],
        "wasted tokens": metrics["wasted-tokens"],
        "seconds": round(metrics["elapsed-seconds"], 1),
        "tokens/s": round(metrics["generated-tokens"] / metrics["elapsed-seconds"], 1),
        "busy share of slots": round(metrics["busy-share"], 3),
    }


async def answered(recipe: SynthRecipe) -> list[tuple[Prompt, list[tuple[Request, str, int]]]]:
    """Each prompt of a finished run with its requests, their texts and tokens, found by running it over the cache."""
    info = read_engine(recipe.output)
    assert info is not None
    cache = RequestCache.open(recipe.cache_url)
    found = []
    for row in datasets.load_from_disk(f"{recipe.output}/prompts"):
        prompt = Prompt(
            **{name: row[name] for name in row if name != "source_ids"}, source_ids=tuple(row["source_ids"])
        )
        events = await trace(prompt, load_recipe(recipe.recipe), cache, info, recipe)
        replies = [e for e in events if e.kind == "cached"]
        found.append((prompt, [(e.request, e.completion.text, e.completion.usage.generated) for e in replies]))
    await cache.close()
    return found


def raw_speed(recipe: SynthRecipe, requests: list[tuple[Request, int]]) -> float:
    """Tokens per second of the engine with all requests at once, longest first, and no scheduler of ours."""
    stepper = OpenVinoStepper(recipe.engine.model, max_sequences=recipe.engine.max_sequences, options={})
    stepper.load()
    try:
        prompts = [[*stepper.encode_chat(request.messages), *request.generated_ids] for request, _ in requests]
        began, tokens = time.perf_counter(), 0
        for number in sorted(range(len(requests)), key=lambda n: -requests[n][1]):
            request, generated = requests[number]
            extra = {**request.sampling.extra, "ignore_eos": True}
            sampling = replace(request.sampling, max_tokens=generated, min_tokens=generated, stop=(), extra=extra)
            stepper.add(number, prompts[number], sampling)
        while stepper.unfinished():
            tokens += sum(len(done.token_ids) for done in stepper.step())
        return tokens / (time.perf_counter() - began)
    finally:
        stepper.unload()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--raw-every", type=int, default=3, help="give the engine every so-manieth request again")
    parser.add_argument("--model", default=None, help="another GGUF or OpenVINO model; default: SmolLM2-135M")
    parser.add_argument("--scratch", type=Path, default=HERE.parent / "build" / "bench-synth")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    recipes = {}
    for name, way in {"direct": {"name": "direct"}, "agentwrite": AGENTWRITE}.items():
        recipes[name] = recipe_of(way, args.scratch / name, args)
        outcome = synth.run(recipes[name])
        assert outcome.manifest is not None, outcome.stopped
        found[name] = figures_of(recipes[name])
        print(name, json.dumps(found[name], indent=2), flush=True)
    direct = asyncio.run(answered(recipes["direct"]))
    first = [s_l(prompt.required_words or 0, count_words(replies[0][1])) for prompt, replies in direct if replies]
    found["direct"]["mean s_l of first replies, unguarded"] = round(statistics.mean(first), 1)
    work = [
        (request, tokens)
        for _, replies in asyncio.run(answered(recipes["agentwrite"]))
        for request, _, tokens in replies
    ]
    speed = raw_speed(recipes["agentwrite"], work[:: args.raw_every])
    found["raw tokens/s"] = round(speed, 1)
    found["share of raw"] = round(found["agentwrite"]["tokens/s"] / speed, 3)
    facts = {
        "command": f"benchmarks/synth_agentwrite.py --sequences {args.sequences} --attempts {args.attempts}",
        "recipe": AGENTWRITE, "sampling": SAMPLING, "model": args.model or "SmolLM2-135M-Instruct Q4_1",
    } | machine(_versions())  # fmt: skip
    result = {"facts": facts, "figures": found}
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "synth_agentwrite.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=2, ensure_ascii=False))


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("ropewalk", "openvino-genai", "numpy")}


if __name__ == "__main__":
    main()
