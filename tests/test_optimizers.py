"""Optimizers: the flat storage under everything that may disturb it, clipping, and what is refused."""

import copy
import inspect
import pickle

import numpy as np
import pytest

from backhand.layers import Linear, Parameter, ReLU
from backhand.models import Repeat, Sequential
from backhand.training import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    GravesRMSprop,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
    clip_grad_norm_,
    clip_grad_value_,
)
from backhand.training.optimizers import blocks
from tests.conftest import need
from tests.optimizing import CLASSES, close, gradient, parameters, run, values


@pytest.mark.parity
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, float("inf"), "inf", -1.0])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_clipping_by_norm_is_torchs(norm_type, max_norm):
    torch = need("torch")
    ours = parameters()
    for p in ours:
        p.grad += gradient(p.data, 0)
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
    for p, q in zip(ours, theirs, strict=True):
        q.grad = torch.from_numpy(p.grad.copy())
    norm = clip_grad_norm_(ours, max_norm, norm_type)
    assert close(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type).numpy())
    assert all(np.allclose(p.grad, q.grad.numpy(), rtol=1e-12, atol=0) for p, q in zip(ours, theirs, strict=True))
    from tests.parity import COUNTS  # needs torch

    COUNTS["clip_grad_norm_"] += 1


def linear(cls):
    return Linear(3, 2, bias=cls is not Muon, rng=0)


# ---------------------------------------------------------------------- clipping


def test_clipping():
    a, b = Parameter(np.zeros(2)), Parameter(np.zeros(1))
    a.grad[:], b.grad[:] = [3.0, 0.0], [4.0]
    assert clip_grad_norm_([a, b], 1.0) == 5
    assert np.allclose([*a.grad, *b.grad], np.array([3, 0, 4]) / (5 + 1e-6), rtol=1e-15)
    clip_grad_value_(iter([a, b]), 0.7)
    assert b.grad[0] == 0.7 and a.grad[0] < 0.7
    b.requires_grad = False
    b.grad[:] = 100
    assert clip_grad_norm_([a, b], 0.1) < 1
    clip_grad_value_(b, 1.0)
    assert b.grad[0] == 100
    assert clip_grad_norm_([b], 1.0) == 0
    with pytest.raises(ValueError, match="max_norm"):
        clip_grad_norm_([a], -1)


def test_clipping_survives_squares_beyond_float32():
    p = Parameter(np.zeros(2, np.float32))
    p.grad[:] = [3e30, 4e30]
    assert clip_grad_norm_(p, 1.0) == pytest.approx(5e30)
    assert np.allclose(p.grad, [0.6, 0.8])
    p.grad[:] = [np.inf, 1]
    assert clip_grad_norm_(p, 1.0) == np.inf
    with pytest.raises(RuntimeError, match="finite"):
        clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


# ---------------------------------------------------------------------- the flat storage


@pytest.mark.parametrize("cls", CLASSES)
def test_pieces_change_nothing(cls, monkeypatch):
    whole, cut = parameters(cls), parameters(cls)
    run(cls(whole), whole, 5)
    monkeypatch.setattr(blocks, "PIECE", 5)
    run(cls(cut), cut, 5)
    assert all(np.array_equal(a, b) for a, b in zip(values(whole), values(cut), strict=True))


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_are_views_of_one_vector_and_keep_their_numbers(cls):
    params = parameters(cls)
    before = values(params)
    params[1].grad += 7
    optimizer = cls(params)
    assert len(optimizer.gradients()) == 1
    assert all(np.shares_memory(p.grad, optimizer.gradients()[0]) for p in params)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(params), strict=True))
    assert (params[1].grad == 7).all() and optimizer.gradients()[0].sum() == 7 * params[1].size
    optimizer.zero_grad()
    assert all((p.grad == 0).all() for p in params)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_gradient_is_not_written_to_by_a_step(cls):
    params = parameters(cls)
    known = inspect.signature(cls).parameters
    options = {"weight_decay": 0.1, "maximize": True}
    optimizer = cls(params, **{name: value for name, value in options.items() if name in known})
    for p in params:
        p.grad += gradient(p.data, 0)
    before = [p.grad.copy() for p in params]
    optimizer.step()
    assert all(np.array_equal(a, p.grad) for a, p in zip(before, params, strict=True))


