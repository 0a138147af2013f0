"""Residual networks: every block learns what to add to its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.adaptive import AdaptiveAvgPool2d
from backhand.layers.arguments import refuse, whole
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm2d
from backhand.layers.conv import Conv2d
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.pooling import MaxPool2d
from backhand.layers.rectifiers import ReLU
from backhand.layers.shape import Flatten
from backhand.models.containers import Sequential
from backhand.models.initialize import kaiming_normal


class _Block(Layer):
    """A way through convolutions and a way around them.

        y = relu(body(x) + shortcut(x))        dx = dbody(d) + dshortcut(d),    d = dout where y > 0

    The body's layers are attributes, in the order in which they are run; `downsample`, where there is one, is the
    shortcut: a 1x1 convolution that brings x into the shape of the body's output.
    """

    expansion: int

    def __init__(self, body: dict[str, Layer], downsample: Layer | None) -> None:
        self.body = tuple(body)
        for name, layer in body.items():
            setattr(self, name, layer)
        self.downsample = downsample
        self.relu = ReLU()

    def forward(self, x: ArrayLike) -> Array:
        x = y = self.array(x)
        for name in self.body:
            y = getattr(self, name).forward(y)
        around = x.astype(y.dtype, copy=False) if self.downsample is None else self.downsample.forward(x)
        if y.shape != around.shape:
            hint = "a downsample brings x into its shape" if self.downsample is None else ""
            self.reject(f"a body that gives the shape of the shortcut, {around.shape}", y.shape, hint)
        return self.relu.forward(y + around)

    def backward(self, dout: Any) -> Array:
        dout = self.relu.backward(dout)
        around = dout if self.downsample is None else self.downsample.backward(dout)
        dx = dout
        for name in reversed(self.body):
            dx = getattr(self, name).backward(dx)
        total: Array = dx + around
        return total


class BasicBlock(_Block):
    """Two 3x3 convolutions and a way around them.

        y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))

    x : (N, in_channels, H, W)      y : (N, channels, H / stride, W / stride)
    downsample : whether the shortcut is a 1x1 convolution with batch normalisation; else it is x itself
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, figure 5 (left)
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        downsample: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels, self.channels, self.stride = in_channels, channels, stride
        rng = np.random.default_rng(rng)
        body: dict[str, Layer] = {
            "conv1": convolution(in_channels, channels, 3, stride, rng, dtype),
            "bn1": BatchNorm2d(channels, dtype=dtype),
            "relu1": ReLU(),
            "conv2": convolution(channels, channels, 3, 1, rng, dtype),
            "bn2": BatchNorm2d(channels, dtype=dtype),
        }
        super().__init__(body, shortcut(in_channels, channels, stride, rng, dtype) if downsample else None)


class Bottleneck(_Block):
    """A 3x3 convolution between two of 1x1 that narrow and widen, and a way around them.

        y = relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))) + shortcut(x))

    x : (N, in_channels, H, W)      y : (N, 4 channels, H / stride, W / stride)
    downsample : whether the shortcut is a 1x1 convolution with batch normalisation; else it is x itself

    The stride is that of the 3x3 convolution, as in torchvision; the paper has it in the first one.
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, figure 5 (right)
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        downsample: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels, self.channels, self.stride = in_channels, channels, stride
        rng = np.random.default_rng(rng)
        wide = 4 * channels
        body: dict[str, Layer] = {
            "conv1": convolution(in_channels, channels, 1, 1, rng, dtype),
            "bn1": BatchNorm2d(channels, dtype=dtype),
            "relu1": ReLU(),
            "conv2": convolution(channels, channels, 3, stride, rng, dtype),
            "bn2": BatchNorm2d(channels, dtype=dtype),
            "relu2": ReLU(),
            "conv3": convolution(channels, wide, 1, 1, rng, dtype),
            "bn3": BatchNorm2d(wide, dtype=dtype),
        }
        super().__init__(body, shortcut(in_channels, wide, stride, rng, dtype) if downsample else None)


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(Sequential):
    """A 7x7 convolution, four stages of residual blocks, the mean of each map, and one linear layer.

        depth    block           blocks         parameters
        18       BasicBlock      2, 2, 2, 2     11,689,512
        34       BasicBlock      3, 4, 6, 3     21,797,672
        50       Bottleneck      3, 4, 6, 3     25,557,032
        101      Bottleneck      3, 4, 23, 3    44,549,160
        152      Bottleneck      3, 8, 36, 3    60,192,808

        conv1 7x7 stride 2 (64), bn1, relu, maxpool 3x3 stride 2, layer1 (64) ... layer4 (512), avgpool, fc

    x : (N, 3, H, W), 224x224 as a rule      y : (N, num_classes) scores
    Each stage but the first halves the image and doubles the channels in its first block.

    The names are those of torchvision (conv1, bn1, layer1.0.conv1, ..., fc), whose state_dicts load unchanged; so is
    the start: convolutions from N(0, 2 / fan_out).
    He, Zhang, Ren & Sun 2015, arXiv:1512.03385, table 1
    """

    def __init__(
        self,
        depth: int = 18,
        num_classes: int = 1000,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if depth not in DEPTHS:
            refuse(self, f"depth to be one of {', '.join(map(str, DEPTHS))}", depth)
        self.depth = depth
        self.num_classes = whole(self, "num_classes", num_classes)
        rng = np.random.default_rng(rng)
        block, counts = DEPTHS[depth]
        layers: dict[str, Layer] = {
            "conv1": convolution(3, 64, 7, 2, rng, dtype),
            "bn1": BatchNorm2d(64, dtype=dtype),
            "relu": ReLU(),
            "maxpool": MaxPool2d(3, 2, 1),
        }
        channels = 64
        for i, count in enumerate(counts):
            stage = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                wide = 64 << i
                changes = stride > 1 or channels != wide * block.expansion
                stage.append(block(channels, wide, stride, changes, rng=rng, dtype=dtype))
                channels = wide * block.expansion
            layers[f"layer{i + 1}"] = Sequential(*stage)
        layers |= {"avgpool": AdaptiveAvgPool2d(1), "flatten": Flatten()}
        layers["fc"] = Linear(channels, num_classes, rng=rng, dtype=dtype)
        super().__init__(layers)

    __repr__ = Layer.__repr__


def convolution(
    channels: int, filters: int, size: int, stride: int, rng: np.random.Generator, dtype: DTypeLike
) -> Conv2d:
    """A convolution that keeps the size (but for the stride), without bias: batch normalisation follows."""
    layer = Conv2d(channels, filters, size, stride, size // 2, bias=False, rng=rng, dtype=dtype)
    kaiming_normal(layer.weight, rng)
    return layer


def shortcut(channels: int, filters: int, stride: int, rng: np.random.Generator, dtype: DTypeLike) -> Sequential:
    """x in another shape: a 1x1 convolution and batch normalisation."""
    return Sequential(convolution(channels, filters, 1, stride, rng, dtype), BatchNorm2d(filters, dtype=dtype))
