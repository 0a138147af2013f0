"""PyTorch's own test inputs (its module database), for every class that we have too: inputs that nobody here chose."""

import inspect

import numpy as np
import pytest

import backhand.layers
import backhand.losses
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:.*:UserWarning")]
torch = need("torch")
need("expecttest")  # what torch's testing module imports

from torch.testing._internal.common_modules import ModuleErrorEnum, module_db  # noqa: E402

from tests import parity  # noqa: E402

OURS = {name: getattr(package, name) for package in (backhand.layers, backhand.losses) for name in package.__all__}
INFOS = {info.name.removeprefix("nn."): info for info in module_db if info.name.removeprefix("nn.") in OURS}
FORBIDDEN = ("device", "dtype")  # torch's dtype argument takes torch's dtypes


def samples(info, training, errors=False):
    torch.manual_seed(0)
    make = info.module_error_inputs_func if errors else info.module_inputs_func
    return list(make(info, device="cpu", dtype=torch.float64, requires_grad=not errors, training=training) or [])


def rows():
    for name, info in INFOS.items():
        for training in (True, False):
            for i in range(len(samples(info, training))):
                yield pytest.param(name, training, i, id=f"{name}-{'train' if training else 'eval'}-{i}")


def error_rows():
    for name, info in INFOS.items():
        if info.module_error_inputs_func:
            for i in range(len(samples(info, True, errors=True))):
                yield pytest.param(name, i, id=f"{name}-{i}")


def build(name, constructor):
    cls = OURS[name]
    args = [parity.array_of(a) for a in constructor.args]
    kwargs = {k: parity.array_of(v) for k, v in constructor.kwargs.items() if k not in FORBIDDEN}
    if "return_state" in inspect.signature(cls).parameters:
        kwargs["return_state"] = True
    return cls(*args, **kwargs).astype("float64")


def arguments(given):
    """The inputs as arrays; torch calls the first one `input`, we call it x."""
    options = {k: parity.array_of(v) for k, v in given.kwargs.items()}
    first = (options.pop("input"),) if "input" in options else ()
    return (*first, *(parity.array_of(a) for a in given.args)), options


def draws_at_random(module):
    return any(
        getattr(each, "p", 0) or getattr(each, "dropout", 0) not in (0, 0.0, None) or isinstance(each, torch.nn.RReLU)
        for each in module.modules()
        if isinstance(getattr(each, "p", getattr(each, "dropout", 0)), (int, float)) or isinstance(each, torch.nn.RReLU)
    ) and not isinstance(module, (torch.nn.PairwiseDistance, torch.nn.MultiMarginLoss, torch.nn.TripletMarginLoss))


@pytest.mark.parametrize(("name", "training", "i"), list(rows()))
def test_torchs_own_inputs(name, training, i):
    sample = samples(INFOS[name], training)[i]
    theirs = INFOS[name].module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).double()
    theirs.train(training)
    if training and draws_at_random(theirs):
        pytest.skip("drawn at random in training")
    ours = build(name, sample.constructor_input)
    if not training:
        ours.eval(caching=True)
    inputs, options = arguments(sample.forward_input)
    if any(np.size(x) == 0 for x in parity.leaves(inputs)):
        with pytest.raises(backhand.layers.LayerError, match="at least one sample, got an empty array"):
            ours(*inputs, **options)
        return
    parity.compare(ours, theirs, [(inputs, options)])


@pytest.mark.parametrize(("name", "i"), list(error_rows()))
def test_what_torch_rejects_is_rejected(name, i):
    sample = samples(INFOS[name], True, errors=True)[i]
    module_input = sample.module_error_input
    try:
        ours = build(name, module_input.constructor_input)
    except (ValueError, TypeError, RuntimeError):
        return
    assert sample.error_on != ModuleErrorEnum.CONSTRUCTION_ERROR, f"torch rejects the arguments: {sample.error_regex}"
    inputs, options = arguments(module_input.forward_input)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        ours(*inputs, **options)
