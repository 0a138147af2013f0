"""Is this network fit to learn? What can be seen in one forward and one backward.

Each function answers one question of the lecture's list and prints as a line; `diagnose` asks them all. They work on a
copy: the model stays as it was, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backhand.datasets.arrays import as_numbers
from backhand.inspection.apart import apart, as_inputs, start_backward, with_target
from backhand.inspection.calls import Call
from backhand.inspection.gradient_check import forget_all
from backhand.inspection.trace import Trace, record
from backhand.layers.activations import Sigmoid, Softsign, Tanh
from backhand.layers.base import Layer
from backhand.layers.guard import widened
from backhand.layers.parameter import Array, Parameter
from backhand.layers.rectifiers import Hardsigmoid, Hardtanh, ReLU, ReLU6
from backhand.losses import BCELoss, CrossEntropyLoss, CTCLoss, KLDivLoss, Mean, NLLLoss

# An optimizer is made by a function of parameters: lambda parameters: Adam(parameters, 1e-3)
MakeOptimizer = Callable[[Iterable[Parameter]], Any]
# Squashing functions and their steepest slope; where there is less than SHALLOW of it, they are saturated. That is
# |tanh| > 0.97, and the same places of a sigmoid.
STEEPEST: dict[type[Layer], float] = {Tanh: 1, Sigmoid: 1 / 4, Hardtanh: 1, Hardsigmoid: 1 / 6, Softsign: 1}
SHALLOW = 1 - 0.97**2


@dataclass
class InitialLoss:
    """The first loss, and that of scores which know nothing.

    loss : the mean over some samples
    chance : of equal scores for everything: ln C for C classes, ln 2 for yes or no; for a regression, of the answer 0;
        None where that is not known
    words : how chance comes about
    """

    loss: float
    chance: float | None
    words: str = ""

    @property
    def ok(self) -> bool:
        """Whether it begins at about the loss of chance."""
        if self.chance is None or not math.isfinite(self.loss):
            return math.isfinite(self.loss)
        return 0.75 * self.chance <= self.loss <= 1.5 * self.chance

    def __str__(self) -> str:
        if self.chance is None:
            return f"initial loss {self.loss:.4g}"
        return f"initial loss {self.loss:.4g}, by chance {self.words}{self.chance:.4g}"


@dataclass
class Activity:
    """How much of an activation lets no gradient through.

    name, kind : the layer in the model      what : "dead" or "saturated"
    units : how many features it has         stuck : how many of them are so for every sample
    share : of all its numbers
    """

    name: str
    kind: str
    what: str
    units: int
    stuck: int
    share: float

    def __str__(self) -> str:
        return (
            f"{self.name!r} ({self.kind}): {self.stuck} of {self.units} units {self.what} for every sample, "
            f"{self.share:.0%} of all numbers"
        )


@dataclass
class UpdateRatio:
    """How far one step moves a parameter: norm of the step by norm of the parameter, about 1e-3 when all is well."""

    name: str
    ratio: float

    @property
    def ok(self) -> bool:
        return 1e-5 <= self.ratio <= 1e-1

    def __str__(self) -> str:
        return f"{self.name!r} moves by {self.ratio:.1e} of its size in a step"


def initial_loss(model: Layer, loss: Layer, data: Any, *, samples: int = 256) -> InitialLoss:
    """The loss before the first step, beside ln C: a network that has seen nothing should not be sure of anything.

    data : (x, y), x a tuple of arrays where the model takes several; of these, `samples` are drawn

    >>> print(initial_loss(model, CrossEntropyLoss(), (x, y)))
    initial loss 2.331, by chance ln 10 = 2.303
    """
    x, y = few(data, samples, loss=loss)
    running, criterion = apart(model, loss)
    with np.errstate(all="ignore"):
        scores = running(*x)
        value = float(np.mean(criterion(*with_target(scores, y))))
        return InitialLoss(value, *_chance(criterion, scores, y))


def dead_relus(model: Layer | Trace, x: Any = None) -> list[Activity]:
    """For every ReLU, how many of its units are 0, with a gradient of 0, for all samples of x: these learn no more.

    model, x : what is run, in its own mode; or a Trace that has been recorded, without x
    """
    found = []
    for name, calls, axis in _elementwise(model, x):
        if type(calls[0].layer) in STEEPEST:
            continue
        dead = [(call.local == 0) & (call.output == 0) for call in calls]
        given = [np.asarray(call.inputs[0]) for call in calls]
        # dropout gives zeros too, but not of what was below 0
        below = all((z[d] <= 0).all() for z, d in zip(given, dead, strict=True)) and any(d.any() for d in dead)
        if below or isinstance(calls[0].layer, (ReLU, ReLU6)):
            found.append(_activity(name, calls[0].kind, "dead", dead, axis))
    return found


def saturation(model: Layer | Trace, x: Any = None) -> list[Activity]:
    """For every sigmoid, tanh and their like, how much of it lies where it is flat (|tanh| > 0.97).

    model, x : as in `dead_relus`. What happens inside an LSTM or GRU is not seen
    """
    found = []
    for name, calls, axis in _elementwise(model, x):
        steepest = STEEPEST.get(type(calls[0].layer))
        if steepest is not None:
            flat = [np.abs(call.local) < SHALLOW * steepest for call in calls]
            found.append(_activity(name, calls[0].kind, "saturated", flat, axis))
    return found


def update_ratio(
    model: Layer,
    loss: Layer,
    data: Any,
    *,
    lr: float | None = None,
    optimizer: MakeOptimizer | None = None,
    samples: int = 64,
) -> list[UpdateRatio]:
    """For every parameter, how far one step would move it; those that are all 0 are left out.

    data, samples : as in `initial_loss`
    lr : the rate of plain gradient descent; or
    optimizer : a function of parameters that makes one: lambda parameters: Adam(parameters, 1e-3)
    """
    if (lr is None) == (optimizer is None):
        raise ValueError("update_ratio: expected either lr or optimizer")
    x, y = few(data, samples, loss=loss)
    running, criterion = apart(model, loss)
    step = Descent(running.parameters(), lr or 0.0) if optimizer is None else optimizer(running.parameters())
    before = {name: p.data.copy() for name, p in running.named_parameters()}
    with np.errstate(all="ignore"):
        gradients(running, criterion, x, y)
        step.step()
    found = []
    for name, p in running.named_parameters():
        size = float(np.linalg.norm(widened(before[name])))
        if size and p.requires_grad:
            found.append(UpdateRatio(name, float(np.linalg.norm(widened(p.data) - before[name])) / size))
    return found


class Descent:
    """Plain gradient descent: parameter -= lr * gradient, with the face of the optimizers in training."""

    def __init__(self, parameters: Iterable[Parameter], lr: float) -> None:
        self.param_groups = [{"params": [p for p in parameters if p.requires_grad], "lr": lr}]

    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:  # type: ignore[attr-defined]
                p.data -= p.data.dtype.type(group["lr"]) * p.grad


def gradients(model: Layer, loss: Any, x: tuple[Any, ...], y: Any) -> tuple[float, Any]:
    """(loss, scores) of one forward and backward that start from gradients of zero; for copies.

    The loss is a `Mean` where it says of how much it is one.
    """
    for layer in (model, loss):
        forget_all(layer)
        for parameter in layer.parameters():
            parameter.zero_grad()
    scores = model(*as_inputs(x))
    value = loss(*with_target(scores, y))
    value = value if isinstance(value, Mean) else float(value)
    model.backward(start_backward(loss, scores))
    return value, scores


def few(data: Any, samples: int, seed: int = 0, loss: Any = None) -> tuple[tuple[Array, ...], Any]:
    """(inputs, target) of some samples, drawn without order from a pair of arrays.

    loss : samples of which it ignores every label are not drawn, as long as there are others
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(f"expected data to be a pair of arrays (x, y), got {type(data).__name__}")
    x, y = data
    inputs = tuple(as_numbers("data: expected each input", each) for each in (x if isinstance(x, tuple) else (x,)))
    y = None if y is None else as_numbers("data: expected the target", y)
    lengths = {len(each) for each in (*inputs, *(() if y is None else (y,)))}
    if len(lengths) != 1 or not min(lengths):
        raise ValueError(f"expected x and y with the same samples on their first axes, got {sorted(lengths)} samples")
    n = lengths.pop()
    ignored = getattr(loss, "ignore_index", None)
    rows: Any = slice(None)
    counting = np.arange(n)
    if ignored is not None and y is not None and y.dtype.kind in "iu":
        some = np.flatnonzero((np.asarray(y) != ignored).reshape(n, -1).any(axis=1))
        counting = some if some.size else counting
    if len(counting) > samples:
        counting = np.sort(counting[np.random.default_rng(seed).permutation(len(counting))[:samples]])
    if len(counting) < n:
        rows = counting
    return tuple(np.array(each[rows]) for each in inputs), None if y is None else np.array(y[rows])


