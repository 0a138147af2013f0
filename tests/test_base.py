"""The contract of Layer: parameters and state, modes and the stack cache."""

import copy
import pickle

import numpy as np
import pytest

from backhand.layers import (
    Copy,
    LayerError,
    Linear,
    ReLU,
    Tanh,
)
from backhand.losses import Loss
from backhand.models import Parallel, Sequential
from tests.cases import families
from tests.states import Scale, assert_unchanged, snapshot

CASES = families("CASES")


# ---------------------------------------------------------------------- parameters and state


def test_attributes_lists_and_dicts_are_walked():
    names = [name for name, _ in Scale().named_parameters()]
    assert names == ["factor", "inner.0.weight", "inner.0.bias", "named.last.weight", "named.last.bias"]
    assert [name for name, _ in Scale().named_buffers()] == ["seen"]
    assert [name for name, _ in Scale().named_modules()] == ["", "inner.0", "inner.1", "named.last"]


def test_state_dict_is_a_copy_and_loads_in_place():
    layer = Scale()
    state = layer.state_dict()
    assert list(state) == ["factor", "seen", "inner.0.weight", "inner.0.bias", "named.last.weight", "named.last.bias"]
    state["factor"][:] = 9
    assert (layer.factor.data == 2).all()
    held = layer.factor.data
    layer.load_state_dict(state)
    assert (held == 9).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("weight"), ["missing: weight"]),
        (lambda s: s.update(extra=np.zeros(2)), ["unexpected: extra"]),
        (lambda s: s.update(bias=np.zeros(7)), ["misshapen: bias should be (2,) and is (7,)"]),
        (lambda s: s.update(bias=np.array(["a", "b"])), ["bias should be numbers"]),
        (lambda s: (s.pop("weight"), s.update(bias=np.zeros(7))), ["missing: weight", "misshapen: bias"]),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, words):
    layer = Linear(3, 2, rng=0)
    before = snapshot(layer)
    state = {name: array + 1 for name, array in layer.state_dict().items()}
    change(state)
    with pytest.raises(LayerError) as error:
        layer.load_state_dict(state)
    for word in words:
        assert word in str(error.value)
    assert_unchanged(layer, before)


def test_not_strict_reports_both_sides():
    layer = Linear(3, 2, rng=0)
    found = layer.load_state_dict({"bias": np.ones(2), "more": np.ones(1)}, strict=False)
    assert found == (["weight"], ["more"])
    assert (layer.bias.data == 1).all()


def test_shared_parameters_count_once_and_stand_under_every_name():
    one = Linear(3, 3, rng=0)
    model = Sequential(one, ReLU(), one)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_astype_is_in_place_and_complete():
    layer = Scale()
    assert layer.astype(np.float64) is layer
    assert {p.dtype for p in layer.parameters()} == {np.dtype(np.float64)}
    assert {p.grad.dtype for p in layer.parameters()} == {np.dtype(np.float64)}
    assert layer.seen.dtype.kind == "i"
    with pytest.raises(LayerError, match="float dtype"):
        layer.astype(np.int32)


def test_default_dtype_is_float32_and_inputs_are_cast():
    layer = Linear(3, 2, rng=0)
    assert layer(np.ones((4, 3), np.float64)).dtype == np.float32
    assert layer(np.ones((4, 3), np.uint8)).dtype == np.float32
    assert layer([[1, 2, 3]]).dtype == np.float32


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pickle_and_deepcopy(case):
    layer = case.build()
    if "lambda" not in repr(case.args):
        assert pickle.loads(pickle.dumps(layer)).state_dict().keys() == layer.state_dict().keys()
    twin = copy.deepcopy(layer)
    inputs = case.arrays()
    for a, b in zip(leaves(layer(*inputs)), leaves(twin(*inputs)), strict=True):
        np.testing.assert_array_equal(a, b)


def leaves(tree):
    return [leaf for item in tree for leaf in leaves(item)] if isinstance(tree, tuple) else [tree]


# ---------------------------------------------------------------------- modes and the cache


def test_train_and_eval_reach_every_layer():
    layer = Scale().eval()
    assert not any(each.training or each.caching for each in layer.modules())
    layer.eval(caching=True)
    assert all(each.caching and not each.training for each in layer.modules())
    layer.train()
    assert all(each.caching and each.training for each in layer.modules())
    assert not layer.train(False).training


def test_backward_without_forward_says_so():
    with pytest.raises(RuntimeError, match=r"Linear\.backward\(\) has no forward\(\) left to undo"):
        Linear(3, 2).backward(np.zeros((1, 2)))
    layer = Linear(3, 2).eval()
    layer(np.ones((1, 3)))
    with pytest.raises(RuntimeError, match=r"eval\(caching=True\)"):
        layer.backward(np.zeros((1, 2)))


def test_zero_grad_drops_what_an_abandoned_forward_left():
    model = Sequential(Linear(3, 3, rng=0), Tanh())
    model(np.ones((2, 3)))
    model.backward(np.ones((2, 3)))
    model(np.ones((2, 3)))
    held = model[0].weight.grad
    model.zero_grad()
    assert model[0].weight.grad is held and not held.any()
    assert all(not vars(each).get("_stack") for each in model.modules())


def test_nothing_flows_back_from_none():
    layer = Copy(2)
    layer(np.ones(3))
    np.testing.assert_array_equal(layer.backward((None, np.full(3, 5.0))), np.full(3, 5.0))
    model = Sequential(Linear(3, 2, rng=0), Copy(2), Parallel(Tanh(), ReLU()))
    model(np.ones((1, 3)))
    assert not model.backward((None, None)).any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_dout_costs_nothing(case):
    layer = case.build()
    output = layer(*case.arrays())
    before = snapshot(layer)
    for wrong in one_wrong_at_a_time(output, scalar=isinstance(layer, Loss)):
        with pytest.raises(LayerError, match="dout"):
            layer.backward(wrong)
        assert_unchanged(layer, before)


def one_wrong_at_a_time(output, scalar=False):
    """The output with one array replaced by one of another shape, for each array in it; and things of no shape."""
    if scalar:
        yield from (np.zeros((7, 7, 7, 7, 7)), [[1.0], [1.0, 2.0]], "text")
        return
    if not isinstance(output, tuple):
        yield from (np.zeros((7, 7, 7, 7, 7)), [[1.0], [1.0, 2.0]], "text", (1.0, 2.0))
        return
    yield np.zeros((7, 7, 7, 7, 7))
    yield (*output, output[0])
    for i, part in enumerate(output):
        for wrong in one_wrong_at_a_time(part):
            if getattr(part, "dtype", np.dtype(float)).kind == "f" or isinstance(part, tuple):
                yield (*output[:i], wrong, *output[i + 1 :])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    "wrong",
    [np.zeros((0, 4)), np.array(["a"]), np.array([1j]), np.array([None, {}]), [[1.0], [1.0, 2.0]], "text"],
    ids=["empty", "strings", "complex", "objects", "ragged", "text"],
)
def test_what_is_not_numbers_is_refused(case, wrong):
    layer = case.build()
    before = snapshot(layer)
    inputs = case.arrays()
    for i in range(len(inputs)):
        if isinstance(inputs[i], tuple):
            continue
        with pytest.raises(LayerError, match="expected"):
            layer(*inputs[:i], wrong, *inputs[i + 1 :])
        assert_unchanged(layer, before)
