"""Optimizers beside torch's: the same 20 steps over every argument, the same states, arguments and refusals."""

import inspect

import numpy as np
import pytest

import backhand.training
from backhand.layers import Parameter
from backhand.training import GravesRMSprop, Muon
from backhand.training.optimizers import muon
from tests.conftest import need
from tests.optimizing import CLASSES, close, combinations, gradient, parameters, run

torch = need("torch")
need("expecttest")  # what torch's testing module imports

from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db  # noqa: E402

from tests import parity  # noqa: E402

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
TWINS = [cls for cls in CLASSES if cls is not GravesRMSprop]  # the one that torch does not have
MACHINE = {"foreach", "capturable", "differentiable", "fused"}
INFOS = {info.optim_cls.__name__: info for info in optim_db}


def to_torch(state_dict):
    state = {i: {k: torch.from_numpy(v) for k, v in own.items()} for i, own in state_dict["state"].items()}
    return {**state_dict, "state": state}


def beside(cls, options, groups=({}, {"lr": 0.01}), exchange=True):
    """20 steps of both, in groups with options of their own; the states are exchanged in the middle, both ways."""
    ours = parameters(cls)
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]

    def split(params):
        return [{"params": params[:2], **groups[0]}, {"params": params[2:], **groups[1]}]

    mine = cls(split(ours), **options)
    twin = getattr(torch.optim, cls.__name__)(split(theirs), **options)
    for t in range(20):
        for p, q in zip(ours, theirs, strict=True):
            p.grad[...] = gradient(p.data, t)
            q.grad = torch.from_numpy(np.array(gradient(q.detach().numpy(), t)))
        mine.step()
        twin.step()
        if t == 11 and exchange:
            state = twin.state_dict()
            twin.load_state_dict(to_torch(mine.state_dict()))
            mine.load_state_dict(state)
    mine_state, twin_state = mine.state_dict()["state"], twin.state_dict()["state"]
    assert set(mine_state) == set(twin_state)
    for i, state in mine_state.items():
        assert set(state) == set(twin_state[i])
    return ours, theirs, mine_state, twin_state


def agree(cls, options, groups=({}, {"lr": 0.01}), tolerance=1e-12):
    parity.TRIED[cls.__name__] += 1
    ours, theirs, mine_state, twin_state = beside(cls, options, groups)
    for p, q in zip(ours, theirs, strict=True):
        assert close(p.data, q.detach().numpy(), tolerance)
    for i, state in mine_state.items():
        for name, value in state.items():
            # torch begins this one in float32, and goes on in float64 when it has been loaded
            allowed = 1e-6 if name == "mu_product" else tolerance
            assert close(value, twin_state[i][name].numpy(), allowed), name
    parity.COUNTS[cls.__name__] += 1


@pytest.mark.parametrize(
    ("cls", "options"),
    list(combinations(*(cls for cls in TWINS if cls is not Muon))),
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_same_as_torch(cls, options):
    agree(cls, options)


@pytest.mark.parametrize(("cls", "options"), list(combinations(Muon)), ids=lambda v: getattr(v, "__name__", str(v)))
def test_muon_is_torchs(cls, options, monkeypatch):
    # without the rounding to bfloat16 on both sides every digit can be compared
    monkeypatch.setattr(muon, "bfloat16", np.asarray)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    agree(cls, options)


@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (3, 4), (10, 5), (40, 70)])
def test_the_rounding_of_muon_is_torchs(shape):
    from torch.optim._muon import _zeropower_via_newtonschulz as reference

    rng = np.random.default_rng(0)
    coefficients = (3.4445, -4.7750, 2.0315)
    same = 0
    for _ in range(20):
        g = rng.standard_normal(shape)
        assert np.array_equal(muon.bfloat16(g), torch.from_numpy(g).bfloat16().float().numpy())
        got = muon.orthogonalize(g, coefficients, 5, 1e-7)
        wanted = reference(torch.from_numpy(g), coefficients, 5, 1e-7).float().numpy()
        # a product that is summed in another order may round to the neighbour, which the next ones carry on
        assert np.abs(got - wanted).max() < 0.03
        same += np.array_equal(got, wanted)
    assert same >= 15 or shape == (40, 70)
    u, s, v = np.linalg.svd(g)
    assert np.abs(u[:, : len(s)] @ v[: len(s)] - got).max() < 0.6


