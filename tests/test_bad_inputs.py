"""Bad inputs and bad upstream gradients, for every class: one clear error, and everything stays as it was.

What is bad is in spoiling.py. Some of it may be taken after all (a float for an integer, a batch of another size); then
its backward has to work. What is refused must leave parameters, gradients, buffers and caches alone, and the next good
forward and backward give what they give in a layer that never saw anything bad.
"""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest

import backhand.layers
import backhand.losses
import backhand.models
from backhand.inspection.gradient_check import generators_of, leaves, map_leaves
from backhand.layers import (
    Add,
    BatchNorm1d,
    Bilinear,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    Layer,
    LayerError,
    Linear,
    Multiply,
    ReLU,
    Tanh,
)
from backhand.losses import CTCLoss, Loss, MSELoss
from backhand.models import (
    BasicBlock,
    CifarResNet,
    Concat,
    ConvNet,
    DiffusionUNet,
    MobileNetV2,
    NameMLP,
    Parallel,
    Repeat,
    Residual,
    Sequential,
    Sum,
    UnbiasedBatchNorm,
    Unroll,
)
from tests.cases import Case, families
from tests.cases.models import LARGE
from tests.spoiling import OPTIONS, bad_douts, bad_inputs, complaint
from tests.states import assert_unchanged, snapshot

IMAGES = (2, 3, 8, 8)
CASES = [
    *families("CASES"),
    Case(MobileNetV2, (3, 0.1), [IMAGES]),
    Case(CifarResNet, (8,), [IMAGES]),
    Case(DiffusionUNet, (1, 8, (1, 2)), [(2, 1, 4, 4), np.array([3, 7])]),
]
BY_CLASS: dict[type, list[Case]] = {}
for case in CASES:
    BY_CLASS.setdefault(case.cls, []).append(case)


@pytest.fixture(autouse=True)
def _numbers_may_be_extreme():
    with np.errstate(all="ignore"):  # 1 / 0 is no error of the layer's
        yield


def build(case):
    return copy.deepcopy(case.build(np.float32))


def good_inputs(case):
    return [map_leaves(x, lambda a: a.astype(np.float32) if a.dtype.kind == "f" else a) for x in case.arrays()]


def ones_like(y):
    return map_leaves(y, lambda each: np.ones(np.shape(each), np.float32))


def results(layer, inputs):
    """Output, gradients and what is left in the layer after a good forward and backward."""
    y = layer.forward(*inputs)
    dx = layer.backward(ones_like(y))
    return [*leaves(y), *leaves(dx), *((name, p.grad) for name, p in layer.named_parameters()), *layer.named_buffers()]


def differences(layer, before):
    try:
        assert_unchanged(layer, before)
    except AssertionError as error:
        return [" ".join(str(error).split())[:200]]
    return []


def as_fresh(layer, case, inputs):
    """Whether the layer still does what a fresh one does; a refused forward may have drawn random numbers."""
    fresh = build(case)
    for ours, theirs in zip(generators_of(layer), generators_of(fresh), strict=True):
        ours.bit_generator.state = theirs.bit_generator.state
    for (_, a), (name, b) in zip(results(layer, inputs), results(fresh, inputs), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(name))


def problems_of_forwards(case, trials):
    """What goes wrong in forwards of bad things; trials : (what it is, positional inputs, keyword inputs)."""
    problems = []
    layer = build(case)
    before = snapshot(layer)
    for name, inputs, options in trials:
        for call in ("forward", "__call__"):
            try:
                y = getattr(layer, call)(*inputs, **options)
            except Exception as error:
                found = [complaint(error), *differences(layer, before)]
            else:
                try:
                    layer.backward(ones_like(y))
                    found = []
                except Exception as error:
                    found = [f"was taken, but in backward: {error!r}"]
                layer = build(case)  # it may have learned something
                found += (
                    ["it keeps what was taken"] if any(vars(each).get("_stack") for each in layer.modules()) else []
                )
            if any(found):
                problems += [f"{case}: {name}: {each}" for each in found if each]
                layer = build(case)
    as_fresh(layer, case, good_inputs(case))
    return problems


