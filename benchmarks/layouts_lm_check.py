"""Checks of `layouts_lm_train.py` and `layouts_lm_ask.py` on cases whose answer is known; minutes on a CPU.

    python3 benchmarks/layouts_lm_check.py --data build/lm-short

Exits with an error if one fails.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts_lm_ask
import numpy as np
import torch
from layouts_lm_ask import IGNORED, context, difference, evaluate, packed, probes, ratio, windows
from layouts_lm_train import PRESETS, Trainer

SMALL = replace(PRESETS["tiny"], length=64, width=64, layers=2, batch=32)


def segments() -> None:
    """Targets stay inside segments, none is padding; masks let no token look into another document."""
    tokens = np.array([[5, 6, 7, 8, 9, 1, 2, 0]])
    segment = np.array([[0, 0, 0, 1, 1, 2, 2, -1]])
    held = windows(tokens, segment, "cpu")
    assert held.targets.tolist() == [[6, 7, IGNORED, 9, IGNORED, 2, IGNORED, IGNORED]], held.targets
    mask = held.mask(slice(0, 1))[0, 0]
    expected = [[i >= j and segment[0, i] == segment[0, j] for j in range(8)] for i in range(8)]
    assert mask.tolist() == expected
    model = Trainer(SMALL, 16, "cpu").model
    other = held.tokens.clone()
    other[0, 0] = 11
    with torch.no_grad():
        masked = [model(t, held.mask(slice(0, 1))) for t in (held.tokens, other)]
        opened = [model(t, None) for t in (held.tokens, other)]
    assert torch.equal(masked[0][:, 3:], masked[1][:, 3:]) and not torch.equal(masked[0][:, :3], masked[1][:, :3])
    assert not torch.equal(opened[0][:, 3:], opened[1][:, 3:])
    later = held.tokens.clone()
    later[0, 6] = 12
    with torch.no_grad():
        assert torch.equal(model(held.tokens, None)[:, :6], model(later, None)[:, :6])


def buckets() -> None:
    """Sums by bucket are those of a plain loop over targets."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, 16, (3, 64))
    segment = np.sort(random.integers(0, 3, (3, 64)), axis=1)
    held = windows(tokens, segment, "cpu")
    model = Trainer(SMALL, 16, "cpu").model
    edges = [1, 8, 33, 64]
    for masked in (False, True):
        cells = evaluate(model, held, masked, edges, "cpu")
        with torch.no_grad():
            logs = model(held.tokens, held.mask(slice(0, 3)) if masked else None).log_softmax(-1).double()
        for row in range(3):
            for b, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
                there = [p for p in range(first, last) if segment[row, p] == segment[row, p - 1]]
                total = -sum(float(logs[row, p - 1, tokens[row, p]]) for p in there)
                assert cells[row, b, 1] == len(there)
                assert math.isclose(cells[row, b, 0], total, rel_tol=1e-5)


def equal(data: Any, facts: Any) -> None:
    """Every layout holds the same tokens, and as many targets as tokens less segments."""
    for length in facts["lengths"]:
        counts = {}
        for layout in ("in_context", "random", "tight", "concat", "package", "source"):
            held = packed(data, "train", layout, length, "cpu")
            inside = held.segment >= 0
            counts[layout] = torch.bincount(held.tokens[inside], minlength=facts["vocabulary"])
            assert int(inside.sum()) == len(data["train/tokens"])
            targets = int((held.targets != IGNORED).sum())
            cuts = int((held.segment.max(1).values + 1).sum())
            assert targets == len(data["train/tokens"]) - cuts
            print(f"  {layout}-{length}: {len(held)} windows, {cuts} segments, {targets} targets")
        assert all(torch.equal(c, counts["random"]) for c in counts.values())