@pytest.mark.parametrize("cls", CLASSES)
def test_float32_stays_float32(cls):
    params = parameters(cls, dtype=np.float32)
    optimizer = cls(params, lr=np.float64(0.1))
    run(optimizer, params, 2)
    assert {p.data.dtype for p in params} == {p.grad.dtype for p in params} == {np.dtype(np.float32)}
    arrays = [v for own in optimizer.state.values() for v in own.values() if isinstance(v, np.ndarray)]
    assert all(v.dtype == np.float32 for v in arrays)


@pytest.mark.parametrize("cls", CLASSES)
def test_astype_after_the_optimizer_was_made(cls):
    layer = linear(cls)
    optimizer = cls(layer.parameters())
    run(optimizer, list(layer.parameters()), 3)
    reference = linear(cls)
    other = cls(reference.parameters())
    run(other, list(reference.parameters()), 3)
    layer.astype(np.float64)
    run(optimizer, list(layer.parameters()), 3, start=3)
    run(other, list(reference.parameters()), 3, start=3)
    assert layer.weight.dtype == np.float64
    assert np.allclose(layer.weight.data, reference.weight.data, rtol=1e-5)
    assert not np.array_equal(layer.weight.data, reference.weight.data)  # it did go on in float64


@pytest.mark.parametrize("cls", CLASSES)
def test_freezing_and_thawing(cls):
    together, frozen = parameters(cls), parameters(cls)
    plain, disturbed = cls(together), cls(frozen)
    run(plain, together, 2)
    run(disturbed, frozen, 2)
    frozen[0].requires_grad = False
    kept = frozen[0].data.copy()
    run(disturbed, frozen, 3, start=2)
    run(plain, together, 3, start=2)
    assert np.array_equal(frozen[0].data, kept)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(together[1:], frozen[1:], strict=True))
    frozen[0].requires_grad = True
    # it goes on from its own third step, as if the time between had not been
    alone = parameters(cls)[:1]
    lonely = cls(alone)
    run(lonely, alone, 2)
    run(lonely, alone, 2, start=9)
    run(disturbed, frozen, 2, start=9)
    run(plain, together, 2, start=9)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(together[1:], frozen[1:], strict=True))
    assert np.allclose(frozen[0].data, alone[0].data, rtol=1e-15)


def test_a_gradient_that_a_frozen_parameter_gathered_is_gone_when_it_thaws():
    p, q = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimizer = SGD([p, q], lr=1.0)
    p.requires_grad = False
    p.grad += 5
    optimizer.step()
    optimizer.zero_grad()
    p.requires_grad = True
    optimizer.step()
    assert (p.data == 1).all()


def test_all_frozen_is_no_error():
    p = Parameter(np.ones(2), requires_grad=False)
    optimizer = Adam([p])
    p.grad += 1
    optimizer.step()
    assert (p.data == 1).all() and optimizer.gradients() == []


def test_two_optimizers_over_disjoint_parts():
    params, reference = parameters(), parameters()
    first, second = Adam(params[:2], lr=0.1), SGD(params[2:], lr=0.1, momentum=0.9)
    a, b = Adam(reference[:2], lr=0.1), SGD(reference[2:], lr=0.1, momentum=0.9)
    for t in range(4):
        run(first, params[:2], 1, t)
        run(second, params[2:], 1, t)
    run(a, reference[:2], 4)
    run(b, reference[2:], 4)
    assert all(np.array_equal(p.data, q.data) for p, q in zip(params, reference, strict=True))


def test_two_optimizers_over_the_same_parameters_take_turns():
    params = [Parameter(np.ones(3))]
    first, second = SGD(params, lr=0.5), SGD(params, lr=0.25, momentum=0.5)
    params[0].grad += 1
    first.step()
    second.step()
    second.step()
    assert np.allclose(params[0].data, 1 - 0.5 - 0.25 - 0.375)
    first.zero_grad()
    assert (params[0].grad == 0).all()


def test_a_shared_parameter_is_updated_once():
    body = Linear(2, 2, rng=0)
    model = Sequential(Repeat(body, 3), body, ReLU())
    optimizer = SGD(model.parameters(), lr=1.0)
    before = body.weight.data.copy()
    body.weight.grad += 1
    optimizer.step()
    assert np.allclose(body.weight.data, before - 1)


