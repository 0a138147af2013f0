"""VGG: nothing but 3x3 convolutions, deep."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from backhand.layers.adaptive import AdaptiveAvgPool2d
from backhand.layers.arguments import flag, refuse, whole, within
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm2d
from backhand.layers.conv import Conv2d
from backhand.layers.dropout import Dropout
from backhand.layers.linear import Linear
from backhand.layers.pooling import MaxPool2d
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential
from backhand.models.initialize import kaiming_normal, normal, zero

# How many convolutions before each pooling; the channels are 64, 128, 256, 512, 512.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(Sequential):
    """Five blocks of 3x3 convolutions, each ended by pooling, and three fully connected layers.

        depth        11             13             16             19
        block 1      64             64, 64         64, 64         64, 64
        block 2      128            128, 128       128, 128       128, 128
        block 3      256 x 2        256 x 2        256 x 3        256 x 4
        block 4      512 x 2        512 x 2        512 x 3        512 x 4
        block 5      512 x 2        512 x 2        512 x 3        512 x 4
        parameters   132,863,336    133,047,848    138,357,544    143,667,240

        then Linear 25088-4096, ReLU, Dropout, Linear 4096-4096, ReLU, Dropout, Linear 4096-1000

    x : (N, 3, H, W), 224x224 as a rule, at least 32x32      y : (N, num_classes) scores
    depth : 11, 13, 16 or 19 layers with weights      batch_norm : normalise after each convolution

    Two 3x3 convolutions see what one of 5x5 sees, with fewer weights and a ReLU more. The names are those of
    torchvision (features.0, ..., classifier.6), whose state_dicts load unchanged; so is the start.
    Simonyan & Zisserman 2014, arXiv:1409.1556
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 1000,
        batch_norm: bool = False,
        dropout: float = 0.5,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if depth not in CONVOLUTIONS:
            refuse(self, f"depth to be one of {', '.join(map(str, CONVOLUTIONS))}", depth)
        self.depth = depth
        self.num_classes = whole(self, "num_classes", num_classes)
        self.batch_norm = flag(self, "batch_norm", batch_norm)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        features: list[Layer] = []
        channels = 3
        for filters, times in zip(CHANNELS, CONVOLUTIONS[depth], strict=True):
            for _ in range(times):
                features.append(Conv2d(channels, filters, 3, padding=1, rng=rng, dtype=dtype))
                features += [BatchNorm2d(filters, dtype=dtype)] * batch_norm + [ReLU()]
                channels = filters
            features.append(MaxPool2d(2))
        classifier = Sequential(
            Linear(512 * 7 * 7, 4096, rng=rng, dtype=dtype),
            ReLU(),
            Dropout(dropout, rng=rng),
            Linear(4096, 4096, rng=rng, dtype=dtype),
            ReLU(),
            Dropout(dropout, rng=rng),
            Linear(4096, num_classes, rng=rng, dtype=dtype),
        )
        parts = {"features": Sequential(*features), "avgpool": AdaptiveAvgPool2d(7), "flatten": Flatten()}
        super().__init__({**parts, "classifier": classifier})
        for layer in self.modules():
            if isinstance(layer, Conv2d):
                kaiming_normal(layer.weight, rng)
                zero(layer.bias)
            elif isinstance(layer, Linear):
                normal(layer.weight, rng, 0.01)
                zero(layer.bias)

    __repr__ = Layer.__repr__
