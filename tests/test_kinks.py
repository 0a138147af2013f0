"""The doctor where forward has no derivative: no accusation of a right backward, and none spared that is impossible."""

import numpy as np
import pytest

from backhand.inspection import check_gradients, check_layer
from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.layers import (
    ELU,
    GELU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Layer,
    LeakyReLU,
    Linear,
    Max,
    MaxPool1d,
    MaxPool2d,
    ReLU,
    ReLU6,
    Softshrink,
    Tanh,
    Threshold,
)
from backhand.losses import HuberLoss, MarginRankingLoss, MultiMarginLoss
from backhand.models import Sequential
from tests.cases import families


def corners(layer):
    """The numbers that a layer and what is in it were built with: thresholds, margins, ends of a range."""
    found = {float(v) for each in layer.modules() for v in vars(each).values() if type(v) in (int, float)}
    return sorted(c for c in found if abs(c) < 10)


def floats(f, inputs):
    return map_leaves(inputs, lambda x: f(x) if x.dtype.kind == "f" else x)


def points(layer, inputs):
    """(name, inputs) with ties and kinks: all alike, on every corner, on whole and half numbers, x on the target."""
    simple = len(list(layer.modules())) == 1
    for c in sorted({0.0, *((-1.0, 1.0, *corners(layer), *(-c for c in corners(layer))) if simple else ())}):
        yield f"all {c:g}", floats(lambda x, c=c: np.full(x.shape, c), inputs)
        if simple and len(inputs) > 1:
            yield f"the first {c:g}", (*floats(lambda x, c=c: np.full(x.shape, c), inputs[:1]), *inputs[1:])
    yield "halves", floats(lambda x: np.round(2 * x) / 2, inputs)
    if not simple:
        yield "a sample of zeros", floats(lambda x: np.concatenate([0 * x[:1], x[1:]]) if x.ndim else x, inputs)
    if len(inputs) > 1 and not any(isinstance(x, tuple) for x in inputs) and np.shape(inputs[0]) == np.shape(inputs[1]):
        for c in (0.0, *(corners(layer) if simple else ())):
            yield f"x on the second input, {c:g} further", (inputs[1] + c, *inputs[1:])


def takes(case, inputs):
    """Whether forward takes this input, and gives finite numbers."""
    layer = case.build(np.float64, cls=case.checked)
    try:
        with np.errstate(all="ignore"):
            y = layer.forward(*inputs)
    except ValueError:
        return False
    return all(np.isfinite(np.asarray(leaf, float)).all() for _, leaf in leaves(y))


