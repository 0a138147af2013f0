"""MobileNetV2: convolutions channel by channel, and narrow paths between wide ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.adaptive import AdaptiveAvgPool2d
from backhand.layers.arguments import positive, whole, within
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm2d
from backhand.layers.conv import Conv2d
from backhand.layers.dropout import Dropout
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.rectifiers import ReLU6
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential
from backhand.models.initialize import kaiming_normal, normal, zero

# (expansion, channels, blocks, stride of the first block) of each stage
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(Layer):
    """Widen, filter channel by channel, narrow; and a way around, where the shapes allow it.

        y = x + project(depthwise(expand(x)))        dx = dout + dexpand(ddepthwise(dproject(dout)))

    x : (N, in_channels, H, W)      y : (N, channels, H / stride, W / stride)
    expand is a 1x1 convolution to expansion times the channels, depthwise a 3x3 one within each channel, both with
    batch normalisation and ReLU6; project is a 1x1 convolution without non-linearity, which would lose what is narrow.
    Sandler et al. 2018, arXiv:1801.04381, section 3.3
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        expansion: int = 6,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels, self.channels = in_channels, channels
        self.stride, self.expansion = stride, expansion
        self.around = stride == 1 and in_channels == channels
        rng = np.random.default_rng(rng)
        wide = in_channels * expansion
        steps: list[Layer] = [] if expansion == 1 else [conv_bn_relu6(in_channels, wide, 1, rng=rng, dtype=dtype)]
        steps += [
            conv_bn_relu6(wide, wide, 3, stride, groups=wide, rng=rng, dtype=dtype),
            Conv2d(wide, channels, 1, bias=False, rng=rng, dtype=dtype),
            BatchNorm2d(channels, dtype=dtype),
        ]
        self.conv = Sequential(*steps)

    def forward(self, x: ArrayLike) -> Array:
        x = self.array(x)
        y: Array = self.conv.forward(x)
        if self.around:
            y = x.astype(y.dtype, copy=False) + y
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        dx: Array = self.conv.backward(dout)
        return dx + dout if self.around else dx


class MobileNetV2(Sequential):
    """A 3x3 convolution, seven stages of inverted residuals, a 1x1 convolution, the mean of each map, one linear layer.

        expansion   1    6    6    6    6    6     6
        channels    16   24   32   64   96   160   320
        blocks      1    2    3    4    3    3     1
        stride      1    2    2    2    1    2     1          3,504,872 parameters with a width of 1

    x : (N, 3, H, W), 224x224 as a rule      y : (N, num_classes) scores
    width_mult : makes all layers wider or narrower; channels are rounded to multiples of 8
    The names are those of torchvision (features.0.0, ..., classifier.1), whose state_dicts load unchanged.
    Sandler et al. 2018, arXiv:1801.04381, table 2
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        dropout: float = 0.2,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_classes = whole(self, "num_classes", num_classes)
        self.width_mult = positive(self, "width_mult", width_mult)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        channels = eighths(32 * width_mult)
        last = eighths(1280 * max(1.0, width_mult))
        features: list[Layer] = [conv_bn_relu6(3, channels, 3, 2, rng=rng, dtype=dtype)]
        for expansion, width, blocks, stride in STAGES:
            filters = eighths(width * width_mult)
            for i in range(blocks):
                step = stride if i == 0 else 1
                features.append(InvertedResidual(channels, filters, step, expansion, rng=rng, dtype=dtype))
                channels = filters
        features.append(conv_bn_relu6(channels, last, 1, rng=rng, dtype=dtype))
        classifier = Sequential(Dropout(dropout, rng=rng), Linear(last, num_classes, rng=rng, dtype=dtype))
        parts = {"features": Sequential(*features), "avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten()}
        super().__init__({**parts, "classifier": classifier})
        for layer in self.modules():
            if isinstance(layer, Conv2d):
                kaiming_normal(layer.weight, rng)
            elif isinstance(layer, Linear):
                normal(layer.weight, rng, 0.01)
                zero(layer.bias)

    __repr__ = Layer.__repr__


def conv_bn_relu6(
    channels: int,
    filters: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    *,
    rng: np.random.Generator,
    dtype: DTypeLike,
) -> Sequential:
    """A convolution without bias, batch normalisation and ReLU6."""
    convolution = Conv2d(channels, filters, size, stride, size // 2, groups=groups, bias=False, rng=rng, dtype=dtype)
    return Sequential(convolution, BatchNorm2d(filters, dtype=dtype), ReLU6())


def eighths(width: float) -> int:
    """The multiple of 8 that is nearest, but not more than a tenth less."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded
