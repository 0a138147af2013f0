"""A small convolutional network with batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.arguments import whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm2d
from backhand.layers.conv import Conv2d
from backhand.layers.linear import Linear
from backhand.layers.pooling import MaxPool2d
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential


class ConvNet(Sequential):
    """Blocks of convolution, batch normalisation, ReLU and pooling, and one linear layer on top.

        h_i = pool(relu(bn(conv3x3(h_{i-1}))))        y = W flatten(h_n) + b

    x : (N, *image_shape)      y : (N, num_classes) scores
    widths : the channels of each block; every block halves the image
    The convolutions have no bias: batch normalisation would take it off again.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        widths: Sequence[int] = (32, 64, 128),
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_classes = whole(self, "num_classes", num_classes)
        self.image_shape = whole_tuple(self, "image_shape", image_shape, 3)
        self.widths = tuple(whole(self, "widths", width) for width in widths)
        channels, height, width = image_shape
        if min(height, width) >> len(self.widths) == 0:
            raise ValueError(
                f"ConvNet: expected images of at least {2 ** len(self.widths)} pixels a side for "
                f"{len(self.widths)} blocks, got {height}x{width}"
            )
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {}
        for i, filters in enumerate(self.widths, start=1):
            layers[f"conv{i}"] = Conv2d(channels, filters, 3, padding=1, bias=False, rng=rng, dtype=dtype)
            layers[f"bn{i}"] = BatchNorm2d(filters, dtype=dtype)
            layers[f"relu{i}"] = ReLU()
            layers[f"pool{i}"] = MaxPool2d(2)
            channels, height, width = filters, height // 2, width // 2
        layers["flatten"] = Flatten()
        layers["fc"] = Linear(channels * height * width, num_classes, rng=rng, dtype=dtype)
        super().__init__(layers)

    __repr__ = Layer.__repr__
