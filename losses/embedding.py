"""Losses of where things lie: what belongs together should be near, what does not, apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import number, positive
from backhand.layers.broadcasting import broadcast_together, unbroadcast
from backhand.layers.distance import p_norm, p_norm_slope
from backhand.layers.parameter import Array
from backhand.losses.base import TINY, Loss


class CosineEmbeddingLoss(Loss):
    """The angle between two vectors: none where they belong together, and a wide one where they do not.

        l = 1 - cos where y = 1,    max(0, cos - margin) where y = -1,    else 0
        cos = x1 . x2 / sqrt(s1 s2),    s = |x|^2 + 1e-12
        dx1 = dcos * (x2 / sqrt(s1 s2) - cos x1 / s1),    and dx2 the same with 1 and 2 exchanged
        dcos = -dl where y = 1,    dl where y = -1 and cos >= margin,    else 0

    x1, x2 : (N, D) with target y (N,); or (D,) with ()      margin : any number; from 0 to 0.5 makes sense

    `backward` returns (dx1, dx2). dx1 is at right angles to x1: the length of a vector does not matter, so nothing
    pulls on it.
    torch.nn.CosineEmbeddingLoss
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = number(self, "margin", margin)

    def forward(self, x1: ArrayLike, x2: ArrayLike, target: ArrayLike) -> Any:
        x1, x2 = self.pair(x1, x2, "x2")
        y = self.array(target)
        if x1.ndim not in (1, 2) or y.shape != x1.shape[:-1]:
            self.reject("x1 and x2 of shape (N, D) and a target (N,), or (D,) and ()", f"{x1.shape} and {y.shape}")
        self.signs(y)
        s1, s2 = (np.asarray((x * x).sum(-1, keepdims=True) + TINY, x1.dtype) for x in (x1, x2))
        root = np.sqrt(s1 * s2)
        cos = (x1 * x2).sum(-1, keepdims=True) / root
        beyond = cos[..., 0] - self.margin
        losses = np.where(y == 1, 1 - cos[..., 0], np.where(y == -1, np.maximum(beyond, 0), 0))
        losses = np.asarray(losses, x1.dtype)
        self.save(x1, x2, s1, s2, root, cos, np.where(y == 1, -1, (y == -1) & (beyond >= 0)), out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, Array]:
        dl = self.upstream(dout)
        x1, x2, s1, s2, root, cos, sign = self.saved()
        dcos = np.asarray(dl * sign, dl.dtype)[..., None]
        return dcos * (x2 / root - cos * x1 / s1), dcos * (x1 / root - cos * x2 / s2)


class TripletMarginLoss(Loss):
    """An anchor should be nearer to what is like it than to what is not, by a margin.

        l = max(0, margin + D(a, p) - D(a, n)),    D(u, v) = ||u - v + eps||_p
        with swap, D(a, n) is replaced by min(D(a, n), D(p, n))

        dD/du = sign(d) (|d| / D)^(p-1),    d = u - v + eps,    dD/dv = -dD/du
        da = dl * (dD(a, p)/da - dD(a, n)/da) where l is not cut off, and dp, dn likewise from the D that they are in

    anchor a, positive p, negative n : (..., D), as many axes each, the others broadcast: (1, D) is one for all
    margin : above 0      p : which norm, any number; inf is the largest |d|      eps : keeps d off 0

    `backward` returns (da, dp, dn): where l > 0 the positive is drawn to the anchor and the negative pushed away.
    Balntas et al. 2016, "Learning local feature descriptors with triplets and shallow convolutional neural
    networks", section 3 (swap is the anchor swap there)
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.margin = positive(self, "margin", margin)
        self.p = number(self, "p", p)
        self.eps = number(self, "eps", eps)
        self.swap = swap

    def forward(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike) -> Any:
        a = self.input(anchor)
        p, n = self.input(positive, a.dtype), self.input(negative, a.dtype)
        shapes = a.shape, p.shape, n.shape
        same = a.ndim == p.ndim == n.ndim > 0 and a.shape[-1] == p.shape[-1] == n.shape[-1]
        if not same or not broadcast_together(*shapes):
            self.reject("anchor, positive and negative of one shape (..., D)", " and ".join(map(str, shapes)))
        like, unlike = self._distance(a, p), self._distance(a, n)
        apart, share = unlike[1], np.ones((), a.dtype)
        swapped = self._distance(p, n) if self.swap else None
        if swapped is not None:
            apart = np.minimum(unlike[1], swapped[1])
            # the nearer one counts; of two that are as near, each a half, as in torch
            share = (0.5 + 0.5 * np.sign(swapped[1] - unlike[1])).astype(a.dtype)
        hinge = self.margin + like[1] - apart
        losses = np.asarray(np.maximum(hinge, 0), a.dtype)
        self.save(like, unlike, swapped, share, hinge >= 0, (a.shape, p.shape, n.shape), out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, Array, Array]:
        dl = self.upstream(dout)
        like, unlike, swapped, share, inside, shapes = self.saved()
        dl = np.asarray(dl * inside)
        to_positive = self._by_difference(dl, *like)
        to_negative = self._by_difference(-dl * share, *unlike)
        parts = [[to_positive, to_negative], [-to_positive], [-to_negative]]
        if swapped is not None:
            between = self._by_difference(-dl * (1 - share), *swapped)
            parts[1].append(between)
            parts[2].append(-between)
        da, dp, dn = (
            np.asarray(sum(unbroadcast(part, shape) for part in some), dl.dtype)
            for some, shape in zip(parts, shapes, strict=True)
        )
        return da, dp, dn

    def _distance(self, u: Array, v: Array) -> tuple[Array, Array]:
        """The difference and its norm."""
        d = np.asarray(u - v + self.eps, u.dtype)
        return d, p_norm(d, self.p)[..., 0]

    def _by_difference(self, dnorm: Array, d: Array, norm: Array) -> Array:
        """The gradient by the difference, from that by its norm."""
        return dnorm[..., None] * p_norm_slope(d, norm[..., None], self.p)
