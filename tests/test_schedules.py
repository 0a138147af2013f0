"""Schedules: the learning rates of torch, step by step, in every group."""

import math

import numpy as np
import pytest

import backhand.training
from backhand.layers import Parameter
from backhand.training import (
    SGD,
    Adam,
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from tests.conftest import need

RATES = [0.1, 1e-3, 3.0]
FUNCTIONS = [lambda t: 0.95**t, lambda t: 1 / (1 + t), [lambda t: 1 + math.cos(t) / 2, lambda t: 1.0, lambda t: 0.9]]
GRID = [
    *[("StepLR", {"step_size": n, "gamma": g}) for n in (1, 3, 30, 200) for g in (0.1, 0.9, 1.0)],
    *[("CosineAnnealingLR", {"T_max": n, "eta_min": e}) for n in (1, 7, 30, 50, 100, 250) for e in (0.0, 1e-5)],
    *[
        ("LinearLR", {"start_factor": a, "end_factor": b, "total_iters": n})
        for a in (1 / 3, 0.01, 1.0)
        for b in (1.0, 0.0, 0.5)
        for n in (1, 5, 60)
    ],
    ("LinearLR", {}),
    *[
        ("MultiStepLR", {"milestones": m, "gamma": g})
        for m in ([], [1], [30, 5, 5, 99], range(0, 90, 7))
        for g in (0.1, 2)
    ],
    *[("ExponentialLR", {"gamma": g}) for g in (0.1, 0.97, 1.0, 1.1)],
    *[("ConstantLR", {"factor": f, "total_iters": n}) for f in (1 / 3, 0.01, 1.0) for n in (0, 1, 5, 60, 200)],
    ("ConstantLR", {}),
    *[("PolynomialLR", {"total_iters": n, "power": p}) for n in (1, 5, 60, 200) for p in (1.0, 0.5, 2, 0.0)],
    ("PolynomialLR", {}),
    *[
        ("CosineAnnealingWarmRestarts", {"T_0": n, "T_mult": k, "eta_min": e})
        for n in (1, 7, 40)
        for k in (1, 2, 3)
        for e in (0.0, 1e-4)
    ],
    *[(name, {"lr_lambda": f}) for name in ("LambdaLR", "MultiplicativeLR") for f in FUNCTIONS],
]
CHAINS = [
    ([("LinearLR", {"total_iters": 5}), ("CosineAnnealingLR", {"T_max": 40})], [5]),
    ([("LinearLR", {"start_factor": 0.01, "total_iters": 10}), ("StepLR", {"step_size": 7, "gamma": 0.5})], [10]),
    ([("StepLR", {"step_size": 2}), ("LinearLR", {}), ("CosineAnnealingLR", {"T_max": 9, "eta_min": 1e-4})], [4, 20]),
    ([("CosineAnnealingLR", {"T_max": 100})], []),
    ([("StepLR", {"step_size": 3}), ("LinearLR", {})], [0]),
    ([("ConstantLR", {"factor": 0.1}), ("ExponentialLR", {"gamma": 0.9})], [7]),
    ([("ConstantLR", {"factor": 0.1}), ("MultiStepLR", {"milestones": [0, 3, 9]})], [7]),
    ([("LinearLR", {}), ("PolynomialLR", {"total_iters": 40, "power": 2}), ("ConstantLR", {})], [5, 30]),
    ([("LinearLR", {}), ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2})], [6]),
    ([("CosineAnnealingWarmRestarts", {"T_0": 5}), ("LambdaLR", {"lr_lambda": lambda t: 0.9**t})], [12]),
    ([("LinearLR", {}), ("MultiplicativeLR", {"lr_lambda": lambda t: 0.9})], [6]),
]
CHAINED = [
    [("ConstantLR", {"factor": 0.1, "total_iters": 20}), ("ExponentialLR", {"gamma": 0.9})],
    [("LinearLR", {}), ("StepLR", {"step_size": 4}), ("MultiStepLR", {"milestones": [3, 50]})],
    [("CosineAnnealingLR", {"T_max": 40}), ("PolynomialLR", {"total_iters": 150})],
    [("LinearLR", {"start_factor": 0.01, "total_iters": 60}), ("MultiplicativeLR", {"lr_lambda": lambda t: 0.97})],
]


