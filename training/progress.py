"""How an epoch goes: the means so far, and the bar or the line that shows them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from backhand.layers.base import Layer
from backhand.training.metrics import Metric


class Means:
    """The loss and the metrics so far, as means over the samples."""

    def __init__(self, loss: Layer) -> None:
        self._summed = getattr(loss, "reduction", "mean") == "sum"
        self._samples = 0
        self._totals: dict[str, float] = {"loss": 0.0}

    def add(self, loss: float, outputs: tuple[Any, ...], target: Any, n: int, metrics: Mapping[str, Metric]) -> None:
        """One more batch of n samples."""
        totals = self._totals
        self._samples += n
        totals["loss"] += loss if self._summed else loss * n
        for name, metric in metrics.items():
            value = metric(outputs[0] if len(outputs) == 1 else outputs, target)
            totals[name] = totals.get(name, 0.0) + float(value) * n

    def means(self) -> dict[str, float]:
        """name -> mean."""
        return {name: total / self._samples for name, total in self._totals.items()}


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
            numbers = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            print(f"{self._title}  {numbers}  {seconds:.1f}s", flush=True)

    def _show(self, scores: Mapping[str, float]) -> None:
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in scores.items()}, refresh=False)
        self._bar.update(self._waiting)
        self._waiting = 0
