"""Bugs that belong to a family of layers: a transposed weight, a forgotten path, a gradient one place off."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand.layers import Layer
from backhand.layers.normalization import mean_over, standardize
from tests.bugs import Bug, changed, in_backward, remembering, swapped, wrong

# ---------------------------------------------------------------------- weights and shapes


def weight_transposed(layer: Layer) -> Layer:
    """dx = dout W^T, with dW as it should be."""
    return in_backward(lambda self: self.weight, "data", lambda w: np.swapaxes(w, 0, 1))(layer)


def kernel_flipped(layer: Layer) -> Layer:
    return in_backward(lambda self: self.weight, "data", lambda w: w[..., ::-1])(layer)


def gradient_transposed(g: np.ndarray) -> np.ndarray:
    return g.T if g.ndim == 2 else g


def replaced(name: str, change: Any) -> Any:
    """The gradient of one parameter becomes another array: change(right gradient, x, dout)."""

    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            grads = right(self, dout)
            parameter = dict(self.named_parameters())[name]
            parameter.grad = change(parameter.grad, inputs[0], dout)
            return grads

        return remembering(layer, backward)

    return infect


def added_unsummed(layer: Layer) -> Layer:
    """bias.grad += dout, whose shape does not fit."""
    right = type(layer).backward

    def backward(self: Layer, dout: Any) -> Any:
        dx = right(self, dout)
        self.bias.grad += dout
        return dx

    return wrong(layer, backward=backward)


def not_unbroadcast(layer: Layer) -> Layer:
    """Every input of a gate gets a gradient of the output's shape."""
    name = type(layer).__name__

    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        self.saved()
        if name == "Add":
            return dout, dout + 0
        return dout * inputs[1], dout * inputs[0]

    return remembering(layer, backward)


def swaps_gradients(layer: Layer) -> Layer:
    right = type(layer).backward

    def backward(self: Layer, dout: Any) -> Any:
        a, b, *rest = right(self, dout)
        return (b, a, *rest)

    return wrong(layer, backward=backward)


# ---------------------------------------------------------------------- masks


def mask_of_dout(slope: float = 0.0) -> Any:
    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            right(self, dout)
            return np.where(dout > 0, dout, slope * dout)

        return remembering(layer, backward)

    return infect


def redraws_mask(layer: Layer) -> Layer:
    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        right(self, dout)
        return self._scaled(dout, self.rng.random(self.mask_shape(dout)) >= self.p)

    return remembering(layer, backward)


def no_scale(layer: Layer) -> Layer:
    return changed(lambda g: g * (1 - layer.p))(layer)


# ---------------------------------------------------------------------- windows


def shifted(by: int, axis: int = -1) -> Any:
    """What is put back to the image is put one place off; what falls over the edge is lost."""

    def shift(g: np.ndarray) -> np.ndarray:
        moved = np.zeros_like(g)
        n = g.shape[axis]
        to, come = np.moveaxis(moved, axis, 0), np.moveaxis(g, axis, 0)
        if by > 0:
            to[by:] = come[: n - by]
        else:
            to[:by] = come[-by:]
        return moved

    return changed(shift)


def other_stride(change: int) -> Any:
    """Window o is put back at o * (stride + change)."""

    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            probe = type(self).__mro__[1]
            right(self, dout)
            dx = np.zeros_like(inputs[0])
            for o in range(dout.shape[-1]):
                one = np.zeros_like(dout)
                one[..., o] = dout[..., o]
                grads = [p.grad.copy() for p in self.parameters()]
                probe.forward(self, *inputs)
                part = right(self, one)
                for p, grad in zip(self.parameters(), grads, strict=True):
                    p.grad[...] = grad
                n, by = dx.shape[-1], o * change
                if by >= 0:
                    dx[..., by:] += part[..., : n - by]
                else:
                    dx[..., :by] += part[..., -by:]
            return dx

        return remembering(layer, backward)

    return infect


