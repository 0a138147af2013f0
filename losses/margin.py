"""Hinges: what is right by the margin costs nothing, what is not costs in proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number, refuse
from backhand.layers.parameter import Array
from backhand.losses.base import Loss, Pointwise
from backhand.losses.classification import OverClasses


class MultiMarginLoss(OverClasses):
    """The hinge of the multi-class support vector machine: the true score should lead every other by a margin.

        l = weight_t / C * sum over c != t of h_c^p,    h_c = max(0, margin - x_t + x_c)
        dx_c = dl * weight_t / C * p h_c^(p-1) where h_c > 0,    dx_t = -(the sum of all these)

    x : (C,) or (N, C)      target : integer labels, () or (N,), and so is l      weight : (C,), a buffer
    p : 1 or 2

    Every class inside the margin pulls on its own score and, by the same amount, on the true one: dx sums to 0.
    Crammer & Singer 2001, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines"
    """

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: ArrayLike | None = None, *, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        if p not in (1, 2):
            refuse(self, "p to be 1 or 2", p)
        self.p = p
        self.margin = number(self, "margin", margin)

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x = self.input(x)
        rows, _ = self.scores(as_rows(self, x))
        labels = self.anything("target", target)
        if labels.ndim == 0 and len(rows) == 1:
            labels = labels.reshape(1)
        index, _, importance = self.labels(rows, 1, labels)
        hinge = np.maximum(rows - rows[index][:, None] + rows.dtype.type(self.margin), 0)
        hinge[index] = 0
        scale = importance / rows.dtype.type(rows.shape[1])
        losses = (scale * (hinge**self.p).sum(1)).reshape(np.shape(target))
        self.save(hinge, index, scale, x.shape, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        hinge, index, scale, shape = self.saved()
        dx = (hinge > 0).astype(hinge.dtype) if self.p == 1 else 2 * hinge
        dx *= (dl.reshape(-1) * scale)[:, None]
        dx[index] = -dx.sum(1)
        return dx.reshape(shape)


class MultiLabelMarginLoss(Loss):
    """The hinge for several true classes: each of them should lead each of the others by 1.

        l = 1/C * sum over true t, other c of h_tc,    h_tc = max(0, 1 - x_t + x_c)
        dx_t = -dl / C * (how many c have h_tc > 0),    dx_c = dl / C * (how many t have h_tc > 0)

    x : (C,) or (N, C)
    target : integers of x's shape: in each row the true classes, one after the other, then -1; what follows the
        first -1 is not looked at. A class that is named twice counts twice.
    torch.nn.MultiLabelMarginLoss
    """

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x = self.input(x)
        rows, named = self._rows(x, target)
        n, classes = rows.shape
        valid = np.logical_and.accumulate(named >= 0, axis=1)
        most = max(int(valid.sum(1).max()), 1)
        named, valid = np.where(valid, named, 0)[:, :most], valid[:, :most]
        each = np.arange(n)[:, None]
        other = np.ones((n, classes), np.bool_)
        other[np.nonzero(valid)[0], named[valid]] = False
        hinge = np.maximum(1 - rows[each, named][:, :, None] + rows[:, None, :], 0)
        hinge *= valid[:, :, None] & other[:, None, :]
        losses = np.asarray(hinge.sum((1, 2)) / classes, x.dtype).reshape(x.shape[:-1] if x.ndim == 2 else ())
        self.save(hinge > 0, named, x.shape, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        active, named, shape = self.saved()
        dx = active.sum(1).astype(dl.dtype)
        np.subtract.at(dx, (np.arange(len(dx))[:, None], named), active.sum(2, dtype=dx.dtype))
        dx *= dl.reshape(-1, 1) / dx.dtype.type(dx.shape[1])
        return dx.reshape(shape)

    def _rows(self, x: Array, target: Any) -> tuple[Array, Array]:
        """x and the target as two tables, once they are known to fit."""
        target = self.anything("target", target)
        rows = as_rows(self, x)
        fits = target.shape == x.shape if x.ndim == 2 else target.ndim < 2 and target.size == x.size
        if not fits or target.dtype.kind not in "iu":
            self.reject(f"integer classes of x's shape {x.shape}", f"{target.dtype} of shape {target.shape}")
        if (target < -1).any() or (target >= rows.shape[1]).any():
            self.reject(f"classes from 0 to {rows.shape[1] - 1}, or -1", f"{target.min()} to {target.max()}")
        return rows, target.reshape(rows.shape).astype(np.intp)


class HingeEmbeddingLoss(Pointwise):
    """A distance that should be small where two things belong together, and at least the margin where they do not.

        l = x where y = 1,    max(0, margin - x) where y = -1
        dx = dl where y = 1,    -dl where y = -1 and x <= margin,    else 0

    x, target y : one shape, any; y is 1 or -1
    margin : any number

    Hadsell, Chopra & LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping"
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = number(self, "margin", margin)

    def operands(self, x: ArrayLike, target: ArrayLike) -> tuple[Array, ...]:
        x, target = self.pair(x, target)
        self.signs(target, alone=True)
        return x, target

    def function(self, x: Array, target: Array) -> Array:
        return np.where(target == 1, x, np.maximum(self.margin - x, 0))

    def gradient(self, dl: Array, x: Array, target: Array) -> Array:
        return np.where(target == 1, dl, np.where(self.margin - x >= 0, -dl, 0))


class MarginRankingLoss(Loss):
    """Which of two scores should be the higher, and by how much at least.

        l = max(0, margin - y (x1 - x2))        dx1 = -dl * y where l is not cut off,    dx2 = -dx1

    x1, x2, target y : one shape, any; y = 1: x1 should be higher, y = -1: x2
    margin : any number

    `backward` returns (dx1, dx2). Exactly on the edge (with margin 0: at a tie) the gradient is that of the
    inside, as in torch: a tie is still pulled apart.
    torch.nn.MarginRankingLoss
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = number(self, "margin", margin)

    def forward(self, x1: ArrayLike, x2: ArrayLike, target: ArrayLike) -> Any:
        x1, x2 = self.pair(x1, x2, "x2")
        x1, y = self.pair(x1, target)
        self.signs(y)
        hinge = self.margin - y * (x1 - x2)
        losses = np.asarray(np.maximum(hinge, 0), x1.dtype)
        self.save(y, hinge >= 0, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, Array]:
        dl = self.upstream(dout)
        y, inside = self.saved()
        pull = np.asarray(dl * inside * y)
        return -pull, pull


def as_rows(loss: Loss, x: Array) -> Array:
    """x, (C,) or (N, C), as a table with one row for each sample; one number is a vector of one."""
    if x.ndim > 2:
        loss.reject("x of shape (C,) or (N, C)", x.shape)
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)
