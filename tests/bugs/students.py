"""Bugs as they stand in coursework: classes with nothing but forward and backward, and pairs of functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    x = RNG.standard_normal(shape)
    return np.where(x < 0, x - 0.1, x + 0.1)


@dataclass
class Homework:
    """One wrong (or, with kind "", right) piece of homework."""

    kind: str
    what: str
    thing: Any
    inputs: tuple[Any, ...]
    also: tuple[str, ...] = ()

    def build(self) -> tuple[Any, tuple[Any, ...]]:
        thing = self.thing() if isinstance(self.thing, type) else self.thing
        return thing, self.inputs

    def __str__(self) -> str:
        return f"homework: {self.what}".replace(" ", "-")


def made(base: type, **methods: Any) -> type:
    return type(base.__name__, (base,), methods)


class Affine:
    """y = x W + b, right."""

    def __init__(self, n: int = 3, m: int = 4) -> None:
        rng = np.random.default_rng(0)
        self.W, self.b = rng.standard_normal((n, m)), rng.standard_normal(m)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class Square(Affine):
    def __init__(self):
        super().__init__(4, 4)


def affine(dx=None, dW=None, db=None, base=Affine):
    def backward(self, d):
        self.dW = dW(self, d) if dW else self.x.T @ d
        self.db = db(self, d) if db else d.sum(axis=0)
        return dx(self, d) if dx else d @ self.W.T

    return made(base, backward=backward)


class Params:
    """The same with dicts of parameters and gradients, as some courses have it."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.params = {"W": rng.standard_normal((3, 4)), "b": rng.standard_normal(4)}
        self.grads = {}

    def forward(self, x):
        self.x = x
        return np.maximum(0, x @ self.params["W"] + self.params["b"])

    def backward(self, dout):
        d = dout * (self.x @ self.params["W"] + self.params["b"] > 0)
        self.grads["W"] = self.x.T @ d
        self.grads["b"] = d.sum(0)
        return d @ self.params["W"].T


class Activation:
    def forward(self, x):
        self.x, self.y = x, self.f(x)
        return self.y

    def backward(self, dout):
        return self.df(dout)


def activation(f, df):
    return made(Activation, f=lambda self, x: f(x), df=lambda self, d: df(d, self.x, self.y))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class BatchNorm:
    def __init__(self, d=4):
        rng = np.random.default_rng(0)
        self.gamma, self.beta = rng.uniform(0.5, 2, d), rng.standard_normal(d)
        self.running_mean = np.zeros(d)

    def forward(self, x):
        self.mu, self.var = x.mean(0), x.var(0)
        self.running_mean = 0.9 * self.running_mean + 0.1 * self.mu
        self.std = np.sqrt(self.var + 1e-5)
        self.xhat = (x - self.mu) / self.std
        return self.gamma * self.xhat + self.beta

    def backward(self, dout):
        self.dgamma, self.dbeta = (dout * self.xhat).sum(0), dout.sum(0)
        d = dout * self.gamma
        return (d - d.mean(0) - self.xhat * (d * self.xhat).mean(0)) / self.std


def batchnorm(dx=None, dgamma=None):
    def backward(self, dout):
        right = BatchNorm.backward(self, dout)
        if dgamma:
            self.dgamma = dgamma(self, dout)
        return dx(self, dout * self.gamma) if dx else right

    return made(BatchNorm, backward=backward)


class Conv:
    """One-dimensional, with loops; x (N, L)."""

    stride, pad = 1, 1
    add, samples, crop, back_stride = True, True, 0, None

    def __init__(self):
        self.w = np.random.default_rng(0).standard_normal(3)

    def forward(self, x):
        self.xp = np.pad(x, ((0, 0), (self.pad, self.pad)))
        n = (self.xp.shape[1] - 3) // self.stride + 1
        return np.stack([self.xp[:, o * self.stride : o * self.stride + 3] @ self.w for o in range(n)], axis=1)

    def backward(self, dout):
        dxp, self.dw = np.zeros_like(self.xp), np.zeros(3)
        s = self.back_stride or self.stride
        for i in range(len(dout)):
            if not self.samples:
                self.dw = np.zeros(3)
            for o in range(dout.shape[1]):
                self.dw += dout[i, o] * self.xp[i, o * self.stride : o * self.stride + 3]
                if self.add:
                    dxp[i, o * s : o * s + 3] += dout[i, o] * self.w
                else:
                    dxp[i, o * s : o * s + 3] = dout[i, o] * self.w
        start = self.pad + self.crop
        return dxp[:, start : start + self.xp.shape[1] - 2 * self.pad]


