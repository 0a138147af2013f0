"""The contract of Layer: parameters, state, modes, the stack cache, and errors that leave everything as it was."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

from backhand.layers import (
    LSTM,
    Add,
    AddConstant,
    BatchNorm1d,
    Conv2d,
    Copy,
    Embedding,
    Flatten,
    GroupNorm,
    Identity,
    Layer,
    LayerError,
    LayerNorm,
    Linear,
    Max,
    MultiheadAttention,
    Multiply,
    MultiplyConstant,
    Parameter,
    PReLU,
    ReLU,
    Tanh,
)
from backhand.losses import Loss, MSELoss
from backhand.models import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll
from tests.cases import families

CASES = families("CASES")


class Scale(Layer):
    """A user's layer: no super().__init__(), a list of layers, a buffer."""

    buffer_names = ("seen",)

    def __init__(self):
        self.factor = Parameter(np.full(3, 2.0))
        self.inner = [Linear(3, 3, rng=0), Tanh()]
        self.named = {"last": Linear(3, 2, rng=1)}
        self.seen = np.array(0)

    def forward(self, x):
        self.save(x)
        self.seen += 1
        for layer in self.inner:
            x = layer(x * self.factor.data)
        return self.named["last"](x)

    def backward(self, dout):
        return dout


def snapshot(layer):
    arrays = {**layer.state_dict(), **{f"d {name}": p.grad.copy() for name, p in layer.named_parameters()}}
    stacks = {name: len(vars(each).get("_stack", [])) for name, each in layer.named_modules()}
    return arrays, stacks


def assert_unchanged(layer, before):
    arrays, stacks = snapshot(layer)
    assert {k: v for k, v in stacks.items() if v} == {k: v for k, v in before[1].items() if v}
    assert arrays.keys() == before[0].keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[0][name], err_msg=name)


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
    assert not held.any()
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


# ---------------------------------------------------------------------- errors


def test_the_error_names_layer_place_expectation_and_what_came():
    with pytest.raises(LayerError) as error:
        Linear(784, 128)(np.zeros((32, 1, 28, 28)))
    assert str(error.value) == (
        "Linear(784, 128): expected x of shape (..., 784), got (32, 1, 28, 28); put a Flatten() before it"
    )
    model = Sequential(Linear(4, 5), Residual(Sequential({"a": ReLU(), "b": Linear(6, 5)})))
    with pytest.raises(LayerError, match=r"Linear\(6, 5\) at '1.body.b': expected x of shape \(..., 6\), got \(2, 5\)"):
        model(np.zeros((2, 4)))


@pytest.mark.parametrize(
    "container",
    [
        lambda good, bad: Sequential(good, bad),
        lambda good, bad: Sequential(good, Sequential(Tanh(), bad)),
        lambda good, bad: Residual(good, bad),
        lambda good, bad: Sum(good, bad),
        lambda good, bad: Concat(good, bad),
        lambda good, bad: Sequential(Copy(2), Parallel(good, bad)),
        lambda good, bad: Repeat(Sequential(good, Linear(4, 5), ReLU()), 2),
    ],
)
@pytest.mark.parametrize("call", ["forward", "__call__"])
def test_a_forward_that_fails_half_way_leaves_nothing_saved(container, call):
    model = container(Linear(4, 4, rng=0), Linear(9, 4, rng=0))
    before = snapshot(model)
    with pytest.raises(LayerError):
        getattr(model, call)(np.ones((2, 4)))
    assert_unchanged(model, before)


def test_a_failing_forward_keeps_what_earlier_forwards_saved():
    first = Linear(4, 4, rng=0)
    model = Sequential(first, Flatten(), Linear(4, 2, rng=0))
    model(np.ones((2, 4)))
    before = snapshot(model)
    with pytest.raises(LayerError):
        model(np.ones((2, 3, 4)))
    assert_unchanged(model, before)
    model.backward(np.ones((2, 2)))


def test_a_users_composite_is_guarded_too():
    layer = Scale()
    layer.named["last"] = Linear(7, 2)
    with pytest.raises(LayerError, match=r"Linear\(7, 2\) at 'named.last'"):
        layer(np.ones((1, 3)))
    assert all(not vars(each).get("_stack") for each in layer.modules())


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", None, True])
def test_sizes_must_be_positive_integers(size):
    with pytest.raises(ValueError, match=r"Linear: expected in_features to be a positive integer, got"):
        Linear(size, 3)
    with pytest.raises(ValueError, match=r"Linear: expected out_features to be a positive integer, got"):
        Linear(3, size)


