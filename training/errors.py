"""Why training cannot go on, and what to try."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from backhand.inspection.nonfinite import NonFinite, find_nonfinite
from backhand.layers.base import Layer
from backhand.training.replay import NAME, FailedStep


class TrainingError(FloatingPointError):
    """A loss or a gradient that is not finite: the step that would have spread it was not made.

    step, epoch, loss, lr : the number of that step (from 1), the epoch it belongs to (from 1), its loss, its rate
    progress : how much of that epoch was done, from 0 to 1
    found : where the first non-finite number came from: the layer, the direction, the sample; None: not found
    """

    found: NonFinite | None = None

    def __init__(self, message: str, step: int, epoch: int, loss: float, lr: float, progress: float) -> None:
        super().__init__(message)
        self.progress = progress
        self.step = step
        self.epoch = epoch
        self.loss = loss
        self.lr = lr

    def trace(self, model: Layer, loss: Layer, inputs: tuple[Any, ...], target: Any, folder: str | None) -> None:
        """Make the step again on a copy, add to the message where it went wrong, and keep it for a replay.

        model, loss : as they were before the step
        """
        try:
            self.found = find_nonfinite(model, inputs, loss=loss, target=target)
            first = "computed once more, this step was finite" if self.found is None else str(self.found)
        except Exception as error:  # what is known already must not be lost
            first = f"not traced ({type(error).__name__}: {error})"
        message = f"{self} First of all, {first}."
        if folder is not None:
            path = os.path.join(folder, NAME)
            words = {"message": message, "step": self.step, "epoch": self.epoch, "lr": self.lr}
            try:
                FailedStep.of(model, loss, inputs, target, words).save(path)
                message += (
                    f" To see it again: from backhand.training import replay; print(replay({path!r}, model, loss))"
                )
            except OSError as error:
                message += f" (It could not be kept in {path!r}: {error.strerror})"
        self.args = (message,)


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
