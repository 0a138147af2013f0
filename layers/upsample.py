"""Resampling: an image at another size, each new pixel from its nearest neighbours among the old.

Every mode is separable: along each axis in turn, y is a matrix times x with a few entries in each row,

    y[o] = sum over t of w[o, t] x[i[o, t]]              dx[i[o, t]] += w[o, t] dout[o]

and the backward is the transposed matrix: the same entries with i and o changed over. So an axis is a list of entries
(o, i, w), and what is left is where the neighbours stand and what they weigh.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.adaptive import average_cells, spread_cells
from backhand.layers.arguments import one_of, refuse, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.parameter import Array
from backhand.layers.windows import AXES, Sizes, each

# The numbers of spatial axes that each mode takes.
MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
}
SMOOTH = ("linear", "bilinear", "bicubic", "trilinear")
CUBIC = -0.75  # torch's choice of the free coefficient in Keys' kernel

Size = int | tuple[int, ...] | None
Factor = float | tuple[float, ...] | None


class _Entries(NamedTuple):
    """A sparse matrix along one axis: output o takes w times input i."""

    o: Array
    i: Array
    w: Array | None  # None: every weight is 1


class Upsample(Layer):
    """Resample sequences, images or volumes to another size (also a smaller one).

        y[o] = sum over neighbours i of w(o, i) x[i]        dx[i] = sum over o of w(o, i) dout[o]
        position of o in x:   (o + 1/2) / f - 1/2;    with align_corners   o (S - 1) / (S_out - 1)

    x : (N, C, L), (N, C, H, W) or (N, C, D, H, W)      y : the same with the new sizes
    size : the new size of each axis, or one for all; or
    scale_factor : f = S_out / S, one or one for each axis;  S_out = floor(S f)
    mode : "nearest" takes x[floor(o / f)], "nearest-exact" the pixel whose centre is nearest;
        "linear", "bilinear", "trilinear" (for 1, 2, 3 axes) weigh the two neighbours along each axis by their distance;
        "bicubic" weighs four along each by Keys' cubic kernel with a = -3/4 (what is outside repeats the edge);
        "area" takes the mean of the pixels that the new one covers
    align_corners : the centres of the corner pixels stay where they are (for the smooth modes)
    recompute_scale_factor : take f = S_out / S in the positions instead of the given scale_factor, which differs from
        it where S f is not whole

        y = Upsample(scale_factor=2, mode="bilinear")(x)        # x (N, C, H, W), y (N, C, 2 H, 2 W)

    https://docs.pytorch.org/docs/stable/generated/torch.nn.Upsample.html; Keys 1981, "Cubic Convolution Interpolation
    for Digital Image Processing"
    """

    def __init__(
        self,
        size: Size = None,
        scale_factor: Factor = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        self.mode = one_of(self, "mode", mode, tuple(MODES))
        if align_corners is not None and mode not in SMOOTH:
            refuse(self, f"align_corners only with a mode in {SMOOTH}", mode)
        if (size is None) == (scale_factor is None):
            refuse(self, "either size or scale_factor", (size, scale_factor))
        if size is not None:
            whole_tuple(self, "size", size, len(size) if isinstance(size, (tuple, list)) else 1)
            if recompute_scale_factor:
                refuse(self, "recompute_scale_factor only with scale_factor", size)
        else:
            for factor in scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,):
                if not isinstance(factor, (int, float, np.number)) or not 0 < factor < np.inf:
                    refuse(self, "scale_factor to be positive", scale_factor)
        self.size = size
        self.scale_factor = scale_factor
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        sizes = self._sizes(x.shape)
        y = x
        for axis, size in enumerate(sizes, 2):
            if self.mode == "area":
                y = average_cells(y, axis, size)
            else:
                entries = self._entries(x.shape, axis, size, x.dtype)
                y = _add_up(y, axis, size, entries.o, entries.i, entries.w)
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        for axis, size in reversed(list(enumerate(dout.shape[2:], 2))):
            if self.mode == "area":
                dout = spread_cells(dout, axis, shape[axis])
            else:
                entries = self._entries(shape, axis, size, dout.dtype)
                dout = _add_up(dout, axis, shape[axis], entries.i, entries.o, entries.w)
        return dout

    def _sizes(self, shape: Sizes) -> Sizes:
        """The spatial shape of y, or the error that says why there is none."""
        n = len(shape) - 2
        if n not in MODES[self.mode]:
            self.reject(f"x of shape {' or '.join(f'(N, C, {AXES[n]})' for n in MODES[self.mode])}", shape)
        given = self.scale_factor if self.size is None else self.size
        if isinstance(given, (tuple, list)) and len(given) != n:
            name = "scale_factor" if self.size is None else "size"
            self.reject(f"x with {len(given)} spatial axes, as many as {name} has", shape)
        if self.size is not None:
            return tuple(int(size) for size in each(self.size, n))
        sizes = tuple(int(size * float(f)) for size, f in zip(shape[2:], each(self.scale_factor, n), strict=True))
        if min(sizes) < 1:
            self.reject("x large enough that a pixel remains on every axis", shape)
        return sizes

    def _uses_factor(self, old: int, size: int, n: int) -> bool:
        """Whether positions along an axis come from the scale_factor as given, not from the ratio of the sizes."""
        if self.scale_factor is None or self.recompute_scale_factor:
            return False
        # where the sizes are equal (for the nearest pixel of images: or twice as large) torch goes by them
        if self.mode == "nearest":
            return n != 2 or size not in (old, 2 * old)
        return size != old or self.mode in ("bicubic", "nearest-exact")

    def _positions(self, shape: Sizes, axis: int, size: int, dtype: np.dtype[Any]) -> Array:
        """Where along one axis of x, in pixels, each output stands."""
        # in the precision of x, so that positions round as torch's do
        real = np.promote_types(dtype, np.float32).type
        old, n = shape[axis], len(shape) - 2
        o = np.arange(size, dtype=real)
        if self.align_corners:
            return o * (real(old - 1) / real(size - 1) if size > 1 else real(0))
        step = real(old) / real(size)
        if self._uses_factor(old, size, n):
            step = real(1 / each(self.scale_factor, n)[axis - 2])
        return o * step if self.mode == "nearest" else step * (o + real(0.5)) - real(0.5)

    def _entries(self, shape: Sizes, axis: int, size: int, dtype: np.dtype[Any]) -> _Entries:
        """The matrix along one axis, from its old to its new size."""
        old = shape[axis]
        at = self._positions(shape, axis, size, dtype)
        if self.mode != "bicubic":
            at = at.clip(0, None)
        if self.mode == "nearest-exact":
            at = at + at.dtype.type(0.5)
        first = _pixel(at, old)
        if self.mode in ("nearest", "nearest-exact"):
            return _Entries(np.arange(size), first, None)
        t = (at - first).clip(0, 1)
        if self.mode == "bicubic":
            weight = {-1: _keys(t + 1), 0: _keys(t), 1: _keys(1 - t), 2: _keys(2 - t)}
        else:
            weight = {0: 1 - t, 1: t}
        pixels = [(first + k).clip(0, old - 1) for k in weight]
        weights = list(weight.values())
        return _Entries(
            np.tile(np.arange(size), len(weights)), np.concatenate(pixels), np.concatenate(weights).astype(dtype)
        )


class UpsamplingNearest2d(Upsample):
    """Resample images by the nearest pixel: Upsample with mode="nearest".

        y[o] = x[floor(o / f)]        dx[i] = sum of dout over the pixels that took x[i]

    x : (N, C, H, W)      y : (N, C, H_out, W_out)
    size, scale_factor : one of the two, as in `Upsample`
    https://docs.pytorch.org/docs/stable/generated/torch.nn.UpsamplingNearest2d.html
    """

    def __init__(self, size: Size = None, scale_factor: Factor = None) -> None:
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Resample images by weighing the four nearest pixels: Upsample with mode="bilinear", align_corners=True.

        y[o] = sum over neighbours i of w(o, i) x[i]        dx[i] = sum over o of w(o, i) dout[o]
        position of o in x:   o (S - 1) / (S_out - 1)

    x : (N, C, H, W)      y : (N, C, H_out, W_out)
    size, scale_factor : one of the two, as in `Upsample`
    https://docs.pytorch.org/docs/stable/generated/torch.nn.UpsamplingBilinear2d.html
    """

    def __init__(self, size: Size = None, scale_factor: Factor = None) -> None:
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


