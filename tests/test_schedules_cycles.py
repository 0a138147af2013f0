"""Schedules that move the momentum too, and the one that goes by a measured number, beside torch's."""

import inspect
import itertools

import numpy as np
import pytest

import backhand.training
from backhand.layers import Parameter
from backhand.training import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from tests.conftest import need

RATES = [0.1, 1e-3, 3.0]
OPTIMIZERS = [("SGD", {"momentum": 0.5}), ("Adam", {}), ("RMSprop", {}), ("Rprop", {})]
ONE_CYCLE = [
    {"max_lr": lr, "pct_start": pct, "anneal_strategy": anneal, "three_phase": three, **length}
    for lr, pct, anneal, three, length in itertools.product(
        (0.2, [0.1, 0.5, 2.0]),
        (0.3, 0.0, 0.41),
        ("cos", "linear"),
        (False, True),
        ({"total_steps": 100}, {"epochs": 11, "steps_per_epoch": 10}),
    )
] + [
    {"max_lr": 0.2, "total_steps": 120, "base_momentum": [0.1, 0.2, 0.3], "max_momentum": [0.9, 0.8, 0.7]},
    {"max_lr": 0.2, "total_steps": 120, "div_factor": 3, "final_div_factor": 7.5},
    {"max_lr": 0.2, "total_steps": 120, "div_factor": 3, "final_div_factor": 7.5, "three_phase": True},
    {"max_lr": 0.2, "total_steps": 100, "base_momentum": 0.5, "max_momentum": 0.99, "pct_start": 0.5},
]
CYCLIC = [
    {"base_lr": low, "max_lr": 0.3, "step_size_up": up, "step_size_down": down, "mode": mode, "gamma": 0.97}
    for low, up, down, mode in itertools.product(
        (0.01, [0.0, 0.1, 0.2]), (1, 7, 2000), (None, 0, 3, 20), ("triangular", "triangular2", "exp_range")
    )
] + [
    {"base_lr": 0.1, "max_lr": [0.3, 0.05, 1], "step_size_up": 5, "scale_fn": lambda x: 1 / x**2, "mode": "mine"},
    {"base_lr": 0.1, "max_lr": 0.3, "step_size_up": 5, "scale_fn": lambda x: 0.9**x, "scale_mode": "iterations"},
    {"base_lr": 0.1, "max_lr": 0.3, "step_size_up": 5, "base_momentum": 0.1, "max_momentum": [0.7, 0.8, 0.9]},
    {"base_lr": 0.1, "max_lr": 0.3},
]
GRID = [("OneCycleLR", k) for k in ONE_CYCLE] + [("CyclicLR", k) for k in CYCLIC]
PLATEAU = [
    {"mode": mode, "factor": factor, "patience": patience, "threshold": size, "threshold_mode": kind, **rest}
    for mode, factor, patience, size, kind, rest in itertools.product(
        ("min", "max"),
        (0.1, 0.7),
        (0, 2),
        (1e-4, 0.1),
        ("rel", "abs"),
        ({}, {"cooldown": 3}, {"min_lr": 0.05}, {"min_lr": [0.05, 0, 1.0], "eps": 0.01}),
    )
] + [{}]


def pair(torch, name, options):
    """An optimizer of three groups, and torch's."""
    ours = [{"params": [Parameter(np.ones(1))], "lr": lr} for lr in RATES]
    theirs = [{"params": [torch.ones(1, requires_grad=True)], "lr": lr} for lr in RATES]
    return getattr(backhand.training, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)


def seen(optimizer):
    """What a schedule may have changed: the rates and the momenta of all groups."""
    momenta = [group["betas"][0] if "betas" in group else group.get("momentum", 0) for group in optimizer.param_groups]
    return [group["lr"] for group in optimizer.param_groups] + momenta


def walk(optimizer, schedule, steps):
    rows = [seen(optimizer)]
    for _ in range(steps):
        schedule.step()
        rows.append(seen(optimizer))
        assert schedule.get_last_lr() == seen(optimizer)[:3]
    return np.array(rows)


def count(name):
    from tests.parity import COUNTS  # needs torch

    COUNTS[name] += 1


