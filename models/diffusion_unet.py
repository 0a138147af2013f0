"""The network of a diffusion model: a small U-Net that is told how noisy its input is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, refuse, whole, within
from backhand.layers.attention import ScaledDotProductAttention
from backhand.layers.base import Layer
from backhand.layers.conv import Conv2d
from backhand.layers.dropout import Dropout
from backhand.layers.gated import SiLU
from backhand.layers.guard import widened
from backhand.layers.linear import Linear
from backhand.layers.normalization import GroupNorm
from backhand.layers.parameter import Array
from backhand.layers.upsample import Upsample
from backhand.models.containers import Sequential
from backhand.models.initialize import zero


class TimeEmbedding(Layer):
    """A moment as a vector: waves of many lengths, and a small network that makes of them what it needs.

        y = fc2(SiLU(fc1([sin(t w_1), ..., sin(t w_k), cos(t w_1), ..., cos(t w_k)]))),    w_i = 10000^(-(i-1)/k)

    t : (N,) moments      y : (N, out_features)      waves : 2k of them
    Moments are data: backward returns None. Ho, Jain & Abbeel 2020, arXiv:2006.11239, appendix B
    """

    def __init__(
        self,
        waves: int,
        out_features: int,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.waves = whole(self, "waves", waves, least=2)
        if waves % 2:
            refuse(self, "waves to be even", waves)
        self.out_features = whole(self, "out_features", out_features)
        rng = np.random.default_rng(rng)
        self.fc1 = Linear(waves, out_features, rng=rng, dtype=dtype).input_requires_grad_(False)
        self.act = SiLU()
        self.fc2 = Linear(out_features, out_features, rng=rng, dtype=dtype)

    def forward(self, t: ArrayLike) -> Array:
        moments = self.array(t)
        if moments.ndim != 1:
            self.reject("t of shape (N,)", moments.shape)
        half = self.waves // 2
        angles = moments.astype(np.float64)[:, None] * 10000.0 ** (-np.arange(half) / half)
        seen = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(self.fc1.weight.dtype)
        return self.fc2.forward(self.act.forward(self.fc1.forward(seen)))

    def backward(self, dout: Any) -> None:
        self.fc1.backward(self.act.backward(self.fc2.backward(dout)))


class TimedBlock(Layer):
    """Two convolutions and a way around them; between the two, what time it is is added to every pixel.

        h = conv1(SiLU(norm1(x))) + project(SiLU(time))
        y = shortcut(x) + conv2(dropout(SiLU(norm2(h)))),    shortcut: x itself, or a 1x1 convolution

    x : (N, in_channels, H, W)      time : (N, time_features)      y : (N, channels, H, W)
    groups : of the GroupNorms      conv2 starts from 0, and so the block from its shortcut
    Ho, Jain & Abbeel 2020, arXiv:2006.11239, appendix B
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        time_features: int,
        groups: int = 8,
        dropout: float = 0.0,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.in_channels = whole(self, "in_channels", in_channels)
        self.channels = whole(self, "channels", channels)
        self.time_features = whole(self, "time_features", time_features)
        self.groups = whole(self, "groups", groups)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        conv2 = Conv2d(channels, channels, 3, padding=1, rng=rng, dtype=dtype)
        zero(conv2.weight, conv2.bias)
        self.first = Sequential(
            {
                "norm": GroupNorm(groups, in_channels, dtype=dtype),
                "act": SiLU(),
                "conv": Conv2d(in_channels, channels, 3, padding=1, rng=rng, dtype=dtype),
            }
        )
        self.time = Sequential({"act": SiLU(), "project": Linear(time_features, channels, rng=rng, dtype=dtype)})
        self.second = Sequential(
            {
                "norm": GroupNorm(groups, channels, dtype=dtype),
                "act": SiLU(),
                "dropout": Dropout(dropout, rng=rng),
                "conv": conv2,
            }
        )
        same = in_channels == channels
        self.shortcut = None if same else Conv2d(in_channels, channels, 1, rng=rng, dtype=dtype)

    def forward(self, x: ArrayLike, time: ArrayLike) -> Array:
        x, time = self.array(x), self.array(time)
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            self.reject(f"x of shape (N, {self.in_channels}, H, W)", x.shape)
        if time.shape != (len(x), self.time_features):
            self.reject(f"time of shape {(len(x), self.time_features)}", time.shape)
        h = self.first.forward(x)
        h = h + self.time.forward(time)[:, :, None, None]
        around = x.astype(h.dtype, copy=False) if self.shortcut is None else self.shortcut.forward(x)
        y: Array = self.second.forward(h) + around
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dout = self.upstream(dout)
        self.saved()
        dh = self.second.backward(dout)
        around = dout if self.shortcut is None else self.shortcut.backward(dout)
        dtime = self.time.backward(widened(dh).sum(axis=(2, 3)))  # one number was added to all pixels of a map
        return self.first.backward(dh) + around, dtime


