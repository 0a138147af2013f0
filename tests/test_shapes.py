"""Layers that move numbers: what undoes what, integers, and what is refused."""

import numpy as np
import pytest

from backhand.layers import (
    ChannelShuffle,
    Flatten,
    LayerError,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Unflatten,
)


@pytest.mark.parametrize(
    ("one", "other", "shape"),
    [
        (Flatten(), Unflatten(1, (3, 4)), (2, 3, 4)),
        (PixelShuffle(2), PixelUnshuffle(2), (2, 8, 3, 5)),
        (ChannelShuffle(2), ChannelShuffle(3), (2, 6, 4)),
        (Permute(0, 2, 3, 1), Permute(0, 3, 1, 2), (2, 3, 4, 5)),
        (Reshape(-1, 6), Reshape(-1, 2, 3), (4, 2, 3)),
    ],
    ids=str,
)
def test_what_undoes_what_and_integers_have_no_gradient(one, other, shape):
    x = np.arange(np.prod(shape)).reshape(shape)
    y = one(x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(other(y), x)
    assert one.backward(np.ones(y.shape)) is None
    np.testing.assert_array_equal(one.forward(x * 1.0), y)
    np.testing.assert_array_equal(one.backward(y * 1.0), x)


def test_sizes_come_as_arguments_or_as_one_tuple():
    assert repr(Reshape((-1, 2))) == repr(Reshape(-1, 2)) == "Reshape(-1, 2)"
    assert repr(Permute([1, 0])) == "Permute(1, 0)"
    assert repr(Unflatten(1, [2, -1])) == "Unflatten(1, (2, -1))"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Unflatten("features", (2, 3)),
        lambda: Unflatten(1, 6),
        lambda: Unflatten(1, ()),
        lambda: Unflatten(1, (2, 3.0)),
        lambda: Unflatten(True, (2, 3)),
        lambda: Reshape(-1, -1),
        lambda: Reshape(0, 2),
        lambda: Reshape(-2, 2),
        lambda: Permute(0, 0),
        lambda: Permute(1, 2),
        lambda: PixelShuffle(0),
        lambda: PixelUnshuffle(-1),
        lambda: ChannelShuffle(0),
    ],
)
def test_impossible_arguments(build):
    with pytest.raises(ValueError, match="expected"):
        build()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Unflatten(1, (4, 2)), (2, 6)),
        (Unflatten(1, (4, -1)), (2, 6)),
        (Unflatten(2, (3,)), (2, 3)),
        (Unflatten(0, (1, 1)), ()),
        (Reshape(4, -1), (2, 3)),
        (Permute(1, 0), (2, 3, 4)),
        (PixelShuffle(2), (3, 2, 2)),
        (PixelShuffle(1), (2, 2)),
        (PixelUnshuffle(2), (3, 3, 4)),
        (ChannelShuffle(2), (2, 4)),
        (ChannelShuffle(3), (1, 4, 5)),
    ],
    ids=str,
)
def test_impossible_shapes(layer, shape):
    with pytest.raises(LayerError, match="expected x"):
        layer(np.ones(shape))
