"""Losses over sequences: of bits, at the last steps, where the answer is wanted; and of tokens, at every place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.activations import sigmoid, softplus
from backhand.layers.parameter import Array
from backhand.losses.base import Loss, summed
from backhand.losses.classification import CrossEntropyLoss


class SequenceBCELoss(Loss):
    """What a sequence of bits costs: the binary cross-entropy, summed over it.

        l_b = sum over t, c of softplus(x) - target x,    over the last L steps        dx = dl (sigmoid(x) - target)

    x : (T, B, C) logits      target : (L, B, C), numbers from 0 to 1, wanted at the last L steps, L <= T
    reduction : "mean" over the B sequences, "sum", or "none" for all l, (B,)

    In nats; divided by ln 2 it is bits per sequence. dx is 0 at the steps before, where nothing is asked.
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, section 4, count their costs so.
    """

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x = self.input(x)
        target = self.input(target, x.dtype)
        fits = x.ndim == target.ndim == 3 and x.shape[1:] == target.shape[1:] and len(target) <= len(x)
        if not fits:
            self.reject("x (T, B, C) and a target (L, B, C) for its last L steps", f"{x.shape} and {target.shape}")
        self.shares(target)
        last = x[len(x) - len(target) :]
        losses = (softplus(last) - target * last).sum(axis=(0, 2))
        self.save(x, target, out=losses)
        return self.reduce(losses)

    def backward(self, dout: Any = None) -> Any:
        dl = self.upstream(dout)
        x, target = self.saved()
        dx = np.zeros_like(x)
        start = len(x) - len(target)
        dx[start:] = dl[:, None] * (sigmoid(x[start:]) - target)
        return dx


class SequenceCrossEntropyLoss(Loss):
    """CrossEntropyLoss for scores as sequence models give them: the classes on the last axis.

        l = -log p_t,    p = softmax(x) over the last axis,    t the label        dx = dl (p - onehot(t))

    x : (N, T, V), or (..., V) with any axes before the last      target : integer labels (N, T), or (...)
    weight, ignore_index, label_smoothing : as in CrossEntropyLoss. With ignore_index at the places after the end of a
        sequence, padding costs nothing and gets no gradient
    reduction : "mean" over the labels that count, "sum", "none" for all l, of target's shape; "batchmean", their sum
        divided by the length of the first axis

    exp of the mean is the perplexity, the mean divided by ln 2 is bits per token.
    """

    reductions = ("mean", "sum", "none", "batchmean")
    class_axis = -1  # where `accuracy` finds the classes

    def __init__(
        self,
        weight: ArrayLike | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction=reduction)
        self.inner = CrossEntropyLoss(
            weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
        )
        self.ignore_index, self.label_smoothing = self.inner.ignore_index, self.inner.label_smoothing

    def forward(self, x: ArrayLike, target: ArrayLike) -> Any:
        x, target = self.input(x), self.anything("target", target)
        if not x.ndim or target.shape != x.shape[:-1] or target.dtype.kind not in "iu":
            wanted = "x of shape (..., V)" if not x.ndim else f"integer labels of shape {x.shape[:-1]}"
            self.reject(wanted, f"{target.dtype} of shape {target.shape}" if x.ndim else x.shape)
        # every place is a sample of its own; in this shape CrossEntropyLoss is at its fastest
        losses = self.inner.forward(x.reshape(-1, x.shape[-1]), target.reshape(-1)).reshape(target.shape)
        count = self._count(target)
        self.save(x.shape, out=losses, count=count)
        return self.reduce(losses, count)

    def backward(self, dout: Any = None) -> Array:
        dl = self.upstream(dout)
        (shape,) = self.saved()
        return self.inner.backward(dl.reshape(-1)).reshape(shape)

    def _count(self, target: Array) -> float:
        """What the sum is divided by: the weights of the labels that count, or the number of sequences."""
        if self.reduction == "batchmean":
            return len(target) if target.ndim else 1
        counted, weight = target[target != self.ignore_index], self.inner.weight
        return counted.size if weight is None else summed(weight[counted])