def probed(data: Any, facts: Any) -> None:
    """The four windows of a target end in the same tokens; a copy stands right before it; nothing else is a target."""
    made, room = probes(data, "documents", min(facts["lengths"]), 8, "cpu")
    size = made["alone"].tokens.shape[1]
    assert len({len(held) for held in made.values()}) == 1
    for kind, held in made.items():
        assert torch.equal(held.tokens[:, -size:], made["alone"].tokens), kind
        assert torch.equal(held.targets[:, -size:-1], made["alone"].tokens[:, 1:]), kind
        assert (held.targets[:, :-size] == IGNORED).all() and (held.targets[:, -1] == IGNORED).all(), kind
        assert held.tokens.shape[1] == (size if kind == "alone" else room + size)
    own = made["alone"].tokens
    for row, tokens in enumerate(made["copy"].tokens):
        found = (tokens[:room].unfold(0, size, 1) == own[row]).all(1).sum()
        assert found >= 1, row
    assert context([np.array([1, 2]), np.array([3, 4, 5])], 4).tolist() == [4, 5, 1, 2]


def statistics() -> None:
    """Intervals: of no difference, and of a constant one."""
    random = np.random.default_rng(0)
    a = np.stack([random.random((3, 40)) * 100, np.full((3, 40), 50.0)], -1)
    assert difference(a, a)["mean"] == 0
    b = a.copy()
    b[..., 0] -= 5
    found = difference(a, b)
    assert math.isclose(found["mean"], 0.1, abs_tol=1e-5) and found["t95"] < 1e-4 and found["windows95"] == [0.1, 0.1]


def copying() -> None:
    """A planted task, windows whose second half repeats the first, is learned and shows.

    Trained on it, the second half costs little; trained on halves that are unrelated, as much as the first.
    """
    random = np.random.default_rng(1)
    losses = {}
    for name in ("repeated", "unrelated"):
        halves = [random.integers(0, 32, (4096, 32)) for _ in range(2)]
        tokens = np.concatenate([halves[0], halves[0] if name == "repeated" else halves[1]], 1)
        trainer = Trainer(SMALL, 32, "cpu")
        trainer.train(windows(tokens, np.zeros(tokens.shape), "cpu"), False, 0, 600)
        fresh = random.integers(0, 32, (256, 32))
        asked = windows(np.concatenate([fresh, fresh], 1), np.zeros((256, 64)), "cpu")
        losses[name] = ratio(evaluate(trainer.model, asked, False, [1, 32, 36, 64], "cpu").sum(0))
        print(
            f"  {name}: first half {losses[name][0]:.3f}, second half {losses[name][2]:.3f}; ln 32 = {math.log(32):.3f}"
        )
    assert (
        losses["repeated"][2] < 1 and losses["unrelated"][2] > 3.3 and abs(losses["repeated"][0] - math.log(32)) < 0.2
    )


def repeated() -> None:
    """The same seed gives the same weights at the start, whatever was trained before; runs can be repeated."""
    trainer = Trainer(SMALL, 16, "cpu")
    held = windows(np.random.default_rng(2).integers(0, 16, (64, 64)), np.zeros((64, 64)), "cpu")
    curves = [trainer.train(held, False, seed, 20)["train_loss"] for seed in (0, 1, 0)]
    assert curves[0] == curves[2] != curves[1]


def narrow() -> None:
    """Training in bfloat16 gives the losses of training in float32."""
    random = np.random.default_rng(3)
    tokens = np.repeat(random.integers(0, 32, (256, 32)), 2, axis=1)  # every second token can be known
    held = windows(tokens, np.zeros(tokens.shape), "cpu")
    curves = []
    for layouts_lm_ask.BFLOAT16 in (False, True):
        curves.append(np.array(Trainer(SMALL, 32, "cpu").train(held, False, 0, 100)["train_loss"]))
    layouts_lm_ask.BFLOAT16 = False
    assert curves[0][-1] < 2 < curves[0][0] and np.abs(curves[0] - curves[1]).max() < 0.02, curves


def main() -> None:
    """Runs all checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("build/lm-short"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    layouts_lm_ask.BFLOAT16 = False  # answers are known to float32
    facts = json.loads((args.data / "facts.json").read_text())
    with np.load(args.data / "data.npz") as file:
        data = {key: file[key] for key in file.files}
    for check in (segments, buckets, statistics, repeated, narrow, copying):
        check()
        print(f"{check.__name__}: right", flush=True)
    for check_data in (equal, probed):
        check_data(data, facts)
        print(f"{check_data.__name__}: right", flush=True)


if __name__ == "__main__":
    main()
