"""The layers of a Transformer: attention and small feed-forward nets, each with a way around it and a normalization.

All of it is one step, used again and again, with f an attention or a feed-forward net:

    y = norm(x + f(x))        (as published),        or        y = x + f(norm(x))        (norm_first)

x reaches the loss by f and by the way around it, so its gradient is the sum of the two:

    d = dnorm(dy),  dx = d + df(d)                   or        dx = dy + dnorm(df(dy))

With norm_first the way around is free from the first layer to the last: dy arrives at the bottom as it is, which is
why deep stacks of them train without a warm-up (Xiong et al. 2020, arXiv:2002.04745).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import refuse
from backhand.layers.base import Layer
from backhand.layers.dropout import Dropout
from backhand.layers.gated import GELU
from backhand.layers.linear import Linear
from backhand.layers.memory import empty_like
from backhand.layers.multihead import MultiheadAttention
from backhand.layers.normalization import LayerNorm
from backhand.layers.parameter import Array
from backhand.layers.rectifiers import ReLU

Activation = str | Layer | Callable[..., Any]


class _TransformerLayer(Layer):
    """What the layer of the encoder and that of the decoder share: the step, self-attention, the feed-forward net."""

    blocks: int  # how many steps, each with a norm and a dropout of its own
    self_attn: MultiheadAttention
    norm1: LayerNorm
    norm2: LayerNorm
    dropout1: Dropout
    dropout2: Dropout

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        rng = np.random.default_rng(rng)
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        self.norm_first = norm_first
        for name in ("self_attn", "multihead_attn")[: self.blocks - 1]:
            attention = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, rng=rng, dtype=dtype)
            setattr(self, name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, rng=rng, dtype=dtype)
        self.dropout = Dropout(dropout, rng=rng)
        self.linear2 = Linear(dim_feedforward, d_model, bias, rng=rng, dtype=dtype)
        for i in range(1, self.blocks + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))
        for i in range(1, self.blocks + 1):
            setattr(self, f"dropout{i}", Dropout(dropout, rng=rng))
        self.activation = activation_layer(self, activation)

    # ------------------------------------------------------------------ the step, and its derivative

    def step(self, norm: Layer, x: Array, f: Callable[[Array], Array]) -> Array:
        """norm(x + f(x)), or x + f(norm(x))."""
        return _sum(x, f(norm.forward(x))) if self.norm_first else norm.forward(_sum(x, f(x)))

    def step_back(self, norm: Layer, dy: Array, df: Callable[[Array], Array]) -> Array:
        """dx from dy; df is the backward of f."""
        if self.norm_first:
            return _sum(dy, norm.backward(df(dy)))
        d = norm.backward(dy)
        return _sum(d, df(d))

    # ------------------------------------------------------------------ what stands in for f

    def attend(self, mask: Any, padding: Any, is_causal: bool) -> Callable[[Array], Array]:
        """Self-attention with these masks: query, key and value are all x."""

        def f(x: Array) -> Array:
            return self.dropout1.forward(self.self_attn.forward(x, x, x, padding, False, mask, is_causal=is_causal))

        return f

    def attend_back(self, dy: Array) -> Array:
        """Its backward: x went in three times, and what was copied, adds."""
        dquery, dkey, dvalue = self.self_attn.backward(self.dropout1.backward(dy))
        return _sum(_sum(dquery, dkey), dvalue)

    def feed_forward(self, x: Array) -> Array:
        """Two linear maps with an activation between them, the same for every place in the sequence."""
        for layer in self._net():
            x = layer.forward(x)
        return x

    def feed_forward_back(self, dy: Array) -> Array:
        """Its backward."""
        for layer in reversed(self._net()):
            dy = layer.backward(dy)
        return dy

    def _net(self) -> list[Layer]:
        last: Layer = getattr(self, f"dropout{self.blocks}")
        return [self.linear1, self.activation, self.dropout, self.linear2, last]

    def __repr__(self) -> str:
        activation = self.activation
        name = type(activation).__name__.lower()
        given = {
            "dim_feedforward": (self.linear1.out_features, 2048),
            "dropout": (self.dropout.p, 0.1),
            "activation": (name if name in ("relu", "gelu") else activation, "relu"),
            "layer_norm_eps": (self.norm1.eps, 1e-5),
            "batch_first": (self.batch_first, False),
            "norm_first": (self.norm_first, False),
            "bias": (self.linear1.bias is not None, True),
        }
        options = [f", {name}={value!r}" for name, (value, default) in given.items() if value != default]
        return f"{type(self).__name__}({self.d_model}, {self.nhead}{''.join(options)})"


def _sum(a: Array, b: Array) -> Array:
    return np.add(a, b, out=empty_like(a))


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention, then a feed-forward net, each with a way around it.

        a = norm1(x + attention(x, x, x)),        y = norm2(a + net(a)),        or, with norm_first,
        a = x + attention(n, n, n), n = norm1(x),        y = a + net(norm2(a))
        net(a) = linear2(activation(linear1(a)))        (the backward: the head of this file)

    src, y : (S, N, d_model); (N, S, d_model) with batch_first; or (S, d_model)
    src_mask, src_key_padding_mask, is_causal : the attn_mask, key_padding_mask, is_causal of MultiheadAttention
    nhead : heads of the attention      dim_feedforward : the width between linear1 and linear2
    dropout : on the weights of the attention, on what both steps add, and inside the net
    activation : "relu", "gelu", a Layer, or a class of them (a function called relu or gelu counts as its name)
    norm_first : normalise what goes into a step, not what comes out
    layer_norm_eps, bias : the eps of the norms; whether norms, attention and linear maps have biases
    Inside: self_attn (whose attention_map is there for drawing), linear1, linear2, norm1, norm2
    Vaswani et al. 2017, arXiv:1706.03762, fig. 1; norm_first: Xiong et al. 2020, arXiv:2002.04745, fig. 1
    """

    blocks = 2

    def forward(
        self,
        src: ArrayLike,
        src_mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
        is_causal: bool = False,
    ) -> Array:
        x = self.input(src, self.linear1.weight.dtype)
        x = self.step(self.norm1, x, self.attend(src_mask, src_key_padding_mask, is_causal))
        x = self.step(self.norm2, x, self.feed_forward)
        self.save(out=x)
        return x

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        self.saved()
        dout = self.step_back(self.norm2, dout, self.feed_forward_back)
        return self.step_back(self.norm1, dout, self.attend_back)


