"""Errors that name the layer, what it expected and what came, and leave everything as it was."""

import numpy as np
import pytest

from backhand.layers import (
    Add,
    Copy,
    Flatten,
    LayerError,
    Linear,
    ReLU,
    Tanh,
)
from backhand.models import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from tests.states import Scale, assert_unchanged, snapshot

# ---------------------------------------------------------------------- errors


def test_the_error_names_layer_place_expectation_and_what_came():
    with pytest.raises(LayerError) as error:
        Linear(784, 128)(np.zeros((32, 1, 28, 28)))
    assert str(error.value) == (
        "Linear(784, 128): expected x of shape (..., 784), got (32, 1, 28, 28); put a Flatten() before it"
    )
    model = Sequential(Linear(4, 5), Residual(Sequential({"a": ReLU(), "b": Linear(6, 5)})))
    with pytest.raises(LayerError, match=r"Linear\(6, 5\) at '1.body.b': expected x of shape \(..., 6\), got \(2, 5\)"):
        model(np.zeros((2, 4)))


@pytest.mark.parametrize(
    "container",
    [
        lambda good, bad: Sequential(good, bad),
        lambda good, bad: Sequential(good, Sequential(Tanh(), bad)),
        lambda good, bad: Residual(good, bad),
        lambda good, bad: Sum(good, bad),
        lambda good, bad: Concat(good, bad),
        lambda good, bad: Sequential(Copy(2), Parallel(good, bad)),
        lambda good, bad: Repeat(Sequential(good, Linear(4, 5), ReLU()), 2),
    ],
)
@pytest.mark.parametrize("call", ["forward", "__call__"])
def test_a_forward_that_fails_half_way_leaves_nothing_saved(container, call):
    model = container(Linear(4, 4, rng=0), Linear(9, 4, rng=0))
    before = snapshot(model)
    with pytest.raises(LayerError):
        getattr(model, call)(np.ones((2, 4)))
    assert_unchanged(model, before)


def test_a_failing_forward_keeps_what_earlier_forwards_saved():
    first = Linear(4, 4, rng=0)
    model = Sequential(first, Flatten(), Linear(4, 2, rng=0))
    model(np.ones((2, 4)))
    before = snapshot(model)
    with pytest.raises(LayerError):
        model(np.ones((2, 3, 4)))
    assert_unchanged(model, before)
    model.backward(np.ones((2, 2)))


def test_a_users_composite_is_guarded_too():
    layer = Scale()
    layer.named["last"] = Linear(7, 2)
    with pytest.raises(LayerError, match=r"Linear\(7, 2\) at 'named.last'"):
        layer(np.ones((1, 3)))
    assert all(not vars(each).get("_stack") for each in layer.modules())


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", None, True])
def test_sizes_must_be_positive_integers(size):
    with pytest.raises(ValueError, match=r"Linear: expected in_features to be a positive integer, got"):
        Linear(size, 3)
    with pytest.raises(ValueError, match=r"Linear: expected out_features to be a positive integer, got"):
        Linear(3, size)


def test_containers_refuse_what_is_not_a_layer():
    with pytest.raises(TypeError, match=r"Sequential: expected a Layer, got <class .*ReLU'>; did you mean ReLU\(\)\?"):
        Sequential(Linear(2, 2), ReLU)
    for container in (Sum, Concat):
        with pytest.raises(ValueError, match="at least one branch"):
            container()
    with pytest.raises(ValueError, match="at least two branches, got 1"):
        Parallel(ReLU())
    with pytest.raises(TypeError, match=r"unpack it: Sequential\(\*layers\)"):
        Sequential([ReLU(), ReLU()])
    with pytest.raises(ValueError, match="times"):
        Repeat(ReLU(), 0)
    with pytest.raises(ValueError, match="names without dots"):
        Sequential({"a.b": ReLU()})


def test_containers_name_shapes_that_do_not_fit():
    x = np.ones((2, 4))
    with pytest.raises(LayerError, match=r"Residual: expected a body that gives the shape of the shortcut, \(2, 4\)"):
        Residual(Linear(4, 3))(x)
    with pytest.raises(LayerError, match="branches that give one shape"):
        Sum(Linear(4, 3), Linear(4, 2))(x)
    with pytest.raises(LayerError, match="differ along axis 1 only"):
        Concat(Linear(4, 3), Sequential(Flatten(0), Linear(8, 3)))(x)
    with pytest.raises(LayerError, match="2 inputs, one for each branch"):
        Parallel(ReLU(), ReLU())(x)
    with pytest.raises(LayerError, match="time on axis 0"):
        Unroll(ReLU())(np.ones(()))
    with pytest.raises(LayerError, match="broadcast"):
        Add()(np.ones(3), np.ones(4))
