"""Lookup tables, attention and the Transformer with drawn shapes and arguments: torch's numbers, or torch's refusal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhand.layers import (
    Embedding,
    EmbeddingBag,
    LayerNorm,
    MultiheadAttention,
    ScaledDotProductAttention,
    Tanh,
    Transformer,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from tests.cases import Case
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]
torch = need("torch")

from tests import parity  # noqa: E402  (needs torch)

small = st.integers(1, 4)
flag = st.booleans()
DEEP = 1e-7  # each norm may multiply rounding by 1/sqrt(eps) = 316
REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError)


def draws(n):
    return settings(max_examples=n, deadline=None, derandomize=True, database=None)


def generator(draw):
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def mask_of(draw, *shapes):
    """None, booleans or numbers of one of these shapes; sometimes all True, which leaves nothing to attend to."""
    kind = draw(st.sampled_from(["none", "bool", "float", "lowest", "all"]))
    if kind == "none":
        return None
    rng, shape = generator(draw), draw(st.sampled_from(shapes))
    if kind == "float":
        return rng.standard_normal(shape)
    mask = rng.random(shape) < (0.4 if kind != "all" else 1)
    return np.where(mask, -np.inf, rng.standard_normal(shape)) if kind == "lowest" else mask


def table(draw, **more):
    size, width = draw(st.integers(1, 8)), draw(small)
    kwargs = {
        "padding_idx": draw(st.one_of(st.none(), st.integers(-size, size - 1))),
        "max_norm": draw(st.sampled_from([None, None, 0.0, 0.5, 1.0, 3.0])),
        "norm_type": draw(st.sampled_from([2.0, 1.0, 0.5, 3.0, np.inf])),
        **more,
    }
    return size, width, kwargs


@draws(200)
@given(data=st.data())
def test_any_embedding(data):
    draw = data.draw
    size, width, kwargs = table(draw, scale_grad_by_freq=draw(flag))
    shape = draw(st.lists(small, max_size=3).map(tuple))
    parity.drawn(Case(Embedding, (size, width), [generator(draw).integers(0, size, shape)], kwargs=kwargs))


@draws(200)
@given(data=st.data())
def test_any_bag(data):
    draw = data.draw
    size, width, kwargs = table(draw, mode=draw(st.sampled_from(["sum", "mean", "max"])))
    rng = generator(draw)
    if draw(flag):
        inputs = [rng.integers(0, size, (draw(small), draw(small)))]
    else:
        n = draw(st.integers(1, 9))
        starts = [0, *sorted(draw(st.lists(st.integers(0, n), max_size=4)))]
        kwargs["include_last_offset"] = draw(flag)
        inputs = [rng.integers(0, size, n), np.array([*starts, n] if kwargs["include_last_offset"] else starts)]
    parity.drawn(Case(EmbeddingBag, (size, width), inputs, kwargs=kwargs))


@draws(250)
@given(data=st.data())
def test_any_multihead_attention(data):
    draw = data.draw
    n, length, source, heads = draw(small), draw(small), draw(small), draw(st.integers(1, 3))
    e = heads * draw(st.integers(1, 3))
    kdim, vdim = (draw(st.sampled_from([None, None, 1, 5])) for _ in range(2))
    kwargs = {"kdim": kdim, "vdim": vdim, "batch_first": draw(flag)}
    for name in ("bias", "add_bias_kv", "add_zero_attn"):
        kwargs[name] = draw(flag)
    batched = draw(flag)
    shapes = [(length, e), (source, kdim or e), (source, vdim or e)]
    if batched:
        shapes = [(n, *s) if kwargs["batch_first"] else (s[0], n, s[1]) for s in shapes]
    options = {
        "attn_mask": mask_of(draw, (length, source), ((n if batched else 1) * heads, length, source)),
        "key_padding_mask": mask_of(draw, (n, source) if batched else (source,)),
        "need_weights": draw(flag),
        "average_attn_weights": draw(flag),
    }
    parity.drawn(Case(MultiheadAttention, (e, heads), shapes, kwargs=kwargs, options=options, eval=draw(flag)))


@draws(100)
@given(data=st.data())
def test_what_torch_refuses_we_refuse(data):
    """Shapes that fit by chance only."""
    draw = data.draw
    near = st.integers(2, 3)
    arguments = (draw(st.sampled_from([4, 6])), 2)
    kwargs = {"batch_first": draw(flag), "kdim": draw(st.sampled_from([None, 3]))}
    shapes = [draw(st.lists(near, min_size=1, max_size=2).map(tuple)) for _ in range(3)]
    widths = (arguments[0], kwargs["kdim"] or arguments[0], arguments[0])
    inputs = [np.ones((*s, draw(st.sampled_from([w, w, w, 3])))) for s, w in zip(shapes, widths, strict=True)]
    options = {}
    if draw(flag):
        options["attn_mask"] = np.zeros(draw(st.lists(near, min_size=1, max_size=3).map(tuple)), bool)
    if draw(flag):
        options["key_padding_mask"] = np.zeros(draw(st.lists(near, min_size=1, max_size=2).map(tuple)), bool)
    case = Case(MultiheadAttention, arguments, inputs, kwargs=kwargs, options=options)
    try:
        parity.twin(case)(
            *(torch.from_numpy(x) for x in inputs), **{k: torch.from_numpy(m) for k, m in options.items()}
        )
    except REFUSALS:
        with pytest.raises(ValueError, match="expected"):
            case.build()(*inputs, **options)
    else:
        parity.drawn(case)


@draws(150)
@given(data=st.data())
def test_any_plain_attention(data):
    draw = data.draw
    length, source, width, wide = draw(small), draw(small), draw(small), draw(small)
    rng = generator(draw)
    grouped = draw(flag)
    if grouped:
        heads, n = draw(st.integers(1, 2)), draw(small)
        leading = [(n, heads * draw(st.integers(1, 3))), (n, heads), (n, heads)]
    else:
        full = draw(st.lists(small, min_size=2, max_size=2).map(tuple))
        leading = [tuple(draw(st.sampled_from([k, k, 1])) for k in full) for _ in range(3)]
    sizes = [(length, width), (source, width), (source, wide)]
    q, k, v = (rng.standard_normal((*lead, *size)) for lead, size in zip(leading, sizes, strict=True))
    options = {"enable_gqa": grouped, "scale": draw(st.sampled_from([None, 0.5, 2.0]))}
    mask = mask_of(draw, (length, source), (1, source), (1, 1, length, 1))
    if mask is None:
        options["is_causal"] = draw(flag)
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *tensors, None if mask is None else torch.from_numpy(mask), **options
    )
    layer = ScaledDotProductAttention(**options)
    parity.TRIED["ScaledDotProductAttention"] += 1
    parity.same("forward", layer(q, k, v, mask), wanted, parity.TOLERANCE)
    dout = rng.standard_normal(wanted.shape)
    wanted.backward(torch.from_numpy(dout))
    for name, ours, theirs in zip("qkv", layer.backward(dout), tensors, strict=True):
        parity.same(f"d{name}", ours, theirs.grad, parity.TOLERANCE)
    parity.COUNTS["ScaledDotProductAttention"] += 1
    parity.DRAWN["ScaledDotProductAttention"] += 1


def sizes_and_flags(draw):
    # vectors of one or two numbers are all alike once they are normalised: rounding is all that would be compared
    width, heads = draw(st.sampled_from([(3, 1), (3, 3), (4, 2), (6, 2), (6, 3)]))
    kwargs = {
        "d_model": width,
        "nhead": heads,
        "dim_feedforward": draw(small),
        "dropout": 0.0,
        "activation": draw(st.sampled_from(["relu", "gelu", Tanh])),
        "layer_norm_eps": draw(st.sampled_from([1e-5, 0.1])),
    }
    for name in ("batch_first", "norm_first", "bias"):
        kwargs[name] = draw(flag)
    return kwargs


def sequences(draw, kwargs, *lengths):
    """The shapes of sequences of these lengths, and how many of them there are (0: no batch)."""
    n, d = draw(st.integers(0, 3)), kwargs["d_model"]
    if n == 0:
        return n, [(length, d) for length in lengths]
    return n, [(n, length, d) if kwargs["batch_first"] else (length, n, d) for length in lengths]


def masks(draw, n, heads, **pairs):
    """A mask, a padding mask or none of them for each pair of lengths, under torch's names."""
    options = {}
    for name, (length, source) in pairs.items():
        options[f"{name}_mask"] = mask_of(draw, (length, source), (max(n, 1) * heads, length, source))
        options[f"{name}_key_padding_mask"] = mask_of(draw, (n, source) if n else (source,))
    return options


