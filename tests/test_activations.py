"""Activations: erf, extreme values number by number, slopes that are learned or drawn, what is refused."""

import inspect
import math

import numpy as np
import pytest

import backhand.layers
from backhand.layers import (
    CELU,
    ELU,
    GELU,
    GLU,
    Hardtanh,
    LayerError,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU6,
    RReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softmax2d,
    Softmin,
    Softplus,
    Softshrink,
    Threshold,
)
from backhand.layers.activations import Elementwise
from backhand.layers.special import erf
from backhand.losses import BCELoss
from tests.conftest import need

SPECIAL = [-np.inf, -1e4, -800, -100, -6, -3, -1, -0.5, -1e-10, -5e-324, -0.0, 0, 5e-324, 1e-10, 0.5, 1, 3, 6, 20, 25]
SPECIAL = np.array([*SPECIAL, 100, 1e4, np.inf, np.nan])
NOT_ALONE = {"Threshold": (0.5, 7.0)}
NAMES = sorted(
    name
    for name in backhand.layers.__all__
    if inspect.isclass(getattr(backhand.layers, name))
    and (issubclass(getattr(backhand.layers, name), Elementwise) or name in ("PReLU", "RReLU"))
    and name not in ("Exp", "Reciprocal", "Negate", "AddConstant", "MultiplyConstant")  # gates; torch has none
)


def make(name):
    return getattr(backhand.layers, name)(*NOT_ALONE.get(name, ()))


# ---------------------------------------------------------------------- erf


def test_erf_to_the_last_digits():
    x = np.concatenate([np.linspace(-7, 7, 20001), np.geomspace(1e-300, 1, 2001)])
    wanted = np.array([math.erf(each) for each in x])
    np.testing.assert_allclose(erf(x), wanted, rtol=2e-15, atol=0)
    single = x.astype(np.float32)
    got = erf(single)
    assert got.dtype == np.float32
    normal = np.abs(single) > 1e-37  # below that float32 has no digits left to compare
    np.testing.assert_allclose(got[normal], [math.erf(each) for each in single[normal]], rtol=5e-7, atol=0)


