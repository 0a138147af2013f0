"""The lecture's circuits: their published numbers, and what is drawn of them."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from backhand.inspection import Circuit, plot_circuit, style
from backhand.layers import (
    Add,
    AddConstant,
    Copy,
    Exp,
    Identity,
    Linear,
    Max,
    Multiply,
    MultiplyConstant,
    Negate,
    Reciprocal,
    Sigmoid,
)
from backhand.models import Parallel, Repeat, Residual, Sequential, Sum
from tests.states import assert_unchanged, snapshot


def first():
    return Circuit(Sequential(Parallel(Add(), Identity()), Multiply()), (-2, 5), -4, names="xyz")


def neuron():
    chain = (Add(), Negate(), Exp(), AddConstant(1), Reciprocal())
    layer = Sequential(Parallel(Multiply(), Multiply(), Identity()), *chain)
    return Circuit(layer, (2, -1), (-3, -2), -3, names=("w0", "x0", "w1", "x1", "w2"))


def third():
    layer = Sequential(Parallel(Multiply(), Max()), Add(), MultiplyConstant(2))
    return Circuit(layer, (3, -4), (2, -1), names="xyzw")


def gradients(circuit):
    return {wire.name: round(float(wire.gradient), 4) for wire in circuit.inputs}


def test_the_published_numbers():
    one, two, three = first(), neuron(), third()
    assert [float(wire.value) for c in (one, three) for wire in c.outputs] == [-12, -20]
    assert gradients(one) == {"x": -4, "y": -4, "z": 3}
    assert gradients(three) == {"x": -8, "y": 6, "z": 2, "w": 0}
    assert float(two.outputs[0].value) == pytest.approx(0.7311, abs=5e-5)
    assert gradients(two) == {"w0": -0.1966, "x0": 0.3932, "w1": -0.3932, "x1": -0.5898, "w2": 0.1966}


def test_as_text():
    lines = str(first()).splitlines()
    assert " ".join(lines[1].split()) == "+ -2.00, 5.00 -> 3.00 -4.00, -4.00 <- -4.00 add: distributes"
    assert lines[2].endswith("multiply: swaps")


def test_dot():
    text = first().to_dot()
    assert text.startswith("digraph circuit {") and text.endswith("}")
    assert 'in0 -> g0 [label="-2.00\\n-4.00"];' in text and 'g1 -> out0 [label="-12.00\\n1.00"];' in text
    assert text.count("->") == 5


@pytest.mark.parametrize(
    ("layer", "gates"),
    [
        (Sum(Exp(), Negate()), ["copy", "exp", "-1*", "+"]),
        (Residual(Sigmoid()), ["copy", "Sigmoid", "+"]),
        (Repeat(Exp(), 2), ["exp", "exp"]),
        (Sequential(Copy(2), Parallel(Exp(), Identity()), Multiply()), ["copy", "exp", "*"]),
    ],
)
def test_containers_say_where_the_wires_go(layer, gates):
    x = np.array([0.3, -0.4])
    circuit = Circuit(layer, x)
    assert [gate.label for gate in circuit.gates] == gates
    y = layer(x)
    np.testing.assert_array_equal(circuit.outputs[0].value, y)
    np.testing.assert_allclose(circuit.inputs[0].gradient, layer.backward(np.ones_like(y)), rtol=1e-12)


def test_the_layer_stays_as_it_was():
    layer = Sequential(Linear(3, 2, rng=0), Sigmoid())
    layer(np.ones((1, 3)))
    before = snapshot(layer)
    Circuit(layer, np.ones((1, 3)))
    assert_unchanged(layer, before)


def test_local_gradients():
    assert [[float(d) for d in gate.local] for gate in third().gates] == [[-4, 3], [1, 0], [1, 1], [2]]


def test_wrong_calls():
    with pytest.raises(ValueError, match="expected 3 names, one for each input, got 2"):
        Circuit(Sequential(Parallel(Add(), Identity()), Multiply()), (-2, 5), -4, names="xy")
    with pytest.raises(ValueError, match="expected dout of shape"):
        Circuit(Exp(), 1.0, dout=np.ones(2))
    with pytest.raises(TypeError, match=r"expected a Circuit\(layer, \*inputs\), got a Exp"):
        plot_circuit(Exp())
    with pytest.raises(ValueError, match="labels"):
        plot_circuit(first(), labels="all")


def drawn(ax, colour):
    return sorted(text.get_text() for text in ax.texts if to_hex(text.get_color()).upper() == colour)


def test_values_stand_above_and_gradients_below_the_wire(ax):
    settings, figures = dict(matplotlib.rcParams), plt.get_fignums()
    assert plot_circuit(first(), ax=ax) is ax
    assert drawn(ax, style.FORWARD) == ["-12.00", "-2.00", "-4.00", "3.00", "5.00"]
    assert drawn(ax, style.GRADIENT) == ["-4.00", "-4.00", "-4.00", "1.00", "3.00"]
    for text in ax.texts:
        colour = to_hex(text.get_color()).upper()
        if colour in (style.FORWARD, style.GRADIENT):
            assert text.get_va() == ("bottom" if colour == style.FORWARD else "top")
    assert "green above" in ax.get_title()
    assert dict(matplotlib.rcParams) == settings and plt.get_fignums() == figures


def test_step_by_step(ax):
    plot_circuit(neuron(), step=0, ax=ax)
    assert drawn(ax, style.GRADIENT) == ["1.00"]
    later = Figure().subplots()
    plot_circuit(neuron(), step=2, ax=later)
    assert drawn(later, style.GRADIENT) == ["-0.53", "-0.53", "1.00"]


@pytest.mark.parametrize(
    ("labels", "found"),
    [("patterns", ["multiply: swaps", "max: routes", "add: distributes"]), ("local", ["[local 2.00]"])],
)
def test_labels(ax, labels, found):
    plot_circuit(third(), labels=labels, ax=ax)
    assert set(found) <= {text.get_text() for text in ax.texts}
