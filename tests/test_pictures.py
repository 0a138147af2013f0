"""The pictures of arrays and classifiers, by what is drawn on them; no image is compared."""

import copy
import sys
from types import ModuleType, SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from backhand.inspection import (
    LivePlot,
    confusion_matrix,
    image_grid,
    plot_attention,
    plot_confusion_matrix,
    plot_decision_boundary,
    plot_distributions,
    plot_image_grid,
    plot_jacobian,
    plot_matrix,
    plot_saliency,
    plot_update_ratio,
    saliency,
)
from backhand.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU
from backhand.models import Sequential
from tests.states import assert_unchanged, snapshot

pytestmark = pytest.mark.usefixtures("figures_leave_nothing")
rng = np.random.default_rng(0)


# ---------------------------------------------------------------------- grids


def test_image_grid():
    images = np.zeros((3, 1, 2, 2))
    images[1] = 1
    grid = image_grid(images, columns=2, pad=1, normalize=None, fill=0.5)
    assert grid.shape == (5, 5)
    assert (
        (grid[:2, :2] == 0).all()
        and (grid[:2, 3:] == 1).all()
        and (grid[2] == 0.5).all()
        and (grid[3:, 3:] == 0.5).all()
    )


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (4, 3, 5, 6)), ("NHWC", (4, 5, 6, 3)), ("NHW", (4, 5, 6))])
def test_layouts(layout, shape):
    images = rng.standard_normal(shape)
    before = images.copy()
    grid = image_grid(images, layout=layout)
    assert grid.shape == ((11, 13, 3) if layout != "NHW" else (11, 13))
    np.testing.assert_array_equal(images, before)
    assert grid.min() >= 0 and grid.max() <= 1


def test_stretching():
    images = np.stack([np.full((2, 2), 7.0), [[0.0, 1], [2, 4]], [[np.nan, 0], [0, 8]]])
    each = image_grid(images, layout="NHW", columns=3, pad=0, normalize="each")
    assert (each[:, :2] == 0.5).all() and each[1, 3] == 1 and each[0, 4] == 0.5 and each[1, 5] == 1
    together = image_grid(images, layout="NHW", columns=3, pad=0)
    assert together[0, 0] == 7 / 8 and together[1, 3] == 0.5


def test_grids_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(3, 4\)"):
        image_grid(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"1 or 3 channels, got 8 .*layout='NHW'"):
        image_grid(np.ones((2, 8, 4, 4)))
    with pytest.raises(ValueError, match="layout"):
        image_grid(np.ones((2, 1, 4, 4)), layout="CHWN")


def test_plot_image_grid(ax):
    assert plot_image_grid(rng.standard_normal((4, 1, 3, 3)), title="filters", ax=ax) is ax
    assert ax.images[0].get_array().shape == (7, 7) and ax.get_title() == "filters"


# ---------------------------------------------------------------------- saliency


def test_saliency_is_the_gradient_of_the_score():
    model = Sequential(
        Conv2d(1, 2, 3, rng=0), BatchNorm2d(2), ReLU(), Flatten(), Dropout(0.5, rng=0), Linear(8, 3, rng=0)
    )
    x = rng.standard_normal((1, 4, 4)).astype(np.float32)
    model(rng.standard_normal((5, 1, 4, 4)))  # something is on the stacks already
    before, modes = snapshot(model), [each.training for each in model.modules()]
    found = saliency(model, x, 2)
    assert_unchanged(model, before)
    assert modes == [each.training for each in model.modules()]
    exact = copy.deepcopy(model).eval().astype(np.float64)
    step = np.zeros((1, 1, 4, 4))
    step[0, 0, 1, 2] = 1e-6
    numeric = (exact(x[None] + step)[0, 2] - exact(x[None] - step)[0, 2]) / 2e-6
    assert found.gradient[0, 1, 2] == pytest.approx(numeric, rel=1e-3, abs=1e-6)
    np.testing.assert_array_equal(found.map, np.abs(found.gradient).max(axis=0))
    assert saliency(model, x).y == int(exact(x[None].astype(np.float64)).argmax())
    axes = Figure().subplots(1, 3)
    assert [len(each.images) for each in plot_saliency(found, axes=axes)] == [1, 1, 2]
    with pytest.raises(ValueError, match="a class from 0 to 2, got 3"):
        saliency(model, x, 3)
    with pytest.raises(ValueError, match=r"one image \(C, H, W\), got shape \(2, 1, 4, 4\)"):
        saliency(model, np.ones((2, 1, 4, 4)))


# ---------------------------------------------------------------------- matrices


def test_plot_matrix(ax):
    plot_matrix([[1, -2], [0, 0.5]], rows="ab", ax=ax)
    assert [text.get_text() for text in ax.texts] == ["1", "-2", "0", "0.50"]
    assert ax.images[0].get_clim() == (-2, 2)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="3 labels for the columns, got 2"):
        plot_matrix(np.ones((2, 3)), columns="ab")
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        plot_matrix([1, 2, 3])