# ---------------------------------------------------------------------- cycles


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kwargs"), GRID, ids=str)
def test_hundred_values_are_torchs(name, kwargs):
    torch = need("torch")
    for kind, options in OPTIMIZERS:
        on, other = pair(torch, kind, options)
        kwargs = {**kwargs, "cycle_momentum": kind != "Rprop"}
        schedule = getattr(backhand.training, name)(on, **kwargs)
        twin = getattr(torch.optim.lr_scheduler, name)(other, **kwargs)
        np.testing.assert_allclose(walk(on, schedule, 99), walk(other, twin, 99), rtol=1e-12, atol=1e-15)
        for group, there in zip(on.state_dict()["param_groups"], other.state_dict()["param_groups"], strict=True):
            assert {k for k in there if k.endswith(("_lr", "_momentum"))} <= set(group)
        count(name)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kwargs"), [*GRID[::9], *GRID[-4:]], ids=str)
def test_last_epoch_and_a_schedule_before_are_torchs(name, kwargs):
    torch = need("torch")
    found = []
    modules = (backhand.training, torch.optim.lr_scheduler)
    for on, module in zip(pair(torch, "SGD", {"momentum": 0.5}), modules, strict=True):
        rows = []
        before = module.ExponentialLR(on, 0.5)
        before.step()
        schedule = getattr(module, name)(on, **kwargs)
        rows.append(seen(on))
        for _ in range(9):
            schedule.step()
        again = getattr(module, name)(on, **kwargs, last_epoch=9)
        rows.append(seen(on))
        rows += walk(on, again, 20).tolist()
        found.append(rows)
    np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("name", "kwargs"), [*GRID[::5], *GRID[-4:]], ids=str)
def test_state_dict_goes_on_to_the_bit(name, kwargs):
    def make():
        on = backhand.training.SGD([{"params": [Parameter(np.ones(1))], "lr": lr} for lr in RATES], momentum=0.5)
        return on, getattr(backhand.training, name)(on, **kwargs)

    (on, schedule), (copy, twin) = make(), make()
    walk(on, schedule, 7)
    twin.load_state_dict(schedule.state_dict())
    copy.load_state_dict(on.state_dict())
    assert np.array_equal(walk(on, schedule, 30), walk(copy, twin, 30))


def test_the_end_of_one_cycle():
    on = backhand.training.Adam([Parameter(np.ones(1))])
    schedule = OneCycleLR(on, 1.0, total_steps=4)
    walked = []
    for _ in range(4):
        schedule.step()
        walked.append(on.param_groups[0]["lr"])
    state = schedule.state_dict()
    for _ in range(2):
        with pytest.raises(ValueError, match="expected at most 4 steps"):
            schedule.step()
        assert schedule.state_dict() == state and on.param_groups[0]["lr"] == walked[-1]


def test_states_of_a_scale_of_ones_own():
    class Scale:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return self.by**x

    def make(scale):
        return CyclicLR(backhand.training.SGD([Parameter(np.ones(1))]), 0.1, 0.2, scale_fn=scale)

    state = make(Scale(0.5)).state_dict()
    twin = make(Scale(0.1))
    twin.load_state_dict(state)
    assert twin.scale_fn(1) == 0.5
    assert make(lambda x: x).state_dict()["_scale_fn_custom"] is None


# ---------------------------------------------------------------------- by a measured number


@pytest.mark.parity
@pytest.mark.parametrize("kwargs", PLATEAU, ids=str)
def test_plateaus_are_torchs(kwargs):
    torch = need("torch")
    for seed in range(2):
        on, other = pair(torch, "SGD", {})
        schedule = ReduceLROnPlateau(on, **kwargs)
        twin = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **kwargs)
        rng = np.random.default_rng(seed)
        numbers = np.exp(-0.03 * np.arange(100)) + rng.normal(0, 0.1, 100) + (0 if seed else -0.5)
        numbers[[30, 31, 60]] = np.nan, np.inf, -np.inf
        for t, number in enumerate(numbers):
            schedule.step(number)
            twin.step(number)
            assert seen(on) == seen(other)
            assert schedule.get_last_lr() == twin.get_last_lr()
            if t == 50:
                state = twin.state_dict()
                assert set(state) - {"mode_worse"} <= set(schedule.state_dict())
                twin.load_state_dict(schedule.state_dict())
                schedule.load_state_dict(state)
    count("ReduceLROnPlateau")