class PixelAttention(Layer):
    """Every pixel looks at all pixels.

        y = x + project(softmax(q k^T / sqrt(C)) v),    [q, k, v] = qkv(norm(x)), one row for each pixel

    x, y : (N, channels, H, W)      groups : of the GroupNorm      project starts from 0
    Ho, Jain & Abbeel 2020, arXiv:2006.11239, appendix B
    """

    def __init__(
        self,
        channels: int,
        groups: int = 8,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.channels = whole(self, "channels", channels)
        self.groups = whole(self, "groups", groups)
        rng = np.random.default_rng(rng)
        self.norm = GroupNorm(groups, channels, dtype=dtype)
        self.qkv = Linear(channels, 3 * channels, rng=rng, dtype=dtype)
        self.attention = ScaledDotProductAttention()
        self.project = Linear(channels, channels, rng=rng, dtype=dtype)
        zero(self.project.weight, self.project.bias)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.project.weight.dtype)
        q, k, v = np.split(self.qkv.forward(self._rows(self.norm.forward(x))), 3, axis=2)
        seen = self.project.forward(self.attention.forward(q, k, v))
        y = x + seen.swapaxes(1, 2).reshape(x.shape)
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        dseen = self.project.backward(self._rows(dout))
        drows = self.qkv.backward(np.concatenate(self.attention.backward(dseen), axis=2))
        dx: Array = dout + self.norm.backward(drows.swapaxes(1, 2).reshape(dout.shape))
        return dx

    def _rows(self, x: Array) -> Array:
        """(N, C, H, W) as (N, H W, C)."""
        return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)