def test_numbers_can_be_read_on_their_cells(ax):
    plot_matrix([[0.0, 1.0]], ax=ax)  # from the darkest to the lightest colour of viridis
    assert [text.get_color() for text in ax.texts] == ["white", "black"]


def test_plot_jacobian_of_the_relu(ax):
    plot_jacobian(np.diag([1.0, 0, 1, 0]), ax=ax)
    np.testing.assert_array_equal(ax.images[0].get_array(), np.diag([1, 0, 1, 0]))
    assert ax.get_title() == "Jacobian 4 x 4, 88% zeros" and ax.get_ylabel() == "output"


def test_plot_attention():
    axes = Figure().subplots(1, 2)
    panels = plot_attention(np.full((2, 3, 4), 0.25), queries="abc", keys="wxyz", axes=axes)
    assert [each.get_title() for each in panels] == ["head 0", "head 1"]
    assert panels[0].images[0].get_clim() == (0, 1)
    with pytest.raises(ValueError, match="take one sample"):
        plot_attention(np.ones((2, 2, 3, 4)))


def test_confusion_matrix(ax):
    counts = confusion_matrix([0, 0, 1, 2], [0, 1, 1, 1], classes=3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(
        confusion_matrix([0, 1], [[0.9, 0.1, 0], [0, 0.2, 0.8]]), [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    )
    plot_confusion_matrix(counts, names=["cat", "dog", "cow"], ax=ax)
    assert ax.get_title() == "50.0% of 4 right"
    assert [text.get_text() for text in ax.texts] == ["1", "1", "1", "1"]
    np.testing.assert_array_equal(ax.images[0].get_array()[0], [0.5, 0.5, 0])
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        confusion_matrix([0, 2], [0, 1], classes=2)
    with pytest.raises(ValueError, match="integer labels of one shape"):
        confusion_matrix([0, 2], [0, 1, 1])


# ---------------------------------------------------------------------- classifiers, distributions, live


def test_decision_boundary(ax):
    points = np.array([[0.0, 0], [1, 0], [2, 2]])
    plot_decision_boundary(lambda x: x[:, :1] - 1, points, [0, 0, 1], grid=20, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 0", "class 1"]
    low, high = ax.get_xlim()
    assert low == -0.5 and high == 2.5
    with pytest.raises(ValueError, match=r"\(N, 2\), got \(3, 3\)"):
        plot_decision_boundary(lambda x: x, np.ones((3, 3)))
    with pytest.raises(ValueError, match="3 integer labels"):
        plot_decision_boundary(lambda x: x, points, [0.5, 1, 2])


def test_distributions():
    axes = Figure().subplots(1, 2)
    arrays = {"fc1": np.array([-1.0, 0, 0, 1]), "fc2": np.array([np.nan, 3.0, 1])}
    panels = plot_distributions(arrays, axes=axes)
    assert panels[0].get_title() == "fc1\nmean 0, std 0.71, 50% zero, 50% at +-1"
    assert panels[1].get_title().endswith("1 not finite")
    assert panels[0].patches[0].get_x() == panels[1].patches[0].get_x() == -1  # one axis for all
    plot_distributions({"constant": np.zeros(3)}, axes=Figure().subplots())
    with pytest.raises(ValueError, match="at least one array"):
        plot_distributions({})


def test_update_ratio(ax):
    plot_update_ratio({"weight": [1e-3, 0, 1e-2]}, ax=ax)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [-3, np.nan, -2])
    assert ax.get_lines()[1].get_ydata()[0] == -3
    with pytest.raises(ValueError, match="3 steps"):
        plot_update_ratio({"weight": [1, 2, 3]}, steps=[1])


def test_live_plot_prints_where_there_is_no_notebook(capsys):
    live = LivePlot(["loss", "accuracy"])
    live({"epoch": 1.0, "loss": 0.5, "val_loss": 0.6, "accuracy": 0.9, "lr": 1})
    live({"epoch": 2.0, "loss": 0.25, "val_loss": 0.5, "accuracy": 0.95, "lr": 1})
    assert capsys.readouterr().out.splitlines()[1] == "epoch 2  loss 0.25  val_loss 0.5  accuracy 0.95"
    live.draw()
    assert [len(each.get_lines()) > 0 for each in live.axes] == [True, True]
    assert not plt.get_fignums()


def test_live_plot_updates_one_picture(monkeypatch):
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(("update", picture))

    def display(picture, display_id):
        shown.append(("display", picture))
        return Handle()

    fake = ModuleType("IPython")
    fake.get_ipython = lambda: SimpleNamespace(config={"IPKernelApp": {}})
    fake.display = SimpleNamespace(display=display, Image=bytes)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    live = LivePlot(every=0)
    for epoch in (1, 2, 3):
        live({"epoch": epoch, "loss": 1 / epoch})
    assert [kind for kind, _ in shown] == ["display", "update", "update"]
    assert all(picture.startswith(b"\x89PNG") for _, picture in shown) and shown[0] != shown[2]
    live.every = 1e9
    live({"epoch": 4, "loss": 0.1})
    assert len(shown) == 3
