"""The Transformer: stacks of its layers, an encoder and a decoder."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import whole
from backhand.layers.base import Layer
from backhand.layers.multihead import xavier_bound
from backhand.layers.normalization import LayerNorm
from backhand.layers.parameter import Array
from backhand.layers.transformer import Activation, TransformerDecoderLayer, TransformerEncoderLayer

L = TypeVar("L", bound=Layer)


class _Stack(Layer):
    """What TransformerEncoder and TransformerDecoder share: copies of a layer, then a norm."""

    def __init__(self, layer: Layer, num_layers: int, norm: Layer | None) -> None:
        for each in (layer, *(() if norm is None else (norm,))):
            if not isinstance(each, Layer):
                raise TypeError(f"{type(self).__name__}: expected a Layer, got {each!r}")
        self.num_layers = whole(self, "num_layers", num_layers)
        self.layers: list[Any] = clones(layer, num_layers)
        self.norm = norm

    def __repr__(self) -> str:
        norm = "" if self.norm is None else f", {self.norm!r}"
        return f"{type(self).__name__}({self.layers[0]!r}, {self.num_layers}{norm})"


class TransformerEncoder(_Stack):
    """Layers of an encoder, one after the other, and a normalization at the end.

        y = norm(layer_n(... layer_1(src)))
        dsrc = dlayer_1(... dlayer_n(dnorm(dout)))

    src, y : as the layers take them: see TransformerEncoderLayer
    mask, src_key_padding_mask, is_causal : handed on to every layer
    encoder_layer : is copied num_layers times, so all start from the same numbers, as in torch
    norm : a Layer for the output, LayerNorm(d_model), say, or None
    enable_nested_tensor, mask_check : torch's, about its own fast path; they change nothing here
    Vaswani et al. 2017, arXiv:1706.03762, sec. 3.1
    """

    def __init__(
        self,
        encoder_layer: Layer,
        num_layers: int,
        norm: Layer | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def forward(
        self,
        src: ArrayLike,
        mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
        is_causal: bool | None = None,
    ) -> Array:
        options: dict[str, Any] = {"src_mask": mask, "src_key_padding_mask": src_key_padding_mask}
        y: Any = src
        for layer in self.layers:
            y = layer.forward(y, **options, is_causal=False if is_causal is None else is_causal)
        return y if self.norm is None else self.norm.forward(y)

    def backward(self, dout: Any) -> Array:
        if self.norm is not None:
            dout = self.norm.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class TransformerDecoder(_Stack):
    """Layers of a decoder, one after the other, each looking at the same memory, and a normalization at the end.

        y = norm(layer_n(... layer_1(tgt, memory)..., memory))
        dtgt = the dx of layer_1,    dmemory = the sum over the layers

    tgt, memory, y : as the layers take them: see TransformerDecoderLayer
    The masks and is_causal flags are handed on to every layer; decoder_layer, num_layers and norm are as in
    TransformerEncoder. backward returns (dtgt, dmemory). In the copies that PyTorch makes, an activation that is a
    module turns into relu; here the copies have the activation of the original.
    Vaswani et al. 2017, arXiv:1706.03762, sec. 3.1
    """

    def __init__(self, decoder_layer: Layer, num_layers: int, norm: Layer | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: ArrayLike,
        memory: ArrayLike,
        tgt_mask: ArrayLike | None = None,
        memory_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Array:
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        y: Any = tgt
        causal = False if tgt_is_causal is None else tgt_is_causal
        for layer in self.layers:
            y = layer.forward(y, memory, *masks, causal, memory_is_causal)
        return y if self.norm is None else self.norm.forward(y)

    def backward(self, dout: Any) -> tuple[Array, Array]:
        if self.norm is not None:
            dout = self.norm.backward(dout)
        dmemories = []
        for layer in reversed(self.layers):
            dout, dmemory = layer.backward(dout)
            dmemories.append(dmemory)
        return dout, np.asarray(sum(dmemories[1:], start=dmemories[0]))


class Transformer(Layer):
    """Encoder and decoder: one sequence in, another one out.

        memory = encoder(src),    y = decoder(tgt, memory)
        dtgt, dmemory = ddecoder(dout),    dsrc = dencoder(dmemory)

    src : (S, N, d_model)      tgt, y : (T, N, d_model); batch_first and without a batch as in the layers
    src_mask, tgt_mask, memory_mask, ..._key_padding_mask, ..._is_causal : to the encoder's self-attention, the
        decoder's, and the decoder's attention to the memory; see MultiheadAttention.
        `generate_square_subsequent_mask(T)` makes the tgt_mask that hides the future.
    custom_encoder, custom_decoder : Layers to be used instead, called as TransformerEncoder and -Decoder are here
    The other arguments are those of TransformerEncoderLayer. backward returns (dsrc, dtgt).
    Every matrix starts Xavier-uniform, as in torch. There are no embeddings, position encodings or output layer.
    Vaswani et al. 2017, arXiv:1706.03762
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Layer | None = None,
        custom_decoder: Layer | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.d_model = whole(self, "d_model", d_model)
        self.nhead = whole(self, "nhead", nhead)
        self.num_encoder_layers = num_encoder_layers
        self.num_decoder_layers = num_decoder_layers
        self.dim_feedforward = dim_feedforward
        self.dropout = dropout
        if isinstance(activation, str):  # a Layer kept here would count as one more inner layer
            self.activation = activation
        self.layer_norm_eps = layer_norm_eps
        self.batch_first = batch_first
        self.norm_first = norm_first
        self.bias = bias
        rng = np.random.default_rng(rng)
        inner = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        self.encoder: Any = custom_encoder
        if custom_encoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
            layer: Layer = TransformerEncoderLayer(*inner, rng=rng, dtype=dtype)
            self.encoder = TransformerEncoder(layer, num_encoder_layers, norm)
        self.decoder: Any = custom_decoder
        if custom_decoder is None:
            norm = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
            layer = TransformerDecoderLayer(*inner, rng=rng, dtype=dtype)
            self.decoder = TransformerDecoder(layer, num_decoder_layers, norm)
        for parameter in self.parameters():
            if parameter.data.ndim > 1:
                bound = xavier_bound(parameter.shape)
                parameter.data[...] = rng.uniform(-bound, bound, parameter.shape)

    def forward(
        self,
        src: ArrayLike,
        tgt: ArrayLike,
        src_mask: ArrayLike | None = None,
        tgt_mask: ArrayLike | None = None,
        memory_mask: ArrayLike | None = None,
        src_key_padding_mask: ArrayLike | None = None,
        tgt_key_padding_mask: ArrayLike | None = None,
        memory_key_padding_mask: ArrayLike | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Array:
        x, z = self.array(src), self.array(tgt)
        axis = 0 if self.batch_first else 1
        fits = x.ndim == z.ndim in (2, 3) and x.shape[-1] == z.shape[-1] == self.d_model
        if not fits or (x.ndim == 3 and x.shape[axis] != z.shape[axis]):
            axes = "(N, {}, {})" if self.batch_first else "({}, N, {})"
            wanted = " and ".join(axes.format(size, self.d_model) for size in "ST")
            self.reject(f"src and tgt of shapes {wanted}, or both without N", f"{x.shape} and {z.shape}")
        memory = self.encoder.forward(
            x, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder.forward(
            z,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dtgt, dmemory = self.decoder.backward(dout)
        return self.encoder.backward(dmemory), dtgt

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: DTypeLike = np.float32) -> Array:
        """The mask (sz, sz) that hides the future: 0 where column <= row, -inf after it."""
        return np.where(np.tri(sz) > 0, 0, -np.inf).astype(dtype)


# ---------------------------------------------------------------------- what they need


def clones(layer: L, n: int) -> list[L]:
    """As many copies of a layer, each with parameters of its own; they share its random generators.

    Copied generators would make every layer drop the same units.
    """
    generators = {
        id(g): g for each in layer.modules() for g in vars(each).values() if isinstance(g, np.random.Generator)
    }
    copies = [copy.deepcopy(layer, dict(generators)) for _ in range(n)]
    for each in copies:
        each.zero_grad()
    return copies
