"""Convolution and pooling against loops that are obviously right, worked values, and what they refuse."""

import itertools

import numpy as np
import pytest

from backhand.layers import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Conv3d,
    LayerError,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    ReLU,
)
from backhand.layers.windows import Windows

CONV = {1: Conv1d, 2: Conv2d, 3: Conv3d}


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------- the references: one loop for every index


def positions(n, kernel, outputs, stride, dilation):
    """(output, element, position in the padded image) for every element of every window."""
    for o in itertools.product(*(range(count) for count in outputs)):
        for k in itertools.product(*(range(size) for size in kernel)):
            yield o, k, tuple(o[a] * stride[a] + k[a] * dilation[a] for a in range(n))


def loop_conv(x, weight, bias, dout, pads, stride, dilation, groups):
    """y, dx, dW and db of a convolution with zero padding, one product at a time."""
    n = x.ndim - 2
    batch = len(x)
    filters, per_group, *kernel = weight.shape
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    outputs = [(padded.shape[a + 2] - extents[a]) // stride[a] + 1 for a in range(n)]
    y = np.zeros((batch, filters, *outputs)) + bias.reshape(-1, *[1] * n)
    dpadded, dweight = np.zeros_like(padded), np.zeros_like(weight)
    for o, k, at in positions(n, kernel, outputs, stride, dilation):
        for i, f, c in itertools.product(range(batch), range(filters), range(per_group)):
            channel = f // (filters // groups) * per_group + c
            y[(i, f, *o)] += weight[(f, c, *k)] * padded[(i, channel, *at)]
            dweight[(f, c, *k)] += dout[(i, f, *o)] * padded[(i, channel, *at)]
            dpadded[(i, channel, *at)] += dout[(i, f, *o)] * weight[(f, c, *k)]
    inner = tuple(slice(before, before + size) for (before, _), size in zip(pads, x.shape[2:], strict=True))
    return y, dpadded[(..., *inner)], dweight, dout.sum((0, *range(2, n + 2)))


@pytest.mark.parametrize(
    ("n", "sizes", "kernel", "stride", "padding", "dilation", "groups"),
    [
        (1, (7,), (3,), (2,), (1,), (2,), 2),
        (2, (5, 4), (3, 2), (1, 2), (1, 0), (1, 2), 1),
        (2, (5, 6), (2, 3), (2, 1), (0, 2), (2, 1), 4),
        (3, (3, 4, 3), (2, 1, 2), (1, 2, 1), (1, 0, 1), (1, 1, 2), 2),
    ],
)
def test_conv_is_the_loop(n, sizes, kernel, stride, padding, dilation, groups):
    layer = CONV[n](4, 8, kernel, stride, padding, dilation, groups, rng=0, dtype="float64")
    x = normal(2, 4, *sizes)
    y = layer(x)
    dout = normal(*y.shape, seed=1)
    dx = layer.backward(dout)
    pads = [(p, p) for p in padding]
    wanted = loop_conv(x, layer.weight.data, layer.bias.data, dout, pads, stride, dilation, groups)
    for got, reference in zip((y, dx, layer.weight.grad, layer.bias.grad), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 10, 1 << 30])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_size_of_the_blocks_changes_nothing(monkeypatch, rows, groups):
    def run():
        layer = Conv2d(
            4, 6, 3, stride=(2, 1), padding=1, groups=groups, padding_mode="circular", rng=0, dtype="float64"
        )
        y = layer(normal(5, 4, 6, 5))
        return y, layer.backward(normal(*y.shape, seed=1)), layer.weight.grad, layer.bias.grad

    wanted = run()
    monkeypatch.setattr("backhand.layers.correlation.CHUNK_BYTES", 1)
    monkeypatch.setattr("backhand.layers.correlation.CHUNK_ROWS", rows)
    for got, reference in zip(run(), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-12, atol=1e-12)


