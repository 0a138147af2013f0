"""What the doctor's report says, what it takes, and what it leaves alone."""

import inspect
import textwrap

import numpy as np
import pytest

from backhand.inspection import Fault, check_gradients, check_layer
from backhand.layers import Layer, LayerNorm, Linear, Parameter, ReLU
from backhand.models import Sequential
from tests.bugs.students import Affine, BatchNorm, Params, Recurrent, affine, made

X = np.array([[1.0, -2.0, 3.0], [0.5, 1.5, -1.0], [2.0, 0.3, -0.7], [-0.4, 0.8, 1.2]])


def divided(self, d):
    return self.x.T @ d / len(d)


def kinds(report):
    return [fault.kind for fault in report.faults]


def test_one_cause_is_one_finding():
    thing = affine(dx=lambda s, d: d @ s.W.T / len(d), dW=divided, db=lambda s, d: d.mean(0))()
    report = check_gradients(thing, X)
    assert kinds(report)[0] == "batch"
    assert not [f for f in report.faults if not f.second][1:]
    assert report.faults[0].targets == ["dx", "W", "b"]
    assert "dx and the gradients of W and b are divided by N, the samples in the batch (4)" in " ".join(
        str(report).split()
    )


def test_two_causes_are_two_findings():
    report = check_gradients(affine(dx=lambda s, d: -d @ s.W.T, dW=divided)(), X)
    assert [(f.kind, f.targets) for f in report.faults if not f.second] == [("sign", ["dx"]), ("batch", ["W"])]
    assert "     and: " in str(report)


def test_the_example_is_as_small_as_the_fault_allows():
    report = check_gradients(affine(dW=divided)(), X)
    assert (
        "smallest example: x = [[ 1. , -2. , 3. ], [ 0.5, 1.5, -1. ]]" in report.example
    )  # with one sample it is right
    report = check_gradients(affine(dx=lambda s, d: -d @ s.W.T)(), X)
    assert "x = [[ 1., -2., 3.]]" in report.example
    assert "from backward" in report.example and "from central differences" in report.example


def test_what_is_right_is_said_too():
    assert "dx is right" in str(check_gradients(affine(dW=divided)(), X))
    assert "would learn" in str(check_gradients(affine(dx=lambda s, d: -d @ s.W.T)(), X))


def test_the_docstring_shows_what_is_printed():
    lines = textwrap.dedent(inspect.getdoc(check_gradients)).splitlines()
    code = [line[4:] for line in lines if line.startswith((">>>", "..."))]
    shown = [line for line in lines[lines.index(">>> " + code[-1]) + 1 :] if line][:11]
    space = {"np": np, "check_gradients": check_gradients}
    exec("\n".join(code[:-1]), space)
    printed = str(eval(code[-1].removeprefix("print(").removesuffix(")"), space)).splitlines()
    assert [line for line in printed if "e-10" not in line] == [line for line in shown if "e-10" not in line]


def test_a_right_report_is_true_and_short():
    report = check_gradients(Affine(), X)
    assert report and report.ok and not report.faults and not report.example
    assert "gradients agree" in str(report)
    assert {row.name for row in report.rows} == {"dx", "W", "b"}
    assert {row.verdict for row in report.rows} == {"good"}


def test_the_fault_is_looked_for_in_the_inner_layers():
    class Wrong(LayerNorm):
        def backward(self, dout):
            return 2 * super().backward(dout)

    report = check_gradients(Sequential(Linear(3, 4, rng=0), Wrong(4), ReLU()), X)
    assert report.faults[0].where == "1 (Wrong(4, dtype='float64'))" or "1 (Wrong" in report.faults[0].where
    assert report.faults[0].kind == "factor 2"
    assert "in 1 (Wrong" in str(report)
    deep = Sequential(Sequential(Linear(3, 4, rng=0), Wrong(4)), ReLU())
    assert check_gradients(deep, X).faults[0].where.startswith("0.1 (")


@pytest.mark.parametrize("name", ["dW", "W_grad", "grad_W", "d_W"])
def test_parameters_of_somebodys_class_are_found_by_their_gradients(name):
    class Own:
        def __init__(self):
            self.W, self.scale = np.ones((3, 2)), 2.0

        def forward(self, x):
            self.x = x
            return self.scale * x @ self.W

        def backward(self, dout):
            setattr(self, name, self.x.T @ dout)
            return self.scale * dout @ self.W.T

    report = check_gradients(Own(), X)
    assert [row.name for row in report.rows] == ["dx", "W"]
    assert kinds(report)[0] == "factor 2"


def test_parameters_in_lists_objects_and_dicts():
    class Net:
        def __init__(self):
            self.layers = [Affine(), Params.__new__(Params)]
            self.layers[1].params = {"W": np.eye(4), "b": np.full(4, 0.3)}
            self.layers[1].grads = {}

        def forward(self, x):
            for layer in self.layers:
                x = layer.forward(x)
            return x

        def backward(self, dout):
            for layer in self.layers[::-1]:
                dout = layer.backward(dout)
            return dout

    report = check_gradients(Net(), X)
    assert report, report
    assert {row.name for row in report.rows} == {
        "dx",
        *(f"layers.0.{n}" for n in "Wb"),
        *(f"layers.1.params.{n}" for n in "Wb"),
    }