class Pool:
    """Largest, or mean, of each k neighbours; x (N, L)."""

    def __init__(self, mode="mean", k=3):
        self.mode, self.k = mode, k

    def forward(self, x):
        self.x = x.reshape(len(x), -1, self.k)
        return self.x.mean(-1) if self.mode == "mean" else self.x.max(-1)

    def backward(self, dout):
        if self.mode == "mean":
            return np.repeat(dout, self.k, axis=1) / self.k
        return ((self.x == self.x.max(-1, keepdims=True)) * dout[..., None]).reshape(len(dout), -1)


class MeanPoolSum(Pool):
    def backward(self, dout):
        return np.repeat(dout, self.k, axis=1)


class MaxPoolAll(Pool):
    def __init__(self):
        super().__init__("max")

    def backward(self, dout):
        return np.repeat(dout, self.k, axis=1)


class Recurrent:
    """x (N, T, D), as in image captioning."""

    carry, add = True, True

    def __init__(self):
        rng = np.random.default_rng(0)
        self.Wx, self.Wh, self.b = (rng.standard_normal(s) for s in ((2, 3), (3, 3), (3,)))

    def forward(self, x):
        h = np.zeros((len(x), 3))
        self.x, self.h = x, [h]
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ self.Wx + h @ self.Wh + self.b)
            self.h.append(h)
        return np.stack(self.h[1:], axis=1)

    def backward(self, dout):
        self.dWx, self.dWh, self.db = np.zeros_like(self.Wx), np.zeros_like(self.Wh), np.zeros_like(self.b)
        dx, dh = np.zeros_like(self.x), 0
        for t in reversed(range(self.x.shape[1])):
            da = (dout[:, t] + dh) * (1 - self.h[t + 1] ** 2)
            dx[:, t] = da @ self.Wx.T
            if not self.add:
                self.dWx, self.dWh, self.db = self.dWx * 0, self.dWh * 0, self.db * 0
            self.dWx += self.x[:, t].T @ da
            self.dWh += self.h[t].T @ da
            self.db += da.sum(0)
            dh = da @ self.Wh.T if self.carry else 0
        return dx


def drawn(x):
    return (np.random.rand(*x.shape) < 0.6) / 0.6  # noqa: NPY002 - as courses have it


class Dropout:
    def forward(self, x):
        self.mask = drawn(x)
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Lookup:
    def __init__(self):
        self.W = np.random.default_rng(0).standard_normal((6, 3))

    def forward(self, x):
        self.x = x
        return self.W[x]

    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        self.dW[self.x] = dout


class Block:
    """x + tanh(x W)."""

    def __init__(self):
        self.W = np.random.default_rng(0).standard_normal((4, 4))

    def forward(self, x):
        self.x, self.y = x, np.tanh(x @ self.W)
        return x + self.y

    def backward(self, dout):
        d = dout * (1 - self.y**2)
        self.dW = self.x.T @ d
        return self.join(dout, d @ self.W.T)

    def join(self, a, b):
        return a + b


class Once(Affine):
    x = None

    def forward(self, x):
        if self.x is None:
            self.x = x
        return x @ self.W + self.b


class Centred(Affine):
    def forward(self, x):
        x -= x.mean()
        self.x = x
        return x @ self.W + self.b


def right_functions():
    return lambda x: x**2 + np.sin(x), lambda dout, x: dout * (2 * x + np.cos(x))


