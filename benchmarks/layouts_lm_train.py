"""Does it help? A tiny language model on the same tokens in different layouts; PyTorch and NumPy, nothing else.

    python3 benchmarks/layouts_lm_train.py --preset cpu --data build/lm-short --steps 64 --out build/lm-cpu
    python3 benchmarks/layouts_lm_train.py --preset gpu --data build/lm-long --seconds 420 --out build/lm-gpu

The first takes 25 minutes of CPU; the second is for one large GPU and never ran yet.

Reads what `layouts_lm.py` made. For each seed, one model per condition (a layout, with or without document masks):
same weights to begin with, same number of steps and tokens, same optimiser and schedule; windows in an order shuffled
over the whole corpus. The first token of a segment is nowhere a target. Then every model is asked the same, see
`layouts_lm_ask.py`. `layouts_lm.json` is rewritten after each seed.

Preset `cpu` begins with a `base` that each seed trains on `random` with document masks, so that all conditions have a
model that knows the language a little and has never seen another document in its context. From scratch, the steps of
few windows that a CPU can do are steps of few subjects in a layout of related documents, and that hides all else.

On a CPU, `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=536870912` (glibc) saves a quarter of
the time: large tensors are not given back to the system at every step.
"""

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from layouts_lm_ask import IGNORED, Windows, amp, evaluate, evaluations, packed, ratio, summary
from torch import nn

START = time.monotonic()


@dataclass(frozen=True)
class Preset:
    """Sizes of an experiment; `conditions` are layouts, `+mask` for document masks."""

    length: int
    layers: int
    width: int
    heads: int
    batch: int
    conditions: tuple[str, ...]
    seeds: int
    epochs: float
    """At most so often over the corpus."""
    rate: float
    compiled: bool
    most: int
    """Windows or targets of an evaluation, at most."""
    copying: bool = False
    """Half of the heads start as ones that copy what followed the same token before: see `Block`."""
    base: tuple[int, int, float] | None = None
    """Steps, batch and rate of what all conditions of a seed begin with: `random` with document masks."""


PRESETS = {
    "tiny": Preset(
        2048, 1, 32, 2, 1,
        ("in_context", "random", "in_context+mask"),
        2, 1, 3e-3, False, 4, True, (4, 1, 3e-3),
    ),
    "cpu": Preset(
        2048, 2, 192, 4, 4,
        ("in_context", "random", "concat", "in_context+mask"),
        3, 1, 1e-3, False, 32, True, (300, 2, 2e-3),
    ),
    "gpu": Preset(
        8192, 6, 256, 4, 4,
        ("in_context", "random", "tight", "concat", "package", "in_context+mask", "random+mask"),
        3, 3, 2e-3, True, 96,
    ),
}  # fmt: skip