def test_containers_refuse_what_is_not_a_layer():
    with pytest.raises(TypeError, match=r"Sequential: expected a Layer, got <class .*ReLU'>; did you mean ReLU\(\)\?"):
        Sequential(Linear(2, 2), ReLU)
    for container in (Sum, Concat):
        with pytest.raises(ValueError, match="at least one branch"):
            container()
    with pytest.raises(ValueError, match="at least two branches, got 1"):
        Parallel(ReLU())
    with pytest.raises(TypeError, match=r"unpack it: Sequential\(\*layers\)"):
        Sequential([ReLU(), ReLU()])
    with pytest.raises(ValueError, match="times"):
        Repeat(ReLU(), 0)
    with pytest.raises(ValueError, match="names without dots"):
        Sequential({"a.b": ReLU()})


def test_containers_name_shapes_that_do_not_fit():
    x = np.ones((2, 4))
    with pytest.raises(LayerError, match=r"Residual: expected a body that gives the shape of the shortcut, \(2, 4\)"):
        Residual(Linear(4, 3))(x)
    with pytest.raises(LayerError, match="branches that give one shape"):
        Sum(Linear(4, 3), Linear(4, 2))(x)
    with pytest.raises(LayerError, match="differ along axis 1 only"):
        Concat(Linear(4, 3), Sequential(Flatten(0), Linear(8, 3)))(x)
    with pytest.raises(LayerError, match="2 inputs, one for each branch"):
        Parallel(ReLU(), ReLU())(x)
    with pytest.raises(LayerError, match="time on axis 0"):
        Unroll(ReLU())(np.ones(()))
    with pytest.raises(LayerError, match="broadcast"):
        Add()(np.ones(3), np.ones(4))


# ---------------------------------------------------------------------- repr and the rest


def test_repr_is_the_constructor_call():
    assert repr(Linear(3, 2)) == "Linear(3, 2)"
    assert repr(Linear(3, 2, bias=False, dtype=np.float64)) == "Linear(3, 2, bias=False, dtype='float64')"
    model = Sequential(Linear(3, 2), Concat(ReLU(), Tanh(), axis=-1))
    assert repr(eval(repr(model))) == repr(model)
    named = Sequential({"fc": Linear(3, 2), "act": ReLU()})
    assert repr(eval(repr(named))) == repr(named)


class Lookup(Layer):
    """The least embedding: integers in, rows out, and no gradient by the integers."""

    def __init__(self, rows, width):
        self.weight = Parameter(np.random.default_rng(0).standard_normal((rows, width)))

    def forward(self, x):
        x = self.array(x)
        y = self.weight.data[x]
        self.save(x, out=y)
        return y

    def backward(self, dout):
        dout = self.upstream(dout)
        (x,) = self.saved()
        np.add.at(self.weight.grad, x, dout)


@pytest.mark.parametrize(
    "net",
    [
        lambda e: Sequential(Identity(), e),
        lambda e: Sequential(Flatten(), e),
        lambda e: Sequential(Copy(2), Parallel(e, Sequential(Identity(), e)), Add()),
        lambda e: Residual(e, e),
        lambda e: Sum(e, Sequential(Identity(), e)),
        lambda e: Concat(e, e, axis=-1),
    ],
)
def test_integers_go_through_containers_and_give_no_gradient(net):
    lookup = Lookup(5, 3)
    model = net(lookup)
    y = model(np.array([[1, 4], [1, 0]]))
    assert model.backward(np.ones_like(y)) is None
    assert lookup.weight.grad[1].all() and not lookup.weight.grad[2].any()
    assert all(not vars(each).get("_stack") for each in model.modules())


def test_python_ints_are_numbers():
    circuit = Sequential(Parallel(Add(), Identity()), Multiply())
    assert circuit((-2, 5), -4) == -12
    assert circuit.backward(1) == ((-4, -4), 3)