@pytest.mark.parametrize("cls", BY_CLASS, ids=lambda cls: cls.__name__)
def test_bad_inputs_are_refused_and_change_nothing(cls):
    problems = []
    for case in BY_CLASS[cls]:
        inputs = good_inputs(case)
        trials = [
            (f"input {i}: {name}", [*inputs[:i], bad, *inputs[i + 1 :]], {})
            for i, x in enumerate(inputs)
            for name, bad in bad_inputs(x)
        ]
        problems += problems_of_forwards(case, trials)
    assert problems == []


@pytest.mark.parametrize("cls", BY_CLASS, ids=lambda cls: cls.__name__)
def test_bad_options_are_refused_and_change_nothing(cls):
    """Masks, lengths, states, sizes and flags, which a forward takes beside its inputs."""
    problems = []
    for case in BY_CLASS[cls]:
        inputs = good_inputs(case)
        parameters = list(inspect.signature(build(case).forward).parameters.values())
        if any(each.kind is each.VAR_POSITIONAL for each in parameters):
            continue
        names = [each.name for each in parameters[len(inputs) :]]
        trials = [(f"{name}: {what}", inputs, {name: bad}) for name in names for what, bad in OPTIONS.items()]
        problems += problems_of_forwards(case, trials)
    assert problems == []


@pytest.mark.parametrize("cls", BY_CLASS, ids=lambda cls: cls.__name__)
def test_a_bad_dout_is_refused_before_anything_is_undone(cls):
    problems = []
    for case in BY_CLASS[cls]:
        layer, inputs = build(case), good_inputs(case)
        y = layer.forward(*inputs)
        before = snapshot(layer)
        for name, bad in bad_douts(y):
            try:
                layer.backward(bad)
            except Exception as error:
                found = [complaint(error), *differences(layer, before)]
            else:
                found = ["was taken"]
            if any(found):
                problems += [f"{case}: {name}: {each}" for each in found if each]
                layer = build(case)
                layer.forward(*inputs)
        dx, wanted = layer.backward(ones_like(y)), results(build(case), inputs)
        for (_, got), (_, right) in zip(leaves(dx), wanted[len(list(leaves(y))) :], strict=False):
            np.testing.assert_array_equal(got, right)
    assert problems == []


@pytest.mark.parametrize("cls", BY_CLASS, ids=lambda cls: cls.__name__)
def test_a_dout_of_none_is_nothing(cls):
    """Zeros, all the way back; but a loss starts the gradient, and from None with 1."""
    for case in BY_CLASS[cls]:
        layer, inputs = build(case), good_inputs(case)
        y = layer.forward(*inputs)
        dx = layer.backward(None)
        assert not any(vars(each).get("_stack") for each in layer.modules()), str(case)
        fresh = build(case)
        ones = fresh.backward(ones_like(fresh.forward(*inputs)))
        for (_, got), (_, wanted) in zip(leaves(dx), leaves(ones), strict=True):
            assert (got is None) == (wanted is None)
            if got is not None:
                np.testing.assert_array_equal(got, wanted if isinstance(layer, Loss) else np.zeros_like(wanted))
        if not isinstance(layer, Loss):
            assert not any(parameter.grad.any() for parameter in layer.parameters()), str(case)
    del y


def test_every_class_is_attacked():
    exported = {
        getattr(package, name)
        for package in (backhand.layers, backhand.losses, backhand.models)
        for name in package.__all__
        if inspect.isclass(getattr(package, name)) and issubclass(getattr(package, name), Layer)
    }
    left_out = {cls.__name__ for cls in exported - set(BY_CLASS)}
    # these are Sequentials, or nothing but attributes, of layers that are attacked
    assert left_out == {"Layer", "Loss"} | {cls.__name__ for cls in LARGE} - {cls.__name__ for cls in BY_CLASS}


# ---------------------------------------------------------------------- containers