@draws(100)
@given(data=st.data())
def test_any_encoder(data):
    draw = data.draw
    kwargs, source = sizes_and_flags(draw), draw(small)
    n, shapes = sequences(draw, kwargs, source)
    options = masks(draw, n, kwargs["nhead"], src=(source, source))
    if draw(flag):
        case = Case(TransformerEncoderLayer, (), shapes, kwargs=kwargs, options=options, eval=draw(flag))
        parity.drawn(case, DEEP)
        return
    options["mask"] = options.pop("src_mask")
    norm = draw(st.sampled_from([None, LayerNorm]))

    def arguments():
        layer = TransformerEncoderLayer(**kwargs, rng=0, dtype=np.float64)
        return layer, 2, norm and norm(kwargs["d_model"], dtype=np.float64)

    parity.drawn(Case(TransformerEncoder, arguments, shapes, options=options), DEEP)


@draws(100)
@given(data=st.data())
def test_any_decoder_and_transformer(data):
    draw = data.draw
    kwargs, source, target = sizes_and_flags(draw), draw(small), draw(small)
    n, shapes = sequences(draw, kwargs, source, target)
    options = masks(draw, n, kwargs["nhead"], tgt=(target, target), memory=(target, source))
    if draw(flag):
        case = Case(TransformerDecoderLayer, (), shapes[::-1], kwargs=kwargs, options=options, eval=draw(flag))
    else:
        options |= masks(draw, n, kwargs["nhead"], src=(source, source))
        if kwargs["activation"] is Tanh:  # the docstring of TransformerDecoder says why
            kwargs["activation"] = "gelu"
        kwargs |= {"num_encoder_layers": draw(st.integers(1, 2)), "num_decoder_layers": draw(st.integers(1, 2))}
        case = Case(Transformer, (), shapes, kwargs=kwargs, options=options)
    parity.drawn(case, DEEP)
