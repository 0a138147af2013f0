"""Bugs that the doctor was not made with: other layers, written after its hypotheses."""

from __future__ import annotations

from typing import Any

import numpy as np

from backhand import layers as L
from backhand import losses, models
from backhand.layers import Layer
from tests.bugs import Bug, changed, in_backward, remembering, wrong
from tests.bugs.anywhere import (
    by_size,
    extra_axis,
    first_in_first_out,
    forgets_local,
    noisy,
    one_slot,
    only_last,
    overwrites,
    spoils_dout,
    spoils_input,
    times,
    with_nan,
    without_dx,
)
from tests.bugs.particular import mask_of_dout, replaced, shifted
from tests.bugs.patients import PATIENTS, distinct, normal, of
from tests.cases import labels, uniform

PATIENTS.update(
    {
        "Mish": (of(L.Mish), (normal(3, 6),)),
        "Hardswish": (of(L.Hardswish), (normal(4, 6) * 2,)),
        "Softshrink": (of(L.Softshrink), (normal(4, 6),)),
        "Threshold": (of(L.Threshold, 0.3, 1.5), (normal(4, 6),)),
        "Softmin": (of(L.Softmin, -1), (normal(3, 5),)),
        "Softmax2d": (of(L.Softmax2d), (normal(2, 4, 2, 3),)),
        "LogSigmoid": (of(L.LogSigmoid), (normal(7, 3),)),
        "Softsign": (of(L.Softsign), (normal(7, 3),)),
        "Tanhshrink": (of(L.Tanhshrink), (normal(7, 3),)),
        "Conv3d": (of(L.Conv3d, 1, 2, 2, rng=0), (normal(3, 1, 3, 2, 3),)),
        "ConvTranspose2d": (of(L.ConvTranspose2d, 2, 3, 2, rng=0), (normal(3, 2, 2, 4),)),
        "AdaptiveMaxPool1d": (of(L.AdaptiveMaxPool1d, 3), (distinct(2, 3, 8),)),
        "LPPool1d": (of(L.LPPool1d, 2, 2), (normal(2, 3, 6),)),
        "AvgPool3d": (of(L.AvgPool3d, (1, 2, 3)), (normal(2, 2, 2, 4, 3),)),
        "PixelShuffle": (of(L.PixelShuffle, 2), (normal(3, 4, 2, 3),)),
        "ReflectionPad1d": (of(L.ReflectionPad1d, 2), (normal(2, 3, 5),)),
        "CircularPad1d": (of(L.CircularPad1d, 1), (normal(2, 3, 5),)),
        "BatchNorm3d": (of(L.BatchNorm3d, 2), (normal(2, 2, 2, 1, 3),)),
        "InstanceNorm2d": (of(L.InstanceNorm2d, 2, affine=True), (normal(3, 2, 3, 4),)),
        "LayerNorm images": (of(L.LayerNorm, (2, 4)), (normal(3, 5, 2, 4),)),
        "GRUCell": (of(L.GRUCell, 3, 2, rng=0), (normal(5, 3), normal(5, 2))),
        "RNN two ways": (of(L.RNN, 3, 2, rng=0, bidirectional=True), (normal(4, 3, 3),)),
        "LSTM batch first": (of(L.LSTM, 2, 3, rng=0, batch_first=True), (normal(3, 5, 2),)),
        "TransformerEncoderLayer": (
            of(L.TransformerEncoderLayer, 4, 2, 6, 0.0, batch_first=True, rng=0),
            (normal(2, 3, 4),),
        ),
        "EmbeddingBag": (of(L.EmbeddingBag, 6, 3, mode="sum", rng=0), (labels(6, 4, 5),)),
        "PairwiseDistance": (of(L.PairwiseDistance), (normal(5, 3), normal(5, 3))),
        "AlphaDropout": (of(L.AlphaDropout, 0.3, rng=0), (normal(5, 4),)),
        "Dropout2d": (of(L.Dropout2d, 0.3, rng=1), (normal(3, 4, 2, 2),)),
        "RotaryPositionalEncoding": (of(L.RotaryPositionalEncoding, 4), (normal(2, 3, 4),)),
        "Permute": (of(L.Permute, (1, 0)), (normal(4, 4),)),
        "L1Loss": (of(losses.L1Loss), (normal(5, 3), normal(5, 3))),
        "HuberLoss": (of(losses.HuberLoss), (normal(7, 3), normal(7, 3))),
        "NLLLoss": (of(losses.NLLLoss), (normal(7, 3), labels(3, 7))),
        "KLDivLoss": (of(losses.KLDivLoss, reduction="batchmean"), (normal(6, 3), uniform(6, 3))),
        "Residual norm": (
            of(models.Residual, lambda: models.Sequential(L.LayerNorm(4), L.Linear(4, 4, rng=0), L.Tanh())),
            (normal(5, 4),),
        ),
        "Sequential": (
            of(models.Sequential, of(L.Linear, 3, 5, rng=0), of(L.ReLU), of(L.Linear, 5, 2, rng=1)),
            (normal(4, 3),),
        ),
        "Unroll LSTM": (of(models.Unroll, of(L.LSTMCell, 3, 2, rng=0)), (normal(4, 3, 3),)),
    }
)


