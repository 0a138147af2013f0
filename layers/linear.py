"""Layers that are one matrix product."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import whole
from backhand.layers.base import Layer
from backhand.layers.memory import product
from backhand.layers.parameter import Array, uniform


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
        # every leading axis is a batch axis: one GEMM does them all
        y = product(rows_of(x), self.weight.data.T)
        if self.bias is not None:
            y += self.bias.data
        if x.ndim != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        self.save(x, out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (x,) = self.saved()
        drows = rows_of(dout)
        self.weight.add_product(drows.T, rows_of(x))
        if self.bias is not None:
            self.bias.add_product(ones(len(drows), drows.dtype), drows)
        if not self.input_requires_grad:
            return None
        dx = product(drows, self.weight.data)
        return dx if x.ndim == 2 else dx.reshape(x.shape)


class Bilinear(Layer):
    """A form that is linear in each of its two inputs.

        y_o = x1^T W_o x2 + b_o
        dx1 = sum_o dout_o W_o x2        dx2 = sum_o dout_o W_o^T x1
        dW_o = sum of dout_o x1 x2^T over the samples        db = sum of dout over the samples

    x1 : (*, in1_features)      x2 : (*, in2_features), with the same leading axes      y : (*, out_features)
    weight : (out_features, in1_features, in2_features)      bias : (out_features,)
    Both start from U(-1/sqrt(in1_features), 1/sqrt(in1_features)), as in torch.nn.

    It is a Linear over all products x1_i x2_j: with those in one long vector, the gradients are those of Linear,
    and the gradient by the products goes on to x1 and x2 as in the gate Multiply.
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in1_features = whole(self, "in1_features", in1_features)
        self.in2_features = whole(self, "in2_features", in2_features)
        self.out_features = whole(self, "out_features", out_features)
        rng = np.random.default_rng(rng)
        bound = 1 / np.sqrt(in1_features)
        self.weight = uniform(rng, bound, (out_features, in1_features, in2_features), dtype)
        self.bias = uniform(rng, bound, (out_features,), dtype) if bias else None

    def forward(self, x1: ArrayLike, x2: ArrayLike) -> Array:
        x1, x2 = self.input(x1, self.weight.dtype), self.input(x2, self.weight.dtype)
        wanted = (self.in1_features, self.in2_features)
        if not x1.ndim or not x2.ndim or (x1.shape[-1], x2.shape[-1]) != wanted or x1.shape[:-1] != x2.shape[:-1]:
            self.reject(f"x1 of shape (*, {wanted[0]}) and x2 of shape (*, {wanted[1]})", f"{x1.shape} and {x2.shape}")
        y = (_products(x1, x2) @ self._matrix().T).reshape(*x1.shape[:-1], self.out_features)
        if self.bias is not None:
            y += self.bias.data
        self.save(x1, x2, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dout = self.upstream(dout)
        x1, x2 = self.saved()
        drows = dout.reshape(-1, self.out_features)
        self.weight.grad += (drows.T @ _products(x1, x2)).reshape(self.weight.shape)
        if self.bias is not None:
            self.bias.grad += drows.sum(axis=0)
        dproducts = (drows @ self._matrix()).reshape(*x1.shape, self.in2_features)
        dx1 = (dproducts @ x2[..., None])[..., 0]
        dx2 = (x1[..., None, :] @ dproducts)[..., 0, :]
        return dx1, dx2

    def _matrix(self) -> Array:
        return self.weight.data.reshape(self.out_features, -1)


@functools.lru_cache(maxsize=16)
def ones(n: int, dtype: np.dtype[Any]) -> Array:
    """A row of n ones: the product with it sums over the rows of a table, faster than `sum` does."""
    row = np.ones((1, n), dtype)
    row.flags.writeable = False
    return row


def rows_of(x: Array) -> Array:
    """x with all its leading axes as one."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _products(x1: Array, x2: Array) -> Array:
    """Every x1_i x2_j of a sample in one row."""
    return (x1[..., :, None] * x2[..., None, :]).reshape(-1, x1.shape[-1] * x2.shape[-1])
