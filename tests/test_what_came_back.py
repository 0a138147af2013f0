"""What a backward that raises, or returns something else than gradients, is told: what happened, and nothing else."""

import numpy as np
import pytest

from backhand.inspection import check_gradients, check_layer
from backhand.layers import Layer

A = np.random.default_rng(0).standard_normal((2, 3))
B = A[::-1] + 3


class Product(Layer):
    """y = a b, with a backward that is given."""

    back = staticmethod(lambda dout, a, b: (dout * b, dout * a))

    def forward(self, a, b):
        self.save(a, b)
        return a * b

    def backward(self, dout):
        return self.back(dout, *self.saved())


class Homework:
    """The same, as somebody's own class."""

    def forward(self, a, b):
        self.a, self.b = a, b
        return a * b

    def backward(self, dout):
        return self.back(dout, self.a, self.b)


def fails(dout, a, b):
    return {}["mask"]


LINE = fails.__code__.co_firstlineno + 1


def made(base, back):
    return type(base.__name__, (base,), {"back": staticmethod(back)})()


@pytest.mark.parametrize("base", [Product, Homework])
@pytest.mark.parametrize(
    ("back", "kind", "words"),
    [
        (fails, "raises", f"backward raises KeyError: 'mask', in line {LINE} of test_what_came_back.py: `return {{}}["),
        (lambda d, a, b: None, "missing", "it returned None"),
        (lambda d, a, b: (d * b, None), "missing", "backward gives no dx[1]: it returned None"),
        (lambda d, a, b: (d * b,), "missing", "returned a tuple of 1 for 2 inputs"),
        (lambda d, a, b: d * b, "missing", "returned one array of shape (2, 3) for 2 inputs"),
        (lambda d, a, b: 3.0, "missing", "returned a float for 2 inputs"),
        (lambda d, a, b: "none", "missing", "returned a str for 2 inputs"),
        (lambda d, a, b: (i for i in (d, d)), "missing", "returned a generator for 2 inputs"),
        (lambda d, a, b: ([[1.0], [2.0, 3.0]], d * a), "returned", "a list of 2 in place 0 of its tuple"),
        (lambda d, a, b: (1.5, d * a), "shape", "dx[0] has shape () and x has (2, 3)"),
        (lambda d, a, b: ((d * b)[0], d * a), "shape", "dx[0] has shape (3,) and x has (2, 3)"),
        (lambda d, a, b: (d * b + 0j, d * a), "returned", "dx[0] holds complex numbers (dtype complex128)"),
        (lambda d, a, b: ((d * b).astype(object), d * a), "returned", "dx[0] holds no numbers (dtype object)"),
        (lambda d, a, b: ((d * b).astype(int), d * a), "rounding", "rounded to whole numbers (dtype int64)"),
        (lambda d, a, b: (d * b * np.nan, d * a), "nan", "dx[0] is not finite (NaN or infinite) everywhere"),
    ],
)
def test_the_report_says_what_came_back(base, back, kind, words):
    report = check_gradients(made(base, back), A, B)
    assert not report and report.faults[0].kind == kind, report
    assert words in str(report.faults[0])
    assert len(report.faults) == 1
    if words.startswith("backward raises"):
        assert {row.verdict for row in report.rows} == {"backward raised KeyError"}
        assert "returned None" not in str(report)
    if base is Product:
        with pytest.raises(AssertionError, match="likely: "):
            check_layer(made(base, back), A, B)


@pytest.mark.parametrize("back", [lambda d, a, b: [d * b, d * a], lambda d, a, b: (d * b, d * a, d)])
def test_a_layer_returns_a_tuple_with_one_gradient_for_each_input(back):
    report = check_gradients(made(Product, back), A, B)
    assert not report and [fault.kind for fault in report.faults] == ["returned"]
    assert "though the gradients agree" in str(report)
    assert check_gradients(made(Homework, back), A, B)  # a list, or the gradients of parameters after them


class Square(Layer):
    """y = x^2."""

    def forward(self, x):
        self.save(x)
        return x * x

    def backward(self, dout):
        (x,) = self.saved()
        return 2 * x * dout


class OneBuffer(Square):
    def __init__(self):
        self.buffer = np.zeros((2, 3))

    def backward(self, dout):
        self.buffer[...] = super().backward(dout)
        return self.buffer


class OneOutput(OneBuffer):
    def forward(self, x):
        self.buffer[...] = super().forward(x)
        return self.buffer

    def backward(self, dout):
        return Square.backward(self, dout)


class WritesIntoX(Square):
    def backward(self, dout):
        (x,) = self.saved()
        x *= 2
        return x * dout


class WritesIntoY(Layer):
    def forward(self, x):
        y = np.exp(x)
        self.save(y)
        return y

    def backward(self, dout):
        (y,) = self.saved()
        y *= dout
        return y


class WritesIntoDout(Square):
    def backward(self, dout):
        (x,) = self.saved()
        dout *= 2 * x
        return dout


@pytest.mark.parametrize(
    ("layer", "kind", "words"),
    [
        (OneBuffer(), "reused", "the dx that backward returned is written over by the next pass"),
        (OneOutput(), "reused", "the y that forward returned is written over by the next pass"),
        (WritesIntoX(), "input changed", "backward writes into its input"),
        (WritesIntoY(), "output changed", "backward writes into y"),
        (WritesIntoDout(), "dout changed", "backward writes into dout"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_written_to_is_named(layer, kind, words):
    report = check_gradients(layer, A)
    assert not report and report.faults[0].kind == kind, report
    assert words in str(report)
    with pytest.raises(AssertionError):
        check_layer(layer, A)
    assert check_gradients(Square(), A) and check_layer(Square(), A)


@pytest.mark.parametrize(("y", "words"), [(None, "None"), ("a", "'a'"), (1j * A, "dtype complex128")])
def test_a_forward_that_gives_no_numbers_is_an_error(y, words):
    class Wrong(Square):
        def forward(self, x):
            super().forward(x)
            return y

    with pytest.raises(TypeError, match=f"forward returned {words}; expected an array of real numbers"):
        check_gradients(Wrong(), A)


def test_the_error_of_a_forward_is_raised_as_it_is():
    class Wrong(Square):
        def forward(self, x):
            return x @ self.weight

    with pytest.raises(AttributeError, match="weight"):
        check_gradients(Wrong(), A)


def test_small_numbers_of_an_example_are_not_shown_as_zeros():
    class Half(Square):
        def backward(self, dout):
            return super().backward(dout) / 2

    report = str(check_gradients(Half(), np.array([1e-6, 2e-6])))
    assert "x = [0" not in report and "e-06" in report