class Block(nn.Module):
    """Attention with rotary positions, then SwiGLU; RMSNorm before each.

    With `copying`, the second half of the heads has no rotary positions, and keys that are mostly those of the token
    before (smeared keys, Olsson et al. 2022). They start with queries as keys and outputs as values (mimetic
    initialisation, Trockman & Kolter 2023), so that they look at what followed the same token earlier and pass it on.
    Using context is then learned in minutes; without, it takes far more tokens than a CPU sees in an hour.
    """

    def __init__(self, width: int, heads: int, copying: bool) -> None:
        super().__init__()
        hidden = (8 * width // 3 + 31) // 32 * 32
        self.heads, self.turned = heads, heads // 2 if copying else heads
        self.norm_a, self.norm_b = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.smear = nn.Parameter(torch.zeros(heads)) if copying else None

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """x: [batch, length, width]; mask: see `Windows.mask`."""
        b, n, w = x.shape
        q, k, v = self.qkv(self.norm_a(x)).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        if self.smear is not None:
            share = self.smear.sigmoid()[:, None].expand(b, self.heads, n - 1)
            if mask is not None:  # nothing of another document's last key
                share = share * mask.diagonal(-1, 2, 3)
            before = F.pad(share, (1, 0))[..., None]
            k = k * (1 - before) + F.pad(k, (0, 0, 1, 0))[:, :, :-1] * before
        q, k = (torch.cat([rotate(z[:, : self.turned], cos, sin), z[:, self.turned :]], 1).to(v.dtype) for z in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)
        x = x + self.out(y.reshape(b, n, w))
        gate, value = self.up(self.norm_b(x)).chunk(2, -1)
        x = x + self.down(F.silu(gate) * value)
        return x

    def start_copying(self, generator: torch.Generator) -> None:
        """Initial weights of the heads that copy."""
        width = self.out.weight.shape[0]
        first = self.turned * (width // self.heads)
        rows = torch.linalg.qr(torch.randn(width, width, generator=generator))[0][first:]
        for part, scale in ((0, 1.5), (1, 1.5), (2, 1.0)):
            self.qkv.weight.data[part * width + first : (part + 1) * width] = rows * scale
        self.out.weight.data[:, first:] = rows.T * 0.02


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding; x: [batch, heads, length, size]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Model(nn.Module):
    """A decoder with tied embeddings."""

    def __init__(self, preset: Preset, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, preset.width)
        self.blocks = nn.ModuleList(Block(preset.width, preset.heads, preset.copying) for _ in range(preset.layers))
        self.norm = nn.RMSNorm(preset.width)
        half = preset.width // preset.heads // 2
        angle = torch.arange(preset.length)[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        self.start(0)

    def start(self, seed: int) -> None:
        """Initial weights of a seed, the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name.endswith("smear"):
                value = torch.linspace(-3, 3, len(weight))
            elif weight.ndim == 1:
                value = torch.ones(weight.shape)
            else:
                scale = 0.02 / math.sqrt(2 * len(self.blocks)) if name.endswith(("out.weight", "down.weight")) else 0.02
                value = torch.randn(weight.shape, generator=generator) * scale
            weight.data.copy_(value)
        for block in self.blocks:
            if block.smear is not None:
                block.start_copying(generator)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Logits [batch, length, vocabulary]."""
        n = tokens.shape[1]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos[:n], self.sin[:n], mask)
        return F.linear(self.norm(x), self.embed.weight)


def order(seed: int, count: int) -> Iterator[int]:
    """Rows in a new random order each epoch."""
    epoch = 0
    while True:
        yield from np.random.default_rng([seed, epoch]).permutation(count).tolist()
        epoch += 1


class Trainer:
    """One model object for all runs, so that it is compiled once for each way of masking."""

    def __init__(self, preset: Preset, vocabulary: int, device: str) -> None:
        self.preset, self.device = preset, device
        self.model = Model(preset, vocabulary).to(device)
        self._run: Any = torch.compile(self._loss, dynamic=False) if preset.compiled else self._loss

    def _loss(self, tokens: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return F.cross_entropy(self.model(tokens, mask).flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)

    def loss(self, held: Windows, rows: torch.Tensor, masked: bool) -> torch.Tensor:
        """Mean loss over the targets of some windows."""
        with amp(self.device):
            return self._run(held.tokens[rows], held.targets[rows], held.mask(rows) if masked else None)

    def train(
        self, held: Windows, masked: bool, seed: int, steps: int, begin: dict[str, torch.Tensor] | None = None
    ) -> dict[str, Any]:
        """Trains from given weights, or else from the seed's initial ones."""
        if begin is None:
            self.model.start(seed)
        else:
            self.model.load_state_dict(begin)
        return self._train(held, masked, seed, steps, self.preset.batch, self.preset.rate)

    def base(self, held: Windows, seed: int) -> tuple[dict[str, torch.Tensor] | None, dict[str, Any]]:
        """The weights with which all conditions of a seed begin, if they are trained ones."""
        if self.preset.base is None:
            return None, {}
        self.model.start(seed)
        run = self._train(held, True, 1000 + seed, *self.preset.base)
        return {name: value.clone() for name, value in self.model.state_dict().items()}, run

    def _train(self, held: Windows, masked: bool, seed: int, steps: int, batch: int, rate: float) -> dict[str, Any]:
        self.model.train()
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=self.device == "cuda")
        stream = order(seed, len(held))
        warm = max(1, steps // 20)
        total = torch.zeros((), device=self.device)
        targets = torch.zeros((), dtype=torch.int64, device=self.device)
        started, cpu = time.monotonic(), time.process_time()
        curve = []
        for step in range(steps):
            share = min(
                (step + 1) / warm, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
            )
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            rows = torch.tensor([next(stream) for _ in range(batch)], device=self.device)
            loss = self.loss(held, rows, masked)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            total += loss.detach()
            targets += (held.targets[rows] != IGNORED).sum()
            if (step + 1) % max(1, steps // 20) == 0:
                curve.append(round(float(total) / max(1, steps // 20), 4))
                total.zero_()
        return {
            "steps": steps,
            "tokens": steps * batch * self.preset.length,
            "targets": int(targets),
            "seconds": round(time.monotonic() - started, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "train_loss": curve,
        }

    def ask(self, asked: dict[str, tuple[Windows, bool, list[int]]]) -> dict[str, np.ndarray]:
        """All evaluations of the model as it is."""
        self.model.eval()
        return {
            name: evaluate(self.model, held, masked, edges, self.device)
            for name, (held, masked, edges) in asked.items()
        }


def main() -> None:
    """Trains, asks, reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data", type=Path, default=Path("build/lm-short"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600, help="no seed is begun that would end later")
    parser.add_argument("--steps", type=int, help="of each run; default: as many as fit into --seconds")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    preset: Preset = PRESETS[args.preset]
    device = "cuda" if torch.cuda.is_available() and args.preset == "gpu" else "cpu"
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    args.out.mkdir(parents=True, exist_ok=True)
    facts = json.loads((args.data / "facts.json").read_text())
    with np.load(args.data / "data.npz") as file:
        data = {key: file[key] for key in file.files}
    layouts = dict.fromkeys(c.removesuffix("+mask") for c in preset.conditions)
    held = {layout: packed(data, "train", layout, preset.length, device) for layout in layouts}
    asked = evaluations(data, facts["vocabulary"], preset.length, preset.most, device)
    edges = {name: e for name, (_, _, e) in asked.items()}

    trainer = Trainer(preset, facts["vocabulary"], device)
    pace = {}
    for masked in sorted({c.endswith("+mask") for c in preset.conditions}):
        trainer.train(next(iter(held.values())), masked, 0, 3)  # compiles
        timed = trainer.train(next(iter(held.values())), masked, 0, 5)
        pace[masked] = timed["seconds"] / timed["steps"]
    trainer.model.start(0)
    began = time.monotonic()
    untrained = {name: float(ratio(c.sum((0, 1)))) for name, c in trainer.ask(asked).items()}
    asking = (time.monotonic() - began) * len(preset.conditions)
    a_step = sum(pace[c.endswith("+mask")] for c in preset.conditions)
    fitting = int((0.95 * (args.seconds - time.monotonic() + START) / preset.seeds - asking) / a_step)
    most = int(preset.epochs * min(len(v) for v in held.values()) / preset.batch)
    steps = args.steps or max(1, min(fitting, most))
    report: dict[str, Any] = {
        "command": f"layouts_lm_train.py --preset {args.preset} --steps {steps} --threads {args.threads}",
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {args.threads} threads",
        "torch": torch.__version__,
        "preset": asdict(preset),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "steps": steps,
        "epochs": {layout: round(steps * preset.batch / len(v), 3) for layout, v in held.items()},
        "tokens_a_run": steps * preset.batch * preset.length,
        "ms_a_step": {("masked" if m else "open"): round(1e3 * s, 2) for m, s in pace.items()},
        "buckets": edges,
        "windows": {name: len(w) for name, (w, _, _) in asked.items()},
        "untrained": {name: round(value, 4) for name, value in untrained.items()},
        "runs": [],
        "data": facts,
    }
    shown = ("parameters", "steps", "epochs", "ms_a_step", "windows")
    print({k: report[k] for k in shown}, f"asking {asking:.0f} s a seed, {fitting} steps fit", flush=True)

    cells: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    slowest = 0.0
    for seed in range(preset.seeds):
        began = time.monotonic()
        if began - START + slowest > args.seconds:
            break
        begin, run = trainer.base(held["random"], seed)
        if begin is not None:
            cells["base", seed] = trainer.ask(asked)
            report["runs"].append({"condition": "base", "seed": seed} | run)
            print(f"{time.monotonic() - START:5.0f} s base {seed}: {run['train_loss']}", flush=True)
        for condition in preset.conditions:
            layout, masked = condition.removesuffix("+mask"), condition.endswith("+mask")
            run = trainer.train(held[layout], masked, seed, steps, begin)
            cells[condition, seed] = trainer.ask(asked)
            report["runs"].append({"condition": condition, "seed": seed} | run)
            means = {n: round(float(ratio(c.sum((0, 1)))), 3) for n, c in cells[condition, seed].items()}
            print(f"{time.monotonic() - START:5.0f} s {condition} {seed}: {run['cpu_seconds']} s of CPU, train "
                  f"{run['train_loss'][-1:]}, {means}", flush=True)  # fmt: skip
        slowest = max(slowest, time.monotonic() - began)
        report["seconds"] = round(time.monotonic() - START, 1)
        (args.out / "layouts_lm.json").write_text(json.dumps(report | {"summary": summary(cells, edges)}, indent=1))
        np.savez_compressed(
            args.out / "cells.npz", **{f"{c}/{s}/{e}": v for (c, s), es in cells.items() for e, v in es.items()}
        )


if __name__ == "__main__":
    main()