def last_window_lost(g: np.ndarray) -> np.ndarray:
    g = np.array(g)
    g[..., -1] = 0
    return g


# ---------------------------------------------------------------------- forgotten terms

NORMS = {
    "BatchNorm1d": (0,),
    "BatchNorm2d": (0, 2, 3),
    "LayerNorm": (1,),
    "InstanceNorm1d": (2,),
    "RMSNorm": (1,),
    "GroupNorm": (2,),
}


def statistics_forgotten(patient: str, mean: bool, var: bool) -> Any:
    axes = NORMS[patient]

    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            right(self, dout)
            shape = inputs[0].shape
            x = inputs[0].reshape(shape[0], self.num_groups, -1) if patient == "GroupNorm" else inputs[0]
            centre = 0.0 if patient == "RMSNorm" else mean_over(axes, x)
            eps = self.eps or 1e-15
            rstd = 1 / np.sqrt(mean_over(axes, x - centre, x - centre) + eps)
            xhat = standardize(x, centre, rstd)
            lead = (1, -1, *(1,) * (dout.ndim - 2)) if patient not in ("LayerNorm", "RMSNorm") else (-1,)
            d = (dout * self.weight.data.reshape(lead)).reshape(x.shape)
            dx = d * 1
            if not mean and patient != "RMSNorm":
                dx = dx - mean_over(axes, d)
            if not var:
                dx = dx - xhat * mean_over(axes, d, xhat)
            return (dx * rstd).reshape(shape)

        return remembering(layer, backward)

    return infect


def scale_left_out(layer: Layer) -> Layer:
    """dxhat = dout: the weight is left out of dx."""
    return in_backward(lambda self: self.weight, "data", np.ones_like)(layer)


def no_coupling(layer: Layer) -> Layer:
    """Each score's own derivative alone."""

    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        right(self, dout)
        y = np.exp(inputs[0]) / np.exp(inputs[0]).sum(1, keepdims=True)
        return dout * y * (1 - y) if type(self).__name__ == "Softmax" else dout * (1 - y)

    return remembering(layer, backward)


def not_carried(layer: Layer) -> Layer:
    """What the next step sends back is dropped."""
    if type(layer).__name__ == "Unroll":

        def backward(self: Layer, dout: Any) -> Any:
            self.saved()
            steps = range(len(dout))[::-1]
            return np.stack([self.cell.backward(dout[t])[0] if t else self.cell.backward(dout[t]) for t in steps])[::-1]

        return wrong(layer, backward=backward)
    cls = type(layer)

    def step_back(self: Layer, a: Any, before: Any, after: Any, d: Any) -> Any:
        around = cls.step_back(self, a, before, after, d)
        return tuple(None if each is None else each * 0 for each in around)

    def backward(self: Layer, dout: Any) -> Any:
        w = self.weight_hh_l0
        with swapped(w, "data", np.zeros_like(w.data)):
            return cls.backward(self, dout)

    return wrong(layer, step_back=step_back, backward=backward)


# ---------------------------------------------------------------------- forks and shared weights


def fork(which: int) -> Any:
    """Only what one branch sends back."""

    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, dout: Any) -> Any:
            dout = self.upstream(dout)
            self.saved()
            name = type(self).__name__
            if name == "Residual":
                ways = [self.body.backward(dout), dout if self.shortcut is None else self.shortcut.backward(dout)]
            elif name == "Sum":
                ways = [branch.backward(dout) for branch in self.branches]
            elif name == "Concat":
                ways = [b.backward(d) for b, d in zip(self.branches, np.split(dout, [4], axis=1), strict=True)]
            else:
                ways = list(dout)
            return ways[which]

        return wrong(layer, backward=backward)

    return infect


