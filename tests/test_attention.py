"""What the table of cases cannot say of attention: the map, what is refused, extremes, dropout, the start."""

import numpy as np
import pytest

from backhand.inspection import check_gradients, check_layer
from backhand.layers import Layer, LayerError, MultiheadAttention, ScaledDotProductAttention
from tests.cases.attention import CAUSAL, DEAD, HEADS, MASKS, E, L, N, S, flags, numbers, shapes
from tests.conftest import need

torch_too = pytest.mark.parity


def inputs(batch_first=True, dtype=np.float64):
    return [numbers(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes(batch_first))]


def heads(*arrays):
    """MultiheadAttention without a batch, and what it takes."""
    return MultiheadAttention(E, HEADS, rng=0, dtype=np.float64), [x[0] for x in arrays]


# ---------------------------------------------------------------------- the map


@torch_too
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("more", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=["plain", "more keys"])
def test_the_map_is_the_one_that_torch_returns(average, batched, more):
    torch = need("torch")
    ours = MultiheadAttention(E, HEADS, batch_first=True, rng=0, dtype=np.float64, **more)
    theirs = torch.nn.MultiheadAttention(E, HEADS, batch_first=True, **more).double()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    q, k, v = inputs() if batched else [x[0] for x in inputs()]
    mask = flags(L, S)
    ours(q, k, v, attn_mask=mask, average_attn_weights=average)
    tensors = (torch.from_numpy(x) for x in (q, k, v))
    _, wanted = theirs(*tensors, attn_mask=torch.from_numpy(mask), average_attn_weights=average)
    np.testing.assert_allclose(ours.attention_map, wanted.detach().numpy(), atol=1e-12)


def test_the_map_is_left_for_drawing_and_cannot_be_written_to():
    layer = MultiheadAttention(E, HEADS, batch_first=True, rng=0, dtype=np.float64)
    assert layer.attention_map is None
    q, k, v = inputs()
    layer.eval()(q, k, v, attn_mask=CAUSAL)
    assert layer.attention_map.shape == (N, L, S)
    np.testing.assert_allclose(layer.attention_map.sum(axis=-1), 1)
    assert not layer.attention_map[:, CAUSAL].any()
    layer(q, k, v, need_weights=False)
    assert layer.attention_map.shape == (N, HEADS, L, S)
    with pytest.raises(ValueError, match="read-only"):
        layer.attention_map[0] = 0
    assert "attention_map" not in layer.state_dict()


# ---------------------------------------------------------------------- gradients


def test_self_attention_has_three_gradients_that_add():
    layer, (x, *_) = heads(*inputs())
    layer(x, x, x)
    dout = numbers(L, E)
    together = sum(layer.backward(dout))
    step = 1e-6 * numbers(L, E, seed=9)
    numeric = ((layer.eval()(x + step, x + step, x + step) - layer(x - step, x - step, x - step)) / 2 * dout).sum()
    np.testing.assert_allclose((together * step).sum(), numeric, rtol=1e-6)


class Masked(Layer):
    """A layer with its masks, as a function of what has a gradient."""

    def __init__(self, layer, options):
        self.layer, self.options = layer, options

    def forward(self, *x):
        return self.layer.forward(*x, **self.options)

    def backward(self, dout):
        return self.layer.backward(dout)


@pytest.mark.parametrize("kind", MASKS)
def test_masks_against_central_differences(kind):
    more = {"add_bias_kv": True, "add_zero_attn": True} if kind in ("both", "causal") else {}
    layer = MultiheadAttention(E, HEADS, 0.3, batch_first=True, rng=0, **more)
    report = check_gradients(Masked(layer, {**MASKS[kind], "need_weights": False}), *inputs())
    assert report, report
    mask = MASKS[kind].get("attn_mask")
    if mask is not None and mask.ndim == 2:
        check_layer(Masked(ScaledDotProductAttention(), {"attn_mask": mask}), *inputs())


def test_none_and_wrong_gradients_from_above():
    layer, given = heads(*inputs())
    y = layer(*given)
    with pytest.raises(LayerError, match="expected dout of shape"):
        layer.backward(np.ones((2, 2)))
    for gradient, x in zip(layer.backward(None), given, strict=True):
        assert gradient.shape == x.shape
        assert not gradient.any()
    assert y.shape == (L, E)


