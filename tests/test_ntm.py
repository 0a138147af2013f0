"""The Neural Turing Machine: counts, how the focus moves, what is finite, and what symmetry does."""

import pickle

import numpy as np
import pytest

from backhand.inspection import check_gradients, summary
from backhand.layers import Addressing, InverseNorms, LayerError, MemoryWrite, Sharpening, UnitVectors
from backhand.losses import BCEWithLogitsLoss, SequenceBCELoss
from backhand.models import NTM

rng = np.random.default_rng(0)


def count(model):
    return sum(p.size for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "options", "wanted"),
    [
        ((9, 8), {}, 16_096),
        ((9, 8), {"controller": "lstm"}, 65_696),
        ((10, 9), {}, 16_317),
        ((10, 9), {"controller": "lstm"}, 66_217),
        ((8, 6), {"controller": "lstm"}, 65_054),
        ((8, 6, 256), {"read_heads": 4, "write_heads": 4}, 123_046),
    ],
)
def test_the_counts_follow_from_the_equations(arguments, options, wanted):
    assert count(NTM(*arguments, **options)) == wanted


@pytest.mark.parametrize("controller", ["feedforward", "lstm"])
def test_the_whole_machine_over_five_steps(controller):
    model = NTM(4, 3, 5, controller, (6, 3), 2, 2, rng=0, dtype=np.float64)
    for p in model.parameters():
        p.data += 0.3 * rng.standard_normal(p.shape)
    report = check_gradients(model, rng.standard_normal((5, 2, 4)))
    assert report and max(row.error for row in report.rows) < 1e-6


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_the_focus_moves_by_the_offset(offset):
    w, shift = np.zeros((1, 1, 6)), np.zeros((1, 1, 3))
    w[0, 0, 5] = shift[0, 0, 1 + offset] = 1
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    moved = Addressing().forward(np.ones((1, 1, 2)), one, zero, shift, one, w, np.ones((1, 6, 2)), np.ones((1, 6)))
    np.testing.assert_allclose(moved[0, 0], np.roll(w[0, 0], offset), atol=1e-10)


def test_equal_slots_get_equal_gradients_and_never_differ():
    model = NTM(3, 2, 4, memory_size=(6, 3), rng=0, dtype=np.float64)
    model.memory.data[...] = model.memory.data[0]
    model.weights.data[...] = 0
    x = rng.standard_normal((5, 2, 3))
    model.backward(rng.standard_normal(model(x).shape))
    size = np.abs(model.memory.grad).max()
    assert np.ptp(model.memory.grad, axis=0).max() < 1e-14 * size
    assert np.abs(model.weights.grad).max() < 1e-17
    broken = NTM(3, 2, 4, memory_size=(6, 3), rng=0, dtype=np.float64)
    broken.backward(rng.standard_normal(broken(x).shape))
    assert np.ptp(broken.memory.grad, axis=0).max() > 0


def test_nothing_is_infinite_at_the_ends():
    key, memory = np.zeros((1, 1, 3)), np.zeros((1, 4, 3))
    unit, norms = UnitVectors(), InverseNorms()
    assert not unit(key).any() and np.isfinite(unit.backward(np.ones((1, 1, 3)))).all()
    q = norms(memory)
    assert np.isfinite(q).all() and np.isfinite(norms.backward(np.ones((1, 4)))).all()
    layer = Addressing()
    one_hot = np.eye(4)[None, :1]
    ones = np.ones((1, 1, 1))
    w = layer.forward(key, 50 * ones, 0 * ones, np.eye(3)[None, 1:2], 50 * ones, one_hot, memory, q)
    np.testing.assert_allclose(w, one_hot, atol=1e-12)
    assert all(np.isfinite(d).all() for d in layer.backward(np.ones_like(w)))


def test_a_memory_that_is_wholly_erased():
    # w e = 1: dividing the product of several heads by one of its factors would be 0 / 0
    layer = MemoryWrite()
    memory, w = rng.standard_normal((1, 2, 3)), np.ones((1, 2, 2))
    erase, add = np.ones((1, 2, 3)), rng.standard_normal((1, 2, 3))
    np.testing.assert_allclose(layer.forward(memory, w, erase, add)[0, 0], add[0].sum(axis=0))
    assert all(np.isfinite(d).all() for d in layer.backward(np.ones((1, 2, 3))))