def _add_up(x: Array, axis: int, size: int, to: Array, of: Array, weight: Array | None) -> Array:
    """The array with `size` along one axis and y[to] += weight * x[of] there, over all entries."""
    y = np.zeros_like(x, shape=(*x.shape[:axis], size, *x.shape[axis + 1 :]))
    target, source = np.moveaxis(y, axis, 0), np.moveaxis(x, axis, 0)
    # in turns in which no target stands twice, so that each is one whole-array operation
    order = to.argsort(kind="stable")
    turns = np.arange(len(to)) - np.searchsorted(to[order], to[order])
    for turn in range(turns.max() + 1):
        entries = order[turns == turn]
        part = source[of[entries]]
        if weight is not None:
            part *= weight[entries].reshape(-1, *(1,) * (x.ndim - 1))
        if turn == 0:
            target[to[entries]] = part
        else:
            target[to[entries]] += part
    return y


def _pixel(at: Array, size: int) -> Array:
    """The pixel at or before each position; in single precision, as torch rounds: 1.999999999 is pixel 2."""
    return np.minimum(np.floor(at.astype(np.float32)).astype(np.int64), size - 1)


def _keys(distance: Array) -> Array:
    """Keys' cubic kernel at distances in [0, 2]: 1 at 0, 0 at 1 and 2, and smooth where its two pieces meet."""
    d, a = distance, CUBIC
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    return np.where(d <= 1, inner, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a)