@torch_too
@pytest.mark.parametrize("kind", [name for name in MASKS if name.startswith(("one", "none", "dead"))])
@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"is_causal": True}], ids=str)
def test_the_functional_form_of_torch(kind, options):
    torch = need("torch")
    mask = MASKS[kind].get("attn_mask")
    if options.get("is_causal") and mask is not None:
        return
    if mask is not None and mask.dtype == bool:
        mask = ~mask  # there True takes part
    given = inputs()
    layer = ScaledDotProductAttention(**options)
    tensors = [torch.from_numpy(x).requires_grad_() for x in given]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *tensors, None if mask is None else torch.from_numpy(mask), **options
    )
    np.testing.assert_allclose(layer(*given, mask), wanted.detach().numpy(), atol=1e-12)
    dout = numbers(N, L, E)
    wanted.backward(torch.from_numpy(dout))
    for ours, theirs in zip(layer.backward(dout), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-12)


def test_a_query_that_may_attend_to_nothing():
    layer, given = heads(*inputs())
    y = layer(*given, attn_mask=DEAD, need_weights=False)
    np.testing.assert_allclose(y[2], layer.out_proj.bias.data)
    dq, dk, dv = layer.backward(np.ones_like(y))
    assert not dq[2].any()
    assert np.isfinite(dk).all()
    assert np.isfinite(dv).all()
    y = layer(*given, attn_mask=DEAD)
    assert np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, axis=0)).all()


# ---------------------------------------------------------------------- extremes, dtype, dropout, the start


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e-30, 0.0, -0.0])
def test_large_scores_stay_finite(size, dtype):
    layer = ScaledDotProductAttention()
    q, k, v = (x * dtype(size) for x in inputs(dtype=dtype))
    lowest = np.where(flags(L, S), np.finfo(dtype).min, 0).astype(dtype)
    for mask in (None, lowest, np.where(flags(L, S), -1e300, 0)):
        y = layer(q, k, v, mask)
        gradients = layer.backward(np.ones_like(y))
        assert all(np.isfinite(x).all() and x.dtype == dtype for x in (y, *gradients))


@pytest.mark.parametrize("kind", MASKS)
def test_float32_stays(kind):
    layer = MultiheadAttention(E, HEADS, 0.2, add_bias_kv=True, add_zero_attn=True, batch_first=True, rng=0)
    y = layer(*inputs(), **MASKS[kind], need_weights=False)  # float64 in: the parameters' dtype counts
    assert {x.dtype for x in (y, layer.attention_map, *layer.backward(y))} == {np.dtype(np.float32)}
    assert {p.grad.dtype for p in layer.parameters()} == {np.dtype(np.float32)}


def test_dropout_drops_weights_at_its_rate_and_only_in_training():
    layer = ScaledDotProductAttention(0.3, rng=0)
    q = np.zeros((50, 100))  # all weights are 1/50
    layer(q, q, q)
    kept = layer.attention_map > 0
    assert abs(kept.mean() - 0.7) < 0.03
    np.testing.assert_allclose(layer.attention_map[kept], 1 / 50 / 0.7)
    layer.eval()(q, q, q)
    np.testing.assert_allclose(layer.attention_map, 1 / 50)
    one, other = (MultiheadAttention(E, HEADS, 0.5, rng=3)(*inputs(False)) for _ in range(2))
    np.testing.assert_array_equal(one, other)  # one seed, one mask


@torch_too
@pytest.mark.parametrize("kwargs", [{"add_bias_kv": True}, {"kdim": 30, "vdim": 50}], ids=str)
def test_starts_as_torch_does(kwargs):
    torch = need("torch")
    ours = MultiheadAttention(96, 4, rng=0, **kwargs).state_dict()
    torch.manual_seed(0)
    theirs = {name: t.numpy() for name, t in torch.nn.MultiheadAttention(96, 4, **kwargs).state_dict().items()}
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_allclose(ours[name].std(), array.std(), rtol=0.03 if array.size > 1000 else 0.3)
        if array.size > 1000:
            np.testing.assert_allclose(np.abs(ours[name]).max(), np.abs(array).max(), rtol=0.01)