def inside(position: int, infect: Any) -> Any:
    """Puts the bug into one layer of a Sequential."""

    def infect_it(layer: Layer) -> Layer:
        infect(list(layer.children())[position])
        return layer

    return infect_it


def conv_bias_mean(g: np.ndarray, x: np.ndarray, dout: np.ndarray) -> np.ndarray:
    return dout.mean(axis=tuple(i for i in range(dout.ndim) if i != 1))


def softmax_like(of: Any) -> Any:
    def infect(layer: Layer) -> Layer:
        def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
            right(self, dout)
            return of(dout, inputs[0])

        return remembering(layer, backward)

    return infect


def softmin(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.exp(-x) / np.exp(-x).sum(axis, keepdims=True)


def channel_softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def no_state_gradient(layer: Layer) -> Layer:
    """A cell that returns nothing for the state."""
    right = type(layer).backward

    def backward(self: Layer, dout: Any) -> Any:
        dx, _ = right(self, dout)
        return dx

    return wrong(layer, backward=backward)


def recurrent_zero(layer: Layer) -> Layer:
    """The cell sends back no gradient by its state."""
    cell = layer.cell
    right = type(cell).backward

    def backward(self: Layer, dout: Any) -> Any:
        back = right(self, dout)
        if isinstance(back, tuple):
            return back[0], tuple(s * 0 for s in back[1]) if isinstance(back[1], tuple) else back[1] * 0
        return back

    wrong(cell, backward=backward)
    return layer


def scattered_once(layer: Layer) -> Layer:
    """dW[x] = dout: of a row that is read twice, one reading counts."""

    def backward(self: Layer, right: Any, inputs: Any, dout: Any) -> Any:
        dx = right(self, dout)
        self.weight.grad[...] = 0
        self.weight.grad[inputs[0]] = dout if dout.ndim > 2 else dout[:, None, :]
        return dx

    return remembering(layer, backward)


BUGS = [
    *(
        Bug("sign", "sign", name, times(-1))
        for name in ("Mish", "L1Loss", "GRUCell", "PixelShuffle", "PairwiseDistance")
    ),
    *(Bug("sign", "sign of the weights", name, times(-1, dx=False)) for name in ("Conv3d", "EmbeddingBag")),
    *(Bug("factor 2", "twice", name, times(2)) for name in ("Softsign", "LayerNorm images", "KLDivLoss", "LPPool1d")),
    *(Bug("factor 2", "half of dx", name, times(0.5, dw=False)) for name in ("BatchNorm3d", "Unroll LSTM")),
    *(
        Bug("batch", "1/N in dx", name, by_size(-1, dw=False))
        for name in ("LogSigmoid", "ConvTranspose2d", "Hardswish")
    ),
    *(Bug("batch", "1/N in dw", name, by_size(-1, dx=False)) for name in ("GRUCell", "InstanceNorm2d", "EmbeddingBag")),
    *(Bug("batch", "no 1/N", name, by_size(1)) for name in ("NLLLoss", "KLDivLoss")),
    *(Bug("elements", "no mean", name, by_size(1, slice(None))) for name in ("HuberLoss", "L1Loss")),
    Bug("time", "1/T", "RNN", by_size(-1)),
    Bug("time", "1/T in dw", "LSTM batch first", by_size(-1, slice(1, 2), dx=False)),
    Bug("elements", "mean over batch and space", "Conv2d", replaced("bias", conv_bias_mean)),
    Bug("elements", "mean over batch and space", "ConvTranspose2d", replaced("bias", conv_bias_mean)),
    *(Bug("zero", "dx zero", name, times(0, dw=False)) for name in ("Mish", "ConvTranspose2d", "AdaptiveMaxPool1d")),
    *(Bug("zero", "dw zero", name, times(0, dx=False)) for name in ("BatchNorm3d", "LSTM batch first", "Conv3d")),
    *(Bug("missing", "no dx", name, without_dx) for name in ("Softmax2d", "LSTM batch first", "HuberLoss")),
    Bug("missing", "no gradient by the state", "GRUCell", no_state_gradient),
    *(Bug("nan", "NaN", name, changed(with_nan)) for name in ("PairwiseDistance", "LPPool1d", "LogSigmoid")),
    *(Bug("shape", "summed", name, changed(extra_axis)) for name in ("ReflectionPad1d", "Softmin", "Permute")),
    *(
        Bug("last sample", "only the last sample of dx", name, changed(only_last))
        for name in ("Conv3d", "HuberLoss", "Softmax2d", "InstanceNorm2d", "LogSigmoid", "CircularPad1d")
    ),
    *(Bug("overwrites", "=", name, overwrites) for name in ("GRUCell", "Conv3d", "EmbeddingBag", "InstanceNorm2d")),
    *(Bug("cache", "one slot", name, one_slot) for name in ("Mish", "AlphaDropout", "GRUCell", "AdaptiveMaxPool1d")),
    *(
        Bug("cache", "queue", name, first_in_first_out)
        for name in ("Conv3d", "Softmin", "PairwiseDistance", "LSTM batch first", "Dropout2d")
    ),
    *(Bug("input changed", "writes into x", n, spoils_input) for n in ("Mish", "GRUCell", "LPPool1d", "CircularPad1d")),
    *(Bug("dout changed", "writes into dout", n, spoils_dout) for n in ("Softmin", "Conv3d", "BatchNorm3d")),
    *(Bug("stochastic", "draws anew", n, noisy) for n in ("GRUCell", "LayerNorm images", "LPPool1d")),
    *(
        Bug("local", "dx = dout", n, forgets_local)
        for n in ("Mish", "Hardswish", "Softmax2d", "LayerNorm images", "AlphaDropout", "LogSigmoid", "Threshold")
    ),
    Bug("local", "dx = dout", "Permute", forgets_local, also=("transposed",)),
    *(
        Bug("mask from dout", "dout > 0", n, mask_of_dout(s))
        for n, s in (("Threshold", 0), ("Softshrink", 0), ("PReLU", 0.25), ("Dropout2d", 0), ("Hardtanh", 0))
    ),
    *(
        Bug("shifted", f"{by:+d}", n, shifted(by))
        for n in ("Conv3d", "ConvTranspose2d", "ReflectionPad1d", "AvgPool3d", "CircularPad1d")
        for by in (1, -1)
        if n != "AvgPool3d"
    ),
    Bug("shifted", "+1 in height", "Conv2d square", shifted(1, 2)),
    Bug("shifted", "-1 in height", "MaxPool2d", shifted(-1, 2)),
    Bug("coupling", "diagonal only", "Softmin", softmax_like(lambda d, x: -d * softmin(x) * (1 - softmin(x)))),
    Bug(
        "coupling",
        "diagonal only",
        "Softmax2d",
        softmax_like(lambda d, x: d * channel_softmax(x) * (1 - channel_softmax(x))),
    ),
    Bug("recurrent", "dh not carried", "Unroll LSTM", recurrent_zero),
    Bug("shared weights", "dW[x] = dout", "Embedding", scattered_once, also=("overwrites",)),
    Bug("shared weights", "dW[x] = dout", "EmbeddingBag", scattered_once, also=("overwrites",)),
    Bug(
        "transposed weight", "U transposed", "RNNCell square", in_backward(lambda s: s.weight_hh, "data", np.transpose)
    ),
    Bug(
        "transposed weight",
        "W transposed",
        "Bilinear square",
        in_backward(lambda s: s.weight, "data", lambda w: w.swapaxes(1, 2)),
    ),
    Bug("parameter left out", "no gamma", "InstanceNorm2d", in_backward(lambda s: s.weight, "data", np.ones_like)),
    Bug("parameter left out", "no gamma", "LayerNorm images", in_backward(lambda s: s.weight, "data", np.ones_like)),
    Bug(
        "sign",
        "weight negated inside",
        "Sequential",
        inside(0, in_backward(lambda s: s.weight, "data", np.negative)),
    ),
    Bug("mask from dout", "inside", "Sequential", inside(1, mask_of_dout())),
    Bug("batch", "inside", "Sequential", inside(2, by_size(-1))),
    Bug("local", "inside", "Residual norm", lambda layer: inside(2, forgets_local)(layer.body) and layer),
    Bug("sign", "inside", "Residual norm", lambda layer: inside(1, times(-1))(layer.body) and layer),
    Bug("sign", "inside", "TransformerEncoderLayer", lambda layer: times(-1)(layer.norm1) and layer),
    Bug("batch", "inside", "TransformerEncoderLayer", lambda layer: by_size(-1)(layer.linear2) and layer),
]
PATIENTS["RNNCell square"] = (of(L.RNNCell, 3, 2, rng=0), (normal(5, 3), normal(5, 2)))
PATIENTS["Bilinear square"] = (of(L.Bilinear, 3, 3, 2, rng=0), (normal(5, 3), normal(5, 3)))
