"""Why training cannot go on, and what to try."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np

from backhand.inspection.nonfinite import NonFinite, find_nonfinite
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.training.replay import NAME, FailedStep


class TrainingError(FloatingPointError):
    """A loss or a gradient that is not finite: the step that would have spread it was not made. Or the step that has
    left weights that are not finite.

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


def diagnosis(model: Layer, inputs: tuple[Any, ...], target: Any, lr: float) -> tuple[str, str, bool]:
    """(where the first bad gradient is, what to do about it, whether the data are the cause)."""
    places = [(f"input {i}" if len(inputs) > 1 else "the input", x) for i, x in enumerate(inputs)]
    bad = [name for name, x in [*places, ("the target", target)] if not np.isfinite(x).all()]
    weights = [name for name, p in model.named_parameters() if not np.isfinite(p.data).all()]
    gradients = [name for name, p in model.named_parameters() if not np.isfinite(p.grad).all()]
    where = f", in {gradients[0]!r} first" if gradients else ""
    if bad:
        cause = f"The cause is in the data: {' and '.join(bad)} of this batch holds numbers that are not finite"
        return where, cause, True
    if weights:
        cause = f"The weights were not finite before this step: {weights[0]!r} (the first of {len(weights)})"
        return where, cause, False
    return where, remedies(lr), False


def remedies(lr: float) -> str:
    """What to try when numbers grow beyond all bounds."""
    return (
        f"Try a smaller learning rate ({lr / 10:.2g}), clip_norm=1, a warm-up (LinearLR), inputs scaled to about "
        "-1 to 1"
    )


class Unsound(NamedTuple):
    """Weights that nothing finite can be computed with, it seems; prints as a few words.

    name : of the first such parameter      number : of them
    infinite : whether there is a nan or an infinity, or only numbers whose squares are too large for their dtype
    largest : of all numbers there
    """

    name: str
    number: int
    infinite: bool
    largest: float

    @property
    def size(self) -> str:
        """How large they are."""
        return f"up to {self.largest:.3g} in {self.name!r}"

    def __str__(self) -> str:
        others = f" (and {self.number - 1} more)" if self.number > 1 else ""
        return f"weights that are not finite, in {self.name!r}{others}" if self.infinite else f"weights {self.size}"


def unsound(*layers: Layer) -> Unsound | None:
    """What is wrong with the parameters, as far as their norm tells; None where it is finite."""
    odd = [(name, p.data) for layer in layers for name, p in layer.named_parameters() if not _finite_norm(p.data)]
    if not odd:
        return None
    broken = [name for name, w in odd if not np.isfinite(w).all()]
    name = broken[0] if broken else odd[0][0]
    largest = max(float(np.abs(w).max()) for other, w in odd if other == name)
    return Unsound(name, len(broken or odd), bool(broken), largest)


def _finite_norm(weights: Array) -> bool:
    flat = weights.reshape(-1)
    if flat.dtype.itemsize < 4:  # whose squares leave float16 from 256 on
        flat = flat.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(flat, flat))
