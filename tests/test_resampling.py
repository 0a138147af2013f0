"""Layers that are the backward of another, worked values of the others, and what they refuse."""

import numpy as np
import pytest

from backhand.layers import (
    AdaptiveMaxPool1d,
    CircularPad1d,
    ConstantPad2d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Fold,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    LayerError,
    LayerNorm,
    LocalResponseNorm,
    LPPool1d,
    LPPool2d,
    MaxPool2d,
    MaxUnpool1d,
    MaxUnpool2d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReplicationPad1d,
    RMSNorm,
    Unfold,
    Upsample,
    ZeroPad1d,
    ZeroPad2d,
)

CONV = {1: (Conv1d, ConvTranspose1d), 2: (Conv2d, ConvTranspose2d), 3: (Conv3d, ConvTranspose3d)}


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------- each the backward of another


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 1)])
def test_transposed_convolution_is_the_backward_of_convolution_and_its_backward_the_forward(
    n, stride, padding, dilation, groups
):
    conv_class, transposed_class = CONV[n]
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": False}
    conv = conv_class(4, 6, 3, **arguments, dtype="float64")
    transposed = transposed_class(6, 4, 3, **arguments, dtype="float64")
    transposed.weight.data[...] = conv.weight.data  # the same shape: that is torch's convention
    image = normal(2, 4, *(9, 8, 7)[:n])
    rows = conv(image)
    small = normal(*rows.shape, seed=1)
    large = transposed(small, output_size=image.shape)
    np.testing.assert_allclose(large, conv.backward(small), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(transposed.backward(image), rows, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(transposed.weight.grad, conv.weight.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 10, 1 << 30])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_size_of_the_blocks_changes_nothing(monkeypatch, rows, groups):
    def run():
        layer = ConvTranspose2d(4, 6, 3, stride=(2, 1), padding=1, groups=groups, rng=0, dtype="float64")
        y = layer(normal(5, 4, 6, 5))
        return y, layer.backward(normal(*y.shape, seed=1)), layer.weight.grad, layer.bias.grad

    wanted = run()
    monkeypatch.setattr("backhand.layers.correlation.CHUNK_BYTES", 1)
    monkeypatch.setattr("backhand.layers.correlation.CHUNK_ROWS", rows)
    for got, reference in zip(run(), wanted, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-12, atol=1e-12)


def test_each_pixel_paints_the_kernel():
    layer = ConvTranspose1d(1, 1, 3, stride=2, bias=False, dtype="float64")
    layer.weight.data[...] = [[[1, 2, 3]]]
    assert layer([[10.0, 1.0]]).tolist() == [[10, 20, 31, 2, 3]]
    assert layer([[10.0, 1.0]], output_size=[6]).tolist() == [[10, 20, 31, 2, 3, 0]]


def test_a_convolution_is_unfold_and_a_product():
    conv = Conv2d(3, 5, (2, 3), (2, 1), (1, 2), (1, 2), bias=False, dtype="float64")
    x = normal(2, 3, 5, 6)
    columns = Unfold((2, 3), (1, 2), (1, 2), (2, 1))(x)
    y = conv(x)
    np.testing.assert_allclose((conv.weight.data.reshape(5, -1) @ columns).reshape(y.shape), y, rtol=1e-12, atol=1e-12)


def test_fold_counts_how_many_windows_a_pixel_is_in():
    assert Fold(3, 2)(Unfold(2)(np.ones((1, 3, 3))))[0].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_unpooling_puts_the_maxima_back():
    x = np.array([[[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 9.0, 8.0]]])
    pool, unpool = MaxPool2d(2, return_indices=True), MaxUnpool2d(2)
    back = unpool(*pool(x))
    assert back.tolist() == [[[0, 5, 0, 0], [0, 0, 9, 0]]]
    dx, none = unpool.backward(np.arange(8.0).reshape(1, 2, 4))
    assert dx.tolist() == [[[1, 6]]]
    assert none is None
    assert unpool(*pool(x), output_size=(3, 5)).shape == (1, 3, 5)
    indices = np.array([[0, 2]])
    layer = MaxUnpool1d(2)
    layer(np.array([[1.0, 2.0]]), indices)
    indices[...] = 3  # the caller's array is the caller's
    assert layer.backward(np.array([[5.0, 6.0, 7.0, 8.0]]))[0].tolist() == [[5, 7]]


# ---------------------------------------------------------------------- worked values


def test_the_borders():
    x = np.array([[1.0, 2.0, 3.0]])
    assert ZeroPad1d(1)(x).tolist() == [[0, 1, 2, 3, 0]]
    assert ConstantPad2d((1, 0, 0, 1), 7)(x[None]).tolist() == [[[7, 1, 2, 3], [7, 7, 7, 7]]]
    assert ReflectionPad1d((2, 1))(x).tolist() == [[3, 2, 1, 2, 3, 2]]
    assert ReplicationPad1d((2, 1))(x).tolist() == [[1, 1, 1, 2, 3, 3]]
    assert CircularPad1d((2, 1))(x).tolist() == [[2, 3, 1, 2, 3, 1]]
    assert ZeroPad1d((-1, 1))(x).tolist() == [[2, 3, 0]]
    layer = ReplicationPad1d((2, 1))
    layer(x)
    assert layer.backward(np.arange(6.0)[None]).tolist() == [[0 + 1 + 2, 3, 4 + 5]]


def test_a_padding_of_nothing_is_a_copy():
    for layer in (ZeroPad1d(0), ReflectionPad1d(0), CircularPad1d(0)):
        x = np.array([[1.0, -0.0]])
        y = layer(x)
        x[0, 0] = 5
        assert y.tolist() == [[1, 0]]
        assert np.signbit(y[0, 1])


def test_neighbours_and_weights():
    x = np.array([[[1.0, 3.0]]])
    assert Upsample(5)(x).tolist() == [[[1, 1, 1, 3, 3]]]
    assert Upsample(scale_factor=2, mode="linear")(x).tolist() == [[[1, 1.5, 2.5, 3]]]
    assert Upsample(3, mode="linear", align_corners=True)(x).tolist() == [[[1, 2, 3]]]
    assert Upsample(scale_factor=1.6, mode="nearest-exact")(np.array([[[1.0, 2.0, 3.0]]])).tolist() == [[[1, 1, 2, 3]]]
    assert Upsample(3, mode="area")(np.array([[[1.0, 2.0, 3.0, 4.0]]])).tolist() == [[[1.5, 2.5, 3.5]]]


def test_bicubic_weights_are_those_of_the_kernel_and_the_edge_repeats():
    x = np.tile(np.arange(8.0), (1, 1, 8, 1))
    y = Upsample(scale_factor=2, mode="bicubic")(x)[0, 0, 0]
    # the eighth stands at 13/4, between the pixels 3 and 4
    assert y[7] == pytest.approx(2 * _cubic(1.25) + 3 * _cubic(0.25) + 4 * _cubic(0.75) + 5 * _cubic(1.75))
    # the first stands at -1/4; its neighbours -2, -1, 0, 1 are the pixels 0, 0, 0, 1
    assert y[0] == pytest.approx(_cubic(1.25) * 1)


def _cubic(d, a=-0.75):
    return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a


def test_infinity_stays_where_it_is():
    """A dense matrix would turn a whole line into nan."""
    y = Upsample(8, mode="linear")(np.array([[[1.0, 2.0, 3.0, np.inf]]]))
    assert np.isfinite(y[0, 0, :5]).all()
    layer = Upsample(8)
    layer(np.zeros((1, 1, 4)))
    dx = layer.backward(np.array([[[np.inf, 0, 1, 2, 3, 4, 5, 6]]]))
    assert dx.tolist() == [[[np.inf, 3, 7, 11]]]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "area"])
