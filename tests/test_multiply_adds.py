"""The multiply-adds that are counted are those of the formulas, and of what is published."""

import numpy as np
import pytest

from backhand.inspection import multiply_adds
from backhand.layers import (
    GRU,
    LSTM,
    Bilinear,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    LSTMCell,
    MultiheadAttention,
    ReLU,
    ScaledDotProductAttention,
)
from backhand.models import NTM, Repeat, Sequential, Unroll
from benchmarks.backhand_nn import Backhand
from benchmarks.workloads import MODELS


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_a_step_leaves_out_what_only_the_data_would_need():
    model = Sequential(Linear(5, 7), ReLU(), Linear(7, 2))
    assert multiply_adds(model, zeros(3, 5)) == {
        "forward": 3 * 49,
        "backward": 2 * 3 * 49,
        "step": 3 * 3 * 49 - 3 * 35,
    }


@pytest.mark.parametrize(
    "layer, shapes, wanted",
    [
        (Linear(5, 7), [(2, 3, 5)], 6 * 35),
        (Bilinear(2, 3, 4), [(5, 2), (5, 3)], 5 * 24),
        (Conv1d(2, 6, 3, padding=1, groups=2), [(4, 2, 10)], 4 * 6 * 10 * 1 * 3),
        (Conv2d(3, 8, 5, stride=2), [(2, 3, 9, 9)], 2 * 8 * 9 * 3 * 25),
        (ConvTranspose2d(3, 8, 4, stride=2), [(2, 3, 5, 5)], 2 * 3 * 25 * 8 * 16),
        (LSTM(3, 4, 2, bidirectional=True), [(7, 5, 3)], 35 * 2 * 4 * (4 * 3 + 16 + 4 * 8 + 16)),
        (GRU(3, 4), [(7, 5, 3)], 35 * 3 * (12 + 16)),
        (Unroll(LSTMCell(3, 4)), [(7, 5, 3)], 35 * 4 * (12 + 16)),
        (Repeat(Linear(4, 4), 3), [(2, 4)], 3 * 32),
        # 2 heads of 3 queries, 5 keys of width 4 and values of width 6
        (ScaledDotProductAttention(), [(2, 3, 4), (2, 5, 4), (2, 5, 6)], 2 * 3 * 5 * 10),
        # four projections of width 8, and two products of 6 queries with 6 keys
        (MultiheadAttention(8, 2), [(6, 1, 8)] * 3, 4 * 6 * 64 + 2 * 6 * 6 * 8),
        # 7 steps of 2 sequences, 5 slots of width 4: controller, heads, output; 3 heads look, 1 reads, 2 erase and add
        (
            NTM(3, 2, 6, memory_size=(5, 4), write_heads=2),
            [(7, 2, 3)],
            14 * (7 * 6 + 6 * (2 * 8 + 3 * 10) + 10 * 2 + 3 * 20 + 3 * 5 * 3 + 20 + 2 * 2 * 20),
        ),
        (ReLU(), [(3, 4)], 0),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (int, list)) else "",
)
def test_what_is_counted(layer, shapes, wanted):
    counted = multiply_adds(layer, *(zeros(*shape) for shape in shapes))
    assert (counted["forward"], counted["backward"]) == (wanted, 2 * wanted)


def test_resnet20_costs_what_is_published():
    assert multiply_adds(MODELS["resnet20"].build(Backhand()), zeros(1, 3, 32, 32))["forward"] == 40_551_040


def test_counting_leaves_a_model_as_it_was():
    model = Sequential(Linear(5, 7), Repeat(Linear(7, 7), 2))
    attributes = [list(vars(layer)) for layer in model.modules()]
    multiply_adds(model, zeros(1, 5))
    assert [
        [name for name in vars(layer) if name not in ("_stack", "_first")] for layer in model.modules()
    ] == attributes
    with pytest.raises(RuntimeError, match="no forward"):
        model.backward(zeros(1, 7))


def test_a_subclass_counts_as_what_it_is():
    class Mine(Linear):
        """A Linear of somebody."""

    assert multiply_adds(Mine(4, 2), zeros(3, 4))["forward"] == 24