def one_use_counts(which: str) -> Any:
    """Of a shared weight's uses only the first one (the last that backward comes to) or the last one counts."""

    def infect(layer: Layer) -> Layer:
        inner = layer.body if type(layer).__name__ == "Repeat" else layer.cell
        right = type(inner).backward

        def backward(self: Layer, dout: Any) -> Any:
            before = [p.grad.copy() for p in self.parameters()]
            for p in self.parameters():
                p.grad[...] = 0
            first_called = all((b == 0).all() for b in before)
            grads = right(self, dout)
            if which == "last" and not first_called:
                for p, grad in zip(self.parameters(), before, strict=True):
                    p.grad[...] = grad
            return grads

        wrong(inner, backward=backward)
        return layer

    return infect


def own_input(layer: Layer) -> Layer:
    """Multiply that forgets to swap: each input's gradient is the upstream times itself."""

    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        right(self, dout)
        return dout * inputs[0], dout * inputs[1]

    return remembering(layer, backward)


def to_both(layer: Layer) -> Layer:
    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        right(self, dout)
        return dout, dout + 0

    return remembering(layer, backward)


def formula(of: Any) -> Any:
    """dx = of(dout, x, y)."""

    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            right(self, dout)
            y = type(self).__mro__[1].forward(self, *inputs)
            self.saved()
            return of(dout, inputs[0], y)

        return remembering(layer, backward)

    return infect


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def decayed(layer: Layer) -> Layer:
    """Weight decay inside the layer."""
    right = type(layer).backward

    def backward(self: Layer, dout: Any) -> Any:
        dx = right(self, dout)
        self.weight.grad += 0.1 * self.weight.data
        return dx

    return wrong(layer, backward=backward)