def _chance(loss: Any, scores: Any, y: Any) -> tuple[float | None, str]:
    """(the loss of scores that know nothing, how it comes about)."""
    if isinstance(scores, tuple):
        return None, ""
    forget_all(loss)
    nothing = 0.0
    axis = 1 if scores.ndim > 1 and isinstance(loss, (NLLLoss, CrossEntropyLoss)) else -1
    classes = scores.shape[axis] if scores.ndim else 1
    if isinstance(loss, (NLLLoss, CTCLoss, KLDivLoss)):  # they take logarithms of probabilities
        nothing = -math.log(classes)
    elif isinstance(loss, BCELoss):
        nothing = 0.5
    try:
        value = float(np.mean(loss(*with_target(np.full_like(scores, nothing), y))))
    except ValueError:
        return None, ""
    if not math.isfinite(value):
        return None, ""
    for n in (classes, 2):
        if abs(value - math.log(n)) < 1e-5 * value:
            return value, f"ln {n} = "
    return value, "(all scores 0) " if not nothing else ""


def _elementwise(model: Layer | Trace, x: Any) -> list[tuple[str, list[Call], int]]:
    """(name, its calls, the axis of its features) of every elementwise layer with one input."""
    trace = model if isinstance(model, Trace) else record(model, x)
    found: dict[int, tuple[str, list[Call], int]] = {}
    axis = -1
    for call in trace.leaves():
        if call.parameters:
            images = ("Conv", "BatchNorm", "GroupNorm", "InstanceNorm", "LazyConv")
            axis = 1 if call.kind.startswith(images) else -1
        if isinstance(call.local, np.ndarray) and isinstance(call.output, np.ndarray) and call.output.ndim:
            here = axis if call.output.ndim > 1 else -1
            found.setdefault(id(call.layer), (call.name, [], here))[1].append(call)
    return list(found.values())


def _activity(name: str, kind: str, what: str, masks: list[Array], axis: int) -> Activity:
    by_unit = [np.moveaxis(mask, axis, -1).reshape(-1, mask.shape[axis]).all(axis=0) for mask in masks]
    stuck = np.logical_and.reduce(by_unit)
    size = sum(mask.size for mask in masks)
    return Activity(name, kind, what, stuck.size, int(stuck.sum()), sum(int(mask.sum()) for mask in masks) / size)
