"""Attention: shapes, masks of both kinds, and every argument of MultiheadAttention."""

import itertools

import numpy as np

from backhand.layers import MultiheadAttention, ScaledDotProductAttention
from tests.cases import Case

N, L, S, E, HEADS = 3, 4, 5, 6, 2


def numbers(*shape, seed=5):
    return np.random.default_rng(seed).standard_normal(shape)


def flags(*shape, seed=5):
    """True for about a third, and never for the first along the last axis."""
    mask = np.random.default_rng(seed).random(shape) < 0.35
    mask[..., 0] = False
    return mask


DEAD = flags(L, S)
DEAD[2] = True  # a query that may attend to nothing
CAUSAL = ~np.tri(L, S, dtype=bool)
LOWEST = np.where(flags(N * HEADS, L, S), np.finfo(np.float64).min, 0)

# a name for each kind of mask: what goes into forward with a batch
MASKS = {
    "none": {},
    "padding": {"key_padding_mask": flags(N, S)},
    "padding float": {"key_padding_mask": numbers(N, S)},
    "one": {"attn_mask": flags(L, S)},
    "one float": {"attn_mask": numbers(L, S)},
    "each": {"attn_mask": flags(N * HEADS, L, S)},
    "each float": {"attn_mask": LOWEST},
    "both": {"attn_mask": flags(L, S), "key_padding_mask": flags(N, S, seed=6)},
    "both float": {"attn_mask": numbers(N * HEADS, L, S), "key_padding_mask": numbers(N, S, seed=6)},
    "mixed": {"attn_mask": flags(N * HEADS, L, S), "key_padding_mask": numbers(N, S)},
    "causal": {"attn_mask": CAUSAL, "is_causal": True},
    "dead": {"attn_mask": DEAD},
}


def shapes(batch_first, kdim=E, vdim=E, n=N):
    sizes = (L, E), (S, kdim), (S, vdim)
    return [(n, length, size) if batch_first else (length, n, size) for length, size in sizes]


def rows():
    """Every kind of mask with the arguments that change the keys, in both layouts."""
    arguments = itertools.product([True, False], [True, False], [True, False], [(E, E), (3, E), (7, 5)], MASKS)
    for batch_first, more, bias, (kdim, vdim), mask in arguments:
        kwargs = {"batch_first": batch_first, "add_bias_kv": more, "bias": bias, "kdim": kdim, "vdim": vdim}
        kwargs["add_zero_attn"] = more == bias  # with and without the others
        # torch takes is_causal for the mask then, and forgets the keys that are added
        weights = bias or (mask == "causal" and (more or kwargs["add_zero_attn"]))
        options = {**MASKS[mask], "need_weights": weights}
        yield Case(MultiheadAttention, (E, HEADS), shapes(batch_first, kdim, vdim), kwargs=kwargs, options=options)


CASES = [
    Case(ScaledDotProductAttention, (), [(2, 4, 3), (2, 5, 3), (2, 5, 2)]),
    Case(ScaledDotProductAttention, (0.3,), [(2, 4, 3), (2, 5, 3), (2, 5, 2)]),
    Case(ScaledDotProductAttention, (), [(4, 3), (2, 5, 3), (3, 1, 5, 2)], kwargs={"scale": 2.0}),
    Case(ScaledDotProductAttention, (), [(2, 4, 3), (2, 4, 3), (2, 4, 3)], kwargs={"is_causal": True}),
    Case(ScaledDotProductAttention, (), [(2, 4, 3, 2), (2, 2, 5, 2), (2, 2, 5, 3)], kwargs={"enable_gqa": True}),
    Case(MultiheadAttention, (E, HEADS), shapes(False)),
    Case(MultiheadAttention, (E, 3), [(L, E), (S, E), (S, E)]),
    Case(MultiheadAttention, (E, HEADS, 0.4), [*shapes(False, 7, 5)], kwargs={"kdim": 7, "vdim": 5}, torch=False),
    Case(MultiheadAttention, (E, HEADS), shapes(True), kwargs={"batch_first": True, "add_bias_kv": True}),
    Case(MultiheadAttention, (E, HEADS, 0.4), shapes(False), eval=True),
]

GRID = [
    *rows(),
    *(
        Case(MultiheadAttention, (E, heads), [(L, E), (S, E), (S, E)], kwargs=kwargs, options=options)
        for heads, kwargs, options in itertools.product(
            [1, 2, 6],
            [{}, {"batch_first": True}, {"add_bias_kv": True}, {"add_zero_attn": True, "bias": False}],
            [{}, {"need_weights": False}, {"attn_mask": flags(L, S)}, {"key_padding_mask": flags(S)}],
        )
    ),
    *(
        Case(MultiheadAttention, (E, HEADS), [(L, E), (S, E), (S, E)], options={"attn_mask": mask(HEADS, L, S)})
        for mask in (flags, numbers)
    ),
    *(
        Case(MultiheadAttention, (E, HEADS, p), shapes(False), eval=p < 1, options={"average_attn_weights": average})
        for p in (0.0, 0.5, 1.0)
        for average in (True, False)
    ),
    Case(MultiheadAttention, (1, 1), [(1, 1, 1)] * 3),
    Case(MultiheadAttention, (2, 1), [np.full((2, 1, 2), 1e4)] * 3),
]
