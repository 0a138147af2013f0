"""Small layers that bugs are put into. Sizes differ from axis to axis, so that no two can be taken for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backhand import layers as L
from backhand import losses, models
from tests.cases import labels, off_kink, spread_parameters, uniform

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return off_kink(RNG, shape)


def distinct(*shape: int) -> np.ndarray:
    size = int(np.prod(shape))
    return (RNG.permutation(size) - size / 2 + 0.25).reshape(shape) / 10


def of(cls: Any, *args: Any, **kwargs: Any) -> Callable[[], L.Layer]:
    def make() -> L.Layer:
        arguments = [a() if callable(a) and not isinstance(a, type) else a for a in args]
        layer: L.Layer = cls(*arguments, **kwargs).astype(np.float64)
        spread_parameters(layer)
        return layer

    return make


PATIENTS: dict[str, tuple[Callable[[], L.Layer], tuple[Any, ...]]] = {
    "Linear": (of(L.Linear, 3, 4, rng=0), (normal(5, 3),)),
    "Linear square": (of(L.Linear, 3, 3, rng=0), (normal(5, 3),)),
    "Linear over time": (of(L.Linear, 3, 4, rng=0), (normal(2, 5, 3),)),
    "Bilinear": (of(L.Bilinear, 3, 4, 2, rng=0), (normal(5, 3), normal(5, 4))),
    "Conv1d": (of(L.Conv1d, 2, 3, 3, padding=1, rng=0), (normal(4, 2, 6),)),
    "Conv1d stride": (of(L.Conv1d, 2, 3, 3, stride=2, padding=1, rng=0), (normal(4, 2, 7),)),
    "Conv2d": (of(L.Conv2d, 2, 3, 2, rng=0), (normal(5, 2, 4, 3),)),
    "Conv2d square": (of(L.Conv2d, 2, 2, 3, padding=1, rng=0), (normal(3, 2, 5, 4),)),
    "ConvTranspose1d": (of(L.ConvTranspose1d, 2, 3, 3, 2, rng=0), (normal(4, 2, 5),)),
    "MaxPool1d": (of(L.MaxPool1d, 2), (distinct(3, 2, 8),)),
    "MaxPool2d": (of(L.MaxPool2d, 2), (distinct(3, 2, 4, 6),)),
    "AvgPool1d": (of(L.AvgPool1d, 3, 2), (normal(3, 2, 9),)),
    "AvgPool2d": (of(L.AvgPool2d, 2), (normal(3, 2, 4, 6),)),
    "AdaptiveAvgPool1d": (of(L.AdaptiveAvgPool1d, 2), (normal(3, 2, 7),)),
    "Upsample": (of(L.Upsample, scale_factor=2), (normal(3, 2, 5),)),
    "ZeroPad1d": (of(L.ZeroPad1d, 2), (normal(3, 2, 5),)),
    "ReLU": (of(L.ReLU), (normal(5, 4),)),
    "LeakyReLU": (of(L.LeakyReLU, 0.2), (normal(5, 4),)),
    "ELU": (of(L.ELU), (normal(5, 4),)),
    "PReLU": (of(L.PReLU, 4), (normal(5, 4),)),
    "Hardtanh": (of(L.Hardtanh), (normal(5, 4) * 1.3,)),
    "Sigmoid": (of(L.Sigmoid), (normal(5, 4),)),
    "Tanh": (of(L.Tanh), (normal(5, 4),)),
    "GELU": (of(L.GELU), (normal(5, 4),)),
    "SiLU": (of(L.SiLU), (normal(5, 4),)),
    "Softplus": (of(L.Softplus), (normal(5, 4),)),
    "GLU": (of(L.GLU), (normal(5, 4),)),
    "Softmax": (of(L.Softmax, 1), (normal(5, 4),)),
    "LogSoftmax": (of(L.LogSoftmax, 1), (normal(5, 4),)),
    "BatchNorm1d": (of(L.BatchNorm1d, 4), (normal(6, 4),)),
    "BatchNorm2d": (of(L.BatchNorm2d, 2), (normal(4, 2, 3, 2),)),
    "LayerNorm": (of(L.LayerNorm, 6), (normal(5, 6),)),
    "RMSNorm": (of(L.RMSNorm, 6), (normal(5, 6),)),
    "GroupNorm": (of(L.GroupNorm, 2, 4), (normal(3, 4, 5),)),
    "InstanceNorm1d": (of(L.InstanceNorm1d, 2, affine=True), (normal(3, 2, 6),)),
    "LocalResponseNorm": (of(L.LocalResponseNorm, 3, alpha=0.5), (normal(3, 5, 2),)),
    "Dropout": (of(L.Dropout, 0.4, rng=0), (normal(5, 4),)),
    "Dropout1d": (of(L.Dropout1d, 0.4, rng=0), (normal(3, 4, 2),)),
    "Add": (of(L.Add), (normal(5, 4), normal(4))),
    "Multiply": (of(L.Multiply), (normal(5, 4), normal(5, 1))),
    "Multiply alike": (of(L.Multiply), (normal(5, 4), normal(5, 4))),
    "Max": (of(L.Max), (normal(5, 4), normal(5, 4))),
    "Copy": (of(L.Copy, 3), (normal(5, 4),)),
    "Exp": (of(L.Exp), (normal(5, 4),)),
    "Reciprocal": (of(L.Reciprocal), (normal(5, 4),)),
    "Embedding": (of(L.Embedding, 7, 3, rng=0), (labels(7, 4, 3),)),
    "RNN": (of(L.RNN, 3, 4, rng=0), (normal(5, 2, 3),)),
    "LSTM": (of(L.LSTM, 3, 2, rng=0), (normal(5, 4, 3),)),
    "GRU": (of(L.GRU, 3, 2, rng=0), (normal(5, 4, 3),)),
    "RNNCell": (of(L.RNNCell, 3, 2, rng=0), (normal(5, 3), normal(5, 2))),
    "LSTMCell": (of(L.LSTMCell, 3, 2, rng=0), (normal(5, 3),)),
    "MultiheadAttention": (of(L.MultiheadAttention, 4, 2, batch_first=True, rng=0), (normal(2, 3, 4),) * 3),
    "ScaledDotProductAttention": (
        of(L.ScaledDotProductAttention),
        (normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4)),
    ),
    "CosineSimilarity": (of(L.CosineSimilarity, 1), (normal(5, 4), normal(5, 4))),
    "Residual": (of(models.Residual, of(L.Linear, 3, 3, rng=0)), (normal(5, 3),)),
    "Residual shortcut": (
        of(models.Residual, of(L.Linear, 3, 4, rng=0), of(L.Linear, 3, 4, rng=1)),
        (normal(5, 3),),
    ),
    "Sum": (of(models.Sum, of(L.Linear, 3, 4, rng=0), of(L.Linear, 3, 4, rng=1)), (normal(5, 3),)),
    "Concat": (of(models.Concat, of(L.Linear, 3, 4, rng=0), of(L.Linear, 3, 2, rng=1)), (normal(5, 3),)),
    "Repeat": (of(models.Repeat, of(L.Linear, 3, 3, rng=0), 3), (normal(5, 3),)),
    "Unroll": (of(models.Unroll, of(L.RNNCell, 3, 2, rng=0)), (normal(4, 5, 3),)),
    "CrossEntropyLoss": (of(losses.CrossEntropyLoss), (normal(5, 4), labels(4, 5))),
    "MSELoss": (of(losses.MSELoss), (normal(5, 3), normal(5, 3))),
    "BCEWithLogitsLoss": (of(losses.BCEWithLogitsLoss), (normal(5, 3), uniform(5, 3))),
    "SmoothL1Loss": (of(losses.SmoothL1Loss), (normal(5, 3), normal(5, 3))),
}