BUGS = [
    Bug("transposed weight", "dx = dout W^T", "Linear square", weight_transposed),
    Bug("transposed weight", "W transposed", "Conv2d square", weight_transposed),
    Bug("transposed", "dW transposed", "Linear square", changed(None, gradient_transposed)),
    Bug("transposed", "dW transposed", "Repeat", changed(None, gradient_transposed)),
    Bug("transposed", "dW of shape (in, out)", "Linear", replaced("weight", lambda g, x, d: g.T)),
    Bug("transposed", "dx of shape (in, N)", "Linear", changed(np.transpose)),
    Bug("flipped", "kernel flipped", "Conv1d", kernel_flipped),
    Bug("missing sum", "db = dout", "Linear", replaced("bias", lambda g, x, d: d)),
    Bug("missing sum", "db += dout", "Linear", added_unsummed),
    Bug("missing sum", "db over time", "Linear over time", replaced("bias", lambda g, x, d: d.sum(0))),
    Bug("missing sum", "db not over space", "Conv2d", replaced("bias", lambda g, x, d: d.sum(0))),
    Bug("missing sum", "dbeta not over space", "BatchNorm2d", replaced("bias", lambda g, x, d: d.sum(0))),
    Bug("missing sum", "dbeta = dout", "LayerNorm", replaced("bias", lambda g, x, d: d)),
    Bug("missing sum", "db of one sample", "Linear", replaced("bias", lambda g, x, d: d[-1]), also=("last sample",)),
    Bug("unbroadcast", "not summed back", "Add", not_unbroadcast),
    Bug("unbroadcast", "not summed back", "Multiply", not_unbroadcast),
    Bug("swapped", "dx1 and dx2 swapped", "Multiply alike", swaps_gradients),
    Bug("swapped", "dx1 and dx2 swapped", "Max", swaps_gradients),
    Bug("swapped", "dx1 and dx2 swapped", "CosineSimilarity", swaps_gradients),
    Bug("swapped", "does not swap", "Multiply alike", own_input),
    Bug("local", "sends to both", "Max", to_both),
    Bug("mask from dout", "dout > 0", "ReLU", mask_of_dout()),
    Bug("mask from dout", "dout > 0", "LeakyReLU", mask_of_dout(0.2)),
    Bug("mask from dout", "dout > 0", "Dropout", mask_of_dout()),
    Bug("mask from dout", "dout (1 - dout)", "Sigmoid", formula(lambda d, x, y: d * d * (1 - d))),
    Bug("mask from dout", "1 - dout^2", "Tanh", formula(lambda d, x, y: d * (1 - d * d))),
    Bug("redrawn", "another mask", "Dropout", redraws_mask),
    Bug("redrawn", "another mask", "Dropout1d", redraws_mask),
    Bug("constant", "no 1/(1-p)", "Dropout", no_scale),
    *(
        Bug("shifted", f"{by:+d} place", name, shifted(by))
        for name in ("Conv1d", "Conv2d", "ConvTranspose1d", "AvgPool1d", "MaxPool2d", "ZeroPad1d", "Upsample")
        for by in (1, -1)
    ),
    Bug("stride", "stride 1 for 2", "Conv1d stride", other_stride(-1)),
    Bug("stride", "stride 1 for 2", "AvgPool1d", other_stride(-1)),
    Bug("stride", "stride 1 for 2", "MaxPool1d", other_stride(-1)),
    Bug("edge", "last column lost", "Conv1d", changed(last_window_lost)),
    Bug("edge", "last column lost", "Conv2d square", changed(last_window_lost)),
    Bug("edge", "last column lost", "AvgPool2d", changed(last_window_lost)),
    *(Bug("mean path", "no mean path", n, statistics_forgotten(n, True, False)) for n in NORMS if n != "RMSNorm"),
    *(Bug("variance path", "no variance path", n, statistics_forgotten(n, False, True)) for n in NORMS),
    *(
        Bug("statistics", "mean and variance constant", n, statistics_forgotten(n, True, True))
        for n in NORMS
        if n != "RMSNorm"
    ),
    Bug("parameter left out", "no gamma in dx", "LayerNorm", scale_left_out),
    Bug("parameter left out", "no gamma in dx", "BatchNorm1d", scale_left_out),
    Bug("parameter left out", "no gamma in dx", "GroupNorm", scale_left_out),
    Bug("coupling", "diagonal only", "Softmax", no_coupling),
    Bug("coupling", "diagonal only", "LogSoftmax", no_coupling),
    *(Bug("recurrent", "dh not carried", name, not_carried) for name in ("RNN", "LSTM", "GRU", "Unroll")),
    *(
        Bug("fork", f"only branch {k}", name, fork(k))
        for name in ("Residual", "Residual shortcut", "Sum", "Concat", "Copy")
        for k in (0, 1)
    ),
    *(
        Bug("shared weights", f"only the {which} use", name, one_use_counts(which), also=("overwrites",))
        for name in ("Repeat", "Unroll")
        for which in ("first", "last")
    ),
    Bug("local", "y (1 - y) forgotten", "Sigmoid", formula(lambda d, x, y: d * y), also=("elementwise",)),
    Bug("elementwise", "taken at x for y", "Tanh", formula(lambda d, x, y: d * (1 - x * x))),
    Bug("elementwise", "taken at y for x", "Sigmoid", formula(lambda d, x, y: d * sigmoid(y) * (1 - sigmoid(y)))),
    Bug(
        "elementwise", "taken at y for x", "SiLU", formula(lambda d, x, y: d * sigmoid(y) * (1 + y * (1 - sigmoid(y))))
    ),
    Bug("elementwise", "twice the local", "Tanh", formula(lambda d, x, y: d * (1 - y * y) ** 2)),
    Bug("elementwise", "1 / local", "Reciprocal", formula(lambda d, x, y: -d * x * x)),
    Bug("branch", "no slope below 0", "LeakyReLU", formula(lambda d, x, y: d * (x > 0))),
    Bug("branch", "1 below 0", "ELU", formula(lambda d, x, y: d * 1), also=("local",)),
    Bug("branch", "let through above 1", "Hardtanh", formula(lambda d, x, y: d * (x > -1))),
    Bug("own value", "weight decay", "Linear", decayed),
    Bug("own value", "weight decay", "Conv1d", decayed),
]
