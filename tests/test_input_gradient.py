"""The gradient by the data, which training leaves out: everything else is as with it."""

import copy

import numpy as np
import pytest

from backhand.layers import (
    BatchNorm1d,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Linear,
    ReLU,
    Tanh,
)
from backhand.models import Residual, Sequential

SHARED = Linear(6, 6, rng=0)
X = np.random.default_rng(0).standard_normal((5, 6), np.float32)
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)

# a network, what it takes, and whether its backward leaves dx out (None: it may)
NETWORKS = {
    "Linear": (Linear(6, 3, rng=0), X, True),
    "Sequential": (Sequential(Linear(6, 4, rng=0), ReLU(), Linear(4, 3, rng=0)), X, True),
    "Flatten first": (Sequential(Flatten(), Linear(48, 3, rng=0), Tanh(), Linear(3, 3, rng=0)), IMAGES, True),
    "two layers without parameters first": (Sequential(ReLU(), Flatten(), Linear(48, 3, rng=0)), IMAGES, True),
    "nested": (Sequential(Sequential(Flatten(), Linear(48, 4, rng=0)), Linear(4, 3, rng=0)), IMAGES, True),
    "nested twice": (Sequential(Sequential(Sequential(Linear(6, 4, rng=0)), ReLU()), Linear(4, 3, rng=0)), X, True),
    "a convolution": (Sequential(Conv2d(3, 4, 3, rng=0), ReLU(), Flatten(), Linear(16, 2, rng=0)), IMAGES, None),
    "shared": (Sequential(SHARED, ReLU(), SHARED), X, False),
    "shared with an inner one": (Sequential(SHARED, Sequential(ReLU(), SHARED)), X, False),
    "the same Sequential twice": (Sequential(inner := Sequential(Linear(6, 6, rng=0), Tanh()), inner), X, False),
    "no parameters": (Sequential(ReLU(), Tanh()), X, False),
    "BatchNorm first": (Sequential(BatchNorm1d(6), Linear(6, 3, rng=0)), X, False),
    "Residual": (Residual(Linear(6, 6, rng=0)), X, False),
    "Residual first": (Sequential(Residual(Sequential(Linear(6, 6, rng=0), ReLU())), Linear(6, 3, rng=0)), X, False),
    "Residual later": (Sequential(Linear(6, 6, rng=0), Residual(Linear(6, 6, rng=0))), X, True),
    "Embedding": (Sequential(Embedding(7, 3, rng=0), Linear(3, 2, rng=0)), np.array([[1, 2, 6], [0, 0, 3]]), True),
}


def gradients(model, x):
    y = model.forward(x)
    dx = model.backward(np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype))
    return dx, [p.grad.copy() for p in model.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_other_gradients_are_the_same(name):
    model, x, spared = NETWORKS[name]
    plain, fast = copy.deepcopy(model), copy.deepcopy(model)
    assert fast.input_requires_grad_(False) is fast
    dx, wanted = gradients(plain, x)
    left_out, found = gradients(fast, x)
    if spared is not None:
        assert (left_out is None) == spared
    if left_out is not None:
        assert np.array_equal(left_out, dx)
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert not any(layer._stack for layer in fast.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_can_be_had_again(name):
    model, x, _ = NETWORKS[name]
    plain, other = copy.deepcopy(model), copy.deepcopy(model)
    other.input_requires_grad_(False)
    other.input_requires_grad_()
    dx, wanted = gradients(plain, x)
    again, found = gradients(other, x)
    assert (dx is None and again is None) or np.array_equal(again, dx)
    assert all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_two_forwards_then_two_backwards():
    model = Sequential(Flatten(), Dropout(0.5, rng=0), Linear(48, 3, rng=0)).input_requires_grad_(False)
    for _ in range(2):
        model.forward(IMAGES)
    for _ in range(2):
        assert model.backward(np.ones((2, 3), np.float32)) is None
    assert not any(layer._stack for layer in model.modules())
    with pytest.raises(RuntimeError, match="no forward"):
        model.backward(np.ones((2, 3), np.float32))


def test_linear_makes_no_product_for_it(monkeypatch):
    layer = Linear(6, 3, rng=0).input_requires_grad_(False)
    layer.forward(X)
    layer.zero_grad()
    layer.forward(X)
    monkeypatch.setattr("backhand.layers.linear.product", None)
    assert layer.backward(np.ones((5, 3), np.float32)) is None
    assert np.allclose(layer.weight.grad, X.sum(0), rtol=1e-5) and (layer.bias.grad == 5).all()