def test_arrays_put_in_the_place_of_data_and_grad_are_taken_in():
    p, q = Parameter(np.ones(2)), Parameter(np.ones(2))
    optimizer = SGD([p, q], lr=1.0)
    p.data, q.grad = np.full(2, 5.0), np.full(2, 2.0)
    optimizer.step()
    assert (p.data == 5).all() and (q.data == -1).all()
    p.data = np.full(2, 9.0)  # nothing but the data
    optimizer.zero_grad()
    p.grad += 1
    optimizer.step()
    assert (p.data == 8).all()
    p.grad = np.ones(3)
    with pytest.raises(ValueError, match=r"gradient of shape \(2,\), got \(3,\)"):
        optimizer.step()


def test_loading_weights_after_the_optimizer_was_made():
    model = Sequential(Linear(3, 2, rng=0), Linear(2, 1, rng=1))
    weights = {name: array + 1 for name, array in model.state_dict().items()}
    optimizer = SGD(model.parameters(), lr=1.0)
    model.load_state_dict(weights)
    for p in model.parameters():
        p.grad += 1
    optimizer.step()
    assert all(np.allclose(array, weights[name] - 1) for name, array in model.state_dict().items())


def test_snapshots_are_not_changed_by_later_steps():
    model = Linear(3, 2, rng=0)
    optimizer = Adam(model.parameters())
    run(optimizer, list(model.parameters()), 1)
    weights, state = model.state_dict(), optimizer.state_dict()
    kept = copy.deepcopy((weights, state))
    run(optimizer, list(model.parameters()), 2)
    np.testing.assert_equal((weights, state), kept)
    optimizer.load_state_dict(state)
    run(optimizer, list(model.parameters()), 2)
    np.testing.assert_equal(state, kept[1])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_copy_of_model_and_optimizer_goes_on_by_itself(cls, copier):
    model = linear(cls)
    optimizer = cls(model.parameters())
    run(optimizer, list(model.parameters()), 2)
    twin, own = copier((model, optimizer))
    before = model.state_dict()
    run(own, list(twin.parameters()), 2, start=2)
    np.testing.assert_equal(model.state_dict(), before)
    run(optimizer, list(model.parameters()), 2, start=2)
    np.testing.assert_equal(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("cls", CLASSES)
def test_state_dict_goes_on_to_the_bit(cls):
    straight, broken = parameters(cls), parameters(cls)
    options = {"momentum": 0.9} if cls in (SGD, RMSprop) else {}
    optimizer = cls(straight, **options)
    run(optimizer, straight, 6)
    first = cls(broken, **options)
    run(first, broken, 3)
    resumed = [Parameter(p.data) for p in broken]
    second = cls(resumed, lr=123.0, **options)
    second.load_state_dict(first.state_dict())
    run(second, resumed, 3, start=3)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(straight, resumed, strict=True))


