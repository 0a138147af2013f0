"""Normalization against loops and hand-worked numbers; running statistics; the derivation's own consequences."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhand.inspection import check_layer
from backhand.layers import BatchNorm1d, BatchNorm2d, BatchNorm3d, Layer, LayerError, LayerNorm, Parameter
from backhand.layers.normalization import centre, standardize, standardize_backward
from tests.cases import spread_parameters

ALL = [(BatchNorm1d, (4, 3)), (BatchNorm1d, (4, 3, 5)), (BatchNorm2d, (2, 3, 4, 5)), (BatchNorm3d, (2, 3, 2, 2, 3))]


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def state(layer):
    return {name: array.tobytes() for name, array in layer.state_dict().items()}


def channels_last(x):
    """The same numbers, with the channels innermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


# ---------------------------------------------------------------------- BatchNorm


@pytest.mark.parametrize(("cls", "shape"), ALL)
def test_batch_norm_is_the_loop_over_channels(cls, shape):
    bn, x = cls(3, eps=0.1, dtype=np.float64), normal(*shape)
    spread_parameters(bn)
    before = bn.state_dict()
    y = bn(x)
    for c in range(3):
        values = x[:, c].reshape(-1)
        mean = sum(values) / len(values)
        biased = sum((values - mean) ** 2) / len(values)
        unbiased = sum((values - mean) ** 2) / (len(values) - 1)
        wanted = bn.weight.data[c] * (x[:, c] - mean) / (biased + 0.1) ** 0.5 + bn.bias.data[c]
        np.testing.assert_allclose(y[:, c], wanted, rtol=1e-12)
        np.testing.assert_allclose(bn.running_mean[c], 0.9 * before["running_mean"][c] + 0.1 * mean)
        np.testing.assert_allclose(bn.running_var[c], 0.9 * before["running_var"][c] + 0.1 * unbiased)


def test_two_values_by_hand():
    bn = BatchNorm1d(1, eps=3.0, dtype=np.float64)
    # mean 2, variance 1 (divided by 2) or 2 (divided by 1), sqrt(1 + 3) = 2
    assert bn([[1.0], [3.0]]).tolist() == [[-0.5], [0.5]]
    np.testing.assert_allclose(bn.running_mean, [0.2])
    np.testing.assert_allclose(bn.running_var, [0.9 + 0.2])
    assert bn.num_batches_tracked == 1
    # d = (1, 0): mean 0.5, mean(d xhat) = -0.25; dx = (1 - 0.5 - 0.125, -0.5 + 0.125) / 2
    np.testing.assert_allclose(bn.backward([[1.0], [0.0]]), [[0.1875], [-0.1875]])
    assert bn.weight.grad.tolist() == [-0.5]
    assert bn.bias.grad.tolist() == [1.0]


def test_momentum_none_is_the_plain_average_of_all_batches():
    bn = BatchNorm1d(3, momentum=None, dtype=np.float64)
    batches = [normal(n, 3, seed=n) for n in (4, 5, 6)]
    for batch in batches:
        bn(batch)
    np.testing.assert_allclose(bn.running_mean, np.mean([b.mean(0) for b in batches], axis=0))
    np.testing.assert_allclose(bn.running_var, np.mean([b.var(0, ddof=1) for b in batches], axis=0))
    # it goes on from a loaded state
    other = BatchNorm1d(3, momentum=None, dtype=np.float64)
    other.load_state_dict(bn.state_dict())
    last = normal(7, 3, seed=7)
    other(last)
    np.testing.assert_allclose(other.running_mean, np.mean([b.mean(0) for b in [*batches, last]], axis=0))
    assert other.num_batches_tracked == 4


