"""CTC against the sum over all paths, written out; hand-worked numbers, and lengths and targets that are wrong."""

import itertools
import math

import numpy as np
import pytest

from backhand.inspection import check_gradients, check_layer
from backhand.layers import LayerError
from backhand.losses import CTCLoss
from tests.cases.losses_ctc import OfScores, logp


def collapsed(path, blank):
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def by_all_paths(x, target, blank):
    """-log of the summed probability of every path that spells the target."""
    steps, classes = x.shape
    total = sum(
        math.exp(sum(x[t, c] for t, c in enumerate(path)))
        for path in itertools.product(range(classes), repeat=steps)
        if collapsed(path, blank) == tuple(target)
    )
    return -math.log(total) if total else math.inf


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("steps", [1, 2, 4, 5])
def test_the_sum_over_all_paths(steps, blank):
    x = logp(steps, 3, seed=steps)
    one, other = {0: (1, 2), 2: (0, 1)}[blank]
    for target in [[], [one], [one, one], [one, other], [other, one, other], [one, one, one]]:
        loss = CTCLoss(blank)
        value = loss(x, np.array(target, int), [steps], [len(target)])
        wanted = by_all_paths(x, target, blank) / max(len(target), 1)
        assert value == pytest.approx(wanted, rel=1e-12)


def test_the_gradient_is_what_is_missing_from_the_shares_of_the_paths():
    x = logp(4, 3)
    loss = CTCLoss(reduction="sum")
    total = loss(x, [1, 2], [4], [2])
    dx = loss.backward()
    for t, c in np.ndindex(4, 3):
        share = sum(
            math.exp(sum(x[i, s] for i, s in enumerate(path)))
            for path in itertools.product(range(3), repeat=4)
            if collapsed(path, 0) == (1, 2) and path[t] == c
        ) / math.exp(-total)
        assert dx[t, c] == pytest.approx(math.exp(x[t, c]) - share, abs=1e-12)
    np.testing.assert_allclose(dx.sum(1), 0, atol=1e-12)


def test_a_gradient_check_needs_the_log_softmax():
    arguments = (logp(4, 2, 3), np.array([[1, 2], [2, 2]]), np.array([4, 4]), np.array([2, 2]))
    assert check_layer(OfScores(), *arguments)
    assert not check_gradients(CTCLoss(), *arguments)


def test_one_way_only():
    x = logp(2, 3)  # two steps for two labels: no room for a blank
    assert CTCLoss(reduction="sum")(x, [1, 2], [2], [2]) == pytest.approx(-x[0, 1] - x[1, 2])
    assert CTCLoss(reduction="sum")(x, [1, 1], [2], [2]) == math.inf


def test_no_path():
    x, targets = logp(3, 2, 3), np.array([[1, 1, 1], [1, 2, 1]])
    for zero in (False, True):
        loss = CTCLoss(reduction="none", zero_infinity=zero)
        losses = loss(x, targets, [3, 3], [3, 3])
        assert losses[0] == (0 if zero else math.inf)
        dx = loss.backward(np.ones(2))
        assert (dx[:, 0] == 0).all() if zero else np.isnan(dx[:, 0]).all()
        assert np.isfinite(dx[:, 1]).all()


def test_the_mean_is_per_label_and_then_per_sample():
    x, targets, lengths = logp(6, 3, 4), np.array([[1, 2, 3], [2, 0, 0], [3, 3, 3]]), np.array([3, 1, 0])
    losses = CTCLoss(reduction="none")(x, targets, [6, 5, 4], lengths)
    assert CTCLoss()(x, targets, [6, 5, 4], lengths) == pytest.approx((losses / [3, 1, 1]).mean())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_and_sharp_stays_finite(dtype):
    rng = np.random.default_rng(0)
    x = logp(400, 2, 20, scale=1e4).astype(dtype)
    loss = CTCLoss(reduction="none")
    losses = loss(x, rng.integers(1, 20, (2, 50)), [400, 300], [50, 40])
    assert losses.dtype == dtype
    assert np.isfinite(losses).all()
    dx = loss.backward(np.ones(2))
    assert dx.dtype == dtype
    assert np.isfinite(dx).all()
    assert not dx[300:, 1].any()


def test_an_impossible_symbol_leaves_the_others_their_gradient():
    x = np.log(
        np.array([[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]]), where=[[1, 1, 0], [1, 1, 1]], out=np.full((2, 3), -np.inf)
    )
    loss = CTCLoss(reduction="sum")
    assert loss(x, [1], [2], [1]) == pytest.approx(-math.log(0.5 * 0.5 + 0.5 * 0.25 + 0.5 * 0.5))
    np.testing.assert_allclose(loss.backward(), [[0.5 - 0.4, 0.5 - 0.6, 0], [0.25 - 0.2, 0.5 - 0.8, 0.25]])


GOOD = {"x": logp(4, 2, 3), "targets": [[1, 2], [1, 1]], "input_lengths": [4, 4], "target_lengths": [2, 1]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"x": np.zeros(3)}, r"x of shape \(T, N, C\)"),
        ({"x": np.zeros((4, 0, 3))}, "at least one sample"),
        ({"targets": [[1, 3], [1, 1]]}, "targets from 0 to 2, got 1 to 3"),
        ({"targets": [[1, -1], [1, 1]]}, "targets from 0 to 2, got -1 to 1"),
        ({"targets": [[1.5, 1], [1, 1]]}, "integer targets"),
        ({"targets": [[1, 0], [1, 1]]}, "other than the blank, 0, got 0"),
        ({"targets": [[1], [1]]}, r"targets of shape \(2, 2\) or longer"),
        ({"targets": [[1, 2]]}, r"targets of shape \(2, 2\)"),
        ({"targets": [1, 2, 1, 1]}, "3 targets in one row"),
        ({"targets": [[1], [1, 2]]}, "rows of different lengths"),
        ({"targets": [["a", "b"]] * 2}, "targets of integers"),
        ({"input_lengths": [4, 5]}, "input_lengths of 0 to 4, got 4 to 5"),
        ({"input_lengths": [4, -1]}, "input_lengths of 0 to 4"),
        ({"input_lengths": [4]}, "input_lengths as 2 integers"),
        ({"input_lengths": 4}, "input_lengths as 2 integers"),
        ({"input_lengths": [4.0, 4.0]}, "input_lengths as 2 integers, got float64"),
        ({"target_lengths": [2, -1]}, "target_lengths of 0 or more"),
        ({"target_lengths": [3, 1]}, r"targets of shape \(2, 3\) or longer"),
    ],
    ids=str,
)
def test_refused_before_anything_is_saved(change, problem):
    loss = CTCLoss()
    with pytest.raises(LayerError, match=problem):
        loss.forward(**{**GOOD, **change})
    assert "_stack" not in vars(loss)
    loss.forward(**GOOD)


def test_the_blank_is_a_class():
    with pytest.raises(ValueError, match="blank"):
        CTCLoss(-1)
    with pytest.raises(LayerError, match="class 3, the blank"):
        CTCLoss(3)(*GOOD.values())
    assert repr(CTCLoss(2, "sum", True)) == "CTCLoss(blank=2, reduction='sum', zero_infinity=True)"
