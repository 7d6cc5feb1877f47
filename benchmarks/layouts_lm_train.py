"""Does it help? A tiny language model on the same tokens in different layouts; PyTorch and NumPy, nothing else.

    python3 benchmarks/layouts_lm_train.py --preset cpu --data .lm-cpu --out build/lm-cpu   # about an hour of one core
    python3 benchmarks/layouts_lm_train.py --preset gpu --data .lm --out build/lm-gpu --seconds 420

Reads what `layouts_lm.py` made. For each seed, one model per condition (a layout, with or without document masks):
same initial weights, same number of steps and tokens, same optimiser and schedule; windows in an order shuffled over
the whole corpus. The first token of a segment is nowhere a target. Then every model is asked the same:

- `documents` / `packages` in windows packed by `in_context` and by `random`, by position, with the whole window
  visible; and by `in_context` with document masks (`masked`);
- `probe`: the first tokens of a held-out document alone; after random held-out documents; after the held-out documents
  nearest to it; and, to see that the probe can show anything, after random ones and a copy of itself;
- `long`: the first tokens of held-out documents longer than a window, by position, where there are such documents;
- `repeat`: random tokens, twice: the loss on the second time.

`layouts_lm.json`, rewritten after each seed: loss in nats a token, mean and standard deviation over seeds, and paired
differences with 95 % intervals, from Student's t over seeds and from a bootstrap over windows.
"""

import argparse
import contextlib
import json
import math
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