class DiffusionUNet(Layer):
    """Guess the noise that is in a picture, from the picture and how much of it there is.

        s_i = down_i(s_{i-1}, time), halved on the way;    h = middle(s_last, time)
        h = up_i([h, s_i], time), doubled on the way;    y = conv_out(SiLU(norm_out(h)))

    x, y : (N, channels, H, W), sizes that can be halved len(multipliers) - 1 times      t : (N,) moments; no gradient
    width, multipliers : the channels at each size are width times these
    attention : whether pixels look at each other at the smallest size (in the middle)
    groups : of the GroupNorms      dropout : in the blocks

        DiffusionUNet(1, 16, (1, 2, 4))        for MNIST

    time enters every block, so its gradient is the sum over all blocks.
    Ho, Jain & Abbeel 2020, arXiv:2006.11239, appendix B, with one block at each size
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        attention: bool = True,
        groups: int = 8,
        dropout: float = 0.0,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.channels = whole(self, "channels", channels)
        self.width = whole(self, "width", width)
        self.multipliers = tuple(whole(self, "multipliers", each) for each in multipliers)
        if len(self.multipliers) < 2:
            refuse(self, "at least two multipliers", multipliers)
        self.attention = flag(self, "attention", attention)
        self.groups = whole(self, "groups", groups)
        if width % groups:
            refuse(self, f"width to be a multiple of groups={groups}", width)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        rng = np.random.default_rng(rng)
        widths = [width * each for each in self.multipliers]
        steps, features = len(widths) - 1, 4 * width

        def block(before: int, after: int) -> TimedBlock:
            return TimedBlock(before, after, features, groups, dropout, rng=rng, dtype=dtype)

        def convolution(before: int, after: int, stride: int = 1) -> Conv2d:
            return Conv2d(before, after, 3, stride, padding=1, rng=rng, dtype=dtype)

        self.time = TimeEmbedding(width, features, rng=rng, dtype=dtype)
        self.conv_in = convolution(channels, width)
        self.down = tuple(block(a, b) for a, b in zip([width, *widths], widths, strict=False))
        self.halve = tuple(convolution(each, each, stride=2) for each in widths[:steps])
        self.middle = block(widths[-1], widths[-1])
        self.look = PixelAttention(widths[-1], groups, rng=rng, dtype=dtype) if attention else None
        self.up = tuple(block(2 * each, each) for each in widths)
        self.double = tuple(
            Sequential({"upsample": Upsample(scale_factor=2), "conv": convolution(above, below)})
            for below, above in itertools.pairwise(widths)
        )
        self.out = Sequential(
            {"norm": GroupNorm(groups, width, dtype=dtype), "act": SiLU(), "conv": convolution(width, channels)}
        )
        zero(*self.out["conv"].parameters())

    def forward(self, x: ArrayLike, t: ArrayLike) -> Array:
        x = self.input(x, self.conv_in.weight.dtype)
        least = 2 ** len(self.halve)
        if x.ndim != 4 or x.shape[1] != self.channels or any(size % least for size in x.shape[2:]):
            self.reject(f"x of shape (N, {self.channels}, H, W), H and W multiples of {least}", x.shape)
        moments = self.array(t)
        if moments.shape != x.shape[:1]:
            self.reject(f"t of shape {x.shape[:1]}, a moment for each sample", moments.shape)
        time = self.time.forward(moments)
        h = self.conv_in.forward(x)
        bridges = []
        for i, block in enumerate(self.down):
            h = block.forward(h, time)
            bridges.append(h)
            if i < len(self.halve):
                h = self.halve[i].forward(h)
        h = self.middle.forward(h, time)
        if self.look is not None:
            h = self.look.forward(h)
        for i in reversed(range(len(self.up))):
            h = self.up[i].forward(np.concatenate([h, bridges[i]], axis=1), time)
            if i:
                h = self.double[i - 1].forward(h)
        y: Array = self.out.forward(h)
        self.save(out=y)
        return y

    def backward(self, dout: Any) -> tuple[Any, None]:
        dout = self.upstream(dout)
        self.saved()
        dh = self.out.backward(dout)
        dtime: Any = 0
        dbridges = []
        for i, block in enumerate(self.up):
            if i:
                dh = self.double[i - 1].backward(dh)
            both, dmoment = block.backward(dh)
            half = both.shape[1] // 2
            dh, dtime = both[:, :half], dtime + dmoment
            dbridges.append(both[:, half:])
        if self.look is not None:
            dh = self.look.backward(dh)
        dh, dmoment = self.middle.backward(dh)
        dtime = dtime + dmoment
        for i in reversed(range(len(self.down))):
            if i < len(self.halve):
                dh = self.halve[i].backward(dh)
            dh, dmoment = self.down[i].backward(dh + dbridges[i])
            dtime = dtime + dmoment
        self.time.backward(dtime)
        return self.conv_in.backward(dh), None

    def input_requires_grad_(self, requires_grad: bool = True) -> DiffusionUNet:
        super().input_requires_grad_(requires_grad)
        self.conv_in.input_requires_grad_(requires_grad)
        return self
