"""Karpathy's makemore, part 4 (a hidden layer behind a BatchNorm, every gradient by hand) or part 5 (WaveNet).

Published: part 4 train 2.0705, validation 2.1099; part 5 train 1.7690, validation 1.9937.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from backhand.datasets import Data, load_names
from backhand.losses import CrossEntropyLoss
from backhand.models import NameMLP, NameWaveNet
from backhand.training import SGD
from benchmarks.reproduce.files import loaded, options


def main() -> None:
    """200,000 steps of plain gradient descent, 32 examples each."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--part", type=int, choices=(4, 5), default=4)
    asked = options("makemore", __doc__, parser, steps=200_000)
    part4 = asked.part == 4
    data = loaded(load_names, asked.data_dir, "names.txt", context=3 if part4 else 8)
    model: Any = (NameMLP if part4 else NameWaveNet)(len(data.classes), rng=asked.seed)
    slower = asked.steps * (2 if part4 else 3) // 4
    loss, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=0.1)
    rng = np.random.default_rng(asked.seed)
    print(f"{sum(p.size for p in model.parameters()):,} parameters, {len(data.train.x):,} examples")
    since, recent = time.perf_counter(), 0.0
    for step in range(asked.steps):
        batch = rng.integers(0, len(data.train.x), 32)
        if step == slower:
            optimizer.param_groups[0]["lr"] = 0.01
        optimizer.zero_grad()
        value = loss(model(data.train.x[batch]), data.train.y[batch])
        model.backward(loss.backward())
        optimizer.step()
        recent += value
        if (step + 1) % 10_000 == 0:
            print(f"{step + 1:7,}  {recent / 10_000:.4f}  {time.perf_counter() - since:.0f} s", flush=True)
            recent = 0.0
    if part4:
        model.calibrate(data.train.x)  # part 5 is measured with the running statistics
    train, validation = (measured(model, part) for part in data[:2])
    names = model.generate(10, rng=asked.seed)
    print("names:", *("".join(data.classes[i] for i in name) for name in names))
    print(f"seed {asked.seed}: train {train:.4f}, validation {validation:.4f}")
    print("published:", "train 2.0705, validation 2.1099" if part4 else "train 1.7690, validation 1.9937")


def measured(model: Any, part: Data) -> float:
    """The mean loss over all of a part."""
    loss = CrossEntropyLoss(reduction="sum").eval()
    model.eval()
    total = sum(loss(model(part.x[i : i + 5000]), part.y[i : i + 5000]) for i in range(0, len(part.x), 5000))
    model.train()
    return float(total) / len(part.x)


if __name__ == "__main__":
    main()