def test_what_it_prints():
    assert repr(MultiheadAttention(6, 2, 0.1, bias=False, batch_first=True)) == (
        "MultiheadAttention(6, 2, dropout=0.1, bias=False, batch_first=True)"
    )
    assert repr(MultiheadAttention(6, 2, vdim=5)) == "MultiheadAttention(6, 2, kdim=6, vdim=5)"
    assert repr(ScaledDotProductAttention(is_causal=True)) == "ScaledDotProductAttention(is_causal=True)"


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("args", [(0, 1), (6, 0), (6, 4), (6, 2.0), (6, 2, 1.5), (6, 2, -0.1)], ids=str)
def test_arguments(args):
    with pytest.raises(ValueError, match="MultiheadAttention: expected"):
        MultiheadAttention(*args)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": (N, L, E + 1)}, "expected query, key, value of shapes"),
        ({"key": (N, S, E + 1)}, "expected query, key, value of shapes"),
        ({"value": (N, S + 1, E)}, "expected query, key, value of shapes"),
        ({"query": (N + 1, L, E)}, "expected query, key, value of shapes"),
        ({"query": (L, E)}, "expected query, key, value of shapes"),
        ({"query": (1, N, L, E), "key": (1, N, S, E), "value": (1, N, S, E)}, r"\(N, L, 6\), \(N, S, 6\), \(N, S, 6\)"),
        ({"attn_mask": (S, L)}, r"expected attn_mask of shape \(4, 5\) or \(6, 4, 5\), got \(5, 4\)"),
        ({"attn_mask": (N, L, S)}, r"expected attn_mask of shape \(4, 5\) or \(6, 4, 5\)"),
        ({"attn_mask": (1, L, S)}, r"expected attn_mask of shape \(4, 5\) or \(6, 4, 5\)"),
        ({"key_padding_mask": (N, L)}, r"expected key_padding_mask of shape \(3, 5\), got \(3, 4\)"),
        ({"key_padding_mask": (S,)}, r"expected key_padding_mask of shape \(3, 5\), got \(5,\)"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit(changed, message):
    layer = MultiheadAttention(E, HEADS, 0.5, batch_first=True, rng=0)
    before = layer.attention.rng.bit_generator.state
    given = dict(zip(("query", "key", "value"), shapes(True), strict=True))
    with pytest.raises(LayerError, match=message):
        layer(**{name: np.ones(shape) for name, shape in {**given, **changed}.items()})
    assert layer.attention.rng.bit_generator.state == before
    assert layer.attention_map is None


def test_masks_that_are_none():
    layer = MultiheadAttention(E, HEADS, batch_first=True)
    with pytest.raises(LayerError, match="expected attn_mask of booleans or floats, got dtype int64"):
        layer(*inputs(), attn_mask=np.ones((L, S), np.int64))
    with pytest.raises(LayerError, match="expected key_padding_mask of booleans or floats"):
        layer(*inputs(), key_padding_mask=np.ones((N, S), np.int64))
    with pytest.raises(LayerError, match="expected the attn_mask that is_causal=True tells of, got none"):
        layer(*inputs(), is_causal=True)


@pytest.mark.parametrize(
    ("kwargs", "sizes", "message"),
    [
        ({}, [(3,), (3,), (3,)], "expected query"),
        ({}, [(2, 3), (2, 4), (2, 4)], "expected query"),
        ({}, [(2, 3), (2, 3), (3, 3)], "expected query"),
        ({}, [(2, 2, 3), (3, 2, 3), (2, 3)], "whose leading axes broadcast"),
        ({}, [(2, 3), (4, 3), (4, 3), (4, 2)], r"expected attn_mask that broadcasts to \(2, 4\), got \(4, 2\)"),
        ({}, [(2, 3), (4, 3), (4, 3), (5, 2, 4)], "expected attn_mask that broadcasts"),
        ({"is_causal": True}, [(2, 3), (4, 3), (4, 3), (2, 4)], "expected no attn_mask with is_causal=True"),
        ({"enable_gqa": True}, [(3, 2, 3), (2, 2, 3), (2, 2, 3)], "expected a number of heads"),
        ({"enable_gqa": True}, [(2, 3), (2, 3), (2, 3)], "expected a number of heads"),
    ],
    ids=str,
)
def test_plain_attention_that_does_not_fit(kwargs, sizes, message):
    with pytest.raises(LayerError, match=message):
        ScaledDotProductAttention(**kwargs)(*(np.ones(size) for size in sizes))
