"""A trace holds what went through every layer, and taking it changes nothing."""

import numpy as np
import pytest

from backhand.inspection import record, summary
from backhand.inspection.gradient_check import leaves
from backhand.layers import (
    Add,
    AddConstant,
    BatchNorm1d,
    Copy,
    Dropout,
    Exp,
    Flatten,
    Identity,
    Layer,
    LayerError,
    Linear,
    Max,
    Multiply,
    MultiplyConstant,
    Negate,
    Parameter,
    PReLU,
    Reciprocal,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from backhand.losses import CrossEntropyLoss, Loss, MSELoss, TripletMarginLoss
from backhand.models import Parallel, Repeat, Residual, Sequential, Unroll
from tests.cases import families
from tests.looking import untouched, used

CASES = families("CASES")


def same(a, b):
    pairs = list(zip(leaves(a), leaves(b), strict=True))
    return all((x is None and y is None) or np.array_equal(x, y, equal_nan=True) for (_, x), (_, y) in pairs)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_sees_what_happens_and_leaves_everything_as_it_was(case):
    arrays = case.arrays()
    model = used(case.build(), *arrays)
    before = [leaf.tobytes() for _, leaf in leaves(arrays)]
    with untouched(model):
        trace = record(model, arrays)
        text = str(trace)
    assert [leaf.tobytes() for _, leaf in leaves(arrays)] == before
    other = case.build()
    other(*arrays)  # as the model: generators and running statistics have moved on once
    other.zero_grad()
    y = other(*arrays)
    dx = other.backward(None if isinstance(model, Loss) else ones(y))
    assert same(trace.output, y) and same(trace.dx, dx)
    first = trace.calls[0]
    assert first.number == first.back == first.depth == 0 and first.parent is None and first.layer is model
    assert first.kind in text and "MISMATCH" not in text
    assert all(call.shapes_match for call in trace.calls if call.back is not None)
    gradients = dict(other.named_parameters())
    for call in trace.calls:
        for each in call.parameters:
            name = f"{call.name}.{each.name}" if call.name else each.name
            if name in gradients:  # else it is shared, and stands under another name
                np.testing.assert_array_equal(each.grad, gradients[name].grad)


def ones(y):
    if isinstance(y, tuple):
        return tuple(ones(each) for each in y)
    return np.ones(np.shape(y), y.dtype) if np.asarray(y).dtype.kind == "f" else None


# ---------------------------------------------------------------------- the circuits of the lecture


def test_the_circuit_that_adds_and_multiplies():
    trace = record(Sequential(Parallel(Add(), Identity()), Multiply()), ((-2.0, 5.0), -4.0))
    assert trace.output == -12 and trace.dx == ((-4, -4), 3)
    assert trace["0.0"].output == 3 and trace["0.0"].upstream == -4
    assert trace["1"].local == (-4, 3) and trace["0.0"].local == (1, 1)
    assert [call.name for call in trace.backwards()] == ["", "1", "0", "0.1", "0.0"]
    assert "((-4, -4), 3)" in str(trace) and "(-4, 3)" in str(trace)


def test_the_neuron_with_two_inputs():
    w0, w1, w2 = 2.0, -3.0, -3.0
    x0, x1 = -1.0, -2.0
    linear = [Parallel(Multiply(), Multiply(), Identity()), Add()]
    staged = [Negate(), Exp(), AddConstant(1), Reciprocal()]
    for head in (staged, [Sigmoid()]):
        trace = record(Sequential(*linear, *head), ((w0, x0), (w1, x1), w2))
        np.testing.assert_allclose(trace.output, 0.73, atol=0.005)
        (dw0, dx0), (dw1, dx1), dw2 = trace.dx
        np.testing.assert_allclose([dw0, dw1, dw2], [-0.1966, -0.3932, 0.1966], atol=5e-5)
        np.testing.assert_allclose([dx0, dx1], [0.3932, -0.5898], atol=5e-5)
    trace = record(Sequential(*linear, *staged), ((w0, x0), (w1, x1), w2))
    # the numbers that stand on the wires of the lecture's picture
    stages = [trace[str(i)] for i in range(1, 6)]
    np.testing.assert_allclose([s.output for s in stages], [1, -1, 0.37, 1.37, 0.73], atol=0.005)
    np.testing.assert_allclose([s.upstream for s in stages], [0.20, -0.20, -0.53, -0.53, 1], atol=0.005)


def test_the_circuit_with_all_four_patterns():
    inner = Sequential(Parallel(Multiply(), Max()), Add(), MultiplyConstant(2))
    trace = record(inner, ((3.0, -4.0), (2.0, -1.0)))
    assert trace.output == -20 and trace.dx == ((-8, 6), (2, 0))
    assert trace["0.1"].local == (1, 0)
    forked = record(Sequential(Copy(2), Parallel(Identity(), MultiplyConstant(3)), Add()), 5.0)
    assert forked.output == 20 and forked.dx == 4 and forked["0"].upstream == (1, 3)


def test_the_relu_of_the_notes_has_a_diagonal_jacobian():
    call = record(ReLU(), np.array([1.0, -2, 3, -1]), dout=np.array([4.0, -1, 5, 9])).calls[0]
    assert call.local.tolist() == [1, 0, 1, 0] and call.downstream.tolist() == [4, 0, 5, 0]


# ---------------------------------------------------------------------- what a call holds


@pytest.mark.parametrize(
    ("layer", "local"),
    [
        (Tanh(), lambda x: 1 - np.tanh(x) ** 2),
        (PReLU(init=0.3), lambda x: np.where(x > 0, 1, 0.3)),
        (BatchNorm1d(3).eval(), lambda x: np.full_like(x, 1 / np.sqrt(1 + 1e-5))),
        (Identity(), np.ones_like),
        (Softmax(1), None),
        (Linear(3, 3, rng=0), None),
        (BatchNorm1d(3), None),
        (Sequential(Tanh()), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_local_is_there_where_the_layer_is_elementwise(layer, local):
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    call = record(layer, x).calls[0]
    if local is None:
        assert call.local is None and "local" not in call.stats
    else:
        np.testing.assert_allclose(call.local, local(x), rtol=1e-5)
        np.testing.assert_allclose(call.downstream, call.upstream * call.local, rtol=1e-5)


def test_dropout_draws_what_the_model_would_draw_next():
    model = Dropout(0.5, rng=3)
    x = np.ones((4, 5), np.float32)
    call = record(model, x).calls[0]
    np.testing.assert_array_equal(call.local, call.output)
    np.testing.assert_array_equal(model(x), call.output)


def test_every_call_of_a_layer_has_its_line():
    body = Sequential(Linear(4, 4, rng=0), Tanh())
    model = Sequential(Repeat(body, 3), body)
    x = np.random.default_rng(0).standard_normal((2, 4))
    trace = record(model.astype(np.float64), x)
    calls = trace.of("0.body.0")
    assert [(c.turn, c.turns) for c in calls] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [c.back for c in calls] == sorted((c.back for c in calls), reverse=True)
    np.testing.assert_array_equal(trace.of("0.body.1")[0].output, calls[1].inputs[0])
    assert all(c.parameters[0].grad is not None for c in calls)
    assert str(trace).count("weight (4, 4)") == 2 and "0.body.0 (Linear) 4/4" in str(trace)  # weight, dweight: once
    cell = Unroll(Sequential(Add(), Tanh()))
    trace = record(cell, (np.ones((5, 2, 3)), np.zeros((2, 3))))
    assert len(trace.of("cell.1")) == 5
    assert [c.parent for c in trace.inside(trace.calls[0])] == [0] * 5 and len(trace.leaves()) == 10


def test_the_loss_is_the_last_line():
    rng = np.random.default_rng(0)
    model = Sequential(Flatten(), Linear(6, 5, rng=0))
    x, y = rng.standard_normal((4, 2, 3)).astype(np.float32), rng.integers(0, 5, 4)
    loss = CrossEntropyLoss()
    with untouched(model, loss):
        trace = record(model, x, loss=loss, target=y)
    assert trace.loss == loss(model(x), y)
    last = trace["loss"]
    assert last is trace.calls[-1] and last.layer is loss and last.upstream == 1 and last.back == 0
    np.testing.assert_array_equal(last.downstream, loss.backward())
    np.testing.assert_array_equal(trace["1"].upstream, last.downstream)
    assert f"loss {trace.loss}" in str(trace)
    three = Parallel(*(Linear(3, 2, rng=0) for _ in range(3)))
    inputs = tuple(rng.standard_normal((4, 3)) for _ in range(3))
    assert all(dx.shape == (4, 3) for dx in record(three, inputs, loss=TripletMarginLoss()).dx)
    weighted = record(model, x, loss=CrossEntropyLoss(reduction="none"), target=y)
    assert weighted.loss.shape == (4,) and weighted["loss"].shapes_match


def test_bytes_cached_are_those_of_the_summary():
    model = Sequential(Linear(8, 8, rng=0), ReLU(), Residual(Sequential(BatchNorm1d(8), Tanh())), Linear(8, 2, rng=1))
    x = np.ones((16, 8), np.float32)
    trace = record(model, x)
    table = summary(model, x)
    assert sum(call.cached for call in trace.calls) == table.cached_bytes
    assert [call.cached for call in trace.calls] == [row.cached for row in table.rows]
    assert trace["0"].cached == x.nbytes


def test_numbers_and_sizes():
    x = np.array([[0.0, 3, -4, 0]])
    trace = record(Sequential(Identity(), Identity()), x, dout=2 * x, largest=3)
    stats = trace["0"].stats
    out = stats["output"]
    assert (out.shape, out.norm, out.zeros, out.mean, out.magnitude) == ((1, 4), 5, 0.5, -0.25, 1.75)
    assert out.finite and stats["upstream"].norm == 10 and trace.output is None and trace["0"].inputs == (None,)
    assert record(Identity(), np.array([1.0, np.nan])).calls[0].stats["output"].finite is False
    call = record(Sequential(*(Linear(64, 64, rng=0) for _ in range(3))), np.ones((64, 64), np.float32)).calls[0]
    assert all(seconds > 0 for seconds in call.seconds)


def test_options_go_to_forward_and_lists_are_arrays():
    class Scaled(Layer):
        def forward(self, x, by=1.0):
            self.save(by)
            return np.asarray(x) * by

        def backward(self, dout):
            (by,) = self.saved()
            return dout * by

    trace = record(Scaled(), [1.0, 2.0], by=3.0)
    assert trace.output.tolist() == [3, 6] and trace.dx.tolist() == [3, 3]


# ---------------------------------------------------------------------- when something is wrong


class Transposed(Layer):
    """Its gradients have other shapes than their variables."""

    def __init__(self):
        self.weight = Parameter(np.ones((2, 3)))

    def forward(self, x):
        self.x = x
        return x @ self.weight.data.T

    def backward(self, dout):
        self.weight.grad = self.x.T @ dout
        return (dout @ self.weight.data).T


def test_the_shape_rule_is_checked():
    model = Transposed()
    call = record(model, np.ones((4, 3))).calls[0]
    assert call.shapes_match is False and not call.parameters[0].match
    assert call.parameters[0].grad_shape == (3, 2)
    assert "MISMATCH" in str(record(model, np.ones((4, 3)))) and list(vars(model)) == ["weight"]


def test_a_gradient_of_another_shape_than_its_input():
    class Squeezed(Identity):
        def backward(self, dout):
            return super().backward(dout).sum(axis=0)

    call = record(Sequential(Squeezed()), np.ones((4, 3)))["0"]
    assert call.shapes_match is False and call.downstream.shape == (3,)
    assert record(Sequential(Add()), (np.ones((4, 3)), np.ones(3)))["0"].shapes_match


def test_what_is_written_over_later_has_been_copied():
    class InPlace(Layer):
        def forward(self, x):
            x[x < 0] = 0
            self.save(x)
            return x

        def backward(self, dout):
            (x,) = self.saved()
            dout *= x > 0
            return dout

    x = np.array([1.0, -2])
    dout = np.array([3.0, 4])
    trace = record(Sequential(Identity(), InPlace()), x, dout=dout)
    assert trace["0"].output.tolist() == [1, -2] and trace["1"].output.tolist() == [1, 0]
    assert trace["1"].upstream.tolist() == [3, 4] and trace["1"].downstream.tolist() == [3, 0]
    assert x.tolist() == [1, -2] and dout.tolist() == [3, 4]


def test_errors_leave_the_model_as_it_was():
    model = used(Sequential(Linear(4, 3, rng=0), BatchNorm1d(3), Linear(3, 2, rng=0)), np.ones((2, 4), np.float32))
    with untouched(model):
        for wrong in (
            lambda: record(model, np.ones((2, 5), np.float32)),
            lambda: record(model, np.ones((2, 4), np.float32), dout=np.ones((3, 2))),
            lambda: record(model, np.ones((2, 4), np.float32), loss=MSELoss(), target=np.ones((3, 2))),
        ):
            with pytest.raises(LayerError):
                wrong()
    with pytest.raises(TypeError, match=r"model to be a Layer, got .*did you mean Linear\(\)"):
        record(Linear, np.ones(3))
    with pytest.raises(TypeError, match="loss to be a Layer"):
        record(model, np.ones((2, 4)), loss=3)
    with pytest.raises(KeyError, match="no call of '7'; there are '', '0', '1', '2'"):
        record(model, np.ones((2, 4)))["7"]