def loop_pool(x, dout, kernel, stride, padding, ceil_mode, reduce):
    """y and dx of a pooling of (N, C, H, W), one window at a time; `reduce` is "max" or "avg" (without the padding)."""
    (h, w), outputs = x.shape[2:], []
    for size, k, s, p in zip((h, w), kernel, stride, padding, strict=True):
        starts = [start for start in range(-p, size + p, s) if ceil_mode or start + k <= size + p]
        if ceil_mode:  # starts inside x or the padding before it, and one that already reaches the end is the last
            starts = [a for i, a in enumerate(starts) if a < size and (i == 0 or starts[i - 1] + k < size + p)]
        outputs.append([range(max(a, 0), min(a + k, size)) for a in starts])
    y = np.zeros((*x.shape[:2], len(outputs[0]), len(outputs[1])))
    dx = np.zeros_like(x)
    for i, c in np.ndindex(x.shape[:2]):
        for (a, rows), (b, columns) in itertools.product(enumerate(outputs[0]), enumerate(outputs[1])):
            cells = list(itertools.product(rows, columns))
            values = [x[i, c, r, q] for r, q in cells]
            y[i, c, a, b] = max(values) if reduce == "max" else sum(values) / len(values)
            share = 1 / len(cells)
            for (r, q), value in zip(cells, values, strict=True):
                if reduce == "avg":
                    dx[i, c, r, q] += share * dout[i, c, a, b]
                elif value == max(values):
                    dx[i, c, r, q] += dout[i, c, a, b]
                    break
    return y, dx