def test_groups_added_later_have_the_same_floor():
    on = backhand.training.SGD([Parameter(np.ones(1))], lr=1.0)
    schedule = ReduceLROnPlateau(on, patience=0, min_lr=0.5)
    on.add_param_group({"params": [Parameter(np.ones(1))], "lr": 2.0})
    for number in (1, 1, 1):
        schedule.step(number)
    assert [group["lr"] for group in on.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda on: OneCycleLR(on, 1.0), "total_steps, or epochs and steps_per_epoch"),
        (lambda on: OneCycleLR(on, 1.0, 0), "total_steps to be a positive integer, got 0"),
        (lambda on: OneCycleLR(on, 1.0, 1.5), "total_steps"),
        (lambda on: OneCycleLR(on, 1.0, epochs=-1, steps_per_epoch=3), "epochs"),
        (lambda on: OneCycleLR(on, 1.0, epochs=1, steps_per_epoch=0), "steps_per_epoch"),
        (lambda on: OneCycleLR(on, 1.0, 9, pct_start=1.1), "pct_start to be a float from 0 to 1, got 1.1"),
        (lambda on: OneCycleLR(on, 1.0, 9, pct_start=1), "pct_start"),
        (lambda on: OneCycleLR(on, 1.0, 9, anneal_strategy="exp"), "anneal_strategy"),
        (lambda on: OneCycleLR(on, [1.0], 9), "max_lr to be one value, or one for each of the 3 groups, got 1"),
        (lambda on: OneCycleLR(on, 1.0, 9, max_momentum=[1, 2]), "max_momentum"),
        (lambda on: OneCycleLR(on, 1.0, 9), "momentum or betas, got Rprop; use cycle_momentum=False"),
        (lambda on: OneCycleLR(on, 1.0, 9, cycle_momentum=False, last_epoch=3), "to go on from"),
        (lambda on: OneCycleLR(None, 1.0, 9), "expected an Optimizer"),
        (lambda on: CyclicLR(on, 0.1, 1.0), "momentum or betas"),
        (lambda on: CyclicLR(on, 0.1, 1.0, mode="square"), "mode"),
        (lambda on: CyclicLR(on, 0.1, 1.0, scale_mode="square"), "scale_mode"),
        (lambda on: CyclicLR(on, 0.1, 1.0, 0), "step_size_up"),
        (lambda on: CyclicLR(on, 0.1, 1.0, 1, -1), "step_size_down"),
        (lambda on: CyclicLR(on, [0.1], 1.0), "base_lr"),
        (lambda on: CyclicLR(None, 0.1, 1.0), "expected an Optimizer"),
        (lambda on: ReduceLROnPlateau(on, "up"), "mode to be 'min' or 'max', got 'up'"),
        (lambda on: ReduceLROnPlateau(on, factor=1.0), "factor to be below 1, got 1.0"),
        (lambda on: ReduceLROnPlateau(on, threshold_mode="up"), "threshold_mode"),
        (lambda on: ReduceLROnPlateau(on, min_lr=[0]), "min_lr"),
        (lambda on: ReduceLROnPlateau(None), "expected an Optimizer"),
    ],
)
def test_impossible_arguments(make, words):
    on = backhand.training.Rprop([{"params": [Parameter(np.ones(1))], "lr": lr} for lr in RATES])
    with pytest.raises(ValueError, match=words):
        make(on)
    assert seen(on)[:3] == RATES and "max_lr" not in on.param_groups[0]


# ---------------------------------------------------------------------- all schedules


@pytest.mark.parity
def test_arguments_of_torch_in_torchs_order():
    torch = need("torch")
    ours = {name for name in backhand.training.__all__ if isinstance(getattr(backhand.training, name), type)}
    ours = {name for name in ours if issubclass(getattr(backhand.training, name), LRScheduler)}
    assert ours == set(torch.optim.lr_scheduler.__all__)
    for name in ours:
        mine = inspect.signature(getattr(backhand.training, name)).parameters
        theirs = inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters
        assert [(k, v.default) for k, v in mine.items()] == [(k, v.default) for k, v in theirs.items()], name