def test_outputs_of_branches_must_be_arrays():
    for container in (Sum(Copy(), Copy()), Concat(Copy(), ReLU()), Residual(Copy())):
        with pytest.raises(LayerError, match="one output from each branch, got a tuple of 2"):
            container(np.ones(3))


def test_one_input_gives_one_gradient():
    for gate in (Add(), Multiply(), Max()):
        gate(np.ones(3))
        assert gate.backward(np.full(3, 2.0)).tolist() == [2.0, 2.0, 2.0]


def test_the_first_of_equals_gets_the_gradient_of_max():
    gate = Max()
    gate(2.0, 2.0, 1.0)
    assert gate.backward(5.0) == (5.0, 0.0, 0.0)


def test_constants_are_numbers_and_keep_the_dtype():
    x = np.ones(3, np.float32)
    for gate in (MultiplyConstant(1 / np.sqrt(2)), AddConstant(np.sqrt(2))):
        assert gate(x).dtype == np.float32
        assert gate.backward(x).dtype == np.float32
    for wrong in ("a", None, np.ones(3), np.nan):
        with pytest.raises(ValueError, match="expected constant in"):
            MultiplyConstant(wrong)


def test_a_dout_of_another_dtype_is_cast():
    layer = Linear(3, 2, rng=0)
    layer(np.ones((1, 3)))
    assert layer.backward(np.ones((1, 2), np.float64)).dtype == np.float32
    layer(np.ones((1, 3)))
    assert layer.backward([[1, 2]]).dtype == np.float32


def test_layers_in_nested_lists_are_found_and_cycles_end():
    class Nested(Layer):
        def __init__(self):
            self.blocks = [[Linear(2, 2)], {"a": (Linear(2, 2),)}]
            self.again = self.blocks[0][0]

    net = Nested()
    assert [name for name, _ in net.named_parameters()] == [
        f"blocks.{where}.{kind}" for where in ("0.0", "1.a.0") for kind in ("weight", "bias")
    ]
    net.blocks[0][0].parent = net
    assert len(list(net.modules())) == 3
    assert len(list(net.parameters())) == 4


def test_an_int_dtype_is_refused():
    makers = (
        lambda d: Linear(3, 2, dtype=d),
        lambda d: BatchNorm1d(3, dtype=d),
        lambda d: LayerNorm(3, dtype=d),
        lambda d: Conv2d(1, 2, 3, dtype=d),
        lambda d: BatchNorm1d(3, affine=False, dtype=d),
        lambda d: LSTM(2, 3, dtype=d),
        lambda d: Embedding(3, 2, dtype=d),
        lambda d: GroupNorm(1, 2, dtype=d),
        lambda d: MultiheadAttention(4, 2, dtype=d),
        lambda d: PReLU(dtype=d),
    )
    for make in makers:
        for dtype in ("int32", "complex64", "bool"):
            with pytest.raises(ValueError, match="float dtype, got"):
                make(dtype)


def test_freezing_and_appending():
    model = Sequential(Linear(3, 2)).append(ReLU()).append(Linear(2, 1))
    assert list(model.requires_grad_(False).state_dict())[-1] == "2.bias"
    assert not any(p.requires_grad for p in model.parameters())
    assert all(p.requires_grad for p in model.requires_grad_().parameters())
    with pytest.raises(TypeError, match="expected a Layer"):
        model.append(ReLU)


def test_a_parameter_is_an_array_to_numpy():
    layer = Linear(3, 2, rng=0)
    np.testing.assert_array_equal(np.ones((1, 3)) @ np.asarray(layer.weight).T, np.ones((1, 3)) @ layer.weight.data.T)


def test_what_a_forward_saved_is_neither_copied_nor_pickled():
    layer = Linear(30, 20, rng=0)
    small = len(pickle.dumps(layer))
    layer(np.ones((1000, 30)))
    assert len(pickle.dumps(layer)) == small
    assert not hasattr(copy.deepcopy(layer), "_stack")
    assert len(layer._stack) == 1


def test_whole_numbers_stay_whole_in_a_state():
    layer = Scale()
    with pytest.raises(LayerError, match=r"seen should be whole numbers and is 3\.7"):
        layer.load_state_dict({"seen": np.array(3.7)}, strict=False)


