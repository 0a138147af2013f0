"""The loss of the variational autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import sigmoid, softplus
from backhand.layers.arguments import within
from backhand.layers.parameter import Array
from backhand.losses.base import Loss


class ELBOLoss(Loss):
    """How badly the picture is drawn again, and how much the code tells beyond what was known.

        l = sum of (softplus(x) - target x) + beta KL,    KL = 1/2 sum of (mu^2 + e^logvar - logvar - 1)
        dx = dl (sigmoid(x) - target)        dmu = dl beta mu        dlogvar = dl beta (e^logvar - 1) / 2

    x : (N, ...) logits      mu, logvar : (N, code)      target : x's shape, numbers from 0 to 1
    beta : the weight of KL      reduction : "mean" over the N samples, "sum", or "none" for all l, (N,)

    In nats, an upper bound of -log p(target) where the target is 0 or 1 and beta = 1: the negative of the "evidence
    lower bound". KL is the divergence of N(mu, e^logvar) from N(0, 1). `parts` are the means of the two terms in the
    last forward. `backward` returns (dx, dmu, dlogvar).
    Kingma & Welling 2013, arXiv:1312.6114, eq. 10 and appendix B; Higgins et al. 2017 for beta
    """

    parts: tuple[float, float] | None = None

    def __init__(self, *, beta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = within(self, "beta", beta, 0, np.inf)

    def forward(self, x: ArrayLike, mu: ArrayLike, logvar: ArrayLike, target: ArrayLike) -> Any:
        x, target = self.pair(x, target)
        mu, logvar = self.input(mu, x.dtype), self.input(logvar, x.dtype)
        if mu.ndim < 2 or mu.shape != logvar.shape or x.ndim < 2 or len(mu) != len(x):
            shapes = f"{x.shape}, {mu.shape} and {logvar.shape}"
            self.reject("x (N, ...), mu (N, code) and logvar (N, code)", shapes)
        self.shares(target)
        n = len(x)
        drawn = (softplus(x) - target * x).reshape(n, -1).sum(axis=1)
        kl = (mu * mu + np.expm1(logvar) - logvar).reshape(n, -1).sum(axis=1) / 2
        losses = np.asarray(drawn + x.dtype.type(self.beta) * kl, x.dtype)
        self.parts = float(drawn.mean()), float(kl.mean())
        self.save(x, mu, logvar, target, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, Array, Array]:
        dl = self.upstream(dout)
        x, mu, logvar, target = self.saved()
        dx = sigmoid(x)
        dx -= target
        dx *= _along(dl, x)
        dkl = _along(dl, mu) * mu.dtype.type(self.beta)
        return dx, dkl * mu, dkl * (np.expm1(logvar) / 2)


def _along(dl: Array, x: Array) -> Array:
    """dl (N,), so that it broadcasts against x (N, ...)."""
    return dl.reshape(-1, *(1,) * (x.ndim - 1))
