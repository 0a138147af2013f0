"""Losses that set one array against another: they never broadcast in silence, and know which labels they want."""

from __future__ import annotations

import numpy as np
import pytest

from backhand.layers import LayerError, Linear
from backhand.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    ELBOLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MarginRankingLoss,
    MSELoss,
    MultiLabelSoftMarginLoss,
    PoissonNLLLoss,
    SequenceBCELoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TripletMarginLoss,
)

# every number has a target of its own; what else a loss takes stands where it is taken
PAIRS = {
    MSELoss: lambda x, t: (x, t),
    L1Loss: lambda x, t: (x, t),
    HuberLoss: lambda x, t: (x, t),
    SmoothL1Loss: lambda x, t: (x, t),
    KLDivLoss: lambda x, t: (x, t),
    PoissonNLLLoss: lambda x, t: (x, t),
    GaussianNLLLoss: lambda x, t: (x, t, np.ones_like(x)),
    BCELoss: lambda x, t: (x, t),
    BCEWithLogitsLoss: lambda x, t: (x, t),
    MultiLabelSoftMarginLoss: lambda x, t: (x, t),
    SoftMarginLoss: lambda x, t: (x, t),
    HingeEmbeddingLoss: lambda x, t: (x, t),
    MarginRankingLoss: lambda x, t: (x, x, t),
    ELBOLoss: lambda x, t: (x, np.ones((len(x), 2)), np.ones((len(x), 2)), t),
}
# (shape of the scores, shape of the target, the reshape that mends it)
SHAPES = [
    ((64, 1), (64,), "target.reshape(64, 1) mends it"),
    ((64,), (64, 1), "target.reshape(64) mends it"),
    ((64,), (1, 64), "target.reshape(64) mends it"),
    ((64, 1), (1, 64), "target.reshape(64, 1) mends it"),
    ((4, 3), (12,), "target.reshape(4, 3) mends it"),
    ((1, 1), (), "target.reshape(1, 1) mends it"),
    ((4, 3), (3, 4), ""),  # turned round: reshape would mix the numbers up
    ((4, 3), (3,), ""),
    ((4, 3), (4, 1), ""),
    ((4, 3), (1, 3), ""),
    ((4, 3), (), ""),
    ((4, 1), (4, 3), ""),
    ((3,), (4, 3), ""),
]


@pytest.mark.parametrize(("shape", "other", "mended"), SHAPES)
@pytest.mark.parametrize("cls", PAIRS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_shapes_that_differ_are_refused(cls, shape, other, mended, reduction):
    loss = cls(reduction=reduction)
    with pytest.raises(LayerError) as error:
        loss(*PAIRS[cls](np.full(shape, 0.5), np.ones(other)))
    assert f"expected a target of the input's shape {shape}, got {other}" in str(error.value)
    assert str(error.value).endswith(mended or f"got {other}")
    assert not loss._stack


@pytest.mark.parametrize("other", [(4, 1), (1, 5), (5,), (1, 4, 5), (5, 4), (4, 5, 1)])
def test_two_inputs_that_are_compared_have_one_shape(other):
    x = np.ones((4, 5))
    for loss, target in ((MarginRankingLoss(), x), (CosineEmbeddingLoss(), np.ones(4))):
        with pytest.raises(LayerError, match="expected x2 of the input's shape"):
            loss(x, np.ones(other), target)
    if other not in ((1, 5), (4, 5)):  # one vector for all is one
        with pytest.raises(LayerError, match=r"anchor, positive and negative of one shape \(\.\.\., D\)"):
            TripletMarginLoss()(x, x, np.ones(other))


def test_a_rate_is_learned_from_a_column_or_an_error_comes():
    """What came of (64, 1) against (64,): a slope of 0.18 where 2 is right."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
    counts = np.exp(2 * x[:, 0])
    layer, loss = Linear(1, 1, rng=0), PoissonNLLLoss()
    with pytest.raises(LayerError, match=r"target.reshape\(64, 1\) mends it"):
        loss(layer(x), counts)
    for _ in range(600):
        layer.zero_grad()
        loss(layer(x), counts.reshape(64, 1))
        layer.backward(loss.backward())
        for parameter in layer.parameters():
            parameter.data -= 0.3 * parameter.grad
    assert layer.weight.data.item() == pytest.approx(2, abs=0.02)


# ---------------------------------------------------------------------- which labels

X = np.full((2, 3), 0.5)
SIGNED = {
    HingeEmbeddingLoss: lambda t: (X, t),
    SoftMarginLoss: lambda t: (X, t),
    MarginRankingLoss: lambda t: (X, X, t),
    CosineEmbeddingLoss: lambda t: (np.ones((6, 2)), np.ones((6, 2)), t.reshape(6)),
}
SHARED = {
    BCELoss: lambda t: (X, t),
    BCEWithLogitsLoss: lambda t: (X, t),
    MultiLabelSoftMarginLoss: lambda t: (X, t),
    SequenceBCELoss: lambda t: (X[None], t[None]),
    ELBOLoss: lambda t: (X, X, X, t),
}
LABELS = np.array([[0, 1, 1], [1, 0, 1]])


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("cls", SIGNED)
def test_labels_of_0_and_1_where_signs_are_wanted(cls, kind):
    loss = cls()
    with pytest.raises(LayerError, match=r"a target of 1 and -1, got 0 at \[0.*2 \* target - 1 makes them of 0 and 1"):
        loss(*SIGNED[cls](LABELS.astype(kind)))
    assert not loss._stack
    loss(*SIGNED[cls](2 * LABELS - 1))


@pytest.mark.parametrize("value", [0.5, 2, -2, np.nan, np.inf])
def test_targets_that_are_neither_1_nor_minus_1(value):
    target = np.ones((2, 3))
    target[1, 0] = value
    for cls in SIGNED:
        if cls is HingeEmbeddingLoss:
            with pytest.raises(LayerError, match=rf"a target of 1 and -1, got {value:g} at \[1, 0\]$"):
                cls()(*SIGNED[cls](target))
        elif np.isfinite(value):
            cls()(*SIGNED[cls](target))  # a number as any other, as in torch


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("cls", SHARED)
def test_signs_where_labels_of_0_and_1_are_wanted(cls, kind):
    loss = cls()
    with pytest.raises(LayerError, match="target between 0 and 1, got -1 and 1; "):
        loss(*SHARED[cls]((2 * LABELS - 1).astype(kind)))
    assert not loss._stack
    loss(*SHARED[cls](LABELS))


@pytest.mark.parametrize("cls", [BCELoss, SequenceBCELoss, ELBOLoss])  # the two others take any number, as in torch
def test_pixels_of_255_where_shares_are_wanted(cls):
    with pytest.raises(LayerError, match="target between 0 and 1, got 0 to 255"):
        cls()(*SHARED[cls](255 * LABELS))
    cls()(*SHARED[cls](LABELS * np.float32(1.0000001)))  # rounding is none