def test_lists_of_parameters_and_gradients():
    class Own:
        def __init__(self):
            self.params, self.grads = [np.ones((3, 2), "f")], [np.zeros((3, 2), "f")]

        def forward(self, x):
            self.x = x
            return x @ self.params[0]

        def backward(self, dout):
            self.grads[0][...] = -(self.x.T @ dout)
            return dout @ self.params[0].T

    report = check_gradients(Own(), X)
    assert [row.name for row in report.rows] == ["dx", "params.0"]
    assert kinds(report) == ["sign"]


def test_a_weight_without_a_gradient_is_noted():
    class Forgetful(Affine):
        def backward(self, d):
            self.dW = self.x.T @ d
            return d @ self.W.T

    report = check_gradients(Forgetful(), X)
    assert report and [note for note in report.notes if note.startswith("b is not checked")]
    assert not check_gradients(Affine(), X).notes
    assert not check_gradients(BatchNorm(3), X).notes  # its running mean is no weight


def test_somebodys_object_stays_as_it_was():
    thing = Params()
    before = {name: array.copy() for name, array in thing.params.items()}
    check_gradients(thing, X)
    assert thing.grads == {} and not hasattr(thing, "x")
    assert all(np.array_equal(array, before[name]) for name, array in thing.params.items())


@pytest.mark.parametrize(
    "pair",
    [
        (lambda x: x**2, lambda dout, x: 2 * x * dout),
        (lambda x: (x**2, x), lambda dout, cache: 2 * cache * dout),
        (np.negative, lambda dout: -dout),
    ],
)
def test_pairs_of_functions(pair):
    assert check_gradients(pair, X)
    wrong = (pair[0], lambda *args: 2 * pair[1](*args)) if pair[0] is np.negative else None
    if wrong:
        assert kinds(check_gradients(wrong, X))[0] == "factor 2"


def test_functions_with_weights_and_a_cache():
    def forward(x, w, b):
        return x @ w + b, (x, w)

    def backward(dout, cache):
        x, w = cache
        return dout @ w.T, x.T @ dout, dout

    report = check_gradients((forward, backward), X, np.ones((3, 2)), np.zeros(2))
    assert [(f.kind, f.targets) for f in report.faults] == [("unbroadcast", ["dx[2]"])]


def test_a_kink_is_moved_away_from_and_named():
    report = check_gradients(ReLU(), np.array([0.0, 1.0, -1.0]))
    assert report and "a kink or a tie" in report.notes[0] and "dx at [0]" in report.notes[0]

    class Wrong(ReLU):
        def backward(self, dout):
            return 2 * super().backward(dout)

    assert kinds(check_gradients(Wrong(), np.array([0.0, 1.0, -1.0])))[0] == "factor 2"


def test_single_precision_is_checked_with_a_larger_step_and_named():
    class Single(Layer):
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x):
            y = np.tanh(np.asarray(x, np.float32))
            self.save(y, out=y)
            return y

        def backward(self, dout):
            dout = self.upstream(dout)
            (y,) = self.saved()
            return self.factor * dout * (1 - y * y)

    report = check_gradients(Single(1), X)
    assert report and "float32" in report.notes[0] and "1e-05: " in report.notes[0]
    assert kinds(check_gradients(Single(-1), X)) == ["sign"]


def test_parameters_whose_gradients_backward_returns():
    class Returns(Affine):
        def backward(self, d):
            return d @ self.W.T, self.x.T @ d, -d.sum(0)

    report = check_gradients(Returns(), X)
    assert [row.name for row in report.rows] == ["dx", "W", "b"]
    assert [(f.kind, f.targets) for f in report.faults] == [("sign", ["b"])]


def test_an_output_that_is_not_finite_is_said_to_be():
    report = check_gradients((lambda x: np.log(x), lambda d, x: d / x), np.array([1.0, 0.0]))
    assert [f.kind for f in report.faults] == ["nan"] and "forward gives NaN or infinite" in str(report)
    with pytest.raises(ValueError, match="an input is empty"):
        check_gradients(Affine(), np.zeros((0, 3)))


def test_what_is_not_a_layer_is_refused_in_words():
    with pytest.raises(TypeError, match=r"did you mean Affine\(\)\?"):
        check_gradients(Affine, X)
    with pytest.raises(TypeError, match="an object with forward and backward"):
        check_gradients(lambda x: x, X)


def test_large_inputs_are_cut_down_before_the_diagnosis():
    class Wrong(Linear):
        def backward(self, dout):
            dx = super().backward(dout)
            self.weight.grad /= len(dout)
            return dx

    report = check_gradients(Wrong(30, 20, rng=0), np.random.default_rng(0).standard_normal((64, 30)))
    assert kinds(report)[0] == "batch"
    assert not check_gradients(made(Recurrent, carry=False)(), np.random.default_rng(0).standard_normal((40, 30, 2)))


def test_check_layer_says_what_the_doctor_says():
    class Wrong(Linear):
        def backward(self, dout):
            return -super().backward(dout)

    with pytest.raises(AssertionError, match="likely: dx has the wrong sign"):
        check_layer(Wrong(3, 2, rng=0), X)


def test_an_exception_in_backward_is_a_finding():
    class Wrong(Layer):
        def __init__(self):
            self.w = Parameter(np.ones(3))

        def forward(self, x):
            self.save(x)
            return x * self.w.data

        def backward(self, dout):
            (x,) = self.saved()
            return dout @ x

    report = check_gradients(Wrong(), X)
    assert kinds(report)[0] == "raises" and "ValueError" in str(report)
    assert isinstance(report.faults[0], Fault)
