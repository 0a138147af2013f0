"""Normalization that may keep running statistics: of each channel over the batch, or over each sample alone.

The derivation, and what all normalizations share, are in normalization.py; this file adds what is particular to
channels: running statistics, which are constants in eval, and parameters that are one number for each channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import number, positive, whole
from backhand.layers.base import Layer
from backhand.layers.broadcasting import along
from backhand.layers.channels import Channels, dense
from backhand.layers.guard import HALF
from backhand.layers.normalization import (
    Axes,
    centre,
    quiet,
    scale_and_shift,
    standardize,
    standardize_backward,
    sum_over,
)
from backhand.layers.parameter import Array, float_dtype

# A squared mean of so many variances counts as large: float32 then still has six digits of the variance.
FAR = 10


class RunningStatistics(Layer):
    """A layer whose forward moves its buffers, and can move them back: it ends its `save` with `before()`."""

    def before(self) -> list[Array]:
        """Copies of the buffers, before they move."""
        return [buffer.copy() for _, buffer in self._own_buffers()]

    def undo(self, since: int) -> None:
        """Let the buffers be as they were before the first forward of those that are taken back."""
        undone = [entry[1][-1] for entry in self._stack or () if entry[0] >= since]
        for (_, buffer), was in zip(self._own_buffers(), undone[0] if undone else (), strict=False):
            buffer[...] = was
        super().undo(since)


class _TrackingNorm(RunningStatistics):
    """What BatchNorm1d-3d and InstanceNorm1d-3d share: they differ in the axes of a group, and in what they accept."""

    buffer_names = ("running_mean", "running_var", "num_batches_tracked")
    positive_eps = True
    shapes: dict[int, str] = {}  # the inputs that it takes: how many axes, and how an error names them

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.num_features = whole(self, "num_features", num_features)
        self.eps = positive(self, "eps", eps) if self.positive_eps else number(self, "eps", eps)
        self.momentum = None if momentum is None else number(self, "momentum", momentum)
        self.affine = affine
        dtype = float_dtype(dtype)
        self.track_running_stats = track_running_stats
        self.weight, self.bias = scale_and_shift((self.num_features,), affine, bias, dtype)
        # Any: without running statistics the three are None
        kept = np.promote_types(dtype, np.float32)  # as in `astype`
        self.running_mean: Any = np.zeros(num_features, kept) if track_running_stats else None
        self.running_var: Any = np.ones(num_features, kept) if track_running_stats else None
        self.num_batches_tracked: Any = np.array(0, np.int64) if track_running_stats else None

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        if self.num_batches_tracked is not None and (version is None or version < 2):
            state.setdefault(f"{prefix}num_batches_tracked", self.num_batches_tracked)  # as torch: it stays
        return []

    def _batched(self, x: Array) -> Array:
        """x with a batch axis."""
        return x

    def _newest(self) -> float:
        """Count this batch, and give its weight in the running statistics."""
        raise NotImplementedError

    def _uses_own(self) -> bool:
        """Whether the statistics are the input's own: in training, and wherever there are no others."""
        return self.training or self.running_mean is None

    def _track(self, mean: Array, var: Array, n: int) -> None:
        """Move the running statistics towards these of each channel, in place; n numbers were in a group."""
        if not self.track_running_stats or self.running_mean is None:
            return
        new = self._newest()
        for running, of_channels in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
            running *= 1 - new
            running += new * of_channels

    def _checked(self, x: ArrayLike) -> Array:
        """x as an array of the layer's dtype, or the error that says why it cannot be normalised."""
        state = self.running_mean if self.weight is None else self.weight
        follows = self.weight is None and getattr(x, "dtype", None) == HALF  # the running statistics are float32 then
        x = self.input(x, None if state is None or follows else state.dtype)
        # num_features says nothing about x where nothing is kept for each feature
        if x.ndim not in self.shapes or (state is not None and self._batched(x).shape[1] != self.num_features):
            wanted = " or ".join(text.format(self.num_features) for text in self.shapes.values())
            self.reject(f"x of shape {wanted}", x.shape)
        return x