def test_state_dict_that_does_not_fit_changes_nothing():
    optimizer = Adam(parameters())
    run(optimizer, optimizer.param_groups[0]["params"], 1)
    before = optimizer.state_dict()
    small = Adam(parameters()[:2])
    misshapen = copy.deepcopy(before)
    misshapen["state"][0]["exp_avg"] = np.zeros(5)
    unknown = copy.deepcopy(before)
    unknown["state"][9] = {}
    wild = copy.deepcopy(before)
    wild["param_groups"][0]["lr"] = -1
    for bad, words in (
        (small.state_dict(), r"groups of \[4\] parameters, got \[2\]"),
        (misshapen, r"exp_avg of parameter 0 to have shape \(4, 3\), got \(5,\)"),
        (unknown, "got one of 9"),
        (wild, "lr to be a number, 0 or more, got -1"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict(bad)
        np.testing.assert_equal(optimizer.state_dict(), before)


def test_parameters_added_later():
    params = parameters()
    optimizer = SGD(params[:1], lr=1.0)
    optimizer.add_param_group({"params": params[1:], "lr": 0.5})
    optimizer.param_groups[0]["params"].append(extra := Parameter(np.ones(2)))
    before = values([*params, extra])
    optimizer.zero_grad()
    for p in [*params, extra]:
        p.grad += 1
    optimizer.step()
    moved = [b - p.data for b, p in zip(before, [*params, extra], strict=True)]
    assert np.allclose(moved[0], 1) and np.allclose(moved[1], 0.5) and np.allclose(moved[-1], 1)
    with pytest.raises(ValueError, match="twice"):
        optimizer.add_param_group({"params": params[0]})
    assert len(optimizer.param_groups) == 2


def test_parameters_of_several_dtypes():
    params = [Parameter(np.ones(2, np.float32)), Parameter(np.ones(2))]
    optimizer = Adam(params)
    run(optimizer, params, 2)
    assert [p.dtype for p in params] == [np.float32, np.float64]
    assert len(optimizer.gradients()) == 2


def test_options_changed_while_it_runs():
    p = Parameter(np.zeros(1))
    optimizer = SGD([p], lr=1.0)
    p.grad += 1
    optimizer.step()
    optimizer.param_groups[0].update(lr=0.5, momentum=0.5)
    optimizer.step()  # the momentum begins at the gradient
    optimizer.step()
    assert np.allclose(p.data, -1 - 0.5 - 0.75)


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (SGD, {"lr": -1}, "SGD: expected lr to be a number, 0 or more, got -1"),
        (SGD, {"lr": float("nan")}, "lr"),
        (SGD, {"lr": "fast"}, "lr"),
        (SGD, {"momentum": -0.1}, "momentum"),
        (SGD, {"weight_decay": -0.1}, "weight_decay"),
        (SGD, {"nesterov": True}, "nesterov"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov"),
        (Adam, {"betas": (0.9, 1.0)}, r"betas to be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        (Adam, {"betas": 0.9}, "betas"),
        (Adam, {"eps": -1}, "eps"),
        (AdamW, {"lr": -1}, "AdamW"),
        (RMSprop, {"alpha": -1}, "alpha"),
        (Adamax, {"betas": ("a", 0.5)}, "betas"),
        (NAdam, {"momentum_decay": -1}, "momentum_decay"),
        (RAdam, {"weight_decay": -1}, "weight_decay"),
        (Rprop, {"etas": (0.5, 0.9)}, r"etas to be one number in \(0, 1\) and one above 1, got \(0.5, 0.9\)"),
        (Rprop, {"etas": (0.0, 1.2)}, "etas"),
        (Rprop, {"step_sizes": (2, 1)}, "step_sizes"),
        (Rprop, {"step_sizes": 3}, "step_sizes"),
        (Adadelta, {"rho": 1.1}, "rho to be a number from 0 to 1, got 1.1"),
        (Adadelta, {"rho": "a"}, "rho"),
        (GravesRMSprop, {"alpha": -0.1}, "alpha"),
        (Muon, {}, r"expected matrices, got a Parameter of shape \(2,\)"),
        (Adagrad, {"lr_decay": -1}, "lr_decay"),
        (Adagrad, {"initial_accumulator_value": -1}, "initial_accumulator_value"),
    ],
)
def test_impossible_options(cls, options, words):
    p = Parameter(np.ones(2))
    data = p.data
    with pytest.raises(ValueError, match=words):
        cls([p], **options)
    with pytest.raises(ValueError, match=words):
        cls([{"params": [p], **options}])
    assert p.data is data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ns_coefficients": (1, 2)}, "ns_coefficients to be three numbers"),
        ({"ns_steps": 100}, "ns_steps to be an integer from 0 to 99, got 100"),
        ({"ns_steps": 1.5}, "ns_steps"),
        ({"adjust_lr_fn": "fast"}, "adjust_lr_fn to be 'original' or 'match_rms_adamw', got 'fast'"),
        ({"momentum": -1}, "momentum"),
    ],
)
def test_impossible_options_of_muon(options, words):
    with pytest.raises(ValueError, match=words):
        Muon([Parameter(np.ones((2, 2)))], **options)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([], "at least one Parameter"),
        (iter([]), "at least one Parameter"),
        ([np.ones(2)], "expected Parameters, got ndarray at position 0"),
        (Linear(2, 2), r"pass model.parameters\(\)"),
        (Parameter(np.ones(2)), "iterable of Parameters"),
        (None, "iterable"),
        ([SHARED := Parameter(np.ones(2)), SHARED], "twice"),
        ([{"params": [SHARED]}, {"params": [SHARED]}], "twice"),
        ([{"params": [SHARED]}, SHARED], "dicts with 'params'"),
        ([{"lr": 1}], "'params'"),
    ],
    ids=str,
)
def test_impossible_parameters(params, words):
    with pytest.raises(ValueError, match=words):
        SGD(params)


def test_repr_and_the_base():
    assert repr(SGD(parameters(), lr=0.5)).startswith("SGD(4 parameters, lr=0.5, momentum=0")
    with pytest.raises(NotImplementedError, match="Optimizer"):
        Optimizer(parameters()).step()
