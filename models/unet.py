"""The U-Net: down to see the whole, up again to say something of every pixel, with bridges between the same sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, whole
from backhand.layers.base import Layer
from backhand.layers.batch_norm import BatchNorm2d
from backhand.layers.conv import Conv2d
from backhand.layers.conv_transpose import ConvTranspose2d
from backhand.layers.parameter import Array
from backhand.layers.pooling import MaxPool2d
from backhand.layers.rectifiers import ReLU
from backhand.models.containers import Sequential
from backhand.models.initialize import kaiming_normal


class UNet(Layer):
    """A way down, a way up, and at every size a bridge from the one to the other.

        s_0 = encoder_1(x),  s_i = encoder_{i+1}(pool(s_{i-1})),  ...,  h = bottleneck(pool(s_last))
        h = decoder_i([upconv_i(h), s_{i-1} cut to its size]),  for i from the last to 1;    y = conv(h)

    x : (N, in_channels, H, W)      y : (N, out_channels, H', W')
    widths : the channels at each size; each step down halves the image
    padding : 0 as in the paper, where every 3x3 convolution takes a pixel off each side: 572x572 becomes 388x388; or 1,
        where y has the size of x, a multiple of 2^(number of steps down)
    batch_norm : after each 3x3 convolution, which then has no bias

        UNet(1, 2)    the paper's: 23 convolutions, 31,030,658 parameters

    The bridge s goes two ways, down and across, so the gradients of both add. Weights start from N(0, 2 / fan_in).
    Ronneberger, Fischer & Brox 2015, arXiv:1505.04597, figure 1
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        padding: int = 0,
        batch_norm: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels = whole(self, "in_channels", in_channels)
        self.out_channels = whole(self, "out_channels", out_channels)
        self.widths = tuple(whole(self, "widths", width) for width in widths)
        if len(self.widths) < 2:
            raise ValueError(f"UNet: expected at least two widths, the last that of the bottom, got {widths!r}")
        self.padding = whole(self, "padding", padding, least=0)
        if self.padding > 1:
            raise ValueError(f"UNet: expected padding to be 0 or 1, got {padding!r}")
        self.batch_norm = flag(self, "batch_norm", batch_norm)
        rng = np.random.default_rng(rng)

        def twice(channels: int, filters: int) -> Sequential:
            layers: dict[str, Layer] = {}
            for i, before in enumerate((channels, filters), start=1):
                convolution = Conv2d(before, filters, 3, padding=padding, bias=not batch_norm, rng=rng, dtype=dtype)
                layers[f"conv{i}"] = convolution
                if batch_norm:
                    layers[f"norm{i}"] = BatchNorm2d(filters, dtype=dtype)
                layers[f"relu{i}"] = ReLU()
            return Sequential(layers)

        *outer, bottom = self.widths
        self.encoders = tuple(twice(a, b) for a, b in zip((in_channels, *outer), outer, strict=False))
        self.pool = MaxPool2d(2)
        self.bottleneck = twice(outer[-1], bottom)
        self.upconvs = tuple(
            ConvTranspose2d(above, below, 2, 2, rng=rng, dtype=dtype)
            for below, above in zip(outer, self.widths[1:], strict=True)
        )
        self.decoders = tuple(twice(2 * width, width) for width in outer)
        self.conv = Conv2d(outer[0], out_channels, 1, rng=rng, dtype=dtype)
        for parameter in self.parameters():
            if parameter.data.ndim == 4:
                kaiming_normal(parameter, rng, "fan_in")

    def named_children(self) -> Any:
        """encoder1, encoder2, ..., bottleneck, ..., upconv1, decoder1, conv."""
        steps = len(self.encoders)
        yield from ((f"encoder{i + 1}", self.encoders[i]) for i in range(steps))
        yield "pool", self.pool
        yield "bottleneck", self.bottleneck
        for i in reversed(range(steps)):
            yield f"upconv{i + 1}", self.upconvs[i]
            yield f"decoder{i + 1}", self.decoders[i]
        yield "conv", self.conv

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.conv.weight.dtype)
        self._check(x)
        bridges, h = [], x
        for encoder in self.encoders:
            bridges.append(encoder.forward(h))
            h = self.pool.forward(bridges[-1])
        h = self.bottleneck.forward(h)
        for bridge, up, decoder in reversed(list(zip(bridges, self.upconvs, self.decoders, strict=True))):
            h = up.forward(h)
            h = decoder.forward(np.concatenate([h, middle(bridge, h.shape[-2:])], axis=1))
        y = self.conv.forward(h)
        self.save([bridge.shape for bridge in bridges], out=y)
        return y

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        (shapes,) = self.saved()
        dh = self.conv.backward(dout)
        dbridges = []
        for shape, up, decoder in zip(shapes, self.upconvs, self.decoders, strict=True):
            both = decoder.backward(dh)
            half = both.shape[1] // 2
            dbridge = np.zeros(shape, both.dtype)
            middle(dbridge, both.shape[-2:])[...] = both[:, half:]  # what was cut off gets nothing
            dbridges.append(dbridge)
            dh = up.backward(np.ascontiguousarray(both[:, :half]))
        dh = self.bottleneck.backward(dh)
        for dbridge, encoder in reversed(list(zip(dbridges, self.encoders, strict=True))):
            dbridge += self.pool.backward(dh)
            dh = encoder.backward(dbridge)
        return dh

    def input_requires_grad_(self, requires_grad: bool = True) -> UNet:
        super().input_requires_grad_(requires_grad)
        self.encoders[0].input_requires_grad_(requires_grad)
        return self

    def _check(self, x: Array) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            self.reject(f"x of shape (N, {self.in_channels}, H, W)", x.shape)
        for size in x.shape[2:]:
            if size not in self._sizes(size):
                fits = " or ".join(map(str, self._sizes(size)))
                self.reject("an image that can be halved at every step", f"{x.shape[2:]}", f"near {size}, {fits} fit")

    def _sizes(self, near: int) -> list[int]:
        """Up to three sizes of an image, as near to `near` as they come, that leave whole numbers at every step."""
        taken = 4 * (1 - self.padding)
        fitting: list[int] = []
        bottom = taken + 1
        while len(fitting) < 3 or fitting[-1] < near:
            size, out = bottom, bottom - taken
            for _ in self.encoders:
                size, out = 2 * size + taken, 2 * out - taken
            if out > 0:
                fitting.append(size)
            bottom += 1
        return sorted(fitting, key=lambda size: abs(size - near))[:3]


def middle(x: Array, size: tuple[int, ...]) -> Array:
    """A view of the middle of the maps x (N, C, H, W), of the given size."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    return x[:, :, top : top + size[0], left : left + size[1]]
