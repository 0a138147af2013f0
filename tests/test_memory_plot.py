"""The picture of a memory over time: its numbers are those of the maps, and the model does not change."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from backhand.inspection import plot_answer, plot_memory
from backhand.layers import LSTM, Linear
from backhand.layers.activations import sigmoid
from backhand.models import NTM, Sequential
from tests.states import assert_unchanged, snapshot

pytestmark = pytest.mark.usefixtures("figures_leave_nothing")
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((7, 3, 4)), (rng.random((3, 3, 2)) > 0.5).astype(float)


def machine(heads=2):
    return NTM(4, 2, 5, memory_size=(9, 3), read_heads=heads, write_heads=heads, rng=0)


def panels(axes):
    return {ax.get_ylabel(): ax for ax in axes}


def shown(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def test_every_panel_shows_what_the_model_says_of_itself():
    model, sample = machine(), 1
    drawn = panels(plot_memory(model, X, Y, sample=sample, figure=Figure()))
    names = ["given", "wanted", "said"]
    for i in (1, 2):
        names += [f"added {i}", f"write head {i}\nslot"]
    for i in (1, 2):
        names += [f"read {i}", f"read head {i}\nslot"]
    assert list(drawn) == names
    y = model.eval()(X)
    np.testing.assert_allclose(shown(drawn["given"]), X[:, sample].T)
    for name, values in (("wanted", Y), ("said", sigmoid(y)[-3:])):
        np.testing.assert_allclose(shown(drawn[name])[:, 4:], values[:, sample].T, rtol=1e-5)
        assert np.isnan(shown(drawn[name])[:, :4]).all()
    for i in range(2):
        np.testing.assert_allclose(shown(drawn[f"added {i + 1}"]), model.added[:, sample, i].T, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(shown(drawn[f"read {i + 1}"]), model.read[:, sample, i].T, rtol=1e-4, atol=1e-6)
        for kind, weights in (("write", model.write_map), ("read", model.read_map)):
            ax = drawn[f"{kind} head {i + 1}\nslot"]
            last, first = (int(edge + 0.5) for edge in ax.get_ylim())
            np.testing.assert_allclose(shown(ax), weights[:, sample, i, first:last].T, rtol=1e-4, atol=1e-6)
            assert ax.images[0].get_clim() == pytest.approx(
                (0, max(model.write_map[:, 1].max(), model.read_map[:, 1].max()))
            )
    assert all(ax.get_xlim() == (-0.5, 6.5) for ax in drawn.values())


def test_slots_that_nobody_looks_at_are_left_out():
    axes = panels(plot_memory(focused(), X, figure=Figure()))
    assert axes["write head\nslot"].get_ylim() == axes["read head\nslot"].get_ylim() == (6.5, 3.5)
    assert (shown(axes["write head\nslot"])[1] > 0.99).all()


def focused():
    """Its heads stay at slot 5: the gate is shut, the shift is 0, and all start there."""
    model = machine(1)
    model.weights.data[...] = 20 * np.eye(9)[5]
    model.heads.weight.data[...] = 0
    sizes = model.parameters_of_heads.sizes
    start = np.cumsum([0, *sizes])
    model.heads.bias.data[start[3] : start[4]] = -30  # gates
    model.heads.bias.data[start[6] :] = np.tile([-30.0, 30, -30], 2)  # shifts
    return model


def test_without_what_was_wanted_the_whole_answer_is_shown():
    model = machine()
    drawn = panels(plot_memory(model, X, figure=Figure()))
    assert "wanted" not in drawn
    np.testing.assert_allclose(shown(drawn["said"]), sigmoid(model.eval()(X))[:, 0].T, rtol=1e-5)


def test_a_model_without_a_memory():
    model = Sequential(LSTM(4, 5, rng=0), Linear(5, 2, rng=0))
    drawn = panels(plot_answer(model, X, Y, sample=2, figure=Figure()))
    assert list(drawn) == ["given", "wanted", "said"]
    np.testing.assert_allclose(shown(drawn["said"])[:, 4:], sigmoid(model.eval()(X))[4:, 2].T, rtol=1e-5)


def test_the_model_stays_as_it_was():
    model = machine()
    model.backward(np.ones_like(model(X[:5])))  # there are gradients, and maps of another sequence
    model(X[:5])  # and something is on the stacks
    before, seen, modes = snapshot(model), model.write_map, [(m.training, m.caching) for m in model.modules()]
    x, y = X.copy(), Y.copy()
    plot_memory(model, x, y, figure=Figure())
    assert_unchanged(model, before)
    assert modes == [(m.training, m.caching) for m in model.modules()]
    np.testing.assert_array_equal(model.write_map, seen)
    assert (x == X).all() and (y == Y).all()


def test_without_a_figure_there_is_one_new_one():
    figures = plt.get_fignums()
    axes = plot_memory(machine(1), X)
    assert axes.shape == (6,) and [axes[0].figure.number] == sorted(set(plt.get_fignums()) - set(figures))


def test_weights_that_are_nan_are_drawn_too():
    model = machine(1)
    model.heads.bias.data[...] = np.nan
    with np.errstate(all="ignore"):
        axes = plot_memory(model, X, figure=Figure())
    assert len(axes) == 6
    axes[0].figure.savefig(io.BytesIO())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Linear(4, 2), X), {}, TypeError, "expected model to be an NTM, got Linear; plot_answer draws"),
        ((NTM, X), {}, TypeError, "expected model to be an NTM, got type"),
        ((machine(), X[0]), {}, ValueError, r"expected x of shape \(T, B, C\), got \(3, 4\)"),
        ((machine(), X[..., :2]), {}, ValueError, r"expected x of shape \(T, B, 4\)"),
        ((machine(), X, Y[..., :1]), {}, ValueError, r"expected y of shape \(up to 7, 3, 2\), got \(3, 3, 1\)"),
        ((machine(), X, Y[0]), {}, ValueError, r"got \(3, 2\)"),
        ((machine(), X), {"sample": 3}, ValueError, "one of the 3 in the batch, got 3"),
    ],
)
def test_wrong_arguments_are_refused_before_a_figure_exists(arguments, options, error, message):
    figures = plt.get_fignums()
    with pytest.raises(error, match=message):
        plot_memory(*arguments, **options)
    assert plt.get_fignums() == figures


def test_models_that_give_something_else():
    with pytest.raises(ValueError, match=r"gives \(T, B, O\), got \(4, 1, 2\)"):
        plot_answer(Sequential(Shorter(), Linear(4, 2, rng=0)), X)
    with pytest.raises(TypeError, match="plot_answer: expected model to be a Layer, got str"):
        plot_answer("ntm", X)


class Shorter(Linear):
    """The first four steps."""

    def __init__(self):
        super().__init__(1, 1, rng=0)

    def forward(self, x):
        return x[:4]
