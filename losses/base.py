"""What every loss is: a Layer whose output is the number that is minimised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Array, Layer


class Loss(Layer):
    """The scalar at the end of the chain; its backward starts the gradient.

        L = reduce(l(scores, target))        dscores = dL * dl/dscores,    dL = 1 unless given

    reduction : "mean" over what counts, "sum", or "none" (then the array of all l)

    The mean over the batch is taken here and nowhere else. The number that `forward` returns is the function that
    `backward` differentiates. The target is data: no gradient by it is returned.

    A subclass works on the array `losses` of all l: forward ends with `self.save(..., out=losses)` and
    `return self.reduce(losses)`, and in backward `self.upstream(dout)` is the gradient by each of them.
    """

    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, *, reduction: str = "mean") -> None:
        if reduction not in self.reductions:
            raise ValueError(f"{type(self).__name__}: expected reduction in {self.reductions}, got {reduction!r}")
        self.reduction = reduction

    def reduce(self, losses: Array, count: float | None = None) -> Any:
        """The losses as the reduction wants them; "mean" divides their sum by `count`, by default their number."""
        if self.reduction == "none":
            return losses
        total = losses.sum()
        with np.errstate(divide="ignore", invalid="ignore"):  # nothing counts: the mean of nothing is nan
            return float(total / self._divisor(losses.size, count))

    def save(self, *values: Any, out: Any = None, count: float | None = None) -> None:
        """Push what backward will need; `out` are the losses before the reduction, `count` as in `reduce`."""
        super().save(*values, count, out=out)

    def saved(self) -> tuple[Any, ...]:
        """Pop what the last forward saved that has not been undone yet."""
        return super().saved()[:-1]

    def upstream(self, dout: Any = None) -> Array:
        """The gradient by each of the losses: what `reduce` did, backwards. Read-only; None means dL = 1."""
        top = self._top()
        shape, dtype = top.out
        gradient = np.asarray(1 if dout is None else dout, dtype)
        wanted = shape if self.reduction == "none" else ()
        if gradient.shape not in ((), wanted):
            self.reject(f"dout of shape {wanted}", gradient.shape)
        divisor = self._divisor(int(np.prod(shape)), top.values[-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.broadcast_to((gradient / divisor).astype(dtype), shape)

    def _divisor(self, size: int, count: float | None) -> float:
        if self.reduction in ("none", "sum"):
            return 1.0
        return float(size if count is None else count)

    def pair(self, x: ArrayLike, target: ArrayLike) -> tuple[Array, Array]:
        """Input and target as two float arrays of one shape and dtype, or the error that names both shapes."""
        x = self.input(x)
        target = self.input(target)
        if x.shape != target.shape:
            self.reject(f"a target of the input's shape {x.shape}", target.shape)
        return x, target.astype(x.dtype, copy=False)
