"""Contrastive losses: find the partner among all the others. A cross-entropy whose scores are cosines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import positive
from backhand.layers.parameter import Array
from backhand.layers.softmax import log_softmax
from backhand.losses.base import Loss


class _Contrastive(Loss):
    """What contrastive losses share: vectors of length 1, and a softmax over the cosines between them."""

    def __init__(self, temperature: float, reduction: str) -> None:
        super().__init__(reduction=reduction)
        self.temperature = positive(self, "temperature", temperature)

    def vectors(self, x: ArrayLike, y: ArrayLike, least: str) -> tuple[Array, Array]:
        """Two tables of vectors in one dtype, or the error that names both shapes."""
        x = self.input(x)
        y = self.input(y, x.dtype)
        fits = x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1]
        if not fits or len(y) < len(x) or (least == "as many" and len(y) != len(x)):
            self.reject(f"two tables of vectors (N, D), {least} in the second", f"{x.shape} and {y.shape}")
        return x, y


class InfoNCELoss(_Contrastive):
    """Each query should find its own key among all keys.

        l_i = -log p_ii,    p_i = softmax_j(s_ij),    s_ij = cos(query_i, key_j) / temperature
        ds = dl * (p - identity),    with u, v the query and the key divided by their lengths:
        du_i = sum_j ds_ij v_j / temperature,    dv_j = sum_i ds_ij u_i / temperature
        dquery = (du - u (u . du)) / |query|,    dkey = (dv - v (v . dv)) / |key|

    query : (N, D)
    key : (M, D), M >= N: row i belongs to query i, all other rows are its negatives (the keys of the other queries,
        and whatever comes after them: a queue of old keys, mined ones)
    temperature : how sharply the nearest negatives stand out; above 0

    `backward` returns (dquery, dkey). l is an upper bound: log M - l is at most the mutual information of the two.
    van den Oord, Li & Vinyals 2018, arXiv:1807.03748, equation 4. Not in torch: there it is cross_entropy of
    normalize(query) @ normalize(key).T / temperature.
    """

    def __init__(self, temperature: float = 0.1, *, reduction: str = "mean") -> None:
        super().__init__(temperature, reduction)

    def forward(self, query: ArrayLike, key: ArrayLike) -> Any:
        query, key = self.vectors(query, key, "at least as many")
        u, v = normalized(query), normalized(key)
        logp = log_softmax(u[0] @ v[0].T / query.dtype.type(self.temperature), 1)
        losses = -np.diagonal(logp)
        self.save(u, v, logp, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, Array]:
        dl = self.upstream(dout)
        u, v, logp = self.saved()
        ds = np.exp(logp)  # p
        own = np.arange(len(ds))
        ds[own, own] -= 1
        ds *= dl[:, None] / dl.dtype.type(self.temperature)
        return unnormalized(ds @ v[0], *u), unnormalized(ds.T @ u[0], *v)


class NTXentLoss(_Contrastive):
    """Two views of each sample: every view should find the other one among all 2N - 1 others.

        l_i = -log p_i,partner(i),    p_i = softmax over j != i of s_ij,    s_ij = cos(z_i, z_j) / temperature
        ds = dl * (p - [j = partner(i)]),    du = (ds + ds^T) u / temperature,    dz = (du - u (u . du)) / |z|

    z1, z2 : (N, D), row i of both from the same sample; z is z1 on top of z2
    temperature : above 0      reduction : "none" gives all 2N, those of z1 first
    target : nothing that is looked at; a Trainer hands the target of its data to every loss

    `backward` returns (dz1, dz2). Why ds + ds^T: s_ij is also s_ji, each vector is a query once and a key 2N - 1 times.
    Chen et al. 2020 (SimCLR), arXiv:2002.05709, equation 1. Not in torch.
    """

    def __init__(self, temperature: float = 0.5, *, reduction: str = "mean") -> None:
        super().__init__(temperature, reduction)

    def forward(self, z1: ArrayLike, z2: ArrayLike, target: Any = None) -> Any:
        z = np.concatenate(self.vectors(z1, z2, "as many"))
        n = len(z) // 2
        u = normalized(z)
        s = u[0] @ u[0].T / z.dtype.type(self.temperature)
        np.fill_diagonal(s, -np.inf)  # nobody is among its own others
        logp = log_softmax(s, 1)
        each = np.arange(2 * n)
        losses = -logp[each, (each + n) % (2 * n)]
        self.save(u, logp, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> tuple[Array, Array]:
        dl = self.upstream(dout)
        u, logp = self.saved()
        each, n = np.arange(len(logp)), len(logp) // 2
        ds = np.exp(logp)
        ds[each, (each + n) % (2 * n)] -= 1
        ds *= dl[:, None] / dl.dtype.type(self.temperature)
        dz = unnormalized((ds + ds.T) @ u[0], *u)
        return dz[:n], dz[n:]


def normalized(x: Array) -> tuple[Array, Array]:
    """Each row divided by its length, and the lengths, no less than 1e-12."""
    length = np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), x.dtype.type(1e-12))
    return x / length, length


def unnormalized(du: Array, u: Array, length: Array) -> Array:
    """dx from du, u = x / |x|: what points along u is lost in the division."""
    return (du - u * (u * du).sum(-1, keepdims=True)) / length
