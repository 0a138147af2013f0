"""Figures, by what is drawn on them; no image is compared."""

import copy
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from backhand.inspection import plot_history, plot_loss_and_accuracy, save_loss_curve
from backhand.inspection.history_plot import smoothed

pytestmark = pytest.mark.usefixtures("figures_leave_nothing")
NAN = float("nan")


def records(epochs=4, per_epoch=5, nan_from=None, accuracy=True):
    rows, step = [], 0
    for epoch in range(1, epochs + 1):
        for _ in range(per_epoch):
            step += 1
            loss = NAN if nan_from and step >= nan_from else 2.3 / step
            rows.append({"step": step, "epoch": step / per_epoch, "batch_loss": loss, "lr": 0.1})
        row = {"step": step, "epoch": float(epoch), "loss": 2.0 / epoch, "val_loss": 1.0 + (epoch - 3) ** 2}
        if accuracy:
            row |= {"accuracy": 1 - 0.5 / epoch, "val_accuracy": 0.9 - 0.5 / epoch}
        rows.append(row)
    return SimpleNamespace(records=rows)


def line(ax, label):
    (found,) = [each for each in ax.get_lines() if each.get_label() == label]
    return found


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_one_run(ax):
    history = records()
    before = copy.deepcopy(history.records)
    assert plot_history(history, chance=np.log(10), ax=ax) is ax
    assert history.records == before
    train, validation, steps = line(ax, "train"), line(ax, "validation"), line(ax, "single batches")
    np.testing.assert_array_equal(train.get_xydata(), [[1, 2], [2, 1], [3, 2 / 3], [4, 0.5]])
    np.testing.assert_array_equal(validation.get_xydata(), [[1, 5], [2, 2], [3, 1], [4, 2]])
    np.testing.assert_allclose(steps.get_xydata()[:2], [[0.2, 2.3], [0.4, 1.15]])
    assert (train.get_color(), train.get_linestyle(), train.get_marker()) == ("#0072B2", "-", "")
    assert (validation.get_color(), validation.get_linestyle(), validation.get_marker()) == ("#E69F00", "--", "o")
    assert steps.get_linewidth() < 1 < train.get_linewidth() and steps.get_alpha() < 0.5
    np.testing.assert_array_equal(line(ax, "best epoch 3: 1").get_xydata(), [[3, 1]])
    assert line(ax, "chance 2.303").get_ydata()[0] == np.log(10)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "loss", "linear")


