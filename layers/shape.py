"""Layers that move numbers without changing them: their backward moves them back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import refuse, whole
from backhand.layers.base import Layer
from backhand.layers.parameter import Array


class Identity(Layer):
    """Hand the input on unchanged; any constructor arguments are ignored, as in torch.nn.

        y = x        dx = dout

    x, y : any shape
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: ArrayLike) -> Array:
        x = self.array(x)
        self.save(out=x)
        return x

    def backward(self, dout: Any) -> Array | None:
        dout = self.upstream(dout)
        self.saved()
        return dout


class Rearrangement(Layer):
    """The form of the layers that put the numbers of x in other places.

        y = move(x)        dx = move_back(dout)

    Each number is copied once, so each gradient goes back to one place: the Jacobian is a permutation, and its
    transpose is its inverse. Where only the shape changes, `move` is all that a subclass writes.
    """

    def move(self, x: Array) -> Array:
        """y, or the layer's error; it may be a view of x."""
        raise NotImplementedError

    def move_back(self, dout: Array, shape: tuple[int, ...]) -> Array:
        """The dx of dout; `shape` is that of x."""
        return dout.reshape(shape)

    def forward(self, x: ArrayLike) -> Array:
        x = self.array(x)
        y = self.move(x)
        self.save(x.shape, out=y)
        return y

    def backward(self, dout: Any) -> Array | None:
        dout = self.upstream(dout)
        (shape,) = self.saved()
        return None if dout is None else self.move_back(dout, shape)  # integers have no gradient


class Flatten(Rearrangement):
    """Join the axes from `start_dim` to `end_dim` into one.

        y = x.reshape(...)        dx = dout.reshape(x.shape)

    x : (N, C, H, W), say      y : (N, C*H*W) with the default arguments
    torch.nn.Flatten
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def move(self, x: Array) -> Array:
        shape = x.shape or (1,)
        first, last = (d + len(shape) if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < len(shape):
            self.reject(f"x with axes {self.start_dim} to {self.end_dim}, in this order", f"shape {x.shape}")
        return x.reshape(*shape[:first], -1, *shape[last + 1 :])


class Unflatten(Rearrangement):
    """Split one axis into several: what undoes a Flatten.

        y = x.reshape(...)        dx = dout.reshape(x.shape)

    x : (..., size, ...)      y : (..., *unflattened_size, ...)
    dim : the axis to split
    unflattened_size : the sizes to split it into; one of them may be -1, for what remains
    torch.nn.Unflatten
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...] | list[int]) -> None:
        self.dim = whole(self, "dim", dim, least=-np.inf)
        self.unflattened_size = _sizes(self, "unflattened_size", unflattened_size)
        if not self.unflattened_size:
            refuse(self, "unflattened_size to hold at least one size", ())

    def move(self, x: Array) -> Array:
        if not -x.ndim <= self.dim < x.ndim:
            self.reject(f"x with an axis {self.dim}", f"shape {x.shape}")
        dim = self.dim % x.ndim
        sizes = _resolved(self.unflattened_size, x.shape[dim])
        if sizes is None:
            self.reject(f"x whose axis {self.dim} splits into {self.unflattened_size}", f"shape {x.shape}")
        return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


class Reshape(Rearrangement):
    """Give the numbers another shape, as `torch.reshape` does: the axis of the batch included.

        y = x.reshape(shape)        dx = dout.reshape(x.shape)

    shape : the sizes of y, as arguments or as one tuple; one of them may be -1, for what remains

    Put -1 first to leave the batch as it is: `Reshape(-1, 1, 28, 28)` makes images of (N, 784). To split one axis,
    whatever the others are, use Unflatten.
    """

    def __init__(self, *shape: Any) -> None:
        self.shape = _sizes(self, "shape", _unpacked(shape))

    def move(self, x: Array) -> Array:
        shape = _resolved(self.shape, x.size)
        if shape is None:
            self.reject(f"x whose numbers fill the shape {self.shape}", f"{x.size} of shape {x.shape}")
        return x.reshape(shape)


class Permute(Rearrangement):
    """Put the axes in another order, as `torch.permute` does: the axis of the batch included.

        y = x.transpose(dims)        dx = dout.transpose(the inverse of dims)

    x : as many axes as there are dims      y : axis i of y is axis dims[i] of x
    dims : every axis once, as arguments or as one tuple; negative ones count from the end

    `Permute(0, 2, 3, 1)` makes (N, H, W, C) of (N, C, H, W).
    """

    def __init__(self, *dims: Any) -> None:
        self.dims = tuple(whole(self, "dims", dim, least=-np.inf) for dim in _unpacked(dims))
        n = len(self.dims)
        if sorted(d + n if d < 0 else d for d in self.dims) != list(range(n)):
            refuse(self, f"each of the axes 0 to {n - 1} once", self.dims)

    def move(self, x: Array) -> Array:
        if x.ndim != len(self.dims):
            self.reject(f"x with {len(self.dims)} axes", f"shape {x.shape}")
        return x.transpose(self.dims)

    def move_back(self, dout: Array, shape: tuple[int, ...]) -> Array:
        return dout.transpose(np.argsort([d % len(self.dims) for d in self.dims]))


