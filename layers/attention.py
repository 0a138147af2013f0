"""Attention: every query takes a weighted mean of the values, the weights being how well it matches each key."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import within
from backhand.layers.base import Layer
from backhand.layers.blocks import in_blocks, row_dots
from backhand.layers.broadcasting import broadcast_together, broadcasts_to, unbroadcast
from backhand.layers.memory import empty, empty_like
from backhand.layers.parameter import Array
from backhand.layers.softmax import moderate, sum_along


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
        q, k, v = self.inputs(query, key, value)
        k, v = (x.astype(q.dtype, copy=False) for x in (k, v))
        shapes = (q.shape, k.shape, v.shape)
        repeats = self._checked(*shapes)
        if repeats > 1:
            k, v = (np.repeat(x, repeats, axis=-3) for x in (k, v))
        if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
            leading = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
            q, k, v = (np.broadcast_to(x, (*leading, *x.shape[-2:])) for x in (q, k, v))
        scale = q.dtype.type(q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        p = empty((*q.shape[:-1], k.shape[-2]), q.dtype)
        mask = self._mask(attn_mask, p.shape, p.dtype)
        hiding = mask is None or bool(((mask == 0) | np.isneginf(mask)).all())
        if mask is not None:
            mask = np.broadcast_to(mask, p.shape)
        kept = None
        weights = p
        if self.training and self.dropout_p:
            kept = self.rng.random(p.shape, np.float32) >= self.dropout_p
            weights = empty_like(p)
        # y lies in memory as q does, so that what was cut into heads is put together again without a copy
        y = empty_like(q) if v.shape == q.shape else empty((*q.shape[:-1], v.shape[-1]), q.dtype)

        def work(block: Any) -> None:
            scores = p[block]
            np.matmul(q[block], k[block].swapaxes(-1, -2), out=scores)
            scores *= scale
            self._probabilities(scores, None if mask is None else mask[block], hiding, nothing)
            if kept is not None:
                np.multiply(scores, self._survivors(kept[block], p.dtype), out=weights[block])
            np.matmul(weights[block], v[block], out=y[block])

        _by_samples(work, p.shape)
        self.attention_map = weights.view()
        self.attention_map.flags.writeable = False
        self.save(q, k, v, p, kept, scale, shapes, repeats, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array, Array]:
        dout = self.upstream(dout)
        q, k, v, p, kept, scale, shapes, repeats = self.saved()
        dq, dk, dv = empty_like(q), empty_like(k), empty_like(v)

        def work(block: Any) -> None:
            dy, probabilities = dout[block], p[block]
            weights = probabilities
            ds = np.matmul(dy, v[block].swapaxes(-1, -2), out=empty_like(probabilities))  # dP so far
            if kept is not None:
                survivors = self._survivors(kept[block], p.dtype)
                weights = probabilities * survivors
                ds *= survivors
            np.matmul(weights.swapaxes(-1, -2), dy, out=dv[block])
            ds -= row_dots(ds, probabilities)
            ds *= probabilities
            ds *= scale
            np.matmul(ds, k[block], out=dq[block])
            np.matmul(ds.swapaxes(-1, -2), q[block], out=dk[block])

        _by_samples(work, p.shape)
        if repeats > 1:  # np.repeat put the copies of one head next to each other, and what was copied, adds
            dk, dv = (d.reshape(*d.shape[:-3], -1, repeats, *d.shape[-2:]).sum(axis=-3) for d in (dk, dv))
        return unbroadcast(dq, shapes[0]), unbroadcast(dk, shapes[1]), unbroadcast(dv, shapes[2])

    def _probabilities(self, scores: Array, mask: Array | None, hiding: bool, nothing: float) -> None:
        """Turn the scores into P, in their own memory; `hiding` says that the mask is made of 0 and -inf alone."""
        if self.is_causal:
            seen = _causal(*scores.shape[-2:], scores.dtype)
            if moderate(scores):
                np.exp(scores, out=scores)
                scores *= seen
                scores /= sum_along(scores, -1)
                return
            mask = additive(self, "attn_mask", seen == 0, scores.dtype)
        shift = not (hiding and moderate(scores))
        if mask is not None:
            with np.errstate(over="ignore"):  # a mask of the lowest finite numbers may come to -inf
                scores += mask
        masked_softmax(scores, nothing, shift)

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
        """What is added to the scores, which have this shape; None where nothing is, or where they are causal."""
        if self.is_causal:
            if attn_mask is not None:
                self.reject("no attn_mask with is_causal=True", "one")
            return None
        if attn_mask is None:
            return None
        given = self.array(attn_mask)
        mask = additive(self, "attn_mask", ~given if given.dtype == bool else given, dtype)
        if not broadcasts_to(mask.shape, shape):
            self.reject(f"attn_mask that broadcasts to {shape}", mask.shape)
        return mask


# ---------------------------------------------------------------------- what both need


def _by_samples(work: Callable[[Any], None], shape: tuple[int, ...]) -> None:
    """Call work(block) for blocks of the first axis of scores of this shape, or for all of it where it is no batch."""
    if len(shape) > 2:
        in_blocks(work, shape[0], math.prod(shape[1:]))
    else:
        work(...)


@functools.lru_cache(maxsize=16)
def _causal(length: int, source: int, dtype: np.dtype[Any]) -> Array:
    """1 where a query sees a key, 0 above the diagonal."""
    seen = np.tri(length, source, dtype=dtype)
    seen.flags.writeable = False
    return seen


def masked_softmax(scores: Array, nothing: float = 0.0, shift: bool = True) -> Array:
    """Softmax over the last axis, in the memory of `scores`; a row that is all -inf becomes `nothing`.

    shift : False where the exponentials cannot overflow, nor vanish but where the score is -inf
    """
    if shift:
        top = scores.max(axis=-1, keepdims=True)
        top[np.isneginf(top)] = 0
        scores -= top
    np.exp(scores, out=scores)
    total = sum_along(scores, -1)
    dead = total == 0
    some = dead.any()
    if some:
        total[dead] = 1
    scores /= total
    if some and nothing:  # nan counts as true
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
