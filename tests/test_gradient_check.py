"""The gradient check finds what is wrong, and only that; each trial of check_layer can fail."""

import numpy as np
import pytest

from backhand.inspection import check_gradients, check_layer
from backhand.layers import Dropout, Layer, Linear, MaxPool2d, Multiply, Parameter, ReLU, Tanh
from backhand.losses import CrossEntropyLoss
from backhand.models import Sequential

X = np.array([[1.0, -2.0, 3.0], [0.5, 1.5, -1.0]])


class Scale(Layer):
    """y = w x^2, right; the subclasses each get one thing wrong."""

    def __init__(self):
        self.w = Parameter(np.array([2.0, 3.0, 4.0]))

    def forward(self, x):
        x = self.input(x, self.w.dtype)
        y = self.w.data * x * x
        self.save(x, out=y)
        return y

    def backward(self, dout):
        dout = self.upstream(dout)
        (x,) = self.saved()
        self.w.grad += (dout * x * x).sum(axis=0)
        return dout * 2 * x * self.w.data


def wrong(**methods):
    return type("Wrong", (Scale,), methods)()


def no_factor_two(self, dout):
    (x,) = self.saved()
    self.w.grad += (dout * x * x).sum(axis=0)
    return dout * x * self.w.data


def no_parameter_gradient(self, dout):
    (x,) = self.saved()
    return dout * 2 * x * self.w.data


def no_dx(self, dout):
    (x,) = self.saved()
    self.w.grad += (dout * x * x).sum(axis=0)


def wrong_shape(self, dout):
    return Scale.backward(self, dout).sum(axis=0)


def assigns(self, dout):
    (x,) = self.saved()
    self.w.grad = (dout * x * x).sum(axis=0)
    return dout * 2 * x * self.w.data


def one_entry_off(self, dout):
    dx = Scale.backward(self, dout)
    dx[1, 2] *= 1.001
    return dx


def writes_into_dout(self, dout):
    (x,) = self.saved()
    self.w.grad += (dout * x * x).sum(axis=0)
    dout *= 2 * x * self.w.data
    return dout


def writes_into_x(self, x):
    self.save(x, out=x)
    y = self.w.data * x * x
    x *= 1
    return y


def one_slot(self, x):
    self.kept = x
    self.save(out=x)
    return self.w.data * x * x


def from_one_slot(self, dout):
    self.saved()
    self.w.grad += (dout * self.kept * self.kept).sum(axis=0)
    return dout * 2 * self.kept * self.w.data


def leaves_it_saved(self, dout):
    dx = Scale.backward(self, dout)
    self.save(dx)
    return dx


def saves_always(self, x):
    y = Scale.forward(self, x)
    if not self.caching:
        self.__dict__.setdefault("_stack", []).append((0,))
    return y


def becomes_float64(self, x):
    y = Scale.forward(self, x).astype(np.float64)
    return y


@pytest.mark.parametrize(
    ("layer", "row", "words"),
    [
        (wrong(backward=no_factor_two), "dx", "wrong"),
        (wrong(backward=no_parameter_gradient), "w", "wrong"),
        (wrong(backward=no_dx), "dx", "missing: backward returned None"),
        (wrong(backward=wrong_shape), "dx", "has shape (3,)"),
        (wrong(backward=one_entry_off), "dx", "suspicious"),
    ],
)
def test_the_report_says_which_gradient_and_how(layer, row, words):
    report = check_gradients(layer, X)
    assert not report
    assert "GRADIENTS DIFFER" in str(report)
    bad = [each for each in report.rows if each.problem or each.error > report.tolerance]
    assert [each.name for each in bad] == [row]
    assert words in bad[0].verdict
    assert words in str(report)


def test_the_worst_index_and_both_numbers_are_given():
    (row,) = [r for r in check_gradients(wrong(backward=one_entry_off), X).rows if r.name == "dx"]
    assert row.index == (1, 2)
    assert row.analytic == pytest.approx(1.001 * row.numeric, rel=1e-6)
    assert 5e-4 < row.error < 2e-3


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (wrong(backward=no_factor_two), "GRADIENTS DIFFER"),
        (wrong(backward=assigns), "must double the gradient of w: use +="),
        (wrong(backward=writes_into_dout), "writes into an array that it was lent"),
        (wrong(forward=writes_into_x), "writes into an array that it was lent"),
        (wrong(forward=one_slot, backward=from_one_slot), "mix up what was saved: use save() and saved()"),
        (wrong(backward=leaves_it_saved), "still keeps something after backward"),
        (wrong(forward=saves_always), "saves in eval"),
        (wrong(forward=becomes_float64), "float32 in, but the output"),
    ],
)
def test_every_trial_of_check_layer_can_fail(layer, words):
    with pytest.raises(AssertionError) as error:
        check_layer(layer, X)
    assert words in str(error.value)
    assert "(at ())" not in str(error.value)


def test_a_right_layer_passes_and_stays_as_it_was():
    layer = Scale()
    layer(X)
    layer.w.grad += 5
    assert check_layer(layer, X)
    assert (layer.w.grad == 5).all() and len(layer._stack) == 1 and layer.w.dtype == np.float64


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (Dropout(0.5, rng=0), (X,)),
        (Sequential(Linear(3, 4, rng=0), Dropout(0.3, rng=1), Tanh()), (X,)),
        (Linear(3, 2, rng=0), (X.astype(np.float32),)),
        (MaxPool2d(2), (np.arange(16.0).reshape(1, 1, 4, 4),)),
        (CrossEntropyLoss(), (X, np.array([0, 2]))),
    ],
)
def test_no_false_alarm(layer, inputs):
    assert check_layer(layer, *inputs)


def test_integers_are_numbers_unless_they_are_labels():
    class Square(Layer):
        def forward(self, x):
            self.save(x)
            return x * x

        def backward(self, dout):
            (x,) = self.saved()
            return dout * x

    report = check_gradients(Square(), np.array([[1, -2, 3]]))
    assert not report and [row.name for row in report.rows] == ["dx"]
    assert not check_gradients(Square(), [[1, -2, 3]])
    assert [row.name for row in check_gradients(Linear(3, 2, rng=0), [[1, 2, 3]]).rows] == ["dx", "weight", "bias"]
    assert [row.name for row in check_gradients(Multiply(), 3, -4).rows] == ["dx[0]", "dx[1]"]


def test_nothing_to_compare_is_an_error():
    class Labels(Layer):
        def forward(self, x):
            self.save()
            return np.eye(4)[x]

        def backward(self, dout):
            self.saved()
            return None

    with pytest.raises(ValueError, match="nothing to compare"):
        check_gradients(Labels(), np.array([1, 2]))


def test_a_layer_that_draws_anew_each_time_is_named():
    class Noise(Layer):
        def forward(self, x):
            self.save()
            return x + np.random.default_rng().standard_normal(np.shape(x))

        def backward(self, dout):
            self.saved()
            return dout

    report = check_gradients(Noise(), X)
    assert not report and report.faults[0].kind == "stochastic"
    assert "another output each time" in str(report)
    with pytest.raises(ValueError, match="another output each time"):
        check_layer(Noise(), X)


def test_what_is_no_layer_is_named():
    with pytest.raises(TypeError, match=r"did you mean ReLU\(\)\?"):
        check_gradients(ReLU, X)
    with pytest.raises(TypeError, match="expected a Layer, got <function"):
        check_layer(lambda x: x, X)
