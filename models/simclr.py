"""SimCLR: two views of one picture should land close together, without anybody saying what it shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import whole
from backhand.layers.base import Layer
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.rectifiers import ReLU
from backhand.models.containers import Sequential


class SimCLR(Layer):
    """An encoder, and a small head on it that is thrown away after training.

        h = encoder([x1, x2])        z = W_2 relu(W_1 h)        z1, z2 = the halves of z

    encoder : a Layer that gives `features` numbers for each sample: a ConvNet(features), say
    x1, x2 : two views of the same samples, (N, ...)      z1, z2 : (N, projection), what NTXentLoss takes
    hidden, projection : the widths of the head

    Both views go through in one batch: BatchNorm sees them together. What is used afterwards is h = encoder(x): the
    head loses what the views do not share, and that may be what one wants to know.
    Chen, Kornblith, Norouzi & Hinton 2020, arXiv:2002.05709, algorithm 1
    """

    def __init__(
        self,
        encoder: Layer,
        features: int,
        hidden: int = 128,
        projection: int = 64,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if not isinstance(encoder, Layer):
            raise TypeError(f"SimCLR: expected encoder to be a Layer, got {encoder!r}")
        self.features = whole(self, "features", features)
        self.hidden = whole(self, "hidden", hidden)
        self.projection = whole(self, "projection", projection)
        rng = np.random.default_rng(rng)
        self.encoder = encoder
        self.head = Sequential(
            Linear(features, hidden, rng=rng, dtype=dtype),
            ReLU(),
            Linear(hidden, projection, rng=rng, dtype=dtype),
        )

    def forward(self, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array]:
        x1 = self.input(x1)
        x2 = self.input(x2, x1.dtype)
        if x1.shape != x2.shape:
            self.reject("two views of one shape", f"{x1.shape} and {x2.shape}")
        z = self.head.forward(self.encoder.forward(np.concatenate([x1, x2])))
        views = z[: len(x1)], z[len(x1) :]
        self.save(out=views)
        return views

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        self.saved()
        dx = self.encoder.backward(self.head.backward(np.concatenate(dout)))
        if dx is None:
            return None, None
        return dx[: len(dx) // 2], dx[len(dx) // 2 :]

    def input_requires_grad_(self, requires_grad: bool = True) -> SimCLR:
        super().input_requires_grad_(requires_grad)
        self.encoder.input_requires_grad_(requires_grad)
        return self
