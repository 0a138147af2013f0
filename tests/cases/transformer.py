"""The Transformer's layers, stacks and the whole of it: every argument, masks, layouts."""

import itertools

import numpy as np

from backhand.layers import (
    LayerNorm,
    Tanh,
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from tests.cases import Case
from tests.cases.attention import flags, numbers

D, HEADS, WIDE = 4, 2, 5  # d_model, nhead, dim_feedforward
N, S, T = 2, 3, 4
SIZES = {"d_model": D, "nhead": HEADS, "dim_feedforward": WIDE}


def shape(length, batch_first, batched=True):
    if not batched:
        return (length, D)
    return (N, length, D) if batch_first else (length, N, D)


def square(n):
    return Transformer.generate_square_subsequent_mask(n, np.float64)


SRC_MASKS = [
    {},
    {"src_mask": flags(S, S)},
    {"src_mask": numbers(N * HEADS, S, S), "src_key_padding_mask": flags(N, S)},
    {"src_mask": square(S), "is_causal": True},
    {"src_mask": np.ones((S, S), bool)},  # nobody may attend to anything
]
TGT_MASKS = [
    {},
    {"tgt_mask": square(T), "tgt_is_causal": True, "memory_key_padding_mask": flags(N, S)},
    {"tgt_mask": flags(T, T), "tgt_key_padding_mask": flags(N, T), "memory_mask": numbers(N * HEADS, T, S)},
    {"memory_mask": ~np.tri(T, S, dtype=bool), "memory_is_causal": True},
]


def layers(cls, lengths, masks):
    """A layer with every argument, with and without a batch."""
    choices = itertools.product(["relu", "gelu", Tanh], [True, False], [True, False], [True, False], masks)
    for activation, batch_first, norm_first, bias, options in choices:
        if activation is Tanh and options:
            continue
        kwargs = {
            **SIZES,
            "dropout": 0.0,
            "activation": activation,
            "layer_norm_eps": 1e-5 if batch_first == bias else 0.1,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
        }
        inputs = [shape(n, batch_first) for n in lengths]
        yield Case(cls, (), inputs, kwargs=kwargs, options=options, eval=bias)
        if not options:
            yield Case(cls, (), [shape(n, batch_first, False) for n in lengths], kwargs=kwargs)


def encoder(**kwargs):
    return TransformerEncoderLayer(D, HEADS, WIDE, rng=0, dtype=np.float64, **{"dropout": 0.0, **kwargs})


def decoder(**kwargs):
    return TransformerDecoderLayer(D, HEADS, WIDE, rng=0, dtype=np.float64, **{"dropout": 0.0, **kwargs})


def whole(inputs, options=None, **kwargs):
    sizes = {**SIZES, "num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.0}
    return Case(Transformer, (), inputs, kwargs={**sizes, **kwargs}, options=options or {})


CASES = [
    Case(TransformerEncoderLayer, (D, HEADS, WIDE), [shape(S, False)], kwargs={"activation": Tanh}, torch=False),
    Case(
        TransformerEncoderLayer,
        (D, HEADS, WIDE, 0.0, Tanh()),
        [shape(S, False)],
        kwargs={"norm_first": True},
        torch=False,
    ),
    Case(
        TransformerDecoderLayer,
        (D, HEADS, WIDE),
        [shape(T, False), shape(S, False)],
        kwargs={"activation": Tanh},
        torch=False,
    ),
    Case(
        TransformerDecoderLayer,
        (D, HEADS, WIDE, 0.0, Tanh),
        [shape(T, True), shape(S, True)],
        kwargs={"norm_first": True, "batch_first": True},
        torch=False,
    ),
    Case(TransformerEncoder, lambda: (encoder(activation=Tanh), 2, LayerNorm(D)), [shape(S, False)], torch=False),
    Case(
        TransformerEncoder,
        lambda: (encoder(activation=Tanh, dropout=0.5), 2),
        [shape(S, False)],
        torch=False,
    ),
    Case(
        TransformerDecoder,
        lambda: (decoder(activation=Tanh), 2, LayerNorm(D)),
        [shape(T, False), shape(S, False)],
        torch=False,
    ),
    Case(
        Transformer,
        (D, HEADS, 1, 1, WIDE),
        [shape(S, True), shape(T, True)],
        kwargs={"activation": Tanh, "batch_first": True},
        torch=False,
    ),
]

GRID = [
    *layers(TransformerEncoderLayer, [S], SRC_MASKS),
    *layers(TransformerDecoderLayer, [T, S], TGT_MASKS),
    *(
        Case(
            TransformerEncoder,
            lambda norm=norm, first=first, last=last: (
                encoder(norm_first=first, batch_first=last),
                2,
                norm and norm(D),
            ),
            [shape(S, last)],
            options=options,
        )
        for norm, first, last in itertools.product([None, LayerNorm], [True, False], [True, False])
        for options in [{}, {"mask": square(S)}, {"mask": flags(S, S), "src_key_padding_mask": flags(N, S)}]
    ),
    *(
        Case(
            TransformerDecoder,
            lambda norm=norm, first=first, last=last: (
                decoder(norm_first=first, batch_first=last),
                2,
                norm and norm(D),
            ),
            [shape(T, last), shape(S, last)],
            options=options,
        )
        for norm, first, last in itertools.product([None, LayerNorm], [True, False], [True, False])
        for options in TGT_MASKS
    ),
    *(
        whole([shape(S, last, batched), shape(T, last, batched)], batch_first=last, norm_first=first, bias=bias)
        for last, first, bias, batched in itertools.product([True, False], repeat=4)
    ),
    *(
        whole([shape(S, False), shape(T, False)], {**options, **more}, activation=activation, layer_norm_eps=0.01)
        for options in TGT_MASKS
        for more in [{}, {"src_mask": flags(S, S)}, {"src_mask": square(S), "src_is_causal": True}]
        for activation in ("relu", "gelu")
    ),
    whole([shape(S, False), shape(T, False)], num_encoder_layers=1, num_decoder_layers=3),
]
