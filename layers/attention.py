"""Attention: every query takes a weighted mean of the values, the weights being how well it matches each key.

`ScaledDotProductAttention` is the whole idea, with its derivative; `MultiheadAttention` puts learned projections
around it, and runs several of it side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.base import Array, Layer, Parameter, all_or_nothing, uniform, whole, within
from backhand.layers.gates import unbroadcast
from backhand.layers.linear import Linear


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
        try:
            np.broadcast_shapes(q[:-2], k[:-2], v[:-2])
        except ValueError:
            self.reject(wanted, got)
        return repeats

    def _mask(self, attn_mask: ArrayLike | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """What is added to the scores, which have this shape."""
        if self.is_causal:
            if attn_mask is not None:
                self.reject("no attn_mask with is_causal=True", "one")
            return additive(self, "attn_mask", ~np.tri(*shape[-2:], dtype=bool), dtype)
        if attn_mask is None:
            return None
        given = np.asarray(attn_mask)
        mask = additive(self, "attn_mask", ~given if given.dtype == bool else given, dtype)
        if not broadcasts_to(mask.shape, shape):
            self.reject(f"attn_mask that broadcasts to {shape}", mask.shape)
        return mask


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
            raise ValueError(f"{type(self).__name__}: expected embed_dim a multiple of num_heads, got {e}, {num_heads}")
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

    @all_or_nothing
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
        if is_causal and attn_mask is None:
            self.reject("the attn_mask that is_causal=True tells of", "none")
        inputs = [self._batch_first(x, batched) for x in inputs]
        mask = self._mask(key_padding_mask, attn_mask, batched, inputs)
        projected = []
        for x, weight, bias in zip(inputs, *self._in_projections("data"), strict=True):
            z = x @ weight.T
            if bias is not None:
                z += bias
            projected.append(z)
        q, k, v = projected
        if self.bias_k is not None and self.bias_v is not None:
            k, v = with_one_more(k, self.bias_k.data), with_one_more(v, self.bias_v.data)
        if self.add_zero_attn:
            k, v = (with_one_more(x, np.zeros((1, 1, 1), dtype)) for x in (k, v))
        heads = self.attention.forward(*(self._split(x) for x in (q, k, v)), mask, np.nan if need_weights else 0.0)
        y = self._as_given(self.out_proj.forward(self._join(heads)), batched)
        self._leave_map(batched, need_weights and average_attn_weights)
        self.save(inputs, batched, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array, Array]:
        dout = self.upstream(dout)
        inputs, batched = self.saved()
        dheads = self._split(self.out_proj.backward(self._batch_first(dout, batched)))
        dq, dk, dv = (self._join(d) for d in self.attention.backward(dheads))
        if self.add_zero_attn:
            dk, dv = dk[:, :-1], dv[:, :-1]
        if self.bias_k is not None and self.bias_v is not None:
            self.bias_k.grad += dk[:, -1].sum(axis=0)
            self.bias_v.grad += dv[:, -1].sum(axis=0)
            dk, dv = dk[:, :-1], dv[:, :-1]
        gradients = []
        weights, _ = self._in_projections("data")
        dweights, dbiases = self._in_projections("grad")  # views: what is added arrives in the parameters
        for x, dz, weight, dweight, dbias in zip(inputs, (dq, dk, dv), weights, dweights, dbiases, strict=True):
            drows = dz.reshape(-1, self.embed_dim)
            dweight += drows.T @ x.reshape(-1, x.shape[-1])
            if dbias is not None:
                dbias += drows.sum(axis=0)
            gradients.append(self._as_given(dz @ weight, batched))
        dquery, dkey, dvalue = gradients
        return dquery, dkey, dvalue

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
        (n, length, _), source = inputs[0].shape, inputs[1].shape[1]
        mask = None
        if attn is not None:
            mask = additive(self, "attn_mask", attn, dtype)
            shape = (n * self.num_heads, length, source)
            if mask.shape not in (shape, shape[1:]):
                self.reject(f"attn_mask of shape {shape[1:]} or {shape}", mask.shape)
            mask = mask.reshape(-1 if mask.ndim == 2 else n, 1 if mask.ndim == 2 else self.num_heads, length, source)
        if key_padding is not None:
            padding = additive(self, "key_padding_mask", key_padding, dtype)
            shape = (n, source) if batched else (source,)
            if padding.shape != shape:
                self.reject(f"key_padding_mask of shape {shape}", padding.shape)
            padding = padding.reshape(n, 1, 1, source)
            with np.errstate(over="ignore"):
                mask = padding if mask is None else mask + padding
        more = self.add_bias_kv + self.add_zero_attn
        if mask is not None and more:  # what is added to the keys may be attended to
            mask = np.concatenate([mask, np.zeros((*mask.shape[:-1], more), dtype)], axis=-1)
        return mask

    def _leave_map(self, batched: bool, average: bool) -> None:
        weights = self.attention.attention_map
        if weights is None:
            return
        if average:
            weights = weights.mean(axis=1)
            weights.flags.writeable = False
        self.attention_map = weights if batched else weights[0]


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


def broadcasts_to(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether an array of `shape` broadcasts to `full` without making it larger."""
    try:
        return np.broadcast_shapes(shape, full) == full
    except ValueError:
        return False


def with_one_more(x: Array, last: Array) -> Array:
    """x (N, S, E) with `last`, which broadcasts to (N, 1, E), as one more vector of each sequence."""
    return np.concatenate([x, np.broadcast_to(last, (x.shape[0], 1, x.shape[2]))], axis=1)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> Parameter:
    """A Parameter (out, in, ...) drawn from U(-a, a), a = sqrt(6 / (in + out)): Glorot & Bengio 2010."""
    return uniform(rng, xavier_bound(shape), shape, dtype)


def xavier_bound(shape: tuple[int, ...]) -> float:
    """The a of Xavier's uniform distribution for a weight (out, in, ...)."""
    return float(np.sqrt(6 / ((shape[0] + shape[1]) * np.prod(shape[2:]))))
