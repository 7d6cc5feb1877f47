"""What the models of `layouts_lm_train.py` are trained on and asked, and how their answers are summed up.

`Windows` are tokens of documents side by side; `packed` makes those of a layout from its plan. `evaluations` names what
every model is asked:

- `documents` / `packages` in windows packed by `in_context` and by `random`, by position, with the whole window
  visible; and by `in_context` with document masks (`masked`);
- `probe`: the first tokens of a held-out document alone; after random held-out documents; after the held-out documents
  nearest to it; and, to see that the probe can show anything, after random ones and a copy of itself;
- `long`: the first tokens of held-out documents longer than a window, by position, where there are such documents;
- `repeat`: random tokens, twice: the loss on the second time.

`evaluate` gives sums of losses by window and bucket of positions, `summary` what is reported of them over seeds: loss
in nats a token, mean and standard deviation, and paired differences with 95 % intervals, from Student's t over seeds
and from a bootstrap over windows.
"""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

T95 = (0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantile of Student's t by degrees of freedom."""
IGNORED = -100
BFLOAT16 = True
RESAMPLES = 2000
PROBE = 256  # targets of a probe, and the place before the first


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


def probes(data: Any, name: str, length: int, most: int, device: str) -> tuple[dict[str, Windows], int]:
    """Windows of the probe for one held-out set, and the tokens of context; the same targets in all."""
    size, room = PROBE, length - PROBE
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
        if len(made["alone"]) == most:
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


def evaluations(
    data: Any, vocabulary: int, length: int, most: int, device: str
) -> dict[str, tuple[Windows, bool, list[int]]]:
    """By name: windows, at most `most`; whether with document masks; borders of the buckets of target positions."""
    edges = [1, *(e for e in (64, 128, 256, 512, 1024, 2048, 4096) if e < length), length]
    out = {}
    for name in ("documents", "packages"):
        for layout in ("in_context", "random"):
            held = packed(data, name, layout, length, device, most)
            out[f"{name} {layout}"] = (held, False, edges)
            if layout == "in_context":
                out[f"{name} masked"] = (held, True, edges)
        made, room = probes(data, name, length, most, device)
        for kind, held in made.items():
            start = 0 if kind == "alone" else room
            out[f"{name} probe {kind}"] = (held, False, [start + e for e in (1, 16, 64, PROBE)])
    if "long/windows" in data:
        long = data["long/windows"][:most, :length]
        out["long"] = (windows(long, np.zeros(long.shape, np.int16), device), False, edges)
    noise = np.random.default_rng(3).integers(1, vocabulary, (min(32, most), 256))
    twice = np.concatenate([noise, noise], 1)
    out["repeat"] = (windows(twice, np.zeros(twice.shape, np.int16), device), False, [1, 256, 258, 512])
    return out


def amp(device: str) -> contextlib.AbstractContextManager[Any]:
    """bfloat16: of a CPU with instructions for it too, as the same loss comes sooner."""
    return torch.autocast(device, torch.bfloat16, enabled=BFLOAT16)


@torch.no_grad()
def evaluate(model: nn.Module, held: Windows, masked: bool, edges: list[int], device: str) -> np.ndarray:
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