def test_buffers_are_torchs():
    bn = BatchNorm2d(3)
    assert list(bn.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    count = bn.state_dict()["num_batches_tracked"]
    assert (count.shape, count.dtype) == ((), np.int64)
    bn(normal(2, 3, 4, 4, dtype=np.float32))
    assert isinstance(bn.num_batches_tracked, np.ndarray)
    assert bn.num_batches_tracked.dtype == np.int64
    assert bn.running_mean.dtype == bn.running_var.dtype == np.float32
    assert list(BatchNorm2d(3, track_running_stats=False).state_dict()) == ["weight", "bias"]
    assert next(iter(BatchNorm2d(3, affine=False).state_dict())) == "running_mean"


def test_running_statistics_move_in_place_and_in_training_only():
    bn, x = BatchNorm1d(3), normal(5, 3, dtype=np.float32)
    mean, var, count = bn.running_mean, bn.running_var, bn.num_batches_tracked
    bn(x)
    bn(x)  # twice before any backward: twice counted
    assert bn.running_mean is mean and bn.running_var is var and bn.num_batches_tracked is count
    assert count == 2
    assert mean.any() and (var != 1).all()
    before = state(bn)
    for mode in (bn.eval(), bn.eval(caching=True)):
        mode(x)
        assert state(bn) == before
    bn.backward(x)
    assert state(bn) == before


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 3)),
        np.zeros((1, 3, 1)),
        np.zeros((4, 2)),
        np.zeros((3,)),
        np.zeros((4, 3, 2, 2)),
        np.zeros((0, 3)),
        np.array([["a", "b", "c"]] * 2),
        np.zeros((4, 3), complex),
    ],
    ids=lambda x: f"{x.dtype}{x.shape}",
)
def test_refused_input_changes_nothing(x):
    bn = BatchNorm1d(3)
    bn(normal(4, 3))
    before, kept = state(bn), len(bn._stack)
    with pytest.raises(LayerError, match=r"BatchNorm1d\(3\): expected"):
        bn.forward(x)
    assert state(bn) == before
    assert len(bn._stack) == kept
    with pytest.raises(LayerError):
        bn.backward(np.zeros((4, 4)))
    assert len(bn._stack) == kept and not bn.weight.grad.any()
    bn.backward(np.ones((4, 3)))


def test_messages_say_what_to_do():
    with pytest.raises(LayerError, match=r"BatchNorm2d\(3\): expected x of shape \(N, 3, H, W\), got \(3, 4, 4\)"):
        BatchNorm2d(3)(np.zeros((3, 4, 4)))
    with pytest.raises(LayerError, match=r"\(N, 3\) or \(N, 3, L\)"):
        BatchNorm1d(3)(np.zeros((2, 4)))
    with pytest.raises(LayerError, match=r"more than one value .* got \(1, 3\); eval\(\) uses"):
        BatchNorm1d(3)(np.zeros((1, 3)))
    with pytest.raises(
        LayerError, match=r"LayerNorm\(\(3, 4\),?.*\): expected x of shape \(\.\.\., 3, 4\), got \(4, 3\)"
    ):
        LayerNorm((3, 4))(np.zeros((4, 3)))


def test_one_value_is_enough_for_running_statistics_only():
    assert BatchNorm1d(3).eval()(np.ones((1, 3))).shape == (1, 3)
    untracked = BatchNorm1d(3, track_running_stats=False).eval()
    with pytest.raises(LayerError, match="more than one value"):
        untracked(np.ones((1, 3)))


def test_eval_is_an_affine_map_of_each_channel():
    bn = BatchNorm2d(3, dtype=np.float64)
    spread_parameters(bn)
    bn(normal(4, 3, 5, 5))
    bn.zero_grad()
    bn.eval(caching=True)
    x, dout = normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    slope = (bn.weight.data / np.sqrt(bn.running_var + bn.eps))[:, None, None]
    offset = bn.bias.data[:, None, None] - slope * bn.running_mean[:, None, None]
    np.testing.assert_allclose(bn(x), slope * x + offset)
    np.testing.assert_allclose(bn.backward(dout), slope * dout)
    check_layer(bn, x)


def test_training_between_forward_and_backward_does_not_mix_the_modes():
    bn, x, dout = BatchNorm1d(3, dtype=np.float64), normal(5, 3), normal(5, 3, seed=1)
    alone = copy.deepcopy(bn)
    alone(x)
    wanted = alone.backward(dout)
    bn(x)
    bn.eval(caching=True)
    np.testing.assert_array_equal(bn.backward(dout), wanted)


def test_a_training_forward_does_not_reach_back_to_an_eval_forward():
    bn, x, dout = BatchNorm1d(3, dtype=np.float64).eval(caching=True), normal(5, 3), normal(5, 3, seed=1)
    bn(x)
    bn.backward(dout)
    wanted = bn.weight.grad.copy()
    bn.zero_grad()
    bn(x)
    bn.train()(100 + x)
    bn.backward(0 * dout)
    bn.backward(dout)
    np.testing.assert_allclose(bn.weight.grad, wanted)


