"""Optimizers: torch's numbers over every argument, and the flat storage under everything that may disturb it."""

import copy
import itertools
import pickle

import numpy as np
import pytest

from backhand.layers import Linear, Parameter, ReLU
from backhand.models import Repeat, Sequential
from backhand.training import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm_, clip_grad_value_
from backhand.training.optimizers import blocks
from tests.conftest import need

SHAPES = [(4, 3), (3,), (), (2, 2, 2)]
DECAYS = {"weight_decay": [0, 0.03], "maximize": [False, True]}
GRID = {
    SGD: {"lr": [0.05], "momentum": [0, 0.9], "dampening": [0, 0.3], "nesterov": [False, True], **DECAYS},
    Adam: {
        "lr": [0.05],
        "betas": [(0.9, 0.999), (0.3, 0.7), (0.0, 0.0)],
        "eps": [1e-8, 1e-2],
        "amsgrad": [False, True],
        "decoupled_weight_decay": [False, True],
        **DECAYS,
    },
    AdamW: {"lr": [0.05], "betas": [(0.9, 0.999), (0.3, 0.7)], "eps": [1e-8, 1e-2], "amsgrad": [False, True], **DECAYS},
    RMSprop: {
        "lr": [0.02],
        "alpha": [0.99, 0.5],
        "eps": [1e-8, 1e-2],
        "momentum": [0, 0.9],
        "centered": [False, True],
        **DECAYS,
    },
    Adagrad: {
        "lr": [0.1],
        "lr_decay": [0, 0.1],
        "initial_accumulator_value": [0, 0.5],
        "eps": [1e-10, 1e-2],
        **DECAYS,
    },
}
CLASSES = list(GRID)


def combinations():
    for cls, choices in GRID.items():
        yield cls, {}
        for values in itertools.product(*choices.values()):
            options = dict(zip(choices, values, strict=True))
            if options.get("nesterov") and (not options["momentum"] or options["dampening"]):
                continue
            yield cls, options


def parameters(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in SHAPES]


def gradient(w, t):
    return np.sin(3 * w + t) + 0.1 * w


def run(optimizer, params, steps, start=0):
    for t in range(start, start + steps):
        optimizer.zero_grad()
        for p in params:
            p.grad += gradient(p.data, t)
        optimizer.step()


def values(params):
    return [p.data.copy() for p in params]


def close(a, b, tolerance=1e-12):
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.abs(b).max()


# ---------------------------------------------------------------------- beside torch


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("cls", "options"), list(combinations()), ids=lambda v: getattr(v, "__name__", str(v)))
def test_same_as_torch(cls, options):
    torch = need("torch")
    ours = parameters()
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
    other = {"lr": 0.01}  # the second group's own rate
    mine = cls([{"params": ours[:2]}, {"params": ours[2:], **other}], **options)
    twin = getattr(torch.optim, cls.__name__)([{"params": theirs[:2]}, {"params": theirs[2:], **other}], **options)
    for t in range(20):
        for p, q in zip(ours, theirs, strict=True):
            p.grad[...] = gradient(p.data, t)
            q.grad = torch.from_numpy(np.array(gradient(q.detach().numpy(), t)))
        mine.step()
        twin.step()
        if t == 11:  # the states are exchanged in the middle, both ways
            state = twin.state_dict()
            twin.load_state_dict(_to_torch(torch, mine.state_dict()))
            mine.load_state_dict(state)
    for p, q in zip(ours, theirs, strict=True):
        assert close(p.data, q.detach().numpy())
    mine_state, twin_state = mine.state_dict()["state"], twin.state_dict()["state"]
    assert set(mine_state) == set(twin_state)
    for i, state in mine_state.items():
        assert set(state) == set(twin_state[i])
        assert all(close(value, twin_state[i][name].numpy()) for name, value in state.items())
    _count(cls.__name__)


def _count(name):
    from tests.parity import COUNTS  # needs torch

    COUNTS[name] += 1


def _to_torch(torch, state_dict):
    state = {i: {k: torch.from_numpy(v) for k, v in own.items()} for i, own in state_dict["state"].items()}
    return {**state_dict, "state": state}


@pytest.mark.parity
@pytest.mark.parametrize("cls", CLASSES)
def test_arguments_of_torch_in_torchs_order(cls):
    import inspect

    torch = need("torch")
    ours = inspect.signature(cls).parameters
    theirs = inspect.signature(getattr(torch.optim, cls.__name__)).parameters
    machine = {"foreach", "capturable", "differentiable", "fused"}
    expected = [name for name in theirs if name not in machine]
    assert sorted(ours) == sorted(expected)
    assert {k: ours[k].default for k in expected} == {k: theirs[k].default for k in expected}
    positional = [name for name, a in ours.items() if a.kind is a.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)[: len(positional)]


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
    _count("clip_grad_norm_")


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
    whole, cut = parameters(), parameters()
    run(cls(whole), whole, 5)
    monkeypatch.setattr(blocks, "PIECE", 5)
    run(cls(cut), cut, 5)
    assert all(np.array_equal(a, b) for a, b in zip(values(whole), values(cut), strict=True))


@pytest.mark.parametrize("cls", CLASSES)
def test_parameters_are_views_of_one_vector_and_keep_their_numbers(cls):
    params = parameters()
    before = values(params)
    params[1].grad += 7
    optimizer = cls(params)
    assert len(optimizer.gradients()) == 1
    assert all(np.shares_memory(p.grad, optimizer.gradients()[0]) for p in params)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(params), strict=True))
    assert (params[1].grad == 7).all() and optimizer.gradients()[0].sum() == 21
    optimizer.zero_grad()
    assert all((p.grad == 0).all() for p in params)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_gradient_is_not_written_to_by_a_step(cls):
    params = parameters()
    optimizer = cls(params, weight_decay=0.1, maximize=True)
    for p in params:
        p.grad += gradient(p.data, 0)
    before = [p.grad.copy() for p in params]
    optimizer.step()
    assert all(np.array_equal(a, p.grad) for a, p in zip(before, params, strict=True))


@pytest.mark.parametrize("cls", CLASSES)
def test_float32_stays_float32(cls):
    params = parameters(dtype=np.float32)
    optimizer = cls(params, lr=np.float64(0.1))
    run(optimizer, params, 2)
    assert {p.data.dtype for p in params} == {p.grad.dtype for p in params} == {np.dtype(np.float32)}
    arrays = [v for own in optimizer.state.values() for v in own.values() if isinstance(v, np.ndarray)]
    assert all(v.dtype == np.float32 for v in arrays)


@pytest.mark.parametrize("cls", CLASSES)
def test_astype_after_the_optimizer_was_made(cls):
    layer = Linear(3, 2, rng=0)
    optimizer = cls(layer.parameters())
    run(optimizer, list(layer.parameters()), 3)
    reference = Linear(3, 2, rng=0)
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
    together, frozen = parameters(), parameters()
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
    alone = parameters()[:1]
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
    model = Linear(3, 2, rng=0)
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
    straight, broken = parameters(), parameters()
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
