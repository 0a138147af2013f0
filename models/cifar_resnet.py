"""The small residual networks of the paper's CIFAR-10 experiments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.adaptive import AdaptiveAvgPool2d
from backhand.layers.arguments import refuse, whole
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm2d
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential
from backhand.models.initialize import kaiming_normal, zero
from backhand.models.resnet import BasicBlock, convolution


class PaddedShortcut(Layer):
    """A shortcut without parameters: every second pixel, and zeros for the channels that are new ("option A").

        y = pad(x[:, :, ::2, ::2])        dx[:, :, ::2, ::2] = the middle channels of dout, the rest 0

    x : (N, in_channels, H, W)      y : (N, channels, ceil(H / 2), ceil(W / 2)), the old channels in the middle
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, section 3.3
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        self.in_channels = whole(self, "in_channels", in_channels)
        self.channels = whole(self, "channels", channels, least=in_channels)
        self.before = (channels - in_channels) // 2

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            self.reject(f"x of shape (N, {self.in_channels}, H, W)", x.shape)
        kept = x[:, :, ::2, ::2]
        y = np.zeros_like(kept, shape=(len(x), self.channels, *kept.shape[2:]))
        y[:, self.before : self.before + self.in_channels] = kept
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        dx: Array = np.zeros_like(dout, shape=shape)
        dx[:, :, ::2, ::2] = dout[:, self.before : self.before + self.in_channels]
        return dx


class CifarResNet(Sequential):
    """A 3x3 convolution, three stages of basic blocks, the mean of each map, and one linear layer.

        depth = 6 n + 2: n blocks in each of the stages, of 16, 32 and 64 channels

        depth        20         32         44         56         110
        parameters   269,722    464,154    658,586    853,018    1,727,962

    x : (N, 3, 32, 32)      y : (N, num_classes) scores
    Where a stage halves the image the shortcut is a PaddedShortcut, which has no parameters. Weights start from
    N(0, 2 / fan_in).
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, section 4.2
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.depth = whole(self, "depth", depth, least=8)
        if (depth - 2) % 6:
            refuse(self, "depth to be 6 n + 2", depth)
        self.num_classes = whole(self, "num_classes", num_classes)
        rng = np.random.default_rng(rng)
        layers: dict[str, Layer] = {
            "conv1": convolution(3, 16, 3, 1, rng, dtype),
            "bn1": BatchNorm2d(16, dtype=dtype),
            "relu": ReLU(),
        }
        channels = 16
        for i, filters in enumerate((16, 32, 64), start=1):
            stage = []
            for _ in range((depth - 2) // 6):
                block = BasicBlock(channels, filters, 1 if channels == filters else 2, rng=rng, dtype=dtype)
                if channels != filters:
                    block.downsample = PaddedShortcut(channels, filters)
                stage.append(block)
                channels = filters
            layers[f"layer{i}"] = Sequential(*stage)
        layers |= {"avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten()}
        layers["linear"] = Linear(64, num_classes, rng=rng, dtype=dtype)
        super().__init__(layers)
        for parameter in self.parameters():
            if parameter.data.ndim > 1:
                kaiming_normal(parameter, rng, "fan_in")
        zero(layers["linear"].bias)  # type: ignore[attr-defined]

    __repr__ = Layer.__repr__
