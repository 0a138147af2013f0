"""The layer table says what is so, and looking changes nothing."""

import pickle
import tracemalloc

import numpy as np
import pytest

from backhand.inspection import summary
from backhand.inspection.step_memory import pool_apart
from backhand.layers import (
    LSTM,
    Flatten,
    Layer,
    LayerError,
    Linear,
    Parameter,
    ReLU,
    Sigmoid,
    Tanh,
    TransformerEncoderLayer,
    memory,
)
from backhand.losses import CrossEntropyLoss
from backhand.models import MLP, ConvNet, LeNet5, Parallel, Repeat, Residual, Sequential
from backhand.training.optimizers import Adam
from tests.cases import families

CASES = families("CASES")


def spec_of(spec):
    """The inputs of a Case as `summary` wants them: shapes stay shapes, tuple inputs are nested, arrays are arrays."""
    if isinstance(spec, list):
        return tuple(spec_of(each) for each in spec)
    return spec if isinstance(spec, tuple) else np.array(spec)


def shape_of(y):
    return tuple(shape_of(each) for each in y) if isinstance(y, tuple) else np.shape(y)


def rng_states(layer):
    found = [v for each in layer.modules() for v in vars(each).values() if isinstance(v, np.random.Generator)]
    return [repr(g.bit_generator.state) for g in found]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_looking_changes_nothing_and_sees_the_output(case):
    model = case.build()
    y = model(*case.arrays())  # leaves something on the stacks
    rng = np.random.default_rng(5)
    for parameter in model.parameters():
        parameter.grad += rng.standard_normal(parameter.shape)
    before, generators = pickle.dumps(model), rng_states(model)
    attributes = [list(vars(layer)) for layer in model.modules()]
    table = summary(model, tuple(spec_of(spec) for spec in case.inputs))
    assert pickle.dumps(model) == before
    assert rng_states(model) == generators
    assert [list(vars(layer)) for layer in model.modules()] == attributes
    assert table.rows[0].shape == str(shape_of(y))
    assert table.parameters == sum(parameter.size for parameter in model.parameters())
    assert table.parameters == sum(row.parameters or 0 for row in table.rows)
    assert table.cached_bytes == sum(row.cached for row in table.rows)


TABLE = """\
#  Layer (type)           Output shape  Param #  Mult-adds  Cached bytes
------------------------------------------------------------------------
1  Sequential             (32, 10)            -          -             0
2    flatten (Flatten)    (32, 784)           -          -             0
3    fc1 (Linear)         (32, 100)      78,500  2,508,800       100,352
4    block (Residual)     (32, 100)           -          -             0
5      body (Sequential)  (32, 100)           -          -             0
6        0 (Linear)       (32, 100)      10,100    320,000        12,800
7        1 (ReLU)         (32, 100)           -          -        12,800
8    fc2 (Linear)         (32, 10)        1,010     32,000        12,800
------------------------------------------------------------------------
parameters                     89,610
trainable                      79,510
multiply-adds of a forward  2,860,800
parameter bytes               358,440
gradient bytes                358,440
bytes cached for backward     138,752
working bytes, about       """


def model():
    return Sequential(
        {
            "flatten": Flatten(),
            "fc1": Linear(784, 100),
            "block": Residual(Sequential(Linear(100, 100), ReLU())),
            "fc2": Linear(100, 10),
        }
    )


def test_table():
    net = model()
    for parameter in net["block"].parameters():
        parameter.requires_grad = False
    table = summary(net, (32, 1, 28, 28))
    assert repr(table) == str(table)
    assert str(table).startswith(TABLE)


def test_parameters_have_their_own_lines():
    lines = [line.split() for line in str(summary(Sequential(Linear(3, 2)), (5, 3), params=True)).splitlines()]
    assert ["weight", "(2,", "3)", "6"] in lines
    assert ["bias", "(2,)", "2"] in lines


def test_what_is_shared_counts_once():
    one = Linear(4, 4)
    table = summary(Sequential(one, Tanh(), one, Repeat(one, 3)), (2, 4))
    assert table.parameters == 20
    assert [row.same_as for row in table.rows] == [None, None, None, 2, None, 2]
    assert table.rows[1].shape == "(2, 4) x5"
    assert "as #2" in str(table)
    first, second = Linear(4, 4), Linear(4, 4)
    second.weight = first.weight
    table = summary(Sequential(first, second), (2, 4), params=True)
    assert table.parameters == 24 and [row.parameters for row in table.rows] == [None, 20, 4]
    assert "as #2 weight" in str(table)


def test_an_array_that_two_layers_keep_is_counted_where_it_is_kept_first():
    table = summary(Sequential(Sigmoid(), Flatten(), Linear(12, 2)), (5, 3, 4))
    assert [row.cached for row in table.rows] == [0, 5 * 12 * 4, 0, 0]  # the Linear keeps a view of Sigmoid's output
    assert str(table).endswith("counted at the first of them)")