# ---------------------------------------------------------------------- numbers that change places inside an image


class PixelShuffle(Rearrangement):
    """Make an image r times as high and wide out of r^2 times as many channels.

        y[c, h r + i, w r + j] = x[c r^2 + i r + j, h, w]        dx = the inverse of it, on dout

    x : (*, C r^2, H, W)      y : (*, C, H r, W r)
    upscale_factor : r
    Shi et al. 2016, arXiv:1609.05158
    """

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = whole(self, "upscale_factor", upscale_factor)

    def move(self, x: Array) -> Array:
        r = self.upscale_factor
        if x.ndim < 3 or x.shape[-3] % (r * r):
            self.reject(f"x of shape (*, C, H, W) with C a multiple of {r * r}", x.shape)
        return _shuffled(x, r)

    def move_back(self, dout: Array, shape: tuple[int, ...]) -> Array:
        return _unshuffled(dout, self.upscale_factor)


class PixelUnshuffle(Rearrangement):
    """Make r^2 times as many channels out of an image r times as high and wide: what undoes a PixelShuffle.

        y[c r^2 + i r + j, h, w] = x[c, h r + i, w r + j]        dx = the inverse of it, on dout

    x : (*, C, H r, W r)      y : (*, C r^2, H, W)
    downscale_factor : r
    Shi et al. 2016, arXiv:1609.05158
    """

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = whole(self, "downscale_factor", downscale_factor)

    def move(self, x: Array) -> Array:
        r = self.downscale_factor
        if x.ndim < 3 or x.shape[-2] % r or x.shape[-1] % r:
            self.reject(f"x of shape (*, C, H, W) with H and W multiples of {r}", x.shape)
        return _unshuffled(x, r)

    def move_back(self, dout: Array, shape: tuple[int, ...]) -> Array:
        return _shuffled(dout, self.downscale_factor)


class ChannelShuffle(Rearrangement):
    """Deal the channels of g groups out like cards: the first of each group, then the second of each.

        y[:, k g + i] = x[:, i C/g + k]        dx = the inverse of it, on dout

    x, y : (N, C, *), at least three axes, with C a multiple of `groups`, g

    Between two convolutions with groups it lets them mix.
    Zhang et al. 2017, arXiv:1707.01083
    """

    def __init__(self, groups: int) -> None:
        self.groups = whole(self, "groups", groups)

    def move(self, x: Array) -> Array:
        if x.ndim < 3 or x.shape[1] % self.groups:
            self.reject(f"x of shape (N, C, *) with C a multiple of {self.groups}", x.shape)
        return self._dealt(x, self.groups)

    def move_back(self, dout: Array, shape: tuple[int, ...]) -> Array:
        return self._dealt(dout, shape[1] // self.groups)  # g hands of C/g cards, dealt as C/g hands of g

    def _dealt(self, x: Array, hands: int) -> Array:
        n, c, *rest = x.shape
        return x.reshape(n, hands, c // hands, *rest).swapaxes(1, 2).reshape(x.shape)


def _shuffled(x: Array, r: int) -> Array:
    *batch, c, h, w = x.shape
    y = x.reshape(-1, c // (r * r), r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(*batch, c // (r * r), h * r, w * r)


def _unshuffled(x: Array, r: int) -> Array:
    *batch, c, h, w = x.shape
    y = x.reshape(-1, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4)
    return y.reshape(*batch, c * r * r, h // r, w // r)


# ---------------------------------------------------------------------- sizes


def _unpacked(items: tuple[Any, ...]) -> Any:
    """The items of f(1, 2) and of f((1, 2)) alike."""
    return items[0] if len(items) == 1 and isinstance(items[0], (tuple, list)) else items


def _sizes(layer: Layer, name: str, value: Any) -> tuple[int, ...]:
    """`value` as a tuple of positive integers, one of which may be -1."""
    if not isinstance(value, (tuple, list)):
        refuse(layer, f"{name} to be a tuple of integers", value)
    sizes = tuple(whole(layer, name, each, least=-np.inf) for each in value)
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        refuse(layer, f"{name} to hold positive integers and one -1 at most", value)
    return sizes


def _resolved(sizes: tuple[int, ...], total: int) -> tuple[int, ...] | None:
    """The sizes with a number in place of -1, or None where their product is not the total."""
    known = math.prod(size for size in sizes if size != -1)
    if total % known or (-1 not in sizes and known != total):
        return None
    return tuple(total // known if size == -1 else size for size in sizes)
