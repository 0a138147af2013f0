"""Short runs of training on a copy: can it learn a handful by heart, and at which rate does it learn?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from backhand.inspection.apart import Again, apart
from backhand.inspection.babysitting import Descent, MakeOptimizer, few, gradients
from backhand.layers.base import Layer
from backhand.layers.parameter import Array, Parameter
from backhand.losses import Mean


@dataclass
class Overfit:
    """What came of learning a handful of samples by heart.

    losses : of every step      accuracy : at the end, None where the target is no label
    samples : how many
    """

    losses: list[float]
    accuracy: float | None
    samples: int

    @property
    def ok(self) -> bool:
        """Whether it knows them: every label right, or the loss below a twentieth."""
        return self.accuracy == 1 or self.losses[-1] <= 0.05 * self.losses[0] or self.losses[-1] < 1e-6

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f", {self.accuracy:.0%} right"
        return (
            f"{self.samples} samples {'learned' if self.ok else 'NOT learned'} by heart: loss {self.losses[0]:.4g} -> "
            f"{self.losses[-1]:.4g} in {len(self.losses)} steps{right}"
        )


@dataclass
class LRRange:
    """The loss while the learning rate rises; `suggestion` is None where no rate made it fall.

    lrs, losses : of every step      smooth : the losses, smoothed
    """

    lrs: Array
    losses: Array
    smooth: Array
    suggestion: float | None

    def __str__(self) -> str:
        tried = f"rates from {self.lrs[0]:.1e} to {self.lrs[-1]:.1e}"
        if self.suggestion is None:
            return f"{tried}: none made the loss fall"
        best = int(self.smooth.argmin())
        return f"{tried}: the loss is lowest at {self.lrs[best]:.1e}, so begin with about {self.suggestion:.1e}"


def overfit(
    model: Layer,
    loss: Layer,
    data: Any,
    *,
    samples: int = 8,
    steps: int = 200,
    optimizer: MakeOptimizer | None = None,
) -> Overfit:
    """Let a copy learn a handful of samples by heart. Where it cannot, something is broken, not small.

    data : (x, y), x a tuple of arrays where the model takes several; of these, `samples` are drawn
    steps : at most; it stops when all is learned
    optimizer : a function of parameters that makes one, lambda parameters: Adam(parameters, 1e-3); None: Rprop,
        which needs no rate and is at its best with the same few samples in each step

    Dropout drops the same in each step.
    """
    x, y = few(data, samples, loss=loss)
    running, criterion = apart(model, loss)
    again = Again(running, criterion)
    step = _Rprop(list(running.parameters())) if optimizer is None else optimizer(running.parameters())
    losses: list[float] = []
    accuracy = None
    with np.errstate(all="ignore"):
        for _ in range(steps):
            again()
            value, scores = gradients(running, criterion, x, y)
            losses.append(value)
            accuracy = _accuracy(criterion, scores, y)
            if not math.isfinite(value):
                break
            done = value <= 0.05 * losses[0] or value < 1e-6
            if done or (accuracy == 1 and len(losses) > steps // 2):
                break
            step.step()
    return Overfit(losses, accuracy, len(x[0]))


def lr_range_test(
    model: Layer,
    loss: Layer,
    data: Any,
    *,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    optimizer: MakeOptimizer | None = None,
    seed: int = 0,
) -> LRRange:
    """Train a copy while the rate rises from step to step, and see where the loss falls and where it runs away.

        lr_k = lowest * (highest / lowest)^(k / (steps - 1))

    data : (x, y), x a tuple of arrays where the model takes several
    optimizer : a function of parameters that makes one, lambda parameters: Adam(parameters); None: plain gradient
        descent. The suggestion holds for this optimizer
    It stops when the smoothed loss is four times the lowest, or not finite. The suggestion is a tenth of the rate at
    which the smoothed loss was lowest. Smith 2015, arXiv:1506.01186
    """
    if not 0 < lowest < highest or steps < 2:
        raise ValueError(f"lr_range_test: expected 0 < lowest < highest and 2 steps, got {lowest}, {highest}, {steps}")
    x, y = few(data, steps * batch_size, seed, loss)
    running, criterion = apart(model, loss)
    step = Descent(running.parameters(), lowest) if optimizer is None else optimizer(running.parameters())
    rng = np.random.default_rng(seed)
    rates = np.geomspace(lowest, highest, steps)
    lrs: list[float] = []
    losses: list[float] = []
    smooth: list[float] = []
    order = np.zeros(0, int)
    total = weight = 0.0
    with np.errstate(all="ignore"):
        for k, lr in enumerate(rates):
            if len(order) < min(batch_size, len(x[0])):
                order = rng.permutation(len(x[0]))
            rows, order = order[:batch_size], order[batch_size:]
            value, _ = gradients(running, criterion, tuple(each[rows] for each in x), None if y is None else y[rows])
            count = value.count if isinstance(value, Mean) else len(rows)
            if not count:  # every label of these is ignored, or has the weight 0
                continue
            if not math.isfinite(value):
                break
            total, weight = (0.8 * total + 0.2 * value * count, 0.8 * weight + 0.2 * count)
            lrs.append(lr)
            losses.append(value)
            smooth.append(total / weight)
            if smooth[-1] > 4 * abs(min(smooth)) and k > 5:
                break
            for group in step.param_groups:
                group["lr"] = float(lr)
            step.step()
    curve = np.array(smooth)
    return LRRange(np.array(lrs), np.array(losses), curve, _suggestion(np.array(lrs), curve))


def _suggestion(lrs: Array, curve: Array) -> float | None:
    if len(curve) < 3:
        return None
    best = int(curve.argmin())
    start = float(np.median(curve[: max(3, len(curve) // 5)]))
    return float(lrs[best] / 10) if best > 1 and curve[best] < start - 0.05 * abs(start) else None


class _Rprop:
    """Every number has a step of its own, that grows while the sign of its gradient stays and shrinks when it turns.

    Riedmiller & Braun 1993, "A Direct Adaptive Method for Faster Backpropagation Learning"
    """

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.sizes = [np.full(p.shape, 1e-3, p.dtype) for p in self.parameters]
        self.before = [np.zeros(p.shape, p.dtype) for p in self.parameters]

    def step(self) -> None:
        for p, size, before in zip(self.parameters, self.sizes, self.before, strict=True):
            turned = before * p.grad
            size *= np.where(turned > 0, 1.2, np.where(turned < 0, 0.5, 1)).astype(size.dtype)
            np.clip(size, 1e-8, 0.1, out=size)
            before[...] = np.where(turned < 0, 0, p.grad)
            p.data -= np.sign(before) * size


def _accuracy(loss: Any, scores: Any, y: Any) -> float | None:
    if isinstance(scores, tuple) or y is None or y.dtype.kind not in "iu" or scores.ndim != y.ndim + 1 or y.ndim == 0:
        return None
    counts = y != getattr(loss, "ignore_index", None)
    hits = scores.argmax(axis=getattr(loss, "class_axis", 1)) == y
    return float(hits[counts].mean()) if counts.any() else None
