"""Every fast way to a convolution beside the plain one (tests/plain/conv.py), and that it is the way taken."""

import numpy as np
import pytest

from backhand.layers import Conv1d, Conv2d, Conv3d, ConvTranspose2d, columns, correlation, winograd
from backhand.layers.correlation import best_band
from backhand.layers.threads import get_num_threads, set_num_threads
from tests.plain.conv import conv

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def channels_last(x):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def run(layer, x, order=channels_last):
    layer.zero_grad()
    y = layer(order(x))
    dout = normal(*y.shape, seed=1, dtype=y.dtype)
    dx = layer.backward(order(dout))
    return dout, (y, dx, layer.weight.grad.copy(), layer.bias.grad.copy())


def assert_close(got, wanted, tolerance):
    for ours, plain in zip(got, wanted, strict=True):
        assert ours.shape == plain.shape
        assert np.abs(ours - plain).max() <= tolerance * np.abs(plain).max()


def calls(monkeypatch, owner, name):
    """A list that grows with each call of `owner.name`."""
    seen, original = [], getattr(owner, name)

    def counted(*args, **kwargs):
        seen.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return seen


LAYERS = {
    "winograd 3x3": (Conv2d, (16, 24, 3, 1, 1), (3, 16, 12, 12)),
    "winograd 3x3, tiles hang over": (Conv2d, (24, 32, 3, 1, (2, 0)), (2, 24, 13, 15)),
    "winograd 5x5": (Conv2d, (32, 40, 5, 1, 2), (2, 32, 11, 8)),
    "columns 3x3": (Conv2d, (12, 20, 3, 1, 1), (3, 12, 9, 7)),
    "columns, dilated": (Conv2d, (10, 12, 3, 1, 2, (1, 2)), (2, 10, 9, 9)),
    "columns, more padding than kernel": (Conv2d, (9, 9, 2, 1, 3), (2, 9, 4, 5)),
    "1x1": (Conv2d, (20, 30, 1), (3, 20, 6, 5)),
    "1x1 with stride": (Conv2d, (20, 30, 1, 2), (3, 20, 6, 5)),
    "stride 2": (Conv2d, (16, 12, 3, 2, 1), (3, 16, 9, 10)),
    "stride beyond the kernel": (Conv2d, (9, 8, 2, 3), (2, 9, 10, 11)),
    "bands": (Conv2d, (1, 6, 5, 1, 2), (3, 1, 28, 28)),
    "bands, several channels": (Conv2d, (6, 16, 5), (2, 6, 14, 14)),
    "bands with stride": (Conv2d, (2, 4, 11, 4, 2), (2, 2, 47, 47)),
    "groups": (Conv2d, (24, 36, 3, 1, 1, 1, 3), (2, 24, 8, 8)),
    "groups with stride": (Conv2d, (24, 36, 3, 2, 1, 1, 2), (2, 24, 8, 8)),
    "sequence": (Conv1d, (3, 5, 4, 1, 1), (2, 3, 33)),
    "long sequence": (Conv1d, (12, 10, 5, 2), (2, 12, 3001)),
    "volume": (Conv3d, (9, 10, (2, 3, 1), 1, (1, 0, 0)), (2, 9, 5, 6, 7)),
}


