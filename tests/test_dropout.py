"""Dropout: what can be known about random masks."""

import numpy as np
import pytest

from backhand.layers import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    LayerError,
)
from backhand.models import Sequential


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_as_many_are_dropped_as_was_asked_and_the_mean_stays(p):
    n = 100_000
    y = Dropout(p, rng=0)(ones(n))
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs((y == 0).mean() - p) < 4 * deviation
    assert abs(y.mean(dtype=np.float64) - 1) < 4 * deviation / (1 - p)
    kept = y[y != 0]
    assert (kept == np.float32(1 / (1 - p))).all()


def test_neighbours_are_dropped_independently():
    dropped = Dropout(0.5, rng=1)(ones(1000, 100)) == 0
    both = (dropped[:, 1:] & dropped[:, :-1]).mean()
    assert abs(both - 0.25) < 0.01
    assert abs((dropped[1:] & dropped[:-1]).mean() - 0.25) < 0.01


def test_backward_uses_the_mask_of_its_own_forward():
    layer = Dropout(0.5, rng=0)
    x = np.arange(1, 41, dtype=np.float32)
    first, second = layer(x), layer(x)
    assert (first != second).any()  # every forward draws anew
    dout = ones(40) * 3
    np.testing.assert_array_equal(layer.backward(dout), np.where(second == 0, 0, 6))
    np.testing.assert_array_equal(layer.backward(dout), np.where(first == 0, 0, 6))


def test_what_is_kept_is_a_mask_of_bits():
    layer = Dropout(rng=0)
    layer(ones(4, 5))
    (mask,) = layer.saved()
    assert (mask.dtype, mask.shape) == (np.bool_, (4, 5))


def test_eval_is_the_identity_and_draws_nothing():
    layer, x = Dropout(0.9, rng=0), ones(3, 4)
    before = layer.rng.bit_generator.state
    np.testing.assert_array_equal(layer.eval()(x), x)
    layer.eval(caching=True)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(2 * x), 2 * x)
    assert layer.rng.bit_generator.state == before


def test_the_ends():
    x = ones(50)
    np.testing.assert_array_equal(Dropout(0)(x), x)
    everything = Dropout(1)
    np.testing.assert_array_equal(everything(x), 0 * x)
    np.testing.assert_array_equal(everything.backward(x), 0 * x)


def test_the_same_seed_gives_the_same_bits():
    x = ones(100)
    runs = [[layer(x).tobytes() for _ in range(3)] for layer in (Dropout(rng=7), Dropout(rng=7), Dropout(rng=8))]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_shared_generator_gives_each_layer_its_own_mask():
    rng = np.random.default_rng(0)
    one, two = Dropout(rng=rng), Dropout(rng=rng)
    assert (one(ones(100)) != two(ones(100))).any()


def test_the_mask_does_not_depend_on_the_memory_order_or_the_precision():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    layer = Dropout(rng=3)
    y = layer(last)
    assert y.strides == last.strides
    np.testing.assert_array_equal(y, Dropout(rng=3)(x))
    np.testing.assert_array_equal(y == 0, Dropout(rng=3)(x.astype(np.float32)) == 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4)])
def test_dtype_is_the_inputs(dtype, shape):
    layer = Dropout(0.3, rng=0)
    y = layer(np.ones(shape, dtype))
    assert y.dtype == dtype and y.shape == shape
    assert layer.backward(np.ones(shape)).dtype == dtype


def test_the_input_is_left_alone_even_inplace():
    x = ones(10)
    x.flags.writeable = False
    layer = Dropout(0.5, inplace=True, rng=0)
    layer(x)
    layer.backward(x)
    assert (x == 1).all()


def test_a_refused_input_draws_nothing():
    layer = Dropout(rng=0)
    before = layer.rng.bit_generator.state
    for x in (np.zeros((0, 3)), np.array(["a"]), np.zeros(3, complex)):
        with pytest.raises(LayerError):
            layer(x)
    assert layer.rng.bit_generator.state == before
    with pytest.raises(RuntimeError, match="no forward"):
        layer.backward(1.0)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "half"])