class _BatchNorm(_TrackingNorm):
    """What the three BatchNorms share: a group is a channel of the whole batch.

    With the statistics of a channel, all else is linear in x and dout, with a few numbers for each channel:

        y = scale * x + (bias - scale * mean),        scale = weight * rstd
        dx = scale * (dout + slope * x - (mean(dout) + slope * mean)),        slope = -rstd^2 * mean(dout * (x - mean))

    mean and var come from the sums of x and x^2, taken in one pass. Where a mean is large beside the deviation, those
    sums and the linear form both lose digits: there it is taken off x before all else.
    """

    @quiet
    def forward(self, x: ArrayLike) -> Array:
        x = dense(self._checked(x))
        channels, own = Channels(x), self._uses_own()
        before = self.before() if own else []
        if own:
            mean, var = _moments(channels, x)
        else:
            # in double precision, and so copies: the next training forward moves the buffers
            mean, var = self.running_mean.astype(np.float64), self.running_var.astype(np.float64)
        offset = np.zeros_like(mean)
        if not (np.isfinite(var) & (mean * mean <= FAR * var)).all():
            offset = mean.astype(x.dtype)
            x = channels.apply(_subtract, x, offset)
            mean, var = _moments(channels, x) if own else (mean - offset, var)
        if own:
            self._track(mean + offset, var, x.size // len(mean))
        rstd = 1 / np.sqrt(var + self.eps)
        scale = rstd if self.weight is None else rstd * self.weight.data
        shift = -mean * scale if self.bias is None else self.bias.data - mean * scale
        y = channels.apply(_multiply_add, x, scale, shift)
        self.save(x, mean, rstd, own, before, out=y)
        return y

    @quiet
    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        x, mean, rstd, own, _ = self.saved()
        channels = Channels(x)
        total, with_x = channels.sums(x, dout)
        with_xhat = (with_x - mean * total) * rstd
        scale = rstd
        if self.weight is not None:
            self.weight.grad += with_xhat
            scale = rstd * self.weight.data
        if self.bias is not None:
            self.bias.grad += total
        if not own:  # running statistics are constants: then x reaches y directly and in no other way
            return channels.apply(_multiply, dout, scale)
        n = x.size // len(mean)
        slope = -rstd * with_xhat / n
        return channels.apply(_linear, x, dout, slope, -total / n - slope * mean, scale)

    def _checked(self, x: ArrayLike) -> Array:
        """x as an array of the layer's dtype, or the error that says why it cannot be normalised."""
        x = super()._checked(x)
        if self._uses_own() and x.size == x.shape[1]:
            hint = "eval() uses the running statistics" if self.running_mean is not None else ""
            self.reject("more than one value for each channel to take the statistics of", x.shape, hint)
        return x

    def _newest(self) -> float:
        self.num_batches_tracked += 1
        return 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum


def _moments(channels: Channels, x: Array) -> tuple[Array, Array]:
    """The mean and the variance (divided by n) of each channel."""
    total, squares = channels.sums(x, x)
    n = x.size // len(total)
    mean = total / n
    return mean, np.maximum(squares / n - mean * mean, 0)


def _subtract(y: Array, x: Array, offset: Array) -> None:
    np.subtract(x, offset, out=y)


def _multiply(y: Array, x: Array, scale: Array) -> None:
    np.multiply(x, scale, out=y)


def _multiply_add(y: Array, x: Array, scale: Array, shift: Array) -> None:
    np.multiply(x, scale, out=y)
    y += shift


def _linear(dx: Array, x: Array, dout: Array, slope: Array, constant: Array, scale: Array) -> None:
    np.multiply(x, slope, out=dx)
    dx += dout
    dx += constant
    dx *= scale


class BatchNorm1d(_BatchNorm):
    """Normalise each channel over the batch and the length, then scale and shift it.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps)
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))        (in eval: weight * rstd * dout)
        dweight = sum of dout * xhat,        dbias = sum of dout,        over all but the channel axis

    x, y : (N, C) or (N, C, L), C = num_features      weight, bias : (C,), from 1 and 0; none without `affine`
    momentum : the weight of the newest batch in running_mean and running_var; None averages over all batches
    track_running_stats : False keeps no running statistics, and then the batch's own serve in eval too

    In training mean and var (divided by n) are those of the batch, and the running statistics move (running_var
    by the unbiased variance, divided by n - 1); eval uses those. (The derivation: the head of normalization.py.)
    Ioffe & Szegedy 2015, arXiv:1502.03167
    """

    shapes = {2: "(N, {})", 3: "(N, {}, L)"}


class BatchNorm2d(_BatchNorm):
    """Normalise each channel over the batch and the picture: BatchNorm1d with two axes after the channels.

        y = weight * (x - mean) / sqrt(var + eps) + bias
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))        (in eval: weight * rstd * dout)

    x, y : (N, C, H, W)      weight, bias, running_mean, running_var : (C,); all arguments as in `BatchNorm1d`
    Ioffe & Szegedy 2015, arXiv:1502.03167
    """

    shapes = {4: "(N, {}, H, W)"}


class BatchNorm3d(_BatchNorm):
    """Normalise each channel over the batch and the volume: BatchNorm1d with three axes after the channels.

        y = weight * (x - mean) / sqrt(var + eps) + bias
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))        (in eval: weight * rstd * dout)

    x, y : (N, C, D, H, W)      weight, bias, running_mean, running_var : (C,); all arguments as in `BatchNorm1d`
    Ioffe & Szegedy 2015, arXiv:1502.03167
    """

    shapes = {5: "(N, {}, D, H, W)"}


class _InstanceNorm(_TrackingNorm):
    """What the three InstanceNorms share: a group is one channel of one sample."""

    positive_eps = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias=bias, dtype=dtype)

    @quiet
    def forward(self, x: ArrayLike) -> Array:
        given = self._checked(x)
        x = self._batched(given)
        axes = self._axes(x)
        own = self._uses_own()
        before = self.before() if own else []
        if own:
            mean, centred, var = centre(x, axes)
            self._track(mean.mean(axis=0).reshape(-1), var.mean(axis=0).reshape(-1), x.size // mean.size)
        else:
            # a copy: the mean is kept for backward, and the next training forward moves the buffer
            mean, var = along(self.running_mean.copy(), 1, x.ndim), along(self.running_var, 1, x.ndim)
            centred = x - mean
        rstd = 1 / np.sqrt(var + self.eps)
        if self.eps == 0:
            rstd = np.where(var == 0, 0, rstd)  # as torch has it
        y = centred
        y *= rstd if self.weight is None else rstd * along(self.weight.data, 1, x.ndim)
        if self.bias is not None:
            y += along(self.bias.data, 1, x.ndim)
        y = y.reshape(given.shape)
        self.save(given, mean, rstd, own, before, out=y)
        return y

    @quiet
    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        given, mean, rstd, own, _ = self.saved()
        x, dout = self._batched(given), self._batched(dout)
        axes = (0, *range(2, x.ndim))
        xhat = standardize(x, mean, rstd)
        if self.weight is not None:
            self.weight.grad += sum_over(axes, dout, xhat).reshape(-1)
        if self.bias is not None:
            self.bias.grad += sum_over(axes, dout).reshape(-1)
        # dxhat = dout * weight, and the weight is one number for each channel: it joins rstd
        scale = rstd if self.weight is None else rstd * along(self.weight.data, 1, x.ndim)
        # running statistics are constants: then x reaches y directly and in no other way
        dx = standardize_backward(dout, xhat, scale, self._axes(x)) if own else dout * scale
        return dx.reshape(given.shape)

    def _checked(self, x: ArrayLike) -> Array:
        x = super()._checked(x)
        if self._uses_own() and np.prod(self._batched(x).shape[2:]) == 1:
            self.reject("more than one value for each channel of a sample to take the statistics of", x.shape)
        return x

    def _adapt_state(self, state: dict[str, Any], prefix: str, version: int | None) -> list[str]:
        if version is None and self.running_mean is None:
            kept = [f"{prefix}{name}" for name in ("running_mean", "running_var") if f"{prefix}{name}" in state]
            for name in kept:
                del state[name]
            if kept:  # as torch, which refuses them even where strict is False
                name = type(self).__name__
                return [
                    f"{' and '.join(kept)} are of an {name} that tracks its statistics, and this one does not: build "
                    "it with track_running_stats=True, or leave them out (before torch 0.4 they were always stored)"
                ]
        return super()._adapt_state(state, prefix, version)

    def _axes(self, x: Array) -> Axes:
        """The axes of a group: those that mean and var are taken over."""
        return tuple(range(2, x.ndim))

    def _batched(self, x: Array) -> Array:
        return x if x.ndim == max(self.shapes) else x[None]

    def _newest(self) -> float:
        return 0.0 if self.momentum is None else self.momentum  # and no batch is counted: both as in torch


class InstanceNorm1d(_InstanceNorm):
    """Normalise each channel of each sample over its length, then scale and shift it.

        y = weight * xhat + bias,    xhat = (x - mean) / sqrt(var + eps)        mean, var over L
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))
        (in eval with running statistics: weight * rstd * dout)
        dweight = sum of dout * xhat,        dbias = sum of dout,        over all but the channel axis

    x, y : (N, C, L) or (C, L)      weight, bias : (C,), from 1 and 0; there are none unless `affine`
    track_running_stats : keep the average over the samples of their means and unbiased variances, and use them in
        eval; otherwise eval does the same as training
    momentum : the weight of the newest batch in them; None is 0, which leaves them as they are
    Without `affine` and `track_running_stats` num_features is not used: any C will do.
    Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022
    """

    shapes = {3: "(N, {}, L)", 2: "({}, L)"}


class InstanceNorm2d(_InstanceNorm):
    """Normalise each channel of each picture over its pixels: InstanceNorm1d with two axes after the channels.

        y = weight * (x - mean) / sqrt(var + eps) + bias        mean, var over H, W
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))

    x, y : (N, C, H, W) or (C, H, W)      weight, bias : (C,), with `affine`; all arguments as in `InstanceNorm1d`
    Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022
    """

    shapes = {4: "(N, {}, H, W)", 3: "({}, H, W)"}


class InstanceNorm3d(_InstanceNorm):
    """Normalise each channel of each volume over its voxels: InstanceNorm1d with three axes after the channels.

        y = weight * (x - mean) / sqrt(var + eps) + bias        mean, var over D, H, W
        dx = weight * rstd * (dout - mean(dout) - xhat * mean(dout * xhat))

    x, y : (N, C, D, H, W) or (C, D, H, W)      weight, bias : (C,), with `affine`; all arguments as in `InstanceNorm1d`
    Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022
    """

    shapes = {5: "(N, {}, D, H, W)", 4: "({}, D, H, W)"}
