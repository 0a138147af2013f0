"""Attention: every query takes a weighted mean of the values, the weights being how well it matches each key."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import within
from backhand.layers.base import Layer
from backhand.layers.broadcasting import broadcast_together, broadcasts_to, unbroadcast
from backhand.layers.parameter import Array


class ScaledDotProductAttention(Layer):
    """The mean of the values, weighted by a softmax over how well their keys match the query.

        y = P v,    P = softmax(S),    S = q k^T * scale + mask
        dv = P^T dy,    dP = dy v^T
        dS_ij = P_ij (dP_ij - sum_j P_ij dP_ij)        (row by row, the derivative of Softmax)
        dq = dS k * scale,    dk = dS^T q * scale

    query : (..., L, E)      key : (..., S, E)      value : (..., S, F)      y : (..., L, F); leading axes broadcast
    attn_mask : broadcasts to (..., L, S), no gradient. Numbers are added to S; of booleans, True may be attended to,
        as in torch.nn.functional.scaled_dot_product_attention (and the other way round than in MultiheadAttention).
    nothing : the row of P of a query that may attend to nothing, 0 or nan; given to forward
    dropout_p : the chance that an entry of P is set to 0 while training; the others grow by 1/(1 - dropout_p)
    is_causal : query i sees the keys 0 to i only; then there is no attn_mask
    scale : None is 1/sqrt(E), which keeps S of size 1 where q and k are
    enable_gqa : key and value may have fewer heads (axis -3) than query; each serves several in turn
    attention_map : after a forward, P (what dropout left of it), (..., L, S), read-only, for drawing

    Backward keeps q, k, v and P. Vaswani et al. 2017, arXiv:1706.03762, eq. 1
    """

    attention_map: Array | None = None

    def __init__(
        self,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.dropout_p = within(self, "dropout_p", dropout_p, 0, 1)
        self.is_causal = is_causal
        self.scale = scale
        self.enable_gqa = enable_gqa
        self.rng = np.random.default_rng(rng)

    def forward(
        self,
        query: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        attn_mask: ArrayLike | None = None,
        nothing: float = 0.0,
    ) -> Array:
        q, k, v = (self.input(x) for x in (query, key, value))
        k, v = (x.astype(q.dtype, copy=False) for x in (k, v))
        shapes = (q.shape, k.shape, v.shape)
        repeats = self._checked(*shapes)
        if repeats > 1:
            k, v = (np.repeat(x, repeats, axis=-3) for x in (k, v))
        leading = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        q = np.broadcast_to(q, (*leading, *q.shape[-2:]))  # no copy; now the scores have all leading axes
        mask = self._mask(attn_mask, (*q.shape[:-1], k.shape[-2]), q.dtype)
        scale = q.dtype.type(q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        # the smaller factor is the one to scale: L*E products instead of L*S
        scores = (q * scale) @ k.swapaxes(-1, -2)
        if mask is not None:
            with np.errstate(over="ignore"):  # a mask of the lowest finite numbers may come to -inf
                scores += mask
        p = masked_softmax(scores, nothing)
        kept = None
        weights = p
        if self.training and self.dropout_p:
            kept = self.rng.random(p.shape, np.float32) >= self.dropout_p
            weights = p * self._survivors(kept, p.dtype)
        y = weights @ v
        self.attention_map = weights.view()
        self.attention_map.flags.writeable = False
        self.save(q, k, v, p, kept, scale, shapes, repeats, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array, Array]:
        dout = self.upstream(dout)
        q, k, v, p, kept, scale, shapes, repeats = self.saved()
        ds = dout @ v.swapaxes(-1, -2)  # dP so far; it becomes dS in its own memory
        if kept is None:
            dv = p.swapaxes(-1, -2) @ dout
        else:
            survivors = self._survivors(kept, p.dtype)
            dv = (p * survivors).swapaxes(-1, -2) @ dout
            ds *= survivors
        ds -= np.einsum("...ij,...ij->...i", ds, p)[..., None]
        ds *= p
        ds *= scale
        dq, dk = ds @ k, ds.swapaxes(-1, -2) @ q
        if repeats > 1:  # np.repeat put the copies of one head next to each other, and what was copied, adds
            dk, dv = (d.reshape(*d.shape[:-3], -1, repeats, *d.shape[-2:]).sum(axis=-3) for d in (dk, dv))
        return unbroadcast(dq, shapes[0]), unbroadcast(dk, shapes[1]), unbroadcast(dv, shapes[2])

    def _survivors(self, kept: Array, dtype: np.dtype[Any]) -> Array:
        """What dropout multiplies P by."""
        return kept * dtype.type(1 / (1 - self.dropout_p) if self.dropout_p < 1 else 0)

    def _checked(self, q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> int:
        """How many queries' heads share one of the keys' heads, or the error that says why the shapes do not fit."""
        wanted = "query (..., L, E), key (..., S, E) and value (..., S, F), whose leading axes broadcast"
        got = f"{q}, {k} and {v}"
        if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
            self.reject(wanted, got)
        repeats = 1
        if self.enable_gqa:
            if min(len(q), len(k), len(v)) < 3 or k[-3] != v[-3] or q[-3] % k[-3]:
                self.reject("a number of heads (axis -3) of query that is a multiple of that of key and value", got)
            repeats = q[-3] // k[-3]
            k, v = ((*s[:-3], s[-3] * repeats, *s[-2:]) for s in (k, v))
        if not broadcast_together(q[:-2], k[:-2], v[:-2]):
            self.reject(wanted, got)
        return repeats

    def _mask(self, attn_mask: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """What is added to the scores, which have this shape."""
        if self.is_causal:
            if attn_mask is not None:
                self.reject("no attn_mask with is_causal=True", "one")
            return additive(self, "attn_mask", np.tri(shape[-2], shape[-1]) == 0, dtype)
        if attn_mask is None:
            return None
        given = self.array(attn_mask)
        mask = additive(self, "attn_mask", ~given if given.dtype == bool else given, dtype)
        if not broadcasts_to(mask.shape, shape):
            self.reject(f"attn_mask that broadcasts to {shape}", mask.shape)
        return mask


# ---------------------------------------------------------------------- what both need


def masked_softmax(scores: Array, nothing: float = 0.0) -> Array:
    """Softmax over the last axis, in the memory of `scores`; a row that is all -inf becomes `nothing`."""
    top = scores.max(axis=-1, keepdims=True)
    dead = np.isneginf(top)
    top[dead] = 0
    scores -= top
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    total[dead] = 1
    scores /= total
    if nothing and dead.any():  # nan counts as true
        scores[dead[..., 0]] = nothing
    return scores


def additive(layer: Layer, name: str, mask: Any, dtype: np.dtype[Any]) -> Array:
    """A mask as what is added to the scores: of booleans, True becomes -inf and False 0."""
    given = layer.array(mask)
    if given.dtype.kind == "b":
        return np.where(given, dtype.type(-np.inf), dtype.type(0))
    if given.dtype.kind != "f":
        layer.reject(f"{name} of booleans or floats", f"dtype {given.dtype}")
    with np.errstate(over="ignore"):  # the lowest number of a wider dtype is -inf here
        return given.astype(dtype, copy=False)
