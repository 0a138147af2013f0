"""However an array lies in memory, the numbers that come out are those of a plain copy of it, in the machine's order.

Big-endian (files and networks), Fortran order, negative strides, every second number of a larger array, read-only:
for all layers and losses in the CASES table, forward and backward, and for the metrics.
"""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.layers import Embedding, Linear, Parameter
from backhand.losses import CrossEntropyLoss, MSELoss, MultiLabelMarginLoss
from backhand.training import metrics
from tests.cases import families

CASES = families("CASES")


def swapped(x):
    return x.astype(x.dtype.newbyteorder("S"))


def fortran(x):
    return x.copy(order="F")


def reversed_in_memory(x):
    return np.flip(np.flip(x).copy())


def every_second(x):
    if not x.ndim:
        return x
    wide = np.repeat(x, 2, axis=-1)
    wide[..., 1::2] = 77 if x.dtype.kind != "b" else True
    return wide[..., ::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {each.__name__: each for each in (swapped, fortran, reversed_in_memory, every_second, read_only)}


def laid_out(tree, layout):
    return map_leaves(tree, lambda x: layout(np.array(x)) if x is not None else None)


def passed(case, layout, dtype):
    """Output, gradients by the inputs and by the parameters of two forwards and two backwards."""
    layer = copy.deepcopy(case.build(dtype))
    inputs = map_leaves(case.arrays(), lambda x: x.astype(dtype) if x.dtype.kind == "f" else x)
    outputs = tuple(layer.forward(*laid_out(inputs, layout), **case.options) for _ in range(2))
    gradients = ()
    for seed, y in enumerate(outputs):
        rng = np.random.default_rng(seed)
        dout = map_leaves(y, lambda each, rng=rng: rng.standard_normal(np.shape(each)).astype(dtype))
        gradients += (layer.backward(laid_out(dout, layout)),)
    every = leaves((outputs, gradients, tuple(p.grad for p in layer.parameters())))
    return [np.asarray(each) for _, each in every if each is not None]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_gives_the_same_however_its_arrays_lie(case, dtype):
    plain = passed(case, np.array, dtype)
    for name, layout in LAYOUTS.items():
        for a, b in zip(plain, passed(case, layout, dtype), strict=True):
            assert b.dtype == a.dtype, name
            assert b.dtype.isnative, name
            scale = np.abs(a[np.isfinite(a)]).max(initial=1.0)
            tolerance = 1e-11 if dtype == np.float64 else 2e-5
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_metric_gives_the_same_however_its_arrays_lie(layout):
    rng = np.random.default_rng(0)
    given = {
        "accuracy": (rng.standard_normal((6, 4)), rng.integers(0, 4, 6)),
        "top_k_accuracy": (rng.standard_normal((6, 7)), rng.integers(0, 7, 6)),
        "binary_accuracy": (rng.standard_normal((6, 4)), rng.integers(0, 2, (6, 4))),
        "intersection_over_union": (rng.standard_normal((3, 2, 4, 4)), rng.integers(0, 2, (3, 4, 4))),
        "whole_sequences": (rng.standard_normal((3, 5, 4)), rng.integers(0, 4, (3, 5))),
        "bits_per_sequence": (rng.standard_normal((5, 3, 4)), rng.integers(0, 2, (2, 3, 4)).astype(float)),
        "wrong_bits": (rng.standard_normal((5, 3, 4)), rng.integers(0, 2, (2, 3, 4)).astype(float)),
    }
    takes_scores = [
        name
        for name, each in vars(metrics).items()
        if inspect.isfunction(each) and list(inspect.signature(each).parameters)[:2] == ["scores", "target"]
    ]
    assert set(takes_scores) == set(given)
    for name, arrays in given.items():
        metric = getattr(metrics, name)
        assert metric(*map(layout, arrays)) == pytest.approx(metric(*arrays), rel=1e-12), name


def test_the_numbers_of_the_reports():
    loss = MSELoss()
    assert loss(np.ones(3, ">f8"), np.zeros(3, ">f8")) == 1
    np.testing.assert_allclose(loss.backward(), np.full(3, 2 / 3))
    loss = MultiLabelMarginLoss()
    value = loss(np.array([[0.1, 0.2, 0.4, 0.8]], ">f4"), np.array([[3, 0, -1, 1]], ">i4"))
    assert value == pytest.approx(0.85)
    assert loss.backward().dtype == np.float32


def test_parameters_buffers_and_weights_are_in_the_byte_order_of_the_machine():
    assert Parameter(np.ones(3, ">f8")).dtype == np.float64
    assert Linear(2, 3, dtype=">f4").weight.dtype.isnative
    layer = Linear(2, 3, rng=0).astype(">f8")
    assert layer.weight.dtype.isnative
    layer.load_state_dict({name: swapped(array) for name, array in layer.state_dict().items()})
    assert layer.weight.data.dtype.isnative
    assert Embedding.from_pretrained(np.ones((3, 2), ">f4")).weight.dtype.isnative
    assert CrossEntropyLoss(weight=np.ones(3, ">f8")).weight.dtype == np.float64


@pytest.mark.parametrize(
    "call",
    [
        lambda x: Linear(3, 2, rng=0)(x),
        lambda x: MSELoss()(np.ones((2, 3)), x),
        lambda x: MSELoss()(x, np.ones((2, 3))),
        lambda x: CrossEntropyLoss()(np.ones((2, 3)), np.ma.masked_array([0, 1], [True, False])),
        lambda x: _backward(Linear(3, 3, rng=0), np.ones((2, 3)), x),
    ],
)
def test_a_masked_array_is_refused_for_its_mask_would_be_lost(call):
    x = np.ma.masked_array(np.ones((2, 3)), np.eye(2, 3, dtype=bool))
    with pytest.raises(ValueError, match=r"expected .*, got a masked array, whose mask would be lost"):
        call(x)


def _backward(layer, x, dout):
    layer(x)
    return layer.backward(dout)
