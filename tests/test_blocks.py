"""What goes block by block or in an order of its own, beside the plain versions: shapes, strides, dtypes, threads."""

import numpy as np
import pytest

from backhand.layers import (
    GELU,
    LayerNorm,
    LogSoftmax,
    Mish,
    MultiheadAttention,
    RMSNorm,
    ScaledDotProductAttention,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    multihead,
)
from backhand.layers.blocks import BLOCK, WORTH, flat, in_blocks, row_dots, without_gaps
from backhand.layers.memory import empty_like
from backhand.layers.threads import get_num_threads, set_num_threads
from tests.plain import transformer as plain

RNG = np.random.default_rng(7)
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
DTYPES = sorted(TOLERANCE, key=str)

# Arrays whose memory is laid out in many ways, the last two larger than a block.
LAYOUTS = {
    "a number": lambda draw: draw(()),
    "a vector": lambda draw: draw(5),
    "a table": lambda draw: draw((3, 7)),
    "columns": lambda draw: draw((7, 3)).T,
    "axes about": lambda draw: draw((2, 3, 4, 5)).transpose(0, 3, 1, 2),
    "with gaps": lambda draw: draw((6, 10))[::2, ::3],
    "backwards": lambda draw: draw((6, 10))[:, ::-1],
    "repeated": lambda draw: np.broadcast_to(draw((4, 1, 3)), (4, 5, 3)),
    "large": lambda draw: draw((3, 200, 130)),
    "large, axes about": lambda draw: draw((130, 3, 200)).transpose(1, 2, 0),
}


def laid_out(layout, dtype, scale=1, shift=0):
    """An array of drawn numbers in that layout."""
    return LAYOUTS[layout](lambda shape: np.asarray(scale * RNG.standard_normal(shape) + shift, dtype))


def close(got, wanted, dtype, size=1):
    """Equal up to the dtype's tolerance, relative to the largest number and to the `size` of what it came from."""
    assert got.dtype == dtype
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[dtype] * size * max(1, np.abs(wanted).max()))


