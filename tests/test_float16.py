"""float16 goes in and comes out, and in between is float32: squares stay in range, sums go on, no eps is 0.

What every layer and loss of the CASES table gives in float16 is held against the same in float64, of the same rounded
inputs and weights. It may be off by rounding, and no more than a few times what comes of it to round the inputs, or of
it to compute in float32.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.layers import (
    Add,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    CosineSimilarity,
    Embedding,
    EmbeddingBag,
    InstanceNorm1d,
    LayerNorm,
    Linear,
    Parameter,
    PReLU,
    Softmax,
)
from backhand.losses import CrossEntropyLoss, MSELoss
from backhand.models import GPT, MLP
from backhand.training import ExponentialMovingAverage, clip_grad_norm_, clip_grad_value_, optimizers
from backhand.training.optimizers import Block, Optimizer
from tests.cases import families

CASES = families("CASES")
ROUNDING = 2.0**-11
LARGEST = 60_000


def passed(case, dtype, scale, noise=None):
    """(what, array) for output, gradients by the inputs and by the parameters."""
    layer = copy.deepcopy(case.build(np.float16)).astype(dtype)

    def given(x):
        x = np.asarray(x)
        if x.dtype.kind != "f":
            return x
        x = (x * scale).astype(np.float16).astype(dtype)
        return x if noise is None else x * (1 + ROUNDING * noise.uniform(-1, 1, x.shape))

    if noise is not None:
        for p in layer.parameters():
            p.data *= 1 + ROUNDING * noise.uniform(-1, 1, p.shape)
    y = layer.forward(*map_leaves(case.arrays(), given), **case.options)
    rng = np.random.default_rng(3)
    dout = map_leaves(y, lambda each: rng.standard_normal(np.shape(each)).astype(np.float16).astype(dtype))
    dx = layer.backward(dout)
    found = [(what, each) for what, tree in (("y", y), ("dx", dx)) for _, each in leaves(tree) if each is not None]
    return [*found, *((f"d{name}", p.grad) for name, p in layer.named_parameters())]


def agrees(case, scale):
    with np.errstate(all="ignore"):
        right = passed(case, np.float64, scale)
        moved = [passed(case, np.float64, scale, np.random.default_rng(seed)) for seed in range(4)]
        wide, got = passed(case, np.float32, scale), passed(case, np.float16, scale)
    usual = max((np.abs(d).max(initial=0) for what, d in right if what[0] == "d"), default=1.0)
    for i, ((what, wanted), (_, ours)) in enumerate(zip(right, got, strict=True)):
        wanted, ours = np.asarray(wanted), np.asarray(ours)
        if wanted.dtype.kind != "f":
            continue
        assert ours.dtype == np.float16 or (what == "y" and isinstance(got[i][1], float)), what
        spread = max(np.abs(other[i][1] - wanted).max(initial=0) for other in moved)
        known = np.abs(wanted) < LARGEST
        largest = np.abs(wanted[known]).max(initial=0)
        spread += np.abs(wide[i][1] - wanted)[known].max(initial=0)
        tolerance = 8 * spread + 4 * ROUNDING * largest + ROUNDING**2 * usual + 2.0**-22
        # what cancels out is off by the rounding of what it cancels
        if what.startswith("d") and largest < 1e-12:
            tolerance += 4 * ROUNDING * usual
        assert np.abs(ours.astype(np.float64) - wanted)[known].max(initial=0) <= tolerance, what


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float16_is_float64_but_for_rounding(case):
    agrees(case, 1.0)


def takes(case, scale):
    """Whether a case is one layer alone, and its inputs may be so large. (A composite rounds between its layers.)"""
    layer = case.build(np.float64)
    if any(True for _ in layer.children()):
        return False
    try:
        with np.errstate(all="ignore"):
            return all(np.isfinite(each).all() for _, each in passed(case, np.float64, scale))
    except ValueError:  # probabilities, say
        return False


@pytest.mark.parametrize("case", [case for case in CASES if takes(case, 300)], ids=str)
def test_in_float16_no_square_of_a_layer_leaves_the_range(case):
    agrees(case, 300.0)


def half(*shape, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float16)


def test_the_values_of_the_reports():
    y = LayerNorm(8, dtype=np.float16)(300 * np.random.default_rng(0).standard_normal((4, 8)))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.astype(float).std(axis=1), 1, atol=1e-3)
    x = np.full(8, 300, np.float16)
    assert CosineSimilarity(0)(x, x) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Linear(1, 1, rng=0, dtype=np.float16), np.ones((6000, 1), np.float16)),
        (Conv2d(1, 1, 1, rng=0, dtype=np.float16), np.ones((6, 1, 100, 10), np.float16)),
        (BatchNorm1d(1, dtype=np.float16), half(6000, 1)),
        (BatchNorm2d(1, dtype=np.float16), half(60, 1, 10, 10)),
        (LayerNorm(1, eps=1.0, dtype=np.float16), half(6000, 1)),
        (InstanceNorm1d(1, affine=True, dtype=np.float16), half(6, 1, 1000)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_long_sum_does_not_stand_still_at_2048(layer, x):
    y = layer(x)
    layer.backward(np.ones(y.shape, np.float16))
    assert layer.bias.grad == 6000  # 2048 + 1 is 2048 in float16


def test_other_long_sums():
    slopes = PReLU(dtype=np.float16)
    slopes(np.full(6000, -1, np.float16))
    slopes.backward(np.ones(6000, np.float16))
    assert slopes.weight.grad == -6000
    for table in (Embedding(2, 1, rng=0, dtype=np.float16), EmbeddingBag(2, 1, mode="max", rng=0, dtype=np.float16)):
        y = table(np.zeros((6000, 1), int))
        table.backward(np.ones(y.shape, np.float16))
        assert table.weight.grad[0] == 6000
    add = Add()
    add(np.zeros((6000, 1), np.float16), np.zeros(1, np.float16))
    assert add.backward(np.ones((6000, 1), np.float16))[1] == 6000
    np.testing.assert_allclose(Softmax(-1)(np.zeros(6000, np.float16)).astype(float), 1 / 6000, rtol=1e-2)
    assert MSELoss()(np.full(6000, 300, np.float16), np.zeros(6000, np.float16)) == 90_000
    assert CrossEntropyLoss(reduction="sum")(np.zeros((6000, 2), np.float16), np.zeros(6000, int)) == pytest.approx(
        6000 * np.log(2), rel=1e-3
    )
    gpt = GPT(2, 4, 1, 1, 4, rng=0).astype(np.float16)
    y = gpt(np.zeros((6000, 1), int))
    assert y.dtype == np.float16
    gpt.backward(np.ones(y.shape, np.float16))
    assert all(np.isfinite(p.grad).all() for p in gpt.parameters())


def test_running_statistics_hold_what_float16_cannot():
    for layer in (BatchNorm1d(2, dtype=np.float16), BatchNorm1d(2, affine=False).astype(np.float16)):
        x = half(64, 2, scale=400)
        for _ in range(100):
            assert layer(x).dtype == np.float16
        np.testing.assert_allclose(layer.running_var, x.astype(float).var(axis=0, ddof=1), rtol=1e-2)
        y = layer.eval()(x)
        assert y.dtype == np.float16
        np.testing.assert_allclose(y.astype(float).std(axis=0), 1, atol=0.02)


def test_a_layer_without_parameters_follows_its_first_input_and_a_gate_all_of_them():
    ones = np.ones(3, np.float16)
    assert Add()(ones, ones).dtype == np.float16
    assert Add()(ones, np.ones(3, np.float32)).dtype == np.float32
    loss = MSELoss()
    loss(np.ones(3, np.float32), ones)
    assert loss.backward().dtype == np.float32
    loss(ones, np.ones(3))
    assert loss.backward().dtype == np.float16


def test_one_layer_after_float16_is_what_it_was_before():
    model = MLP(3, 4, 2, rng=0)
    x = np.ones((2, 3), np.float32)
    before = model(x), model.backward(np.ones((2, 2), np.float32))
    model.astype(np.float16)
    assert model(x.astype(np.float16)).dtype == np.float16
    assert model.backward(np.ones((2, 2), np.float32)).dtype == np.float16
    assert model(x).dtype == np.float16
    assert model.backward(np.ones((2, 2), np.float32)).dtype == np.float32  # as x is
    model.astype(np.float32)
    assert model(x).dtype == before[0].dtype == np.float32
    assert model.backward(np.ones((2, 2), np.float32)).dtype == np.float32


EVERY = [each for each in map(vars(optimizers).get, optimizers.__all__) if each not in (Block, Optimizer)]


def shape_for(optimizer):
    return (2, 2) if optimizer.__name__ == "Muon" else (3,)


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda each: each.__name__)
def test_a_weight_without_gradient_stays_what_it_is(optimizer):
    parameter = Parameter(np.ones(shape_for(optimizer), np.float16))
    update = optimizer([parameter], weight_decay=0) if "Rprop" not in optimizer.__name__ else optimizer([parameter])
    for _ in range(3):
        update.zero_grad()
        update.step()
    np.testing.assert_array_equal(parameter.data, 1)
    assert parameter.data.dtype == np.float16
    for state in update.state.values():
        assert all(value.dtype == np.float32 for value in state.values() if isinstance(value, np.ndarray))


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda each: each.__name__)
def test_steps_in_float16_are_those_of_float32_rounded(optimizer):
    rng = np.random.default_rng(0)
    for size in (1e-4, 1.0, 300.0):  # squares of 1e-8 and of 90,000
        start = rng.standard_normal(shape_for(optimizer)).astype(np.float16)
        ours, wide = Parameter(start), Parameter(start.astype(np.float32))
        pair = optimizer([ours], lr=0.01), optimizer([wide], lr=0.01)
        for _ in range(5):
            gradient = (size * rng.standard_normal(start.shape)).astype(np.float16)
            wide.data[...] = ours.data  # each step on its own
            for parameter, update in zip((ours, wide), pair, strict=True):
                parameter.grad[...] = gradient
                update.step()
            np.testing.assert_array_equal(ours.data, wide.data.astype(np.float16))


def test_a_state_in_float16_goes_on_in_float32():
    first, second = Parameter(np.ones(3, np.float16)), Parameter(np.ones(3, np.float16))
    update = optimizers.Adam([first])
    first.grad[...] = 1e-3
    update.step()
    other = optimizers.Adam([second])
    other.load_state_dict(update.state_dict())
    assert other.state[second]["exp_avg_sq"].dtype == np.float32
    np.testing.assert_array_equal(other.state[second]["exp_avg_sq"], update.state[first]["exp_avg_sq"])


def test_norms_of_gradients():
    for size, n in ((300.0, 4), (1e-4, 4), (1.0, 100_000)):
        parameter = Parameter(np.zeros(n, np.float16))
        parameter.grad[...] = size
        assert clip_grad_norm_(parameter, 1e9) == pytest.approx(size * np.sqrt(n), rel=1e-3)
        assert clip_grad_norm_(parameter, 1e9, norm_type=3) == pytest.approx(size * n ** (1 / 3), rel=1e-3)


def test_gradients_are_clipped_to_what_float16_can_say():
    for n, size, limit in ((10**6, 6e4, 1.0), (10**5, 1e3, 0.1), (10**6, 300.0, 1.0)):
        parameter = Parameter(np.zeros(n, np.float16))
        parameter.grad[...] = size
        clip_grad_norm_(parameter, limit)
        assert np.linalg.norm(parameter.grad.astype(np.float32)) == pytest.approx(limit, rel=1e-3)
    clip_grad_value_(parameter, 1e5)  # no warning


def test_an_average_of_weights_goes_on_where_float16_would_stand_still():
    model = Linear(1, 1, rng=0, dtype=np.float16)
    average = ExponentialMovingAverage(model, 0.999)
    model.weight.data[...] = 0
    average.update()
    model.weight.data[...] = 1
    for _ in range(3000):
        average.update()
    assert average.module.weight.data == pytest.approx(1 - 0.999**3000, rel=1e-3)
    with average.swapped():
        assert model.weight.dtype == np.float16
