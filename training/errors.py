"""Why training cannot go on, and what to try."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand.layers.base import Layer


class TrainingError(FloatingPointError):
    """A loss or a gradient that is not finite: the step that would have spread it was not made.

    step, epoch, loss, lr : the number of that step (from 1), the epoch it belongs to (from 1), its loss, its rate
    progress : how much of that epoch was done, from 0 to 1
    """

    def __init__(self, message: str, step: int, epoch: int, loss: float, lr: float, progress: float) -> None:
        super().__init__(message)
        self.progress = progress
        self.step = step
        self.epoch = epoch
        self.loss = loss
        self.lr = lr


def diagnosis(model: Layer, inputs: tuple[Any, ...], target: Any, lr: float) -> tuple[str, str]:
    """(where the first bad gradient is, what to do about it), from the batch and from the weights."""
    places = [(f"input {i}" if len(inputs) > 1 else "the input", x) for i, x in enumerate(inputs)]
    bad = [name for name, x in [*places, ("the target", target)] if not np.isfinite(x).all()]
    weights = [name for name, p in model.named_parameters() if not np.isfinite(p.data).all()]
    gradients = [name for name, p in model.named_parameters() if not np.isfinite(p.grad).all()]
    where = f", in {gradients[0]!r} first" if gradients else ""
    if bad:
        return where, f"The cause is in the data: {' and '.join(bad)} of this batch holds numbers that are not finite"
    if weights:
        return where, f"The weights were not finite before this step: {weights[0]!r} (the first of {len(weights)})"
    return where, (
        f"Try a smaller learning rate ({lr / 10:.2g}), clip_norm=1, a warm-up (LinearLR), inputs scaled to about "
        "-1 to 1"
    )
