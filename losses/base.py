"""What every loss is: a Layer whose output is the number that is minimised."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import one_of, refuse
from backhand.layers.base import Layer
from backhand.layers.broadcasting import broadcasts_to, reshape_hint
from backhand.layers.parameter import Array

TINY = np.float32(1e-12)  # torch's is a float32 in float64 too, and that shows in the ninth digit


class Mean(float):
    """A mean that knows over how much it is one: a float, and `count`.

        the mean of two together = (a * a.count + b * b.count) / (a.count + b.count)

    count : how many there were, or the sum of their weights; 0 where there was nothing, and the mean is nan

    So is a number times it, and the sum of two over as many; what else comes of it is a plain float.
    """

    __slots__ = ("count",)
    count: float

    def __new__(cls, value: float, count: float) -> Mean:
        mean = float.__new__(cls, value)
        mean.count = count
        return mean

    def __mul__(self, factor: Any) -> Any:
        return Mean(float(self) * factor, self.count) if type(factor) in (int, float) else float.__mul__(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        if type(divisor) not in (int, float):
            return float.__truediv__(self, divisor)
        return Mean(float(self) / divisor, self.count)

    def __add__(self, other: Any) -> Any:
        if type(other) is Mean and other.count == self.count:
            return Mean(float(self) + float(other), self.count)
        return float.__add__(self, other)

    def __getnewargs__(self) -> tuple[float, float]:  # type: ignore[override]
        return float(self), self.count

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        # NumPy keeps float32 beside a Python float, but not beside a subclass of it
        plain = (float(x) if isinstance(x, Mean) else x for x in inputs)
        return getattr(ufunc, method)(*plain, **options)


class Loss(Layer):
    """The scalar at the end of the chain; its backward starts the gradient.

        L = reduce(l(scores, target))        dscores = dL * dl/dscores,    dL = 1 unless given

    reduction : "mean" over what counts, "sum", or "none" (then the array of all l)

    The mean over the batch is taken here and nowhere else. The number that `forward` returns is the function that
    `backward` differentiates. The target is data: no gradient by it is returned. With several inputs to differentiate,
    `backward` returns a tuple of their gradients in the order of `forward`, and None in the place of a target that
    stands between them.

    A mean that `forward` returns is a `Mean`: its `count` is what the sum was divided by (the number of all l, or the
    labels that are not ignored, or their weights), for the mean over batches that count differently is not the mean of
    their means. So do gradients of several batches add up to exactly that of one large batch:

        total = 0
        for x, y in parts:
            value = loss(model(x), y)
            model.backward(loss.backward(value.count))
            total += value.count
        for parameter in model.parameters():
            parameter.grad /= total

    A subclass works on the array `losses` of all l: forward ends with `self.save(..., out=losses)` and
    `return self.reduce(losses)`, and in backward `self.upstream(dout)` is the gradient by each of them.
    """

    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = one_of(self, "reduction", reduction, self.reductions)

    def reduce(self, losses: Array, count: float | None = None) -> Any:
        """The losses as the reduction wants them; "mean" divides their sum by `count`, by default their number.

        That is then a `Mean`; "sum" gives a plain float.
        """
        if self.reduction == "none":
            return losses
        if self.reduction == "sum":
            return summed(losses)
        divisor = float(losses.size if count is None else count)
        # Mean(..., divisor), without the call: this is made in every step
        mean = float.__new__(Mean, summed(losses) / divisor if divisor else math.nan)  # the mean of nothing is nan
        mean.count = divisor
        return mean

    def save(self, *values: Any, out: Any = None, count: float | None = None) -> None:
        """Push what backward will need; `out` are the losses before the reduction, `count` as in `reduce`."""
        super().save(*values, count, out=out)

    def saved(self) -> tuple[Any, ...]:
        """Pop what the last forward saved that has not been undone yet."""
        return super().saved()[:-1]

    def upstream(self, dout: Any = None) -> Array:
        """The gradient by each of the losses: what `reduce` did, backwards. Read-only; None means dL = 1."""
        entry = self._top()
        values, (shape, dtype) = entry[1], entry[2]
        if dout is None:
            given: float = 1.0
        else:
            dout = self.native(dout, "dout of numbers") if not isinstance(dout, tuple) else dout
            number = not isinstance(dout, tuple) and dout.ndim == 0  # the same for all
            wanted = () if number or self.reduction != "none" else shape
            if isinstance(dout, np.ndarray) and dout.shape != wanted:
                self.reject(f"dout of shape {wanted}", dout.shape)
            gradient: Array = self._matched(dout, (wanted, dtype))
            if gradient.shape == shape and self.reduction == "none":
                return gradient
            given = float(gradient)
        divisor = self._divisor(math.prod(shape), values[-1])
        # where nothing counts it is nan, as in torch; but the share of a batch that counts for nothing is 0
        each = given / divisor if divisor else math.nan if given else 0.0
        # what np.broadcast_to gives, in a fifth of its time: one number, under every index
        spread: Array = np.ndarray(shape, dtype, dtype.type(each), strides=(0,) * len(shape))
        return spread

    def _divisor(self, size: int, count: float | None) -> float:
        if self.reduction in ("none", "sum"):
            return 1.0
        return float(size if count is None else count)

    def anything(self, name: str, value: Any) -> Array:
        """`value` as an array of whatever it holds: labels are checked against x, not here."""
        return self.native(value, f"{name} as an array")

    def pair(self, x: ArrayLike, target: ArrayLike, name: str = "a target") -> tuple[Array, Array]:
        """Input and target as two float arrays of one shape and dtype, or the error that names both shapes.

        They never broadcast: a column (N, 1) against a row (N,) is a table of all pairs, and nobody's mean.
        """
        x = self.input(x)
        target = self.input(target, x.dtype)
        if x.shape != target.shape:
            hint = reshape_hint(name.split()[-1], target.shape, x.shape)
            self.reject(f"{name} of the input's shape {x.shape}", f"{target.shape}{hint}")
        return x, target

    def signs(self, target: Array, alone: bool = False) -> None:
        """LayerError for labels of 0 and 1 where 1 and -1 are meant; with `alone`, for anything but these two.

        Otherwise any other number is taken, as in torch.
        """
        wrong = np.abs(target) != 1
        if wrong.any():
            of_0_and_1 = np.isin(target, (0, 1)).all()
            if alone or of_0_and_1:
                hint = "2 * target - 1 makes them of 0 and 1" if of_0_and_1 else ""
                self.reject("a target of 1 and -1", _first(target, wrong), hint)

    def shares(self, target: Array, name: str = "target", slack: float = 1e-5) -> None:
        """LayerError unless every number is between 0 and 1, but for a little rounding."""
        self.no_signs(target)
        low, high = target.min(), target.max()
        if not (low >= -slack and high <= 1 + slack):  # nan neither
            self.reject(f"{name} between 0 and 1", f"{low:g} to {high:g}")

    def no_signs(self, target: Array) -> None:
        """LayerError for labels of -1 and 1 where 0 and 1 are meant; torch takes any number there, and so do we."""
        if np.minimum.reduce(target, axis=None) == -1 and (np.abs(target) == 1).all():
            self.reject("target between 0 and 1", "-1 and 1", "(target + 1) / 2 makes them of these")


class Pointwise(Loss):
    """The form of the losses that set number against number.

        L = reduce(l(x, target))        dx = dl * l'(x, target)

    x, target : one shape, any, and so is l

    A subclass writes `function(x, target)` and `gradient(dl, x, target)`, `operands` where it takes less, and `count`
    where "mean" is not by the number of all l.
    """

    def operands(self, x: ArrayLike, target: ArrayLike) -> tuple[Array, ...]:
        """Input and target as arrays of x's dtype, once they are known to be what the loss takes."""
        return self.pair(x, target)

    def function(self, x: Array, target: Array) -> Array:
        """All l, a new array."""
        raise NotImplementedError

    def gradient(self, dl: Array, x: Array, target: Array) -> Array:
        """dl * l'(x, target), a new array of dl's shape."""
        raise NotImplementedError

    def count(self, x: Array) -> float | None:
        """What the sum is divided by, for another reduction than "sum" and "none"; None is the number of all l."""
        return None

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, target = self.operands(x, target)
        losses = np.asarray(self.function(x, target), x.dtype)
        count = self.count(x)
        self.save(x, target, out=losses, count=count)
        return self.reduce(losses, count)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        x, target = self.saved()
        return np.asarray(self.gradient(dl, x, target), x.dtype)