@pytest.mark.parametrize("reduce", ["max", "avg"])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 0)), ((2, 3), (3, 2), (1, 1))]
)
def test_pooling_is_the_loop(kernel, stride, padding, ceil_mode, reduce):
    if reduce == "max":
        layer = MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
    else:
        layer = AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad=False)
    x = normal(2, 3, 6, 5).round(1)  # rounded, so that there are ties
    y = layer(x)
    dout = normal(*y.shape, seed=1)
    dx = layer.backward(dout)
    wanted, wanted_dx = loop_pool(x, dout, kernel, stride, padding, ceil_mode, reduce)
    np.testing.assert_allclose(y, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, wanted_dx, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- worked by hand


def test_a_convolution_worked_by_hand():
    layer = Conv1d(1, 1, 2, dtype="float64")
    layer.weight.data[...], layer.bias.data[...] = [[[2.0, -1.0]]], [0.5]
    y = layer(np.array([[[1.0, 3.0, 2.0]]]))
    # 2*1 - 3 + 0.5,  2*3 - 2 + 0.5
    assert y.tolist() == [[[-0.5, 4.5]]]
    dx = layer.backward(np.array([[[1.0, 10.0]]]))
    # the middle element is seen by both windows: -1*1 + 2*10
    assert dx.tolist() == [[[2.0, 19.0, -10.0]]]
    assert layer.weight.grad.tolist() == [[[31.0, 23.0]]]  # 1*1 + 10*3,  1*3 + 10*2
    assert layer.bias.grad.tolist() == [11.0]


def test_pooling_worked_by_hand():
    x = np.array([[[3.0, 5.0, 5.0, 1.0]]])
    layer = MaxPool1d(3, 1, return_indices=True)
    y, indices = layer(x)
    assert (y.tolist(), indices.tolist(), indices.dtype) == ([[[5.0, 5.0]]], [[[1, 1]]], np.int64)
    # the first of the equal ones wins both windows, and gets the sum
    assert layer.backward((np.array([[[1.0, 10.0]]]), None)).tolist() == [[[0.0, 11.0, 0.0, 0.0]]]
    layer = AvgPool1d(2, 1)
    assert layer(x).tolist() == [[[4.0, 5.0, 3.0]]]
    assert layer.backward(np.array([[[2.0, 4.0, 6.0]]])).tolist() == [[[1.0, 3.0, 5.0, 3.0]]]
    assert AdaptiveAvgPool1d(3)(x).tolist() == [[[4.0, 5.0, 3.0]]]  # cells [0, 2), [1, 3), [2, 4)


def test_the_number_of_windows_at_the_edge_of_ceil_mode():
    layer, windows = MaxPool1d(2), Windows((2,), (2,), (1,))
    assert windows.outputs(layer, (5,), ((0, 0),)) == (2,)
    assert windows.outputs(layer, (5,), ((0, 0),), ceil_mode=True) == (3,)
    # a fourth window would start at 5, in the padding after the input
    assert windows.outputs(layer, (5,), ((1, 1),), ceil_mode=True) == (3,)
    assert Windows((1,), (3,), (1,)).outputs(layer, (3,), ((0, 0),), ceil_mode=True) == (1,)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_with_an_even_kernel_pads_more_at_the_end(torch):
    layer = Conv1d(1, 1, 4, padding="same", bias=False, dtype="float64")
    layer.weight.data[...] = [[[1000.0, 100.0, 10.0, 1.0]]]
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    # three zeros in all: one before x and two after it
    assert layer(x).tolist() == [[[123.0, 1234.0, 2340.0, 3400.0]]]
    for kernel, dilation in itertools.product([2, 4, (2, 5)], [1, 3]):
        ours = Conv2d(1, 1, kernel, padding="same", dilation=dilation, dtype="float64")
        theirs = torch.nn.Conv2d(1, 1, kernel, padding="same", dilation=dilation).double()
        theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
        x = normal(1, 1, 6, 7)
        np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            Conv2d(3, 8, 3),
            (2, 1, 5, 5),
            r"Conv2d\(3, 8, 3\): expected x of shape \(N, 3, H, W\) or \(3, H, W\), got \(2, 1",
        ),
        (Conv2d(3, 8, 3), (2, 5, 5, 3), r"got \(2, 5, 5, 3\); the channels come before .* np.moveaxis\(x, -1, 1\)"),
        (Conv2d(1, 8, 3), (2, 28, 28), r"got \(2, 28, 28\); x\[:, None\] gives it an axis of one channel"),
        (Conv2d(3, 8, 3), (3, 5), r"expected x of shape"),
        (
            Conv2d(3, 8, 3),
            (2, 3, 5, 2),
            r"one window of \(3, 3\) fits into, got \(2, 3, 5, 2\), which is \(5, 2\) with",
        ),
        (Conv1d(2, 2, 3, dilation=3, padding=1), (2, 2, 4), r"window of \(7,\).*which is \(6,\)"),
        (Conv1d(2, 2, 3, padding=3, padding_mode="reflect"), (2, 2, 3), r"reflected padding of 3"),
        (Conv1d(2, 2, 3, padding=4, padding_mode="circular"), (2, 2, 3), r"circular padding of 4"),
        (Conv2d(3, 8, 3), (0, 3, 5, 5), r"at least one sample"),
        (MaxPool2d(3), (2, 3, 2, 5), r"MaxPool2d\(3, stride=3\): expected x that one window of \(3, 3\) fits into"),
        (MaxPool2d(2), (2, 2), r"expected x of shape \(N, C, H, W\) or \(C, H, W\), got \(2, 2\)"),
        (MaxPool1d(2, 1, 1, 2), (2, 3, 1), r"expected x with an element in every window"),
        (AvgPool1d(4), (2, 3, 3), r"AvgPool1d\(4, stride=4\): expected x that one window"),
        (AdaptiveAvgPool2d(2), (2, 3), r"AdaptiveAvgPool2d\(2\): expected x of shape"),
    ],
)
def test_inputs_that_do_not_fit_change_nothing(layer, shape, message):
    before = layer.state_dict()
    with pytest.raises(LayerError, match=message):
        layer.forward(normal(*shape))
    with pytest.raises(RuntimeError, match="no forward"):  # nothing is left saved
        layer.backward(np.zeros(3))
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_wrong_dout_costs_nothing():
    for layer in (Conv2d(2, 3, 3), MaxPool2d(2), AvgPool2d(2), AdaptiveAvgPool2d(1)):
        y = layer(normal(1, 2, 4, 4, dtype=np.float32))
        with pytest.raises(LayerError, match="expected dout of shape"):
            layer.backward(np.zeros((*y.shape, 2)))
        assert all(not p.grad.any() for p in layer.parameters())
        assert layer.backward(y).shape == (1, 2, 4, 4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Conv2d(0, 1, 3),
        lambda: Conv2d(1, -1, 3),
        lambda: Conv2d(1, 1, 0),
        lambda: Conv2d(1, 1, (3, 3, 3)),
        lambda: Conv2d(1, 1, 2.5),
        lambda: Conv2d(1, 1, 3, stride=0),
        lambda: Conv2d(1, 1, 3, padding=-1),
        lambda: Conv2d(1, 1, 3, padding="full"),
        lambda: Conv2d(1, 1, 3, stride=2, padding="same"),
        lambda: Conv2d(1, 1, 3, dilation=0),
        lambda: Conv2d(3, 4, 3, groups=2),
        lambda: Conv2d(4, 3, 3, groups=2),
        lambda: Conv2d(1, 1, 3, groups=0),
        lambda: Conv2d(1, 1, 3, padding_mode="constant"),
        lambda: MaxPool2d(0),
        lambda: MaxPool2d(2, 0),
        lambda: MaxPool2d(3, padding=2),
        lambda: MaxPool2d(2, padding=-1),
        lambda: MaxPool2d(2, dilation=0),
        lambda: MaxPool3d((2, 2)),
        lambda: AvgPool1d(3, padding=2),
        lambda: AvgPool2d(2, divisor_override=0),
        lambda: AvgPool2d(2, divisor_override=1.5),
        lambda: AdaptiveAvgPool2d(0),
        lambda: AdaptiveAvgPool2d((1, 2, 3)),
        lambda: AdaptiveAvgPool1d("1"),
    ],
)
def test_impossible_arguments(build):
    with pytest.raises(
        ValueError, match=r"^(Conv2d|MaxPool[23]d|AvgPool[12]d|AdaptiveAvgPool[12]d): expected .*, got "
    ):
        build()


