"""Convolution and pooling with drawn shapes and arguments: where torch takes them we agree, where it refuses we do."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import backhand.layers
from backhand.layers import AdaptiveAvgPool2d
from backhand.layers.padding import MODES
from tests.conftest import need


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


drawn = settings(max_examples=150, deadline=None)


def both(ours, theirs, x, torch):
    """Where torch takes the input, the same numbers; where torch refuses it, we do. True if it was taken."""
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    try:
        theirs = theirs()
        y = theirs(tensor)
    except (RuntimeError, ValueError):
        with pytest.raises(ValueError, match="expected"):
            ours()(x)
        return False
    from tests import parity  # needs torch

    layer = ours().astype(np.float64)
    parity.TRIED[type(layer).__name__] += 1
    for parameter, other in zip(layer.parameters(), theirs.parameters(), strict=True):
        parameter.data[...] = other.detach().numpy()
    z = layer(x)
    np.testing.assert_allclose(z, y.detach().numpy(), rtol=1e-9, atol=1e-9)
    dout = normal(*z.shape, seed=1)
    y.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(layer.backward(dout), tensor.grad.numpy(), rtol=1e-9, atol=1e-9)
    for parameter, other in zip(layer.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, other.grad.numpy(), rtol=1e-9, atol=1e-9)
    parity.COUNTS[type(layer).__name__] += 1
    parity.DRAWN[type(layer).__name__] += 1
    return True


def numbers(draw, n, low, high):
    return tuple(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@drawn
@given(data=st.data())
def test_any_convolution(data):
    torch, draw = need("torch"), data.draw
    n = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = (groups * draw(st.integers(1, 2)) for _ in range(2))
    arguments = {
        "kernel_size": numbers(draw, n, 1, 4),
        "stride": numbers(draw, n, 1, 3),
        "padding": draw(st.one_of(st.sampled_from(["same", "valid"]), st.just(numbers(draw, n, 0, 3)))),
        "dilation": numbers(draw, n, 1, 2),
        "groups": draw(st.sampled_from([groups, groups, 2])),
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(MODES)),
    }
    shape = (*draw(st.sampled_from([(), (1,), (2,)])), draw(st.sampled_from([channels, channels, channels + 1])))
    x = normal(*shape, *numbers(draw, n, 1, 7))
    both(
        lambda: getattr(backhand.layers, f"Conv{n}d")(channels, filters, **arguments),
        lambda: getattr(torch.nn, f"Conv{n}d")(channels, filters, **arguments).double(),
        x,
        torch,
    )


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@drawn
@given(data=st.data())
def test_any_pooling(data):
    torch, draw = need("torch"), data.draw
    kind, n = draw(st.sampled_from(["Max", "Avg"])), draw(st.integers(1, 3))
    arguments = {
        "kernel_size": numbers(draw, n, 1, 4),
        "stride": draw(st.one_of(st.none(), st.just(numbers(draw, n, 1, 4)))),
        "padding": numbers(draw, n, 0, 2),
        "ceil_mode": draw(st.booleans()),
    }
    if kind == "Max":
        arguments["dilation"] = numbers(draw, n, 1, 2)
    else:
        arguments["count_include_pad"] = draw(st.booleans())
    sizes = numbers(draw, n, 1, 8)
    if kind == "Max":  # torch returns -inf, and an index outside x, for a window that holds nothing but padding
        assume(
            not any(d > 1 and p for d, p in zip(arguments["dilation"], arguments["padding"], strict=True))
            or min(sizes) > 2
        )
    elif n == 3:  # torch's AvgPool3d alone wants the window to fit without the padding
        assume(all(k <= size for k, size in zip(arguments["kernel_size"], sizes, strict=True)))
    x = normal(*draw(st.sampled_from([(2,), (1, 2), (2, 1)])), *sizes)
    name = f"{kind}Pool{n}d"
    both(lambda: getattr(backhand.layers, name)(**arguments), lambda: getattr(torch.nn, name)(**arguments), x, torch)


@pytest.mark.parity
@drawn
@given(data=st.data())
def test_any_adaptive_pooling(data):
    torch, draw = need("torch"), data.draw
    size = tuple(draw(st.one_of(st.none(), st.integers(1, 9))) for _ in range(2))
    x = normal(2, *numbers(draw, 2, 1, 9))
    assert both(lambda: AdaptiveAvgPool2d(size), lambda: torch.nn.AdaptiveAvgPool2d(size), x, torch)
