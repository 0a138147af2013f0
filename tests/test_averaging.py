"""The moving average of weights: torch's numbers, the swap and back, states."""

import copy

import numpy as np
import pytest

from backhand.layers import BatchNorm1d, LayerError, Linear, ReLU
from backhand.models import Repeat, Sequential
from backhand.training import SGD, ExponentialMovingAverage
from tests.conftest import need


def net(seed=0):
    return Sequential(
        Linear(3, 4, rng=seed, dtype="float64"),
        BatchNorm1d(4, dtype="float64"),
        ReLU(),
        Repeat(Linear(4, 4, rng=seed, dtype="float64"), 2),
    )


def move(model, t):
    """Another set of weights, and a training forward for the buffers."""
    rng = np.random.default_rng(t)
    for p in model.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape)
    model.forward(rng.standard_normal((5, 3)))
    model.zero_grad()


def same(a, b, tolerance=0.0):
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parity
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("decay", [0.999, 0.9, 0.3, 0.0, 1.0])
def test_same_as_torch(decay, use_buffers):
    torch = need("torch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from tests.parity import COUNTS

    model = Sequential(Linear(3, 4, dtype="float64", rng=0), BatchNorm1d(4, dtype="float64"))
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()

    def follow():
        twin.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})

    def as_arrays(state):
        return {name: tensor.numpy().copy() for name, tensor in state.items()}

    follow()
    ours = ExponentialMovingAverage(model, decay, use_buffers=use_buffers)
    theirs = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)
    same(ours.state_dict(), as_arrays(theirs.state_dict()))
    for t in range(20):
        move(model, t)
        follow()
        ours.update()
        theirs.update_parameters(twin)
        same(ours.state_dict(), as_arrays(theirs.state_dict()), 1e-12)
        if t == 11:
            state = as_arrays(theirs.state_dict())
            theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
            ours.load_state_dict(state)
    COUNTS["ExponentialMovingAverage"] += 1


def test_by_hand_with_and_without_a_warm_up():
    for warm_up in (False, True):
        model = Linear(1, 1, bias=False, dtype="float64")
        average = ExponentialMovingAverage(model, 0.5, warm_up=warm_up)
        expected = None
        for n in range(1, 15):
            model.weight.data[...] = n**2
            average.update()
            decay = min(0.5, n / (9 + n)) if warm_up else 0.5
            expected = n**2 if expected is None else decay * expected + (1 - decay) * n**2
            assert average.module.weight.data.item() == pytest.approx(expected, rel=1e-14)


def test_swapped_and_back_also_after_an_error():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    average = ExponentialMovingAverage(model, 0.9)
    for t in range(3):
        move(model, t)
        average.update()
    x = np.random.default_rng(9).standard_normal((4, 3))
    model.eval()
    own, arrays = model.state_dict(), [p.data for p in model.parameters()]
    before = model.forward(x)
    with average.swapped() as same_model:
        assert same_model is model
        inside = model.forward(x)
    assert np.array_equal(inside, average.module.eval().forward(x)) and not np.array_equal(inside, before)
    assert np.array_equal(model.forward(x), before)
    assert all(a is p.data for a, p in zip(arrays, model.parameters(), strict=True))
    with pytest.raises(KeyError), average.swapped():
        model.layers[0].weight.data += 1
        raise KeyError
    same(model.state_dict(), own)
    optimizer.step()
    with average.swapped():
        for forbidden in (average.update, lambda: average.load_state_dict({}), lambda: average.swapped().__enter__()):
            with pytest.raises(RuntimeError, match="outside of swapped"):
                forbidden()
    average.update()


def test_the_average_is_its_own():
    model = net()
    average = ExponentialMovingAverage(model)
    state = copy.deepcopy(average.state_dict())
    move(model, 0)
    same(average.state_dict(), state)
    average.update()
    same(average.module.state_dict(), model.state_dict())
    shared = average.module.state_dict()
    move(model, 1)
    same(average.module.state_dict(), shared)


def test_float32_stays_float32_and_follows_astype():
    model = Linear(3, 2, rng=0)
    average = ExponentialMovingAverage(model, 0.9)
    for _ in range(3):
        average.update()
    assert average.module.weight.dtype == np.float32
    model.astype("float64")
    average.update()
    with average.swapped():
        assert model.weight.dtype == np.float64


def test_what_does_not_fit():
    model = net()
    average = ExponentialMovingAverage(model)
    average.update()
    before = average.state_dict()
    with pytest.raises(LayerError, match="missing"):
        average.load_state_dict({"n_averaged": 3})
    with pytest.raises(ValueError, match="n_averaged"):
        average.load_state_dict({name: array for name, array in before.items() if name != "n_averaged"})
    same(average.state_dict(), before)
    for decay in (-0.1, 1.1, "slow", float("nan"), True):
        with pytest.raises(ValueError, match="decay"):
            ExponentialMovingAverage(model, decay)
    with pytest.raises(ValueError, match="Layer"):
        ExponentialMovingAverage(model.parameters())
    assert repr(average).startswith("ExponentialMovingAverage(Sequential, decay=0.999")