def test_without_statistics_the_batch_serves_in_eval_too():
    bn, x = BatchNorm1d(3, track_running_stats=False), normal(5, 3, dtype=np.float32)
    np.testing.assert_array_equal(bn.eval()(x), bn.train()(x))


def test_switching_the_tracking_off_later_freezes_the_statistics():
    bn, x = BatchNorm1d(3), normal(5, 3, dtype=np.float32)
    bn(x)
    before = state(bn)
    bn.track_running_stats = False
    np.testing.assert_array_equal(bn(2 * x), BatchNorm1d(3)(2 * x))
    assert state(bn) == before
    assert (bn.eval()(x) != BatchNorm1d(3)(x)).any()  # as in torch, what there is still serves in eval


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("affine", [True, False])
def test_memory_order_is_kept(affine, evaluate):
    x = channels_last(normal(2, 3, 4, 5, dtype=np.float32))
    bn = BatchNorm2d(3, affine=affine)
    if evaluate:
        bn.eval(caching=True)
    y = bn(x)
    dx = bn.backward(channels_last(normal(2, 3, 4, 5, seed=1, dtype=np.float32)))
    assert y.strides == dx.strides == x.strides
    plain = BatchNorm2d(3, affine=affine).train(not evaluate)
    np.testing.assert_allclose(y, plain(np.ascontiguousarray(x)), rtol=1e-4, atol=1e-6)


def test_float32_stays_sharp_far_from_zero():
    x = 100 + normal(64, 2, 28, 28)
    wanted = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    for single in (x.astype(np.float32), channels_last(x.astype(np.float32))):
        y = BatchNorm2d(2)(single)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, wanted, atol=1e-4)


def test_dtype_is_the_layers_or_the_inputs():
    x = normal(4, 3)
    for bn in (BatchNorm1d(3), BatchNorm1d(3, affine=False)):
        assert bn(x).dtype == bn.backward(x).dtype == np.float32
    free = BatchNorm1d(3, affine=False, track_running_stats=False)
    assert free(x).dtype == np.float64
    assert free(x.astype(np.float32)).dtype == np.float32
    double = BatchNorm1d(3).astype(np.float64)
    double(x)
    assert double.running_var.dtype == np.float64
    assert double.num_batches_tracked.dtype == np.int64


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: BatchNorm1d(0), "num_features"),
        (lambda: BatchNorm1d(2.5), "num_features"),
        (lambda: BatchNorm2d(3, eps=0), "eps"),
        (lambda: BatchNorm2d(3, eps=-1e-5), "eps"),
        (lambda: BatchNorm2d(3, momentum=float("nan")), "momentum"),
        (lambda: LayerNorm(()), "normalized_shape"),
        (lambda: LayerNorm((3, 0)), "normalized_shape"),
        (lambda: LayerNorm(4, eps=float("nan")), "eps"),
    ],
)
def test_impossible_constructor_arguments(build, problem):
    with pytest.raises(ValueError, match=problem):
        build()


def test_repr_is_the_call():
    assert repr(BatchNorm2d(3)) == "BatchNorm2d(3)"
    assert repr(BatchNorm1d(3, momentum=None, track_running_stats=False)) == (
        "BatchNorm1d(3, momentum=None, track_running_stats=False)"
    )
    assert repr(BatchNorm1d(3, bias=False)) == "BatchNorm1d(3, bias=False)"
    assert repr(LayerNorm(4, dtype=np.float64)) == "LayerNorm((4,), dtype='float64')"


# ---------------------------------------------------------------------- LayerNorm


def test_layer_norm_is_the_loop_over_samples():
    ln, x = LayerNorm((3, 4), eps=0.1, dtype=np.float64), normal(2, 5, 3, 4)
    spread_parameters(ln)
    y = ln(x)
    for i in np.ndindex(2, 5):
        wanted = (x[i] - x[i].mean()) / np.sqrt(((x[i] - x[i].mean()) ** 2).mean() + 0.1)
        np.testing.assert_allclose(y[i], ln.weight.data * wanted + ln.bias.data, rtol=1e-12)