# ---------------------------------------------------------------------- what the errors say


def _first(values: Array, wrong: Array) -> str:
    """The first number that is wrong, and where it stands."""
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{values[where]:g} at {list(where)}"


# ---------------------------------------------------------------------- sums and weights


def alone(dl: Array) -> Any:
    """The one number that `upstream` has spread over all losses, which is multiplied by faster; else dl as it is."""
    return dl if any(dl.strides) else dl[(0,) * dl.ndim]


def summed(values: Array) -> float:
    """The sum of an array."""
    return float(np.add.reduce(values, axis=None))


def weights(loss: Loss, name: str, value: ArrayLike | None) -> Array | None:
    """A copy of the weights as a float array (float32 unless they are an array of another float), or None."""
    if value is None:
        return None
    array = np.array(value)
    if array.dtype.kind not in "fiu" or array.size == 0:
        refuse(loss, f"{name} to be numbers", value)
    kept = isinstance(value, np.ndarray) and array.dtype.kind == "f"
    return array.astype(array.dtype.newbyteorder("=") if kept else np.float32, copy=False)


def weight_for(loss: Loss, name: str, x: Array) -> Array:
    """The buffer `name` of a loss in x's dtype, 1 where there is none; it must broadcast to x's shape."""
    value = getattr(loss, name)
    weight: Array = np.ones((), x.dtype) if value is None else value.astype(x.dtype, copy=False)
    if not broadcasts_to(weight.shape, x.shape):  # not only with it: the losses keep the shape of x
        loss.reject(f"x that {name} of shape {weight.shape} broadcasts to", x.shape)
    return weight