def test_impossible_chances(p):
    with pytest.raises(ValueError, match="expected p in"):
        Dropout(p)


def test_it_prints_and_has_no_state():
    assert repr(Dropout(0.2)) == "Dropout(p=0.2)"
    assert Sequential(Dropout()).state_dict() == {}


# ---------------------------------------------------------------------- whole channels, and SELU's floor

CHANNELS = [  # class, shape of x, shape of its mask
    (Dropout1d, (40, 30, 5), (40, 30, 1)),
    (Dropout1d, (300, 5), (300, 1)),
    (Dropout2d, (40, 30, 3, 2), (40, 30, 1, 1)),
    (Dropout2d, (40, 30, 3), (40, 30, 1)),
    (Dropout2d, (40, 30), (40, 30)),
    (Dropout3d, (40, 30, 2, 1, 3), (40, 30, 1, 1, 1)),
    (Dropout3d, (300, 2, 1, 3), (300, 1, 1, 1)),
    (FeatureAlphaDropout, (40, 30, 3), (40, 30, 1)),
    (FeatureAlphaDropout, (40, 30, 3, 2), (40, 30, 1, 1)),
]


@pytest.mark.parametrize(("cls", "shape", "mask_shape"), CHANNELS, ids=str)
def test_a_channel_is_dropped_as_a_whole(cls, shape, mask_shape):
    layer = cls(0.3, rng=0)
    y = layer(ones(*shape))
    kept = y == y.max()
    channels = kept.any(axis=tuple(i for i, n in enumerate(mask_shape) if n == 1), keepdims=True)
    assert channels.shape == mask_shape
    np.testing.assert_array_equal(kept, np.broadcast_to(channels, shape))
    assert abs(channels.mean() - 0.7) < 4 * (0.21 / channels.size) ** 0.5
    dx = layer.backward(ones(*shape))
    np.testing.assert_array_equal(dx != 0, kept)


@pytest.mark.parametrize("cls", [AlphaDropout, FeatureAlphaDropout])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(cls, p):
    x = np.random.default_rng(0).standard_normal((400, 500))
    y = cls(p, rng=1)(x)
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.02
    a = ((1 - p) * (1 + p * 1.7580993408473766**2)) ** -0.5
    np.testing.assert_allclose(cls(p, rng=1)(x * 0).min(), a * 1.7580993408473766 * (p - 1))


class Replay:
    """A generator that gives the mask that torch drew: 0 is dropped by any p, 1 by none."""

    def __init__(self, mask):
        self.mask = mask

    def random(self, shape, dtype):
        return np.ones(shape, dtype) * self.mask.reshape(shape)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("p", [0.2, 0.7])
@pytest.mark.parametrize(
    ("cls", "shape", "mask_shape"), [*CHANNELS, (Dropout, (9, 8), (9, 8)), (AlphaDropout, (9, 8), (9, 8))], ids=str
)
def test_torchs_mask_gives_torchs_numbers(torch, cls, shape, mask_shape, p):
    x, dout = (np.random.default_rng(seed).standard_normal(shape) for seed in range(2))
    tensor = torch.tensor(x, requires_grad=True)
    y = getattr(torch.nn, cls.__name__)(p)(tensor)
    y.backward(torch.tensor(dout))
    kept = tensor.grad.numpy() != 0
    layer = cls(p)
    layer.rng = Replay(kept[tuple(slice(None) if n > 1 else slice(1) for n in mask_shape)])
    np.testing.assert_allclose(layer(x), y.detach().numpy(), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(layer.backward(dout), tensor.grad.numpy(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("cls", "shape"),
    [(Dropout1d, (3,)), (Dropout1d, (2, 3, 4, 5)), (Dropout2d, (3,)), (Dropout3d, ()), (FeatureAlphaDropout, (3,))],
)
def test_shapes_without_channels(cls, shape):
    layer = cls(rng=0)
    before = layer.rng.bit_generator.state
    with pytest.raises(LayerError, match=r"expected x of shape \(N, C, "):
        layer(np.ones(shape))
    assert layer.rng.bit_generator.state == before