@pytest.mark.parametrize(
    ("model", "inputs", "layer"),
    [
        (lambda: Sequential(Linear(3, 3), Tanh()), [np.ones((2, 3)), np.ones((2, 3))], "Linear"),
        (lambda: Sequential(Bilinear(3, 3, 2)), [(np.ones((2, 3)), np.ones((2, 3)))], "Bilinear"),
        (lambda: Sequential(MSELoss()), [(np.ones(3), np.ones(3))], "MSELoss"),
        (lambda: Sequential(Linear(3, 3), Bilinear(3, 3, 2)), [np.ones((2, 3))], "Bilinear"),
        (lambda: Parallel(Linear(3, 3), ReLU()), [(np.ones((2, 3)), np.ones((2, 3))), np.ones(2)], "Linear"),
        (lambda: Parallel(Linear(3, 3), ReLU()), [(np.ones((2, 3)), np.ones((2, 3)))], "Parallel"),
        (lambda: Parallel(Linear(3, 3), Bilinear(3, 3, 2)), [np.ones((2, 3)), np.ones((2, 3))], "Bilinear"),
        (lambda: Residual(Bilinear(3, 3, 2)), [np.ones((2, 3))], "Bilinear"),
        (lambda: Residual(Linear(3, 3), Bilinear(3, 3, 3)), [np.ones((2, 3))], "Bilinear"),
        (lambda: Sum(Linear(3, 3), Bilinear(3, 3, 3)), [np.ones((2, 3))], "Bilinear"),
        (lambda: Concat(Bilinear(3, 3, 3), Linear(3, 3)), [np.ones((2, 3)), np.ones((2, 3))], "Linear"),
        (lambda: Repeat(Bilinear(3, 3, 3), 2), [np.ones((2, 3)), np.ones((2, 3))], "Bilinear"),
        (lambda: Unroll(Linear(3, 3)), [np.ones((4, 2, 3))], "Linear"),
        (lambda: Unroll(Bilinear(3, 3, 3)), [(np.ones((4, 2, 3)), np.ones((4, 2, 3)))], "Bilinear"),
        (lambda: Unroll(Linear(3, 3)), [(np.ones((4, 2, 3)), np.ones((2, 3)))], "Unroll"),
    ],
)
def test_a_container_says_which_layer_takes_another_number_of_inputs(model, inputs, layer):
    model = model()
    before = snapshot(model)
    with pytest.raises(LayerError, match=r"expected .*got ") as error:
        model(*inputs)
    assert type(error.value.layer).__name__ == layer
    assert_unchanged(model, before)


def test_an_error_inside_a_layer_is_not_taken_for_a_wrong_number_of_inputs():
    class Broken(Layer):
        def forward(self, x):
            raise TypeError("of its own")

    for model in (Sequential(Broken()), Sum(Broken()), Residual(Broken())):
        with pytest.raises(TypeError, match="of its own"):
            model(np.ones((2, 3)))


@pytest.mark.parametrize("norm", [BatchNorm1d, UnbiasedBatchNorm])
def test_running_statistics_are_taken_back_when_a_later_layer_fails(norm):
    one = norm(3)
    model = Sequential(one, Linear(3, 3, rng=0), one, Dropout(0.5), Linear(4, 2, rng=0))
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    one(x)
    before = snapshot(model)
    arrays = [array for _, array in one.named_buffers()]
    with pytest.raises(LayerError, match=r"Linear\(4, 2\)"):
        model(x)
    assert_unchanged(model, before)
    assert all(a is b for a, (_, b) in zip(arrays, one.named_buffers(), strict=True))  # in place


def test_what_is_wrong_only_further_on_changes_nothing_either():
    net = ConvNet(3, (2, 8, 8), (3, 4), rng=0)
    before = snapshot(net)
    with pytest.raises(LayerError, match=r"Linear\(16, 3\) at 'fc'"):
        net(np.ones((2, 2, 9, 16), np.float32))
    assert_unchanged(net, before)
    names = NameMLP(5, 3, 2, 4, rng=0)
    with pytest.raises(LayerError, match=r"expected tokens of shape \(N, 3\), got \(4, 6\)"):
        names(np.zeros((4, 6), int))  # twice as many would have been taken for twice the samples