def optimizer():
    return SGD([{"params": [Parameter(np.ones(1))], "lr": lr} for lr in RATES])


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def build(name, kwargs, on):
    return getattr(backhand.training, name)(on, **kwargs)


def run(on, schedule, steps):
    """The rates at the start and after each step."""
    found = [rates(on)]
    for _ in range(steps):
        schedule.step()
        found.append(rates(on))
        assert schedule.get_last_lr() == rates(on)
    return np.array(found)


# ---------------------------------------------------------------------- beside torch


def _count(name):
    from tests.parity import COUNTS  # needs torch

    COUNTS[name] += 1


def torch_optimizer(torch):
    return torch.optim.SGD([{"params": [torch.ones(1, requires_grad=True)], "lr": lr} for lr in RATES])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kwargs"), GRID, ids=str)
def test_hundred_values_are_torchs(name, kwargs):
    torch = need("torch")
    on, other = optimizer(), torch_optimizer(torch)
    schedule, twin = build(name, kwargs, on), getattr(torch.optim.lr_scheduler, name)(other, **kwargs)
    np.testing.assert_allclose(run(on, schedule, 100), run(other, twin, 100), rtol=1e-12, atol=1e-15)
    _count(type(schedule).__name__)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("parts", "milestones"), CHAINS, ids=str)
def test_sequences_are_torchs(parts, milestones):
    torch = need("torch")
    on, other = optimizer(), torch_optimizer(torch)
    module = torch.optim.lr_scheduler
    schedule = SequentialLR(on, [build(*part, on) for part in parts], milestones)
    twin = module.SequentialLR(other, [getattr(module, name)(other, **kw) for name, kw in parts], milestones)
    np.testing.assert_allclose(run(on, schedule, 100), run(other, twin, 100), rtol=1e-12, atol=1e-15)
    _count(type(schedule).__name__)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parts", CHAINED, ids=str)
def test_chains_are_torchs(parts):
    torch = need("torch")
    on, other = optimizer(), torch_optimizer(torch)
    module = torch.optim.lr_scheduler
    schedule = ChainedScheduler([build(*part, on) for part in parts])
    twin = module.ChainedScheduler([getattr(module, name)(other, **kw) for name, kw in parts], other)
    assert schedule.get_last_lr() == rates(on)
    np.testing.assert_allclose(run(on, schedule, 100), run(other, twin, 100), rtol=1e-12, atol=1e-15)
    _count("ChainedScheduler")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("T_mult", [1, 2, 3])
def test_warm_restarts_at_any_time_are_torchs(T_mult):
    torch = need("torch")
    on, other = optimizer(), torch_optimizer(torch)
    schedule = CosineAnnealingWarmRestarts(on, 5, T_mult, 1e-4)
    twin = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(other, 5, T_mult, 1e-4)
    for t in [*np.arange(0, 30, 0.37), 3.5, 11, 4.999, 5.0]:
        schedule.step(t)
        twin.step(t)
        np.testing.assert_allclose(rates(on), rates(other), rtol=1e-9, atol=1e-15)
        assert schedule.last_epoch == twin.last_epoch
    np.testing.assert_allclose(run(on, schedule, 40), run(other, twin, 40), rtol=1e-9, atol=1e-15)
    with pytest.raises(ValueError, match="epoch to be 0 or more, got -1"):
        schedule.step(-1)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "kwargs"), [row for row in GRID if row[0] != "CosineAnnealingWarmRestarts"][::2], ids=str
)
def test_states_travel_both_ways(name, kwargs):
    torch = need("torch")
    on, other = optimizer(), torch_optimizer(torch)
    schedule, twin = build(name, kwargs, on), getattr(torch.optim.lr_scheduler, name)(other, **kwargs)
    run(on, schedule, 7)
    run(other, twin, 11)
    state = twin.state_dict()
    assert set(schedule.state_dict()) <= set(state)
    seven = rates(on)
    twin.load_state_dict(schedule.state_dict())
    schedule.load_state_dict(state)
    for group, there, lr in zip(on.param_groups, other.param_groups, seven, strict=True):
        group["lr"], there["lr"] = there["lr"], lr
    first, second = run(on, schedule, 20), run(other, twin, 24)
    np.testing.assert_allclose(first, second[4:], rtol=1e-12, atol=1e-15)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kwargs"), GRID[::3], ids=str)