X, XS, XT = normal(5, 3), normal(5, 4), normal(3, 4, 2)
CASES = [
    Homework("", "affine", Affine, (X,)),
    Homework("", "parameters in dicts", Params, (X,)),
    Homework("", "batch norm", BatchNorm, (XS,)),
    Homework("", "conv", Conv, (normal(3, 7),)),
    Homework("", "pool", Pool, (normal(3, 6),)),
    Homework("", "recurrent", Recurrent, (XT,)),
    Homework("", "dropout", Dropout, (XS,)),
    Homework("", "block", Block, (XS,)),
    Homework("", "functions", right_functions(), (XS,)),
    Homework(
        "", "relu at 0", activation(lambda x: np.maximum(x, 0), lambda d, x, y: d * (x > 0)), (np.array([0.0, 1, -1]),)
    ),
    Homework("", "sigmoid", activation(sigmoid, lambda d, x, y: d * y * (1 - y)), (XS,)),
    Homework(
        "", "single precision", activation(lambda x: np.tanh(x.astype("f")), lambda d, x, y: d * (1 - y * y)), (XS,)
    ),
]
BUGS = [
    Homework("transposed weight", "dx = dout W", affine(dx=lambda s, d: d @ s.W, base=Square), (XS,)),
    Homework("transposed", "dW = dout^T x", affine(dW=lambda s, d: d.T @ s.x, base=Square), (XS,)),
    Homework("transposed", "dW of W^T's shape", affine(dW=lambda s, d: d.T @ s.x), (X,)),
    Homework("missing sum", "db = dout", affine(db=lambda s, d: d), (X,)),
    Homework("shape", "db one number", affine(db=lambda s, d: d.sum()), (X,)),
    Homework("shape", "db over the wrong axis", affine(db=lambda s, d: d.sum(1)), (X,)),
    Homework(
        "wrong axis", "db over the wrong axis, square", affine(db=lambda s, d: d.sum(1), base=Square), (normal(4, 4),)
    ),
    Homework("batch", "all by N", affine(dW=lambda s, d: s.x.T @ d / len(d), db=lambda s, d: d.mean(0)), (X,)),
    Homework("batch", "db by N", affine(db=lambda s, d: d.mean(0)), (X,)),
    Homework("sign", "dW", affine(dW=lambda s, d: -s.x.T @ d), (X,)),
    Homework("zero", "dW", affine(dW=lambda s, d: np.zeros_like(s.W)), (X,)),
    Homework("missing", "dW None", affine(dW=lambda s, d: None), (X,)),
    Homework("local", "dx = dout", affine(dx=lambda s, d: d, base=Square), (XS,)),
    Homework("raises", "dout x", affine(dx=lambda s, d: d @ s.W), (X,)),
    Homework("own value", "weight decay", affine(dW=lambda s, d: s.x.T @ d + 0.1 * s.W), (X,)),
    Homework("last sample", "dW of the last", affine(dW=lambda s, d: np.outer(s.x[-1], d[-1])), (X,)),
    Homework("cache", "the first x stays", Once, (X,)),
    Homework("input changed", "x -= mean", Centred, (X,)),
    Homework("mask from dout", "relu", activation(lambda x: np.maximum(x, 0), lambda d, x, y: d * (d > 0)), (XS,)),
    Homework("branch", "mask inverted", activation(lambda x: np.maximum(x, 0), lambda d, x, y: d * (x < 0)), (XS,)),
    Homework("local", "no mask", activation(lambda x: np.maximum(x, 0), lambda d, x, y: d), (XS,)),
    Homework("elementwise", "y (1 + y)", activation(sigmoid, lambda d, x, y: d * y * (1 + y)), (XS,)),
    Homework("elementwise", "1 - y", activation(np.tanh, lambda d, x, y: d * (1 - y)), (XS,)),
    Homework("elementwise", "x for exp", activation(np.exp, lambda d, x, y: d * x), (XS,)),
    Homework("upstream", "dout forgotten", activation(sigmoid, lambda d, x, y: y * (1 - y)), (XS,)),
    Homework("upstream", "dout forgotten", (lambda x: x**2, lambda d, x: 2 * x), (XS,)),
    Homework("factor 2", "x for 2 x", (lambda x: x**2, lambda d, x: d * x), (XS,)),
    Homework("coupling", "y (1 - y)", activation(softmax, lambda d, x, y: d * y * (1 - y)), (XS,)),
    Homework(
        "coupling", "y (d - sum d)", activation(softmax, lambda d, x, y: y * (d - d.sum(1, keepdims=True))), (XS,)
    ),
    Homework(
        "axis", "mean without 1/D", (lambda x: x.mean(1), lambda d, x: np.repeat(d[:, None], x.shape[1], 1)), (XS,)
    ),
    Homework("shape", "not spread", (lambda x: x.sum(1), lambda d: d), (XS,)),
    Homework("transposed", "x^T", (lambda x: x.T * 1, lambda d: d), (normal(4, 4),), also=("local",)),
    Homework("swapped", "a b", (lambda a, b: a * b, lambda d, a, b: (d * a, d * b)), (XS, normal(5, 4))),
    Homework("swapped", "a - b", (lambda a, b: a - 2 * b, lambda d: (-2 * d, d)), (XS, normal(5, 4))),
    Homework("unbroadcast", "x + b", (lambda x, b: x + b, lambda d: (d, d)), (XS, normal(4))),
    Homework("missing", "second input", (lambda x, b: x + b, lambda d: d), (XS, normal(5, 4))),
    Homework("nan", "0/0", (lambda x: x**3, lambda d, x: d * 3 * x**3 / (x * (x > 0))), (XS,)),
    Homework("mean path", "batch norm", batchnorm(lambda s, d: (d - s.xhat * (d * s.xhat).mean(0)) / s.std), (XS,)),
    Homework("variance path", "batch norm", batchnorm(lambda s, d: (d - d.mean(0)) / s.std), (normal(6, 4),)),
    Homework("statistics", "batch norm", batchnorm(lambda s, d: d / s.std), (normal(6, 4),)),
    Homework("local", "dgamma without xhat", batchnorm(dgamma=lambda s, d: d.sum(0)), (XS,)),
    Homework("batch", "dgamma by N", batchnorm(dgamma=lambda s, d: (d * s.xhat).mean(0)), (XS,)),
    Homework("overlap", "conv with =", made(Conv, add=False), (normal(3, 7),)),
    Homework("last sample", "conv dw of the last", made(Conv, samples=False), (normal(3, 7),)),
    Homework("shifted", "conv cropped late", made(Conv, crop=1), (normal(3, 7),)),
    Homework("shifted", "conv cropped early", made(Conv, crop=-1), (normal(3, 7),)),
    Homework("stride", "conv", made(Conv, stride=2, back_stride=1), (normal(3, 9),)),
    Homework("constant", "pool without 1/k", MeanPoolSum, (normal(3, 6),)),
    Homework("local", "max pool to all", MaxPoolAll, (normal(3, 6),)),
    Homework("recurrent", "dh not carried", made(Recurrent, carry=False), (XT,)),
    Homework("shared weights", "dW = in the loop", made(Recurrent, add=False), (XT,), also=("overwrites",)),
    Homework("redrawn", "dropout", made(Dropout, backward=lambda s, d: d * drawn(d)), (XS,)),
    Homework("local", "dropout", made(Dropout, backward=lambda s, d: d), (XS,)),
    Homework(
        "constant", "dropout unscaled", made(Dropout, backward=lambda s, d: d * (s.mask > 0)), (XS,), also=("factor",)
    ),
    Homework("shared weights", "dW[x] = dout", Lookup, (np.array([1, 2, 1, 4, 2]),), also=("overwrites",)),
    Homework("fork", "body alone", made(Block, join=lambda s, a, b: b), (XS,)),
    Homework("fork", "way around alone", made(Block, join=lambda s, a, b: a), (XS,), also=("local",)),
    Homework(
        "stochastic", "own noise", activation(lambda x: x + np.random.default_rng().random(), lambda d, x, y: d), (XS,)
    ),
]
