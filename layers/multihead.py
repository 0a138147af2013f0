"""Attention with learned projections around it, several times side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, refuse, whole, within
from backhand.layers.attention import ScaledDotProductAttention, additive
from backhand.layers.base import Layer
from backhand.layers.linear import Linear, rows_of
from backhand.layers.memory import product
from backhand.layers.parameter import Array, Parameter, uniform


class MultiheadAttention(Layer):
    """Several attentions side by side, each in its own projection of the query, the keys and the values.

        q, k, v = query Wq^T + bq, key Wk^T + bk, value Wv^T + bv,    each cut into num_heads parts
        head_h = softmax(q_h k_h^T / sqrt(head_dim) + masks) v_h        (ScaledDotProductAttention, and its backward)
        y = [head_1, ..., head_H] Wo^T + bo
        dWq = dq^T query,    dbq = sum of dq,    dquery = dq Wq,    the same for k and v

    query : (L, N, E)      key : (S, N, kdim)      value : (S, N, vdim)      y : (L, N, E),    E = embed_dim
        With batch_first the first two axes change places; without a batch: (L, E), (S, kdim), (S, vdim).
    in_proj_weight : (3E, E), Wq over Wk over Wv; where kdim or vdim differ from E it is in three,
        q_proj_weight (E, E), k_proj_weight (E, kdim), v_proj_weight (E, vdim)
    in_proj_bias : (3E,)      out_proj.weight, out_proj.bias : (E, E), (E,)
    add_bias_kv : one more key and value, learned: bias_k, bias_v (1, 1, E)
    add_zero_attn : one more key and value, of zeros; attending to it is attending to nothing
    dropout : the chance that a weight of the attention is set to 0 while training

    In forward, besides the three:
    key_padding_mask : (N, S), or (S,) without a batch; keys to leave out
    attn_mask : (L, S), or (N * num_heads, L, S); which query may not attend to which key
        Of booleans, True is not allowed; numbers are added to the scores. Masks have no gradient.
    need_weights, average_attn_weights : what is left in `attention_map`. And where a query may attend to nothing,
        need_weights=True gives nan and need_weights=False 0, as in torch.
    is_causal : says that attn_mask is a causal one. It must be given, and it alone counts.

    forward returns only y. The weights are left on the layer for drawing, as `attention_map`, read-only and without
    a gradient: (N, L, S), the mean over the heads; all of them, (N, num_heads, L, S), with
    average_attn_weights=False or need_weights=False; without the axis N where there is no batch. What add_bias_kv
    and add_zero_attn add comes after the S keys.
    backward returns (dquery, dkey, dvalue), also where the three were one array: then they add up.

        y = MultiheadAttention(64, 8, batch_first=True)(x, x, x)        # self-attention, x and y (N, L, 64)

    Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2. Starts as in torch: in-projections Xavier-uniform, biases 0,
    bias_k and bias_v N(0, 1/E), out_proj.weight as in Linear.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.embed_dim = e = whole(self, "embed_dim", embed_dim)
        self.num_heads = whole(self, "num_heads", num_heads)
        if e % num_heads:
            refuse(self, f"embed_dim to be a multiple of num_heads={num_heads}", e)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        self.bias = bias
        self.add_bias_kv = add_bias_kv
        self.add_zero_attn = add_zero_attn
        self.kdim = e if kdim is None else whole(self, "kdim", kdim)
        self.vdim = e if vdim is None else whole(self, "vdim", vdim)
        self.batch_first = batch_first
        rng = np.random.default_rng(rng)
        self.in_proj_weight = self.q_proj_weight = self.k_proj_weight = self.v_proj_weight = None
        if self.kdim == self.vdim == e:
            self.in_proj_weight = xavier_uniform(rng, (3 * e, e), dtype)
        else:
            self.q_proj_weight = xavier_uniform(rng, (e, e), dtype)
            self.k_proj_weight = xavier_uniform(rng, (e, self.kdim), dtype)
            self.v_proj_weight = xavier_uniform(rng, (e, self.vdim), dtype)
        self.in_proj_bias = Parameter(np.zeros(3 * e, dtype)) if bias else None
        self.bias_k, self.bias_v = (
            Parameter((rng.standard_normal((1, 1, e)) / np.sqrt(e)).astype(dtype)) if add_bias_kv else None
            for _ in range(2)
        )
        self.attention = ScaledDotProductAttention(dropout, rng=rng)
        self.out_proj = Linear(e, e, bias, rng=rng, dtype=dtype)
        if self.out_proj.bias is not None:
            self.out_proj.bias.data[...] = 0
        self.attention_map: Array | None = None

    def forward(
        self,
        query: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        key_padding_mask: ArrayLike | None = None,
        need_weights: bool = True,
        attn_mask: ArrayLike | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Array:
        dtype = self.out_proj.weight.dtype
        inputs = [self.input(x, dtype) for x in (query, key, value)]
        batched = self._checked(*(x.shape for x in inputs))
        for name, value in (
            ("need_weights", need_weights),
            ("average_attn_weights", average_attn_weights),
            ("is_causal", is_causal),
        ):
            flag(self, name, value)
        if is_causal and attn_mask is None:
            self.reject("the attn_mask that is_causal=True tells of", "none")
        mask = self._mask(key_padding_mask, attn_mask, batched, inputs)
        q, k, v = (self._batch_first(x, batched) for x in self._project(inputs))
        if self.bias_k is not None and self.bias_v is not None:
            k, v = with_one_more(k, self.bias_k.data), with_one_more(v, self.bias_v.data)
        if self.add_zero_attn:
            k, v = (with_one_more(x, np.zeros((1, 1, 1), dtype)) for x in (k, v))
        q, k, v = self._split(q), self._split(k), self._split(v)
        heads = self.attention.forward(q, k, v, mask, np.nan if need_weights else 0.0)
        y = self.out_proj.forward(self._as_given(self._join(heads), batched))
        self._leave_map(batched, need_weights and average_attn_weights)
        self.save(inputs, batched, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array, Array]:
        dout = self.upstream(dout)
        inputs, batched = self.saved()
        dheads = self._split(self._batch_first(self.out_proj.backward(dout), batched))
        dq, dk, dv = (self._join(d) for d in self.attention.backward(dheads))
        if self.add_zero_attn:
            dk, dv = dk[:, :-1], dv[:, :-1]
        if self.bias_k is not None and self.bias_v is not None:
            self.bias_k.grad += dk[:, -1].sum(axis=0)
            self.bias_v.grad += dv[:, -1].sum(axis=0)
            dk, dv = dk[:, :-1], dv[:, :-1]
        gradients = [self._as_given(d, batched) for d in (dq, dk, dv)]
        dquery, dkey, dvalue = self._project_back(gradients, inputs)
        return dquery, dkey, dvalue

    def __repr__(self) -> str:
        text = super().__repr__()
        given = self.in_proj_weight is None  # else kdim and vdim are embed_dim, which None says too
        return text if given else text.replace(f", kdim={self.kdim}, vdim={self.vdim}", "")

    # ------------------------------------------------------------------ axes

    def _batch_first(self, x: Array, batched: bool) -> Array:
        """(N, L, E), from the order of axes that the user has."""
        if not batched:
            return x[None]
        return x if self.batch_first else x.swapaxes(0, 1)

    def _as_given(self, x: Array, batched: bool) -> Array:
        """The way back."""
        if not batched:
            return x[0]
        return x if self.batch_first else x.swapaxes(0, 1)

    def _split(self, x: Array) -> Array:
        """(N, L, E) cut into heads: (N, num_heads, L, head_dim)."""
        return x.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)

    def _join(self, x: Array) -> Array:
        """The way back."""
        return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)

    # ------------------------------------------------------------------ parameters, checks, masks, the map

    def _project(self, inputs: list[Array]) -> list[Array]:
        """The queries, keys and values of all heads: x W^T + b, one product where the three inputs are one array."""
        query, key, value = inputs
        e = self.embed_dim
        if self.in_proj_weight is not None and query is key is value:
            z = product(rows_of(query), self.in_proj_weight.data.T)
            if self.in_proj_bias is not None:
                z += self.in_proj_bias.data
            return [z[:, i * e : (i + 1) * e].reshape(query.shape) for i in range(3)]
        projected = []
        for x, weight, bias in zip(inputs, *self._in_projections("data"), strict=True):
            z = product(rows_of(x), weight.T)
            if bias is not None:
                z += bias
            projected.append(z.reshape(*x.shape[:-1], e))
        return projected

    def _project_back(self, gradients: list[Array], inputs: list[Array]) -> list[Array]:
        """The gradients by the inputs; adds to those of the projections."""
        drows = [rows_of(d) for d in gradients]
        weights, _ = self._in_projections("data")
        query, key, value = inputs
        if self.in_proj_weight is not None and query is key is value:
            self.in_proj_weight.add_product(np.concatenate(drows, axis=1).T, rows_of(query))
        else:
            # views: what is added arrives in the parameters
            for d, x, dweight in zip(drows, inputs, self._in_projections("grad")[0], strict=True):
                dweight += product(d.T, rows_of(x))
        if self.in_proj_bias is not None:
            self.in_proj_bias.grad += np.concatenate([np.add.reduce(d, axis=0) for d in drows])
        return [product(d, weight).reshape(x.shape) for d, weight, x in zip(drows, weights, inputs, strict=True)]

    def _in_projections(self, part: str) -> tuple[list[Array], list[Any]]:
        """The three weights and the three biases (or None), as views of their data, or of their grad."""
        if self.in_proj_weight is not None:
            weights = list(getattr(self.in_proj_weight, part).reshape(3, self.embed_dim, -1))
        else:
            weights = [getattr(p, part) for p in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)]
        biases = [None] * 3 if self.in_proj_bias is None else list(getattr(self.in_proj_bias, part).reshape(3, -1))
        return weights, biases

    def _checked(self, q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> bool:
        """Whether there is a batch, or the error that says why the shapes do not fit."""
        batched = len(q) == 3
        axis = 0 if self.batch_first else 1
        fits = (
            len(q) in (2, 3)
            and len(k) == len(v) == len(q)
            and (q[-1], k[-1], v[-1]) == (self.embed_dim, self.kdim, self.vdim)
            and k[:-1] == v[:-1]
            and (not batched or q[axis] == k[axis])
        )
        if not fits:
            axes = "(N, {}, {})" if self.batch_first else "({}, N, {})"
            sizes = ("L", self.embed_dim), ("S", self.kdim), ("S", self.vdim)
            wanted = ", ".join(axes.format(*each) for each in sizes)
            self.reject(f"query, key, value of shapes {wanted}, or all without N", f"{q}, {k}, {v}")
        return batched

    def _mask(self, key_padding: Any, attn: Any, batched: bool, inputs: list[Array]) -> Array | None:
        """The two masks as one that is added to the scores and broadcasts to (N, num_heads, L, keys), or None."""
        dtype = inputs[0].dtype
        (n, length, _), (_, source, _) = (self._batch_first(x, batched).shape for x in inputs[:2])
        mask = None
        if attn is not None:
            mask = additive(self, "attn_mask", attn, dtype)
            one, each = (length, source), (n * self.num_heads, length, source)
            if mask.shape not in (one, each):
                self.reject(f"attn_mask of shape {one} or {each}", mask.shape)
            mask = mask.reshape((1, 1, *one) if mask.ndim == 2 else (n, self.num_heads, *one))
        if key_padding is not None:
            padding = additive(self, "key_padding_mask", key_padding, dtype)
            wanted = (n, source) if batched else (source,)
            if padding.shape != wanted:
                self.reject(f"key_padding_mask of shape {wanted}", padding.shape)
            padding = padding.reshape(n, 1, 1, source)
            with np.errstate(over="ignore"):
                mask = padding if mask is None else mask + padding
        more = self.add_bias_kv + self.add_zero_attn
        if mask is not None and more:  # what is added to the keys may be attended to
            mask = np.concatenate([mask, np.zeros((*mask.shape[:-1], more), dtype)], axis=-1)
        return mask

    def _leave_map(self, batched: bool, average: bool) -> None:
        """Put the weights of the attention where they can be drawn."""
        weights = self.attention.attention_map
        if weights is None:
            return
        if average:
            weights = weights.mean(axis=1)
            weights.flags.writeable = False
        self.attention_map = weights if batched else weights[0]


# ---------------------------------------------------------------------- what it needs


def with_one_more(x: Array, last: Array) -> Array:
    """x (N, S, E) with `last`, which broadcasts to (N, 1, E), as one more vector of each sequence."""
    return np.concatenate([x, np.broadcast_to(last, (x.shape[0], 1, x.shape[2]))], axis=1)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Parameter:
    """A Parameter (out, in, ...) drawn from U(-a, a), a = sqrt(6 / (in + out)): Glorot & Bengio 2010."""
    return uniform(rng, xavier_bound(shape), shape, dtype)


def xavier_bound(shape: tuple[int, ...]) -> float:
    """The a of Xavier's uniform distribution for a weight (out, in, ...)."""
    return float(np.sqrt(6 / ((shape[0] + shape[1]) * np.prod(shape[2:]))))