START = time.monotonic()
T95 = (0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantile of Student's t by degrees of freedom."""
IGNORED = -100
BFLOAT16 = True
RESAMPLES = 2000


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
    smear: bool = False
    """Whether heads mix a key with the key before it (Olsson et al. 2022): copying is learned in minutes, not hours."""


PRESETS = {
    "tiny": Preset(2048, 1, 32, 2, 1, ("in_context", "random", "in_context+mask"), 2, 1, 3e-3, False, 4, True),
    "cpu": Preset(
        2048, 2, 192, 4, 2, ("in_context", "random", "concat", "in_context+mask"), 3, 1, 3e-3, False, 32, True
    ),
    "gpu": Preset(
        8192, 6, 256, 4, 4,
        ("in_context", "random", "tight", "concat", "package", "in_context+mask", "random+mask"),
        3, 3, 2e-3, True, 96,
    ),
}  # fmt: skip


class Block(nn.Module):
    """Attention with rotary positions, then SwiGLU; RMSNorm before each."""

    def __init__(self, width: int, heads: int, smear: bool) -> None:
        super().__init__()
        hidden = (8 * width // 3 + 31) // 32 * 32
        self.heads = heads
        self.norm_a, self.norm_b = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.smear = nn.Parameter(torch.zeros(heads)) if smear else None

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
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)
        x = x + self.out(y.reshape(b, n, w))
        gate, value = self.up(self.norm_b(x)).chunk(2, -1)
        x = x + self.down(F.silu(gate) * value)
        return x


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding; x: [batch, heads, length, size]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Model(nn.Module):
    """A decoder with tied embeddings."""

    def __init__(self, preset: Preset, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, preset.width)
        self.blocks = nn.ModuleList(Block(preset.width, preset.heads, preset.smear) for _ in range(preset.layers))
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
                value = torch.linspace(-2, 2, len(weight))
            elif weight.ndim == 1:
                value = torch.ones(weight.shape)
            else:
                scale = 0.02 / math.sqrt(2 * len(self.blocks)) if name.endswith(("out.weight", "down.weight")) else 0.02
                value = torch.randn(weight.shape, generator=generator) * scale
            weight.data.copy_(value)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Logits [batch, length, vocabulary]."""
        n = tokens.shape[1]
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos[:n], self.sin[:n], mask)
        return F.linear(self.norm(x), self.embed.weight)


@dataclass
class Windows:
    """tokens: int64[n, length]; segment: int16[n, length], -1 is padding; targets: int64[n, length], -100 for none."""

    tokens: torch.Tensor
    segment: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def mask(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """Where attention may look, causal and inside a segment: bool[batch, 1, length, length]."""
        segment = self.segment[rows]
        causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool, device=segment.device).tril()
        return (causal & (segment[:, :, None] == segment[:, None, :]))[:, None]


def windows(tokens: np.ndarray, segment: np.ndarray, device: str, first_target: int = 0) -> Windows:
    """Windows whose targets are the next tokens of the same segment, from place `first_target` on."""
    targets = np.full(tokens.shape, IGNORED, np.int64)
    inside = (segment[:, 1:] == segment[:, :-1]) & (segment[:, 1:] >= 0)
    inside &= np.arange(1, tokens.shape[1]) >= first_target
    targets[:, :-1][inside] = tokens[:, 1:][inside]
    parts = (tokens.astype(np.int64), segment.astype(np.int16), targets)
    return Windows(*(torch.from_numpy(part).to(device) for part in parts))


def packed(data: Any, name: str, layout: str, length: int, device: str, most: int | None = None) -> Windows:
    """The windows of a layout; of many, an even choice."""
    plan = {
        c: data[f"{name}/{layout}-{length}/{c}"].astype(np.int64) for c in ("document", "start", "length", "sequence")
    }
    source, lengths = data[f"{name}/tokens"], data[f"{name}/lengths"].astype(np.int64)
    begin = (np.cumsum(lengths) - lengths)[plan["document"]] + plan["start"]
    order = np.argsort(plan["sequence"], kind="stable")
    begin, size, sequence = begin[order], plan["length"][order], plan["sequence"][order]
    row = np.r_[0, np.cumsum(sequence[1:] != sequence[:-1])]
    first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    before = np.cumsum(size) - size
    place = before - before[first][row]  # where a segment starts in its window
    within = np.arange(size.sum()) - np.repeat(before, size)
    at = np.repeat(row * length + place, size) + within
    tokens, segment = np.zeros((row[-1] + 1) * length, np.int64), np.full((row[-1] + 1) * length, -1, np.int16)
    tokens[at] = source[np.repeat(begin, size) + within]
    segment[at] = np.repeat(np.arange(len(size)) - first[row], size)
    tokens, segment = tokens.reshape(-1, length), segment.reshape(-1, length)
    if most and len(tokens) > most:
        chosen = np.sort(np.random.default_rng(1).permutation(len(tokens))[:most])
        tokens, segment = tokens[chosen], segment[chosen]
    return windows(tokens, segment, device)


def probes(data: Any, name: str, preset: Preset, device: str) -> tuple[dict[str, Windows], int]:
    """Windows of the probe for one held-out set, and the tokens of context; the same targets in all."""
    size = 256
    room = preset.length - size
    source, lengths = data[f"{name}/tokens"].astype(np.int64), data[f"{name}/lengths"].astype(np.int64)
    first = np.cumsum(lengths) - lengths
    text = [source[f : f + n] for f, n in zip(first, lengths, strict=True)]
    made: dict[str, list[np.ndarray]] = {"alone": [], "random": [], "related": [], "copy": []}
    for target, related, unrelated in zip(
        data[f"{name}/targets"], data[f"{name}/related"], data[f"{name}/unrelated"], strict=True
    ):
        own = text[target][:size]
        contexts: dict[str, Any] = {"alone": []}
        for kind, others in (("random", unrelated), ("related", related)):
            contexts[kind] = context([text[o] for o in others], room)
        contexts["copy"] = context([text[target], *(text[o] for o in unrelated)], room)
        if min(len(contexts[k]) for k in ("random", "related", "copy")) < room or len(own) < size:
            continue
        for kind, tokens_before in contexts.items():
            made[kind].append(np.r_[tokens_before, own].astype(np.int64))
        if len(made["alone"]) == preset.most:
            break
    out = {}
    for kind, rows in made.items():
        tokens = np.stack(rows)
        out[kind] = windows(tokens, np.zeros(tokens.shape, np.int16), device, tokens.shape[1] - size + 1)
    return out, room


def context(documents: list[np.ndarray], room: int) -> np.ndarray:
    """The last `room` tokens of documents laid so that the first of them ends the context; whole ends count."""
    parts: list[np.ndarray] = []
    total = 0
    for document in documents:
        if total >= room:
            break
        parts.append(document)
        total += len(document)
    return np.concatenate(parts[::-1])[-room:] if parts else np.empty(0, np.int64)


def evaluations(data: Any, preset: Preset, device: str, vocabulary: int) -> dict[str, tuple[Windows, bool, list[int]]]:
    """By name: windows, whether with document masks, borders of the buckets of target positions."""
    edges = [1, *(e for e in (64, 128, 256, 512, 1024, 2048, 4096) if e < preset.length), preset.length]
    out = {}
    for name in ("documents", "packages"):
        for layout in ("in_context", "random"):
            held = packed(data, name, layout, preset.length, device, preset.most)
            out[f"{name} {layout}"] = (held, False, edges)
            if layout == "in_context":
                out[f"{name} masked"] = (held, True, edges)
        made, room = probes(data, name, preset, device)
        for kind, held in made.items():
            start = 0 if kind == "alone" else room
            out[f"{name} probe {kind}"] = (held, False, [start + e for e in (1, 16, 64, 256)])
    if "long/windows" in data:
        long = data["long/windows"][: preset.most, : preset.length]
        out["long"] = (windows(long, np.zeros(long.shape, np.int16), device), False, edges)
    noise = np.random.default_rng(3).integers(1, vocabulary, (min(32, preset.most), 256))
    twice = np.concatenate([noise, noise], 1)
    out["repeat"] = (windows(twice, np.zeros(twice.shape, np.int16), device), False, [1, 256, 258, 512])
    return out


def amp(device: str) -> contextlib.AbstractContextManager[Any]:
    """bfloat16: of a CPU with instructions for it too, as the same loss comes sooner."""
    return torch.autocast(device, torch.bfloat16, enabled=BFLOAT16)


@torch.no_grad()
def evaluate(model: Model, held: Windows, masked: bool, edges: list[int], device: str) -> np.ndarray:
    """Sum of losses and number of targets by window and bucket of the target's position: float64[n, buckets, 2]."""
    rows = max(1, (1 << 15 if device == "cuda" else 1 << 12) // held.tokens.shape[1])
    parts = []
    for i in range(0, len(held), rows):
        batch = slice(i, i + rows)
        with amp(device):
            logits = model(held.tokens[batch], held.mask(batch) if masked else None)
        targets = held.targets[batch]
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
        parts.append(torch.stack([loss.view(targets.shape), (targets != IGNORED).float()], -1).cpu().numpy())
    cells = np.concatenate(parts).astype(np.float64)  # the target at index i is the token at i + 1
    return np.stack([cells[:, a - 1 : b - 1].sum(1) for a, b in zip(edges[:-1], edges[1:], strict=True)], 1)


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

    def train(self, held: Windows, masked: bool, seed: int, steps: int) -> dict[str, Any]:
        """Trains from the seed's initial weights."""
        preset = self.preset
        self.model.start(seed)
        self.model.train()
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=preset.rate, betas=(0.9, 0.95), fused=self.device == "cuda")
        stream = order(seed, len(held))
        warm = max(1, steps // 20)
        total = torch.zeros((), device=self.device)
        started, cpu, targets = time.monotonic(), time.process_time(), torch.zeros((), dtype=torch.int64, device=self.device)
        curve = []
        for step in range(steps):
            share = min(
                (step + 1) / warm, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
            )
            for group in optimizer.param_groups:
                group["lr"] = preset.rate * share
            rows = torch.tensor([next(stream) for _ in range(preset.batch)], device=self.device)
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
            "tokens": steps * preset.batch * preset.length,
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


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation over seeds, and the half-width of the 95 % interval of the mean."""
    n = len(values)
    deviation = float(values.std(ddof=1)) if n > 1 else math.nan
    half = T95[min(n - 1, 10)] * deviation / math.sqrt(n) if n > 1 else math.nan
    return {"mean": round(float(values.mean()), 5), "std": round(deviation, 5), "t95": round(half, 5)}


def ratio(cells: np.ndarray) -> np.ndarray:
    """Loss a token of [..., 2] sums."""
    return cells[..., 0] / np.maximum(cells[..., 1], 1)


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """First less second, of [seeds, windows, 2] sums, with intervals over seeds and over windows."""
    random = np.random.default_rng(0)
    rows = random.integers(0, a.shape[1], (RESAMPLES, a.shape[1]))
    mean_a, mean_b = a.mean(0), b.mean(0)
    boot = ratio(mean_a[rows].sum(1)) - ratio(mean_b[rows].sum(1))
    seeds = ratio(a.sum(1)) - ratio(b.sum(1))
    low, high = np.quantile(boot, [0.025, 0.975])
    return spread(seeds) | {"seeds": [round(float(s), 5) for s in seeds],
                            "windows95": [round(float(low), 5), round(float(high), 5)]}  # fmt: skip


def gain(random: np.ndarray, related: np.ndarray, base_random: np.ndarray, base_related: np.ndarray) -> dict[str, Any]:
    """How much more related context helps one model than another: difference of differences, as `difference`."""
    # Same targets in all four, so sums of losses can be subtracted before they are divided.
    mine, base = random.copy(), base_random.copy()
    mine[..., 0] -= related[..., 0]
    base[..., 0] -= base_related[..., 0]
    return difference(mine, base)


def summary(cells: dict[tuple[str, int], dict[str, np.ndarray]], edges: dict[str, list[int]]) -> dict[str, Any]:
    """Everything that is reported, over the seeds for which all conditions were done."""
    conditions = list(dict.fromkeys(c for c, _ in cells))
    seeds = sorted(s for s in {s for _, s in cells} if all((c, s) in cells for c in conditions))
    if not seeds:
        return {"seeds": []}
    stacked = {c: {e: np.stack([cells[c, s][e] for s in seeds]) for e in edges} for c in conditions}
    out: dict[str, Any] = {"seeds": seeds, "loss": {}, "difference": {}, "gain": {}}
    for c in conditions:
        out["loss"][c] = {}
        for e, values in stacked[c].items():
            whole = ratio(values.sum((1, 2)))
            out["loss"][c][e] = spread(whole) | {
                "perplexity": round(math.exp(whole.mean()), 3),
                "targets": int(values[0, ..., 1].sum()),
                "by_position": [spread(ratio(values[:, :, b].sum(1))) for b in range(values.shape[2])],
                "perplexity_by_position": [
                    round(math.exp(ratio(values[:, :, b].sum(1)).mean()), 3) for b in range(values.shape[2])
                ],
            }
    for c in conditions:
        base = "random+mask" if c.endswith("+mask") else "random"
        pairs = [base] if c != base and base in stacked else []
        if c == "in_context":
            pairs += [x for x in conditions if x not in (c, base)]
        for other in pairs:
            out["difference"][f"{c} - {other}"] = {
                e: difference(stacked[c][e].sum(2), stacked[other][e].sum(2))
                | {"by_position": [difference(stacked[c][e][:, :, b], stacked[other][e][:, :, b])
                                   for b in range(stacked[c][e].shape[2])]}
                for e in edges
            }  # fmt: skip
    for name in [n for n in ("documents", "packages") if f"{n} probe alone" in edges]:
        for kind in ("related", "random", "copy"):
            out["gain"][f"{name} {kind}"] = {
                c: difference(stacked[c][f"{name} probe alone"].sum(2), stacked[c][f"{name} probe {kind}"].sum(2))
                for c in conditions
            }
        for c in conditions:
            mine = [stacked[c][f"{name} probe {k}"].sum(2) for k in ("random", "related")]
            out["gain"].setdefault(f"{name} related over random", {})[c] = difference(*mine)
            if c != "random" and "random" in stacked:
                base_ = [stacked["random"][f"{name} probe {k}"].sum(2) for k in ("random", "related")]
                out["gain"].setdefault(f"{name} related over random, beyond layout random", {})[c] = gain(*mine, *base_)
    return out


def main() -> None:
    """Trains, asks, reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data", type=Path, default=Path(".lm-cpu"))
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
    asked = evaluations(data, preset, device, facts["vocabulary"])
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
        for condition in preset.conditions:
            layout, masked = condition.removesuffix("+mask"), condition.endswith("+mask")
            run = trainer.train(held[layout], masked, seed, steps)
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
