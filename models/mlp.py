"""The multilayer perceptron."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.arguments import within
from backhand.layers.base import Layer
from backhand.layers.dropout import Dropout
from backhand.layers.linear import Linear
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential


class MLP(Sequential):
    """Linear layers with an activation between them; the last one gives scores.

        h_1 = f(W_1 x + b_1),  ...,  y = W_n h_{n-1} + b_n

    x : (N, sizes[0]), or (N, ...) with that many numbers a sample (images are flattened)
    y : (N, sizes[-1])
    sizes : MLP(784, 256, 128, 10), say, from the input to the scores
    activation : the class of f
    dropout : the share of each hidden layer that is dropped in training, 0 for no Dropout
    Weights are named fc1, fc2, ...
    """

    def __init__(
        self,
        *sizes: int,
        activation: type[Layer] = ReLU,
        dropout: float = 0.0,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if len(sizes) < 2:
            hint = "; unpack it: MLP(*sizes)" if sizes and isinstance(sizes[0], (list, tuple)) else ""
            raise ValueError(f"MLP: expected at least two sizes, from the input to the scores, got {sizes}{hint}")
        if not (isinstance(activation, type) and issubclass(activation, Layer)):
            raise ValueError(
                f"MLP: expected activation to be the class of a layer (ReLU, not ReLU()), got {activation!r}"
            )
        self.sizes = sizes
        self.activation = activation
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {"flatten": Flatten()}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
            layers[f"fc{i}"] = Linear(fan_in, fan_out, rng=rng, dtype=dtype)
            if i < len(sizes) - 1:
                layers[f"act{i}"] = activation()
                if dropout:
                    layers[f"drop{i}"] = Dropout(dropout, rng=rng)
        super().__init__(layers)

    __repr__ = Layer.__repr__
