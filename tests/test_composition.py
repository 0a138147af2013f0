"""Gates, containers and losses put together; how a layer prints, copies and pickles."""

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
from backhand.losses import MSELoss
from backhand.models import Concat, Parallel, Residual, Sequential, Sum, Unroll
from tests.states import Scale

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
        with pytest.raises(ValueError, match="expected constant to be a number"):
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
    assert "_stack" not in vars(copy.deepcopy(layer))
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
