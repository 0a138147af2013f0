"""PyTorch's own test inputs, for every class that we have too: inputs that nobody here chose.

They are those of its module database, and those of the older tables that its tests of torch.nn run through.
"""

import inspect

import numpy as np
import pytest

import backhand.layers
import backhand.losses
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:.*:UserWarning")]
torch = need("torch")
need("expecttest")  # what torch's testing module imports

from torch.testing._internal import common_nn  # noqa: E402
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


# ---------------------------------------------------------------------- the older tables


def older_rows():
    tables = (common_nn.module_tests, common_nn.get_new_module_tests(), common_nn.criterion_tests)
    for i, entry in enumerate(entry for table in tables for entry in table):
        module = entry["constructor"]() if "constructor" in entry else None
        name = entry.get("module_name") or type(module).__name__
        if name in OURS and "sparse" not in entry.get("fullname", ""):  # sparse gradients have no array to compare
            label = entry.get("fullname") or f"{name}_{entry.get('desc', '')}"
            yield pytest.param(entry, id=f"{label.strip('_')}-{i}")


def drawn(entry, what):
    """The input or the target of an entry, which gives it as such, as a function, or as a shape."""
    value = entry[f"{what}_fn"]() if f"{what}_fn" in entry else entry.get(what)
    value = torch.randn(entry[f"{what}_size"]) if value is None else value
    return tuple(doubled(each) for each in value) if isinstance(value, tuple) else (doubled(value),)


def doubled(tensor):
    return tensor.double() if tensor.is_floating_point() else tensor


def attributes_of(module):
    """The arguments that a module of torch was built with, from its attributes of the same names."""
    known = set(inspect.signature(OURS[type(module).__name__]).parameters) & set(dir(module))
    kwargs = {name: parity.array_of(getattr(module, name)) for name in known}
    if "bias" in kwargs:
        kwargs["bias"] = module.bias is not None
    return kwargs


@pytest.mark.parametrize("entry", list(older_rows()))
def test_the_inputs_of_torchs_older_tables(entry):
    torch.manual_seed(0)
    if "module_name" in entry:
        args = tuple(parity.array_of(each) for each in entry.get("constructor_args", ()))
        theirs = getattr(torch.nn, entry["module_name"])(*entry.get("constructor_args", ()))
        ours = OURS[entry["module_name"]](*args)
    else:
        theirs = entry["constructor"]()
        ours = OURS[type(theirs).__name__](**attributes_of(theirs))
    training = not draws_at_random(theirs)
    theirs.double().train(training)
    ours = ours.astype("float64")
    if not training:
        ours.eval(caching=True)
    inputs = drawn(entry, "input") + (drawn(entry, "target") if isinstance(ours, backhand.losses.Loss) else ())
    inputs = tuple(parity.array_of(each) for each in inputs)
    options = {}
    if entry.get("module_name") == "Transformer":  # the third is a mask, which has no gradient
        inputs, options = inputs[:2], {"src_mask": inputs[2]}
    if any(x.size == 0 or x.dtype.kind == "c" for x in inputs):
        with pytest.raises(backhand.layers.LayerError, match=r"got an empty array|got dtype complex"):
            ours(*inputs, **options)
        return
    parity.compare(
        ours, theirs, [(inputs, options)], parity.ROUNDED_BY_TORCH.get(type(ours).__name__, parity.TOLERANCE)
    )