def test_erf_at_its_ends():
    x = np.array([-np.inf, -1e300, -30.0, -0.0, 0.0, 6.0, np.inf])
    np.testing.assert_array_equal(erf(x), [-1, -1, -1, 0, 0, 1, 1])
    assert np.isnan(erf(np.array([np.nan]))).all()
    assert np.signbit(erf(np.array([-0.0])))[0]


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3), (70_000,), (300, 500)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_of_any_shape_is_the_same_function(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    y = erf(x)
    assert y.shape == x.shape and y.dtype == dtype
    np.testing.assert_array_equal(y.reshape(-1)[:50], np.concatenate([erf(each[None]) for each in x.reshape(-1)[:50]]))


# ---------------------------------------------------------------------- number by number, to the extremes


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # inf - inf; the finite ones are tested below
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_special_value_is_torchs(name, dtype):
    torch = need("torch")
    layer = make(name).astype(dtype).eval(caching=True)
    x = SPECIAL.astype(dtype)
    tensor = torch.tensor(x, requires_grad=True)
    theirs = getattr(torch.nn, name)(*NOT_ALONE.get(name, ())).to(tensor.dtype).eval()
    y = theirs(tensor)
    y.backward(torch.full_like(y, 1.5))
    tolerance = {"rtol": 1e-9, "atol": 1e-13} if dtype == "float64" else {"rtol": 5e-6, "atol": 1e-6}
    got, output = layer(x), y.detach().numpy()
    if (name, dtype) == ("GELU", "float32"):  # torch's own is nan at inf, in float32 alone
        output = np.where(x == np.inf, x, output)
    np.testing.assert_allclose(got, output, **tolerance)
    dx, wanted = layer.backward(np.full_like(x, 1.5)), tensor.grad.numpy()
    if name == "Hardsigmoid":
        tolerance["rtol"] = 1e-7  # see tests/parity.py
    if name == "Softsign":  # torch's backward is nan at +-inf, where the derivative's limit is 0
        wanted = np.where(np.isinf(x), 0, wanted)
    known = ~np.isnan(x)  # at nan torch's own answer depends on where in the array it stands
    np.testing.assert_allclose(dx[known], wanted[known], **tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_finite_numbers_of_any_size_raise_no_warning(name, dtype):
    most = float(np.finfo(dtype).max) / 4
    x = np.array([-most, -1e4, -100, -1, -1e-6, 0, 1e-6, 1, 100, 1e4, most], dtype)
    layer = make(name).astype(dtype)
    y = layer(x)
    dx = layer.backward(np.ones_like(x))
    assert y.dtype == dx.dtype == dtype
    assert np.isfinite(y).all() and np.isfinite(dx).all()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_that_of_single_precision_rounded(name):
    x = np.linspace(-12, 12, 97).astype(np.float16)
    half, single = make(name).eval(caching=True), make(name).eval(caching=True)
    if name == "PReLU":
        half.astype(np.float16)
    np.testing.assert_allclose(half(x), single(x.astype(np.float32)).astype(np.float16), rtol=1e-3, atol=1e-7)
    dx = half.backward(np.ones_like(x))
    assert dx.dtype == np.float16
    np.testing.assert_allclose(dx, single.backward(np.ones(97, np.float32)).astype(np.float16), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_one_number_is_an_array_of_its_dtype(name):
    layer = make(name)
    y = layer(np.array(0.3, np.float32))
    dx = layer.backward(np.float32(2))
    assert (y.shape, dx.shape) == ((), ())
    assert y.dtype == dx.dtype == np.float32


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "inplace" in inspect.signature(make(name).__class__).parameters]
)
def test_inplace_changes_nothing(name):
    x = np.linspace(-4, 4, 33)
    x.flags.writeable = False
    plain, inplace = make(name), getattr(backhand.layers, name)(*NOT_ALONE.get(name, ()), inplace=True)
    np.testing.assert_array_equal(plain.eval()(x), inplace.eval()(x))
    assert "inplace=True" in repr(inplace)


@pytest.mark.parametrize("cls", [GELU, SiLU, Mish])
def test_what_a_gate_closes_stays_closed_in_float32(cls):
    # an erf that is 1e-7 short of -1 would let 1e-3 of -1e4 through
    np.testing.assert_array_equal(cls()(np.array([-1e4, -1e30], np.float32)), [0, 0])


def test_small_numbers_keep_their_digits():
    x = np.array([-1e-12, 1e-12])
    for cls in (ELU, CELU):
        np.testing.assert_allclose(cls()(x), x, rtol=1e-9)
    np.testing.assert_allclose(backhand.layers.LogSigmoid()(np.array([50.0])), [-math.exp(-50)], rtol=1e-9)


# ---------------------------------------------------------------------- slopes


def test_the_tail_of_the_sigmoid_keeps_its_digits():
    x = np.linspace(-80, 80, 321)
    wanted = np.array([1 / (1 + math.exp(-each)) for each in x])
    np.testing.assert_allclose(Sigmoid()(x), wanted, rtol=1e-14)
    single = Sigmoid()(x.astype(np.float32))
    np.testing.assert_allclose(single, wanted, rtol=1e-6)
    np.testing.assert_allclose(BCELoss()(single[x == -40], np.ones(1)), 40, rtol=1e-6)  # log y, not its floor of -100
    np.testing.assert_allclose(GLU()(np.array([1, -40.0])), math.exp(-40), rtol=1e-14)


def test_the_slopes_of_rrelu_are_uniform_and_new_each_time():
    layer = RReLU(0.2, 0.6, rng=0)
    x = np.full(100_000, -2.0)
    first, second = layer(x), layer(x)
    slopes = first / -2
    assert slopes.min() >= 0.2 and slopes.max() <= 0.6
    assert abs(slopes.mean() - 0.4) < 0.002 and abs(slopes.var() - 0.4**2 / 12) < 0.0005
    assert (first != second).any()
    np.testing.assert_allclose(layer.backward(np.full_like(x, 3)), second / -2 * 3)
    np.testing.assert_allclose(layer.backward(np.full_like(x, 3)), slopes * 3)
    np.testing.assert_array_equal(RReLU(0.2, 0.6, rng=0)(-x), -x)


def test_rrelu_draws_nothing_in_eval_or_for_what_it_refuses():
    layer = RReLU(rng=0)
    before = layer.rng.bit_generator.state
    np.testing.assert_allclose(layer.eval()(np.array([-1.0, 2.0])), [-(1 / 8 + 1 / 3) / 2, 2])
    with pytest.raises(LayerError):
        layer.train()(np.array(["a"]))
    assert layer.rng.bit_generator.state == before


@pytest.mark.parity
def test_the_slopes_of_torchs_rrelu_give_its_numbers():
    torch = need("torch")

    class Replay:
        def random(self, shape, dtype):
            return fractions

    x = np.random.default_rng(0).standard_normal((20, 30))
    tensor = torch.tensor(x, requires_grad=True)
    y = torch.nn.RReLU(0.1, 0.9)(tensor)
    dout = np.random.default_rng(1).standard_normal(x.shape)
    y.backward(torch.tensor(dout))
    fractions = (y.detach().numpy() / x - 0.1) / 0.8
    layer = RReLU(0.1, 0.9)
    layer.rng = Replay()
    np.testing.assert_allclose(layer(x), y.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(dout), tensor.grad.numpy(), rtol=1e-12)


def test_prelu_starts_from_init_and_learns_its_slope():
    layer = PReLU(3, 0.1)
    assert layer.weight.data.dtype == np.float32 and (layer.weight.data == np.float32(0.1)).all()
    layer(np.array([[-1.0, -2.0, 3.0], [2.0, -4.0, 5.0]]))
    layer.backward(np.ones((2, 3)))
    np.testing.assert_allclose(layer.weight.grad, [-1, -6, 0])
    assert repr(layer) == "PReLU(num_parameters=3, init=0.1)"
    assert PReLU(dtype=np.float64).weight.data.dtype == np.float64


# ---------------------------------------------------------------------- the softmax family


def test_the_softmax_family_at_extreme_scores():
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    np.testing.assert_array_equal(Softmax(1)(x)[0], [1, 0, 0])
    np.testing.assert_array_equal(Softmin(1)(x)[0], [0, 1, 0])
    np.testing.assert_allclose(LogSoftmax(1)(x), [[0, -2e4, -1e4], [-math.log(3)] * 3])


def test_log_softmax_is_the_log_of_softmax_and_softmin_that_of_the_negative():
    x = np.random.default_rng(0).standard_normal((4, 5))
    np.testing.assert_allclose(np.exp(LogSoftmax(1)(x)), Softmax(1)(x))
    np.testing.assert_allclose(Softmin(1)(x), Softmax(1)(-x))


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GELU("exact"), "GELU: expected approximate to be 'none' or 'tanh', got 'exact'"),
        (lambda: Hardtanh(1.0, 1.0), "Hardtanh: expected min_val < max_val, got \\(1.0, 1.0\\)"),
        (lambda: Hardtanh(2, 1), "expected min_val < max_val"),
        (lambda: Softshrink(-0.1), "Softshrink: expected lambd in"),
        (lambda: CELU(0), "CELU: expected alpha other than 0"),
        (lambda: Softplus(0), "Softplus: expected beta other than 0"),
        (lambda: RReLU(0.5, 0.1), "RReLU: expected lower in"),
        (lambda: RReLU(0.0, np.inf), "RReLU: expected upper in"),
        (lambda: PReLU(0), "PReLU: expected num_parameters to be a positive integer"),
        (lambda: ELU("1"), "ELU: expected alpha to be a number"),
        (lambda: Threshold(None, 1.0), "Threshold: expected threshold to be a number"),
    ],
)
def test_impossible_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (PReLU(3), (3,)),
        (PReLU(3), ()),
        (PReLU(3), (3, 2)),
        (GLU(), (3,)),
        (GLU(), ()),
        (GLU(2), (4, 4)),
        (GLU(-3), (4, 4)),
        (Softmax2d(), (2, 3)),
        (Softmax2d(), (1, 2, 3, 4, 5)),
        (LogSoftmax(2), (2, 3)),
        (Softmin(1), ()),
    ],
    ids=str,
)
def test_impossible_shapes(layer, shape):
    with pytest.raises(LayerError, match="expected x"):
        layer(np.ones(shape))
    with pytest.raises(RuntimeError, match="no forward"):
        layer.backward(np.ones(shape))


def test_relu6_prints_as_it_was_built():
    assert repr(ReLU6()) == "ReLU6()"
    assert repr(Hardtanh(-2, 2)) == "Hardtanh(min_val=-2.0, max_val=2.0)"
