"""Layers that are one matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.base import Array, Layer, uniform, whole


class Linear(Layer):
    """An affine map of the last axis.

        y = x W^T + b
        dx = dout W        dW = dout^T x        db = sum of dout over the samples

    x : (..., in_features)      y : (..., out_features)
    weight : (out_features, in_features)      bias : (out_features,)
    Both start from U(-1/sqrt(in_features), 1/sqrt(in_features)), as in torch.nn.

    The gradients follow from the shapes alone: dW must be (out, in), and dout^T (out, N) times x (N, in) is the
    one product that gives it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_features = whole(self, "in_features", in_features)
        self.out_features = whole(self, "out_features", out_features)
        rng = np.random.default_rng(rng)
        bound = 1 / np.sqrt(in_features)
        self.weight = uniform(rng, bound, (out_features, in_features), dtype)
        self.bias = uniform(rng, bound, (out_features,), dtype) if bias else None

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.weight.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            flat = int(np.prod(x.shape[1:])) == self.in_features
            self.reject(f"x of shape (..., {self.in_features})", x.shape, "put a Flatten() before it" if flat else "")
        y = x @ self.weight.data.T
        if self.bias is not None:
            y += self.bias.data
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (x,) = self.saved()
        # every leading axis is a batch axis: one GEMM sums over all of them
        rows, drows = x.reshape(-1, self.in_features), dout.reshape(-1, self.out_features)
        self.weight.grad += drows.T @ rows
        if self.bias is not None:
            self.bias.grad += drows.sum(axis=0)
        return dout @ self.weight.data