def test_upsampling_from_one_pixel_and_to_one(mode):
    layer = Upsample(1000, mode=mode)
    assert (layer(np.full((1, 1, 1), 2.5)) == 2.5).all()
    assert layer.backward(np.ones((1, 1, 1000))).item() == pytest.approx(1000)
    assert Upsample(1, mode=mode)(np.full((1, 1, 9), 2.5)).tolist() == [[[2.5]]]


def test_power_averages():
    x = np.array([[3.0, 4.0, -1.0, 2.0]])
    assert LPPool1d(2, 2)(x).tolist() == [[5, np.sqrt(5)]]
    assert LPPool1d(1, 2)(x).tolist() == [[7, 1]]
    assert LPPool1d(np.inf, 2)(-x).tolist() == [[4, 2]]
    assert LPPool1d(-np.inf, 2)(x).tolist() == [[3, 1]]
    layer = LPPool1d(2, 2)
    layer(np.zeros((1, 2)))
    assert layer.backward([[1.0]]).tolist() == [[0, 0]]  # and no warning


def test_adaptive_maximum_says_where_it_was():
    y, index = AdaptiveMaxPool1d(2, return_indices=True)(np.array([[1.0, 7.0, 7.0, 2.0, 9.0]]))
    assert y.tolist() == [[7, 9]]
    assert index.tolist() == [[1, 4]]
    layer = AdaptiveMaxPool1d(2)
    layer(np.array([[1.0, 2.0, 1.0]]))  # both cells hold the middle one
    assert layer.backward([[10.0, 1.0]]).tolist() == [[0, 11, 0]]


