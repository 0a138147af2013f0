"""The flow through a network as a picture, by what is drawn; no image is compared."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from backhand.inspection import plot_activations, plot_flow, plot_gradients, record, style
from backhand.layers import Linear, ReLU
from backhand.losses import CrossEntropyLoss
from backhand.models import Repeat, Sequential

rng = np.random.default_rng(0)


def trace():
    model = Sequential({"fc1": Linear(4, 6, rng=0), "relu": ReLU(), "fc2": Linear(6, 3, rng=1)})
    x = rng.standard_normal((5, 4)).astype(np.float32)
    return record(model, x, loss=CrossEntropyLoss(), target=rng.integers(0, 3, 5))


def drawn(ax, colour):
    return [text.get_text() for text in ax.texts if to_hex(text.get_color()).upper() == colour]


def test_flow():
    settings, figures = dict(matplotlib.rcParams), plt.get_fignums()
    ax, found = Figure().subplots(), trace()
    assert plot_flow(found, ax=ax) is ax
    green, red = drawn(ax, style.FORWARD), drawn(ax, style.GRADIENT)
    assert any(text.startswith("(5, 6)\n") for text in green) and any(text.startswith("(5, 6)\n") for text in red)
    assert "weight (6, 4)" in green and f"d {found['fc1'].parameters[0].grad_norm:.3g}" in red
    assert f"{found.loss:.3g}" in green and "1" in red
    assert not any("MISMATCH" in text for text in red)
    labels = {text.get_text() for text in ax.texts}
    assert {"Linear(4, 6)", "ReLU()", "CrossEntropyLoss()", "fc1", "relu", "fc2"} <= labels
    assert "green above" in ax.get_title()
    assert dict(matplotlib.rcParams) == settings and plt.get_fignums() == figures


def test_values_stand_above_and_gradients_below_the_arrows():
    ax = Figure().subplots()
    plot_flow(trace(), columns=9, ax=ax)
    for text in ax.texts:
        colour = to_hex(text.get_color()).upper()
        if text.get_text().startswith("(5,") and colour in (style.FORWARD, style.GRADIENT):
            assert (text.get_position()[1] > 0) == (colour == style.FORWARD)


def test_a_gradient_of_the_wrong_shape_is_named():
    found = trace()
    found["fc1"].parameters[0].grad_shape = (4, 6)
    ax = Figure().subplots()
    plot_flow(found, ax=ax)
    assert "MISMATCH (4, 6)" in drawn(ax, style.GRADIENT)


def test_many_layers_go_on_below():
    ax = Figure().subplots()
    plot_flow(record(Repeat(ReLU(), 7), np.ones((2, 3))), columns=3, ax=ax)
    assert len(ax.patches) == 7 and len({patch.get_y() for patch in ax.patches}) == 3
    with pytest.raises(TypeError, match="what record"):
        plot_flow(Repeat(ReLU(), 7))


def test_histograms_of_a_trace():
    found = trace()
    panels = plot_activations(found, axes=Figure().subplots(1, 3))
    assert [ax.get_title().splitlines()[0] for ax in panels] == ["fc1 Linear", "relu ReLU", "fc2 Linear"]
    assert to_hex(panels[0].patches[0].get_facecolor()).upper() == style.FORWARD
    assert sum(patch.get_height() for patch in panels[0].patches) == 30
    panels = plot_gradients(found, axes=Figure().subplots(1, 3))
    assert to_hex(panels[0].patches[0].get_facecolor()).upper() == style.GRADIENT
    names = [ax.get_title() for ax in plot_activations(record(Repeat(ReLU(), 2), np.ones((2, 3))))]
    assert names[0].startswith("body ReLU (1)") and names[1].startswith("body ReLU (2)")
    plt.close("all")