class TransformerDecoderLayer(_TransformerLayer):
    """Self-attention, attention to what the encoder made, then a feed-forward net, each with a way around it.

        a = norm1(x + attention(x, x, x)),    b = norm2(a + attention(a, memory, memory)),    y = norm3(b + net(b))
        norm_first: each norm moves to what goes into its step, as in TransformerEncoderLayer
        dmemory = dkey + dvalue of the second attention        (the rest: the head of this file)

    tgt, y : (T, N, d_model)      memory : (S, N, d_model); batch_first and without a batch as in the encoder's layer
    tgt_mask, tgt_key_padding_mask, tgt_is_causal : attn_mask, key_padding_mask, is_causal of the self-attention
    memory_mask, memory_key_padding_mask, memory_is_causal : those of the attention to the memory
    The arguments are those of TransformerEncoderLayer. backward returns (dtgt, dmemory).
    Inside: self_attn, multihead_attn, linear1, linear2, norm1, norm2, norm3
    Vaswani et al. 2017, arXiv:1706.03762, fig. 1
    """

    blocks = 3
    multihead_attn: MultiheadAttention
    norm3: LayerNorm

    def forward(
        self,
        tgt: ArrayLike,
        memory: ArrayLike,
        tgt_mask: ArrayLike | None = None,
        memory_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Array:
        x, m = (self.input(each, self.linear1.weight.dtype) for each in (tgt, memory))

        def attend_to_memory(x: Array) -> Array:
            padding, mask, causal = memory_key_padding_mask, memory_mask, memory_is_causal
            return self.dropout2.forward(self.multihead_attn.forward(x, m, m, padding, False, mask, is_causal=causal))

        x = self.step(self.norm1, x, self.attend(tgt_mask, tgt_key_padding_mask, tgt_is_causal))
        x = self.step(self.norm2, x, attend_to_memory)
        x = self.step(self.norm3, x, self.feed_forward)
        self.save(out=x)
        return x

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dout = self.upstream(dout)
        self.saved()
        dmemory = None

        def attend_to_memory_back(dy: Array) -> Array:
            nonlocal dmemory
            dquery, dkey, dvalue = self.multihead_attn.backward(self.dropout2.backward(dy))
            dmemory = dkey + dvalue
            return dquery

        dout = self.step_back(self.norm3, dout, self.feed_forward_back)
        dout = self.step_back(self.norm2, dout, attend_to_memory_back)
        return self.step_back(self.norm1, dout, self.attend_back), np.asarray(dmemory)


def activation_layer(owner: Layer, activation: Activation) -> Layer:
    """The Layer that an activation argument means: a name, a Layer, or what makes one."""
    if isinstance(activation, Layer):
        return activation
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", "")
    if name in ("relu", "gelu"):
        made: Any = ReLU() if name == "relu" else GELU()
    else:
        made = activation() if callable(activation) and not isinstance(activation, str) else None
    if not isinstance(made, Layer):
        wanted = "'relu', 'gelu', a Layer or a class of them"
        refuse(owner, f"activation to be {wanted}", activation)
    return made
