"""Optimizers and schedules with arguments and shapes that hypothesis draws, beside torch's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backhand.training
from backhand.layers import Parameter
from backhand.training import Muon
from backhand.training.optimizers import muon
from tests.conftest import need
from tests.optimizing import CLASSES, close, gradient

torch = need("torch")

from tests import parity  # noqa: E402

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
RATE = st.floats(1e-4, 0.02)
PART = st.floats(0, 0.98)
DECAYS = {"weight_decay": st.floats(0, 0.2), "maximize": st.booleans()}
ADAM = {"lr": RATE, "betas": st.tuples(PART, PART), "eps": st.floats(1e-6, 0.1), **DECAYS}
DECOUPLED = {"decoupled_weight_decay": st.booleans()}
OPTIONS = {
    "SGD": {"lr": RATE, "momentum": PART, "dampening": PART, **DECAYS},
    "Adam": {**ADAM, "amsgrad": st.booleans(), **DECOUPLED},
    "AdamW": {**ADAM, "amsgrad": st.booleans()},
    "Adamax": ADAM,
    "NAdam": {**ADAM, "momentum_decay": st.floats(0, 1), **DECOUPLED},
    "RAdam": {**ADAM, **DECOUPLED},
    "RMSprop": {
        "lr": RATE,
        "alpha": st.floats(0.1, 0.98),  # at 0 the variance is nothing but rounding
        "eps": st.floats(1e-3, 0.1),
        "momentum": PART,
        "centered": st.booleans(),
        **DECAYS,
    },
    "Rprop": {
        "lr": RATE,
        "etas": st.tuples(st.floats(0.1, 0.9), st.floats(1.1, 2)),
        "step_sizes": st.tuples(st.floats(0, 0.01), st.floats(0.01, 0.1)),
        "maximize": st.booleans(),
    },
    "Adagrad": {
        "lr": RATE,
        "lr_decay": st.floats(0, 1),
        "initial_accumulator_value": st.floats(0, 1),
        "eps": st.floats(1e-6, 0.1),
        **DECAYS,
    },
    "Adadelta": {"lr": st.floats(0, 1), "rho": st.floats(0, 1), "eps": st.floats(1e-6, 0.1), **DECAYS},
    "Muon": {
        "lr": RATE,
        "weight_decay": st.floats(0, 0.5),
        "momentum": PART,
        "nesterov": st.booleans(),
        "ns_steps": st.integers(0, 5),
        "adjust_lr_fn": st.sampled_from([None, "original", "match_rms_adamw"]),
    },
}
FRACTION = st.floats(0.01, 1)
STEPS = st.integers(1, 120)
SCHEDULES = {
    "StepLR": {"step_size": STEPS, "gamma": FRACTION},
    "MultiStepLR": {"milestones": st.lists(st.integers(0, 60), max_size=6), "gamma": FRACTION},
    "ExponentialLR": {"gamma": FRACTION},
    "ConstantLR": {"factor": FRACTION, "total_iters": STEPS},
    "LinearLR": {"start_factor": FRACTION, "end_factor": FRACTION, "total_iters": STEPS},
    "PolynomialLR": {"total_iters": STEPS, "power": st.floats(0.1, 3)},
    "CosineAnnealingWarmRestarts": {"T_0": st.integers(1, 60), "T_mult": st.integers(1, 3), "eta_min": FRACTION},
    "OneCycleLR": {
        "max_lr": FRACTION,
        "total_steps": st.integers(60, 200),
        "pct_start": st.floats(0.05, 0.45),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "base_momentum": PART,
        "max_momentum": PART,
        "div_factor": st.floats(1, 50),
        "final_div_factor": st.floats(1, 1e4),
        "three_phase": st.booleans(),
    },
    "CyclicLR": {
        "base_lr": FRACTION,
        "max_lr": FRACTION,
        "step_size_up": STEPS,
        "step_size_down": st.none() | STEPS,
        "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
        "gamma": FRACTION,
        "base_momentum": PART,
        "max_momentum": PART,
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_drawn_optimizers(name):
    cls, twin_cls = getattr(backhand.training, name), getattr(torch.optim, name)
    size = st.integers(1, 4)
    shapes = st.tuples(size, size) if cls is Muon else st.lists(size, max_size=3).map(tuple)

    @SETTINGS
    @given(options=st.fixed_dictionaries(OPTIONS[name]), shapes=st.lists(shapes, min_size=1, max_size=3))
    def check(options, shapes):
        parity.TRIED[name] += 1
        rng = np.random.default_rng(len(shapes))
        ours = [Parameter(rng.standard_normal(shape)) for shape in shapes]
        theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
        mine, twin = cls(ours, **options), twin_cls(theirs, **options)
        for t in range(6):
            for p, q in zip(ours, theirs, strict=True):
                p.grad[...] = gradient(p.data, t)
                q.grad = torch.from_numpy(np.array(gradient(q.detach().numpy(), t)))
            mine.step()
            twin.step()
        assert all(close(p.data, q.detach().numpy(), 1e-10) for p, q in zip(ours, theirs, strict=True))
        parity.COUNTS[name] += 1
        parity.DRAWN[name] += 1

    with pytest.MonkeyPatch.context() as patch:  # bfloat16 is compared elsewhere
        patch.setattr(muon, "bfloat16", np.asarray)
        patch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
        check()


@pytest.mark.parametrize("name", SCHEDULES)
def test_drawn_schedules(name):
    @SETTINGS
    @given(options=st.fixed_dictionaries(SCHEDULES[name]), rates=st.lists(FRACTION, min_size=1, max_size=3))
    def check(options, rates):
        parity.TRIED[name] += 1
        on = backhand.training.SGD([{"params": [Parameter(np.ones(1))], "lr": lr} for lr in rates])
        other = torch.optim.SGD([{"params": [torch.ones(1, requires_grad=True)], "lr": lr} for lr in rates])
        schedule = getattr(backhand.training, name)(on, **options)
        twin = getattr(torch.optim.lr_scheduler, name)(other, **options)
        for _ in range(60):
            for key in ("lr", "momentum"):
                got, wanted = ([group[key] for group in each.param_groups] for each in (on, other))
                np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
            schedule.step()
            twin.step()
        parity.COUNTS[name] += 1
        parity.DRAWN[name] += 1

    check()


def test_every_optimizer_is_drawn():
    assert set(OPTIONS) | {"GravesRMSprop"} == {cls.__name__ for cls in CLASSES}
