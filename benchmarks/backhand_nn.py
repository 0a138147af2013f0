"""backhand under one name, with the few layers that only the benchmarked networks need."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand import layers, models
from backhand.layers import Layer, Parameter
from backhand.layers.memory import empty, empty_like
from backhand.layers.parameter import Array


class OptionA(Layer):
    """The shortcut without parameters: every second pixel, and zeros for the channels that are new.

        y = pad(x[:, :, ::2, ::2])        dx[:, :, ::2, ::2] = the middle channels of dout, the rest 0

    x : (N, channels, H, W)      y : (N, filters, ceil(H/2), ceil(W/2))
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, section 3.3, (A)
    """

    def __init__(self, channels: int, filters: int) -> None:
        self.channels = channels
        self.filters = filters
        self.before = (filters - channels) // 2

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        kept = x[:, :, ::2, ::2]
        n, c, h, w = kept.shape
        y = np.zeros((n, self.filters, h, w), x.dtype)
        y[:, self.before : self.before + c] = kept
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        dx: Array = np.zeros(shape, dout.dtype)
        dx[:, :, ::2, ::2] = dout[:, self.before : self.before + self.channels]
        return dx


class Positions(Layer):
    """A learned vector for each position, added to the token that stands there.

        y = x + weight[:T]        dx = dout,    dweight[:T] = sum of dout over the batch

    x, y : (N, T, width)      weight : (context, width)
    """

    def __init__(self, context: int, width: int, *, rng: np.random.Generator | int | None = None) -> None:
        self.weight = Parameter(np.random.default_rng(rng).standard_normal((context, width), np.float32))

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.weight.dtype)
        y = np.add(x, self.weight.data[: x.shape[1]], out=empty_like(x))
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        self.weight.grad[: dout.shape[1]] += dout.sum(axis=0)
        return dout


class Heads(Layer):
    """Query, key and value of all heads, out of one vector a token.

        x = [q_1 .. q_H, k_1 .. k_H, v_1 .. v_H];    dx = the gradients, put back side by side

    x : (N, T, 3 * H * D)      q, k, v : (N, H, T, D)
    """

    def __init__(self, num_heads: int) -> None:
        self.num_heads = num_heads

    def forward(self, x: ArrayLike) -> tuple[Array, ...]:
        x = self.input(x)
        n, t, _ = x.shape
        qkv = tuple(x.reshape(n, t, 3, self.num_heads, -1).transpose(2, 0, 3, 1, 4))
        self.save(out=qkv)
        return qkv

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        n, h, t, d = dout[0].shape
        dx = empty((n, t, 3, h, d), dout[0].dtype)
        for i, part in enumerate(dout):
            dx[:, :, i] = part.swapaxes(1, 2)
        return dx.reshape(n, t, -1)


class Backhand:
    """`nn` for benchmarks.networks: the layers of backhand, all drawing from one generator."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        cls = globals().get(name) or getattr(layers, name, None) or getattr(models, name)
        return functools.partial(cls, rng=self.rng) if "rng" in inspect.signature(cls).parameters else cls
