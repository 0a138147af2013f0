"""LeNet-5, the network that read cheques."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.arguments import whole
from backhand.layers.base import Layer
from backhand.layers.conv import Conv2d
from backhand.layers.linear import Linear
from backhand.layers.pooling import MaxPool2d
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential


class LeNet5(Sequential):
    """Two convolutions, each followed by pooling, and three fully connected layers.

        name   layer                  output         parameters
        c1     Conv2d 5x5, ReLU       (6, 28, 28)          156
        s2     MaxPool2d 2            (6, 14, 14)
        c3     Conv2d 5x5, ReLU       (16, 10, 10)       2,416
        s4     MaxPool2d 2            (16, 5, 5)
        c5     Linear, ReLU           (120,)            48,120
        f6     Linear, ReLU           (84,)             10,164
        out    Linear                 (10,)                850      61,706 in all

    x : (N, in_channels, 28, 28), padded by 2 in the first layer, or (N, in_channels, 32, 32) with image_size=32
    y : (N, num_classes) scores

    The layers and names are the paper's. Three things are as they are built today: C3 is connected to all six maps,
    the non-linearity is ReLU with max-pooling (the paper: scaled tanh, trainable averages), and the output is linear.
    LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", figure 2
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if image_size not in (28, 32):
            raise ValueError(f"LeNet5: expected image_size 28 or 32, got {image_size!r}")
        self.num_classes = whole(self, "num_classes", num_classes)
        self.in_channels = whole(self, "in_channels", in_channels)
        self.image_size = image_size
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {
            "c1": Conv2d(in_channels, 6, 5, padding=(32 - image_size) // 2, rng=rng, dtype=dtype),
            "relu1": ReLU(),
            "s2": MaxPool2d(2),
            "c3": Conv2d(6, 16, 5, rng=rng, dtype=dtype),
            "relu3": ReLU(),
            "s4": MaxPool2d(2),
            "flatten": Flatten(),
            "c5": Linear(16 * 5 * 5, 120, rng=rng, dtype=dtype),
            "relu5": ReLU(),
            "f6": Linear(120, 84, rng=rng, dtype=dtype),
            "relu6": ReLU(),
            "out": Linear(84, num_classes, rng=rng, dtype=dtype),
        }
        super().__init__(layers)

    __repr__ = Layer.__repr__