def test_forward_without_save_says_so():
    class Forgot(Layer):
        def forward(self, x):
            return x

        def backward(self, dout):
            return self.saved()

    layer = Forgot()
    layer(np.ones(2))
    with pytest.raises(RuntimeError, match=r"did forward call save\(\)"):
        layer.backward(np.ones(2))


def test_sequential_is_a_list():
    model = Sequential(Linear(3, 2), ReLU(), Linear(2, 1))
    assert len(model) == 3
    assert list(model)[1] is model[1]
    assert [repr(layer) for layer in model[1:]] == ["ReLU()", "Linear(2, 1)"]
    assert model[-1] is model["2"]
    assert list(model[1:].state_dict()) == ["2.weight", "2.bias"]  # as in torch


def test_unroll_with_a_tuple_state_and_without_a_state():
    class Pair(Layer):
        def forward(self, x, state):
            h, c = state
            self.save()
            return h + x, c * 0.5 + x

        def backward(self, dout):
            dh, dc = (np.zeros(2) if d is None else d for d in dout)
            self.saved()
            return dh + dc, (dh, dc * 0.5)

    x = np.arange(6.0).reshape(3, 2)
    net = Unroll(Pair(), return_state=True)
    y, (h, c) = net(x, (np.zeros(2), np.ones(2)))
    np.testing.assert_array_equal(y, np.cumsum(x, axis=0))
    dx, (dh, dc) = net.backward((np.ones((3, 2)), (None, np.ones(2))))
    np.testing.assert_array_equal(dx[:, 0], [3.25, 2.5, 2.0])
    np.testing.assert_array_equal(dc, np.full(2, 0.125))
    np.testing.assert_array_equal(dh, np.full(2, 3.0))
    assert h.shape == c.shape == (2,)

    class Start(Linear):
        def forward(self, x, state=0.0):
            return super().forward(x) + state

        def backward(self, dout):
            return super().backward(dout), dout

    plain = Unroll(Start(2, 2, rng=0))
    y = plain(x)
    np.testing.assert_allclose(y, np.cumsum(Linear(2, 2, rng=0)(x), axis=0), rtol=1e-5)
    assert plain.backward(np.ones_like(y)).shape == x.shape


def test_the_same_seed_gives_the_same_bits():
    a, b = (Linear(5, 4, rng=3) for _ in range(2))
    assert a.weight.data.tobytes() == b.weight.data.tobytes()
    assert Linear(5, 4, rng=4).weight.data.tobytes() != a.weight.data.tobytes()


def test_sigmoid_is_its_chain_of_gates():
    from backhand.layers import AddConstant, Exp, Negate, Reciprocal, Sigmoid

    x = np.linspace(-20, 20, 41)
    one, chain = Sigmoid(), Sequential(Negate(), Exp(), AddConstant(1), Reciprocal())
    np.testing.assert_allclose(one(x), chain(x), rtol=1e-12, atol=1e-15)
    dout = np.random.default_rng(0).standard_normal(41)
    np.testing.assert_allclose(one.backward(dout), chain.backward(dout), rtol=1e-6, atol=1e-13)


def test_multiply_has_a_gradient_where_a_factor_is_zero():
    gate = Multiply()
    gate(0.0, 3.0, 5.0)
    assert gate.backward(1.0) == (15.0, 0.0, 0.0)


def test_float16_losses_do_not_overflow_in_the_sum():
    x, zero = np.ones((256, 512), np.float16), np.zeros((256, 512), np.float16)
    loss = MSELoss()
    assert loss(x, zero) == 1.0
    assert 0 < loss.backward().max() < 1e-4


def test_losses_can_be_scaled_and_start_the_gradient():
    loss = MSELoss()
    assert loss(np.array([1.0, 3.0]), np.array([0.0, 0.0])) == 5.0
    np.testing.assert_array_equal(loss.backward(), [1.0, 3.0])
    loss(np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    np.testing.assert_array_equal(loss.backward(2.0), [2.0, 6.0])
    with pytest.raises(LayerError, match=r"target of the input's shape \(2,\), got \(3,\)"):
        loss(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="reduction"):
        MSELoss(reduction="average")


def test_layers_cost_numpy_and_nothing_more():
    code = "import sys, backhand.layers; print([m for m in ('matplotlib', 'tqdm', 'safetensors') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