def test_a_block_whose_shortcut_does_not_fit():
    block = BasicBlock(2, 3, rng=0)
    before = snapshot(block)
    with pytest.raises(LayerError, match=r"the shape of the shortcut.*got .*a downsample brings x into its shape"):
        block(np.ones((2, 2, 4, 4)))
    assert_unchanged(block, before)


@pytest.mark.parametrize(
    "last", [Identity, Flatten, Add, ReLU, lambda: Sequential(Identity()), lambda: Embedding(5, 4)]
)
def test_a_sequential_is_safe_whatever_its_last_layer_is(last):
    last = last()
    model = Sequential(Embedding(5, 4, rng=0), Tanh()) if not isinstance(last, Embedding) else Sequential()
    model.append(last)
    model(np.array([1, 2]))
    before = snapshot(model)
    for name, bad in bad_douts(np.ones((2, 4), np.float32)):
        with pytest.raises(LayerError, match=r"expected dout .*got "):
            model.backward(bad)
        assert_unchanged(model, before), name
    model.backward(np.ones((2, 4)))


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int8])
def test_lengths_of_any_integers(kind):
    rng = np.random.default_rng(0)
    x, targets = np.log(rng.dirichlet(np.ones(4), (6, 2))), np.array([[1, 2], [3, 0]])
    lengths = np.array([6, 5]), np.array([2, 1])
    loss = CTCLoss()
    wanted = loss(x, targets, *lengths)
    assert loss(x, targets.astype(kind), *(each.astype(kind) for each in lengths)) == wanted


@pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**40])
def test_lengths_that_no_array_has(value):
    x, lengths, wrong = np.zeros((6, 2, 4)), np.array([2, 1], np.uint64), np.array([1, value], np.uint64)
    for inputs in ((wrong, lengths), (lengths, wrong)):
        for targets in ([[1, 2], [3, 3]], [1, 2, 3]):
            loss = CTCLoss()
            with pytest.raises(LayerError, match=r"expected .*got "):
                loss(x, targets, *inputs)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    "bad", [1j, np.array(1j), "1.5", np.array("1.5"), np.array(None), [None], ["1"], np.datetime64("2020"), {}]
)
def test_a_loss_starts_from_numbers_only(reduction, bad):
    loss = MSELoss(reduction=reduction)
    loss(np.ones(3), np.zeros(3))
    with pytest.raises(LayerError, match=r"expected dout .*got "):
        loss.backward(bad)
    np.testing.assert_allclose(loss.backward(2.0), 4 / (3 if reduction == "mean" else 1))


def test_gates_in_series_still_take_tuples():
    gates = Sequential(Parallel(Add(), Identity()), Multiply())
    assert gates((2.0, 3.0), 4.0) == 20


def test_what_cannot_be_made_an_array_is_refused_in_words():
    class Broken:
        def __array__(self, *_, **__):
            raise RuntimeError("there is nothing")

    class Strange:
        def __array__(self, *_, **__):
            return 3

    masked = np.ma.masked_array([1.0, 2.0, 99.0], [0, 0, 1])
    for bad in (Broken(), Strange(), 10**400, [masked, masked], (masked, masked)):
        for call in (
            Linear(3, 3, rng=0),
            lambda x: MSELoss()(np.ones((2, 3)), x),
            lambda x: MSELoss()(x, np.ones((2, 3))),
        ):
            with pytest.raises(LayerError, match="expected"):
                call(bad)
        for layer, x in ((Linear(3, 3, rng=0), (np.ones((2, 3)),)), (MSELoss(), (np.ones((2, 3)), np.zeros((2, 3))))):
            layer(*x)
            with pytest.raises(LayerError, match="dout"):
                layer.backward(bad)
            layer.backward(np.ones(np.shape(layer(*x))))


def test_an_integer_input_is_a_number():
    assert MSELoss()(3, 1) == 4