def test_what_there_is_to_draw():
    model = NTM(3, 2, 4, memory_size=(6, 3), read_heads=2, rng=0)
    model.eval()(np.zeros((5, 4, 3)))
    assert model.write_map.shape == (5, 4, 1, 6) and model.read_map.shape == (5, 4, 2, 6)
    assert model.added.shape == (5, 4, 1, 3) and model.read.shape == (5, 4, 2, 3)
    np.testing.assert_allclose(model.read_map.sum(axis=-1), 1, rtol=1e-5)
    assert all(not vars(each).get("_stack") for each in model.modules())


def test_what_there_is_to_draw_is_no_way_to_spoil_a_backward():
    model = NTM(3, 2, 4, memory_size=(6, 3), rng=0)
    with pytest.raises(RuntimeError, match="no forward yet"):
        model.read_map  # noqa: B018
    model(np.zeros((5, 2, 3)))
    for each in (model.write_map, model.read_map, model.added, model.read):
        with pytest.raises(ValueError, match="read-only"):
            each += 1
    size = len(pickle.dumps(NTM(3, 2, 4, memory_size=(6, 3), rng=0)))
    assert len(pickle.dumps(model)) < 1.1 * size


@pytest.mark.parametrize(
    ("controller", "numbers"), [("feedforward", 10 * 6), ("lstm", 10 * 3 + 12 * 7 + 12 * 4 + 10 * 16)]
)
def test_what_the_controller_keeps_is_counted(controller, numbers):
    # (5, 2) rows of [x, r]; or x, of 6 steps [r, h] and c, and the gates. Beside them the first weighting of 2 heads,
    # (2, 6), and the (5, 2) rows of [h, r] that the output keeps as well
    rows = summary(NTM(3, 2, 4, controller, memory_size=(6, 3), rng=0), (5, 2, 3)).rows
    kept = {row.name: row.cached for row in rows}
    assert kept[""] + kept["output"] == 4 * (numbers + 12 + 10 * 7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_constants_are_above_0_in_every_dtype(dtype):
    unit, norms, sharpen = UnitVectors(), InverseNorms(), Sharpening()
    zero = np.zeros((1, 1, 3), dtype)
    assert not unit(zero).any() and np.isfinite(norms(zero)).all()
    sharpen(np.array([[[1, 0, 0]]], dtype), np.ones((1, 1, 1), dtype))
    assert all(np.isfinite(d).all() for d in sharpen.backward(np.ones((1, 1, 3), dtype)))


def test_a_batch_is_its_sequences_side_by_side():
    model = NTM(3, 2, 4, memory_size=(6, 3), rng=0, dtype=np.float64)
    x = rng.standard_normal((5, 3, 3))
    y = model.eval()(x)
    for b in range(3):
        np.testing.assert_allclose(model(x[:, b : b + 1])[:, 0], y[:, b], rtol=1e-12)


def test_wrong_inputs():
    with pytest.raises(LayerError, match=r"expected x of shape \(T, B, 3\), got \(5, 3\)"):
        NTM(3, 2, 4, memory_size=(6, 3))(np.ones((5, 3)))
    with pytest.raises(ValueError, match="shifts to be odd and at most 6, got 4"):
        NTM(3, 2, 4, memory_size=(6, 3), shifts=4)
    with pytest.raises(ValueError, match="controller"):
        NTM(3, 2, controller="gru")
    assert repr(NTM(3, 2, controller="lstm")) == "NTM(3, 2, controller='lstm')"


def test_the_loss_is_the_sum_over_a_sequence():
    x, target = rng.standard_normal((5, 3, 2)), (rng.random((4, 3, 2)) > 0.5).astype(float)
    loss, plain = SequenceBCELoss(), BCEWithLogitsLoss(reduction="sum")
    assert loss(x, target) == pytest.approx(plain(x[1:], target) / 3)
    dx = loss.backward()
    assert not dx[0].any()
    np.testing.assert_allclose(dx[1:], plain.backward() / 3)
    with pytest.raises(LayerError, match=r"\(5, 3, 2\) and \(6, 3, 2\)"):
        loss(x, np.ones((6, 3, 2)))
