"""Bugs that any layer can have."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand.layers import Layer
from tests.bugs import Bug, changed, remembering, tree, wrong


def times(factor: float, dx: bool = True, dw: bool = True) -> Any:
    return changed((lambda g: g * factor) if dx else None, (lambda g: g * factor) if dw else None)


def by_size(power: int, axes: slice = slice(0, 1), dx: bool = True, dw: bool = True) -> Any:
    """Every gradient times the size of these axes of the first input to the power: 1/N where it is -1."""

    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            factor = float(np.prod(inputs[0].shape[axes])) ** power
            before = [p.grad.copy() for p in self.parameters()]
            grads = right(self, dout)
            for p, grad in zip(self.parameters(), before, strict=True):
                p.grad[...] = grad + (p.grad - grad) * (factor if dw else 1)
            return tree(lambda g: g * factor, grads) if dx else grads

        return remembering(layer, backward)

    return infect


def only_last(g: np.ndarray) -> np.ndarray:
    kept = np.zeros_like(g)
    kept[-1] = g[-1]
    return kept


def with_nan(g: np.ndarray) -> np.ndarray:
    g = np.array(g)
    g.reshape(-1)[-1] = np.nan
    return g


def overwrites(layer: Layer) -> Layer:
    """The gradients of the parameters are set, not added to."""
    right = type(layer).backward

    def backward(self: Layer, dout: Any = None) -> Any:
        for p in self.parameters():
            p.grad[...] = 0
        return right(self, dout)

    return wrong(layer, backward=backward)


def one_slot(layer: Layer) -> Layer:
    """Only the last forward is kept, and it stays."""
    right = type(layer)

    def save(self: Layer, *values: Any, **out: Any) -> None:
        self.__dict__["_stack"] = []
        right.save(self, *values, **out)

    def saved(self: Layer) -> Any:
        stack = list(self.__dict__["_stack"])
        values = right.saved(self)
        self.__dict__["_stack"] = stack
        return values

    return wrong(layer, save=save, saved=saved)


def first_in_first_out(layer: Layer) -> Layer:
    """A queue where a stack is needed."""
    right = type(layer)

    def saved(self: Layer) -> Any:
        stack = self.__dict__["_stack"]
        stack.append(stack.pop(0))
        return right.saved(self)

    return wrong(layer, saved=saved)


def spoils_input(layer: Layer) -> Layer:
    right = type(layer)

    def forward(self: Layer, *inputs: Any) -> Any:
        y = right.forward(self, *inputs)
        inputs[0][...] *= 1.5
        return y

    return wrong(layer, forward=forward)


def spoils_dout(layer: Layer) -> Layer:
    right = type(layer)

    def backward(self: Layer, dout: Any = None) -> Any:
        grads = tree(np.array, right.backward(self, dout))
        dout *= 0.5
        return grads

    return wrong(layer, backward=backward)


def noisy(layer: Layer) -> Layer:
    right = type(layer)

    def forward(self: Layer, *inputs: Any) -> Any:
        scale = 1 + 0.1 * np.random.default_rng().random()
        return right.forward(self, *(x * scale if x.dtype.kind == "f" else x for x in inputs))

    return wrong(layer, forward=forward)


def forgets_local(layer: Layer) -> Layer:
    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        right(self, dout)
        return np.array(dout)

    return remembering(layer, backward)


def without_dx(layer: Layer) -> Layer:
    right = type(layer).backward

    def backward(self: Layer, dout: Any = None) -> None:
        right(self, dout)

    return wrong(layer, backward=backward)


def half_precision(g: np.ndarray) -> np.ndarray:
    return g.astype(np.float16).astype(g.dtype)


def extra_axis(g: np.ndarray) -> np.ndarray:
    return g.sum(axis=-1)


WITH_WEIGHTS = ("Linear", "Conv2d", "LayerNorm", "LSTM", "Bilinear", "BatchNorm2d")
PLAIN = ("Tanh", "Softmax", "MaxPool2d", "Upsample", "Multiply")
LOSSES = ("CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss")

BUGS = [
    *(Bug("sign", "sign of dx", name, times(-1, dw=False)) for name in ("Linear", "Tanh", "GRU", "LayerNorm", "Add")),
    *(Bug("sign", "sign of the weights", name, times(-1, dx=False)) for name in ("Linear", "Conv1d", "Embedding")),
    *(Bug("sign", "sign of all", name, times(-1)) for name in ("MSELoss", "BatchNorm1d", "RNN")),
    *(Bug("factor 2", "twice dx", name, times(2, dw=False)) for name in ("Sigmoid", "Conv2d", "LSTM", "AvgPool2d")),
    *(Bug("factor 2", "half of dw", name, times(0.5, dx=False)) for name in ("Linear", "RMSNorm", "GroupNorm")),
    *(Bug("factor 2", "half of all", name, times(0.5)) for name in ("MSELoss", "Bilinear", "Exp")),
    *(
        Bug("batch", "1/N in dx and dw", name, by_size(-1))
        for name in ("Linear", "Conv2d", "LayerNorm", "BatchNorm2d", "Bilinear", "Tanh", "Softmax")
    ),
    *(Bug("batch", "1/N in dw", name, by_size(-1, dx=False)) for name in ("Linear", "Conv1d", "PReLU", "LSTMCell")),
    *(Bug("batch", "1/N in dx", name, by_size(-1, dw=False)) for name in ("ReLU", "Linear", "MaxPool1d")),
    *(Bug("batch", "no 1/N", name, by_size(1)) for name in ("CrossEntropyLoss",)),
    *(Bug("elements", "no mean", name, by_size(1, slice(None))) for name in ("MSELoss", "BCEWithLogitsLoss")),
    *(Bug("time", "1/T in dw", name, by_size(-1, dx=False)) for name in ("RNN", "LSTM", "GRU")),
    *(Bug("space", "1/pixels in dw", name, by_size(-1, slice(2, None), dx=False)) for name in ("BatchNorm2d",)),
    *(Bug("zero", "dx zero", name, times(0, dw=False)) for name in ("Linear", "Sigmoid", "Conv2d", "MSELoss", "GLU")),
    *(Bug("zero", "dw zero", name, times(0, dx=False)) for name in ("Linear", "LayerNorm", "Embedding", "GRU")),
    *(Bug("missing", "no dx", name, without_dx) for name in ("Linear", "Tanh", "BatchNorm1d", "CrossEntropyLoss")),
    *(Bug("nan", "NaN in dx", name, changed(with_nan)) for name in ("Softmax", "LayerNorm", "MSELoss")),
    *(Bug("nan", "NaN in dw", name, changed(None, with_nan)) for name in ("Linear", "GroupNorm")),
    *(Bug("shape", "dx summed", name, changed(extra_axis)) for name in ("Tanh", "Conv2d", "Softmax", "LSTM")),
    *(
        Bug("last sample", "only the last sample of dx", name, changed(only_last))
        for name in ("Linear", "ReLU", "Conv2d", "LayerNorm", "MaxPool2d", "MSELoss")
    ),
    *(
        Bug("overwrites", "= where += is needed", name, overwrites)
        for name in ("Linear", "Conv2d", "LayerNorm", "LSTM", "Embedding", "BatchNorm2d", "MultiheadAttention")
    ),
    *(
        Bug("cache", "one slot", name, one_slot)
        for name in ("Linear", "Tanh", "MaxPool2d", "BatchNorm1d", "LSTM", "Dropout", "Softmax", "Multiply")
    ),
    *(
        Bug("cache", "first in first out", name, first_in_first_out)
        for name in ("Linear", "ReLU", "Conv1d", "GRU", "LayerNorm", "GELU")
    ),
    *(
        Bug("input changed", "writes into x", name, spoils_input)
        for name in ("Linear", "ReLU", "LayerNorm", "Conv2d", "Multiply", "Softmax")
    ),
    *(
        Bug("dout changed", "writes into dout", name, spoils_dout)
        for name in ("Linear", "ReLU", "LayerNorm", "MaxPool2d", "Sigmoid")
    ),
    *(Bug("stochastic", "draws anew", name, noisy) for name in ("Linear", "Tanh", "Conv2d", "RNN")),
    *(
        Bug("local", "dx = dout", name, forgets_local)
        for name in ("ReLU", "Sigmoid", "Tanh", "LayerNorm", "Dropout", "Softmax", "Linear square", "BatchNorm1d")
    ),
    *(Bug("rounding", "half precision", name, changed(half_precision)) for name in ("Linear", "Tanh", "LayerNorm")),
]