@pytest.fixture
def threads():
    """Set the number of threads; it is put back."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


# ---------------------------------------------------------------------- the blocks


@pytest.mark.parametrize(("length", "width"), [(1, 1), (BLOCK, 1), (BLOCK + 1, 1), (50, BLOCK // 3), (7, 3 * BLOCK)])
def test_blocks_cover_everything_once_and_are_not_larger_than_they_should(length, width):
    blocks = in_blocks(lambda block: block, length, width)
    assert [i for block in blocks for i in range(block.start, block.stop)] == list(range(length))
    assert all((block.stop - block.start) * width <= max(BLOCK, width) for block in blocks)


def test_blocks_are_the_same_on_any_number_of_threads(threads):
    length = 5 * WORTH * BLOCK + 3
    seen = []
    for number in (1, 2, 4):
        threads(number)
        seen.append(in_blocks(lambda block: (block.start, block.stop), length))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 5 * WORTH + 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flat_is_a_view_in_one_order_for_an_array_and_what_is_like_it(layout):
    x = laid_out(layout, np.float64)
    y = empty_like(x)
    assert np.shares_memory(flat(y), y)
    flat(y)[...] = flat(without_gaps(x))
    np.testing.assert_array_equal(y, x)


def test_row_dots():
    a, b = RNG.standard_normal((2, 3, 4, 5))
    np.testing.assert_allclose(row_dots(a, b), (a * b).sum(-1, keepdims=True))


# ---------------------------------------------------------------------- beside the plain versions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("layer", "reference"),
    [(GELU(), plain.gelu), (GELU("tanh"), plain.gelu_tanh), (SiLU(), plain.silu), (Mish(), plain.mish)],
    ids=str,
)
def test_gates_are_the_plain_ones(layer, reference, layout, dtype):
    x = laid_out(layout, dtype, scale=2)
    dout = RNG.standard_normal(x.shape).astype(dtype)
    y, dx = reference(x.astype(np.float64), dout.astype(np.float64))
    close(layer(x), y, dtype)
    close(layer.backward(dout), dx, dtype)


@pytest.mark.parametrize("x", [np.linspace(-9, 9, 40001), np.linspace(-1e-3, 1e-3, 101)], ids=["wide", "near 0"])
def test_gelu_in_float32_is_as_sharp_as_float32_is(x):
    x = x.astype(np.float32)
    layer = GELU()
    y, dx = plain.gelu(x.astype(np.float64), 1.0)
    error = np.abs(layer(x) - y)
    assert (error <= 1.7e-7 * np.maximum(np.abs(x), np.abs(y))).all()
    assert np.abs(layer.backward(np.ones_like(x)) - dx).max() < 4e-7


@pytest.mark.parametrize("layer", [GELU(), GELU("tanh"), SiLU(), Mish()], ids=str)
def test_a_gate_keeps_one_array_and_none_in_eval(layer):
    x = np.ones((3, 4), np.float32)
    layer(x)
    (kept,) = layer.saved()
    assert kept.shape == x.shape
    assert not np.shares_memory(kept, x)
    layer.eval()
    layer.slope = None  # not even computed
    layer(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "a number"])
def test_norms_are_the_plain_ones(layout, dtype):
    x = laid_out(layout, dtype, shift=3)
    n = x.shape[-1]
    dout = RNG.standard_normal(x.shape).astype(dtype)
    weight, bias = RNG.standard_normal((2, n)).astype(dtype)
    layer, rms = LayerNorm(n, 1e-3, dtype=dtype), RMSNorm(n, 1e-3, dtype=dtype)
    layer.weight.data[...] = rms.weight.data[...] = weight
    layer.bias.data[...] = bias
    wide = [a.astype(np.float64) for a in (x, dout, weight, bias)]
    got = (layer(x), layer.backward(dout), layer.weight.grad, layer.bias.grad)
    for one, wanted in zip(got, plain.layer_norm(*wide, 1e-3), strict=True):
        close(one, wanted, dtype)
    got = (rms(x), rms.backward(dout), rms.weight.grad)
    for one, wanted in zip(got, plain.rms_norm(*wide[:3], 1e-3), strict=True):
        close(one, wanted, dtype)


def test_a_large_mean_costs_layer_norm_no_more_than_the_digits_that_x_has_lost():
    x = RNG.standard_normal((40, 64)) + 1000
    y, *_ = plain.layer_norm(x.astype(np.float32).astype(np.float64), x, np.ones(64), np.zeros(64), 1e-5)
    np.testing.assert_allclose(LayerNorm(64)(x.astype(np.float32)), y, atol=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [0, 50, -70, 1000])
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "a number"])
@pytest.mark.parametrize(("cls", "reference"), [(Softmax, plain.softmax), (LogSoftmax, plain.log_softmax)])
def test_softmaxes_are_the_plain_ones(cls, reference, layout, shift, dtype):
    x = laid_out(layout, dtype, 3, shift)
    dout = RNG.standard_normal(x.shape).astype(dtype)
    for axis in range(-1, x.ndim - 1):
        layer = cls(axis)
        y, dx = reference(x.astype(np.float64), dout.astype(np.float64), axis)
        close(layer(x), y, dtype)
        close(layer.backward(dout), dx, dtype)


def test_a_softmax_of_channels_in_the_last_place_of_memory_goes_by_rows():
    x = RNG.standard_normal((2, 5, 4, 3)).transpose(0, 3, 1, 2)
    assert Softmax(1)(x).strides == x.strides


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 100])  # scores that need no shift, and scores that do
@pytest.mark.parametrize("how", ["causal", "booleans", "numbers", "infinities", "none"])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (40, 8)])
def test_attention_is_the_plain_one(leading, how, size, dtype):
    length, source = (5, 7) if leading != (40, 8) else (24, 24)
    # heads as they are cut out of one array: (..., heads, L, E) with L before heads in memory
    q, k, v, dy = (
        np.moveaxis(RNG.standard_normal((*leading[:-1], n, *leading[-1:], 6)).astype(dtype), len(leading[:-1]), -2)
        for n in (length, source, source, length)
    )
    q = q * dtype(size)
    seen = np.tri(length, source) > 0
    numbers = RNG.standard_normal(seen.shape).astype(dtype)
    infinities = np.where(seen, 0, -np.inf).astype(dtype)
    given = {"booleans": seen, "numbers": numbers, "infinities": infinities}.get(how)
    mask = {"numbers": numbers, "none": 0.0}.get(how, infinities)
    layer = ScaledDotProductAttention(is_causal=how == "causal")
    y = layer(q, k, v, given)
    wide = [a.astype(np.float64) for a in (q, k, v, dy)]
    for one, wanted in zip((y, *layer.backward(dy)), plain.attention(*wide, mask), strict=True):
        close(one, wanted, dtype, size)


def test_the_heads_of_attention_are_joined_without_a_copy():
    x = RNG.standard_normal((2, 5, 3, 4, 6)).astype(np.float32)
    q, k, v = x.transpose(2, 0, 3, 1, 4)
    layer = ScaledDotProductAttention()
    y = layer(q, k, v)
    for each in (y, *layer.backward(y)):
        assert np.shares_memory(each.swapaxes(1, 2).reshape(2, 5, 24), each)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(5, 3, 8), (5, 8)])
def test_self_attention_by_one_product_is_that_by_three(monkeypatch, shape, batch_first):
    layer = MultiheadAttention(8, 2, batch_first=batch_first, rng=0, dtype=np.float64)
    layer.in_proj_bias.data[...] = RNG.standard_normal(24)
    x, dout = RNG.standard_normal((2, *shape))
    count = []
    monkeypatch.setattr(multihead, "product", lambda a, b: count.append(0) or a @ b)
    results = []
    for inputs, products in (((x, x, x), 1), ((x, x.copy(), x), 3)):
        layer.zero_grad()
        count.clear()
        y = layer(*inputs)
        assert len(count) == products
        results.append([y, *layer.backward(dout), *(p.grad.copy() for p in layer.parameters())])
    for one, three in zip(*results, strict=True):
        np.testing.assert_allclose(one, three, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- threads, and who owns what


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (GELU(), 1),
        (Mish(), 1),
        (LayerNorm(256), 1),
        (RMSNorm(256), 1),
        (Softmax(-1), 1),
        (LogSoftmax(-1), 1),
        (ScaledDotProductAttention(is_causal=True), 3),
        (Sigmoid(), 1),
        (Tanh(), 1),
    ],
    ids=str,
)
def test_the_same_bits_on_any_number_of_threads(threads, layer, inputs):
    x = RNG.standard_normal((2 * WORTH, 256, 256)).astype(np.float32)
    seen = []
    for number in (1, 2):
        threads(number)
        layer.zero_grad()
        y = layer(*[x] * inputs)
        dx = layer.backward(x)
        seen.append([y, *(dx if inputs > 1 else [dx]), *(p.grad.copy() for p in layer.parameters())])
    for one, two in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, two)
