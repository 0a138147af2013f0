"""How an epoch goes: the means so far, and the bar or the line that shows them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from backhand.layers.base import Layer
from backhand.losses.base import Mean
from backhand.training.metrics import Metric


class Means:
    """The loss and the metrics so far, each a mean over all that it counts."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {"loss": [0.0, 0.0]}  # name -> the sum, how many that is

    def add(self, loss: Mean, outputs: tuple[Any, ...], target: Any, n: int, metrics: Mapping[str, Metric]) -> None:
        """One more batch of n samples; what is no `Mean` counts as a mean over them."""
        sums = self._sums
        if loss.count:
            sums["loss"][0] += loss * loss.count
            sums["loss"][1] += loss.count
        for name, metric in metrics.items():
            value = metric(outputs[0] if len(outputs) == 1 else outputs, target)
            count = value.count if isinstance(value, Mean) else n
            both = sums.setdefault(name, [0.0, 0.0])
            if count and (loss.count or value == value):  # else there was nothing to take the mean of
                both[0] += float(value) * count
                both[1] += count

    def means(self) -> dict[str, float]:
        """name -> mean; nan where nothing counted."""
        return {name: total / count if count else math.nan for name, (total, count) in self._sums.items()}


def mean_loss(loss: Layer, value: Any, n: int) -> Mean:
    """What a loss gave that does not say of what it is a mean, or is a sum, as a mean over n samples."""
    if getattr(loss, "reduction", "mean") == "sum":
        return Mean(float(value) / n if n else math.nan, n)
    return Mean(float(value), n)


class Progress:
    """One epoch on the screen: on a terminal a bar while it lasts, and a line when it is over; or nothing."""

    def __init__(self, wanted: bool, epoch: int, last: int, batches: int | None) -> None:
        self._title = f"epoch {epoch}/{last}"
        self._wanted = wanted
        self._bar: Any = None
        if wanted and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=batches, desc=self._title, unit="batch", leave=False, dynamic_ncols=True)
        self._waiting = 0
        self._shown = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, sums: Means) -> None:
        """One more batch; what is on the screen changes ten times a second."""
        if self._bar is None:
            return
        self._waiting += 1
        now = time.perf_counter()
        if now - self._shown > 0.1:
            self._show(sums.means())
            self._shown = now

    def finish(self, record: Mapping[str, Any], seconds: float) -> None:
        """The epoch is over."""
        if self._bar is not None:
            self._bar.close()  # the line below takes its place: a bar has no room for all of it
        if self._wanted:
            scores = {k: v for k, v in record.items() if k not in ("step", "epoch", "lr", "seconds")}
            numbers = "  ".join(
                f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in scores.items()
            )
            print(f"{self._title}  {numbers}  {seconds:.1f}s", flush=True)

    def _show(self, scores: Mapping[str, float]) -> None:
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in scores.items()}, refresh=False)
        self._bar.update(self._waiting)
        self._waiting = 0