@pytest.mark.parametrize("order", [channels_last, np.ascontiguousarray], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_every_way_is_the_plain_convolution(monkeypatch, name, dtype, order):
    if name.startswith("winograd"):
        monkeypatch.setattr(winograd, "pays", lambda *_: True)
    cls, arguments, shape = LAYERS[name]
    layer = cls(*arguments, rng=0, dtype=dtype)
    x = normal(*shape, dtype=dtype)
    dout, got = run(layer, x, order)
    pads = [(p, p) for p in layer.padding]
    wanted = conv(x, layer.weight.data, layer.bias.data, dout, pads, layer.stride, layer.dilation, layer.groups)
    assert_close(got, wanted, TOLERANCE[dtype])
    assert all(a.dtype == dtype for a in got)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("arguments", [(16, 16, 3, 1, 1), (16, 16, 3, 2, 2), (3, 4, 3, 1, 2)])
def test_padding_modes_are_the_plain_convolution(mode, arguments):
    layer = Conv2d(*arguments, padding_mode=mode, rng=0)
    x = normal(2, arguments[0], 7, 8)
    dout, got = run(layer, x)
    pads = [(p, p) for p in layer.padding]
    wanted = conv(x, layer.weight.data, layer.bias.data, dout, pads, layer.stride, (1, 1), mode=mode)
    assert_close(got, wanted, 1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_winograd_is_taken_where_it_should_be(monkeypatch, name):
    cls, arguments, shape = LAYERS[name]
    if name.startswith("winograd"):
        monkeypatch.setattr(winograd, "pays", lambda *_: True)
    seen = calls(monkeypatch, winograd, "correlate")
    run(cls(*arguments, rng=0), normal(*shape))
    assert len(seen) == (2 if name.startswith("winograd") else 0)  # forward; dx and dW in one
    run(cls(*arguments, rng=0, dtype="float64"), normal(*shape, dtype="float64"))
    assert len(seen) == (2 if name.startswith("winograd") else 0)  # float64 keeps to the plain products


def test_winograd_pays_for_many_channels_and_whole_tiles():
    assert winograd.pays(3, 64, (32, 32), 16, 16)
    assert winograd.pays(3, 16, (13, 13), 192, 384)
    assert winograd.pays(5, 16, (27, 27), 64, 192)
    assert not winograd.pays(3, 64, (32, 32), 8, 16)  # the transforms weigh more than the products
    assert not winograd.pays(3, 1, (1, 1), 256, 256)  # one output for a tile of 16


def test_dx_and_dw_share_their_columns_with_stride_1(monkeypatch):
    seen = calls(monkeypatch, correlation.Correlation, "run")
    spread = calls(monkeypatch, correlation.Correlation, "spread")
    run(Conv2d(12, 20, 3, rng=0), normal(2, 12, 6, 6))
    assert (len(seen), len(spread)) == (2, 0)
    run(Conv2d(12, 20, 3, 2, rng=0), normal(2, 12, 7, 7))
    assert (len(seen), len(spread)) == (4, 1)


def test_bands_are_taken_for_few_channels():
    assert best_band(1, 6, 28, 5, 1, 1) > 1
    assert best_band(3, 16, 32, 3, 1, 1) > 1
    assert best_band(64, 64, 32, 3, 1, 1) == 1
    assert best_band(1, 6, 28, 5, 1, 2) == 1  # dilated
    assert best_band(1, 6, 29, 5, 1, 1) in (1, 29)  # a divisor of the outputs


def test_an_image_that_needs_no_columns_is_not_copied(monkeypatch):
    seen = calls(monkeypatch, correlation, "copy_runs")
    run(Conv2d(20, 30, 1, rng=0), normal(3, 20, 6, 5))
    assert not seen


@pytest.mark.parametrize("name", ["winograd 3x3", "columns 3x3", "stride 2", "bands"])
def test_the_size_of_blocks_and_the_number_of_threads_change_nothing(monkeypatch, name):
    cls, arguments, shape = LAYERS[name]
    monkeypatch.setattr(winograd, "pays", lambda *_: name.startswith("winograd"))
    x = normal(5, *shape[1:])
    _, wanted = run(cls(*arguments, rng=0), x)
    before = get_num_threads()
    for module in (winograd, correlation):
        monkeypatch.setattr(module, "THREAD_WORK", 1.0)
    monkeypatch.setattr(correlation, "CHUNK_BYTES", 1)
    monkeypatch.setattr(correlation, "CHUNK_ROWS", 20)
    monkeypatch.setattr(winograd, "TILE_BYTES", 1)
    try:
        for threads in (1, 2, 4):
            set_num_threads(threads)
            _, got = run(cls(*arguments, rng=0), x)
            assert_close(got, wanted, 2e-6)
            _, again = run(cls(*arguments, rng=0), x)
            assert all(np.array_equal(a, b) for a, b in zip(got, again, strict=True))
    finally:
        set_num_threads(before)


@pytest.mark.parametrize(
    "layer", [Conv2d(3, 4, 3, rng=0), Conv2d(16, 16, 3, 2, rng=0), ConvTranspose2d(3, 4, 3, rng=0)]
)
def test_the_gradient_by_the_data_is_left_out(monkeypatch, layer):
    x = normal(2, layer.in_channels, 9, 9)
    _, wanted = run(layer, x)
    spread = calls(monkeypatch, columns.ColumnsNd, "_spread")
    layer.input_requires_grad_(False)
    _, got = run(layer, x)
    assert got[1] is None
    assert len(spread) == isinstance(layer, ConvTranspose2d)  # its forward
    assert_close(got[2:], wanted[2:], 1e-6)


@pytest.mark.parametrize("arguments", [(16, 3, 5, 1, 2), (16, 20, 3, 1, 1), (16, 20, 4, 2, 1), (16, 3, 4, 2, 1)])
def test_a_transposed_convolution_is_the_backward_of_the_plain_one(arguments):
    layer = ConvTranspose2d(*arguments, rng=0)
    x = normal(3, 16, 6, 7)
    dout, got = run(layer, x)
    pads = [(p, p) for p in layer.padding]
    # a convolution from y to x, and its dout is x
    wanted = conv(dout, layer.weight.data, None, x, pads, layer.stride, (1, 1))
    y = wanted[1] + layer.bias.data[:, None, None]
    assert_close(got, (y, wanted[0], wanted[2], dout.sum((0, 2, 3))), 1e-5)


def test_winograd_rounds_off_no_more_than_a_few_times_the_plain_products():
    layer = Conv2d(64, 64, 3, padding=1, bias=False, rng=0)
    x = normal(4, 64, 16, 16)
    y = layer(x)
    exact = conv(x, layer.weight.data, None, y, [(1, 1)] * 2, (1, 1), (1, 1))[0]
    assert np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)) < 2e-6
