"""A second lot of bugs held out, written when the doctor knew both others: what it is worth on what it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand import layers as L
from backhand import losses
from backhand.layers import Layer
from tests.bugs import Bug, changed, in_backward, remembering
from tests.bugs.anywhere import by_size, first_in_first_out, forgets_local, one_slot, only_last, overwrites, times
from tests.bugs.particular import mask_of_dout, shifted
from tests.bugs.patients import PATIENTS, distinct, normal, of
from tests.bugs.students import Homework, activation, made, softmax
from tests.cases import labels, uniform

PATIENTS.update(
    {
        "CELU": (of(L.CELU, 0.7), (normal(3, 5),)),
        "Hardsigmoid": (of(L.Hardsigmoid), (normal(3, 5) * 2,)),
        "ReLU6": (of(L.ReLU6), (normal(4, 5) * 4,)),
        "Softplus sharp": (of(L.Softplus, 3.0), (normal(3, 5),)),
        "InstanceNorm3d": (of(L.InstanceNorm3d, 2, affine=True), (normal(2, 2, 2, 3, 2),)),
        "BatchNorm1d over time": (of(L.BatchNorm1d, 3), (normal(4, 3, 5),)),
        "GroupNorm images": (of(L.GroupNorm, 2, 4), (normal(2, 4, 2, 3),)),
        "AdaptiveAvgPool2d": (of(L.AdaptiveAvgPool2d, (2, 1)), (normal(2, 2, 4, 3),)),
        "MaxPool1d overlapping": (of(L.MaxPool1d, 3, 2), (distinct(2, 3, 9),)),
        "AvgPool1d padded": (of(L.AvgPool1d, 3, 1, 1), (normal(2, 3, 6),)),
        "Upsample linear": (of(L.Upsample, scale_factor=2, mode="linear"), (normal(3, 2, 4),)),
        "Unfold": (of(L.Unfold, 2), (normal(2, 2, 3, 4),)),
        "ConstantPad2d": (of(L.ConstantPad2d, 1, 0.5), (normal(2, 2, 3, 4),)),
        "Conv1d groups": (of(L.Conv1d, 4, 4, 3, groups=2, rng=0), (normal(3, 4, 6),)),
        "Conv1d dilated": (of(L.Conv1d, 2, 3, 2, dilation=2, rng=0), (normal(3, 2, 7),)),
        "GRU deep": (of(L.GRU, 2, 3, 2, rng=0), (normal(4, 3, 2),)),
        "LSTM state": (of(L.LSTM, 2, 3, rng=0, return_state=True), (normal(4, 3, 2),)),
        "TripletMarginLoss": (of(losses.TripletMarginLoss), (normal(5, 3), normal(5, 3), normal(5, 3))),
        "GaussianNLLLoss": (of(losses.GaussianNLLLoss), (normal(5, 3), normal(5, 3), uniform(5, 3, low=0.5, high=2))),
        "CrossEntropyLoss smooth": (of(losses.CrossEntropyLoss, label_smoothing=0.1), (normal(7, 4), labels(4, 7))),
        "Linear deep batch": (of(L.Linear, 4, 2, rng=3), (normal(3, 2, 2, 4),)),
        "MultiheadAttention one": (of(L.MultiheadAttention, 4, 1, batch_first=True, rng=3), (normal(2, 3, 4),) * 3),
    }
)


def one_gate(part: int, of_: int, factor: float) -> Any:
    """The rows of one gate in all gradients of the parameters are multiplied."""

    def change(g: np.ndarray) -> np.ndarray:
        g = np.array(g)
        n = len(g) // of_
        g[part * n : (part + 1) * n] *= factor
        return g

    return changed(None, change)


def window_overwritten(layer: Layer) -> Layer:
    """dx[window] = ... in the loop over windows, of a one-dimensional pooling."""

    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        right(self, dout)
        dx = np.zeros_like(inputs[0])
        for o in range(dout.shape[2]):
            window = inputs[0][..., o * 2 : o * 2 + 3]
            dx[..., o * 2 : o * 2 + 3] = (window == window.max(-1, keepdims=True)) * dout[..., o, None]
        return dx

    return remembering(layer, backward)


BUGS: list[Any] = [
    *(Bug("sign", "sign", n, times(-1)) for n in ("CELU", "Unfold", "GaussianNLLLoss", "Conv1d groups")),
    *(Bug("factor 2", "twice", n, times(2)) for n in ("InstanceNorm3d", "GRU deep", "Upsample linear")),
    *(
        Bug("batch", "1/N", n, by_size(-1))
        for n in ("Hardsigmoid", "Conv1d dilated", "GroupNorm images", "ConstantPad2d")
    ),
    Bug("batch", "no 1/N", "TripletMarginLoss", by_size(1)),
    Bug("batch", "no 1/N", "CrossEntropyLoss smooth", by_size(1)),
    Bug("elements", "no mean", "GaussianNLLLoss", by_size(1, slice(None))),
    Bug("time", "1/T in dw", "LSTM state", by_size(-1, dx=False)),
    Bug("space", "1/pixels", "AdaptiveAvgPool2d", by_size(-1, slice(2, None))),
    *(Bug("last sample", "last of dx", n, changed(only_last)) for n in ("ReLU6", "GroupNorm images", "Conv1d groups")),
    *(Bug("overwrites", "=", n, overwrites) for n in ("GRU deep", "Conv1d groups", "MultiheadAttention one")),
    *(
        Bug("cache", "one slot", n, one_slot)
        for n in ("ReLU6", "Conv1d dilated", "MaxPool1d overlapping", "GroupNorm images")
    ),
    *(Bug("cache", "queue", n, first_in_first_out) for n in ("LSTM state", "CELU", "TripletMarginLoss")),
    *(
        Bug("local", "dx = dout", n, forgets_local)
        for n in ("CELU", "Softplus sharp", "InstanceNorm3d", "AvgPool1d padded")
    ),
    *(
        Bug("mask from dout", "dout > 0", n, mask_of_dout(s))
        for n, s in (("ReLU6", 0), ("Hardsigmoid", 0), ("CELU", 0.5))
    ),
    *(
        Bug("shifted", f"{by:+d}", n, shifted(by))
        for n in ("Conv1d groups", "Conv1d dilated", "AvgPool1d padded", "ConstantPad2d", "Unfold")
        for by in (1, -1)
    ),
    Bug("zero", "one gate", "LSTM state", one_gate(1, 4, 0), also=("part",)),
    Bug("sign", "one gate", "GRU", one_gate(2, 3, -1), also=("part",)),
    Bug("overlap", "window =", "MaxPool1d overlapping", window_overwritten),
    Bug(
        "parameter left out", "no gamma", "BatchNorm1d over time", in_backward(lambda s: s.weight, "data", np.ones_like)
    ),
    Bug("parameter left out", "no gamma", "GroupNorm images", in_backward(lambda s: s.weight, "data", np.ones_like)),
    Bug("flipped", "kernel flipped", "Conv1d dilated", in_backward(lambda s: s.weight, "data", lambda w: w[..., ::-1])),
    Bug(
        "transposed",
        "dW transposed",
        "MultiheadAttention one",
        lambda a: changed(None, lambda g: g.T if g.shape == (4, 4) else g)(a),
    ),
]

# ---------------------------------------------------------------------- homework


class LayerNorm:
    mean, var = True, True

    def __init__(self):
        rng = np.random.default_rng(1)
        self.params = {"gamma": rng.uniform(0.5, 2, 6), "beta": rng.standard_normal(6)}
        self.grads = {"gamma": np.zeros(6), "beta": np.zeros(6)}

    def forward(self, x):
        self.std = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        self.xhat = (x - x.mean(-1, keepdims=True)) / self.std
        return self.params["gamma"] * self.xhat + self.params["beta"]

    def backward(self, dout):
        self.grads["gamma"][...] = (dout * self.xhat).sum(0)
        self.grads["beta"][...] = dout.sum(0)
        d = dout * self.params["gamma"]
        m = d.mean(-1, keepdims=True) if self.mean else 0
        v = self.xhat * (d * self.xhat).mean(-1, keepdims=True) if self.var else 0
        return (d - m - v) / self.std


class Conv2d:
    """x (N, C, H, W), loops over the windows, stride 1, no padding."""

    bias_axes, flip, add = (0, 2, 3), False, True

    def __init__(self):
        rng = np.random.default_rng(2)
        self.W, self.b = rng.standard_normal((2, 2, 2, 2)), rng.standard_normal(2)

    def forward(self, x):
        self.x = x
        h, w = x.shape[2] - 1, x.shape[3] - 1
        y = np.zeros((len(x), 2, h, w))
        for i in range(h):
            for j in range(w):
                y[:, :, i, j] = np.tensordot(x[:, :, i : i + 2, j : j + 2], self.W, ([1, 2, 3], [1, 2, 3])) + self.b
        return y

    def backward(self, dout):
        dx, self.dW = np.zeros_like(self.x), np.zeros_like(self.W)
        self.db = dout.sum(axis=self.bias_axes)
        weight = self.W[..., ::-1, ::-1] if self.flip else self.W
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                self.dW += np.tensordot(dout[:, :, i, j], self.x[:, :, i : i + 2, j : j + 2], ([0], [0]))
                part = np.tensordot(dout[:, :, i, j], weight, ([1], [0]))
                if self.add:
                    dx[:, :, i : i + 2, j : j + 2] += part
                else:
                    dx[:, :, i : i + 2, j : j + 2] = part
        return dx


class Attention:
    """softmax(q k^T) v over (T, d)."""

    scale_back, couple = True, True

    def forward(self, q, k, v):
        self.q, self.k, self.v = q, k, v
        self.a = softmax(q @ k.T / np.sqrt(q.shape[1]))
        return self.a @ v

    def backward(self, dout):
        da = dout @ self.v.T
        ds = self.a * (da - (da * self.a).sum(1, keepdims=True))
        if self.scale_back:
            ds = ds / np.sqrt(self.q.shape[1])
        return ds @ self.k, ds.T @ self.q, self.a.T @ dout


class SoftmaxLoss:
    divide, target = True, True

    def forward(self, x, t):
        self.p, self.t = softmax(x), t
        return -np.log(self.p[np.arange(len(t)), t]).mean()

    def backward(self):
        dx = self.p.copy()
        if self.target:
            dx[np.arange(len(dx)), self.t] -= 1
        return dx / len(dx) if self.divide else dx


class TwoLayers:
    def __init__(self):
        rng = np.random.default_rng(4)
        self.params = {"W1": rng.standard_normal((3, 5)), "W2": rng.standard_normal((5, 2))}
        self.grads = {}

    def forward(self, x):
        self.x, self.h = x, np.maximum(0, x @ self.params["W1"])
        return self.h @ self.params["W2"]

    def backward(self, dout):
        self.grads["W2"] = self.h.T @ dout
        dh = dout @ self.params["W2"].T * self.mask()
        self.grads["W1"] = self.x.T @ dh
        return dh @ self.params["W1"].T

    def mask(self):
        return self.h > 0


X6, IMAGE, Q = normal(5, 6), normal(3, 2, 3, 4), (normal(3, 4), normal(5, 4), normal(5, 4))
SCORES = (normal(7, 4), labels(4, 7))
CASES = [
    Homework("", "layer norm", LayerNorm, (X6,)),
    Homework("", "conv2d", Conv2d, (IMAGE,)),
    Homework("", "attention", Attention, Q),
    Homework("", "softmax loss", SoftmaxLoss, SCORES),
    Homework("", "two layers", TwoLayers, (normal(4, 3),)),
]
BUGS += [
    Homework("mean path", "layer norm", made(LayerNorm, mean=False), (X6,)),
    Homework("variance path", "layer norm", made(LayerNorm, var=False), (X6,)),
    Homework("statistics", "layer norm", made(LayerNorm, var=False, mean=False), (X6,)),
    Homework("overlap", "conv2d with =", made(Conv2d, add=False), (IMAGE,)),
    Homework("flipped", "conv2d kernel flipped", made(Conv2d, flip=True), (IMAGE,)),
    Homework("missing sum", "conv2d db of samples", made(Conv2d, bias_axes=(0,)), (IMAGE,)),
    Homework("constant", "attention scale forgotten", made(Attention, scale_back=False), Q, also=("factor 2",)),
    Homework("batch", "softmax loss without 1/N", made(SoftmaxLoss, divide=False), SCORES),
    Homework("target", "softmax loss without the one", made(SoftmaxLoss, target=False), SCORES),
    Homework(
        "branch", "two layers without a mask", made(TwoLayers, mask=lambda s: 1), (normal(4, 3),), also=("local",)
    ),
    Homework("elementwise", "softplus with y", activation(lambda x: np.log1p(np.exp(x)), lambda d, x, y: d * y), (X6,)),
    Homework("sign", "minus", (lambda a, b: a - b, lambda d: (d, d)), (X6, normal(5, 6))),
    Homework("unbroadcast", "scale", (lambda x, s: x * s, lambda d, x, s: (d * s, d * x)), (X6, normal(5, 1))),
    Homework("shape", "mean of all", (lambda x: x.mean(), lambda d, x: d / x.size), (X6,)),
    Homework(
        "edge",
        "difference",
        (lambda x: x[:, 1:] - x[:, :-1], lambda d: np.pad(-d, ((0, 0), (0, 1)))),
        (X6,),
        also=("fork",),
    ),
    Homework("shifted", "slice", (lambda x: x[:, 2:] * 1, lambda d: np.pad(d, ((0, 0), (1, 1)))), (X6,)),
]