def test_special_numbers_in_bfloat16():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    x = np.append(x, np.array([0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32))
    expected = torch.from_numpy(x).bfloat16().float().numpy()
    assert np.array_equal(muon.bfloat16(x), expected, equal_nan=True)
    assert np.array_equal(np.signbit(muon.bfloat16(x[:2])), [False, True])


# ---------------------------------------------------------------------- torch's own inputs


def plain(value):
    """An option as ours: a tensor of one number is that number."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.ndim == 0 else value.numpy()
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


def samples():
    for cls in TWINS:
        for i, sample in enumerate(INFOS[cls.__name__].optim_inputs_func(device="cpu")):
            yield pytest.param(cls, sample.kwargs, id=f"{cls.__name__}-{i}-{sample.desc}")


def refusals():
    for cls in TWINS:
        errors = INFOS[cls.__name__].optim_error_inputs_func(device="cpu", dtype=torch.float64)
        for i, error in enumerate(errors):
            if "complex" in error.optimizer_error_input.desc:  # there is no such Parameter
                continue
            yield pytest.param(cls, error, id=f"{cls.__name__}-{i}-{error.optimizer_error_input.desc}")


@pytest.mark.parametrize(("cls", "options"), list(samples()))
def test_torchs_own_inputs(cls, options, monkeypatch):
    monkeypatch.setattr(muon, "bfloat16", np.asarray)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    agree(cls, {name: plain(value) for name, value in options.items()})


def as_ours(params):
    """Tensors as Parameters in whatever they are given in."""
    if isinstance(params, torch.Tensor):
        return Parameter(params.detach().numpy())
    if isinstance(params, dict):
        return {name: as_ours(value) for name, value in params.items()}
    if isinstance(params, (list, tuple)):
        made = {id(each): as_ours(each) for each in params}
        return type(params)(made[id(each)] for each in params)
    return params


@pytest.mark.parametrize(("cls", "error"), list(refusals()))
def test_what_torch_rejects_is_rejected(cls, error):
    given = error.optimizer_error_input
    tensor = torch.zeros(2, 2, dtype=torch.float64)
    params = [tensor] if given.params is None else given.params
    if isinstance(params, list) and isinstance(params[0], dict):  # one tensor, one Parameter, in every group
        made = {}
        params = [{**group, "params": once(group["params"], made)} for group in params]
    else:
        params = as_ours(params)
    with pytest.raises((ValueError, TypeError)):
        cls(params, **{k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.kwargs.items()}).step()
    assert error.error_on in (OptimizerErrorEnum.CONSTRUCTION_ERROR, OptimizerErrorEnum.STEP_ERROR)


def once(params, made):
    if isinstance(params, torch.Tensor):
        return made.setdefault(id(params), as_ours(params))
    return as_ours(params)


# ---------------------------------------------------------------------- arguments, groups


@pytest.mark.parametrize("cls", TWINS)
def test_arguments_of_torch_in_torchs_order(cls):
    ours = inspect.signature(cls).parameters
    theirs = inspect.signature(getattr(torch.optim, cls.__name__)).parameters
    expected = [name for name in theirs if name not in MACHINE]
    assert sorted(ours) == sorted(expected)
    assert {k: ours[k].default for k in expected} == {k: theirs[k].default for k in expected}
    positional = [name for name, a in ours.items() if a.kind is a.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)[: len(positional)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cls", TWINS)
def test_every_option_of_a_group(cls, seed, monkeypatch):
    monkeypatch.setattr(muon, "bfloat16", np.asarray)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    rng = np.random.default_rng(seed)
    every = [options for _, options in combinations(cls)][1:]
    groups = [dict(every[rng.integers(len(every))]) for _ in range(2)]
    for group in groups:
        group.pop("initial_accumulator_value", None)  # torch takes the constructor's in every group
    agree(cls, {}, groups)


@pytest.mark.parametrize("cls", TWINS)
def test_what_torch_calls_the_options_of_a_group(cls):
    ours = parameters(cls)
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
    group = getattr(torch.optim, cls.__name__)(theirs).state_dict()["param_groups"][0]
    missing = set(group) - set(cls(ours).state_dict()["param_groups"][0]) - MACHINE
    assert missing <= ({"decoupled_weight_decay", "maximize"} if cls is Muon else set())


# ---------------------------------------------------------------------- what torch does not have


@pytest.mark.parametrize(("cls", "options"), list(combinations(GravesRMSprop)), ids=str)
def test_graves_rmsprop_is_his_equations(cls, options):
    ours = parameters()
    full = {"lr": 1e-4, "alpha": 0.95, "eps": 1e-4, "momentum": 0.9, "weight_decay": 0, "maximize": False, **options}
    assert {name: inspect.signature(cls).parameters[name].default for name in full} == {
        **full,
        **{"lr": 1e-4, "alpha": 0.95, "eps": 1e-4, "momentum": 0.9, "weight_decay": 0, "maximize": False},
    }
    weights = [p.data.copy() for p in ours]
    n, m, step = ([np.zeros_like(w) for w in weights] for _ in range(3))
    for t in range(20):
        for i, w in enumerate(weights):
            g = gradient(w, t) * (-1 if full["maximize"] else 1) + full["weight_decay"] * w
            n[i] = full["alpha"] * n[i] + (1 - full["alpha"]) * g**2
            m[i] = full["alpha"] * m[i] + (1 - full["alpha"]) * g
            step[i] = full["momentum"] * step[i] - full["lr"] * g / np.sqrt(n[i] - m[i] ** 2 + full["eps"])
            weights[i] = w + step[i]
    run(cls(ours, **options), ours, 20)
    assert all(close(p.data, w) for p, w in zip(ours, weights, strict=True))


def test_the_variance_of_a_constant_gradient_is_not_below_zero():
    p = Parameter(np.zeros(1000, np.float32))
    optimizer = GravesRMSprop([p], eps=1e-12)
    for _ in range(300):
        p.grad[...] = np.linspace(1, 2, 1000)
        optimizer.step()
    assert not np.isnan(p.data).any()


def test_every_optimizer_is_here():
    exported = {getattr(backhand.training, name) for name in backhand.training.__all__}
    optimizers = {e for e in exported if isinstance(e, type) and issubclass(e, backhand.training.Optimizer)}
    assert optimizers - {backhand.training.Optimizer} == set(CLASSES)