def test_labels_of_the_caller_stay(ax):
    ax.set(xlabel="t", ylabel="L", title="mine")
    plot_history({"loss": [1, 2]}, ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("t", "L", "mine")


def test_lists_stand_at_epochs_and_steps_spread_within_them(ax):
    plot_history({"loss": [2.0, 1.0], "val_loss": [3.0, 2.0], "batch_loss": [4.0, 3.0, 2.0, 1.0]}, ax=ax)
    np.testing.assert_array_equal(line(ax, "single batches").get_xdata(), [0.5, 1, 1.5, 2])
    np.testing.assert_array_equal(line(ax, "validation").get_xdata(), [1, 2])


def test_lists_with_their_own_epochs_and_steps_only(ax):
    plot_history({"epoch": [2, 4], "loss": np.array([2.0, 1.0])}, ax=ax)
    np.testing.assert_array_equal(line(ax, "train").get_xdata(), [2, 4])
    other = plot_history({"batch_loss": [3.0, 2.0]}, ax=Figure().subplots())
    assert other.get_xlabel() == "step"


def test_smoothing_has_no_bias_and_keeps_gaps(ax):
    np.testing.assert_allclose(smoothed(np.full(5, 3.0), 0.9), 3)
    y = np.array([1.0, NAN, 3.0])
    np.testing.assert_allclose(smoothed(y, 0.5), [1, NAN, (0.25 * 1 + 0.5 * 3) / 0.75])
    plot_history(records(), smooth=0.5, best=None, ax=ax)
    raw, steps, validation = ax.get_lines()
    np.testing.assert_allclose(steps.get_ydata(), smoothed(raw.get_ydata(), 0.5))
    assert raw.get_linewidth() < 1 < steps.get_linewidth()
    assert validation.get_ydata()[0] == 5  # measured once an epoch: not smoothed


def test_skip_leaves_out_the_first_epochs(ax):
    plot_history(records(), skip=2, ax=ax)
    np.testing.assert_array_equal(line(ax, "train").get_xdata(), [3, 4])
    assert line(ax, "single batches").get_xdata().min() > 2


def test_accuracy_is_marked_where_the_loss_was_best(ax):
    plot_history(records(), metrics="accuracy", ax=ax)
    mark = line(ax, f"at best val_loss: {0.9 - 0.5 / 3:.4g}")
    np.testing.assert_allclose(mark.get_xydata(), [[3, 0.9 - 0.5 / 3]])
    other = plot_history(records(), metrics="accuracy", best="val_accuracy", ax=Figure().subplots())
    assert line(other, "best epoch 4: 0.775").get_xdata() == [4]


def test_what_is_not_finite_is_a_gap_with_a_name(ax):
    plot_history(records(nan_from=7), ax=ax)
    assert line(ax, "batch_loss not finite at step 7").get_xdata()[0] == pytest.approx(7 / 5)
    assert np.isnan(line(ax, "single batches").get_ydata()[6:]).all()
    other = plot_history({"loss": [1.0, float("inf"), None, 2.0]}, ax=Figure().subplots())
    assert "loss not finite at epoch 2" in texts(other)
    np.testing.assert_array_equal(line(other, "train").get_ydata(), [1, NAN, NAN, 2])
    assert line(other, "train").get_markevery() == [0, 3]  # between gaps only a marker can be seen
    other = plot_history({"loss": [1.0, None, 2.0, 1.0]}, ax=Figure().subplots())  # None: not measured
    assert texts(other) == ["train"]


def test_a_run_that_was_read_back_from_json(ax):
    history = records(1)
    history.records += [
        {"step": 6, "epoch": 1.2, "batch_loss": None, "lr": 0.1},
        {"step": 6, "epoch": 1.2, "error": "the loss is nan"},
    ]
    plot_history(history, ax=ax)
    assert "batch_loss not finite at step 6" in texts(ax)


@pytest.mark.parametrize(
    "history",
    [{}, {"loss": []}, SimpleNamespace(records=[]), [], {"loss": [NAN, NAN]}, {"loss": [1.0]}, {"val_loss": [None]}],
    ids=str,
)
def test_empty_and_tiny_histories_draw(history, tmp_path):
    save_loss_curve(history, tmp_path / "a.png", classes=10)
    ax = plot_history(history, ax=Figure().subplots())
    empty = "nothing recorded yet" in [text.get_text() for text in ax.texts]
    assert empty == (history in ({}, {"loss": []}, []) or getattr(history, "records", None) == [])


def test_a_logarithmic_axis_needs_positive_values(ax):
    plot_history(records(), log=True, ax=ax)
    assert ax.get_yscale() == "log"
    figures = plt.get_fignums()
    with pytest.raises(ValueError, match="positive values, val_loss is 0 at epoch 2"):
        plot_history({"loss": [1.0, 0.5], "val_loss": [1.0, 0.0]}, log=True)
    assert plt.get_fignums() == figures
    plot_history({"loss": [0.0, 0.5]}, log=True, skip=1, ax=Figure().subplots())


def test_several_runs_share_a_panel(ax):
    plot_history([records(), records(3)], labels=["slow", "fast"], ax=ax)
    named = [each for each in ax.get_lines() if len(each.get_xdata()) in (3, 4) and each.get_linewidth() == 2]
    assert [(each.get_color(), each.get_marker(), each.get_linestyle()) for each in named] == [
        ("#0072B2", "o", "-"),
        ("#0072B2", "o", "--"),
        ("#D55E00", "s", "-"),
        ("#D55E00", "s", "--"),
    ]
    assert texts(ax) == ["slow, best epoch 3: 1", "fast, best epoch 3: 1", "train", "validation"]


def test_a_panel_of_two_metrics(ax):
    plot_history({"loss": [1.0], "accuracy": [0.5]}, metrics=["loss", "accuracy"], ax=ax)
    assert texts(ax) == ["loss", "accuracy"]  # no other kind of line to tell these from
    assert ax.get_ylabel() == "loss, accuracy"
    ax.clear()
    plot_history({"loss": [1.0], "val_loss": [1.5], "accuracy": [0.5]}, metrics=["loss", "accuracy"], best=None, ax=ax)
    assert texts(ax) == ["loss", "accuracy", "train", "validation"]


def test_wrong_arguments_are_refused_before_a_figure_exists():
    figures = plt.get_fignums()
    for history, wrong, message in [
        ({"loss": [1]}, {"smooth": 1.0}, r"smooth in \[0, 1\)"),
        ([{"loss": [1]}], {"labels": ["a", "b"]}, "expected 1 labels"),
        (3, {}, "dict of lists"),
        ([1.0, 2.0], {}, "got a float"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            plot_history(history, **wrong)
    assert plt.get_fignums() == figures


def test_without_axes_there_is_one_new_figure():
    figures = plt.get_fignums()
    ax = plot_history({"loss": [2.0, 1.0]})
    assert [ax.figure.number] == sorted(set(plt.get_fignums()) - set(figures))


def test_loss_beside_accuracy():
    axes = plot_loss_and_accuracy(records(), classes=10, log=True, axes=Figure().subplots(1, 2))
    assert [(ax.get_ylabel(), ax.get_yscale()) for ax in axes] == [("loss", "log"), ("accuracy", "linear")]
    assert "chance 2.303" in texts(axes[0]) and "chance 0.1" in texts(axes[1])
    assert len(plot_loss_and_accuracy(records(accuracy=False), axes=Figure().subplots())) == 1
    with pytest.raises(ValueError, match="expected 2 axes"):
        plot_loss_and_accuracy(records(), axes=Figure().subplots())


def test_saving_leaves_no_figure_open_and_is_the_same_twice(tmp_path):
    figures = plt.get_fignums()
    for name in ("a.png", "b.png"):
        save_loss_curve([records(), records(nan_from=3)], tmp_path / name, classes=10, title="two runs", smooth=0.6)
    assert plt.get_fignums() == figures
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("package", ["layers", "losses", "models", "datasets", "inspection", "training"])
def test_importing_costs_neither_matplotlib_nor_tqdm(package):
    code = f"import sys, backhand.{package}; print([m for m in ('matplotlib', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_an_early_stop_is_marked(ax):
    history = records()
    plot_history(history, ax=ax)
    assert not any("stopped" in text for text in texts(ax))
    history.records[-1]["early_stop"] = True
    late = Figure().subplots()
    plot_history(history, ax=late)
    assert line(late, "stopped early, 4").get_xdata()[0] == 4
