"""Where the first nan or inf comes from: the layer, the direction, the sample."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from backhand.inspection.apart import apart, as_inputs, copied, floats, start_backward, with_target
from backhand.inspection.gradient_check import forget_all, map_leaves
from backhand.layers.base import Layer, members
from backhand.layers.parameter import Array, Parameter


@dataclass
class NonFinite:
    """The first number that was not finite though everything that it was computed from was; prints as a sentence.

    direction : "data", "parameters", "forward" or "backward"
    name, kind : the layer's name in the model and its class ("loss" and the loss's); of data: "input", "target"
    what : "output", "dx", or the parameter whose value or gradient it is
    value : nan, inf or -inf
    index : where in that array
    sample : which sample of the batch; None where that cannot be told
    samples : how many samples had such a number there
    low, high : between which numbers the layer's input (forward) or upstream (backward) was
    """

    direction: str
    name: str
    kind: str
    what: str
    value: float
    index: tuple[int, ...]
    sample: int | None = None
    samples: int = 0
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        at = f"index {list(self.index)}"
        if self.direction == "data":
            return f"data: the {self.name} holds {self.value} in sample {self.sample} ({at}; {self._count()})"
        if self.direction == "parameters":
            return f"parameters: {self.what!r} holds {self.value} before anything is computed ({at})"
        layer = f"{self.name!r} ({self.kind})" if self.name else self.kind
        what = {"output": "gave", "dx": "handed down"}.get(self.what, f"added to the gradient of {self.what!r}")
        source = "input" if self.direction == "forward" else "upstream"
        if self.sample is None:
            where = at
        elif self.samples:
            where = f"for sample {self.sample} ({at}; {self._count()})"
        else:  # a sum over the samples
            where = f"({at}); the largest upstream is that of sample {self.sample}"
        between = f"between {self.low:.4g} and {self.high:.4g}"
        return f"{self.direction}: {layer} {what} {self.value} {where}, from a finite {source} {between}"

    def _count(self) -> str:
        return "in 1 sample" if self.samples == 1 else f"in {self.samples} samples"


def find_nonfinite(
    model: Layer, x: Any, *, loss: Layer | None = None, target: Any = None, dout: Any = None
) -> NonFinite | None:
    """Run one forward and backward, and name the first place where a number stops being finite; None: there is none.

    model, x, loss, target, dout : as in `record`; the model is not touched. The samples stand on the first axis of x

    >>> model = Sequential(Linear(2, 2, rng=0), MultiplyConstant(1e30), Exp())
    >>> print(find_nonfinite(model, np.ones((3, 2), np.float32)))
    forward: '2' (Exp) gave inf for sample 0 (index [0, 1]; in 3 samples), from a finite input between ...
    """
    running, running_loss = apart(model, loss)
    inputs = as_inputs(x)
    found = _in_data(inputs, target) or _in_parameters(running) or (loss and _in_parameters(running_loss))
    if found:
        return found
    finder = _Finder(np.shape(inputs[0]) if not isinstance(inputs[0], tuple) else ())
    for name, layer in running.named_modules():
        finder.watch(layer, name)
    try:
        with np.errstate(all="ignore"):
            y = running(*inputs)
            if loss is not None:
                finder.loss(running_loss, with_target(y, target))
                dout = start_backward(running_loss, y)
                finder.backward_of_loss(running_loss, dout)
            elif dout is None:
                dout = map_leaves(y, lambda out: np.ones_like(out) if np.asarray(out).dtype.kind == "f" else None)
            running.backward(map_leaves(dout, copied))
    except _Found as here:
        return here.found
    return None


class _Found(Exception):
    def __init__(self, found: NonFinite) -> None:
        self.found = found


class _Finder:
    """Stands before and behind every forward and backward of a copied model, and stops at the first bad number."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rows = shape[0] if shape else 0

    def watch(self, layer: Layer, name: str) -> None:
        layer.forward = functools.partial(self.forward, layer, name, layer.forward)  # type: ignore[method-assign]
        layer.backward = functools.partial(self.backward, layer, name, layer.backward)  # type: ignore[method-assign]

    def forward(self, layer: Layer, name: str, run: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        output = run(*inputs, **options)
        bad = first_bad(output)
        if bad is not None and first_bad(inputs) is None:
            self.stop("forward", name, layer, "output", bad, inputs)
        return output

    def backward(self, layer: Layer, name: str, run: Callable[[Any], Any], dout: Any) -> Any:
        downstream = run(dout)
        if first_bad(dout) is None:
            for inner, parameter in members(layer, Parameter):
                bad = first_bad(parameter.grad)
                if bad is not None:
                    self.stop("backward", name, layer, inner, bad, dout)
            bad = first_bad(downstream)
            if bad is not None:
                self.stop("backward", name, layer, "dx", bad, dout)
        return downstream

    def loss(self, loss: Layer, arguments: tuple[Any, ...]) -> None:
        value = loss(*arguments)
        if np.isfinite(value).all():
            return
        if hasattr(loss, "reduction"):  # each sample's own
            forget_all(loss)
            loss.reduction = "none"
            value = loss(*arguments)
        bad = first_bad(np.asarray(value))
        if bad is None:  # the sum of finite numbers was too much
            bad = np.asarray(np.inf)
        self.stop("forward", "loss", loss, "output", bad, arguments[0])

    def backward_of_loss(self, loss: Layer, dscores: Any) -> None:
        bad = first_bad(dscores)
        if bad is not None:
            self.stop("backward", "loss", loss, "dx", bad, np.ones(()))

    def stop(self, direction: str, name: str, layer: Layer, what: str, bad: Array, source: Any) -> NoReturn:
        index, sample, samples = _place(bad, self.rows)
        if what not in ("output", "dx"):
            sample, samples = self.loudest(source), 0
        given = floats(source)
        low = min((float(each.min()) for each in given if each.size), default=0.0)
        high = max((float(each.max()) for each in given if each.size), default=0.0)
        value = float(bad[index])
        raise _Found(NonFinite(direction, name, type(layer).__name__, what, value, index, sample, samples, low, high))

    def loudest(self, dout: Any) -> int | None:
        """The sample whose gradient is the largest: a weight's gradient is a sum over all."""
        for each in floats(dout):
            if each.ndim and self.rows and each.shape[0] % self.rows == 0:
                return int(np.abs(each).reshape(self.rows, -1).max(axis=1).argmax())
        return None


def first_bad(tree: Any) -> Array | None:
    """The first float array in nested tuples that holds a number that is not finite."""
    return next((array for array in floats(tree) if not np.isfinite(array).all()), None)


def _place(bad: Array, rows: int) -> tuple[tuple[int, ...], int | None, int]:
    """(index of the first bad number, its sample, in how many samples there are some)."""
    wrong = ~np.isfinite(bad)
    index = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), bad.shape))
    if not bad.ndim or not rows or bad.shape[0] % rows:
        return index, None, 0
    # where the layer works on (N T, ...) rows, those of a sample still stand together
    each = wrong.reshape(rows, -1).any(axis=1)
    return index, int(each.argmax()), int(each.sum())


def _in_data(inputs: tuple[Any, ...], target: Any) -> NonFinite | None:
    named = [(f"input {i}" if len(inputs) > 1 else "input", x) for i, x in enumerate(inputs)]
    for name, array in [*named, ("target", as_inputs(target) if target is not None else ())]:
        bad = first_bad(array)
        if bad is not None:
            index, sample, samples = _place(bad, bad.shape[0] if bad.ndim else 0)
            return NonFinite("data", name, "", name, float(bad[index]), index, sample, samples)
    return None


def _in_parameters(model: Layer) -> NonFinite | None:
    for name, parameter in model.named_parameters():
        bad = first_bad(parameter.data)
        if bad is not None:
            index, _, _ = _place(bad, 0)
            return NonFinite("parameters", name.rpartition(".")[0], "", name, float(bad[index]), index)
    return None
