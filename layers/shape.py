"""Layers that move numbers without changing them: their backward moves them back."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from backhand.layers.base import Array, Layer


class Identity(Layer):
    """Hand the input on unchanged; any constructor arguments are ignored, as in torch.nn.

        y = x        dx = dout

    x, y : any shape
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: ArrayLike) -> Array:
        x = self.array(x)
        self.save(out=x)
        return x

    def backward(self, dout: Any) -> Array | None:
        dout = self.upstream(dout)
        self.saved()
        return dout


class Flatten(Layer):
    """Join the axes from `start_dim` to `end_dim` into one.

        y = x.reshape(...)        dx = dout.reshape(x.shape)

    x : (N, C, H, W), say      y : (N, C*H*W) with the default arguments
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: ArrayLike) -> Array:
        x = self.array(x)
        shape = x.shape or (1,)
        first, last = (d + len(shape) if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < len(shape):
            self.reject(f"x with axes {self.start_dim} to {self.end_dim}, in this order", f"shape {x.shape}")
        y = x.reshape(*shape[:first], -1, *shape[last + 1 :])
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array | None:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        return None if dout is None else dout.reshape(shape)