def test_several_at_once_a_hand_and_last_epoch_are_torchs(name, kwargs):
    torch = need("torch")
    found = []
    for library in (None, torch.optim.lr_scheduler):
        on = optimizer() if library is None else torch_optimizer(torch)

        def make(name, kwargs, on=on, library=library):
            return build(name, kwargs, on) if library is None else getattr(library, name)(on, **kwargs)

        pair = [make(name, kwargs), make("StepLR", {"step_size": 4, "gamma": 0.5})]
        rows = []
        for t in range(20):
            for schedule in pair:
                schedule.step()
            if t == 8:
                on.param_groups[1]["lr"] *= 2
            rows.append(rates(on))
        again = make(name, {**kwargs, "last_epoch": 11})
        rows.append(rates(on))
        for _ in range(10):
            again.step()
            rows.append(rates(on))
        found.append(rows)
    np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-15)


# ---------------------------------------------------------------------- by itself


def test_the_closed_forms():
    on = optimizer()
    t = np.arange(41)[:, None]
    np.testing.assert_allclose(run(on, StepLR(on, 10, 0.5), 40), RATES * 0.5 ** (t // 10), rtol=1e-12)
    on = optimizer()
    wave = 0.01 + (np.array(RATES) - 0.01) * (1 + np.cos(np.pi * t / 40)) / 2
    np.testing.assert_allclose(run(on, CosineAnnealingLR(on, 40, 0.01), 40), wave, rtol=1e-12)
    on = optimizer()
    line = np.array(RATES) * (0.1 + 0.9 * np.minimum(t, 20) / 20)
    np.testing.assert_allclose(run(on, LinearLR(on, 0.1, total_iters=20), 40), line, rtol=1e-12)


def test_warm_up_before_a_cosine():
    on = optimizer()
    schedule = SequentialLR(on, [LinearLR(on, 0.2, total_iters=4), CosineAnnealingLR(on, 10)], milestones=[4])
    first = run(on, schedule, 14)[:, 0] / 0.1
    expected = [0.2, 0.4, 0.6, 0.8, *[(1 + math.cos(math.pi * t / 10)) / 2 for t in range(11)]]
    np.testing.assert_allclose(first, expected, rtol=1e-12, atol=1e-15)


def test_a_sequence_in_a_sequence():
    on = optimizer()
    inner = SequentialLR(on, [LinearLR(on, 0.5, total_iters=2), StepLR(on, 3, 0.1)], milestones=[2])
    outer = SequentialLR(on, [StepLR(on, 2, 0.5), inner], milestones=[4])
    first = run(on, outer, 10)[:, 0] / 0.1
    np.testing.assert_allclose(first, [1, 1, 0.5, 0.5, 0.5, 0.75, 1, 1, 1, 0.1, 0.1], rtol=1e-12)


@pytest.mark.parametrize(("name", "kwargs"), GRID[::4], ids=str)
def test_state_dict_goes_on_to_the_bit(name, kwargs):
    on, copy = optimizer(), optimizer()
    schedule = build(name, kwargs, on)
    run(on, schedule, 7)
    twin = build(name, kwargs, copy)
    state = schedule.state_dict()
    twin.load_state_dict(state)
    copy.load_state_dict(on.state_dict())
    assert "optimizer" not in state
    assert twin.get_last_lr() == schedule.get_last_lr()
    assert np.array_equal(run(on, schedule, 30), run(copy, twin, 30))
    state["base_lrs"][0] = 99.0
    assert twin.base_lrs[0] != 99


def test_state_dict_of_a_sequence():
    def make(on):
        return SequentialLR(on, [LinearLR(on), CosineAnnealingLR(on, 20)], [5])

    on, copy = optimizer(), optimizer()
    schedule, twin = make(on), make(copy)
    run(on, schedule, 9)
    twin.load_state_dict(schedule.state_dict())
    copy.load_state_dict(on.state_dict())
    assert np.array_equal(run(on, schedule, 30), run(copy, twin, 30))


def test_a_chain_in_a_sequence():
    on = optimizer()
    chain = ChainedScheduler([LinearLR(on, 0.5, total_iters=2), StepLR(on, 2, 0.1)])
    sequence = SequentialLR(on, [StepLR(on, 2, 0.5), chain], milestones=[4])
    first = run(on, sequence, 8)[:, 0] / 0.1
    np.testing.assert_allclose(first, [1, 1, 0.5, 0.5, 0.5, 0.75, 0.1, 0.1, 0.01], rtol=1e-12)
    on = optimizer()
    chain = ChainedScheduler([LinearLR(on, 0.5, total_iters=2), StepLR(on, 2, 0.1)])
    sequence = SequentialLR(on, [chain, StepLR(on, 2, 0.5)], milestones=[2])
    np.testing.assert_allclose(run(on, sequence, 4)[:, 0] / 0.1, [0.5, 0.75, 1, 1, 0.5], rtol=1e-12)


def test_a_constant_of_zero_ends():
    on = optimizer()
    np.testing.assert_allclose(run(on, ConstantLR(on, 0.0, 2), 3), np.outer([0, 0, 1, 1], RATES))


def test_states_of_callable_objects():
    class Decay:
        def __init__(self, by):
            self.by = by

        def __call__(self, t):
            return self.by**t

    for cls in (LambdaLR, MultiplicativeLR):
        on = optimizer()
        schedule = cls(on, [Decay(0.5), abs, Decay(0.9)])
        state = schedule.state_dict()
        assert state["lr_lambdas"] == [{"by": 0.5}, None, {"by": 0.9}]
        twin = cls(optimizer(), [Decay(0.1), lambda t: 2.0, Decay(0.1)])
        twin.load_state_dict(state)
        assert [f(1) for f in twin.lr_lambdas] == [0.5, 2.0, 0.9]


def test_a_schedule_of_ones_own_is_a_few_lines():
    class Halve(LRScheduler):
        def next(self, lr, base):
            return base / 2**self.last_epoch

    on = Adam([Parameter(np.ones(2))], lr=1.0)
    assert run(on, Halve(on), 3).ravel().tolist() == [1, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda on: StepLR(on, 0), "StepLR: expected step_size to be a positive number, got 0"),
        (lambda on: CosineAnnealingLR(on, -1), "T_max"),
        (lambda on: LinearLR(on, 0.0), "start_factor"),
        (lambda on: LinearLR(on, end_factor=1.5), "end_factor"),
        (lambda on: LinearLR(on, total_iters=0), "total_iters"),
        (lambda on: StepLR(None, 1), "expected an Optimizer, got NoneType"),
        (lambda on: StepLR(on, 1, last_epoch=3), "initial_lr"),
        (lambda on: SequentialLR(on, [], []), "at least one"),
        (lambda on: SequentialLR(on, [ReduceLROnPlateau(on)], []), "got a ReduceLROnPlateau at 0"),
        (lambda on: ChainedScheduler([]), "at least one"),
        (lambda on: ChainedScheduler([None]), "this optimizer"),
        (lambda on: ChainedScheduler([StepLR(optimizer(), 1)], on), "this optimizer"),
        (lambda on: ChainedScheduler([ReduceLROnPlateau(on)]), "got a ReduceLROnPlateau at 0"),
        (lambda on: ConstantLR(on, 1.1), r"ConstantLR: expected factor in \[0, 1\], got 1.1"),
        (lambda on: PolynomialLR(on, 0), "total_iters"),
        (lambda on: LambdaLR(on, [abs]), "lr_lambda to be one value, or one for each of the 3 groups, got 1"),
        (lambda on: LambdaLR(None, abs), "expected an Optimizer"),
        (lambda on: CosineAnnealingWarmRestarts(on, 0), "T_0 to be a positive integer, got 0"),
        (lambda on: CosineAnnealingWarmRestarts(on, 1, 1.5), "T_mult"),
        (lambda on: CosineAnnealingWarmRestarts(on, 1, 1, "low"), "eta_min"),
        (lambda on: SequentialLR(on, [StepLR(on, 1)], [3]), "milestone"),
        (lambda on: SequentialLR(on, [StepLR(optimizer(), 1)], []), "this optimizer"),
        (lambda on: SequentialLR(on, [StepLR(on, 1), StepLR(on, 1), StepLR(on, 1)], [5, 2]), "in order"),
    ],
)
def test_impossible_arguments(make, words):
    on = optimizer()
    with pytest.raises(ValueError, match=words):
        make(on)
    assert rates(on) == RATES


def test_repr():
    on = optimizer()
    assert repr(StepLR(on, 3)) == "StepLR(step_size=3, gamma=0.1)"
    assert (
        repr(SequentialLR(on, [StepLR(on, 3)], [])) == "SequentialLR([StepLR(step_size=3, gamma=0.1)], milestones=[])"
    )