# ---------------------------------------------------------------------- how they stand


def test_repr_is_the_constructor_call():
    for text in (
        "Conv2d(3, 8, 3)",
        "Conv2d(3, 8, (3, 2), padding='same', bias=False)",
        "Conv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2, padding_mode='reflect')",
        "MaxPool2d(2, stride=2)",
        "MaxPool2d((2, 3), stride=1, padding=(1, 0), return_indices=True, ceil_mode=True)",
        "AvgPool2d(2, stride=2, count_include_pad=False, divisor_override=3)",
        "AdaptiveAvgPool2d((1, None))",
    ):
        assert repr(eval(text)) == text


def test_the_attributes_are_torchs_tuples():
    layer = Conv2d(3, 8, 3, padding=1)
    assert (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))


def test_memory_stays_channels_last_through_the_layers():
    x = normal(2, 3, 8, 8, dtype=np.float32)
    for layer in (Conv2d(3, 4, 3), ReLU(), MaxPool2d(2), AvgPool2d(2, 1), AdaptiveAvgPool2d(1)):
        x = layer(x)
        assert np.moveaxis(x, 1, -1).flags.c_contiguous
        assert x.dtype == np.float32


def test_initial_weights_are_torchs_distribution():
    layer = Conv2d(8, 200, (3, 2), groups=2, rng=0)
    bound = 1 / np.sqrt(4 * 6)
    for parameter in (layer.weight, layer.bias):
        assert np.abs(parameter.data).max() <= bound
        assert abs(parameter.data.std() * np.sqrt(3) / bound - 1) < 0.1
