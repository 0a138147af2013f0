"""The fast forms of what is bound by memory, against the plain ones: sizes of many pieces, both memory orders."""

import numpy as np
import pytest

from backhand.layers import (
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Conv3d,
    Hardtanh,
    LeakyReLU,
    MaxPool2d,
    ReLU,
    batch_norm,
    blocks,
)
from backhand.layers.channels import Channels
from backhand.layers.depthwise import Depthwise
from backhand.layers.threads import get_num_threads, set_num_threads
from tests.plain import batch_norm as plain_norm
from tests.plain import depthwise as plain_depthwise
from tests.plain import pooling as plain_pooling

ORDERS = ["first", "last", "neither"]
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}


def array(*shape, order="first", dtype=np.float64, seed=0):
    """Normal numbers with the channels first or last in memory, or with a gap between the samples."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    if order == "last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    return np.concatenate([x, x], axis=1)[:, : shape[1]] if order == "neither" else x


def close(ours, plain, dtype):
    scale = abs(plain).max()
    np.testing.assert_allclose(ours, plain, rtol=0, atol=TOLERANCE[dtype] * scale)
    assert ours.dtype == dtype


@pytest.fixture
def threads():
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def run(layer, x, dout=None):
    """Output, gradient by the input, and gradients of the parameters."""
    y = layer.forward(x)
    layer.zero_grad()
    y = layer.forward(x)
    dx = layer.backward(array(*y.shape, dtype=y.dtype, seed=9) if dout is None else dout)
    return [y, dx, *(parameter.grad.copy() for parameter in layer.parameters())]


# ---------------------------------------------------------------------- BatchNorm


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(40, 6, 19, 23), (2, 3, 300, 301), (64, 32, 16, 16), (7, 5, 1, 1), (3, 96, 32, 32)])
def test_batch_norm_is_the_plain_one(shape, order, dtype):
    x, dout = array(*shape, order=order, dtype=dtype), array(*shape, dtype=dtype, seed=1)
    x = x * 3 + 2
    bn = BatchNorm2d(shape[1], eps=0.1, dtype=dtype)
    bn.weight.data[:], bn.bias.data[:] = array(2, shape[1], dtype=dtype, seed=2)
    y, dx, dweight, dbias = run(bn, x, dout)
    wide, weight, bias = (a.astype(np.float64) for a in (x, bn.weight.data, bn.bias.data))
    close(y, plain_norm.forward(wide, weight, bias, 0.1), dtype)
    for ours, plain in zip(
        (dx, dweight, dbias), plain_norm.backward(wide, dout.astype(np.float64), weight, 0.1), strict=True
    ):
        close(ours, plain, dtype)


@pytest.mark.parametrize("eval_mode", [False, True])
@pytest.mark.parametrize("far", [False, True])
def test_a_mean_is_taken_off_first_where_it_is_large(monkeypatch, far, eval_mode):
    """Sums of squares of 1000 +- 1 would leave float32 no digit of the variance."""
    calls = []
    subtract = batch_norm._subtract
    monkeypatch.setattr(batch_norm, "_subtract", lambda *args: calls.append(1) or subtract(*args))
    shape, offset = (16, 4, 20, 20), 1000 if far else 1
    x, dout = array(*shape, dtype=np.float32) + np.float32(offset), array(*shape, dtype=np.float32, seed=1)
    bn = BatchNorm2d(4, eps=1e-5, momentum=1.0)
    y, dx, *_ = run(bn, x, dout)
    wide, one = x.astype(np.float64), np.ones(4)
    close(y, plain_norm.forward(wide, one, 0 * one, 1e-5), np.float32)
    close(dx, plain_norm.backward(wide, dout.astype(np.float64), one, 1e-5)[0], np.float32)
    np.testing.assert_allclose(bn.running_var, wide.var(axis=(0, 2, 3), ddof=1), rtol=1e-5)
    assert bool(calls) == far
    if eval_mode:
        calls.clear()
        again = bn.eval(caching=True).forward(x)
        np.testing.assert_allclose(again, y, atol=2e-3)
        # the gradients hold for the mean that was taken off
        bn.zero_grad()
        again = bn.forward(x)
        np.testing.assert_allclose(
            bn.backward(dout), dout * (1 / np.sqrt(bn.running_var + 1e-5))[:, None, None], rtol=1e-5
        )
        assert bool(calls) == far


def test_batch_norm_takes_two_sums_and_a_linear_map(monkeypatch):
    called = []
    for name in ("sums", "apply"):
        method = getattr(Channels, name)
        monkeypatch.setattr(Channels, name, lambda *a, m=method, n=name: called.append(n) or m(*a))
    run(BatchNorm1d(3), array(8, 3, 5, dtype=np.float32))
    assert called == ["sums", "apply"] * 3


# ---------------------------------------------------------------------- pooling


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), ((2, 3), (3, 2), (1, 0)), (1, 2, 0)]
)
@pytest.mark.parametrize("shape", [(5, 6, 8, 9), (9, 16, 37, 36)])
def test_max_pool_is_the_plain_one(shape, kernel, stride, padding, order, dtype):
    x = np.round(array(*shape, order=order, dtype=dtype))  # with many equals
    pool = MaxPool2d(kernel, stride, padding)
    y, dx = run(pool, x)
    geometry = [n if isinstance(n, tuple) else (n, n) for n in (kernel, stride, padding)]
    wanted, winner = plain_pooling.forward(x, y.shape[-2:], *geometry)
    assert (y == wanted).all() and y.dtype == dtype
    close(dx, plain_pooling.backward(array(*y.shape, dtype=dtype, seed=9), winner, x.shape, *geometry), dtype)
    assert (pool.eval().forward(x) == wanted).all()


def test_max_pool_keeps_the_memory_order_and_one_byte_for_each_output():
    x = array(4, 8, 16, 16, order="last", dtype=np.float32)
    pool = MaxPool2d(2)
    y = pool.forward(x)
    winner, _ = pool._stack[-1][1]
    assert winner.dtype == np.uint8 and winner.shape == y.shape
    assert np.moveaxis(y, 1, -1).flags.c_contiguous
    assert np.moveaxis(pool.backward(y), 1, -1).flags.c_contiguous
    pool.eval().forward(x)
    assert not pool._stack


# ---------------------------------------------------------------------- depthwise convolution


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("cls", "shape", "arguments"),
    [
        (Conv1d, (3, 4, 50), dict(kernel_size=5, padding=2)),
        (Conv1d, (2, 32, 9000), dict(kernel_size=3, stride=2, dilation=3)),
        (Conv2d, (3, 6, 12, 13), dict(kernel_size=3, padding=1)),
        (Conv2d, (3, 6, 12, 13), dict(kernel_size=(3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2))),
        (Conv2d, (2, 4, 9, 9), dict(kernel_size=3, padding=1, padding_mode="reflect")),
        (Conv2d, (3, 40, 60, 50), dict(kernel_size=3, padding=1)),
        (Conv2d, (2, 5, 4, 4), dict(kernel_size=1, padding=3)),
        (Conv3d, (2, 3, 5, 6, 7), dict(kernel_size=(1, 3, 2), stride=2, padding=(0, 1, 1))),
    ],
)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise_is_the_plain_sum(cls, shape, arguments, multiplier, order, dtype):
    channels = shape[1]
    conv = cls(channels, channels * multiplier, groups=channels, dtype=dtype, rng=0, **arguments)
    x = array(*shape, order=order, dtype=dtype)
    y, dx, dweight, dbias = run(conv, x)
    dout = array(*y.shape, dtype=dtype, seed=9)
    geometry = (conv.stride, conv._pads(), conv.dilation, conv.padding_mode)
    wide = [a.astype(np.float64) for a in (x, dout, conv.weight.data, conv.bias.data)]
    close(y, plain_depthwise.forward(wide[0], wide[2], wide[3], y.shape[2:], *geometry), dtype)
    for ours, plain in zip((dx, dweight), plain_depthwise.backward(*wide[:3], *geometry), strict=True):
        close(ours, plain, dtype)
    close(dbias, wide[1].sum(axis=(0, *range(2, x.ndim))), dtype)


def test_depthwise_is_what_depthwise_takes(monkeypatch):
    taken = []
    forward = Depthwise.forward
    monkeypatch.setattr(Depthwise, "forward", lambda *args: taken.append(1) or forward(*args))
    x = array(2, 4, 5, 5)
    for groups in (4, 2, 1):
        Conv2d(4, 8, 3, groups=groups).forward(x)
    assert len(taken) == 1


def test_depthwise_without_the_gradient_by_the_data():
    conv, x = Conv2d(4, 4, 3, groups=4, rng=0), array(2, 4, 5, 5, dtype=np.float32)
    *_, dweight, dbias = run(conv, x)
    _, dx, *parameters = run(conv.input_requires_grad_(False), x)
    assert dx is None
    assert (parameters[0] == dweight).all() and (parameters[1] == dbias).all()


# ---------------------------------------------------------------------- pieces and threads

LARGE = (40, 32, 32, 32)  # more than one thread's least


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize(
    "layer",
    [
        BatchNorm2d(32),
        MaxPool2d(2),
        MaxPool2d(3, 2, 1),
        AvgPool2d(3, 2, 1),
        Conv2d(32, 32, 3, padding=1, groups=32, rng=0),
        ReLU(),
        LeakyReLU(),
        Hardtanh(),
    ],
    ids=repr,
)
def test_results_do_not_depend_on_threads(layer, order, threads):
    x = array(*LARGE, order=order, dtype=np.float32)
    results = []
    for number in (1, 2, 3, 1):
        threads(number)
        results.append(run(layer, x))
    for other in results[1:]:
        for ours, same in zip(other, results[0], strict=True):
            assert ours.tobytes() == same.tobytes()


@pytest.mark.parametrize("order", ["first", "last"])
def test_pieces_of_elementwise_work_cover_everything(order):
    x = array(5, 7, 61, 67, order=order, dtype=np.float32)
    assert x.size > 2 * blocks.BLOCK and x.size % blocks.BLOCK
    x[0, 0, 0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    dout = array(*x.shape, dtype=np.float32, seed=1)  # in another memory order than x, where that is channels-last
    for layer, y, slope in (
        (ReLU(), np.where(x <= 0, 0, x), ~(x <= 0)),
        (LeakyReLU(0.5), np.where(x > 0, x, x * 0.5), np.where(x > 0, 1, 0.5)),
        (Hardtanh(), np.clip(x, -1, 1), ~(abs(x) >= 1)),
    ):
        np.testing.assert_array_equal(layer.forward(x), y)
        np.testing.assert_array_equal(layer.backward(dout), dout * slope)