def test_local_response_of_the_paper():
    x = normal(2, 6, 3)
    got = LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)(x)
    for c in range(6):
        activity = 2 + 1e-4 * (x[:, max(0, c - 2) : c + 3] ** 2).sum(axis=1)
        np.testing.assert_allclose(got[:, c], x[:, c] / activity**0.75, rtol=1e-12)


def test_an_even_window_of_channels_leans_to_the_left():
    x = np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1)
    got = LocalResponseNorm(2, alpha=2, beta=1, k=0)(x)
    np.testing.assert_allclose(got.reshape(-1), [1, 10 / 101, 100 / 10100])


def test_group_norm_lies_between_layer_norm_and_instance_norm():
    x = normal(3, 4, 5, 2)
    whole = LayerNorm((4, 5, 2), elementwise_affine=False)(x)
    np.testing.assert_allclose(GroupNorm(1, 4, affine=False)(x), whole, rtol=1e-12)
    np.testing.assert_allclose(GroupNorm(4, 4, affine=False)(x), InstanceNorm2d(4)(x), rtol=1e-12)


def test_rms_norm_keeps_the_mean():
    np.testing.assert_allclose(RMSNorm(2, eps=0)(np.array([3.0, 4.0])), np.array([3, 4]) / np.sqrt(12.5), rtol=1e-7)
    assert RMSNorm(4)(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]


