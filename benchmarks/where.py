"""Where the time of our step goes: each layer's forward and backward, the loss, the optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from backhand.layers import Layer
from benchmarks.sides import Ours
from benchmarks.workloads import MODELS


def where(workload: str, threads: int, seconds: float) -> list[str]:
    """A table of the layers of one class together, the longest first; medians over steps, in ms."""
    side = Ours(workload, threads)
    ticks: dict[tuple[str, str], float] = {}
    inside = [0.0]  # what the layers inside the one that runs have taken

    def watch(owner: Any, method: str, row: str) -> None:
        function: Callable[..., Any] = getattr(owner, method)

        def watched(*args: Any, **options: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - start
                own = took - inside.pop()
                inside[-1] += took
                ticks[row, method] = ticks.get((row, method), 0.0) + own

        setattr(owner, method, watched)

    for layer in side.model.modules():
        for method in ("forward", "backward"):
            watch(layer, method, _name(layer))
    if workload in MODELS:
        watch(side.loss, "forward", "loss")
        watch(side.loss, "backward", "loss")
        watch(side.optimizer, "step", "optimizer")
        watch(side.optimizer, "zero_grad", "optimizer")
    side.run(2)
    steps: list[dict[tuple[str, str], float]] = []
    end = time.perf_counter() + seconds
    while len(steps) < 3 or time.perf_counter() < end:
        ticks.clear()
        side.run(1)
        steps.append(dict(ticks))
    medians = {key: 1e3 * float(np.median([step[key] for step in steps])) for key in steps[0]}
    total = sum(medians.values())
    rows = {row: (0.0, 0.0) for row, _ in medians}
    for (row, method), ms in medians.items():
        first, second = rows[row]
        rows[row] = (first, second + ms) if method in ("backward", "step") else (first + ms, second)
    lines = [f"{workload}: {total:.3g} ms", f"  {'layers':<34}{'forward':>9}{'backward':>10}{'share':>7}"]
    for row, (first, second) in sorted(rows.items(), key=lambda item: -sum(item[1])):
        lines.append(f"  {row:<34}{first:>9.3g}{second:>10.3g}{(first + second) / total:>7.0%}")
    return lines


def _name(layer: Layer) -> str:
    """The class, with the sizes of a convolution, of which a few decide."""
    name = type(layer).__name__
    return f"{name} {' x '.join(map(str, layer.weight.shape))}" if name == "Conv2d" else name  # type: ignore[attr-defined]