def test_what_is_not_known_is_a_question_mark():
    assert {row.shape for row in summary(model()).rows} == {"?"}
    lines = [" ".join(line.split()) for line in str(summary(model())).splitlines()]
    assert "multiply-adds of a forward ?" in lines and "peak of a training step ?" in lines

    class Shortcut(Layer):
        """Uses its inner layer's weight without calling it."""

        def __init__(self):
            self.inner = Linear(3, 3)
            self.scale = Parameter(np.ones(1))

        def forward(self, x):
            return self.inner.weight.data @ x

    table = summary(Shortcut(), (3,))
    assert [(row.shape, row.parameters) for row in table.rows] == [("(3,)", 1), ("?", 12)]


def test_several_and_nested_inputs_and_arrays():
    assert summary(Parallel(ReLU(), Tanh()), ((2, 3), (4,))).rows[0].shape == "((2, 3), (4,))"
    nested = Sequential(Parallel(Parallel(ReLU(), ReLU()), ReLU()))
    assert summary(nested, (((2,), (3,)), ())).rows[0].shape == "(((2,), (3,)), ())"
    assert summary(Linear(3, 2), np.ones((7, 3))).rows[0].shape == "(7, 2)"
    with pytest.raises(TypeError, match="expected a shape"):
        summary(Linear(3, 2), "28x28")


def test_a_model_in_eval_still_shows_what_a_backward_would_need():
    net = model().eval()
    assert summary(net, (32, 784)).cached_bytes == 138_752
    assert not any(layer.training or layer.caching for layer in net.modules())


def test_a_shape_that_does_not_fit_is_the_layer_s_own_error():
    net = model()
    before = pickle.dumps(net)
    with pytest.raises(LayerError, match=r"at 'fc1': expected x of shape \(\.\.\., 784\), got \(32, 49\)"):
        summary(net, (32, 7, 7))
    assert pickle.dumps(net) == before


# ---------------------------------------------------------------------- the memory of a training step

IMAGES = {
    "MLP": (lambda: MLP(784, 256, 128, 10, rng=0), (64, 784), 10),
    "LeNet5": (lambda: LeNet5(rng=0), (16, 1, 28, 28), 10),
    "ConvNet": (lambda: ConvNet(3, (3, 32, 32), rng=0), (4, 3, 32, 32), 3),
    "LSTM": (lambda: Sequential(LSTM(32, 64, rng=0), Linear(64, 5), Flatten(0, 1)), (20, 16, 32), 5),
    "attention": (
        lambda: Sequential(TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, rng=0), Flatten(), Linear(640, 4)),
        (16, 20, 32),
        4,
    ),
}


def counted(build, shape, classes, optimizer):
    """The most bytes that arrays have in a step of training as one writes it, counted from outside."""
    tracemalloc.start()
    try:
        with pool_apart(memory.Pool()):
            net, loss = build().input_requires_grad_(False), CrossEntropyLoss()
            update = optimizer(net.parameters())
            x = np.full(shape, 0.5, np.float32)
            for _ in range(3):
                tracemalloc.reset_peak()
                update.zero_grad()
                y = net(x)
                loss(y, np.zeros(len(y), int))
                net.backward(loss.backward())
                update.step()
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", IMAGES)
def test_the_peak_of_a_step_is_predicted(name):
    build, shape, classes = IMAGES[name]
    counted(build, shape, classes, Adam)  # what is made once, at the first call
    wanted = counted(build, shape, classes, Adam)
    found = summary(build(), shape, optimizer=Adam)
    assert found.peak_bytes == pytest.approx(wanted, rel=0.15)
    parts = (found.parameter_bytes, found.gradient_bytes, found.optimizer_bytes, found.cached_bytes)
    assert sum(parts) + found.working_bytes == found.peak_bytes
    assert found.optimizer_bytes == 2 * found.parameter_bytes


def test_the_peak_does_not_depend_on_what_ran_before():
    build, shape, _ = IMAGES["ConvNet"]
    net = build()
    summary(net, shape)
    first = summary(net, shape).peak_bytes
    x = np.ones((16, *shape[1:]), np.float32)
    kept = [net(x) for _ in range(3)]
    assert summary(net, shape).peak_bytes == pytest.approx(first, rel=0.01)
    assert len(kept) == 3


def test_without_an_optimizer_the_peak_is_smaller_by_what_it_remembers():
    build, shape, _ = IMAGES["MLP"]
    with_adam, alone = summary(build(), shape, optimizer=Adam), summary(build(), shape)
    assert alone.optimizer_bytes is None and "optimizer" not in str(alone)
    assert with_adam.peak_bytes - alone.peak_bytes == pytest.approx(with_adam.optimizer_bytes, rel=0.2)


def test_tracing_that_was_on_stays_on():
    tracemalloc.start()
    try:
        assert summary(Linear(3, 2), (4, 3)).peak_bytes > 0
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert summary(Linear(3, 2), (4, 3)).peak_bytes > 0
    assert not tracemalloc.is_tracing()


def test_a_backward_that_is_not_written_yet_leaves_the_peak_open():
    class Half(Layer):
        """Has a forward only."""

        def forward(self, x):
            return 2 * x

    table = summary(Sequential(Linear(3, 3), Half()), (2, 3))
    assert table.rows[0].shape == "(2, 3)" and table.peak_bytes is None
    assert "(no peak: NotImplementedError: Half has no backward())" in str(table)


def test_an_optimizer_that_cannot_be_made_is_an_error():
    with pytest.raises(TypeError):
        summary(Linear(3, 2), (2, 3), optimizer=lambda: None)