@pytest.mark.parametrize("case", families("CASES"), ids=str)
def test_a_right_layer_is_not_accused_at_ties_and_kinks(case):
    for name, inputs in points(case.build(np.float64, cls=case.checked), case.arrays()):
        if takes(case, inputs):
            report = check_gradients(case.build(np.float64, cls=case.checked), *inputs, most=3)
            assert report, f"{name}\n{report}"
            assert not report.faults


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (Max(), (np.array(1.0), np.array(1.0))),
        (ReLU(), (np.array([0.0, 1.0, -1.0]),)),
        (MaxPool2d(2), (np.zeros((1, 1, 4, 4)),)),
        (MultiMarginLoss(), (np.array([[1.0, 0.0, 2.0]]), np.array([0]))),
        (Hardtanh(), (np.array([1.0, -1.0, 0.5]),)),
        (Sequential(Linear(3, 4, bias=False, rng=0), ReLU(), Linear(4, 2, rng=1)), (np.zeros((2, 3)),)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_report_says_that_there_is_no_derivative(layer, inputs):
    report = check_gradients(layer, *inputs)
    assert report and report.kinks and not report.example
    assert report.kinks == sum(row.kinks for row in report.rows)
    stand = "1 entry stands" if report.kinks == 1 else f"{report.kinks} entries stand"
    assert str(report).splitlines()[0].endswith(f"; {stand} at a kink, where there is no derivative")
    assert "there is no derivative here: from the left the slope is" in report.notes[0]
    assert "there the gradients agree" in report.notes[0]
    assert "likely" not in str(report)
    assert check_layer(layer, *inputs).kinks


def test_the_slopes_of_a_tie_are_shown():
    report = check_gradients(Max(), np.array(1.0), np.array(1.0))
    assert report.kinks == 2 and {row.verdict for row in report.rows} == {"no derivative"}
    assert "from the left the slope is 0, from the right -1.655" in report.notes[0]
    assert "none" in str(report).splitlines()[2]


def test_a_jump_and_an_edge_are_told_from_a_kink():
    assert "forward jumps at this input" in check_gradients(Hardshrink(), np.array([0.5, 2.0])).notes[0]

    class OneAndAHalf(Layer):
        def forward(self, x):
            if (x < 0).any():
                raise ValueError("negative")
            self.save(x)
            return x**1.5

        def backward(self, dout):
            (x,) = self.saved()
            return dout * 1.5 * x**0.5

    report = check_gradients(OneAndAHalf(), np.array([0.0, 4.0]))
    assert report.kinks == 1 and "with no value to the left" in report.notes[0]


def at(point, gives, layer):
    """The layer, with a backward that is right everywhere but at one point."""

    class Wrong(type(layer)):
        def forward(self, x):
            y = super().forward(x)
            self.save(x)
            return y

        def backward(self, dout):
            (x,) = self.saved()
            return np.where(x == point, gives * dout, super().backward(dout))

    layer.__class__ = Wrong
    return layer


@pytest.mark.parametrize(
    ("layer", "point", "gives"),
    [
        (ReLU(), 0, 5),
        (ReLU(), 0, -0.1),
        (LeakyReLU(0.2), 0, 0),
        (LeakyReLU(0.2), 0, 1.01),
        (ReLU6(), 6, 1.5),
        (Hardtanh(), -1, -2),
        (Hardtanh(), 1, 1.2),
        (Hardsigmoid(), 3, 1),
        (Hardswish(), -3, 0.3),
        (Softshrink(), 0.5, 2),
        (Threshold(0.5, 0.5), 0.5, 3),
    ],
    ids=str,
)
def test_what_lies_outside_of_both_slopes_is_wrong_at_a_kink_too(layer, point, gives):
    x = np.array([point, point + 1.3, point - 1.7])
    report = check_gradients(at(point, gives, layer), x)
    assert not report and report.faults[0].kind == "kink", report
    assert "which is not between them" in str(report.faults[0])
    deep = check_gradients(Sequential(layer, Tanh()), x)
    assert not deep and deep.faults[0].kind == "kink" and deep.faults[0].where.startswith("0")


@pytest.mark.parametrize("layer", [Tanh(), GELU(), ELU()], ids=str)
def test_a_smooth_point_is_no_excuse(layer):
    assert not check_gradients(at(0, 5, layer), np.array([0.0, 1.0, -2.0]))


@pytest.mark.parametrize("off", [1e-2, 1e-4, 1e-5])
@pytest.mark.parametrize("make", [Tanh, GELU, ELU, ReLU, LeakyReLU, Softshrink], ids=lambda make: make.__name__)
def test_a_small_error_is_no_kink(make, off):
    class Wrong(make):
        def backward(self, dout):
            return super().backward(dout) * (1 + off)

    x = np.random.default_rng(0).standard_normal((4, 5)) * 2
    assert not check_gradients(Wrong(), x)
    x[0] = 0  # at kinks, or beside them
    assert not check_gradients(Wrong(), x)


def test_a_backward_that_is_wrong_beside_the_kink_is_found():
    class Forgets(ReLU):
        def backward(self, dout):
            super().backward(dout)
            return dout

    report = check_gradients(Forgets(), np.zeros(4))
    assert not report and "there the gradients differ too" in report.notes[0]


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (HuberLoss(), (np.array([1.0, 2.0, 0.5]), np.array([0.0, 0.0, 0.0]))),
        (MultiMarginLoss(), (np.zeros((2, 3)), np.array([0, 2]))),
        (MarginRankingLoss(), (np.zeros(3), np.zeros(3), np.array([1.0, -1.0, 1.0]))),
        (MaxPool1d(2), (np.ones((1, 2, 4)),)),
        (ReLU(), (np.array([3e-6, -3e-6, 1e-9, 0.0]),)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_twice_too_much_is_wrong_at_ties(layer, inputs):
    class Wrong(type(layer)):
        def backward(self, *dout):
            return map_leaves(super().backward(*dout), lambda dx: None if dx is None else 2 * dx)

    assert check_gradients(layer, *inputs)
    layer.__class__ = Wrong
    assert not check_gradients(layer, *inputs)