def test_layer_norm_by_hand():
    ln = LayerNorm(2, eps=3.0, dtype=np.float64)
    assert ln([1.0, 3.0]).tolist() == [-0.5, 0.5]
    np.testing.assert_allclose(ln.backward([1.0, 0.0]), [0.1875, -0.1875])
    assert ln.weight.grad.tolist() == [-0.5, 0.0]
    assert ln.bias.grad.tolist() == [1.0, 0.0]


def test_samples_of_a_layer_norm_do_not_see_each_other():
    ln, x = LayerNorm(4), normal(3, 4, dtype=np.float32)
    np.testing.assert_array_equal(ln(x)[1], ln(x[1:2])[0])
    ln.zero_grad()
    ln(x)
    dout = np.zeros((3, 4), np.float32)
    dout[1] = [1, 0, 0, 2]
    dx = ln.backward(dout)
    assert not dx[[0, 2]].any() and dx[1].any()


def test_layer_norm_takes_lists_and_keeps_a_tuple():
    assert LayerNorm([3, 4]).normalized_shape == (3, 4)
    assert LayerNorm(np.int64(3)).normalized_shape == (3,)


# ---------------------------------------------------------------------- the derivation


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple),
    scale=st.floats(0.01, 100),
    shift=st.floats(-100, 100),
    seed=st.integers(0, 99),
)
def test_no_gradient_along_what_normalization_takes_away(shape, scale, shift, seed):
    x, d = scale * normal(3, *shape, seed=seed) + shift, normal(3, *shape, seed=seed + 1)
    axes = tuple(range(1, x.ndim))
    mean, _, var = centre(x, axes)
    rstd = 1 / np.sqrt(var)  # with eps = 0 scaling changes nothing at all
    xhat = standardize(x, mean, rstd)
    dx = standardize_backward(d, xhat.copy(), rstd, axes)
    size = np.abs(d * rstd).sum()
    assert np.all(np.abs(dx.sum(axes)) <= 1e-9 * size)
    assert np.all(np.abs((dx * xhat).sum(axes)) <= 1e-9 * size)


class RootMeanSquare(Layer):
    """What a normalization that takes no mean off looks like with the shared helpers."""

    def __init__(self):
        self.weight = Parameter(np.array([0.5, 2.0, -1.0, 3.0]))

    def forward(self, x):
        rstd = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-3)
        self.save(x, rstd, out=x)
        return x * rstd * self.weight.data

    def backward(self, dout):
        dout = self.upstream(dout)
        x, rstd = self.saved()
        xhat = standardize(x, 0.0, rstd)
        self.weight.grad += (dout * xhat).reshape(-1, 4).sum(0)
        return standardize_backward(dout * self.weight.data, xhat, rstd, (x.ndim - 1,), centred=False)


def test_the_helpers_serve_a_normalization_without_a_mean():
    check_layer(RootMeanSquare(), normal(2, 3, 4))


# ---------------------------------------------------------------------- beside torch


@pytest.mark.parity
@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple),
    momentum=st.one_of(st.none(), st.floats(0, 1)),
    eps=st.floats(1e-6, 1.0),
    seed=st.integers(0, 99),
)
def test_training_then_eval_is_torchs(torch, shape, momentum, eps, seed):
    n, c, *rest = shape
    if n * int(np.prod(rest)) < 2:
        n = 2
    name = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[len(shape)]
    cls = {"BatchNorm1d": BatchNorm1d, "BatchNorm2d": BatchNorm2d, "BatchNorm3d": BatchNorm3d}[name]
    ours = cls(c, eps, momentum, dtype=np.float64)
    theirs = getattr(torch.nn, name)(c, eps, momentum).double()
    for turn in range(3):
        x = normal(n, c, *rest, seed=seed + turn)
        np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), rtol=1e-9, atol=1e-9)
    ours.eval(caching=True)
    theirs.eval()
    x, dout = normal(1, c, *rest, seed=seed + 3), normal(1, c, *rest, seed=seed + 4)
    tensor = torch.from_numpy(x).requires_grad_()
    y = theirs(tensor)
    y.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(ours(x), y.detach(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.backward(dout), tensor.grad, rtol=1e-9, atol=1e-9)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parity
def test_torchs_float32_is_ours(torch):
    x = normal(8, 3, 6, 6, dtype=np.float32)
    ours, theirs = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), rtol=1e-4, atol=1e-6)