def test_instance_norm_tracks_the_mean_over_the_samples():
    x = normal(4, 3, 5)
    layer = InstanceNorm1d(3, momentum=0.25, track_running_stats=True, dtype="float64")
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.25 * x.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, 0.75 + 0.25 * x.var(axis=2, ddof=1).mean(axis=0), rtol=1e-12)
    assert layer.num_batches_tracked == 0
    y = layer.eval()(x[0])
    running = layer.running_mean[:, None], layer.running_var[:, None]
    np.testing.assert_allclose(y, (x[0] - running[0]) / np.sqrt(running[1] + 1e-5), rtol=1e-12)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: ConvTranspose1d(2, 3, 3)(normal(1, 3, 4)), r"\(N, 2, L\) or \(2, L\)"),
        (lambda: ConvTranspose1d(2, 3, 3, padding=4)(normal(1, 2, 4)), "leaves something"),
        (lambda: ConvTranspose1d(2, 3, 3, 2, output_padding=2)(normal(1, 2, 4)), "smaller than either stride"),
        (lambda: ConvTranspose1d(2, 3, 3, 2)(normal(1, 2, 4), output_size=[11]), r"from \(9,\) to \(10,\)"),
        (lambda: ConvTranspose1d(2, 3, 3, 2)(normal(1, 2, 4), output_size=[1, 9]), "output_size"),
        (lambda: ConvTranspose2d(2, 3, 3, padding_mode="reflect"), "padding_mode 'zeros'"),
        (lambda: ConvTranspose2d(2, 3, 3, groups=2), "multiple of groups"),
        (lambda: Unfold(4)(normal(1, 3, 3)), r"one window of \(4, 4\)"),
        (lambda: Fold(3, 2)(normal(1, 8, 5)), r"\(N, C \* 4, 4\)"),
        (lambda: MaxUnpool1d(2)(normal(1, 2, 2), np.full((1, 2, 2), 4)), r"indices in \[0, 4\)"),
        (lambda: MaxUnpool1d(2)(normal(1, 2, 2), np.full((1, 2, 2), 0.5)), "integers"),
        (lambda: MaxUnpool1d(2)(normal(1, 2, 2), np.zeros((2, 2), int)), "x's shape"),
        (lambda: MaxUnpool1d(2)(normal(1, 2, 2), np.zeros((1, 2, 2), int), output_size=[9]), "output_size"),
        (lambda: ReflectionPad1d(3)(normal(1, 3)), "reflected padding of 3"),
        (lambda: ReflectionPad2d((1, 2)), "an integer or 4 of them"),
        (lambda: ZeroPad2d(1.5), "padding to be an integer, got 1.5"),
        (lambda: Upsample(), "either size or scale_factor"),
        (lambda: Upsample(2, 2.0), "either size or scale_factor"),
        (lambda: Upsample(0), "size"),
        (lambda: Upsample(scale_factor=-1), "positive"),
        (lambda: Upsample(2, mode="cubic"), "mode to be .nearest."),
        (lambda: Upsample(2, mode="nearest", align_corners=True), "align_corners"),
        (lambda: Upsample(2, mode="linear", recompute_scale_factor=True), "recompute_scale_factor"),
        (lambda: Upsample(2, mode="linear")(normal(1, 2, 3, 3)), r"\(N, C, L\)"),
        (lambda: Upsample((2, 2))(normal(1, 2, 3)), "2 spatial axes"),
        (lambda: Upsample(scale_factor=0.3)(normal(1, 2, 3)), "a pixel remains"),
        (lambda: LPPool2d(0, 2), "norm_type other than 0"),
        (lambda: GroupNorm(3, 4), "multiple of num_groups"),
        (lambda: GroupNorm(2, 4)(normal(1, 3, 2)), r"\(N, 4, \.\.\.\)"),
        (lambda: GroupNorm(2, 2)(normal(1, 2)), "more than one value"),
        (lambda: InstanceNorm1d(3)(normal(2, 3, 1)), "more than one value"),
        (lambda: InstanceNorm1d(3, affine=True)(normal(2, 4, 2)), r"\(N, 3, L\)"),
        (lambda: LocalResponseNorm(2)(normal(2, 2)), "at least three axes"),
        (lambda: RMSNorm(3)(normal(2, 4)), r"\(\.\.\., 3\)"),
    ],
)
def test_refusals(call, problem):
    with pytest.raises(ValueError, match=problem):
        call()


def test_what_is_refused_changes_nothing():
    layer = InstanceNorm1d(3, track_running_stats=True)
    before = layer.state_dict()
    with pytest.raises(LayerError):
        layer(normal(2, 3, 1))
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert not layer.__dict__.get("_stack")
